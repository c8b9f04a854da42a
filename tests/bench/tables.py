"""The tables and the picture of a comparison."""

import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle, product
from pathlib import Path
from statistics import median
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from tests.bench.peers import OURS, PEERS
from tests.bench.protocol import Seen, Spent
from tests.bench.run_client import Heat

Figure = Callable[[Spent, Seen, int], float]

PACKAGES = ("aiohttp", "msgspec", "lumaai", "httpx", "uvloop")


def per_id(spent: Spent, seen: Seen, ids: int) -> float:
    return 1e6 * spent.cpu / seen.asked


def in_all(spent: Spent, seen: Seen, ids: int) -> float:
    return spent.cpu


def per_request(spent: Spent, seen: Seen, ids: int) -> float:
    return 1e6 * spent.cpu / seen.requests


def requests(spent: Spent, seen: Seen, ids: int) -> float:
    return seen.requests


COLUMNS: Mapping[str, tuple[Figure, str]] = {
    "CPU µs per id asked": (per_id, ",.1f"),
    "CPU, s": (in_all, ".3f"),
    "ids asked": (lambda spent, seen, ids: seen.asked, ",.0f"),
    "requests": (requests, ",.0f"),
    "requests per ended id": (lambda spent, seen, ids: seen.requests / ids, ".2f"),
    "mean lag, s": (lambda spent, seen, ids: seen.lag, ".2f"),
    "95 % lag, s": (lambda spent, seen, ids: seen.late, ".2f"),
    "peak memory, MiB": (lambda spent, seen, ids: spent.memory, ".0f"),
    "connections": (lambda spent, seen, ids: seen.connections, ",.0f"),
    "relay busy": (lambda spent, seen, ids: seen.busy, ".0%"),
}


class Target(Struct, frozen=True):
    """A quotient that is to be no more than so much."""

    clients: Sequence[str]
    peers: Sequence[str]
    figure: Figure
    most: float


TARGETS = {
    "sdk": Target(OURS, ("sdk", "plain sdk"), per_id, 1 / 300),
    "batch": Target(OURS, ("spread batch", "batch"), per_id, 1.0),
    "floor": Target(OURS, ("spread floor", "floor"), per_id, 1.6),
    "callers": Target(("as many callers",), ("one call",), in_all, 1.35),
}


BACK_TO_BACK = [
    replace(target, peers=target.peers[-1:], figure=per_id)
    for target in map(TARGETS.__getitem__, ("batch", "floor", "callers"))
]


