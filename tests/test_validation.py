"""What callers may give: each error says what to do instead, and none repeats a secret."""

import traceback
from collections.abc import Callable
from math import inf, nan

import pytest

from luma_async import validation as checks

SECRET = "hunter2"
NUMBER_REMEDY = r"; give a number( above zero| of at least zero)?$"
REMEDY = r"[;,] (give|pass|remove) .+$"


def refused(check: Callable[[object], object], value: object) -> str:
    """Return the whole traceback of a refusal."""
    with pytest.raises((TypeError, ValueError)) as caught:
        check(value)
    return "".join(traceback.format_exception(caught.value))


def positive(value: object) -> float:
    return checks.positive("interval", value)


def not_negative(value: object) -> float:
    return checks.not_negative("grace", value)


def whole(value: object) -> int:
    return checks.whole("seats", value)


def proxy(value: object) -> str:
    return checks.http_url("proxy", value, plain=False)


@pytest.mark.parametrize("value", [1, 0.001, inf, 10**9])
def test_a_positive_number_is_returned(value: float) -> None:
    assert positive(value) == value
    assert not_negative(value) == value


def test_zero_is_not_negative_and_not_positive() -> None:
    assert not_negative(0) == 0
    with pytest.raises(ValueError, match=r"^interval=0; give a number above zero$"):
        positive(0)


@pytest.mark.parametrize("check", [positive, not_negative, checks.timeout])
@pytest.mark.parametrize("value", [-1, -0.001, -inf, nan])
def test_a_number_out_of_range_is_a_value_error(
    check: Callable[[object], object], value: float
) -> None:
    with pytest.raises(ValueError, match=NUMBER_REMEDY):
        check(value)


@pytest.mark.parametrize("check", [positive, not_negative, checks.timeout])
@pytest.mark.parametrize("value", [True, False, "1", b"1", [1], 1j, object()])
def test_what_is_no_number_is_a_type_error(
    check: Callable[[object], object], value: object
) -> None:
    with pytest.raises(TypeError, match=rf"is of type \w+{NUMBER_REMEDY}"):
        check(value)


@pytest.mark.parametrize("check", [positive, not_negative])
def test_none_is_no_number(check: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match=rf"is None{NUMBER_REMEDY}"):
        check(None)


@pytest.mark.parametrize("value", [1, 7, 10**9])
def test_a_whole_number_is_returned(value: int) -> None:
    assert whole(value) == value


@pytest.mark.parametrize("value", [0, -1])
def test_a_whole_number_is_at_least_one(value: int) -> None:
    with pytest.raises(ValueError, match=rf"^seats={value}; give a whole number of at least 1$"):
        whole(value)


@pytest.mark.parametrize("value", [True, 1.0, inf, "1", None])
def test_what_is_not_whole_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match=r"^seats is .*; give a whole number$"):
        whole(value)


@pytest.mark.parametrize("value", [None, inf])
def test_a_timeout_may_be_without_end(value: float | None) -> None:
    assert checks.timeout(value) is None


@pytest.mark.parametrize("value", [0, 0.5, 1800.0])
def test_a_timeout_is_seconds(value: float) -> None:
    assert checks.timeout(value) == value


def test_an_instance_of_the_kind_is_returned() -> None:
    value = object()
    assert checks.instance("pace", value, object, "a pace") is value


@pytest.mark.parametrize("value", [5.0, None, int])
def test_another_kind_is_a_type_error_that_names_what_to_give(value: object) -> None:
    with pytest.raises(TypeError, match=r"^number is .*; give a whole one$"):
        checks.instance("number", value, int, "a whole one")


def test_a_class_is_not_its_instance() -> None:
    """`pace=Every` instead of `pace=Every(5.0)` is an easy slip."""
    with pytest.raises(TypeError, match=r"^kind is of type type; give an object$"):
        checks.instance("kind", int, (object, str), "an object")


