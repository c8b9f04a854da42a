"""Errors: whether the relay says them or a proxy, and what they say about the task or the route."""

import pytest

from luma_async import (
    APIError,
    AuthenticationError,
    BadRequestError,
    NoSuchRouteError,
    NotFoundError,
    QuotaError,
    RateLimitedError,
    RelayError,
)
from tests.protocol.response_builders import PAGE, api_error, error_of

NOT_FOUND = {"code": "x", "message": "task not found"}


@pytest.mark.parametrize("status", [300, 301, 302, 304, 307, 308, 399])
def test_a_redirect_means_that_the_request_was_not_carried_out(status: int) -> None:
    error = error_of(status, PAGE, {"Location": "https://relay.example"})
    assert isinstance(error, NoSuchRouteError)
    assert error.is_refusal


def test_a_redirect_to_another_page_may_follow_a_request_that_was_carried_out() -> None:
    error = error_of(303, b"", {"Location": "https://relay.example"})
    assert isinstance(error, NoSuchRouteError)
    assert not error.is_refusal


@pytest.mark.parametrize("status", [299, 400])
def test_no_other_status_is_a_redirect(status: int) -> None:
    error = api_error(status, {"error": {"message": "boom"}}, {"Location": "https://relay.example"})
    assert error.message == "boom"


@pytest.mark.parametrize(
    ("status", "body", "certain", "refusal"),
    [
        (404, PAGE, False, True),
        (405, PAGE, False, True),
        (404, {"error": {"message": "Invalid URL (GET /v1/luma)"}}, True, True),
        (404, b"Invalid URL (GET /v1/luma)", True, True),
        (200, PAGE, True, False),
    ],
    ids=str,
)
def test_a_page_with_404_or_405_may_be_a_gateways_and_no_sign_of_a_wrong_base_url(
    status: int, body: object, certain: bool, refusal: bool
) -> None:
    error = error_of(status, body)
    assert isinstance(error, NoSuchRouteError)
    assert (error.certain, error.is_refusal) == (certain, refusal)


@pytest.mark.parametrize(
    ("body", "in_json", "in_envelope"),
    [
        ({"error": {"message": "boom"}}, True, True),
        ({"code": "x", "message": "boom"}, True, True),
        ({"code": "x"}, True, False),
        ({"message": "boom"}, True, False),
        ({"error": "boom"}, True, False),
        ([{"code": "x", "message": "boom"}], False, False),
        (b'"boom"', False, False),
        (b'{"boom', True, False),
        (b"boom", False, False),
        (PAGE, False, False),
        (b"", False, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [400, 500])
def test_an_error_is_the_relays_own_only_in_the_envelope_of_the_relay(
    body: object, in_json: bool, in_envelope: bool, status: int
) -> None:
    error = api_error(status, body)
    assert (error.in_json, error.in_envelope) == (in_json, in_envelope)


@pytest.mark.parametrize(
    ("status", "body", "about_task"),
    [
        (404, NOT_FOUND, True),
        (400, NOT_FOUND, True),
        (400, {"message": "TASK\nNOT FOUND"}, True),
        (404, {"code": "task_not_exist", "message": ""}, True),
        (404, {"detail": "Not Found"}, False),
        (404, b"task not found", False),
        (404, b"", False),
    ],
    ids=str,
)
def test_a_task_is_not_found_if_the_relay_says_so_in_json_of_the_task(
    status: int, body: object, about_task: bool
) -> None:
    error = api_error(status, body)
    assert isinstance(error, NotFoundError)
    assert error.about_task is about_task


def test_the_page_of_a_gateway_says_nothing_of_a_task() -> None:
    error: APIError = api_error(403, b"<p>task not found</p>")
    assert type(error) is RelayError
    assert (error.in_json, error.in_envelope) == (False, False)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (299, "too many requests", RateLimitedError),
        (400, "too many requests", BadRequestError),
        (500, "too many requests", RelayError),
        (299, "insufficient credits", QuotaError),
        (400, "insufficient credits", BadRequestError),
        (500, "insufficient credits", RelayError),
        (299, "invalid token", AuthenticationError),
        (400, "invalid token", BadRequestError),
        (500, "invalid token", RelayError),
        (299, "task not found", NotFoundError),
        (400, "task not found", NotFoundError),
        (499, "task not found", NotFoundError),
        (400, "no such model for this task", BadRequestError),
        (401, "task not found", AuthenticationError),
        (402, "task not found", QuotaError),
        (500, "task not found", RelayError),
        (501, "task not found", RelayError),
    ],
)
def test_words_count_only_with_the_statuses_that_leave_the_meaning_open(
    status: int, message: str, kind: type[APIError]
) -> None:
    assert type(api_error(status, {"error": {"message": message}})) is kind
