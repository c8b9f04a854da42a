"""When does the next request depart? A pace, as the book uses it.

`Plain` is any pace that is a function of age: the request departs when its first passenger is due.

`Steered` is `Learned` at work. It decides three things:

- An id is due when the expected waiting (see `durations`) has reached a price, the same for all.
  Since the seats go to those due first, they go where the waiting is greatest.
- Where all open ids fit into one request, it departs when those aboard are worth its fare, that is
  when their ripeness sums up to one each; ripeness grows with the square of the time since the last
  look, and is one when the id is due. Otherwise it departs when the first is due.
- The price is the one at which `Every` would be as thrifty: at which looks are as far apart on
  average as its looks are. It is corrected by the balance of requests, ours against those of a
  shadow of `Every`, so that what is spent is the same.

An id that nobody has asked about is asked about at once, as by `Every`, as long as one in CHANCE of
them turns out to have ended before; once that is seldom, it leaves with the next departure.

Nobody is silent for longer than LONGEST intervals, so that a wrong estimate can delay news and
never lose it.
"""

from math import exp, inf, sqrt
from typing import Protocol

from luma_async.durations import OLDEST, Hazard, Tally
from luma_async.pace import LONGEST, Learned, Pace, rest
from luma_async.shadow import Shadow

CHANCE = 20.0
GROWTH = 1.05
PROMPT = 0.04
STEADY = 2e-4
CREDIT = 20.0


class Timetable(Protocol):
    """What the book asks of a pace, and tells it."""

    @property
    def pace(self) -> Pace:
        """The pace, as far as it has learned."""
        ...

    @property
    def shared_until(self) -> float:
        """Until when an id that was never asked about waits for the company of others."""
        ...

    def rest(self, age: float, departed: float) -> float:
        """Return the seconds from a look at an id, which departed then, to the next."""
        ...

    def again(self, age: float) -> float:
        """Return the least seconds between two looks that bring no answer."""
        ...

    def hurry(self, due: float) -> None:
        """Take note that an id has to be asked about by then."""
        ...

    def departs_at(self, first: float) -> float:
        """Return when a request departs; `first` is when the first id is due."""
        ...

    def watched(self, fresh: int, now: float) -> None:
        """Take note of ids that somebody wants for the first time."""
        ...

    def forgotten(self) -> None:
        """Take note of an id that nobody wants any more."""
        ...

    def departed(self, now: float, *, open_ids: int, seats: int, whole: bool, again: bool) -> None:
        """Take note of a departure.

        `whole`, where nobody was left behind; `again`, where it asks anew what brought no answer.
        """
        ...

    def answered(self, departed: float, now: float) -> None:
        """Take note of an answer."""
        ...

    def looked(self, born: float, last: float | None, departed: float, *, done: bool) -> None:
        """Take note of what a look showed of an id that was born and last looked at then."""
        ...


class Plain:
    """A pace that is a function of age."""

    __slots__ = ("pace",)
    shared_until = -inf

    def __init__(self, pace: Pace) -> None:
        self.pace = pace

    def rest(self, age: float, departed: float) -> float:
        """Return the rest that the pace gives."""
        return rest(self.pace, age)

    def again(self, age: float) -> float:
        """Return the rest that the pace gives."""
        return rest(self.pace, age)

    def hurry(self, due: float) -> None:
        """Do nothing: the request departs when the first id is due."""

    def departs_at(self, first: float) -> float:
        """Return when the first id is due."""
        return first

    def watched(self, fresh: int, now: float) -> None:
        """Do nothing."""

    def forgotten(self) -> None:
        """Do nothing."""

    def departed(self, now: float, *, open_ids: int, seats: int, whole: bool, again: bool) -> None:
        """Do nothing."""

    def answered(self, departed: float, now: float) -> None:
        """Do nothing."""

    def looked(self, born: float, last: float | None, departed: float, *, done: bool) -> None:
        """Do nothing."""


