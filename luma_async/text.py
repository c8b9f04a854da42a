"""Text for people: foreign text as one safe line, and durations; short names for long texts."""

import hashlib
import re

MAX_LINE_LENGTH = 200  # characters
_DATA_LINK = re.compile(r"data:[\w.+/-]*[;,][^\s\"'<>]*")
_SLASH = r"(?:/|\\/|\\u002f)"  # as JSON may write it, too
_LINK = re.compile(
    rf"(https?:{_SLASH}{_SLASH})(?:[^\s/?#@\"'<>]*@)?([^\s?#\"'<>]*)([?#][^\s\"'<>]*)?",
    re.IGNORECASE,
)


def printable(text: str) -> str:
    """Return a text as one line of any length.

    White space becomes one space; control characters and other characters that cannot be printed
    become U+FFFD.
    """
    words = " ".join(text.split())
    if words.isprintable():
        return words
    return "".join(char if char.isprintable() else "\ufffd" for char in words)


def one_line(text: str) -> str:
    """Return a foreign text as one printable line, cut to `MAX_LINE_LENGTH` characters."""
    line = printable(text[: 4 * MAX_LINE_LENGTH].encode("utf-8", "replace").decode())
    return line if len(line) <= MAX_LINE_LENGTH else f"{line[:MAX_LINE_LENGTH]}…"


def quantity(count: int, noun: str) -> str:
    """Return a number with its noun: 1 request, 2,000 requests."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def without_secrets(text: str) -> str:
    """Return a text without the parts of links that may be secret.

    That is the content of a `data:` link, and the user, query and fragment of another one.
    """
    text = _DATA_LINK.sub("data:…", text)
    return _LINK.sub(lambda link: f"{link[1]}{link[2]}{'?…' if link[3] else ''}", text)


def hashed_name(text: str) -> str:
    """Return a short name for a text that is too long to be one: `~` and its SHA-256."""
    return f"~{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def format_duration(seconds: float) -> str:
    """Format a duration in seconds with one unit: 0.4 s, 12 s, 3 min, 5 h, 2 d."""
    for minimum, unit, name in (
        (172_800.0, 86_400.0, "d"),
        (7200.0, 3600.0, "h"),
        (100.0, 60.0, "min"),
    ):
        if seconds >= minimum:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.1f} s" if 0.0 < seconds < 0.95 else f"{seconds:.0f} s"


def format_precisely(seconds: float) -> str:
    """Format a duration in seconds to three digits: 27 ms, 0.53 s, 20.4 s, 3 min 20 s."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + " s"
    if seconds < 119.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest} s"


def format_roughly(seconds: float) -> str:
    """Format an estimated duration in seconds to one or two digits: 8 s, 40 s, 3 min, 2 h."""
    if seconds < 10:
        return f"{max(round(seconds), 1)} s"
    if seconds < 95:
        return f"{round(seconds, -1):.0f} s"
    if seconds < 3600:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h"
