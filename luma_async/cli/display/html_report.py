"""A page of all videos: one file, no script, nothing fetched but the media that it shows.

Everything in it that a relay sent is escaped. A link can be clicked only if it is http or https and
leads to a public address, or to a host that was allowed. A policy in the page forbids scripts,
frames, forms and styles of other hosts as a second defence; no link sends a referrer.
"""

import os
import secrets
import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from urllib.parse import quote

from luma_async.cli.display.progress import WORDS, Details, Progress, TaskRow, why
from luma_async.downloads import links
from luma_async.structs import Generation, Image, State
from luma_async.text import format_precisely, printable

MAX_TEXT = 2000
LONGEST = 1e6
POLICY = (
    "default-src 'none'; img-src http: https:; media-src http: https: file: 'self'; "
    "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b1f24;--soft:#646c76;
--edge:#dfe3e8;--completed:#12805c;--failed:#c2362b;--missing:#8b3fae;--open:#a86a00}
@media(prefers-color-scheme:dark){:root{--page:#14171a;--card:#1e2226;--ink:#e8eaed;--soft:#9aa3ad;
--edge:#31373d;--completed:#3cc492;--failed:#ff7a6e;--missing:#cf8df0;--open:#e5b04f}}
*{box-sizing:border-box}
body{margin:0;padding:2rem clamp(1rem,4vw,3rem);background:var(--page);color:var(--ink);
font:16px/1.45 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0}
.sums{color:var(--soft);margin:.3rem 0 1.5rem}
.sums b{color:var(--ink)}
main{display:grid;gap:1.25rem;grid-template-columns:repeat(auto-fill,minmax(min(20rem,100%),1fr))}
article{background:var(--card);border:1px solid var(--edge);border-radius:.75rem;overflow:hidden;
display:flex;flex-direction:column;content-visibility:auto;contain-intrinsic-size:auto 22rem}
video,.none{width:100%;aspect-ratio:16/9;background:#000;display:block;object-fit:contain}
.none{background:color-mix(in srgb,var(--soft) 14%,var(--card));color:var(--soft);display:grid;
place-items:center;padding:1rem;text-align:center;overflow-wrap:anywhere}
.text{padding:.8rem 1rem 1rem;display:flex;flex-direction:column;gap:.45rem}
.prompt{margin:0;overflow-wrap:anywhere;display:-webkit-box;-webkit-line-clamp:4;
-webkit-box-orient:vertical;overflow:hidden}
.facts{display:flex;flex-wrap:wrap;gap:.2rem .8rem;color:var(--soft);font-size:.85rem}
.state{font-weight:600;color:var(--open)}
.completed{color:var(--completed)}.failed{color:var(--failed)}.missing{color:var(--missing)}
code{font-size:.78rem;color:var(--soft);overflow-wrap:anywhere}
a{color:inherit}
"""


class Page:
    """A page of all rows as of `now`; files are linked relative to `home`, the directory it is in.

    It is made in parts, so that one row is in memory at a time.
    """

    def __init__(
        self,
        board: Progress,
        now: float,
        date: datetime,
        home: Path,
        allowed: Collection[str],
    ) -> None:
        self._board = board
        self._now = now
        self._date = date
        self._home = home
        self._allowed = frozenset(host.lower() for host in allowed)

    def __str__(self) -> str:
        return "".join(self.parts())

    def parts(self) -> Iterator[str]:
        """Yield the page in parts. Raise OSError if stored details cannot be read."""
        rows = self._board.rows
        title = f"{len(rows):,} video{'s' * (len(rows) != 1)}"
        yield "\n".join(
            [
                '<!doctype html><html lang="en"><head><meta charset="utf-8">',
                f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
                '<meta name="viewport" content="width=device-width,initial-scale=1">',
                '<meta name="referrer" content="no-referrer">',
                '<meta name="robots" content="noindex">',
                f"<title>{title}</title><style>{STYLE}</style></head><body>",
                f"<h1>{title}</h1>{self._sums()}<main>\n",
            ]
        )
        for row in rows.values():
            yield self._card(row, self._board.details(row)) + "\n"
        yield "</main></body></html>\n"

    def _sums(self) -> str:
        counts = self._board.counts
        text = ", ".join(f"<b>{counts[word]:,}</b> {word}" for word in WORDS if counts[word])
        return f'<p class="sums">{text or "none"} · {self._date:%Y-%m-%d %H:%M} UTC</p>'

    def _card(self, row: TaskRow, details: Details) -> str:
        prompt = f'<p class="prompt">{_text(details.prompt)}</p>' if details.prompt else ""
        facts = "".join(f"<span>{fact}</span>" for fact in self._facts(row, details))
        return (
            f'<article>{self._player(row, details)}<div class="text">{prompt}<div class="facts">'
            f'<span class="state {row.word}">{row.word}</span>{facts}</div>'
            f"<code>{_text(row.id)}</code></div></article>"
        )

    def _player(self, row: TaskRow, details: Details) -> str:
        source = self._source(row, details)
        if source is None or details.generation is None:
            return f'<div class="none">{_text(_reason(row, details))}</div>'
        poster = next(filter(None, map(self._linked, _pictures(details.generation))), None)
        shown = f' poster="{escape(poster)}"' if poster else ""
        return f'<video controls preload="none"{shown} src="{escape(source)}"></video>'

    def _source(self, row: TaskRow, details: Details) -> str | None:
        """Return where the video is: the file that was saved, else a link that may be followed."""
        if details.file is not None:
            return quote(os.fsencode(os.path.relpath(details.file, self._home)))
        task = details.generation if row.word == State.COMPLETED else None
        return self._linked(task.url if task else None)

    def _linked(self, link: str | None) -> str | None:
        return links.parse_link(link, self._allowed)

    def _facts(self, row: TaskRow, details: Details) -> Iterator[str]:
        age = row.age(self._now)
        if age is not None:
            yield f"{'after' if row.ended else 'since'} {format_precisely(age)}"
        raw = details.generation.video_raw if details.generation else None
        if raw and raw.duration is not None and 0 <= raw.duration < LONGEST:
            yield f"{format_precisely(raw.duration)} long"
        if raw and raw.width and raw.height:
            yield f"{raw.width} × {raw.height}"
        if source := self._source(row, details):
            yield f'<a href="{escape(source)}" rel="noreferrer noopener">file</a>'
        if details.trouble is not None:
            yield f"not saved: {_text(details.trouble)}"


def write_board(path: Path | None, board: Progress, allow_hosts: Collection[str]) -> None:
    """Write a page of what is known of all tasks, if a file was given."""
    if path is not None:
        now, date = time.monotonic(), datetime.now(UTC)
        write(path, Page(board, now, date, path.parent, allow_hosts))


def write(path: Path, page: Page) -> None:
    """Write a page; a reader of the file sees the old page or the new one, never a part.

    The permissions are those of a new file (0666 without the umask). A symbolic link is replaced
    like a file: what it points to is not changed.
    """
    temporary = path.with_name(f".report-{secrets.token_hex(8)}")
    with temporary.open("x", encoding="utf-8", errors="replace") as stream:
        try:
            stream.writelines(page.parts())
            stream.close()
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _pictures(task: Generation) -> list[str | None]:
    """Return the pictures of a video, the best one first."""
    pictures: list[Image | None] = [task.thumbnail, task.last_frame]
    if task.artifact:
        pictures += [task.artifact.thumbnail, task.artifact.last_frame]
    return [*(one.url for one in pictures if one), task.video.thumbnail if task.video else None]


def _reason(row: TaskRow, details: Details) -> str:
    """Return why there is nothing to play."""
    open_or_linkless = "no link that may be followed" if row.ended else "not finished yet"
    return why(row, details) or open_or_linkless


def _text(text: str) -> str:
    """Return text that is nothing else, and not too much of it."""
    return escape(printable(text[:MAX_TEXT]))
