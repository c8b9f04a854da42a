"""Where benchmarks write their tables: between two marks on a page of the documentation."""

from collections.abc import Sequence
from pathlib import Path


def written(page: str, name: str, lines: Sequence[str]) -> str:
    """Put a table between its two marks on the page."""
    opening, closing = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    head, _, rest = page.partition(opening)
    return head + opening + "\n".join(lines) + "\n" + closing + rest.partition(closing)[2]


def write_table(page: Path, name: str, lines: Sequence[str]) -> None:
    """Put a table on a page; ValueError where it has no marks for it."""
    text = page.read_text()
    if f"<!-- {name} -->\n" not in text:
        raise ValueError(f"{page} has no <!-- {name} -->; put the marks where it belongs")
    page.write_text(written(text, name, lines))
