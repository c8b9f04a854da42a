"""Removes the API key and the login of a proxy from texts and errors."""

from base64 import b64encode
from collections.abc import Callable

from yarl import URL

MIN_SECRET_LENGTH = 6  # characters


class Redactor:
    """Replaces each secret by its name. A word shorter than MIN_SECRET_LENGTH is not a secret.

    A proxy's user and password are sent as `user:password` in base64, too.
    """

    def __init__(self, api_key: str, proxy: str | None) -> None:
        secrets: dict[str, str] = {}
        if len(api_key) >= MIN_SECRET_LENGTH:
            secrets[api_key] = "[api_key]"
        url = URL(proxy or "")
        if url.raw_user or url.raw_password:
            for user, password in (
                (url.raw_user or "", url.raw_password or ""),
                (url.user or "", url.password or ""),
            ):
                pair = f"{user}:{password}"
                secrets |= dict.fromkeys((pair, b64encode(pair.encode()).decode()), "[proxy login]")
                words = (word for word in (password, user) if len(word) >= MIN_SECRET_LENGTH)
                secrets |= dict.fromkeys(words, "[proxy login]")
        self._secrets = tuple(sorted(secrets.items(), key=lambda one: -len(one[0])))

    def redact(self, text: str) -> str:
        """Remove all secrets from a text."""
        for secret, name in self._secrets:
            text = text.replace(secret, name)
        return text


def redact_error(error: Exception, redact: Callable[[str], str]) -> None:
    """Redact the message of an error, and its attributes that are text."""
    error.args = tuple(redact(one) if isinstance(one, str) else one for one in error.args)
    for name, value in vars(error).items():
        if isinstance(value, str):
            setattr(error, name, redact(value))
