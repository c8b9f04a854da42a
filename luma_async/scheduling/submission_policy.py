"""What an error of a submission means: whether the relay may have made a task.

A submission is sent again only if it is certain that the relay did not take it. The rules are read
from the first to the last; what none of them is about may be a task that runs and is paid for: a
timeout, a connection that broke, 408, 500, 502, 504, 520 to 527, a body that makes no sense.
"""

import re
from collections.abc import Callable
from enum import StrEnum

from luma_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    LumaError,
    NoSuchRouteError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    RateLimitedError,
    SessionClosed,
    SetupError,
)

_REFUSALS = (
    AuthenticationError, QuotaError, PermissionDeniedError, BadRequestError, NotFoundError,
)  # fmt: skip
_FORBIDDEN = (401, 402, 403)
_AFTER_THE_TASK = re.compile(r"insert[_ ]task", re.IGNORECASE)
_UNCLEAR = (409, 499)  # a conflict with what exists already; closed by the client, says a proxy
# A relay says these of what the relay behind it answered, under the status of that answer.
_OF_UPSTREAM = ("bad_response", "fail_to_fetch_task", "do_request_failed", "read_response")

_CONNECTION_LOST = re.compile(
    r"time[d -]*out|deadline|超时|\breset\b|\beof\b|disconnect|terminat|broken pipe|"
    r"\b(?:bad|do|read)[ _](?:request|response)|fail(?:ed)?[ _]to[ _]fetch",
    re.IGNORECASE,
)  # between the relay and what is behind it, or between a proxy and the relay


class Outcome(StrEnum):
    """What an error of a submission means."""

    NOT_TAKEN = "the relay did not take it: send it again later"
    REFUSED = "no task was made, and a retry is of no use"
    UNKNOWN = "a task may run and be paid for: never send it again"


def _is_after_the_task(error: LumaError) -> bool:
    """Whether the relay made the task and failed then."""
    words = f"{error.code} {error.message}" if isinstance(error, APIError) else ""
    return _AFTER_THE_TASK.search(words) is not None


def _is_unclear(error: LumaError) -> bool:
    return isinstance(error, APIError) and error.status in _UNCLEAR


def _is_relays_own_503(error: LumaError) -> bool:
    """Whether it is a 503 that the relay says of itself, in JSON, such as "no channel"."""
    if not isinstance(error, APIError) or error.status != 503:
        return False
    code = (error.code or "").lower()
    if code.startswith(_OF_UPSTREAM) or _CONNECTION_LOST.search(error.message):
        return False
    return error.in_envelope


_Rule = tuple[Callable[[LumaError], bool], Outcome]
RULES: tuple[_Rule, ...] = (
    (_is_after_the_task, Outcome.UNKNOWN),
    (_is_unclear, Outcome.UNKNOWN),
    (lambda error: isinstance(error, RateLimitedError) and error.status == 429, Outcome.NOT_TAKEN),
    (_is_relays_own_503, Outcome.NOT_TAKEN),
    (lambda error: isinstance(error, _REFUSALS), Outcome.REFUSED),
    (lambda error: isinstance(error, APIError) and error.status in _FORBIDDEN, Outcome.REFUSED),
    (lambda error: isinstance(error, NoSuchRouteError) and error.is_refusal, Outcome.REFUSED),
)
"""What an error means if the request was sent; without a rule it is UNKNOWN."""


def submission_outcome(error: LumaError, *, sent: bool) -> Outcome:
    """Return what an error means; `sent`: a byte of the request may have reached the relay."""
    if not sent:
        of_session = isinstance(error, SetupError | SessionClosed)
        return Outcome.REFUSED if of_session else Outcome.NOT_TAKEN
    return next((outcome for matches, outcome in RULES if matches(error)), Outcome.UNKNOWN)
