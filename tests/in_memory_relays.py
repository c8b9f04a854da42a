"""Relays without a socket: the two endpoints, and a record of the requests."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from math import inf
from typing import TypeAlias

from msgspec import Struct

from luma_async.errors import (
    AuthenticationError,
    BadRequestError,
    DecodeError,
    LumaError,
    NoSuchRouteError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RelayError,
    RequestTimeout,
    TransportError,
)
from luma_async.protocol.rows import RowText
from luma_async.protocol.submissions import Submission, Submitted
from luma_async.scheduling.throttle import Limits
from luma_async.structs import Generation, State
from tests.fake_answers import LINK, FakeAnswer, generation

ROUNDING = 1e-6


class ScriptedRelay:
    """Answers after `latency` seconds with what `play` returns for each id; None: unknown."""

    def __init__(self, play: Callable[[str], State | None], latency: float = 0.1) -> None:
        self.play = play
        self.latency = latency
        self.asked: list[tuple[str, ...]] = []
        self.in_flight = 0
        self.cancelled = 0

    async def get(self, task_id: str) -> FakeAnswer:
        return await self._ask([task_id])

    async def get_many(self, ids: Sequence[str]) -> FakeAnswer:
        return await self._ask(ids)

    async def submit(self, submission: Submission, on_write: Callable[[], None]) -> Submitted:
        raise AssertionError("nothing is submitted to this relay")

    async def _ask(self, ids: Sequence[str]) -> FakeAnswer:
        self.asked.append(tuple(ids))
        self.in_flight += 1
        try:
            await asyncio.sleep(self.latency)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        return FakeAnswer({i: state for i in ids if (state := self.play(i))})


class RuledRelay(ScriptedRelay):
    """Answers with the error that `rule` returns for a request, or as `play` says.

    The rule receives the ids, and whether the batch endpoint is asked. `sent` has the time, the ids
    and the endpoint of each request.
    """

    def __init__(
        self,
        rule: Callable[[tuple[str, ...], bool], LumaError | None] = lambda ids, many: None,
        latency: float = 0.0,
        play: Callable[[str], State | None] = lambda _: State.PROCESSING,
    ) -> None:
        super().__init__(play, latency)
        self.rule = rule
        self.sent: list[tuple[float, tuple[str, ...], bool]] = []

    async def get(self, task_id: str) -> FakeAnswer:
        return await self._answer((task_id,), many=False)

    async def get_many(self, ids: Sequence[str]) -> FakeAnswer:
        return await self._answer(tuple(ids), many=True)

    async def _answer(self, ids: tuple[str, ...], *, many: bool) -> FakeAnswer:
        self.sent.append((asyncio.get_running_loop().time(), ids, many))
        if error := self.rule(ids, many):
            raise error
        return await self._ask(ids)

    @property
    def times(self) -> list[float]:
        return [at for at, _, _ in self.sent]

    @property
    def batch_times(self) -> list[float]:
        return [at for at, _, many in self.sent if many]


class Stage(StrEnum):
    """The true state of a task, which never goes back."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    PROCESSING = "processing"
    LINKLESS = "completed, without a link"
    LINKED = "completed, with a link"
    FAILED = "failed"

    @property
    def is_end(self) -> bool:
        """Whether a response with this stage ends the id at once."""
        return self in (Stage.LINKED, Stage.FAILED)

    def leads_to(self, later: "Stage") -> bool:
        order = list(Stage)
        return order.index(self) < order.index(later) and not (
            later is Stage.FAILED and self in (Stage.LINKLESS, Stage.LINKED)
        )


STATES = {
    Stage.PENDING: State.PENDING,
    Stage.PROCESSING: State.PROCESSING,
    Stage.LINKLESS: State.COMPLETED,
    Stage.LINKED: State.COMPLETED,
    Stage.FAILED: State.FAILED,
}


def generation_at(task_id: str, stage: Stage) -> Generation:
    return generation(task_id, STATES[stage], LINK if stage is Stage.LINKED else None)


