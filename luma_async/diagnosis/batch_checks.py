"""Findings about batches: how many ids and rows, which rows, their order, their names."""

import json
from collections.abc import Iterator

from luma_async.diagnosis.findings import Finding, Subject
from luma_async.diagnosis.plan import passes
from luma_async.diagnosis.questions import Answer, Answers, known_ids
from luma_async.errors import LumaError
from luma_async.protocol.decoding import decode_response
from luma_async.text import one_line

_PAGE_KEYS = ("page", "page_size", "pageSize", "per_page", "total", "has_more", "next")


def batch_size(answers: Answers, subject: Subject) -> Iterator[Finding]:
    """Find how many ids a request may have."""
    growing = answers.of("tasks", "growing", "all")
    known = known_ids(answers.of("tasks"))
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for a in growing:
        expected = [i for i in a.question.ids[-1:] if i in known and a.question.role == "growing"]
        if not a.is_transient:
            sizes[passes(a, expected)].append(len(a.question.ids))
    if not sizes[False]:
        if sizes[True]:
            most = max(sizes[True])
            follows = "" if most >= subject.max_batch else "ask with more ids or a larger batch"
            yield Finding("batch-size", "ok", f"a request may have {most:,} ids", follows)
        return
    good = max((s for s in sizes[True] if s < min(sizes[False])), default=1)
    refused = next((a for a in growing if a.is_rejected), None)
    why = one_line(str(refused.error)) if refused else "the ids behind are not read"
    yield Finding(
        "batch-size", "note", f"a request may have {good:,} ids, not {min(sizes[False]):,}: {why}",
        f"set Limits(max_batch={good})", limits={"max_batch": good},
    )  # fmt: skip


def rows(answers: Answers, subject: Subject) -> Iterator[Finding]:
    """Find whether batches omit tasks that the single call knows: a cap, a page, or a filter."""
    whole = next((a for a in answers.of("tasks", "all") if a.response is not None), None)
    if whole is None or whole.response is None:
        return
    known = known_ids(answers.of("get")) | known_ids(answers.of("tasks"))
    omitted = [i for i in whole.question.ids if i in known and i not in whole.response.states]
    count = len(whole.rows)
    if not omitted:
        more = "" if len(whole.question.ids) > 1 else "give more ids to see a limit of rows"
        yield Finding("rows", "ok", f"a batch has all {count} rows", more)
        return
    alone = next(iter(answers.of("tasks", "omitted")), None)
    what = f"of {len(whole.question.ids)} ids a batch has {count} rows"
    if alone is not None and alone.rows and count:
        kind = f"it is a page ({', '.join(_page_keys(whole))})" if _page_keys(whole) else "a cap"
        yield Finding(
            "rows", "note", f"{what}, and the omitted ones come alone: {kind}, {count} rows at "
            "most", f"set Limits(max_batch={count})", limits={"max_batch": count},
        )  # fmt: skip
    elif count and all(state.is_done for state in whole.response.states.values()):
        yield Finding(
            "rows", "note", f"{what}, all of them ended: it filters out running tasks",
            "running tasks are polled by the single call; set Limits(max_batch=1) to save requests",
            limits={"max_batch": 1},
        )  # fmt: skip
    else:
        yield Finding(
            "rows", "note", f"{what}; the single call knows {len(omitted)} more",
            "omitted ids are polled by the single call; set Limits(max_batch=1) to save requests",
            limits={"max_batch": 1},
        )  # fmt: skip


def _page_keys(answer: Answer) -> list[str]:
    try:
        plain = json.loads(answer.body)
    except (ValueError, RecursionError):
        return []
    return [key for key in _PAGE_KEYS if isinstance(plain, dict) and key in plain]


def order(answers: Answers, _: Subject) -> Iterator[Finding]:
    """Find the order of the rows."""
    forth = next((a for a in answers.of("tasks", "all") if len(a.rows) > 1), None)
    back = next((a for a in answers.of("tasks", "reversed") if len(a.rows) > 1), None)
    if forth is None or back is None:
        return
    both = set(forth.rows) & set(back.rows)
    first, second = ([i for i in a.rows if i in both] for a in (forth, back))
    if first == second:
        text = "rows come in an order of the relay's own"
    elif first == second[::-1] and first == [i for i in forth.question.ids if i in both]:
        text = "rows come in the order of the request"
    else:
        text = "rows come in no order that repeats"
    yield Finding("order", "ok", text)


def names(answers: Answers, _: Subject) -> Iterator[Finding]:
    """Find whether ids come back as they were sent."""
    changed: list[tuple[str, str]] = []
    compared = 0
    for a in (a for a in answers.of_relay() if a.rows and a.status is not None):
        sent = {task_id.lower(): task_id for task_id in a.question.ids}
        for name in _own_names(a):
            asked = sent.get(name.lower())
            compared += asked is not None
            if asked is not None and asked != name:
                changed.append((asked, name))
    if changed:
        asked, name = map(one_line, changed[0])
        yield Finding(
            "names", "note", f"ids come back in another case: {asked} as {name}",
            "ids match without regard to case, if only one fits; submit what the relay returned",
        )  # fmt: skip
    elif compared:
        yield Finding("names", "ok", "ids come back as they were sent")


def _own_names(answer: Answer) -> list[str]:
    """Return the ids in a response as the relay writes them."""
    try:
        return list(decode_response(answer.status or 0, answer.headers, answer.body).states)
    except LumaError:
        return []
