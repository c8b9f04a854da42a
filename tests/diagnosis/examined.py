"""Relays with a known behaviour, and what an examination finds in them."""

import json
import uuid
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from luma_async import Limits
from luma_async.diagnosis.checks import CHECKS
from luma_async.diagnosis.examiner import Examiner
from luma_async.diagnosis.findings import Diagnosis, Subject, diagnose
from luma_async.diagnosis.plan import Examination
from luma_async.diagnosis.questions import Question
from luma_async.protocol.requests import Observer
from luma_async.testing import FakeRelay, Reply
from luma_async.testing.types import IncomingRequest
from luma_async.transport import Transport
from tests.odd_relays import Answer, Oddity, OddRelay, body, rows_of

UNKNOWN = tuple(str(uuid.UUID(int=number, version=4)) for number in range(1000))


async def examine(
    relay: FakeRelay,
    ids: Collection[str] = (),
    *,
    base_url: str | None = None,
    key: str | None = None,
    max_batch: int = 100,
    max_rate: float = 10.0,
    proxy: str | None = None,
    asked: list[Question] | None = None,
    observer: Observer | None = None,
) -> Diagnosis:
    """Examine a relay."""
    url, limits = base_url or relay.url, Limits(max_rate=max_rate)
    api_key = key or relay.api_key

    def transport(url: str) -> Transport:
        return Transport(
            url, api_key, http=None, request_timeout=30.0, max_body=limits.max_body, proxy=proxy
        )

    examiner = Examiner(
        transport,
        api_key=api_key,
        limits=limits,
        proxy=proxy,
        allow_hosts=("127.0.0.1",),
        announce=lambda _, question: None if asked is None else asked.append(question),
    )
    examiner.observer = observer
    what = Examination(url, tuple(ids), UNKNOWN[:max_batch], max_batch)
    answers = await examiner.run(what)
    return diagnose(answers, Subject(url, what.ids, max_batch, max_rate), CHECKS)


def found(diagnosis: Diagnosis, check: str) -> str:
    """Return level and text of the first finding of a check; empty if there is none."""
    hits = (f"{f.level}: {f.text}" for f in diagnosis.findings if f.check == check)
    return next(hits, "")


def first_ids(most: int) -> Answer:
    """Return an oddity: a batch reads its first ids only."""

    def answer(_: OddRelay, call: str, ids: tuple[str, ...], reply: Reply) -> Reply:
        rows = [row for row in rows_of(reply) if row["id"] in ids[:most]]
        return body(reply, rows) if call == "tasks" else reply

    return answer


def refuses_above(most: int, status: int) -> Answer:
    """Return an oddity: a batch of more ids is refused."""

    def answer(_: OddRelay, call: str, ids: tuple[str, ...], reply: Reply) -> Reply:
        if call == "tasks" and len(ids) > most:
            return body(reply, {"message": "too many ids"}, status)
        return reply

    return answer


def in_order_of_request(_: OddRelay, call: str, ids: tuple[str, ...], reply: Reply) -> Reply:
    """Answer the rows of a batch in the order of the request."""
    if call != "tasks":
        return reply
    return body(reply, sorted(rows_of(reply), key=lambda row: ids.index(row["id"])))


def with_headers(headers: dict[str, str]) -> Answer:
    """Return an oddity: more headers."""
    return lambda _relay, _call, _ids, reply: replace(reply, headers={**reply.headers, **headers})


def with_link(change: Callable[[str], str]) -> Answer:
    """Return an oddity: another link in each row."""

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: changed(one) for key, one in value.items()}  # pyright: ignore[reportUnknownVariableType]
        if isinstance(value, list):
            return [changed(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
        return change(value) if isinstance(value, str) and value.startswith("http") else value

    def answer(_: OddRelay, __: str, ___: tuple[str, ...], reply: Reply) -> Reply:
        return body(reply, changed(json.loads(reply.body))) if reply.status == 200 else reply

    return answer


def odd(answer: Answer, **arguments: Any) -> OddRelay:
    return OddRelay(Oddity("odd", answer), **arguments)


class MediaRelay(FakeRelay):
    """A relay whose files are answered otherwise."""

    def __init__(self, media: Callable[[IncomingRequest, Reply], Reply]) -> None:
        super().__init__()
        self._media = media

    async def _handle(self, request: IncomingRequest) -> Reply:
        reply = await super()._handle(request)
        return self._media(request, reply) if "/media/" in request.path else reply
