"""Stand-ins: text of the same kind and length, the same one for the same text in one file.

A digit stands for a digit, a letter for a letter of the same case, a hexadecimal letter for one in
text that is hexadecimal, and a character beyond ASCII for one that takes as many bytes. White space
and punctuation stay. So a UUID becomes a UUID, and a URL becomes a URL.
"""

import hmac
import re
import unicodedata

_HEX = frozenset("0123456789abcdef_-")
_KIND = re.compile(r"(?:task|video|gen|job|req|sk)[_-](?=.)", re.IGNORECASE)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_MAX_TRIES = 64


class StandIns:
    """Replaces words by stand-ins, which depend on a random `secret`."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._known: dict[str, str] = {}
        self._taken: set[str] = set()

    def word(self, word: str) -> str:
        """Return the stand-in of one word: a run of letters and digits with `_` and `-` in it.

        Two words that differ in case alone have stand-ins that differ in case alone. Two other
        words have different stand-ins, unless there are not enough of that length.
        """
        kind = _KIND.match(word)
        if kind is not None:
            return kind[0] + self.word(word[kind.end() :])
        folded = word.lower() if word.isascii() else word
        if folded not in self._known:
            self._known[folded] = self._new(folded)
        stand_in = self._known[folded]
        if len(stand_in) != len(word):  # pragma: no cover - lower() keeps the length of ASCII
            return stand_in
        pairs = zip(word, stand_in, strict=True)
        return "".join(new.upper() if "A" <= old <= "Z" else new for old, new in pairs)

    def number(self, text: str) -> str:
        """Return the stand-in of a number as JSON writes it: as many digits, none of them new."""
        head, digit, tail = re.split(r"(\d)", text, maxsplit=1)
        rest = self.word(f"{digit}{tail}") if tail or digit not in "01" else digit
        first = rest[0] if rest[0] != "0" or not tail[:1].isdigit() else "1"
        return head + first + rest[1:]

    def _new(self, word: str) -> str:
        stand_in = word
        is_hex = {*word} <= _HEX and not word.isdigit() and any(map(str.isdigit, word))
        for tries in range(_MAX_TRIES):
            text = f"{tries} {word}".encode("utf-8", "surrogatepass")
            digest = self._stream(hmac.digest(self._secret, text, "sha256"), len(word))
            pairs = zip(word, digest, strict=False)
            stand_in = "".join(_character(char, byte, is_hex=is_hex) for char, byte in pairs)
            if stand_in != word and stand_in not in self._taken:
                break
        self._taken.add(stand_in)
        return stand_in

    def _stream(self, seed: bytes, length: int) -> bytes:
        """Return pseudorandom bytes, at least so many."""
        blocks = (
            hmac.digest(self._secret, seed + number.to_bytes(8), "sha256")
            for number in range(length // 32 + 1)
        )
        return b"".join(blocks)


def _character(char: str, byte: int, *, is_hex: bool) -> str:
    if "0" <= char <= "9":
        return str(byte % 10)
    if "a" <= char <= "z":
        return _LETTERS[byte % (6 if is_hex else 26)]
    if char.isascii() or unicodedata.category(char)[0] in "ZPC":
        return char
    if char < "\u0800":
        return chr(0xE0 + byte % 20)
    return chr((0x20000 if char > "\uffff" else 0x5000) + byte)
