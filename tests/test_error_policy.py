"""What is done about an error of a relay, as a table."""

from math import inf

import pytest

from luma_async import (
    APIError,
    AuthenticationError,
    BadRequestError,
    DecodeError,
    LumaError,
    NoSuchRouteError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    RateLimitedError,
    RelayError,
    RequestTimeout,
    SessionClosed,
    SetupError,
    TransportError,
)
from luma_async.errors import TooLongError
from luma_async.scheduling.error_policy import Action, decide, max_attempts

DECISIONS: list[tuple[LumaError, Action, Action]] = [
    (AuthenticationError(401), Action.CHECK_KEY, Action.CHECK_KEY),
    (QuotaError(401), Action.CHECK_KEY, Action.CHECK_KEY),
    (PermissionDeniedError(403), Action.CHECK_KEY, Action.CHECK_KEY),
    (SessionClosed("closed"), Action.ABORT, Action.ABORT),
    (SetupError("ValueError: no URL"), Action.ABORT, Action.ABORT),
    (NotFoundError(404), Action.REJECTED, Action.NO_BATCH_ENDPOINT),
    (NotFoundError(404, "task_not_exist"), Action.NOT_FOUND, Action.BISECT),
    (NotFoundError(400, "task_not_exist"), Action.NOT_FOUND, Action.BISECT),
    (NotFoundError(200, "task_not_exist"), Action.NOT_FOUND, Action.BISECT),
    (BadRequestError(400), Action.REJECTED, Action.BISECT),
    (BadRequestError(422), Action.REJECTED, Action.BISECT),
    (BadRequestError(413), Action.REJECTED, Action.BISECT),
    (BadRequestError(414), Action.REJECTED, Action.BISECT),
    (BadRequestError(405), Action.REJECTED, Action.NO_BATCH_ENDPOINT),
    (BadRequestError(409), Action.RETRY, Action.RETRY),
    (BadRequestError(499), Action.RETRY, Action.RETRY),
    (RelayError(501), Action.REJECTED, Action.NO_BATCH_ENDPOINT),
    (NoSuchRouteError("page"), Action.NO_SINGLE_ENDPOINT, Action.NO_BATCH_ENDPOINT),
    (RateLimitedError(429), Action.RETRY, Action.RETRY),
    (RelayError(408), Action.RETRY, Action.RETRY),
    (RelayError(425), Action.RETRY, Action.RETRY),
    (RelayError(500), Action.RETRY, Action.RETRY),
    (RelayError(503), Action.RETRY, Action.RETRY),
    (RelayError(200), Action.RETRY, Action.RETRY),
    (DecodeError("senseless"), Action.RETRY, Action.RETRY),
    (TransportError("reset"), Action.RETRY, Action.RETRY),
    (RequestTimeout("slow"), Action.RETRY, Action.RETRY),
]


@pytest.mark.parametrize(("error", "alone", "together"), DECISIONS, ids=repr)
def test_an_error_has_one_action_for_each_endpoint(
    error: LumaError, alone: Action, together: Action
) -> None:
    assert decide(error, many=False) is alone
    assert decide(error, many=True) is together


def test_every_action_is_reached() -> None:
    assert {action for _, *actions in DECISIONS for action in actions} == set(Action)


def test_these_statuses_reject_a_request_and_all_others_are_retried() -> None:
    retried = {Action.RETRY}
    statuses = range(300, 600)
    alone = [one for one in statuses if decide(APIError(one), many=False) not in retried]
    together = [one for one in statuses if decide(APIError(one), many=True) not in retried]
    assert alone == together == [400, 404, 405, 410, 413, 414, 422, 431, 501]
    no_batch = [s for s in together if decide(APIError(s), many=True) is Action.NO_BATCH_ENDPOINT]
    assert no_batch == [404, 405, 501]


def test_ids_are_taken_for_the_cause_after_some_failures_by_the_kind_of_error() -> None:
    assert max_attempts(RateLimitedError(429)) == inf
    assert max_attempts(TooLongError("too long")) == 1
    assert max_attempts(DecodeError("senseless")) == 4
    assert max_attempts(RelayError(500)) == max_attempts(RequestTimeout("slow")) == 8
