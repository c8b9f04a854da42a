"""When to poll: how late news is with each pace, at the same number of requests.

    python -m tests.bench.pace [--open N …] [--durations NAME …] [--arrivals NAME …] [--seeds N]
                               [--ends N] [--latency S] [--write] [--picture]

Virtual time, with the Scheduler and the Throttle of a session and the default limits; each
response takes `latency` seconds. Lag is from a task's end at the relay to the response that reports
it. A run begins with nothing open and nothing learned. Its lag is divided by that of Every(5.0)
with the same tasks. "Known" is Learned that is given the true hazard instead of learning it.
"Optimum" knows it, too, and has no other limits, neither first polls at once nor a longest time
between two: if all open ids fit into one request, it is sent when their expected delays sum up to
a threshold; else it is the bound on what that many polls can do. The last three columns are what
other clients do: each id has a timer of its own, with those that are due together in one request,
slowed down until they send as many requests; "-" if they cannot do with so few.

--arrivals is poisson (tasks are added at random), steady (a reported end adds a new task after a
second on average) or together (all at once, again when the last has ended). --write puts the table
into docs/pace.md, --picture draws docs/pace.svg (it needs matplotlib).
"""

import argparse
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from heapq import heapify, heappop, heappush
from itertools import pairwise
from math import inf
from multiprocessing import Pool
from pathlib import Path
from statistics import fmean

from msgspec import Struct

from luma_async import Backoff, Every, Learned, Pace
from luma_async.scheduling.batches import Batch
from luma_async.scheduling.changes import Grace
from luma_async.scheduling.hazard import EDGES, Hazard
from luma_async.scheduling.schedule import AdaptiveSchedule
from luma_async.scheduling.scheduler import Scheduler
from luma_async.scheduling.throttle import Limits, Throttle
from luma_async.structs import State
from tests.bench.pages import write_table
from tests.fake_answers import FakeAnswer

PAGE = Path(__file__).parents[2] / "docs" / "pace.md"
PICTURE = PAGE.with_name("pace.svg")
LIMITS = Limits()
INTERVAL = 5.0
STEPS = 4000
THOUGHT = 1.0
EQUAL = 0.02


class Durations(Struct, frozen=True):
    """How long tasks take: one of the lognormal `parts` (median, sigma), after a wait at random.

    The wait is exponential, `queue` seconds on average.
    """

    parts: tuple[tuple[float, float], ...] = ()
    queue: float = 0.0

    def draw(self, dice: random.Random) -> float:
        """Return the seconds that one task takes."""
        seconds = dice.expovariate(1 / self.queue) if self.queue else 0.0
        if self.parts:
            median, sigma = dice.choice(self.parts)
            seconds += dice.lognormvariate(math.log(median), sigma)
        return seconds

    def mean(self) -> float:
        """Return the seconds that a task takes on average."""
        means = [median * math.exp(sigma**2 / 2) for median, sigma in self.parts]
        return self.queue + (fmean(means) if means else 0.0)

    def open_at(self, age: float) -> float:
        """Return the share of tasks that take longer than this."""
        if not self.queue or age <= 0.0:
            return self._open_in_part(age)
        if not self.parts:
            return math.exp(-age / self.queue)
        step = age / STEPS
        waits = (math.exp(-(at + 0.5) * step / self.queue) / self.queue for at in range(STEPS))
        served = (self._open_in_part(age - (at + 0.5) * step) for at in range(STEPS))
        both = sum(wait * more for wait, more in zip(waits, served, strict=True)) * step
        return both + math.exp(-age / self.queue)

    def _open_in_part(self, age: float) -> float:
        if age <= 0.0:
            return 1.0
        return fmean(
            math.erfc(math.log(age / median) / sigma / math.sqrt(2)) / 2
            for median, sigma in self.parts
        )


DURATIONS = {
    "lognormal": Durations(((75.0, 0.35),)),
    "queue": Durations(((60.0, 0.25),), queue=20.0),
    "two kinds": Durations(((40.0, 0.2), (130.0, 0.2))),
    "exponential": Durations(queue=75.0),
}
ARRIVALS = ("poisson", "steady", "together")
OTHERS: Mapping[str, Callable[[int, random.Random], float]] = {
    "fixed interval per id": lambda poll, dice: 1.0,
    "backoff to 15 s": lambda poll, dice: min(15.0, 2.0**poll),
    "6 s ± 1.5 s": lambda poll, dice: dice.uniform(4.5, 7.5),
}


