"""Responses with secrets in every place, and whether one of them is left after redaction."""

import base64
import json
import random
import re
import string
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec

from luma_async.protocol.requests import batch_request, single_request
from luma_async.recording.recorder import Exchange, ShapeFilter
from luma_async.recording.stand_ins import StandIns

KEYS = (
    "id", "task_id", "state", "status", "code", "message", "msg", "error", "detail", "reason",
    "fail_reason", "prompt", "user", "username", "user_id", "url", "video", "data", "created_at",
    "count", "progress", "notify_hook", "result_url", "group", "quota", "email", "metadata",
    "channel", "title", "token", "whatever", "X-Thing", "size", "page", "model",
)  # fmt: skip
MESSAGES = (
    "task {} not found", "user {} has no quota", "{}", "无效的令牌 {}", "任务 {} 不存在",
    "upstream {} timeout (request id: {})", "prompt '{}' rejected by moderation", "{}:{}", "id={}",
    "host {} is unreachable: {}", "<b>{}</b>", "a{}b {}", "/v1/{}/tasks?x={}",
)  # fmt: skip
_WORD_LETTERS = string.ascii_lowercase
_ALNUM = string.ascii_letters + string.digits


class Planter:
    """Plants secrets in responses; `secrets` are those of the current one."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.secrets: list[str] = []

    def text(self, alphabet: str, least: int, most: int) -> str:
        return "".join(self.rng.choices(alphabet, k=self.rng.randint(least, most)))

    def secret(self) -> str:
        """Make a secret of one kind."""
        kinds: tuple[Callable[[], str], ...] = (
            lambda: "sk-" + self.text(_ALNUM, 20, 48),
            lambda: "task_" + self.text(_ALNUM, 32, 32),
            self._uuid,
            lambda: self.text("0123456789abcdef", 16, 64),
            lambda: self.text(_WORD_LETTERS, 8, 12),
            lambda: (
                f"{self.text(_WORD_LETTERS, 7, 9)}.{self.text(_ALNUM, 6, 9)}@"
                f"{self.text(_WORD_LETTERS, 7, 9)}.com"
            ),
            lambda: "1" + self.rng.choice("3456789") + self.text(string.digits, 9, 9),
            lambda: f"api.{self.text(_WORD_LETTERS, 8, 12)}.top",
            lambda: f"10.{self.rng.randint(16, 255)}.{self.rng.randint(100, 255)}.217",
            lambda: " ".join(self.text(_WORD_LETTERS, 6, 9) for _ in range(self.rng.randint(2, 6))),
            lambda: "".join(chr(self.rng.randint(0x6C00, 0x6FFF)) for _ in range(8)),
            lambda: "".join(chr(self.rng.randint(0x430, 0x44F)) for _ in range(12)),
            lambda: "eyJ" + ".".join(self.text(_ALNUM + "-_", 20, 40) for _ in range(3)),
            lambda: self.text(_ALNUM + "+/", 24, 40) + "==",
        )
        made = self.rng.choice(kinds)()
        self.secrets.append(made)
        return made

    def _uuid(self) -> str:
        digits = self.text("0123456789abcdef", 32, 32)
        made = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        return made.upper() if self.rng.random() < 0.2 else made

    def encoded(self) -> str:
        """Make a secret as other places write it: percent, base64, JSON within JSON."""
        made = self.secret()
        match self.rng.randrange(6):
            case 0:
                return quote(made, safe="")
            case 1:
                made = base64.b64encode(made.encode()).decode()
                self.secrets.append(made)
                return made
            case 2:
                return json.dumps({"id": made, "prompt": self.secret()})
            case 3:
                return made.upper()
            case _:
                return made

    def message(self) -> str:
        pattern = self.rng.choice(MESSAGES)
        return pattern.format(*(self.encoded() for _ in range(pattern.count("{}"))))

    def url(self) -> str:
        user = f"{self.text(_ALNUM, 8, 8)}:{self.secret_word()}@" if self.rng.random() < 0.2 else ""
        names = ("X-Amz-Signature", "Expires", "token", "X-Amz-Expires", "e", "user", "X-Amz-Date")
        query = "&".join(f"{name}={quote(self.encoded(), safe='')}" for name in names[:4])
        host = f"{self.secret_word()}.com"
        return f"https://{user}{host}/luma/{self.secret_word()}/a.mp4?{query}#{self.secret_word()}"

    def secret_word(self) -> str:
        made = self.text(_WORD_LETTERS, 8, 16)
        self.secrets.append(made)
        return made

    def number(self) -> int:
        made = "1" + self.rng.choice("3456789") + self.text(string.digits, 9, 9)
        self.secrets.append(made)
        return int(made)

    def value(self, depth: int = 0) -> Any:
        """Make a JSON value with secrets in it."""
        kind = self.rng.randrange(9 if depth < 3 else 5)
        if kind < 5:
            make: tuple[Callable[[], Any], ...] = (
                self.encoded, self.message, self.url, self.number, lambda: None,
            )  # fmt: skip
            return make[kind]()
        if kind < 7:
            return [self.value(depth + 1) for _ in range(self.rng.randint(1, 4))]
        return self.object(depth + 1)

    def object(self, depth: int = 0) -> dict[str, Any]:
        keys = [
            self.encoded() if self.rng.random() < 0.1 else self.rng.choice(KEYS)
            for _ in range(self.rng.randint(1, 6))
        ]
        return {key: self.value(depth) for key in keys}

    def body(self) -> bytes:
        """Make a body: JSON, JSON in other encodings, cut JSON, two documents, HTML, text."""
        plain = self.object() if self.rng.random() < 0.5 else [self.object() for _ in range(3)]
        text = json.dumps(plain, ensure_ascii=self.rng.random() < 0.3)
        match self.rng.randrange(10):
            case 0:
                text = text[: self.rng.randint(1, len(text))]
            case 1:
                text += json.dumps({"detail": {"reason": self.message()}})
            case 2:
                text = f"<html><title>{self.message()}</title><a href='{self.url()}'>x</a></html>"
            case 3:
                text = f"{self.message()}\n{self.url()} {self.encoded()}"
            case 4:
                return text.encode("utf-16")
            case _:
                pass
        return text.encode("utf-8", "replace")

    def exchange(self) -> tuple[Exchange, list[str]]:
        """Make a request and its response; return them with the texts that are known secrets."""
        self.secrets = []
        ids = [self.secret() for _ in range(self.rng.randint(1, 3))]
        request = single_request(ids[0]) if self.rng.random() < 0.5 else batch_request(ids)
        kind = self.rng.choice(("application/json", f"text/x; a={self.secret_word()}"))
        headers = {
            "Content-Type": kind,
            "Set-Cookie": f"session={self.secret_word()}; Domain={self.secret_word()}.com",
            "X-Request-Id": self.secret_word(),
            f"X-{self.secret_word()}": "1",
            "Location": self.url().encode("ascii", "replace").decode(),
            "Retry-After": str(self.number()),
            "Server": self.secret_word(),
        }
        key = "sk-test-" + self.text(_ALNUM, 16, 16)
        self.secrets.append(key)
        body = self.body().replace(b"not found", key.encode())
        return Exchange(request, self.rng.choice((200, 400, 500)), headers, body), [key]


def left_over(rng: random.Random) -> tuple[int, list[str]]:
    """Redact one response; return how many secrets it had, and those that are left."""
    planter = Planter(rng)
    exchange, literals = planter.exchange()
    (captured,) = ShapeFilter(StandIns(rng.randbytes(16)), literals).add(exchange)
    plain = msgspec.json.encode(captured).decode()
    written = "\n".join((plain, *captured.headers, *captured.headers.values(), captured.body))
    unescaped = json.dumps(written, ensure_ascii=False)
    everything = f"{written}\n{unescaped}\n{_unescaped(captured.body)}".lower()
    secrets = set(planter.secrets)
    return len(secrets), [one for one in secrets if one.lower() in everything]


def _unescaped(body: str) -> str:
    """Return a body with its JSON escapes decoded, as a reader would."""
    try:
        return json.dumps(json.loads(body), ensure_ascii=False)
    except ValueError:
        return re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), body)