class StagedAnswer:
    """A response with these tasks at these stages."""

    unknown_states: frozenset[str] = frozenset()

    def __init__(self, stages: Mapping[str, Stage], retry_after: float | None) -> None:
        self.retry_after = retry_after
        self.states = {i: STATES[stage] for i, stage in stages.items()}
        self._stages = stages

    def age(self, task_id: str) -> float:
        return 0.0

    def row(self, task_id: str) -> RowText:
        return RowText(task_id, b"", self.generation(task_id))

    def generation(self, task_id: str) -> Generation:
        return generation_at(task_id, self._stages[task_id])


class Outcome(Struct, frozen=True):
    """The outcome of one request, `late` seconds after it was sent: a fault, or a response.

    `fault` is a key of FAULTS, `after` its Retry-After in seconds. A response omits the ids in
    `omitted`; one with `strangers` begins with other ids, as failed.
    """

    late: float = 0.1
    fault: str = ""
    after: float | None = None
    omitted: frozenset[str] = frozenset()
    strangers: bool = False


FAULTS: dict[str, Callable[[float | None], LumaError]] = {
    "429": lambda after: RateLimitedError(429, retry_after=after),
    "500": lambda after: RelayError(500, retry_after=after),
    "502": lambda after: RelayError(502, retry_after=after),
    "503": lambda after: RelayError(503, retry_after=after),
    "timeout": lambda _: RequestTimeout("no answer"),
    "reset": lambda _: TransportError("the connection was reset"),
    "senseless": lambda _: DecodeError("a body that is no task"),
}
TROUBLES: dict[str, Callable[[], LumaError]] = {
    "401": lambda: AuthenticationError(401),
    "403": lambda: PermissionDeniedError(403),
    "no route": lambda: NoSuchRouteError("a web page"),
    "404": lambda: NotFoundError(404),
    "405": lambda: BadRequestError(405),
    "501": lambda: RelayError(501),
}
KEY_TROUBLES = ("401", "403")
AMNESIA = "amnesia"


class Request(Struct, frozen=True, eq=False):
    """One request that was sent."""

    ids: tuple[str, ...]
    direct: bool
    sent_at: float


class LimitChecker:
    """Checks each request of one session when it is sent; a broken promise is a fault."""

    def __init__(self, limits: Limits, wanted: Callable[[str], bool], faults: list[str]) -> None:
        self.in_flight: list[Request] = []
        self.closed = False
        self._limits = limits
        self._wanted = wanted
        self._faults = faults
        self._sends: list[float] = []
        self._cooldowns: list[tuple[float, float]] = []

    def check(self, request: Request) -> None:
        now = request.sent_at
        self._sends.append(now)
        self.in_flight.append(request)
        broken = self._broken(request, now) | ({} if request.direct else self._poll(request))
        self._faults += [f"{claim}: {request}" for claim, is_broken in broken.items() if is_broken]

    def cool_down(self, since: float, seconds: float) -> None:
        """Record a Retry-After of the relay."""
        self._cooldowns.append((since, since + seconds - ROUNDING))

    def _broken(self, request: Request, now: float) -> dict[str, bool]:
        recent = sum(at > now - 1.0 for at in self._sends)
        return {
            "sent after the close": self.closed,
            "has too many ids": len(request.ids) > self._limits.max_batch,
            "has an id twice": len(set(request.ids)) < len(request.ids),
            "too many in flight": len(self.in_flight) > self._limits.max_in_flight,
            f"one of {recent} in a second": recent > self._limits.max_rate,
            "sent during a Retry-After": any(a < now < b for a, b in self._cooldowns),
        }

    def _poll(self, request: Request) -> dict[str, bool]:
        polled = Counter(i for poll in self.in_flight if not poll.direct for i in poll.ids)
        return {
            "an id is in flight twice": any(polled[i] > 1 for i in request.ids),
            "an id has no watcher": not all(map(self._wanted, request.ids)),
        }


