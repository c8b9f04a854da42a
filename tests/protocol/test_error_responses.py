"""Error responses as exceptions: the class, the code, the message and the request id."""

from typing import Any

import pytest

from luma_async import (
    APIError,
    AuthenticationError,
    BadRequestError,
    DecodeError,
    NoSuchRouteError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    RateLimitedError,
    RelayError,
    State,
)
from tests.protocol.response_builders import PAGE, api_error, error_of, response_of, table_row


@pytest.mark.parametrize("body", [b"", b'{"detail": "it went wrong"}', b"it went wrong"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (100, RelayError),
        (400, BadRequestError),
        (401, AuthenticationError),
        (402, QuotaError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (405, BadRequestError),
        (408, RelayError),
        (409, BadRequestError),
        (413, BadRequestError),
        (418, BadRequestError),
        (422, BadRequestError),
        (425, RelayError),
        (429, RateLimitedError),
        (499, BadRequestError),
        (500, RelayError),
        (501, RelayError),
        (502, RelayError),
        (503, RelayError),
        (504, RelayError),
        (520, RelayError),
        (527, RelayError),
        (599, RelayError),
    ],
)
def test_an_error_without_a_known_code_or_message_is_classified_by_its_status(
    status: int, kind: type[APIError], body: bytes
) -> None:
    error = api_error(status, body)
    assert type(error) is kind
    assert (error.status, error.code) == (status, None)
    assert error.message == ("it went wrong" if body else "")


@pytest.mark.parametrize("status", [500, 502, 503, 504, 524])
def test_the_web_page_of_a_gateway_is_a_relay_error(status: int) -> None:
    assert type(api_error(status, PAGE)) is RelayError


def test_a_web_page_with_these_statuses_is_a_gateways_and_says_nothing_of_the_key() -> None:
    kinds = {status: type(error_of(status, PAGE)) for status in range(400, 500)}
    relay_errors = [status for status, kind in kinds.items() if kind is RelayError]
    assert relay_errors == [401, 402, 403, 408, 425]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"error": {"message": "无效的令牌"}}, AuthenticationError),
        (401, {"error": {"message": "该令牌额度已用尽", "code": ""}}, QuotaError),
        (403, {"code": "quota_not_enough", "message": "not enough", "data": None}, QuotaError),
        (403, {"error": {"message": "该令牌无权访问模型 luma"}}, PermissionDeniedError),
        (403, {"message": "insufficient permissions"}, PermissionDeniedError),
        (403, {"message": "Insufficient credits"}, QuotaError),
        (402, {"message": "账户余额不足"}, QuotaError),
        (429, {"message": "insufficient quota"}, RateLimitedError),
        (400, {"code": "task_not_exist", "message": "task_not_exist"}, NotFoundError),
        (404, {"code": "task_not_exist", "message": "task_not_exist"}, NotFoundError),
        (404, {"detail": "Generation not found"}, NotFoundError),
        (500, {"detail": {"reason": "upstream closed", "code": 1}}, RelayError),
        (503, {"error": {"message": "无可用渠道"}}, RelayError),
    ],
)
def test_an_error_is_classified_by_its_code_and_message(
    status: int, body: object, kind: type[APIError]
) -> None:
    assert type(api_error(status, body)) is kind


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"code": "fail_to_fetch_task", "message": "upstream timeout", "data": None}, RelayError),
        ({"success": False, "message": "未登录且未提供 access token"}, AuthenticationError),
        ({"code": "task_not_exist", "message": "", "data": None}, NotFoundError),
        ({"error": {"message": "user quota is not enough"}}, QuotaError),
        ({"error": "boom"}, RelayError),
        ({"error": {"message": "Too many requests"}}, RateLimitedError),
        ({"code": 500, "data": [table_row()]}, RelayError),
    ],
)
def test_an_error_may_have_status_200(body: object, kind: type[APIError]) -> None:
    error = api_error(200, body)
    assert type(error) is kind
    assert error.status == 200


@pytest.mark.parametrize(
    "body",
    [
        {"status": "error", "message": "upstream timeout", "data": None},
        {"status": "error", "message": "upstream timeout"},
        {"status": "failed", "msg": "busy", "data": []},
        {"status": "success", "message": "upstream timeout", "data": None},
        {"status": 500, "message": "Internal Server Error", "data": None},
        {"msg": "系统繁忙", "data": None},
        {"errors": [{"message": "timeout"}], "data": None},
        {"code": 200, "message": "upstream timeout", "data": None},
        {"success": False, "data": None},
        {"error": "timeout", "data": None},
    ],
    ids=repr,
)
def test_an_error_with_status_200_is_not_an_empty_response(body: dict[str, Any]) -> None:
    assert isinstance(error_of(200, body), RelayError | DecodeError)


@pytest.mark.parametrize("error", [None, "", {}, False])
def test_an_empty_error_field_is_ignored(error: object) -> None:
    assert response_of({"error": error, "data": [table_row()]}).states == {"a": State.COMPLETED}


def test_the_error_of_an_empty_body_says_that_it_is_empty() -> None:
    assert str(error_of(204)) == "status 204 with an empty body"


