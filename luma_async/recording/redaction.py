"""Redaction: responses without secrets, which still parse as they did. Pure.

What may stay is listed in `vocabulary`; everything else becomes a stand-in of the same kind and
length. A text of an error message keeps its known words. A text about a person (a prompt, a name)
and an id keep none. Hosts, users, values in queries and unknown keys are replaced as well.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from luma_async.protocol.headers import lower_case
from luma_async.protocol.task_fields import as_list
from luma_async.recording import vocabulary
from luma_async.recording.json_pairs import Number, Pairs, dump, json_documents
from luma_async.recording.stand_ins import StandIns

# All patterns need linear time, whatever a relay sends.
_URL = re.compile(r"(?i)\b[a-z][a-z0-9+.-]{1,15}://[^\s\"'<>\\]*")
_RUN = re.compile(r"[\w.+@-]+")
_HOST = re.compile(r"(?i)(?:[a-z0-9_-]+\.)+[a-z]{2,24}|\d{1,3}(?:\.\d{1,3}){3}")
_WORD = re.compile(r"\\u[0-9a-fA-F]{4}|\\.|%[0-9A-Fa-f]{2}|[^\W_]+(?:[_-]+[^\W_]+)*|[^\x00-\x7f]")
_CHINESE = re.compile("|".join(vocabulary.CHINESE))
_PARTS = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z][a-z0-9]*|\d+")
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?|\d{8}T\d{6}Z|"
    r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"
)
_ID_KEY = re.compile(r"(?i)(?:^|_)id$|[a-z]I[dD]$")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?')
_COLON = re.compile(r"\s*:")
_MAX_KNOWN_LENGTH = 64  # characters of a word that may be known
_TIME_RANGE = (9e8, 5e9)  # unix seconds
_MAX_NUMBER = 1e7
_KEPT_PORTS = re.compile(r":\d{1,5}$")


class CaptureRedactor:
    """Redacts what a relay answers; `literals` are replaced wherever they are: key, hosts, ids."""

    def __init__(self, stand_ins: StandIns, literals: Iterable[str] = ()) -> None:
        self._stand_ins = stand_ins
        self._literals: dict[str, None] = {}
        self._pattern: re.Pattern[str] | None = None
        self.add_literals(literals)

    def add_literals(self, literals: Iterable[str]) -> None:
        """Add texts that are replaced wherever they are."""
        new = {text: None for text in literals if text and text not in self._literals}
        self._literals |= new
        if new:
            ordered = sorted(self._literals, key=len, reverse=True)
            words = "|".join(map(re.escape, ordered))
            self._pattern = re.compile(rf"(?i)(?<![^\W_])(?:{words})(?![^\W_])")

    @staticmethod
    def names(text: str, literal: str) -> bool:
        """Whether a text contains a literal as a word, in any case."""
        return re.search(rf"(?i)(?<![^\W_]){re.escape(literal)}(?![^\W_])", text) is not None

    def strict(self, text: str) -> str:
        """Replace every word of a text, for example of an id or of a prompt."""
        return _WORD.sub(lambda found: self._replaced(found[0]), text)

    def text(self, text: str) -> str:
        """Replace the words of a text that are not known; hosts and literals, too."""
        if _TIME.fullmatch(text):
            return text
        return self._each(text, self._pattern, self.strict, self._without_literals)

    def _without_literals(self, text: str) -> str:
        return self._each(text, _URL, self.url, self._without_urls)

    def _without_urls(self, text: str) -> str:
        return self._each(text, _RUN, self._host_or_words, lambda rest: rest)

    def _host_or_words(self, run: str) -> str:
        """Redact a run of characters that may be a host or an address of a person."""
        if "@" in run or _HOST.fullmatch(run.strip(".-+")):
            return self.host(run)
        return self._words(run)

    def _words(self, text: str) -> str:
        return _WORD.sub(lambda found: self._known_or_replaced(found[0]), text)

    @staticmethod
    def _each(
        text: str,
        pattern: re.Pattern[str] | None,
        inside: Callable[[str], str],
        outside: Callable[[str], str],
    ) -> str:
        """Return a text with what matches redacted by `inside`, and the rest by `outside`."""
        if pattern is None:
            return outside(text)
        parts: list[str] = []
        at = 0
        for found in pattern.finditer(text):
            parts += outside(text[at : found.start()]), inside(found[0])
            at = found.end()
        return "".join([*parts, outside(text[at:])])

    def _replaced(self, word: str) -> str:
        if word[0] == "\\":
            return _escape(word)
        if word[0] == "%":
            char = chr(int(word[1:], 16))
            return word if char.isascii() and not char.isalnum() else "%78"
        return self._stand_ins.word(word)

    def _known_or_replaced(self, word: str) -> str:
        if is_known(word):
            return word
        if word.isascii():
            return self._replaced(word)
        return self._each(word, _CHINESE, lambda known: known, self.strict)

    def url(self, url: str) -> str:
        """Redact a URL: user, host, values in the query; known words of the path stay."""
        scheme, _, rest = url.partition("://")
        rest, hash_, fragment = rest.partition("#")
        rest, mark, query = rest.partition("?")
        authority, slash, path = rest.partition("/")
        user, at, host = authority.rpartition("@")
        words = self._each(path, self._pattern, self.strict, self._words)
        return (
            f"{scheme}://{self.strict(user)}{at}{self.host(host)}{slash}{words}"
            f"{mark}{self._query(query)}{hash_}{self.strict(fragment)}"
        )

    def host(self, host: str) -> str:
        """Redact a host name or an address; its port and the last part of the name stay."""
        user, at, name = host.rpartition("@")
        port = _KEPT_PORTS.search(name)
        name = name[: port.start()] if port else name
        labels, dot, last = name.rpartition(".")
        end = last if labels and is_known(last) else self.strict(last)
        return f"{self.strict(user)}{at}{self.strict(labels)}{dot}{end}{port[0] if port else ''}"

    def _query(self, query: str) -> str:
        parts: list[str] = []
        for part in query.split("&"):
            name, equals, value = part.partition("=")
            plain = is_amount(value) or bool(_TIME.fullmatch(value)) or is_known(value)
            kept = name.lower() in vocabulary.QUERY_KEYS and plain
            parts.append(f"{self.key(name)}{equals}{value if kept else self.strict(value)}")
        return "&".join(parts)

    def key(self, key: str) -> str:
        """Redact the name of a field: one whose words are all known stays."""
        is_literal = self._pattern is not None and self._pattern.search(key) is not None
        return key if is_known(key) and not is_literal else self.strict(key)

    def headers(self, headers: dict[str, str]) -> dict[str, str]:
        """Redact header fields; names in lower case."""
        return {self.key(n): self._header(n, v) for n, v in lower_case(headers).items()}

    def _header(self, name: str, value: str) -> str:
        if name == "location":
            return self.text(value)
        if name not in vocabulary.HEADERS and "ratelimit" not in name:
            return self.strict(value)
        return value if is_amount(value.replace(".", "", 1)) else self.text(value)

    def body(self, body: str) -> str:
        """Redact a body: JSON value by value, anything else as a text."""
        documents = json_documents(body)
        if documents is not None:
            self.add_literals(personal_texts(documents))
            ascii_only = body.isascii()
            return "".join(dump(self.plain(one), ascii_only=ascii_only) for one in documents)
        if body.lstrip()[:1] in ("{", "["):
            return self._broken_json(body)
        return self.text(body)

    def _broken_json(self, body: str) -> str:
        """Redact what is not quite JSON: keys as keys, all other strings strictly."""
        parts: list[str] = []
        at = 0
        for found in _STRING.finditer(body):
            inside = found[0].strip('"')
            is_key = _COLON.match(body, found.end()) is not None
            text = self.key(inside) if is_key else self.strict(inside)
            parts += self.strict(body[at : found.start()]), found[0].replace(inside, text, 1)
            at = found.end()
        return "".join([*parts, self.strict(body[at:])])

    def plain(self, value: Any, key: str = "") -> Any:
        """Redact a JSON value; `key` is the name of the field that it is in."""
        if isinstance(value, Pairs):
            return Pairs((self.key(name), self.plain(one, name)) for name, one in value)
        if (items := as_list(value)) is not None:
            return [self.plain(one, key) for one in items]
        if isinstance(value, Number):
            return self._number(value, key)
        return self._string(value, key) if isinstance(value, str) else value

    def _string(self, text: str, key: str) -> str:
        if _TIME.fullmatch(text):
            return text
        if _URL.match(text):
            return self.text(text)
        is_personal = key.lower() in vocabulary.PERSONAL_KEYS or _ID_KEY.search(key)
        return self.strict(text) if is_personal else self.text(text)

    def _number(self, number: Number, key: str) -> Number:
        value, name = abs(float(number)), key.lower()
        if name in vocabulary.NUMBER_KEYS and value < _MAX_NUMBER:
            return number
        if name in vocabulary.TIME_KEYS and is_unix_time(value):
            return number
        if number in ("0", "1") or not any(map(str.isdigit, number)):  # NaN, Infinity
            return number
        return Number(self._stand_ins.number(number))


def is_known(word: str) -> bool:
    """Whether all parts of a word are in the vocabulary; numbers: 0, 1 and statuses of HTTP."""
    if not word.isascii() or len(word) > _MAX_KNOWN_LENGTH:
        return False
    if word.lower() in vocabulary.WORDS:
        return True
    parts = _PARTS.findall(word)
    if len("".join(parts)) != sum(char.isalnum() for char in word):
        return False
    return all(part.lower() in vocabulary.WORDS or _is_common_number(part) for part in parts)


def is_unix_time(value: float) -> bool:
    """Whether a number may be unix time of our days: in seconds, milliseconds or microseconds."""
    low, high = _TIME_RANGE
    return any(low < value / unit < high for unit in (1, 1e3, 1e6))


def is_amount(text: str) -> bool:
    """Whether a text is a small number or unix time, which is no secret in itself."""
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        return False
    return float(text) < _MAX_NUMBER or is_unix_time(float(text))


def personal_texts(value: Any, key: str = "") -> Iterator[str]:
    """Yield the prompts and names in JSON, which an error message may quote."""
    if isinstance(value, Pairs):
        for name, one in value:
            yield from personal_texts(one, name)
    elif (items := as_list(value)) is not None:
        for one in items:
            yield from personal_texts(one, key)
    elif isinstance(value, str) and not isinstance(value, Number):
        is_word = is_known(value) and " " not in value.strip()
        if key.lower() in vocabulary.PERSONAL_KEYS and len(value) > 3 and not is_word:
            yield value


def _is_common_number(part: str) -> bool:
    return part in ("0", "1") or (len(part) == 3 and part.isdigit() and "100" <= part < "600")


def _escape(escaped: str) -> str:
    """Replace a JSON escape of a letter or a digit; escapes of punctuation stay."""
    if len(escaped) < 6:
        return escaped
    char = chr(int(escaped[2:], 16))
    if not char.isascii():
        return escaped if "\ud800" <= char <= "\udfff" else "\\u5b57"
    return "\\u0078" if char.isalnum() else escaped
