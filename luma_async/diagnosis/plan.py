"""Which questions an examination asks, each one by the answers so far.

Pure: a generator yields a Question and receives its Answer, or None if it was not sent.
"""

from collections.abc import Generator, Sequence
from urllib.parse import urlsplit

from msgspec import Struct

from luma_async.diagnosis.questions import Answer, Question, Role, known_ids
from luma_async.protocol.requests import single_request
from luma_async.structs import Generation, State

MAX_REQUESTS = 40
MAX_GETS = 6
MAX_TRIES = 3
MAX_BISECTIONS = 4
FIRST_BYTES = 1024
SIZES = (10, 25, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_ENDINGS = (
    "/luma/generations", "/luma/tasks", "/v1/luma", "/luma/v1", "/luma", "/api/v1", "/v1", "/api",
)  # fmt: skip

Asking = Generator[Question, Answer | None, None]
Part = Generator[Question, Answer | None, Answer | None]


class Examination(Struct, frozen=True):
    """What is examined: the relay at `base_url`, with the tasks `ids`.

    `unknown` are ids that no relay knows, at least `max_batch` of them.
    """

    base_url: str
    ids: tuple[str, ...]
    unknown: tuple[str, ...]
    max_batch: int = 100


def examine(what: Examination) -> Asking:
    """Yield the questions; receive the answers."""
    answers: list[Answer] = []
    base = yield from _find_base(what, answers)
    if base is None:
        return
    plan = _Plan(what, base, answers)
    yield from plan.single_calls()
    yield from plan.batches()
    yield from plan.link()


def _ask(question: Question, answers: list[Answer]) -> Part:
    """Ask, and again after a transient error; return the last answer."""
    answer: Answer | None = None
    for _ in range(MAX_TRIES):
        received = yield question
        if received is None:
            return answer
        answer = received
        answers.append(answer)
        if not answer.is_transient:
            break
    return answer


def _find_base(
    what: Examination, answers: list[Answer]
) -> Generator[Question, Answer | None, str | None]:
    """Return the base URL at which an endpoint answers; None if none was found."""
    task_id = (what.ids or what.unknown)[0]
    purpose = "is the base URL right, and is the key accepted"
    base = what.base_url
    first = yield from _ask(_get(base, "first", task_id, purpose), answers)
    if first is None or first.error is None or first.is_unknown_task:
        return base
    batch = Question(
        call="tasks", role="again", purpose="the batch call at the same URL", ids=(task_id,),
        base_url=base,
    )  # fmt: skip
    second = yield from _ask(batch, answers)
    if second is None or not (first.is_wrong_route and second.is_wrong_route):
        is_there = second is not None and second.works
        return base if is_there or first.is_rejected or first.is_about_another else None
    for other in other_bases(base, first):
        purpose = f"another base URL: {other}"
        found = yield from _ask(_get(other, "alternative", task_id, purpose), answers)
        if found is not None and found.works:
            return other
    return None


def other_bases(base_url: str, answer: Answer) -> list[str]:
    """Return base URLs that may be meant: where it redirects to, and with a shorter path.

    The host is the same, and https does not become http, because the key is sent there.
    """
    found: list[str] = []
    ours, target = urlsplit(base_url), urlsplit(answer.headers.get("location", ""))
    path = single_request(answer.question.ids[0]).path
    moved = target.path.removesuffix(path)
    is_secure = target.scheme == "https" or target.scheme == ours.scheme
    if target.hostname == ours.hostname and is_secure and moved != target.path:
        found.append(f"{target.scheme}://{target.netloc}{moved}")
    found += [base_url.removesuffix(end) for end in _ENDINGS if base_url.endswith(end)]
    if ours.path:
        found.append(f"{ours.scheme}://{ours.netloc}")
    return [one for one in dict.fromkeys(found) if one != base_url][:4]


def _get(base: str, role: Role, task_id: str, purpose: str) -> Question:
    return Question(call="get", role=role, purpose=purpose, ids=(task_id,), base_url=base)


class _Plan:
    """The questions to a relay whose base URL is known."""

    def __init__(self, what: Examination, base: str, answers: list[Answer]) -> None:
        self._what = what
        self._base = base
        self._answers = answers
        self._asked = {a.question.ids[0] for a in answers if a.question.call == "get"}

    def single_calls(self) -> Asking:
        """Ask about an unknown id and about the first ids, each by a single GET."""
        for task_id in self._what.ids[:MAX_GETS]:
            if task_id not in self._asked:
                yield from self._get("known", task_id, "what the single call answers")
        if (unknown := self._what.unknown[0]) not in self._asked:
            yield from self._get("unknown", unknown, "how the single call answers an unknown id")

    def _get(self, role: Role, task_id: str, purpose: str) -> Part:
        self._asked.add(task_id)
        return (yield from _ask(_get(self._base, role, task_id, purpose), self._answers))

    def _tasks(self, role: Role, ids: tuple[str, ...], purpose: str) -> Part:
        question = Question(call="tasks", role=role, purpose=purpose, ids=ids, base_url=self._base)
        return (yield from _ask(question, self._answers))

    def batches(self) -> Asking:
        """Ask by the batch call: all ids, none that is known, and growing numbers of ids."""
        ids = self._what.ids[: self._what.max_batch]
        none = yield from self._tasks(
            "none", self._what.unknown[:1], "how the batch call answers an unknown id"
        )
        if none is None or none.is_wrong_route or none.is_key_error:
            return
        if ids:
            yield from self._all(ids)
        yield from self._growing(ids[-1:])

    def _all(self, ids: tuple[str, ...]) -> Asking:
        first = yield from self._tasks("all", ids, "what the batch call answers")
        if first is None or first.response is None:
            return
        if len(ids) > 1:
            yield from self._tasks("reversed", ids[::-1], "in which order the rows come")
        omitted = tuple(one for one in ids if one not in first.response.states)
        for task_id in [one for one in omitted if one not in self._asked][:MAX_GETS]:
            yield from self._get("known", task_id, "whether the relay knows what a batch omits")
        known = known_ids(a for a in self._answers if a.question.call == "get")
        if omitted := tuple(one for one in omitted if one in known):
            yield from self._tasks("omitted", omitted, "whether the omitted rows come alone")

    def _growing(self, last: tuple[str, ...]) -> Asking:
        """Ask about more and more ids, a known one last; bisect between the sizes that differ."""
        most = self._what.max_batch
        known = known_ids(a for a in self._answers if a.question.call == "tasks")
        expected = tuple(one for one in last if one in known)
        good, bad = 1, None
        for size in dict.fromkeys(min(size, most) for size in SIZES):
            if size > 1:
                if not (yield from self._passes(size, expected)):
                    bad = size
                    break
                good = size
        for _ in range(MAX_BISECTIONS):
            if bad is None or bad - good < 2:
                return
            middle = (good + bad) // 2
            if (yield from self._passes(middle, expected)):
                good = middle
            else:
                bad = middle

    def _passes(
        self, size: int, expected: tuple[str, ...]
    ) -> Generator[Question, Answer | None, bool]:
        ids = (*self._what.unknown[: size - len(expected)], *expected)
        purpose = f"whether a request may have {size} ids"
        answer = yield from self._tasks("growing", ids, purpose)
        return answer is None or passes(answer, expected)

    def link(self) -> Asking:
        """Ask for the link of the first completed task that has one."""
        task = completed_task(self._answers)
        if task is None or task.url is None:
            return
        head = Question(
            call="link", role="head", method="HEAD", url=task.url, ids=(task.id,),
            purpose="whether the link of a completed task answers",
        )  # fmt: skip
        yield head
        bytes_ = {"Range": f"bytes=0-{FIRST_BYTES - 1}"}
        first = Question(
            call="link", role="range", url=task.url, headers=bytes_, ids=(task.id,),
            purpose="the first bytes of the video, without a key",
        )  # fmt: skip
        answer = yield first
        same = urlsplit(task.url)[:2] == urlsplit(self._base)[:2]
        if answer is not None and answer.status in (401, 403) and same:
            yield Question(
                call="link", role="with key", url=task.url, headers=bytes_, ids=(task.id,),
                with_key=True, purpose="the same with the key: the link is at the relay itself",
            )  # fmt: skip


def passes(answer: Answer, expected: Sequence[str]) -> bool:
    """Whether a batch was accepted, and all its ids were read: the `expected` rows are there."""
    if answer.response is None:
        return not answer.is_rejected
    return set(expected) <= set(answer.rows)


def completed_task(answers: list[Answer]) -> Generation | None:
    """Return the first completed task with a link in the answers."""
    responses = (answer.response for answer in answers if answer.response is not None)
    for response in responses:
        for task_id, state in response.states.items():
            if state is State.COMPLETED and (task := response.generation(task_id)).url:
                return task
    return None
