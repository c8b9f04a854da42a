"""A relay to try things on: a real HTTP server on loopback that plays both calls from a script."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import unquote

import msgspec

from luma_async.testing import shapes
from luma_async.testing.faults import (
    broken,
    check_faults,
    choose,
    remembered,
    spoiled,
    status_sent,
)
from luma_async.testing.play import Envelope, Play
from luma_async.testing.script import (
    Asked,
    Ends,
    Fault,
    Reply,
    Task,
    check_key,
    check_port,
    check_prefix,
    seconds,
)

if TYPE_CHECKING:
    from luma_async.testing.server import Server

Call = Literal["get", "tasks"]

_SINGLE = "/luma/generations/"
_BATCH = "/luma/tasks"


class _Batch(msgspec.Struct):
    ids: list[str]


_decode_batch = msgspec.json.Decoder(_Batch).decode


class FakeRelay:
    """A Luma relay on 127.0.0.1 that plays `GET /luma/generations/ID` and `POST /luma/tasks`.

    An async context manager; or call `start` and `close`. All times are seconds of the running
    event loop, so virtual time works. An answer of the play tells what was so when its request
    arrived, and leaves `latency` seconds later. `envelope` is "bare" (task objects as the upstream
    sends them) or "wrapped" (rows of the relay's own table). Port 0 takes a free one. The ids that
    `add` makes depend on `seed` alone, and so do the dice that decide which requests the `faults`
    hit. ValueError or TypeError for arguments that make no sense.
    """

    def __init__(
        self,
        *,
        api_key: str = "sk-fake",
        envelope: Envelope = "bare",
        latency: float = 0.0,
        path_prefix: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
        faults: Mapping[Fault, float] | None = None,
    ) -> None:
        self.api_key: str = check_key(api_key)
        self._play = Play(envelope, seed)
        self._latency = seconds("latency", latency)
        self._prefix = check_prefix(path_prefix)
        self._host = host
        self._port = check_port(port)
        self._faults = check_faults(faults)
        self._dice = random.Random(f"faults of {seed}")  # noqa: S311 - faults that repeat
        self._scripted: list[tuple[Call | None, Reply]] = []
        self._log: list[Asked] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None
        self._url: str | None = None

    async def start(self) -> None:
        """Listen; RuntimeError if it does already, OSError if the address is taken."""
        if self._server is not None:
            raise RuntimeError("this FakeRelay is started already: close it first")
        from luma_async.testing.server import Server

        server = Server(self._answer)
        self._loop = asyncio.get_running_loop()
        port = await server.start(self._host, self._port)
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._server, self._url = server, f"http://{host}:{port}{self._prefix}"

    async def close(self) -> None:
        """Stop listening and drop every connection; what was under way gets no answer."""
        server, self._server = self._server, None
        if server is not None:
            await server.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def url(self) -> str:
        """The base URL with the prefix and no trailing slash; RuntimeError before `start`."""
        if self._url is None:
            raise RuntimeError("this FakeRelay has no URL yet: start it, or enter it, first")
        return self._url

    @property
    def tasks(self) -> Mapping[str, Task]:
        """All tasks by their id, in order of submission: a live view."""
        return MappingProxyType(self._play.tasks)

    @property
    def log(self) -> list[Asked]:
        """One record for each request so far, in order of arrival: a copy."""
        return self._log.copy()

    @property
    def requests(self) -> int:
        """How many requests have arrived."""
        return len(self._log)

    @property
    def faults(self) -> Mapping[Fault, float]:
        """The probability of each fault, rolled once for each request of the two calls.

        Set it to switch faults on or off from the next request on (None: off). Scripted replies
        are not hit. ValueError or TypeError for no fault, no probability, or more than 1 in all.
        """
        return MappingProxyType(self._faults)

    @faults.setter
    def faults(self, faults: Mapping[Fault, float] | None) -> None:
        self._faults = check_faults(faults)

    def busiest_second(self) -> int:
        """Count the most requests that arrived within one second of the loop, end excluded."""
        most = first = 0
        for last, asked in enumerate(self._log):
            while asked.at - self._log[first].at >= 1.0:
                first += 1
            most = max(most, last - first + 1)
        return most

    def add(
        self,
        task_id: str | None = None,
        *,
        duration: float = 0.0,
        ends: Ends = "completed",
        queued: float = 0.0,
        visible_after: float = 0.0,
        link_after: float = 0.0,
        failure_reason: str = "Advanced moderation failed",
    ) -> str:
        """Submit a task now and give back its id, a new UUID if none is given.

        It is pending for `queued` seconds, then processing until `duration` seconds from now, then
        ends as `ends` says. The relay does not know it before `visible_after` seconds from now; a
        completed one has no link until `link_after` seconds after its end. ValueError if the id is
        here already.
        """
        return self._play.add(
            task_id,
            self._now(),
            duration=duration,
            ends=ends,
            queued=queued,
            visible_after=visible_after,
            link_after=link_after,
            failure_reason=failure_reason,
        )

    def finish(self, task_id: str, ends: Literal["completed", "failed"] = "completed") -> None:
        """End a task now, whatever its script says; ValueError if it is not here or has ended."""
        self._play.finish(task_id, ends, self._now())

    def forget(self, task_id: str) -> None:
        """Lose a task: the relay no longer knows it; ValueError if it never did."""
        self._play.forget(task_id)

    def reply(self, *replies: Reply, on: Call | None = None) -> None:
        """Answer the next requests with these, verbatim and once each, instead of the play.

        With `on`, only requests of that call take them: "get" (single) or "tasks" (batch). They
        wait in one queue; a request takes the first that may be its. The key is not looked at.
        """
        if on not in (None, "get", "tasks"):
            raise ValueError(f'on is {on!r}: say "get", "tasks" or None')
        for reply in replies:
            if not isinstance(reply, Reply):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"a reply is a {type(reply).__name__}: wrap it in Reply")
            self._scripted.append((on, reply))

    async def _answer(self, method: str, path: str, authorization: str, body: bytes) -> Reply:
        call, ids = self._read(method, path, body)
        asked = Asked(self._now(), method, path, self._play.same(ids or ()))
        reply, asked = self._decide(call, ids, asked, authorization)
        place = len(self._log)
        self._log.append(asked)
        if reply.delay:
            await asyncio.sleep(reply.delay)
        self._log[place] = replace(asked, status=status_sent(reply))
        return reply

    def _read(
        self, method: str, path: str, body: bytes
    ) -> tuple[Call | None, tuple[str, ...] | None]:
        """Tell which call a request is, and the ids it asks about; None where it cannot be told."""
        route = path.removeprefix(self._prefix) if path.startswith(self._prefix) else ""
        if method == "POST" and route == _BATCH:
            return "tasks", _ids(body)
        task_id = route.removeprefix(_SINGLE)
        if method == "GET" and route.startswith(_SINGLE) and task_id and "/" not in task_id:
            return "get", (unquote(task_id),)
        return None, None

    def _decide(
        self, call: Call | None, ids: tuple[str, ...] | None, asked: Asked, authorization: str
    ) -> tuple[Reply, Asked]:
        """Choose what answers a request: the scripted reply that is due, or else the play.

        One roll chooses the fault and is the seed of its details, so that what befalls a request
        does not depend on what was asked before it.
        """
        for place, (on, reply) in enumerate(self._scripted):
            if on is None or on == call:
                del self._scripted[place]
                return broken(reply, reply.breakage), replace(asked, fault=reply.breakage)
        if call is None:
            body = shapes.no_such_route(asked.method, asked.path)
            return Reply(404, body, delay=self._latency), asked
        roll = self._dice.random()
        fault, dice = choose(self._faults, roll), random.Random(roll)  # noqa: S311
        asked = replace(asked, fault=fault)
        if fault == "stale" and ids:
            ids = remembered(ids, dice) if call == "tasks" else ()
        status, body = self._perform(call, ids, asked, authorization)
        reply = Reply(status, body, delay=self._latency)
        headers = {**reply.headers, "Date": self._play.date(asked.at)}
        return spoiled(replace(reply, headers=headers), fault, dice), asked

    def _perform(
        self, call: Call, ids: tuple[str, ...] | None, asked: Asked, authorization: str
    ) -> tuple[int, bytes]:
        if authorization != f"Bearer {self.api_key}":
            return 401, shapes.BAD_KEY
        if ids is None:
            return 400, shapes.BAD_BODY
        if call == "tasks":
            strangers = asked.fault == "strangers"
            return 200, self._play.get_many(ids, asked.at, strangers=strangers)
        found = self._play.get(ids[0], asked.at) if ids else None
        return (400, shapes.UNKNOWN) if found is None else (200, found)

    def _now(self) -> float:
        try:
            return (self._loop or asyncio.get_running_loop()).time()
        except RuntimeError:
            raise RuntimeError("no event loop runs, so no clock: call from a coroutine") from None

    def __repr__(self) -> str:
        where = self._url or "not started"
        tasks = len(self._play.tasks)
        ended = self._play.ended(self._now()) if self._loop else 0
        return f"<FakeRelay {where}: {tasks - ended} open, {ended} ended, {self.requests} requests>"


def _ids(body: bytes) -> tuple[str, ...] | None:
    try:
        return tuple(_decode_batch(body).ids)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