@cache
def true_hazard(durations: str) -> Hazard:
    """Return the hazard that the tasks are drawn from; constant beyond the age that few reach."""
    rates: list[float] = []
    left = [DURATIONS[durations].open_at(age) for age in EDGES[:-1]]
    for (young, old), (before, after) in zip(pairwise(EDGES[:-1]), pairwise(left), strict=True):
        known = after > 1e-6
        rates.append(math.log(before / after) / (old - young) if known else rates[-1])
    return Hazard([max(rate, 1e-9) for rate in [*rates, rates[-1]]])


class Run(Struct, frozen=True):
    """The result of one run: seconds of lag, requests, and seconds in all."""

    lags: Sequence[float]
    requests: int
    seconds: float
    came: Sequence[tuple[float, float]] = ()

    @property
    def mean(self) -> float:
        return fmean(self.lags)

    @property
    def late(self) -> float:
        """The 95th percentile."""
        return sorted(self.lags)[int(0.95 * len(self.lags))]


class Case(Struct, frozen=True):
    """One row of the table, one seed."""

    durations: str
    open_ids: int
    arrivals: str
    seed: int
    ends: int
    latency: float


class Relay:
    """Tasks that are added and end, and how late their ends are reported."""

    def __init__(self, case: Case) -> None:
        self._dice = random.Random(f"{case.seed} {case.durations} {case.open_ids}")
        self._case = case
        self._durations = DURATIONS[case.durations]
        self._ends_at: dict[str, float] = {}
        self._rate = case.open_ids / self._durations.mean()
        self.came: list[tuple[float, float]] = []
        self.lags: list[float] = []
        self._coming = [0.0] * (1 if case.arrivals == "poisson" else case.open_ids)

    @property
    def next_at(self) -> float:
        """When the next task comes."""
        return self._coming[0] if self._coming else inf

    def submitted(self, now: float) -> list[str]:
        """Return the ids that come now."""
        ids: list[str] = []
        while self.next_at <= now:
            heappop(self._coming)
            ids.append(self._submit(now))
            if self._case.arrivals == "poisson":
                heappush(self._coming, now + self._dice.expovariate(self._rate))
        return ids

    def answer(self, ids: Sequence[str], now: float) -> FakeAnswer:
        """Return what is true of these ids."""
        ended = {i: self._ends_at[i] <= now for i in ids}
        return FakeAnswer({i: State.FAILED if ended[i] else State.PROCESSING for i in ids})

    def reported(self, task_id: str, now: float) -> None:
        """Record that the end of a task is reported."""
        self.lags.append(now - self._ends_at.pop(task_id))
        if self._case.arrivals == "steady":
            heappush(self._coming, now + self._dice.uniform(0.0, 2.0 * THOUGHT))
        elif self._case.arrivals == "together" and not self._ends_at:
            self._coming = [now] * self._case.open_ids

    def _submit(self, now: float) -> str:
        task_id = str(len(self.came))
        self.came.append((now, self._durations.draw(self._dice)))
        self._ends_at[task_id] = sum(self.came[-1])
        return task_id


def play(case: Case, pace: Pace, *, known: bool = False) -> Run:
    """Let one pace poll until so many ends are reported; `known` gives it the true hazard."""
    relay = Relay(case)
    throttle = Throttle(LIMITS, lambda: 1.0)
    scheduler: Scheduler[str] = Scheduler(pace, LIMITS.max_batch, Grace(), spacing=LIMITS.spacing)
    if known and isinstance(pace, Learned):
        hazard = true_hazard(case.durations)
        scheduler.schedule = AdaptiveSchedule(pace, LIMITS.max_batch, LIMITS.spacing, known=hazard)
    in_flight: list[tuple[float, int, Batch[str]]] = []
    now = 0.0
    requests = 0
    while len(relay.lags) < case.ends:
        send_at = max(scheduler.next_due(), throttle.next_slot_at())
        returns_at = in_flight[0][0] if in_flight else inf
        now = max(now, min(send_at, returns_at, relay.next_at))
        if relay.next_at <= now:
            scheduler.subscribe("ann", relay.submitted(now), now)
        elif returns_at <= now:
            _, _, batch = heappop(in_flight)
            throttle.release()
            for change in scheduler.complete(
                batch, relay.answer(batch.ids, now - case.latency / 2), now
            ):
                if change.ended:
                    relay.reported(change.task_id, now)
        elif next_batch := scheduler.take_batch(now):
            throttle.acquire(now)
            requests += 1
            heappush(in_flight, (now + case.latency, requests, next_batch))
    return Run(relay.lags, requests, now, relay.came[: case.ends])


