"""Text for people: one line of a foreign text, a duration."""

MAX_LINE = 200  # characters


def printable(text: str) -> str:
    """Return a text as one line, of any length, without control characters.

    What a terminal or a page would obey becomes U+FFFD.
    """
    words = " ".join(text.split())
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in words)


def one_line(text: str) -> str:
    """Return the beginning of a foreign text as one line of `MAX_LINE` characters at most."""
    shown = printable(text[: 4 * MAX_LINE].encode("utf-8", "replace").decode())
    return shown if len(shown) <= MAX_LINE else f"{shown[:MAX_LINE]}…"


def format_duration(seconds: float) -> str:
    """Format a duration in one unit: 0.4 s, 12 s, 3 min, 5 h, 2 d."""
    for least, unit, sign in (
        (172_800.0, 86_400.0, "d"),
        (7200.0, 3600.0, "h"),
        (100.0, 60.0, "min"),
    ):
        if seconds >= least:
            return f"{seconds / unit:.0f} {sign}"
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
