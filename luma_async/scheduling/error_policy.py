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
MAX_UNDECODABLE_ANSWERS = 4
MAX_FAILED_ATTEMPTS = 8


class Action(StrEnum):
    """What a poll does about an error."""

    RETRY = "retry later"
    NOT_FOUND = "the relay does not know the id"
    BISECT = "retry in halves"
    SHRINK_BATCH = "retry in halves, and send smaller batches from now on"
    NO_BATCH_ENDPOINT = "poll one id per request from now on"
    ABORT = "abort all waits: the key is rejected, or the session is closed"


def decide(error: LumaError, *, many: bool, tries: int = 1) -> Action:
    """Return what a poll does about an error; `many`: it was a batch request.

    `tries` is the number of requests in a row without a response, this one included: a response
    that cannot be decoded again and again may be so because of one task in it.
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
    """Return how many requests may fail before the ids in them are taken for the cause."""
    if isinstance(error, RateLimitedError):
        return inf
    if isinstance(error, TooLongError):
        return MAX_TOO_LONG_ANSWERS
    return MAX_UNDECODABLE_ANSWERS if isinstance(error, DecodeError) else MAX_FAILED_ATTEMPTS
