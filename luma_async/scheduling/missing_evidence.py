"""Evidence: what one answer says of an id that was asked about, and what answers add up to.

An answer about an id is evidence. A row with its state is believed at once. Everything else may
have other reasons than a task that does not exist: a batch leaves rows out, a replica is stale, a
proxy answers in the place of the relay. So each kind of answer has a clock, which counts only the
seconds between two answers of that kind in a row, and RULES says which clock an answer advances. An
id counts as missing when one of its clocks reaches its limit.

| sign | what was received | clock, limit |
| --- | --- | --- |
| NOT_FOUND | the single endpoint says, in words about a task: there is none | not_found, grace |
| NONE | the single endpoint answers `null` or `[]`; no state was ever seen | not_found, grace |
| NONE | the same, after a state was seen | doubtful, 10 grace |
| REJECTED | the single endpoint rejects the request: a bare 404, 400, 422 … | doubtful, 10 grace |
| OMITTED | a batch without a row of it | none |
| OMITTED | the same, where the relay has no single endpoint | doubtful, 10 grace |
| FORBIDDEN | 401, 402 or 403 for it, while requests about others are answered | forbidden, grace |

Silence has no clock: an id that batches leave out is asked about by GET, every now and then, and
stays in batches in between, in case one contains it. NOT_FOUND and FORBIDDEN advance the doubtful
clock, too: signs that alternate are doubtful. Between two answers a sixth of the grace is counted
at most, or half of the grace if a batch left the id out in between. So it takes seven answers, or
three answers and what the batches say.
"""

from enum import StrEnum
from math import inf

from msgspec import Struct

DOUBT_FACTOR = 10.0  # how much longer weak evidence takes than strong evidence
LOOKS = 6.0  # polls of a doubted id in a grace period
MAX_COUNTED = 1.0 / LOOKS  # of the grace, between two answers
MAX_COUNTED_IF_OMITTED = 0.5  # the same, if batches left the id out in between
FIRST_OMISSIONS = 2  # batches that leave out an id never seen, before it is asked about by GET
MORE_OMISSIONS = 3  # the same, of an id that was seen, or asked about by GET before
_ROUNDING = 1e-6  # seconds


class Sign(StrEnum):
    """What an answer without a row of an id says of it."""

    NOT_FOUND = "the task does not exist"
    NONE = "no task"
    REJECTED = "the request is rejected"
    OMITTED = "the batch leaves it out"
    FORBIDDEN = "the key may not see it"


class Clock(StrEnum):
    """What adds up over several answers."""

    NOT_FOUND = "not_found"
    DOUBTFUL = "doubtful"
    FORBIDDEN = "forbidden"


class Rule(Struct, frozen=True):
    """The clock that a sign advances, None for none, and its limit as a multiple of the grace."""

    clock: Clock | None
    factor: float = 1.0


NO_EVIDENCE = Rule(None)
STRONG = Rule(Clock.NOT_FOUND)
WEAK = Rule(Clock.DOUBTFUL, DOUBT_FACTOR)
RULES: dict[Sign, Rule] = {
    Sign.NOT_FOUND: STRONG,
    Sign.NONE: STRONG,
    Sign.REJECTED: WEAK,
    Sign.OMITTED: NO_EVIDENCE,
    Sign.FORBIDDEN: Rule(Clock.FORBIDDEN),
}


def rule(sign: Sign, *, seen: bool, single_endpoint: bool) -> Rule:
    """Return the rule of a sign; `seen`: a state of the id was seen before."""
    if (sign is Sign.NONE and seen) or (sign is Sign.OMITTED and not single_endpoint):
        return WEAK
    return RULES[sign]


class Evidence(Struct, gc=False, eq=False):
    """What the answers about one id without a row of it add up to.

    The clocks are seconds. `last` is the clock that the last answer advanced, `at` when it came;
    None if it advanced none. `left_out`: a batch left it out. `omissions` counts those since the
    last answer of the single endpoint. `tried_batch`: it was asked about by a batch of its own.
    `is_reported`: its watchers were informed, and it is polled on: the key may not see it.
    """

    not_found: float = 0.0
    doubtful: float = 0.0
    forbidden: float = 0.0
    last: Clock | None = None
    at: float = -inf
    omissions: int = 0
    left_out: bool = False
    tried_batch: bool = False
    is_reported: bool = False

    def omit(self, *, seen: bool, proved: bool) -> bool:
        """Count a batch that left it out. Return whether to ask the single endpoint now.

        `seen`: a state was seen before; `proved`: batches left it out while it existed.
        """
        self.left_out = True
        self.omissions += 1
        needed = FIRST_OMISSIONS if self.last is None and not seen else MORE_OMISSIONS
        return proved or self.omissions >= needed

    def add(self, rule: Rule, now: float, grace: float) -> None:
        """Add an answer received at `now`."""
        if rule.clock is None:
            return
        if self.last is not None:
            share = MAX_COUNTED_IF_OMITTED if self.omissions else MAX_COUNTED
            most = grace if rule.clock is Clock.DOUBTFUL else share * grace
            seconds = min(now - self.at, most)
            self.doubtful += seconds
            if rule.clock is self.last is Clock.NOT_FOUND:
                self.not_found += seconds
            if rule.clock is self.last is Clock.FORBIDDEN:
                self.forbidden += seconds
        self.last, self.at = rule.clock, now
        self.omissions = 0 if rule.clock is not Clock.DOUBTFUL else self.omissions

    def remaining(self, rule: Rule, grace: float) -> float:
        """Return the seconds until the clock of a rule reaches its limit; inf if it has none."""
        if rule.clock is None:
            return inf
        seconds: float = getattr(self, rule.clock)
        return min(rule.factor * grace - seconds, DOUBT_FACTOR * grace - self.doubtful)

    def is_decided(self, rule: Rule, grace: float) -> bool:
        """Return whether a clock has reached its limit, after an answer that had this rule."""
        return self.remaining(rule, grace) <= _ROUNDING
