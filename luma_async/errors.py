"""The words of what goes wrong: one tree, every leaf of which can be pickled."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from luma_async.text import one_line

if TYPE_CHECKING:
    from luma_async.structs import Generation


class LumaError(Exception):
    """The root of everything that this library raises about a relay or a wait.

    `retry_after` is the seconds for which the relay asked to be left alone, or None.
    """

    retry_after: float | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        cause = self.__cause__ if isinstance(self.__cause__, LumaError) else None
        return _rebuild, (type(self), self.args, vars(self), cause)


def _rebuild(
    cls: type[LumaError], args: tuple[Any, ...], attributes: dict[str, Any], cause: LumaError | None
) -> LumaError:
    error = cls.__new__(cls, *args)
    error.args = args
    vars(error).update(attributes)
    error.__cause__ = cause
    return error


class APIError(LumaError):
    """The relay answered, and the answer is an error.

    `status` is the HTTP status, `code` and `message` are the relay's own words (None and "" where
    it said none), `request_id` is what the relay's operator asks for, `in_json` whether it was said
    in JSON, as relays do, or may come from a proxy.
    """

    in_json: bool = True

    def __init__(
        self,
        status: int,
        code: str | None = None,
        message: str = "",
        request_id: str | None = None,
        *,
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after
        super().__init__(self._text())

    def _text(self) -> str:
        said = ": ".join(dict.fromkeys(filter(None, (self.code, self.message))))
        of = f" (request id: {self.request_id})" if self.request_id else ""
        return f"status {self.status}" + (f": {said}" if said else "") + of


class AuthenticationError(APIError):
    """The relay does not accept the key (401)."""


class QuotaError(APIError):
    """The key's or the account's quota is used up; tasks that were paid for still run."""


class PermissionDeniedError(APIError):
    """The key is good, and may not do this (403)."""


class NotFoundError(APIError):
    """The relay does not know the task, or it belongs to another account's key.

    `about_task`: the relay says so of the task. If not, it is a bare 404, which a proxy or a web
    framework may have sent, and proves nothing about the task.
    """

    about_task: bool = False

    def __init__(
        self,
        status: int,
        code: str | None = None,
        message: str = "",
        request_id: str | None = None,
        *,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, code, message, request_id, retry_after=retry_after)
        self.about_task = code == "task_not_exist"


class BadRequestError(APIError):
    """The relay refuses the request as it stands (400, 413, 422 and their kin)."""


class RateLimitedError(APIError):
    """The relay asks for fewer requests (429); `retry_after` is seconds, or None."""


class RelayError(APIError):
    """The relay, or what is behind it, is in trouble for now (408, 425, 5xx)."""


class TransportError(LumaError):
    """No whole answer came: refused, reset, cut short, or not HTTP."""


def unforeseen(error: BaseException) -> TransportError:
    """Make of what no relay and no network does an error that can be told and asked again."""
    return TransportError(one_line(f"{type(error).__name__}: {error}"))


class RequestTimeout(TransportError, TimeoutError):
    """No whole answer came within `request_timeout` seconds."""


class SetupError(TransportError):
    """The request could not be sent because of how the session is set up; its cause says why."""


class DecodeError(LumaError):
    """An answer came that makes no sense as a task."""


class TooLongError(DecodeError):
    """The answer is longer than `Limits.max_body`; it was not read to its end."""


class NoSuchRouteError(DecodeError):
    """The host has no such call: a web page, a redirect, or an unknown URL.

    `certain`: the relay's own words, or its web page. If not, a firewall may have sent it.
    """

    certain: bool = True


class WaitIncomplete(LumaError):
    """A wait that ended before every id was completed or failed.

    `done` maps id to Generation for what ended, `pending` maps id to the last Generation seen, or
    None, for what is still open, `missing` names what the relay does not know. Together they are
    what was asked, each in the order given.
    """

    def __init__(
        self,
        message: str = "",
        *,
        done: "Mapping[str, Generation] | None" = None,
        pending: "Mapping[str, Generation | None] | None" = None,
        missing: Sequence[str] = (),
    ) -> None:
        self.done: dict[str, Generation] = dict(done or {})
        self.pending: dict[str, Generation | None] = dict(pending or {})
        self.missing: tuple[str, ...] = tuple(missing)
        super().__init__(f"{message}{': ' if message else ''}{self._tally()}")

    def _tally(self) -> str:
        counts = f"{len(self.done)} done, {len(self.pending)} pending, {len(self.missing)} missing"
        return f"{counts}; {self._remedy()}"

    def _remedy(self) -> str:
        return "wait again for error.pending"


class WaitTimeout(WaitIncomplete, TimeoutError):
    """The wait's `timeout` ran out; its cause, where there is one, is the last trouble met."""


class WaitAborted(WaitIncomplete):
    """The wait cannot go on: the key was refused, or the session closed; `cause` says which."""

    @property
    def cause(self) -> BaseException | None:
        """What ended the wait, the same as `__cause__`."""
        return self.__cause__

    def _remedy(self) -> str:
        return "mend the cause, then wait again for error.pending"


class GaveUp(WaitAborted):
    """The workers gave up on the ids in `pending`: their end was not found out in time."""

    def _remedy(self) -> str:
        return "submit error.pending again"


class GenerationsMissing(WaitIncomplete):
    """All else has ended, and the relay does not know the ids in `missing`."""

    def _remedy(self) -> str:
        return f"check the ids and the account of the key: {_few(self.missing)}"


class GenerationFailed(LumaError):
    """A task failed; raised by `Generation.raise_for_failed` alone.

    `generation` is the task, its `failure_reason` the relay's.
    """

    def __init__(self, generation: "Generation") -> None:
        self.generation = generation
        reason = one_line(generation.failure_reason or "no reason given")
        super().__init__(f"{one_line(generation.id)} failed: {reason}")


class SessionClosed(LumaError, RuntimeError):
    """The session was closed; open another one with `async with LumaSession(…)`."""


class DownloadError(LumaError):
    """A video cannot be saved: no link, a dead one, a private address, or it broke off for good."""


class QueueError(LumaError):
    """The queue of submitted ids cannot be used: no server, no answer, no room.

    `pending` names the ids that are not known to be stored; to submit them again is safe.
    """

    pending: tuple[str, ...] = ()


def _few(ids: Sequence[str], most: int = 3) -> str:
    named = ", ".join(f"{one_line(task_id):.80}" for task_id in ids[:most])
    return named if len(ids) <= most else f"{named} and {len(ids) - most} more"
