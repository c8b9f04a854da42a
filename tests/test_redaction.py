"""No error shows the API key or the login of a proxy, or a part of them."""

from base64 import b64encode

from luma_async.redaction import Redactor


def test_a_secret_that_begins_with_another_one_is_removed_whole() -> None:
    redact = Redactor("sk-1234567890", "http://proxyuser:sk-1234@proxy.example:3128").redact
    assert redact("the key sk-1234567890 is bad") == "the key [api_key] is bad"
    assert redact("proxyuser:sk-1234 is no login") == "[proxy login] is no login"


def test_a_proxys_password_is_removed_as_it_is_and_as_it_is_in_the_url() -> None:
    redact = Redactor("sk-test", "http://proxyuser:pa%40sword@proxy.example:3128").redact
    encoded = b64encode(b"proxyuser:pa@sword").decode()
    for shown in ("pa@sword", "pa%40sword", encoded):
        assert redact(f"bad login {shown}") == "bad login [proxy login]"


def test_a_word_of_a_few_letters_is_no_secret() -> None:
    assert Redactor("x", "http://me:pw@proxy.example:3128").redact("expired for me") == (
        "expired for me"
    )
