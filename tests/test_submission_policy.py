"""What an error of a submission means: the table, row by row."""

import pytest

from luma_async.errors import (
    DecodeError,
    LumaError,
    RequestTimeout,
    SessionClosed,
    SetupError,
    TransportError,
)
from luma_async.protocol.error_responses import error_from_response, undecodable
from luma_async.scheduling.submission_policy import Outcome, submission_outcome

PAGE = b"<html><h1>busy</h1></html>"
MINE = '{"error":{"message":"无可用渠道","type":"new_api_error"}}'.encode()
UPSTREAM = b'{"error":{"message":"bad response","code":"bad_response_status_code"}}'
NOT_TAKEN, REFUSED, UNKNOWN = Outcome


def answer(status: int, body: bytes = b"", **fields: str) -> LumaError:
    return error_from_response(status, fields, body)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (answer(429), NOT_TAKEN),
        (answer(429, PAGE), NOT_TAKEN),
        (answer(503, MINE), NOT_TAKEN),
        (answer(503, b'{"code":"x","message":"no channel","data":null}'), NOT_TAKEN),
        (answer(503, PAGE), UNKNOWN),
        (answer(503), UNKNOWN),
        (answer(503, UPSTREAM), UNKNOWN),
        *(
            (answer(503, f'{{"error":{{"message":"no","code":"{code}"}}}}'.encode()), UNKNOWN)
            for code in (
                "bad_response_body",
                "FAIL_TO_FETCH_TASK",
                "do_request_failed",
                "read_response_body_failed",
            )
        ),
        (answer(503, b'{"error":{"message":"no","code":"get_channel_failed"}}'), NOT_TAKEN),
        (answer(503, b'{"detail":"upstream"}'), UNKNOWN),
        (
            answer(503, b'{"code":503,"message":"upstream connect error or disconnect/reset"}'),
            UNKNOWN,
        ),
        (answer(503, b'{"error":{"message":"upstream timed out"}}'), UNKNOWN),
        (answer(503, b'{"error":{"message":"Post: unexpected EOF"}}'), UNKNOWN),
        (answer(400, b'{"detail":"Advanced moderation failed"}'), REFUSED),
        (
            answer(400, b'{"code":"task_origin_not_exist","message":""}'),
            REFUSED,
        ),
        (answer(400, b'{"code":"insert_task_failed","message":""}'), UNKNOWN),
        (answer(500, b'{"code":"insert_task_failed","message":""}'), UNKNOWN),
        (answer(500, b'{"error":{"message":"insert task failed"}}'), UNKNOWN),
        (answer(401, '{"error":{"message":"该令牌额度已用尽"}}'.encode()), REFUSED),
        (answer(401, PAGE), REFUSED),
        (answer(403, PAGE), REFUSED),
        (answer(402), REFUSED),
        (answer(402, PAGE), REFUSED),
        (answer(404, PAGE), REFUSED),
        (answer(413), REFUSED),
        (answer(422), REFUSED),
        (answer(409), UNKNOWN),
        (answer(499), UNKNOWN),
        (answer(408), UNKNOWN),
        (answer(425), UNKNOWN),
        (answer(500, MINE), UNKNOWN),
        (answer(502, PAGE), UNKNOWN),
        (answer(504, PAGE), UNKNOWN),
        *((answer(status), UNKNOWN) for status in range(520, 528)),
        (answer(200, b'{"code":"x","message":"no"}'), UNKNOWN),
        (answer(200, b'{"code":"x","message":"too many requests"}'), UNKNOWN),
        (answer(200, b'{"code":"quota_not_enough","message":""}'), REFUSED),
        (answer(302, location="https://elsewhere.example"), REFUSED),
        (answer(307, location="https://elsewhere.example"), REFUSED),
        (answer(303, location="https://elsewhere.example/tasks/1"), UNKNOWN),
        (undecodable(200, PAGE), UNKNOWN),
        (undecodable(200, b""), UNKNOWN),
        (DecodeError("no id"), UNKNOWN),
        (TransportError("reset"), UNKNOWN),
        (RequestTimeout("no answer"), UNKNOWN),
        (SessionClosed("closed"), UNKNOWN),
        (SetupError("middleware"), UNKNOWN),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_error_of_a_request_that_was_sent(error: LumaError, outcome: Outcome) -> None:
    assert submission_outcome(error, sent=True) is outcome


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TransportError("refused"), NOT_TAKEN),
        (RequestTimeout("no connection"), NOT_TAKEN),
        (SetupError("auth= beside the key"), REFUSED),
        (SessionClosed("closed"), REFUSED),
    ],
)
def test_an_error_before_the_first_byte_never_means_that_a_task_was_made(
    error: LumaError, outcome: Outcome
) -> None:
    assert submission_outcome(error, sent=False) is outcome