class Steered:
    """`Learned` at work; `known` is the true hazard, where somebody knows it."""

    def __init__(
        self, pace: Learned, seats: int, spacing: float, *, known: Hazard | None = None
    ) -> None:
        self._known = known
        self._interval = pace.interval
        self._tally = Tally(pace.seen)
        self._shadow = Shadow(pace.interval, seats, spacing)
        self._spent = 0.0
        self._correction = 0.0
        self._price = 0.0
        self._longest = 0.0
        self._latest = inf
        self._departed = 0.0
        self._aboard = 0
        self._whole = True
        self._weights = (0.0, 0.0, 0.0)
        self._learn()
        self._set_price(0.0)

    @property
    def pace(self) -> Learned:
        """The pace, with what it has learned."""
        return Learned(self._interval, self._tally.seen())

    @property
    def shared_until(self) -> float:
        """Until when an id that was never asked about waits for the company of others."""
        if CHANCE * (self._tally.done + 1.0) > self._tally.first_looks + 1.0:
            return -inf
        return self._departed + self._shadow.spacing

    def rest(self, age: float, departed: float) -> float:
        """Return when the waiting will have reached the price, and add to the ripeness aboard."""
        age = min(age, 2.0**OLDEST)
        seconds = self._hazard.rest(age, self._price, self._longest)
        ripeness = 1.0
        if seconds >= self._longest:
            ripeness = min(1.0, self._hazard.waiting(age, seconds) / self._price)
        weight = ripeness / (seconds * seconds)
        since = departed - self._departed
        square, linear, constant = self._weights
        self._weights = square + weight, linear + weight * since, constant + weight * since * since
        self._aboard += 1
        return seconds

    def again(self, age: float) -> float:
        """Return the interval."""
        return self._interval

    def hurry(self, due: float) -> None:
        """Depart by then."""
        self._latest = min(self._latest, due)

    def departs_at(self, first: float) -> float:
        """Return when those aboard are worth the fare, or the first is due where not all fit."""
        if not self._whole or first == inf:
            return first
        square, linear, constant = self._weights
        root = linear * linear - square * (constant - self._aboard)
        if square < 1e-12 or root < 0.0:
            return self._latest
        return min(self._latest, self._departed + (linear + sqrt(root)) / square)

    def watched(self, fresh: int, now: float) -> None:
        """Let the shadow watch them too."""
        self._shadow.watch(fresh, now)

    def forgotten(self) -> None:
        """Let the shadow forget it too."""
        self._shadow.forget()

    def departed(self, now: float, *, open_ids: int, seats: int, whole: bool, again: bool) -> None:
        """Draw the balance, set the price, and begin to count who is aboard anew."""
        self._shadow.seats = seats
        self._shadow.run(now)
        requests = max(1.0, open_ids / seats)
        self._spent += not again
        self._spent = max(self._spent, self._shadow.requests - CREDIT * requests)
        balance = (self._spent - self._shadow.requests) / requests
        self._correction += STEADY * balance
        self._set_price(balance)
        self._latest = now + self._longest
        self._departed = now
        self._whole = whole
        self._aboard = 0
        self._weights = (0.0, 0.0, 0.0)

    def answered(self, departed: float, now: float) -> None:
        """Let the shadow know how long answers take."""
        self._shadow.run(now)
        self._shadow.answered(now - departed)

    def looked(self, born: float, last: float | None, departed: float, *, done: bool) -> None:
        """Learn from a look."""
        if last is None:
            self._tally.first_look(done=done)
        elif departed - born > 2.0**OLDEST:
            pass
        elif done and departed > last:
            self._tally.end(last - born, departed - born)
            if self._tally.ends >= self._learn_at:
                self._learn()
        elif not done:
            self._tally.passed(last - born, departed - born)
        if done:
            self._shadow.end(born if last is None else (last + departed) / 2)

    def _learn(self) -> None:
        self._hazard = self._known or self._tally.seen().hazard()
        self._learn_at = self._tally.ends * GROWTH + 1.0

    def _set_price(self, balance: float) -> None:
        gap = self._shadow.gap
        self._price = (gap * self._hazard.thrift) ** 2 / 2.0
        self._price *= exp(self._correction + PROMPT * balance)
        self._longest = LONGEST * max(gap, self._interval)


def timetable(pace: Pace, seats: int, spacing: float) -> Timetable:
    """Return the timetable that a pace asks for."""
    return Steered(pace, seats, spacing) if isinstance(pace, Learned) else Plain(pace)