Listener: TypeAlias = Callable[[Request, Mapping[str, Stage] | LumaError], None]


class FaultyRelay:
    """Follows a script of outcomes, one per request, and answers correctly after its end.

    A response has the stages from when its request was sent. Beside the script there are `troubles`
    (AMNESIA or a key of TROUBLES, and until when), ids that are `refused` (the status of a batch
    with one, the status of that one alone, 200 for a correct response), and batches of more
    than `max_ids` ids.
    """

    def __init__(self, ids: Iterable[str], on_answer: Listener) -> None:
        self.stages = dict.fromkeys(ids, Stage.PENDING)
        self.script: deque[Outcome] = deque()
        self.troubles: dict[str, float] = {}
        self.refused: dict[str, tuple[int, int]] = {}
        self.max_ids = inf
        self._on_answer = on_answer

    def stop_faults(self) -> None:
        self.script.clear()
        self.troubles.clear()
        self.refused.clear()
        self.max_ids = inf

    async def ask(self, budget: LimitChecker, request: Request, *, many: bool) -> StagedAnswer:
        budget.check(request)
        try:
            outcome = self.script.popleft() if self.script else Outcome()
            answer = self._answer(request, outcome, many)
            await asyncio.sleep(outcome.late)
        finally:
            budget.in_flight.remove(request)
        now = asyncio.get_running_loop().time()
        if outcome.after is not None:
            budget.cool_down(now, outcome.after)
        unknown = not many and isinstance(answer, NotFoundError | BadRequestError)
        self._on_answer(request, {} if unknown else answer)
        if isinstance(answer, LumaError):
            answer.retry_after = outcome.after
            raise answer
        stages = self._strangers(request) | answer if outcome.strangers else answer
        return StagedAnswer(stages, outcome.after)

    def _answer(
        self, request: Request, outcome: Outcome, many: bool
    ) -> dict[str, Stage] | LumaError:
        if outcome.fault:
            return FAULTS[outcome.fault](outcome.after)
        if error := self._trouble(many, request.sent_at) or self._refusal(request.ids, many):
            return error
        if request.sent_at < self.troubles.get(AMNESIA, 0.0):
            return {}
        return {
            i: stage
            for i in reversed(request.ids)
            if i not in outcome.omitted and (stage := self.stages[i]) is not Stage.UNKNOWN
        }

    def _trouble(self, many: bool, now: float) -> LumaError | None:
        for trouble, until in self.troubles.items():
            if trouble in TROUBLES and now < until and (many or trouble in KEY_TROUBLES):
                return TROUBLES[trouble]()
        return None

    def _refusal(self, ids: Sequence[str], many: bool) -> LumaError | None:
        if many and len(ids) > self.max_ids:
            return BadRequestError(413)
        for in_a_batch, alone in (self.refused[i] for i in ids if i in self.refused):
            status = in_a_batch if many else alone
            if status != 200:
                return (NotFoundError if status == 404 else BadRequestError)(status)
        return None

    def _strangers(self, request: Request) -> dict[str, Stage]:
        return {i: Stage.FAILED for i in self.stages if i not in request.ids}


class RelayClient:
    """The two endpoints of a faulty relay for one session: its polls, or its direct calls."""

    def __init__(self, relay: FaultyRelay, budget: LimitChecker, *, direct: bool) -> None:
        self._relay = relay
        self._budget = budget
        self._direct = direct

    async def get(self, task_id: str) -> StagedAnswer:
        return await self._ask([task_id], many=False)

    async def get_many(self, ids: Sequence[str]) -> StagedAnswer:
        return await self._ask(ids, many=True)

    async def _ask(self, ids: Sequence[str], *, many: bool) -> StagedAnswer:
        now = asyncio.get_running_loop().time()
        request = Request(tuple(ids), self._direct, now)
        return await self._relay.ask(self._budget, request, many=many)