@pytest.mark.parametrize("body", [PAGE, b"\r\n " + PAGE, b"<?xml version='1.0'?><a/>"])
@pytest.mark.parametrize("status", [200, 404, 405])
def test_a_web_page_is_a_no_such_route_error(status: int, body: bytes) -> None:
    error = error_of(status, body, {"Content-Type": "text/html"})
    assert type(error) is NoSuchRouteError
    assert str(error).endswith("; check the path of the base URL")


@pytest.mark.parametrize("method", ["POST /v1/luma/tasks", "GET /v1/luma/generations/a"])
def test_an_invalid_url_message_is_a_no_such_route_error(method: str) -> None:
    message = f"Invalid URL ({method})"
    error = error_of(404, {"error": {"message": message, "code": ""}})
    assert type(error) is NoSuchRouteError
    assert message in str(error)
    assert str(error).endswith("; check the path of the base URL")


@pytest.mark.parametrize("header", ["Location", "location", "LOCATION"])
@pytest.mark.parametrize("status", [300, 301, 302, 307, 308])
def test_the_error_of_a_redirect_names_its_target(status: int, header: str) -> None:
    error = error_of(status, PAGE, {header: "https://www.relay.example/luma/tasks"})
    assert type(error) is NoSuchRouteError
    assert f"status {status}" in str(error)
    assert str(error).endswith("the base URL that it names: https://www.relay.example/luma/tasks")


def test_a_long_redirect_target_is_cut() -> None:
    assert len(str(error_of(302, b"", {"Location": "https://www.relay.example/" * 1000}))) < 300


def test_the_error_of_a_redirect_without_a_target_says_nowhere() -> None:
    assert str(error_of(304)).endswith("nowhere")


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "it broke", "type": "new_api_error"}},
        {"message": "it broke"},
        {"detail": "it broke"},
        {"detail": {"reason": "it broke"}},
        {"error": "it broke"},
        {"error": {"code": ""}, "message": "it broke"},
        {"title": "it broke"},
        {"message": {"odd": 1}, "reason": "it broke"},
        {"message": "", "reason": "it broke"},
        b"it broke",
        b"\xef\xbb\xbfit broke\r\n",
        b'{"detail": "it broke"}{"detail": "and again"}',
    ],
)
def test_the_message_is_found_in_each_known_place(body: object) -> None:
    assert api_error(500, body).message == "it broke"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"code": "bad", "message": "m"}, "bad"),
        ({"error": {"code": "bad", "message": "m"}}, "bad"),
        ({"code": "outer", "error": {"code": "inner"}}, "inner"),
        ({"code": "outer", "error": {"code": ""}}, "outer"),
        ({"detail": {"code": 1, "reason": "r"}}, "1"),
        ({"code": ""}, None),
        ({"code": ["bad"]}, None),
        ({"message": "m"}, None),
        ([], None),
        (b"text", None),
    ],
)
def test_the_code_is_taken_from_the_response(body: object, code: str | None) -> None:
    assert api_error(500, body).code == code


def test_a_blank_code_or_request_id_is_none() -> None:
    error = api_error(400, b'{"code": " ", "message": "no (request id: )"}')
    assert (error.code, error.request_id) == (None, None)


def test_a_message_is_cut_to_one_line() -> None:
    message = api_error(500, {"message": "first\r\n\tsecond\n" + "x" * 10_000}).message
    assert message.startswith("first second xxx")
    assert message.endswith("x…")
    assert len(message) == 201


def test_a_web_page_in_an_error_is_cut_to_one_line() -> None:
    error = error_of(200, PAGE + b"\n\nx" * 10_000)
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) < 300


def test_the_request_id_is_separated_from_the_message() -> None:
    error = api_error(401, {"error": {"message": "no good (request id: 2024-140) at all"}})
    assert (error.message, error.request_id) == ("no good at all", "2024-140")
    assert str(error) == "status 401: no good at all (request id: 2024-140)"


def test_the_request_id_of_a_long_message_is_found() -> None:
    error = api_error(500, {"message": "x" * 5000 + " (request id: 77)"})
    assert error.request_id == "77"


@pytest.mark.parametrize("header", ["X-Request-Id", "x-request-id", "X-Oneapi-Request-Id"])
def test_the_request_id_may_be_in_a_header(header: str) -> None:
    assert api_error(500, b"", {header: "77"}).request_id == "77"


def test_the_request_id_of_the_message_wins_over_the_header() -> None:
    error = api_error(500, {"message": "m (request id: 1)"}, {"X-Request-Id": "2"})
    assert error.request_id == "1"


def test_an_error_without_a_request_id_has_none() -> None:
    assert api_error(500).request_id is None


def test_the_code_the_request_id_and_the_redirect_target_are_one_line() -> None:
    error = api_error(400, {"code": "a\nb", "message": "boom (request id: x\ny) \ud800"})
    assert str(error) == "status 400: a b: boom ? (request id: x y)"
    assert len(str(api_error(400, b"", {"x-request-id": "x" * 5000}))) < 300
    assert "\n" not in str(error_of(302, b"", {"location": "x\n y"}))
