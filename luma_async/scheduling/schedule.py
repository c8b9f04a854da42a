"""When does the next request depart? A pace, as the book uses it.

A `Timetable` is any pace that is a function of age: the request departs when its first passenger is
due.

`Steered` is `Learned` at work. It decides three things:

- An id is due when the expected waiting (see `durations`) has reached a price, the same for all.
- Where all open ids fit into one request, it departs when those aboard are worth its fare, that is
  when their ripeness sums up to one each; ripeness grows with the square of the time since the last
  look, and is one when the id is due. Otherwise it departs when the first is due, and its seats go
  to those due next.
- The price is the one at which looks would be as far apart on average as those of `Every` are, made
  dearer or cheaper by the balance of requests: ours against those of a shadow of `Every`. So what
  is spent is the same in the long run; the balance is bounded, and what is beyond it forgotten.

An id that nobody has asked about does not leave alone where requests are frequent: it waits for the
next departure, until as much time has passed since the last one as `Every` leaves between two, half
an interval at most. One that is urgent leaves at once.

Nobody is silent for longer than LONGEST intervals, so that a wrong estimate can delay news and
never lose it; nor for longer than one until FEW ends were seen.
"""

from math import exp, inf, sqrt

from luma_async.scheduling.hazard import OLDEST, Hazard, Tally, cell_of
from luma_async.scheduling.pace import LONGEST, Backoff, Every, Learned, Pace, rest
from luma_async.scheduling.request_budget import Shadow

GROWTH = 0.05
FEW = 20.0
SHORTEST = 0.01
STEER = 0.1
CREDIT = 30.0


class Timetable:
    """What the book asks of a pace, and tells it; here of one that is a function of age."""

    __slots__ = ("_pace",)

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    @property
    def pace(self) -> Pace:
        """The pace, as far as it has learned."""
        return self._pace

    @property
    def shared_until(self) -> float:
        """Until when an id that was never asked about waits for the company of others."""
        return -inf

    @property
    def heeds_age(self) -> bool:
        """Whether an id is as old as its task; if not, it is as old as the wait for it."""
        return False

    def kind(self, born: float, departed: float) -> float:
        """Return what ids have in common that rest equally long; ids born between two are of it."""
        monotonic = type(self._pace) in (Every, Backoff)
        return rest(self._pace, departed - born) if monotonic else born

    def rest(self, born: float, departed: float, count: int = 1) -> float:
        """Return the seconds from a look, which departed then, at so many ids of such an age."""
        return rest(self._pace, departed - born)

    def alone(self, born: float, departed: float) -> float:
        """Return the same for an id that has no part in what the others do."""
        return rest(self._pace, departed - born)

    def begin(self, phase: float) -> None:
        """Take note of a busy period, whose first rest is to be cut to such a share."""

    def hurry(self, due: float) -> None:
        """Take note that an id has to be asked about by then."""

    def departs_at(self, first: float) -> float:
        """Return when a request departs; `first` is when the first id is due."""
        return first

    def watched(self, fresh: int, now: float) -> None:
        """Take note of ids that somebody wants for the first time."""

    def forgotten(self, ended_at: float | None = None) -> None:
        """Take note of an id that has ended at about that time, or that nobody wants any more."""

    def departed(self, now: float, *, open_ids: int, seats: int, whole: bool, again: bool) -> None:
        """Take note of a departure.

        `whole`, where nobody was left behind; `again`, where it asks anew what brought no answer.
        """

    def answered(self, departed: float, now: float) -> None:
        """Take note of an answer."""

    def passed(self, born: float, last: float, departed: float, count: int = 1) -> None:
        """Take note of a look, after a last one, that showed so many ids of an age still open."""

    def ended(self, born: float, last: float, departed: float) -> None:
        """Take note of a look, after a last one, that showed the end of an id."""