@pytest.mark.parametrize("value", ["a", " ", "a/b?c", "..", "id-é-任务", "0"])
def test_a_task_id_is_opaque_text(value: str) -> None:
    assert checks.task_id(value) == value


@pytest.mark.parametrize("value", [None, 7, b"a", ["a"], True])
def test_a_task_id_that_is_not_text_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match=r"^a task id is text, .*; give the id as str$"):
        checks.task_id(value)


def test_an_empty_task_id_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"empty; give the id that the relay returned .*$"):
        checks.task_id("")


def test_a_task_id_that_no_request_can_carry_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"; give the id as UTF-8$"):
        checks.task_id("a\ud800")


def test_one_text_is_one_id() -> None:
    assert checks.task_ids("abc") == ("abc",)


def test_ids_keep_their_order_and_come_once() -> None:
    assert checks.task_ids(["b", "a", "b", "c", "a"]) == ("b", "a", "c")


@pytest.mark.parametrize(
    "value", [["a", "b"], ("a", "b"), {"a": 1, "b": 2}, iter(["a", "b"]), {"a": 1, "b": 2}.keys()]
)
def test_any_iterable_of_text_is_ids(value: object) -> None:
    assert checks.task_ids(value) == ("a", "b")


def test_no_ids_are_no_ids() -> None:
    assert checks.task_ids([]) == ()


@pytest.mark.parametrize("value", [b"ab", bytearray(b"ab"), None, 7, object()])
def test_what_is_no_iterable_of_text_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match=r"^ids are .*; give a str or an iterable of str$"):
        checks.task_ids(value)


@pytest.mark.parametrize(("value", "kind"), [("", ValueError), ([""], ValueError)])
def test_an_empty_id_among_ids_is_refused(value: object, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="a task id is empty"):
        checks.task_ids(value)


@pytest.mark.parametrize("value", [["a", 7], ["a", None], ["a", b"b"]])
def test_a_wrong_id_among_ids_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="give the id as str$"):
        checks.task_ids(value)


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("https://relay.example", "https://relay.example"),
        ("https://relay.example/", "https://relay.example"),
        ("http://127.0.0.1:8080/pro/", "http://127.0.0.1:8080/pro"),
        ("https://[::1]:8080/vip", "https://[::1]:8080/vip"),
    ],
)
def test_a_base_url_may_have_a_path_and_loses_its_last_slash(value: str, url: str) -> None:
    assert checks.base_url(value) == url


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_base_url_names_argument_and_variable(value: object) -> None:
    with pytest.raises(ValueError, match=r"; pass base_url or set LUMA_BASE_URL$"):
        checks.base_url(value)


@pytest.mark.parametrize(
    "value",
    [
        "relay.example",
        "relay.example/v1",
        "ftp://relay.example",
        "file:///etc/passwd",
        "https://",
        "https:///luma",
        "https://:8080",
        "https://relay.example:0",
        "https://relay.example:99999",
        "https://relay.example:port",
        "https://[::1",
        "https://relay example",
        "https://relay.example/\n",
        " https://relay.example",
        "https://relay.example/\u200b",
        "://",
        "/luma",
    ],
)
def test_what_is_no_http_url_is_a_value_error(value: str) -> None:
    with pytest.raises(ValueError, match=r"^base_url is no .*; give a URL such as https://relay"):
        checks.base_url(value)


@pytest.mark.parametrize("value", [b"https://relay.example", 7, ["https://relay.example"]])
def test_a_url_that_is_not_text_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match=r"^base_url is of type .*; give a URL such as https://"):
        checks.base_url(value)


@pytest.mark.parametrize("tail", ["?a=b", "/v1?a", "#top", "/#/panel"])
def test_a_base_url_has_no_query_and_no_fragment(tail: str) -> None:
    with pytest.raises(ValueError, match=r"carries a query or a fragment; give it without them$"):
        checks.base_url(f"https://relay.example{tail}")


