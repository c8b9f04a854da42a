"""Odd relays that are drawn: whatever they answer for a while, each id ends as it did there."""

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from luma_async import APIError, Every, Generation, Learned, LumaSession, State, WaitAborted
from luma_async.testing import Reply, run_virtual
from tests.odd_relays import (
    ERRORS_UNDER_200,
    HICCUPS,
    Answer,
    Oddity,
    OddRelay,
    always,
    body,
    in_other_words,
    kling,
    nested,
    on_batch,
    on_rows,
    rows_of,
)
from tests.properties import examples

LONGEST = 250.0  # seconds; below ten times the default missing_grace
STATUSES = (
    400,
    404,
    405,
    408,
    409,
    410,
    413,
    414,
    418,
    422,
    425,
    429,
    431,
    500,
    501,
    502,
    503,
    520,
)
BODIES: tuple[object, ...] = (
    b"", b"not found", b"<html><body>Not Found</body></html>", {}, {"detail": "Not Found"},
    {"error": {"message": "get_channel_failed: upstream busy"}}, {"message": "model not found"},
    {"code": "invalid_request", "message": "bad id", "data": None}, {"error": "too large"},
)  # fmt: skip

Rows = list[dict[str, Any]]


def stale(share: float) -> Answer:
    """Return an oddity: each batch leaves out a random share of its rows."""

    def answer(relay: OddRelay, call: str, _: tuple[str, ...], reply: Reply) -> Reply:
        if call != "tasks":
            return reply
        return body(reply, [row for row in rows_of(reply) if relay.dice.random() >= share])

    return answer


def twice(rows: Rows) -> Rows:
    """Contradict each row by an older one, before it or after it."""
    old = [{"id": row["id"], "state": "processing"} for row in rows]
    return [*old[::2], *rows, *old[1::2]]


def with_strangers(rows: Rows) -> Rows:
    strangers = [
        {"id": f"stranger-{row['id'][:8]}", "state": "completed", "result_url": "https://stranger/"}
        for row in rows
    ]
    return [*strangers, *rows]


def of_another(call: str) -> Answer:
    """Return an oddity: a call is answered by another task's row, every other time."""
    row = {"id": "stranger", "state": "completed", "video": {"url": "https://stranger/v.mp4"}}

    def answer(relay: OddRelay, asked: str, _: tuple[str, ...], reply: Reply) -> Reply:
        if asked != call or relay.dice.random() < 0.5:
            return reply
        return body(reply, [row] if call == "tasks" else row)

    return answer


def forbidding(place: int, status: int) -> Answer:
    """Return an oddity: requests that ask about one certain id are rejected."""

    def answer(relay: OddRelay, _: str, ids: tuple[str, ...], reply: Reply) -> Reply:
        bad = list(relay.tasks)[place % len(relay.tasks)]
        return body(reply, {"message": "no"}, status) if bad in ids else reply

    return answer


def upper(row: dict[str, Any]) -> object:
    return {**row, "id": row["id"].upper()}


def done_only(rows: Rows) -> Rows:
    return [row for row in rows if row["state"] in ("completed", "failed")]


def page(rows: Rows) -> object:
    return {"data": rows[:20], "total": len(rows), "page": 1, "page_size": 20}


batch_changes: list[Callable[[Rows], object]] = [done_only, page, twice, with_strangers]
row_changes: list[Callable[[dict[str, Any]], object]] = [upper, in_other_words, kling, nested(2)]
calls = st.sampled_from([None, "get", "tasks"])
answers = st.one_of(
    st.integers(0, 30).map(lambda cap: on_batch(lambda rows: rows[:cap])),
    st.sampled_from(batch_changes).map(on_batch),
    st.sampled_from(row_changes).map(on_rows),
    st.floats(0.1, 0.9).map(stale),
    st.builds(always, st.sampled_from(STATUSES), st.sampled_from(BODIES), call=calls),
    st.builds(always, st.just(200), st.sampled_from(ERRORS_UNDER_200), call=calls),
    st.builds(always, st.just(200), st.sampled_from([*HICCUPS.values()]), call=st.just("tasks")),
    st.sampled_from(["get", "tasks"]).map(of_another),
)
windows = st.tuples(st.floats(0.0, 60.0), st.floats(1.0, LONGEST - 60.0))
short_windows = st.tuples(st.floats(0.0, 60.0), st.floats(1.0, 9.0))
"""Three of them in a row are shorter than missing_grace: "no task" for longer would be believed."""
hiccups = st.builds(always, st.just(200), st.sampled_from([*HICCUPS.values()]))
forbidden = st.builds(forbidding, st.integers(0, 50), st.sampled_from([401, 402, 403]))
spells = st.lists(
    st.one_of(
        st.tuples(windows, answers),
        st.tuples(short_windows, hiccups),
        st.tuples(short_windows, forbidden),
    ),
    min_size=1,
    max_size=3,
)


def overlaid(spells: list[tuple[tuple[float, float], Answer]]) -> Oddity:
    """Return the oddity of several spells, the first one that is on counts."""

    def answer(relay: OddRelay, call: str, ids: tuple[str, ...], reply: Reply) -> Reply:
        now = relay._now()  # pyright: ignore[reportPrivateUsage]
        for (start, length), one in spells:
            if start <= now < start + length:
                changed = one(relay, call, ids, reply)
                return replace(changed, headers={**reply.headers, **changed.headers})
        return reply

    return Oddity("drawn", answer)


async def play(oddity: Oddity, seed: int, tasks: int) -> None:
    dice = random.Random(seed)
    async with OddRelay(oddity, seed=seed, latency=0.05) as relay:
        ids = [
            relay.add(
                duration=dice.uniform(0.0, 200.0),
                ends="failed" if dice.random() < 0.3 else "completed",
            )
            for _ in range(tasks)
        ]
        pace = Every(5.0) if seed % 2 else Learned(5.0)
        async with LumaSession(relay.url, api_key=relay.api_key, pace=pace) as luma:
            done = await wait_again(luma, ids)
        assert done.keys() == set(ids)
        for task_id, one in done.items():
            assert one.state == relay.tasks[task_id].ends
            check_own(task_id, one)


async def wait_again(luma: LumaSession, ids: list[str]) -> dict[str, Generation]:
    """Wait as the documents say: after WaitAborted again, for what is pending.

    An id that is rejected while no other is open cannot be told from a key that is rejected.
    """
    done: dict[str, Generation] = {}
    while ids:
        try:
            done |= await luma.wait_until_done(ids, timeout=7200.0)
            return done
        except WaitAborted as error:
            if error.missing or not isinstance(error.cause, APIError):
                raise
            done |= error.done
            ids = list(error.pending)
            await asyncio.sleep(1.0)
    return done


def check_own(task_id: str, one: Generation) -> None:
    """Check that a task is its own, with its link."""
    assert "stranger" not in json.dumps(one.raw)
    if one.state is State.COMPLETED:
        assert task_id in (one.url or "")


@settings(max_examples=examples(30))
@given(spells=spells, seed=st.integers(0, 2**16), tasks=st.sampled_from([1, 2, 30]))
def test_an_oddity_that_ends_leaves_each_id_as_it_is_at_the_relay(
    spells: list[tuple[tuple[float, float], Answer]], seed: int, tasks: int
) -> None:
    run_virtual(play(overlaid(spells), seed, tasks))
