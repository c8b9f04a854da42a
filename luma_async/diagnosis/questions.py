"""One request of an examination, and its answer."""

from collections.abc import Callable, Iterable
from typing import Literal

from msgspec import Struct

from luma_async.errors import (
    APIError,
    AuthenticationError,
    DecodeError,
    LumaError,
    NoSuchRouteError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    RateLimitedError,
    RelayError,
    TooLongError,
    TransportError,
)
from luma_async.protocol.responses import Response

Call = Literal["get", "tasks", "link"]
Role = Literal[
    "first", "again", "alternative", "known", "unknown", "all", "reversed", "none", "growing",
    "omitted", "head", "range", "with key",
]  # fmt: skip

KEY_ERRORS = (AuthenticationError, QuotaError, PermissionDeniedError)


class Question(Struct, frozen=True, kw_only=True):
    """One request: which call, about which ids, and what it is to show (`role`, `purpose`).

    `base_url` is for "get" and "tasks"; `url`, `method`, `headers` and `with_key` are for "link".
    """

    call: Call
    role: Role
    purpose: str
    ids: tuple[str, ...] = ()
    base_url: str = ""
    url: str = ""
    method: str = "GET"
    headers: dict[str, str] = {}
    with_key: bool = False


class Answer(Struct, kw_only=True):
    """What came back: status, headers (lower case) and body, and what the library reads in it.

    `status` is None if no complete response came. `response` or `error` is what the library makes
    of it; of a link both may be None. `seconds` is how long it took, `received_at` unix time.
    """

    question: Question
    status: int | None = None
    headers: dict[str, str] = {}
    body: bytes = b""
    response: Response | None = None
    error: LumaError | None = None
    seconds: float = 0.0
    received_at: float = 0.0

    @property
    def is_unknown_task(self) -> bool:
        """Whether the relay says that the task does not exist."""
        return isinstance(self.error, NotFoundError) and self.error.about_task

    @property
    def is_wrong_route(self) -> bool:
        """Whether this is no answer of the endpoint: a web page, a redirect, a bare 404 or 405."""
        if isinstance(self.error, NoSuchRouteError):
            return True
        if isinstance(self.error, NotFoundError):
            return not self.error.about_task
        if isinstance(self.error, APIError):
            return self.error.status in (405, 410, 501)
        return False

    @property
    def is_about_another(self) -> bool:
        """Whether the answer is about a task that was not asked about."""
        return isinstance(self.error, DecodeError) and str(self.error).startswith("asked about ")

    @property
    def is_key_error(self) -> bool:
        """Whether the key was rejected, or its quota is used up."""
        return isinstance(self.error, KEY_ERRORS)

    @property
    def is_transient(self) -> bool:
        """Whether the same request may be answered otherwise a moment later."""
        kinds = (RateLimitedError, RelayError, TransportError)
        return isinstance(self.error, kinds) and (self.status or 500) != 501

    @property
    def is_rejected(self) -> bool:
        """Whether the relay refuses this request, as it does with one that is too large."""
        if isinstance(self.error, TooLongError):
            return True
        is_client_error = self.status is not None and 400 <= self.status < 500
        ours = self.is_key_error or self.is_transient or self.is_unknown_task
        return is_client_error and self.error is not None and not ours

    @property
    def works(self) -> bool:
        """Whether the endpoint answered in its own words: with tasks, with none, or unknown id."""
        return self.response is not None or self.is_unknown_task

    @property
    def rows(self) -> list[str]:
        """The ids of the rows, in their order."""
        return list(self.response.states) if self.response is not None else []


class Answers(list[Answer]):
    """All answers of an examination, in the order of the questions."""

    def of(self, call: Call, *roles: Role) -> list[Answer]:
        """Return the answers to one call, with one of these roles if some are given."""
        return self._where(lambda q: q.call == call and (not roles or q.role in roles))

    def of_relay(self) -> list[Answer]:
        """Return the answers to both calls of the relay."""
        return self._where(lambda q: q.call != "link")

    def _where(self, fits: Callable[[Question], bool]) -> list[Answer]:
        return [answer for answer in self if fits(answer.question)]


def known_ids(answers: Iterable[Answer]) -> set[str]:
    """Return the ids that the relay knows: those in a row of some response."""
    return {row for answer in answers for row in answer.rows}
