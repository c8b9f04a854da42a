"""The two JetStream streams of a pool, the consumer that its workers share, and NATS errors.

The wait stream is a work queue with one message per id. The server rejects a second message for the
same id, delivers each message to one worker at a time, and deletes it when it is acknowledged. The
done stream keeps the last result of each id for a week. Both are stored in files; a cluster keeps
three copies of each.

The sequence numbers of a new stream begin at the microseconds since the Unix epoch, not at 1. So no
number is used a second time if a stream is deleted and created again. Servers before 2.10 begin at
1.
"""

import re
import time
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

import anyio
import nats.errors
import nats.js.errors
from msgspec import Struct
from nats.aio.client import Client
from nats.js import JetStreamContext, api

from luma_async import validation as checks
from luma_async.errors import QueueError
from luma_async.worker.server.stream_info import StreamInfo, stream_info

T = TypeVar("T")

RESULT_MAX_AGE = 7 * 86_400.0  # seconds
ACK_WAIT = 60.0  # seconds of a lease, unless a worker sets another time
MAX_WAITING_PULLS = 4096
CLUSTER_REPLICAS = 3
RETRY_FOR = 30.0  # seconds
RETRY_DELAY = 0.25  # seconds
MAX_CONCURRENT_REQUESTS = 256

# error codes of the server
_NOT_STORED = 10077
_DUPLICATE = "per subject exceeded"
_NO_CLUSTER = 10074
_NO_PEERS = 10005
_NAME_TAKEN = 10058
_NO_JETSTREAM = (10039, 10076)
_NO_LEADER = (None, 10008, 10009)
_WRONG_LAST_SEQUENCE = (10071, 10164)

NATS_ERRORS = (nats.errors.Error, TimeoutError, OSError)


class Names(Struct, frozen=True):
    """Names of a pool's streams and subjects. `pool` consists of letters, digits, `-` and `_`."""

    pool: str = "luma"

    def __post_init__(self) -> None:
        checks.instance("pool", self.pool, str, "a name such as 'luma'")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.pool):
            raise ValueError(
                f"pool={self.pool!r}; give a name of up to 64 letters, digits, - and _"
            )

    @property
    def wait(self) -> str:
        """Name of the stream of submitted ids."""
        return f"{self.pool}-wait"

    @property
    def done(self) -> str:
        """Name of the stream of results."""
        return f"{self.pool}-done"

    @property
    def consumer(self) -> str:
        """Name of the consumer that all workers share."""
        return "workers"

    @property
    def peers(self) -> str:
        """Subject on which workers announce their load to each other."""
        return f"{self.pool}.workers"

    def wait_subject(self, token: str) -> str:
        """Return the subject of a submitted id."""
        return f"{self.pool}.wait.{token}"

    def done_subject(self, token: str) -> str:
        """Return the subject of an id's result."""
        return f"{self.pool}.done.{token}"


async def ensure(
    client: Client, js: JetStreamContext, names: Names, replicas: int | None
) -> tuple[StreamInfo, StreamInfo]:
    """Create the two streams if they do not exist; return the wait stream and the done stream.

    `replicas` None means three copies on a cluster, one on a single server. Raises QueueError if a
    stream cannot be created, or exists with a different configuration.
    """
    first_seq = time.time_ns() // 1000
    wait = api.StreamConfig(
        name=names.wait,
        description="ids of Luma tasks that wait for their end",
        subjects=[names.wait_subject("*")],
        retention=api.RetentionPolicy.WORK_QUEUE,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        discard_new_per_subject=True,
        max_msgs_per_subject=1,
        first_seq=first_seq,
    )
    done = api.StreamConfig(
        name=names.done,
        description="the last result of each id",
        subjects=[names.done_subject("*")],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        max_msgs_per_subject=1,
        max_age=RESULT_MAX_AGE,
        allow_direct=True,
        first_seq=first_seq,
    )
    done_info = await _ensure(client, js, done, replicas)
    return await _ensure(client, js, wait, replicas), done_info


async def ensure_budget(js: JetStreamContext, name: str) -> None:
    """Create the stream of shared budgets if it does not exist. Raises QueueError."""
    # Not in a file: after a restart of the server, an old timetable would be wrong.
    config = api.StreamConfig(
        name=name,
        description="timetables of shared rate limits",
        subjects=[f"{name}.*"],
        storage=api.StorageType.MEMORY,
        max_msgs_per_subject=1,
        first_seq=time.time_ns() // 1000,
    )
    try:
        await js.stream_info(name)
    except nats.js.errors.NotFoundError:
        await _create(js, config, None)