def by_threshold(case: Case, came: Sequence[tuple[float, float]], threshold: float) -> Run:
    """Send a request when the expected delays of all open ids sum up to the threshold."""
    hazard = true_hazard(case.durations)
    polled_at: dict[int, float] = {}
    lags: list[float] = []
    requests = 0
    now = 0.0
    for number, comes_at in enumerate([*(at for at, _ in came), inf]):
        while (
            polled_at
            and (at := _reached_at(polled_at, came, hazard, threshold, now, comes_at)) < comes_at
        ):
            now = at
            requests += 1
            for one in list(polled_at):
                polled_at[one] = at
                if sum(came[one]) <= at + case.latency / 2:
                    lags.append(at + case.latency - sum(came[one]))
                    del polled_at[one]
        if number < len(came):
            now = comes_at
            polled_at[number] = comes_at
    return Run(lags, requests, now)


def _reached_at(
    polled_at: Mapping[int, float],
    came: Sequence[tuple[float, float]],
    hazard: Hazard,
    threshold: float,
    now: float,
    until: float,
) -> float:
    """Return when the sum of expected delays reaches the threshold; `until` if not by then."""
    ages = [(at - came[one][0], at) for one, at in polled_at.items()]
    soon, late = now, min(until, now + 600.0)
    if sum(hazard.expected_delay(age, late - at) for age, at in ages) < threshold:
        return late
    for _ in range(12):
        middle = (soon + late) / 2
        reached = sum(hazard.expected_delay(age, middle - at) for age, at in ages) >= threshold
        soon, late = (soon, middle) if reached else (middle, late)
    return late


def optimum(case: Case, every: Run) -> float:
    """Return the least mean lag, in seconds, with as many requests; nan if not known."""
    hazard, mean = true_hazard(case.durations), DURATIONS[case.durations].mean()
    if case.open_ids > LIMITS.max_batch and case.arrivals == "together":
        return math.nan
    if case.open_ids > LIMITS.max_batch:
        polls = LIMITS.max_batch * every.requests / len(every.lags)
        return hazard.mean_sqrt_hazard**2 * mean**2 / polls / 2 + case.latency / 2
    low, high = 1e-3, 30.0
    run = every
    while high > 1.02 * low:
        threshold = math.sqrt(low * high)
        run = by_threshold(case, every.came, threshold)
        low, high = (low, threshold) if run.requests < every.requests else (threshold, high)
    return run.mean


def by_timers(case: Case, came: Sequence[tuple[float, float]], name: str, scale: float) -> Run:
    """Give each id a timer of its own; only those that are due share a request."""
    dice = random.Random(case.seed)
    rest = OTHERS[name]
    timers = [(at + scale * rest(0, dice), number, 1) for number, (at, _) in enumerate(came)]
    heapify(timers)
    lags: list[float] = []
    requests = 0
    opens_at = now = 0.0
    while timers:
        now = max(timers[0][0], opens_at)
        opens_at = now + max(LIMITS.spacing, case.latency)
        requests += 1
        for _ in range(LIMITS.max_batch):
            if not timers or timers[0][0] > now:
                break
            _, number, polls = heappop(timers)
            ends_at = sum(came[number])
            if ends_at <= now + case.latency / 2:
                lags.append(now + case.latency - ends_at)
            else:
                heappush(timers, (now + scale * rest(polls, dice), number, polls + 1))
    return Run(lags, requests, now)


def by_timers_at(case: Case, every: Run, name: str) -> Run:
    """Slow the timers down, or speed them up, until they take as many requests, or near it."""
    fast, slow = 0.01, 100.0
    run = every
    while slow > 1.005 * fast:
        scale = math.sqrt(fast * slow)
        run = by_timers(case, every.came, name, scale)
        fast, slow = (fast, scale) if run.requests < every.requests else (scale, slow)
    return run


class Row(Struct, frozen=True):
    """The results of one case, each figure divided by that of Every."""

    every: tuple[float, float, float]
    learned: tuple[float, float, float]
    known: tuple[float, float, float]
    optimum: float
    others: tuple[float, ...]


def row(case: Case) -> Row:
    """Play one case with all paces."""
    every = play(case, Every(INTERVAL))
    ratios: list[tuple[float, float, float]] = []
    for known in (False, True):
        run = play(case, Learned(INTERVAL), known=known)
        spent = run.requests / run.seconds / (every.requests / every.seconds)
        ratios.append((run.mean / every.mean, run.late / every.late, spent))
    others: list[float] = []
    for name in OTHERS:
        run = by_timers_at(case, every, name)
        equal = abs(run.requests / every.requests - 1.0) < EQUAL
        others.append(run.mean / every.mean if equal else math.nan)
    figures = every.mean, every.late, every.requests / every.seconds
    best = optimum(case, every) / every.mean
    return Row(figures, ratios[0], ratios[1], best, tuple(others))


