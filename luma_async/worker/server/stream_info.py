"""What the server says about a stream: its limits, its contents, and the server's time."""

from datetime import datetime

import msgspec
import nats.errors
import nats.js.errors
from msgspec import Struct
from nats.aio.client import Client
from nats.js import api

REQUEST_TIMEOUT = 5.0  # seconds


class StreamConfig(Struct):
    """What is used of a stream's configuration. A limit of -1 is none."""

    subjects: list[str] = []
    retention: str = ""
    discard: str = ""
    max_msgs: int = -1
    max_bytes: int = -1
    max_msgs_per_subject: int = -1
    discard_new_per_subject: bool = False


class StreamState(Struct):
    """What a stream contains now. `first_ts` is the time of its oldest message, if it has one."""

    messages: int = 0
    bytes: int = 0
    last_seq: int = 0
    first_ts: datetime | None = None


class StreamInfo(Struct):
    """A stream, as the server describes it. `ts` is the server's time of the answer, if it has one.

    `created` changes if the stream is deleted and created again.
    """

    config: StreamConfig
    state: StreamState
    created: datetime
    ts: datetime | None = None

    @property
    def limits(self) -> str:
        """The limits that make the stream delete its oldest messages, as text; "" without any."""
        config = self.config
        limits = {"max_msgs": config.max_msgs, "max_bytes": config.max_bytes}
        if config.discard != api.DiscardPolicy.OLD.value:
            return ""
        return ", ".join(f"{name}={limit}" for name, limit in limits.items() if limit > 0)

    @property
    def deletes_now(self) -> bool:
        """Whether the next message may make it delete its oldest ones because of such a limit."""
        config, state = self.config, self.state
        is_full = 0 < config.max_msgs <= state.messages
        return bool(self.limits) and (is_full or 0 < config.max_bytes <= 1.25 * state.bytes)


_info_decoder = msgspec.json.Decoder(StreamInfo)


class _Failure(Struct):
    error: dict[str, object] | None = None


async def stream_info(client: Client, stream: str) -> StreamInfo:
    """Ask the server about a stream. Raises the errors of nats-py."""
    try:
        answer = await client.request(f"$JS.API.STREAM.INFO.{stream}", timeout=REQUEST_TIMEOUT)
    except nats.errors.NoRespondersError:
        raise nats.js.errors.ServiceUnavailableError from None
    if error := msgspec.json.decode(answer.data, type=_Failure).error:
        raise nats.js.errors.APIError.from_error(error)
    return _info_decoder.decode(answer.data)
