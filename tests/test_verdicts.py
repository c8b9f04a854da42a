"""What an error of a relay means for a poll, as a table."""

import pytest

from luma_async import (
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
    TransportError,
)
from luma_async.scheduling.error_policy import Verdict, judge

JUDGED: list[tuple[LumaError, Verdict, Verdict]] = [
    (AuthenticationError(401), Verdict.ABORT, Verdict.ABORT),
    (QuotaError(401), Verdict.ABORT, Verdict.ABORT),
    (PermissionDeniedError(403), Verdict.ABORT, Verdict.ABORT),
    (SessionClosed("closed"), Verdict.ABORT, Verdict.ABORT),
    (NotFoundError(404), Verdict.ABSENT, Verdict.SINGLES),
    (NotFoundError(404, "task_not_exist"), Verdict.ABSENT, Verdict.SPLIT),
    (NotFoundError(400, "task_not_exist"), Verdict.ABSENT, Verdict.SPLIT),
    (NotFoundError(200, "task_not_exist"), Verdict.ABSENT, Verdict.SPLIT),
    (BadRequestError(400), Verdict.ABSENT, Verdict.SPLIT),
    (BadRequestError(422), Verdict.ABSENT, Verdict.SPLIT),
    (BadRequestError(413), Verdict.ABSENT, Verdict.SHRINK),
    (BadRequestError(414), Verdict.ABSENT, Verdict.SPLIT),
    (BadRequestError(405), Verdict.AGAIN, Verdict.SINGLES),
    (BadRequestError(409), Verdict.AGAIN, Verdict.AGAIN),
    (BadRequestError(499), Verdict.AGAIN, Verdict.AGAIN),
    (RelayError(501), Verdict.AGAIN, Verdict.SINGLES),
    (NoSuchRouteError("page"), Verdict.AGAIN, Verdict.SINGLES),
    (RateLimitedError(429), Verdict.AGAIN, Verdict.AGAIN),
    (RelayError(408), Verdict.AGAIN, Verdict.AGAIN),
    (RelayError(425), Verdict.AGAIN, Verdict.AGAIN),
    (RelayError(500), Verdict.AGAIN, Verdict.AGAIN),
    (RelayError(503), Verdict.AGAIN, Verdict.AGAIN),
    (RelayError(200), Verdict.AGAIN, Verdict.AGAIN),
    (DecodeError("senseless"), Verdict.AGAIN, Verdict.AGAIN),
    (TransportError("reset"), Verdict.AGAIN, Verdict.AGAIN),
    (RequestTimeout("slow"), Verdict.AGAIN, Verdict.AGAIN),
]


@pytest.mark.parametrize(("error", "alone", "together"), JUDGED, ids=repr)
def test_an_error_has_one_verdict_for_each_call(
    error: LumaError, alone: Verdict, together: Verdict
) -> None:
    assert judge(error, many=False) is alone
    assert judge(error, many=True) is together


def test_every_verdict_is_reached() -> None:
    assert {verdict for _, *verdicts in JUDGED for verdict in verdicts} == set(Verdict)
