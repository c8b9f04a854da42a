"""Where everything is kept: the two streams of a pool and the consumer that its workers share.

The wait stream is a work queue with one message for each id: the server refuses a second one, hands
each to one worker at a time, and deletes what is acknowledged. The done stream keeps the last end
of each id for a week. Both are files; on a cluster each is kept three times.
"""

import re

import nats.errors
import nats.js.errors
from msgspec import Struct
from nats.js import JetStreamContext, api

from luma_async import validation as checks
from luma_async.errors import QueueError

RESULT_MAX_AGE = 7 * 86_400.0
DUPLICATE_WINDOW = 600.0
ACK_WAIT = 60.0
MAX_WAITING_PULLS = 4096
REPLICAS = 3

_NOT_STORED = 10077
_DUPLICATE = "per subject exceeded"
_NO_CLUSTER = 10074
_NO_PEERS = 10005
_NAME_TAKEN = 10058
_NO_JETSTREAM = (10039, 10076)
_NO_LEADER = (None, 10008, 10009)

NATS_ERRORS = (nats.errors.Error, TimeoutError, OSError)


class Names(Struct, frozen=True):
    """What a pool's streams and subjects are called; `pool` has letters, digits, `-` and `_`."""

    pool: str = "luma"

    def __post_init__(self) -> None:
        checks.instance("pool", self.pool, str, "a name such as 'luma'")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.pool):
            raise ValueError(
                f"pool={self.pool!r}; give a name of up to 64 letters, digits, - and _"
            )

    @property
    def wait(self) -> str:
        """The stream of ids that wait."""
        return f"{self.pool}-wait"

    @property
    def done(self) -> str:
        """The stream of ends."""
        return f"{self.pool}-done"

    @property
    def consumer(self) -> str:
        """The consumer that all workers share."""
        return "workers"

    @property
    def peers(self) -> str:
        """The subject on which workers tell each other what they hold."""
        return f"{self.pool}.workers"

    def waiting(self, token: str) -> str:
        """Return the subject of an id that waits."""
        return f"{self.pool}.wait.{token}"

    def ended(self, token: str) -> str:
        """Return the subject of an id's end."""
        return f"{self.pool}.done.{token}"


async def ensure(js: JetStreamContext, names: Names, replicas: int | None) -> None:
    """Make the two streams if they are not there.

    `replicas` None means three where the server is one of a cluster. Raises QueueError where they
    cannot be made, or are there and of another kind.
    """
    waiting = api.StreamConfig(
        name=names.wait,
        description="ids of Luma tasks that wait for their end",
        subjects=[names.waiting("*")],
        retention=api.RetentionPolicy.WORK_QUEUE,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        discard_new_per_subject=True,
        max_msgs_per_subject=1,
    )
    ended = api.StreamConfig(
        name=names.done,
        description="the last end of each id",
        subjects=[names.ended("*")],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        max_msgs_per_subject=1,
        max_age=RESULT_MAX_AGE,
        duplicate_window=DUPLICATE_WINDOW,
        allow_direct=True,
    )
    for config in (ended, waiting):
        await _ensure(js, config, replicas)


async def ensure_consumer(
    js: JetStreamContext, names: Names, ack_wait: float | None, *, new: float = ACK_WAIT
) -> float:
    """Make the consumer if it is not there; return the seconds of its lease.

    A lease that is given is set for all workers; None leaves it as it is, at first `new`.
    """
    try:
        found = await js.consumer_info(names.wait, names.consumer)
        if ack_wait in (None, found.config.ack_wait):
            return found.config.ack_wait or ACK_WAIT
    except nats.js.errors.NotFoundError:
        pass
    made = await js.add_consumer(  # pyright: ignore[reportUnknownMemberType]
        names.wait,
        api.ConsumerConfig(
            durable_name=names.consumer,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=new if ack_wait is None else ack_wait,
            max_deliver=-1,
            max_ack_pending=-1,
            max_waiting=MAX_WAITING_PULLS,
        ),
    )
    return made.config.ack_wait or ACK_WAIT


async def _ensure(js: JetStreamContext, config: api.StreamConfig, replicas: int | None) -> None:
    try:
        found = (await js.stream_info(str(config.name))).config
    except nats.js.errors.NotFoundError:
        found = await _create(js, config, replicas)
    for what in ("subjects", "retention", "max_msgs_per_subject", "discard_new_per_subject"):
        if getattr(found, what) != getattr(config, what):
            raise QueueError(
                f"stream {config.name} is there with another {what}; "
                "give another pool, or remove the stream"
            )


async def _create(
    js: JetStreamContext, config: api.StreamConfig, replicas: int | None
) -> api.StreamConfig:
    try:
        made = await js.add_stream(  # pyright: ignore[reportUnknownMemberType]
            config, num_replicas=replicas or REPLICAS
        )
    except nats.js.errors.APIError as error:
        if error.err_code == _NO_CLUSTER and replicas is None:
            return await _create(js, config, 1)
        if error.err_code == _NAME_TAKEN:
            return (await js.stream_info(str(config.name))).config
        raise queue_error(error) from None
    return made.config


def reason(error: BaseException) -> str:
    """Return what an error says, or else what it is."""
    return str(error) or type(error).__name__


def is_duplicate(error: nats.js.errors.APIError) -> bool:
    """Whether a message was refused because its id waits already.

    A stream or a disk that is full has the same code; what differs is the words.
    """
    return error.err_code == _NOT_STORED and _DUPLICATE in (error.description or "")


def is_transient(error: Exception) -> bool:
    """Whether nobody answered, or nobody who may: so it is while a cluster elects a leader."""
    if isinstance(error, nats.js.errors.ServiceUnavailableError):
        return error.err_code in _NO_LEADER
    return isinstance(error, (nats.js.errors.NoStreamResponseError, TimeoutError))


def queue_error(error: nats.js.errors.APIError) -> QueueError:
    """Say what a server refuses, and what to do about it."""
    remedies = {
        _NO_CLUSTER: "give replicas=1, or start a cluster",
        _NO_PEERS: "start all nodes of the cluster, or give fewer replicas",
        **dict.fromkeys(_NO_JETSTREAM, "switch JetStream on (nats-server --jetstream)"),
    }
    unknown = "see the log of the server" if error.err_code else remedies[_NO_JETSTREAM[0]]
    remedy = remedies.get(error.err_code or 0, unknown)
    what = error.description or "it does not answer for JetStream"
    return QueueError(f"the NATS server refuses: {what}; {remedy}")