class Steered(Timetable):
    """`Learned` at work; `known` is the true hazard, where somebody knows it."""

    __slots__ = (
        "_aboard", "_departed", "_hazard", "_hurried", "_interval", "_known", "_latest",
        "_longest", "_next_share", "_price", "_shadow", "_share", "_spent", "_tally", "_weights",
        "_whole",
    )  # fmt: skip

    def __init__(
        self, pace: Learned, seats: int, spacing: float, *, known: Hazard | None = None
    ) -> None:
        self._interval = pace.interval
        self._known = known
        self._tally = Tally(pace.seen)
        self._shadow = Shadow(pace.interval, seats, spacing)
        self._spent = 0.0
        self._whole = True
        self._departed = self._latest = -inf
        self._hurried = inf
        self._share = self._next_share = 1.0
        self._aboard = 0
        self._weights = (0.0, 0.0, 0.0)
        self._learn()
        self._set_price(0.0)

    def __repr__(self) -> str:
        spent = f"{self._spent:.0f} requests spent, {self._shadow.requests} by Every"
        return f"<Steered: {self.pace!r}, {spent}>"

    @property
    def pace(self) -> Learned:
        """The pace, with what it has learned."""
        return Learned(self._interval, self._tally.seen())

    @property
    def shared_until(self) -> float:
        """Until when an id that was never asked about waits for the company of others."""
        return self._departed + min(self._shadow.between, self._interval / 2.0)

    @property
    def heeds_age(self) -> bool:
        """Whether an id is as old as its task."""
        return True

    def kind(self, born: float, departed: float) -> float:
        """Return the cell of age."""
        return cell_of(departed - born)

    def rest(self, born: float, departed: float, count: int = 1) -> float:
        """Return when the waiting will have reached the price, and add to the ripeness aboard."""
        age = min(departed - born, 2.0**OLDEST)
        seconds = self._hazard.rest(age, self._price, self._longest)
        seconds = max(seconds, SHORTEST * self._longest) * self._share
        ripeness = 1.0
        if seconds >= self._longest:
            ripeness = min(1.0, self._hazard.waiting(age, seconds) / self._price)
        weight = count * ripeness / (seconds * seconds)
        later = departed - self._departed
        square, linear, constant = self._weights
        self._weights = square + weight, linear + weight * later, constant + weight * later * later
        self._aboard += count
        return seconds

    def alone(self, born: float, departed: float) -> float:
        """Return the interval."""
        return self._interval

    def begin(self, phase: float) -> None:
        """Cut the rests after the next departure, so that a fleet does not knock together."""
        self._next_share = min(phase, 1.0)

    def hurry(self, due: float) -> None:
        """Depart by then, off the balance: `Every` would not have."""
        self._hurried = min(self._hurried, due)

    def departs_at(self, first: float) -> float:
        """Return when those aboard are worth the fare, or the first is due where not all fit."""
        if not self._whole or first == inf:
            return first
        square, linear, constant = self._weights
        root = linear * linear - square * (constant - self._aboard)
        if root < 0.0:
            return first
        if not square:
            return min(self._latest, self._hurried)
        return min(self._latest, self._hurried, self._departed + (linear + sqrt(root)) / square)

    def watched(self, fresh: int, now: float) -> None:
        """Let the shadow watch them too."""
        self._shadow.watch(fresh, now)

    def forgotten(self, ended_at: float | None = None) -> None:
        """Let the shadow forget it too; where nobody told, those left go by their own dues."""
        self._shadow.forget(ended_at)
        self._whole = self._whole and ended_at is not None

    def departed(self, now: float, *, open_ids: int, seats: int, whole: bool, again: bool) -> None:
        """Draw the balance, set the price, and begin to count who is aboard anew.

        What was saved while nobody answered is not spent afterwards.
        """
        self._shadow.seats = seats
        self._shadow.run(now)
        bound = CREDIT * max(1.0, open_ids / seats)
        spent = self._spent + (not again and now < self._hurried)
        balance = spent - self._shadow.requests
        balance = max(0.0 if again else -bound, min(balance, bound))
        self._spent = self._shadow.requests + balance
        self._set_price(balance / bound)
        self._latest = now + self._longest
        self._hurried = inf
        self._share, self._next_share = self._next_share, 1.0
        self._departed = now
        self._whole = whole and open_ids <= seats
        self._aboard = 0
        self._weights = (0.0, 0.0, 0.0)

    def answered(self, departed: float, now: float) -> None:
        """Let the shadow know how long answers take."""
        self._shadow.run(now)
        self._shadow.answered(now - departed)

    def passed(self, born: float, last: float, departed: float, count: int = 1) -> None:
        """Learn from those that have not ended, unless they are older than any cell."""
        if last < departed < born + 2.0**OLDEST:
            self._tally.passed(last - born, departed - born, count)

    def ended(self, born: float, last: float, departed: float) -> None:
        """Learn from an end, unless it is older than any cell."""
        if last < departed < born + 2.0**OLDEST:
            self._tally.end(last - born, departed - born)
        if self._tally.news > GROWTH * self._tally.ends:
            self._learn()

    def _learn(self) -> None:
        self._hazard = self._known or self._tally.hazard()
        self._tally.news = 0.0

    def _set_price(self, balance: float) -> None:
        gap = self._shadow.gap
        self._price = (gap * self._hazard.thrift) ** 2 / 2.0 * exp(STEER * CREDIT * balance)
        knows = self._known or self._tally.ends >= FEW
        self._longest = (LONGEST if knows else 1.0) * max(gap, self._interval)


def timetable(pace: Pace, seats: int, spacing: float) -> Timetable:
    """Return the timetable that a pace asks for."""
    return Steered(pace, seats, spacing) if isinstance(pace, Learned) else Timetable(pace)