class Standings:
    """What all heats came to."""

    def __init__(self, heats: Sequence[Heat], measured: str) -> None:
        self._heats = heats
        self._measured = measured
        self._counts = sorted({heat.course.ids for heat in heats})
        self._clients = [name for name in PEERS if any(heat.client == name for heat in heats)]

    def tables(self) -> dict[str, list[str]]:
        """Return each table by the name that its marks have on the page."""
        loops = {heat.loop for heat in self._heats}
        found: dict[str, list[str]] = {}
        if "asyncio" in loops:
            found |= {f"{ids}-ids": [*self._by_client(ids)] for ids in self._counts}
            found |= {name: [*self._quotients(target)] for name, target in TARGETS.items()}
            found["measured"] = [f"Medians of {self._runs()}. {self._measured}"]
        if "uvloop" in loops:
            found["uvloop"] = [*self._loops()]
        return found

    def back_to_back(self) -> dict[str, list[str]]:
        """Return the tables of clients that ask again as soon as they are answered."""
        lines = [*heading("CPU µs per request", [f"{ids:,} ids" for ids in self._counts])]
        for client in self._clients:
            medians = (self.median(client, "asyncio", ids, per_request) for ids in self._counts)
            lines.append(row(named(client), (text(one, ",.0f") for one in medians)))
        lines += ["", *heading("CPU per id asked", [f"{ids:,} ids" for ids in self._counts])]
        for target in BACK_TO_BACK:
            lines += [*self._quotients(target)][2:]
        runs = len({heat.course.seed for heat in self._heats})
        measured = [f"Medians of {runs} run{'s'[: runs > 1]}. {self._measured}"]
        return {"back-to-back": lines, "measured-back-to-back": measured}

    def median(self, client: str, loop: str, ids: int, figure: Figure) -> float | None:
        """Return the median of the runs that a client survived; None where it survived none."""
        figures = self._figures(client, loop, ids, figure)
        return median(figures.values()) if figures else None

    def _of(self, client: str, loop: str, ids: int) -> list[Heat]:
        sought = client, loop, ids
        return [heat for heat in self._heats if (heat.client, heat.loop, heat.course.ids) == sought]

    def _by_client(self, ids: int) -> Iterator[str]:
        yield from heading("client", list(COLUMNS))
        for client in self._clients:
            figures = (
                text(self.median(client, "asyncio", ids, figure), shape)
                for figure, shape in COLUMNS.values()
            )
            yield row(named(client), figures)
        yield from self._fallen(ids)

    def _fallen(self, ids: int) -> Iterator[str]:
        """Yield, below a table, why clients did not finish."""
        lines = list[str]()
        for client in self._clients:
            runs = self._of(client, "asyncio", ids)
            for reason, times in Counter(heat.reason for heat in runs if heat.reason).items():
                lines.append(f"- {client}: {reason} ({times} of {len(runs)} runs)")
        yield from ["", *lines] if lines else []

    def _quotients(self, target: Target) -> Iterator[str]:
        yield from heading("", [f"{ids:,} ids" for ids in self._counts])
        for peer, client in product(target.peers, target.clients):
            quotients = (self._quotient(client, peer, target.figure, ids) for ids in self._counts)
            yield row(f"{named(client)} / {peer}", map(fraction, quotients))
        yield row("at most", [fraction(target.most) for _ in self._counts])

    def _quotient(self, client: str, peer: str, figure: Figure, ids: int) -> float | None:
        """Return the median over the runs that both survived."""
        ours = self._figures(client, "asyncio", ids, figure)
        theirs = self._figures(peer, "asyncio", ids, figure)
        both = ours.keys() & theirs.keys()
        return median(ours[run] / theirs[run] for run in both) if both else None

    def _figures(self, client: str, loop: str, ids: int, figure: Figure) -> dict[int, float]:
        """Return the figure of each run that a client survived."""
        return {
            heat.course.seed: figure(heat.spent, heat.seen, ids)
            for heat in self._of(client, loop, ids)
            if heat.spent and heat.seen
        }

    def _loops(self) -> Iterator[str]:
        quick_heats = [heat for heat in self._heats if heat.loop == "uvloop"]
        sizes = sorted({heat.course.ids for heat in quick_heats})
        counts = [f"{ids:,} ids" for ids in sizes]
        yield from heading("client", [c for count in counts for c in (count, "of asyncio's")])
        for client in (one for one in self._clients if any(h.client == one for h in quick_heats)):
            texts = list[str]()
            for ids in sizes:
                plain = self.median(client, "asyncio", ids, per_id)
                quick = self.median(client, "uvloop", ids, per_id)
                share = quick / plain if quick and plain else None
                texts += [text(quick, ",.1f"), text(share, ".2f")]
            yield row(named(client), texts)

    def _runs(self) -> str:
        runs = sorted({heat.course.seed for heat in self._heats})
        course = self._heats[-1].course
        runs_text = f"{len(runs)} run{'s'[: len(runs) > 1]}, interval {course.interval:g} s"
        lengths = f"tasks of {course.shortest:g} to {course.longest:g} s"
        return f"{runs_text}, {lengths}, {course.connections} connections for sdk and httpx"


def setting() -> str:
    """Return the versions and settings of the measurement."""
    packages = [f"{name} {installed(name)}" for name in PACKAGES if installed(name)]
    python = f"Python {platform.python_version()}"
    return f"{', '.join([python, *packages])}; {os.cpu_count()} CPUs."


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def heading(first: str, others: Sequence[str]) -> Iterator[str]:
    yield row(first, others)
    yield "| --- |" + " --: |" * len(others)


def row(first: str, others: Iterable[str]) -> str:
    return f"| {' | '.join([first, *others])} |"


def named(client: str) -> str:
    return f"**{client}**" if client in OURS else client


def text(figure: float | None, shape: str) -> str:
    return "-" if figure is None else format(figure, shape)


def fraction(quotient: float | None) -> str:
    if quotient is None:
        return "-"
    return f"{quotient:.2f}" if quotient > 0.1 else f"1/{1 / quotient:.0f}"


def draw(heats: Sequence[Heat], picture: Path) -> None:
    """Draw requests against ids, a line for each client."""
    from matplotlib import pyplot, rcParams

    rcParams["svg.hashsalt"] = "performance"
    rcParams["svg.fonttype"] = "none"
    standings = Standings(heats, "")
    drawing: Any = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    figure, axis = drawing
    for name, marker, style in zip(PEERS, "hosDvP^*Xd", cycle(("--", ":", "-")), strict=False):
        counts = sorted({heat.course.ids for heat in heats})
        asked = [(ids, standings.median(name, "asyncio", ids, requests)) for ids in counts]
        points = [(ids, sent) for ids, sent in asked if sent]
        if points:
            axis.plot(*zip(*points, strict=True), style, marker=marker, markersize=4, label=name)
    axis.set(xlabel="ids", ylabel="requests", xscale="log", yscale="log")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right center")
    figure.savefig(picture, metadata={"Date": None})
