"""The exceptions of this package: one tree. All of them can be pickled."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from luma_async.text import one_line

if TYPE_CHECKING:
    from luma_async.structs import Generation


class LumaError(Exception):
    """Base class of all errors about a relay, a wait, a download or a queue.

    `retry_after` is the number of seconds that the relay asked the client to wait (Retry-After), or
    None. Invalid arguments raise ValueError or TypeError instead.
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
    """The relay answered with an error.

    `status` is the HTTP status. `code` and `message` are those of the relay, or None and "".
    `request_id` is the id to give to the relay's operator, or None. `in_json` is True if the body
    was JSON; otherwise the error may come from a proxy in front of the relay. `in_envelope` is True
    if that JSON has the form of the relay's own errors: an `error` object, or `code` and `message`.
    """

    in_json: bool = True
    in_envelope: bool = False

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
        reason = ": ".join(dict.fromkeys(filter(None, (self.code, self.message))))
        suffix = f" (request id: {self.request_id})" if self.request_id else ""
        return f"status {self.status}" + (f": {reason}" if reason else "") + suffix


class AuthenticationError(APIError):
    """The relay rejected the API key (401)."""


class QuotaError(APIError):
    """The quota of the API key or of the account is used up; submitted tasks continue to run."""


class PermissionDeniedError(APIError):
    """The API key is valid, but is not allowed to make this request (403)."""


class NotFoundError(APIError):
    """The relay does not know the task, or the task belongs to another account.

    `about_task`: the relay says so of the task. If False, it is a bare 404, which a proxy or a web
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
    """The relay rejected the request as invalid (400, 413, 422 and other 4xx)."""


class RateLimitedError(APIError):
    """The relay asked for fewer requests (429); `retry_after` is in seconds, or None."""


class RelayError(APIError):
    """The relay, or a server behind it, failed for the moment (408, 425, 5xx)."""


class TransportError(LumaError):
    """No complete response: the connection was refused, reset or cut short, or was not HTTP.

    `never_connected`: there was no connection, so the relay received nothing.
    """

    never_connected: bool = False


def unforeseen(error: BaseException) -> TransportError:
    """Convert an exception of any other class to a TransportError, which can be retried."""
    return TransportError(one_line(f"{type(error).__name__}: {error}"))


class RequestTimeout(TransportError, TimeoutError):
    """No complete response within `request_timeout` seconds."""


class SetupError(TransportError):
    """The request could not be sent because of how the session is set up; the message says why."""


class DecodeError(LumaError):
    """The response cannot be decoded as a task."""


class TooLongError(DecodeError):
    """The response is longer than `Limits.max_body` bytes; the rest of it was not read."""


class NoSuchRouteError(DecodeError):
    """The host does not have this endpoint: a web page, a redirect, or "Invalid URL".

    `certain`: the relay's own words, or its web page. If not, a firewall may have sent it.
    `is_refusal`: the status says so (a redirect, 404, 405), not the body of a success.
    `extra_path`: the end of the base URL that is to be removed, such as "/v1", or "".
    """

    certain: bool = True
    extra_path: str = ""
    is_refusal: bool = False


class WaitIncomplete(LumaError):
    """Base class of waits that ended before every task was completed or failed.

    `done` maps the ids of completed and failed tasks to their Generation. `pending` maps the ids of
    all other tasks to the last Generation received, or None. `missing` contains the ids that the
    relay does not know. Together they are the requested ids; each is in the order given.
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
        super().__init__(f"{message}{': ' if message else ''}{self._summary()}")

    def _summary(self) -> str:
        counts = f"{len(self.done)} done, {len(self.pending)} pending, {len(self.missing)} missing"
        return f"{counts}; {self._remedy()}"

    def _remedy(self) -> str:
        return "wait again for error.pending"


class WaitTimeout(WaitIncomplete, TimeoutError):
    """The wait reached its `timeout`; `__cause__` is the last error of a request, or None."""


class WaitAborted(WaitIncomplete):
    """The wait cannot continue.

    The API key was rejected, the base URL leads to no relay, or the session was closed.

    `cause` is the reason.
    """

    @property
    def cause(self) -> BaseException | None:
        """The error that ended the wait; the same as `__cause__`."""
        return self.__cause__

    def _remedy(self) -> str:
        return "fix the cause, then wait again for error.pending"


class GaveUp(WaitAborted):
    """The workers gave up: the tasks in `pending` did not reach a final state in time."""

    def _remedy(self) -> str:
        return "submit error.pending again"


class GenerationsMissing(WaitIncomplete):
    """The relay does not know the ids in `missing`; all other tasks are completed or failed."""

    def _remedy(self) -> str:
        return f"check the ids and the account of the API key: {_shortened(self.missing)}"


class GenerationFailed(LumaError):
    """A task failed; raised only by `Generation.raise_for_failed`.

    `generation` is the task; `generation.failure_reason` is the reason from the relay, or None.
    """

    def __init__(self, generation: "Generation") -> None:
        self.generation = generation
        reason = one_line(generation.failure_reason or "no reason given")
        super().__init__(f"{one_line(generation.id)} failed: {reason}")


class SessionClosed(LumaError, RuntimeError):
    """The session is closed; open another one with `async with LumaSession(…)`."""


class DownloadError(LumaError):
    """A video cannot be saved.

    It has no link, one that fails, or one to a private address; what the link leads to is no video;
    or the transfer failed repeatedly.
    """


class QueueError(LumaError):
    """The queue of submitted ids is unusable: no connection, no answer, or no space.

    `pending` contains the ids that may not be stored; it is safe to submit them again.
    """

    pending: tuple[str, ...] = ()


class SubmitUnknown(LumaError):
    """It is not known whether the relay took a submission: a task may run and be paid for.

    `user_prompt` is what was submitted, `extends` the id of the task to extend, or None. `sent_at`
    is when the request left, an aware datetime. `__cause__` is the error of the request. Any other
    LumaError of a submission means that no task was made.
    """

    def __init__(
        self, message: str, *, user_prompt: str, sent_at: datetime, extends: str | None = None
    ) -> None:
        self.user_prompt: str = user_prompt
        self.sent_at: datetime = sent_at
        self.extends: str | None = extends
        super().__init__(message)


def _shortened(ids: Sequence[str], limit: int = 3) -> str:
    shown = ", ".join(map(_shown, ids[:limit]))
    return shown if len(ids) <= limit else f"{shown} and {len(ids) - limit} more"


def _shown(task_id: str) -> str:
    """Return an id in one line; quoted if it has blanks or line ends around it, by mistake."""
    return f"{one_line(task_id):.80}" if task_id == task_id.strip() else f"{task_id!r:.80}"
