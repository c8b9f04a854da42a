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
MAX_TOO_LONG_ANSWERS = 1
MAX_SENSELESS_ANSWERS = 4
MAX_FAILED_ATTEMPTS = 8


class Action(StrEnum):
    """What a poll does about an error."""

    RETRY = "ask again, later"
    NOT_FOUND = "the relay does not know the id"
    BISECT = "ask again in halves"
    SHRINK_BATCH = "ask again in halves, and never for so many again"
    NO_BATCH_ENDPOINT = "ask for one id at a time from now on"
    ABORT = "stop asking: the key is refused, or the session closed"


def decide(error: LumaError, *, many: bool, tries: int = 1) -> Action:
    """Return what an error means for a poll; `many` tells the batch call from the single one.

    `tries` is how often in a row the ids brought no answer, this time included: an answer that
    stays senseless may be so because of one task in it.
    """
    if isinstance(error, AuthenticationError | QuotaError | PermissionDeniedError | SessionClosed):
        return Action.ABORT
    status = error.status if isinstance(error, APIError) else None
    refused = isinstance(error, NotFoundError) or status in _REFUSED
    if not many:
        return Action.NOT_FOUND if refused else Action.RETRY
    no_such_task = isinstance(error, APIError) and error.code == "task_not_exist"
    if isinstance(error, NoSuchRouteError) or (status in (404, 405, 501) and not no_such_task):
        return Action.NO_BATCH_ENDPOINT
    if status == 413:
        return Action.SHRINK_BATCH
    return Action.BISECT if refused or tries > _max_attempts(error) else Action.RETRY


def _max_attempts(error: LumaError) -> float:
    """Return how often a request may bring no answer before that is put down to the ids in it."""
    if isinstance(error, RateLimitedError):
        return inf
    if isinstance(error, TooLongError):
        return MAX_TOO_LONG_ANSWERS
    return MAX_SENSELESS_ANSWERS if isinstance(error, DecodeError) else MAX_FAILED_ATTEMPTS
