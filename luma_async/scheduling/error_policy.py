"""What a poll does about an error."""

from enum import StrEnum
from math import inf

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
    SessionClosed,
    TooLongError,
)

_REFUSED = (400, 410, 413, 414, 422, 431)
LONG_TRIES = 1
SENSELESS_TRIES = 4
FAILING_TRIES = 8


class Verdict(StrEnum):
    """What a poll does about an error."""

    AGAIN = "ask again, later"
    ABSENT = "the relay does not know the id"
    SPLIT = "ask again in halves"
    SHRINK = "ask again in halves, and never for so many again"
    SINGLES = "ask for one id at a time from now on"
    ABORT = "stop asking: the key is refused, or the session closed"


def judge(error: LumaError, *, many: bool, tries: int = 1) -> Verdict:
    """Return what an error means for a poll; `many` tells the batch call from the single one.

    `tries` is how often in a row the ids brought no answer, this time included: an answer that
    stays senseless may be so because of one task in it.
    """
    if isinstance(error, AuthenticationError | QuotaError | PermissionDeniedError | SessionClosed):
        return Verdict.ABORT
    status = error.status if isinstance(error, APIError) else None
    refused = isinstance(error, NotFoundError) or status in _REFUSED
    if not many:
        return Verdict.ABSENT if refused else Verdict.AGAIN
    no_such_task = isinstance(error, APIError) and error.code == "task_not_exist"
    if isinstance(error, NoSuchRouteError) or (status in (404, 405, 501) and not no_such_task):
        return Verdict.SINGLES
    if status == 413:
        return Verdict.SHRINK
    return Verdict.SPLIT if refused or tries > _enough(error) else Verdict.AGAIN


def _enough(error: LumaError) -> float:
    """Return how often a request may bring no answer before that is put down to the ids in it."""
    if isinstance(error, RateLimitedError):
        return inf
    if isinstance(error, TooLongError):
        return LONG_TRIES
    return SENSELESS_TRIES if isinstance(error, DecodeError) else FAILING_TRIES