def cases(args: argparse.Namespace) -> list[Case]:
    """Return the cases of the table, its rows in order, each seed of a row in turn."""
    ends = {open_ids: args.ends or max(1500, 12 * open_ids) for open_ids in args.open}
    return [
        Case(durations, open_ids, arrivals, seed, ends[open_ids], args.latency)
        for arrivals in args.arrivals
        for open_ids in args.open
        for durations in args.durations
        for seed in range(1, args.seeds + 1)
    ]


def table(args: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the table."""
    heads = [
        "open", "durations", "Every: lag, s", "95 %", "requests/s", "**Learned**: lag", "95 %",
        "requests", "told: lag", "optimum: lag", "Learned / told", "Learned / optimum", *OTHERS,
    ]  # fmt: skip
    yield f"| {' | '.join(heads)} |"
    yield "| --: | --- |" + " --: |" * (len(heads) - 2)
    every_case = cases(args)
    with Pool(args.processes) as pool:
        rows = pool.imap(row, every_case)
        for first in every_case[:: args.seeds]:
            yield line(first, [next(rows) for _ in range(args.seeds)])


def line(case: Case, rows: Sequence[Row]) -> str:
    """Return one line of the table, the mean of its seeds."""

    def mean(figures: Sequence[tuple[float, ...]]) -> list[float]:
        return [fmean(column) for column in zip(*figures, strict=True)]

    every = mean([one.every for one in rows])
    learned = mean([one.learned for one in rows])
    known = mean([one.known for one in rows])
    best = fmean(one.optimum for one in rows)
    texts = [f"{figure:.2f}" for figure in every]
    texts += [f"**{learned[0]:.2f}**", f"{learned[1]:.2f}", f"{learned[2]:.3f}"]
    texts += [f"{known[0]:.2f}", f"{best:.2f}"]
    texts += [f"{learned[0] / known[0]:.2f}", f"{learned[0] / best:.2f}"]
    texts += [f"{figure:.1f}" for figure in mean([one.others for one in rows])]
    texts = ["-" if text == "nan" else text for text in texts]
    name = case.durations + (f", {case.arrivals}" if case.arrivals != "poisson" else "")
    return f"| {case.open_ids:,} | {name} | " + " | ".join(texts) + " |"


def curves(args: argparse.Namespace) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return, by what is open and by pace, requests in a minute and mean lag in seconds."""
    paces: dict[str, Callable[[float], Pace]] = {
        "Every": Every,
        "Backoff": lambda seconds: Backoff(seconds / 4, 1.5, 2 * seconds),
        "Learned": Learned,
    }
    drawn: dict[str, dict[str, list[tuple[float, float]]]] = {}
    pictured = {"one task after the other": (1, "steady"), "240 tasks at a time": (240, "together")}
    for title, (open_ids, arrivals) in pictured.items():
        case = Case("lognormal", open_ids, arrivals, 1, 1500 + 12 * open_ids, args.latency)
        for name, pace in paces.items():
            runs = [play(case, pace(seconds)) for seconds in (1.5, 2.5, 4.0, 6.0, 10.0, 15.0)]
            points = [(60.0 * run.requests / run.seconds, run.mean) for run in runs]
            drawn.setdefault(title, {})[name] = points
    return drawn


def draw(args: argparse.Namespace) -> None:
    """Draw lag against requests, a curve for each pace."""
    from matplotlib import pyplot, rcParams

    rcParams["svg.hashsalt"] = "pace"
    rcParams["svg.fonttype"] = "none"
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for axis, (title, by_pace) in zip(axes, curves(args).items(), strict=True):
        for name, points in by_pace.items():
            axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
        axis.set(title=title, xlabel="requests in a minute", ylabel="mean lag, seconds")
        axis.set(xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(PICTURE, metadata={"Date": None})  # pyright: ignore[reportUnknownMemberType]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--open", type=int, nargs="+", default=[1, 24, 240, 1000])
    parser.add_argument("--durations", nargs="+", choices=DURATIONS, default=[*DURATIONS])
    parser.add_argument("--arrivals", nargs="+", choices=ARRIVALS, default=["poisson"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ends", type=int, help="of a run; 12 for each open id, at least 1500")
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--picture", action="store_true")
    args = parser.parse_args()
    if args.picture:
        draw(args)
        return
    lines: list[str] = []
    for text in table(args):
        print(text, flush=True)
        lines.append(text)
    if args.write:
        write_table(PAGE, "-".join(args.arrivals), lines)


if __name__ == "__main__":
    main()
