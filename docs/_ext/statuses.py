"""Draws the fence `mermaid` of the design as an SVG, from the table of statuses itself.

A browser would need a script of somebody's for mermaid; a test compares fence and table.
"""

from typing import Any

from docutils import nodes

from luma_async.scheduling.items import TRANSITIONS, Status

WIDTH, HEIGHT = 96, 34
PLACES = {
    "untracked": (70, 210),
    "new": (250, 90),
    "in_flight": (440, 210),
    "abandoned": (250, 330),
    "scheduled": (680, 45),
    "backing_off": (680, 155),
    "bisecting": (680, 265),
    "quarantined": (680, 375),
    "untracked again": (890, 210),
}
HEAD = (
    '<svg class="statuses" viewBox="0 0 960 420" role="img" aria-label="the statuses of an id" '
    'font-family="inherit" font-size="15" text-anchor="middle" fill="currentColor">'
    '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
    'markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="currentColor"/></marker></defs>'
)


def draw() -> str:
    """Return the drawing."""
    edges = [
        _edge(status.value, to.value, event)
        for status in Status
        for event, to in TRANSITIONS[status].items()
    ]
    return HEAD + "".join(edges) + "".join(map(_box, PLACES)) + "</svg>"


def _edge(start: str, end: str, event: str) -> str:
    """Return a curve that leaves room for the one the other way, and its word."""
    if end == "untracked" and PLACES[start][0] > PLACES["in_flight"][0]:
        end = "untracked again"
    (x, y), (to_x, to_y) = PLACES[start], PLACES[end]
    across, down = to_x - x, to_y - y
    length = (across**2 + down**2) ** 0.5
    aside = 26 if (start, end) != ("in_flight", "untracked") else 0
    bend_x = (x + to_x) / 2 - down / length * aside
    bend_y = (y + to_y) / 2 + across / length * aside
    x, y = _border(x, y, bend_x, bend_y)
    to_x, to_y = _border(to_x, to_y, bend_x, bend_y)
    word_x, word_y = (x + 2 * bend_x + to_x) / 4, (y + 2 * bend_y + to_y) / 4
    return (
        f'<path d="M{x:.0f} {y:.0f}Q{bend_x:.0f} {bend_y:.0f} {to_x:.0f} {to_y:.0f}" fill="none" '
        f'stroke="currentColor" stroke-opacity=".55" marker-end="url(#head)"/>'
        f'<text x="{word_x:.0f}" y="{word_y + 4:.0f}" font-size="13" '
        f'style="stroke:var(--color-background-primary);stroke-width:5;paint-order:stroke">'
        f"{event}</text>"
    )


def _border(x: float, y: float, to_x: float, to_y: float) -> tuple[float, float]:
    """Return where the line from the middle of a box leaves it."""
    across, down = to_x - x, to_y - y
    share = min(WIDTH / 2 / abs(across) if across else 1.0, HEIGHT / 2 / abs(down) if down else 1.0)
    return x + across * share, y + down * share


def _box(name: str) -> str:
    x, y = PLACES[name]
    dashes = ' stroke-dasharray="5 4"' if name.startswith("untracked") else ""
    return (
        f'<rect x="{x - WIDTH / 2}" y="{y - HEIGHT / 2}" width="{WIDTH}" height="{HEIGHT}" rx="8" '
        f'fill="none" stroke="currentColor"{dashes}/>'
        f'<text x="{x}" y="{y + 5}">{name.split()[0]}</text>'
    )


def replace(app: Any, doctree: nodes.document) -> None:
    """Put the drawing where the fence is."""
    for block in list(doctree.findall(nodes.literal_block)):
        if block.get("language") == "mermaid":
            block.replace_self(nodes.raw("", draw(), format="html"))


def setup(app: Any) -> dict[str, bool]:
    """Join the build."""
    app.connect("doctree-read", replace)
    return {"parallel_read_safe": True}