def test_a_base_url_has_no_password() -> None:
    with pytest.raises(ValueError, match=r"carries a user or password; remove it and pass api_key"):
        checks.base_url(f"https://user:{SECRET}@relay.example")


def test_a_proxy_may_have_a_password() -> None:
    url = f"http://user:{SECRET}@proxy.example:3128"
    assert proxy(url) == url


@pytest.mark.parametrize("check", [checks.base_url, proxy])
@pytest.mark.parametrize(
    "value",
    [
        f"ftp://user:{SECRET}@relay.example",
        f"user:{SECRET}@relay.example",
        f"https://user:{SECRET}@relay.example:port",
        f"https://user:{SECRET}@[::1",
        f"https://user:{SECRET}@relay.example\u2100",
        f"https://user:{SECRET}@relay example",
        f"ftp://relay.example?key={SECRET}",
        f"https://{SECRET}@",
    ],
)
def test_a_url_that_is_refused_is_not_repeated(
    check: Callable[[object], object], value: str
) -> None:
    assert SECRET not in refused(check, value)


@pytest.mark.parametrize("tail", [f"?key={SECRET}", f"#{SECRET}"])
def test_a_key_in_the_base_url_is_not_repeated(tail: str) -> None:
    assert SECRET not in refused(checks.base_url, f"https://relay.example{tail}")
    assert SECRET not in refused(checks.base_url, f"https://{SECRET}@relay.example")


@pytest.mark.parametrize("value", ["sk-abc", "sk-a-1234", "~!@#$%^&*()"])
def test_a_key_is_returned_untouched(value: str) -> None:
    assert checks.api_key(value) == value


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_key_names_argument_and_variable(value: object) -> None:
    with pytest.raises(ValueError, match=r"^no API key; pass api_key or set LUMA_API_KEY$"):
        checks.api_key(value)


@pytest.mark.parametrize(
    "value",
    [f"{SECRET}\n", f"{SECRET}\r\nX: y", f" {SECRET}", f"sk {SECRET}", f"{SECRET}\t", f"é{SECRET}"],
)
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(ValueError, match=r"^api_key holds .*; remove it$"):
        checks.api_key(value)
    assert SECRET not in refused(checks.api_key, value)


@pytest.mark.parametrize("value", [SECRET.encode(), [SECRET], {SECRET: 1}])
def test_a_key_that_is_not_text_is_a_type_error_and_not_repeated(value: object) -> None:
    with pytest.raises(TypeError, match=r"^api_key is of type \w+; give it as text$"):
        checks.api_key(value)
    assert SECRET not in refused(checks.api_key, value)


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (positive, 0),
        (not_negative, nan),
        (whole, 0),
        (whole, "1"),
        (checks.timeout, -1),
        (checks.task_id, ""),
        (checks.task_id, 1),
        (checks.task_ids, None),
        (checks.base_url, None),
        (checks.base_url, "relay"),
        (checks.base_url, "https://a@relay.example"),
        (checks.base_url, "https://relay.example?a"),
        (checks.api_key, None),
        (checks.api_key, "a b"),
        (checks.api_key, 1),
    ],
)
def test_the_last_words_are_the_remedy(check: Callable[[object], object], value: object) -> None:
    with pytest.raises((TypeError, ValueError), match=REMEDY):
        check(value)


@pytest.mark.parametrize("check", [checks.positive, checks.not_negative])
def test_a_number_that_no_float_holds_is_refused(check: Callable[[str, object], float]) -> None:
    with pytest.raises(ValueError, match="give a smaller number$"):
        check("seconds", 10**400)


@pytest.mark.parametrize("url", ["https://h?", "https://h/?", "https://h/#"])
def test_an_empty_query_or_fragment_is_one(url: str) -> None:
    with pytest.raises(ValueError, match="give it without them$"):
        checks.base_url(url)