async def ensure_consumer(
    js: JetStreamContext, names: Names, ack_wait: float | None, *, default: float = ACK_WAIT
) -> float:
    """Create the consumer if it does not exist; return the duration of a lease in seconds.

    `ack_wait` changes the duration for all workers of the pool. None keeps the present one; a new
    consumer gets `default`.
    """
    try:
        found = await js.consumer_info(names.wait, names.consumer)
        if ack_wait in (None, found.config.ack_wait):
            return found.config.ack_wait or ACK_WAIT
    except nats.js.errors.NotFoundError:
        pass
    created = await js.add_consumer(  # pyright: ignore[reportUnknownMemberType]
        names.wait,
        api.ConsumerConfig(
            durable_name=names.consumer,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=default if ack_wait is None else ack_wait,
            max_deliver=-1,
            max_ack_pending=-1,
            max_waiting=MAX_WAITING_PULLS,
        ),
    )
    return created.config.ack_wait or ACK_WAIT


async def _ensure(
    client: Client, js: JetStreamContext, config: api.StreamConfig, replicas: int | None
) -> StreamInfo:
    name = str(config.name)
    try:
        found = await stream_info(client, name)
    except nats.js.errors.NotFoundError:
        await _create(js, config, replicas)
        found = await stream_info(client, name)
    for field in ("subjects", "retention", "max_msgs_per_subject", "discard_new_per_subject"):
        if getattr(found.config, field) != (getattr(config, field) or False):
            raise QueueError(
                f"stream {name} exists with a different {field}; "
                "give another pool, or remove the stream"
            )
    return found


async def _create(js: JetStreamContext, config: api.StreamConfig, replicas: int | None) -> None:
    try:
        await js.add_stream(  # pyright: ignore[reportUnknownMemberType]
            config, num_replicas=replicas or CLUSTER_REPLICAS
        )
    except nats.js.errors.APIError as error:
        if error.err_code == _NO_CLUSTER and replicas is None:
            await _create(js, config, 1)
        elif error.err_code != _NAME_TAKEN:
            raise queue_error(error) from None


def reason(error: BaseException) -> str:
    """Return the message of an error, or the name of its class if it has none."""
    return str(error) or type(error).__name__


def is_duplicate(error: nats.js.errors.APIError) -> bool:
    """Return whether a message was rejected because the stream has its id already.

    A full stream and a full disk have the same error code; only the description differs.
    """
    return error.err_code == _NOT_STORED and _DUPLICATE in (error.description or "")


def is_conflict(error: nats.js.errors.APIError) -> bool:
    """Return whether a result was rejected because another one of its id was stored before."""
    return error.err_code in _WRONG_LAST_SEQUENCE


def is_transient(error: Exception) -> bool:
    """Return whether no server answered, or no leader, as while a cluster elects a leader."""
    if isinstance(error, nats.js.errors.ServiceUnavailableError):
        return error.err_code in _NO_LEADER
    return isinstance(error, (nats.js.errors.NoStreamResponseError, TimeoutError))


def queue_error(error: nats.js.errors.APIError) -> QueueError:
    """Return a QueueError with the description of the server and a remedy."""
    remedies = {
        _NO_CLUSTER: "give replicas=1, or start a cluster",
        _NO_PEERS: "start all nodes of the cluster, or give fewer replicas",
        **dict.fromkeys(_NO_JETSTREAM, "switch JetStream on (nats-server --jetstream)"),
    }
    default = "see the log of the server" if error.err_code else remedies[_NO_JETSTREAM[0]]
    remedy = remedies.get(error.err_code or 0, default)
    description = error.description or "no answer from JetStream"
    return QueueError(f"the NATS server refuses: {description}; {remedy}")


async def retry(
    request: Callable[[], Awaitable[T]], should_retry: Callable[[Exception], bool] = is_transient
) -> T:
    """Repeat a request for up to RETRY_FOR seconds, as long as `should_retry` accepts its error."""
    deadline = anyio.current_time() + RETRY_FOR
    while True:
        try:
            return await request()
        except NATS_ERRORS as error:
            if not should_retry(error) or anyio.current_time() > deadline:
                raise
        await anyio.sleep(RETRY_DELAY)


async def for_each(ids: Collection[str], request: Callable[[str], Awaitable[None]]) -> None:
    """Make a request for each id, MAX_CONCURRENT_REQUESTS at a time.

    The first NATS error stops all of them and is raised.
    """
    remaining = iter(ids)
    errors: list[Exception] = []

    async def request_some() -> None:
        for task_id in remaining:
            try:
                await request(task_id)
            except NATS_ERRORS as error:
                errors.append(error)
            if errors:
                return

    async with anyio.create_task_group() as group:
        for _ in range(min(MAX_CONCURRENT_REQUESTS, len(ids))):
            group.start_soon(request_some)
    if errors:
        raise errors[0]
