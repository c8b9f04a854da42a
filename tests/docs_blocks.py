"""The fenced blocks of the pages, and what the pages say of them.

A comment before a fence says what the block takes as given, `<!-- given: luma, ids -->`, or which
test runs it in its own way, `<!-- run by tests/worker/test_page.py -->`.
"""

import json
import re
import shlex
import textwrap
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

ROOT = Path(__file__).parent.parent

_FENCE = re.compile(
    r"^(?:<!-- (?P<remark>[^>]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)
_INDENTED = re.compile(r"(?<=\n\n)(?:    .*\n)+", re.M)


class Block(Struct, frozen=True):
    """One block: its page, the line of its fence, its language, what is said of it, itself."""

    page: str
    line: int
    language: str
    text: str
    given: tuple[str, ...] | None = None
    run_by: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    found = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    return sorted(str(page.relative_to(ROOT)) for page in found)


def fenced(*languages: str) -> list[Block]:
    return [b for page in pages() for b in _blocks(page) if b.language in languages]


def notebooks() -> list[Block]:
    """Return the code cells of each notebook as one block."""
    found: list[Block] = []
    for file in sorted((ROOT / "docs").rglob("*.ipynb")):
        cells = json.loads(file.read_text())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        page = str(file.relative_to(ROOT))
        found.append(Block(page, 1, "python", "\n\n".join(code) + "\n", given=()))
    return found


def indented() -> list[Block]:
    """Return what is shown by four spaces: commands, by this project's habit."""
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, "sh", found[0])
        for page in pages()
        for text in [without_fences(page)]
        for found in _INDENTED.finditer(text)
    ]


def blocks(page: str, language: str) -> list[str]:
    return [block.text for block in _blocks(page) if block.language == language]


def _blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    return [
        Block(page, text.count("\n", 0, found.start("text")), found["language"], found["text"],
              *_remark(found["remark"] or ""))
        for found in _FENCE.finditer(text)
    ]  # fmt: skip


def _remark(remark: str) -> tuple[tuple[str, ...] | None, str | None]:
    if remark.startswith("given: "):
        return tuple(remark.removeprefix("given: ").split(", ")), None
    return None, remark.removeprefix("run by ") if remark.startswith("run by ") else None


def without_fences(page: str) -> str:
    """Return a page with its fences emptied, line for line."""
    text = (ROOT / page).read_text()
    return re.sub(r"^```.*?^```$", lambda m: "\n" * m[0].count("\n"), text, flags=re.M | re.S)


def commands() -> list[Block]:
    """Return what a reader pastes into a shell, each block without prompts and output."""
    shown = [*fenced("console", "sh", "bash", "shell"), *indented()]
    return [replace(block, text=_pasted(block)) for block in shown]


def _pasted(block: Block) -> str:
    if block.language != "console":
        return textwrap.dedent(block.text)
    lines = [line[2:] for line in block.text.splitlines() if line.startswith(("$ ", "> "))]
    return "".join(f"{line}\n" for line in lines)


def arguments(script: str) -> list[list[str]]:
    """Return the arguments of each `luma-async` in a script."""
    bare = re.sub(r"(^|\s)#.*", "", script, flags=re.M).replace("\\\n", " ").replace("\n", " ; ")
    words = shlex.shlex(bare, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    words.commenters = ""
    found: list[list[str]] = []
    inside = False
    for word in words:
        if word.rpartition("/")[2] == "luma-async":
            found.append([])
            inside = True
        elif set(word) <= set("();<>|&"):
            inside = False
        elif inside:
            found[-1].append(word)
    return found
