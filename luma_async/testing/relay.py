"""A relay to try things on: a real HTTP server on loopback that plays its calls from a script."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Self, get_args
from urllib.parse import unquote

import msgspec

from luma_async.testing import bodies as shapes
from luma_async.testing import media
from luma_async.testing import submissions as submission
from luma_async.testing.faults import (
    broken,
    check_faults,
    choose,
    remembered,
    spoiled,
    status_sent,
)
from luma_async.testing.simulation import Envelope, Simulation
from luma_async.testing.types import (
    Asked,
    Ends,
    Fault,
    IncomingRequest,
    Reply,
    Task,
    check_key,
    check_port,
    check_prefix,
    seconds,
)

if TYPE_CHECKING:
    from luma_async.testing.server import Server

Call = Literal["get", "tasks", "submit", "media"]

_CALLS = get_args(Call)
_SUBMIT = "/luma/generations"
_SINGLE = "/luma/generations/"
_BATCH = "/luma/tasks"


class _Batch(msgspec.Struct):
    ids: list[str]


_decode_batch = msgspec.json.Decoder(_Batch).decode


class FakeRelay:
    """A Luma relay on 127.0.0.1 that plays `GET /luma/generations/ID` and `POST /luma/tasks`.

    Tasks are submitted by `add`, each with a script, or by clients: `POST /luma/generations` with
    `{"prompt": …, "aspect_ratio": …}`. Those take seconds from `durations` (least, most), and the
    share `fails` of them fails. The links of what is completed work: `/media/ID.mp4` is a clip,
    `/media/ID.svg` a picture, and no key is needed.

    An async context manager; or call `start` and `close`. All times are seconds of the running
    event loop, so virtual time works. An answer of the play tells what was so when its request
    arrived, and leaves `latency` seconds later. `envelope` is "bare" (task objects as the upstream
    sends them) or "wrapped" (rows of the relay's own table). Port 0 takes a free one. The ids that
    `add` makes depend on `seed` alone, and so do the dice that decide which requests the `faults`
    hit, and what becomes of what clients submit. ValueError or TypeError for arguments that make
    no sense.
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
        durations: tuple[float, float] = (0.0, 0.0),
        fails: float = 0.0,
    ) -> None:
        self.api_key: str = check_key(api_key)
        self._play = Simulation(envelope, seed, submission.Outcomes(durations, fails))
        self._latency = seconds("latency", latency)
        self._prefix = check_prefix(path_prefix)
        self._host = host
        self._port = check_port(port)
        self._faults = check_faults(faults)
        self._dice = random.Random(f"faults of {seed}")  # noqa: S311 - faults that repeat
        self._scripted: list[tuple[Call | None, Reply]] = []
        self._log: list[Asked] = []
        self._media_log: list[Asked] = []
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
        self._play.move(self._url)

    async def close(self) -> None:
        """Stop listening and drop every connection; what was under way gets no answer."""
        server, self._server = self._server, None
        if server is not None:
            await server.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
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
        """One record for each request so far, in order of arrival, media left out: a copy."""
        return self._log.copy()

    @property
    def media_log(self) -> list[Asked]:
        """One record for each request for a file so far, in order of arrival: a copy."""
        return self._media_log.copy()

    @property
    def requests(self) -> int:
        """How many requests have arrived, those for files left out."""
        return len(self._log)

    @property
    def faults(self) -> Mapping[Fault, float]:
        """The probability of each fault, rolled once for each request that asks about tasks.

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
        prompt: str = submission.PROMPT,
        aspect_ratio: str = submission.ASPECT_RATIO,
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
            prompt=prompt,
            aspect_ratio=aspect_ratio,
        )

    def submit(
        self, prompt: str = submission.PROMPT, aspect_ratio: str = submission.ASPECT_RATIO
    ) -> str:
        """Submit a task now as a client would, and give back its id; the dice choose its fate."""
        return self._play.submit(prompt, aspect_ratio, self._now())

    def finish(self, task_id: str, ends: Literal["completed", "failed"] = "completed") -> None:
        """End a task now, whatever its script says; ValueError if it is not here or has ended."""
        self._play.finish(task_id, ends, self._now())

    def forget(self, task_id: str) -> None:
        """Lose a task: the relay no longer knows it; ValueError if it never did."""
        self._play.forget(task_id)

    def reply(self, *replies: Reply, on: Call | None = None) -> None:
        """Answer the next requests with these, verbatim and once each, instead of the play.

        With `on`, only requests of that call take them: "get" (single), "tasks" (batch), "submit",
        or "media"; a request for a file takes no others. They wait in one queue; a request takes
        the first that may be its. The key is not looked at.
        """
        if on is not None and on not in _CALLS:
            known = ", ".join(f'"{call}"' for call in _CALLS)
            raise ValueError(f"on is {on!r}: say {known} or None")
        for reply in replies:
            if not isinstance(reply, Reply):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"a reply is a {type(reply).__name__}: wrap it in Reply")
            self._scripted.append((on, reply))

    async def _answer(self, incoming: IncomingRequest) -> Reply:
        call, ids = self._read(incoming)
        known = self._play.same(ids or ())
        asked = Asked(self._now(), incoming.method, incoming.path, known)
        reply, asked = self._decide(call, ids, asked, incoming)
        log = self._media_log if call == "media" else self._log
        place = len(log)
        log.append(asked)
        if reply.delay:
            await asyncio.sleep(reply.delay)
        log[place] = replace(asked, status=status_sent(reply))
        return reply

    def _read(self, incoming: IncomingRequest) -> tuple[Call | None, tuple[str, ...] | None]:
        """Tell which call a request is, and the ids it asks about; None where it cannot be told."""
        method, path, _, body = incoming
        route = path.removeprefix(self._prefix) if path.startswith(self._prefix) else ""
        if method == "POST" and route == _BATCH:
            return "tasks", _ids(body)
        if method == "POST" and route == _SUBMIT:
            return "submit", None
        task_id = route.removeprefix(_SINGLE)
        if method == "GET" and route.startswith(_SINGLE) and task_id and "/" not in task_id:
            return "get", (unquote(task_id),)
        if method in ("GET", "HEAD") and (named := media.named(route)):
            return "media", named[:1]
        return None, None

    def _decide(
        self,
        call: Call | None,
        ids: tuple[str, ...] | None,
        asked: Asked,
        incoming: IncomingRequest,
    ) -> tuple[Reply, Asked]:
        """Choose what answers a request: the scripted reply that is due, or else the play."""
        for place, (on, reply) in enumerate(self._scripted):
            if on == call or (on is None and call != "media"):
                del self._scripted[place]
                return broken(reply, reply.breakage), replace(asked, fault=reply.breakage)
        match call:
            case None:
                body = shapes.no_such_route(asked.method, asked.path)
                return Reply(404, body, delay=self._latency), asked
            case "media":
                return self._file(asked, incoming), asked
            case "submit":
                return self._submit(asked, incoming)
            case "get" | "tasks":
                return self._tell(call, ids, asked, incoming)

    def _file(self, asked: Asked, incoming: IncomingRequest) -> Reply:
        (task_id,) = asked.ids
        if not self._play.shows(task_id, asked.at):
            return Reply(404, b"no such file\n", {"Content-Type": "text/plain"})
        kind: media.Kind = "mp4" if asked.path.endswith(".mp4") else "svg"
        return media.reply(task_id, kind, asked.method, incoming.headers)

    def _submit(self, asked: Asked, incoming: IncomingRequest) -> tuple[Reply, Asked]:
        if not self._admits(incoming):
            return Reply(401, shapes.BAD_KEY, delay=self._latency), asked
        try:
            wanted = submission.read(incoming.body)
        except ValueError as error:
            return Reply(400, shapes.bad_request(str(error)), delay=self._latency), asked
        task_id = self._play.submit(wanted.prompt, wanted.aspect_ratio, asked.at)
        body = self._play.get(task_id, asked.at) or b""
        return Reply(200, body, delay=self._latency), replace(asked, ids=(task_id,))

    def _tell(
        self,
        call: Literal["get", "tasks"],
        ids: tuple[str, ...] | None,
        asked: Asked,
        incoming: IncomingRequest,
    ) -> tuple[Reply, Asked]:
        """Answer a question about tasks, soundly or as the dice want it.

        One roll chooses the fault and is the seed of its details, so that what befalls a request
        does not depend on what was asked before it.
        """
        roll = self._dice.random()
        fault, dice = choose(self._faults, roll), random.Random(roll)  # noqa: S311
        asked = replace(asked, fault=fault)
        if fault == "stale" and ids:
            ids = remembered(ids, dice) if call == "tasks" else ()
        status, body = self._perform(call, ids, asked, incoming)
        reply = Reply(status, body, delay=self._latency)
        headers = {**reply.headers, "Date": self._play.date(asked.at)}
        return spoiled(replace(reply, headers=headers), fault, dice), asked

    def _perform(
        self,
        call: Literal["get", "tasks"],
        ids: tuple[str, ...] | None,
        asked: Asked,
        incoming: IncomingRequest,
    ) -> tuple[int, bytes]:
        if not self._admits(incoming):
            return 401, shapes.BAD_KEY
        if ids is None:
            return 400, shapes.bad_request("ids: a list of texts is needed")
        if call == "tasks":
            strangers = asked.fault == "strangers"
            return 200, self._play.get_many(ids, asked.at, strangers=strangers)
        found = self._play.get(ids[0], asked.at) if ids else None
        return (400, shapes.UNKNOWN) if found is None else (200, found)

    def _admits(self, incoming: IncomingRequest) -> bool:
        return incoming.headers.get("Authorization", "") == f"Bearer {self.api_key}"

    def _now(self) -> float:
        try:
            return (self._loop or asyncio.get_running_loop()).time()
        except RuntimeError:
            raise RuntimeError("no event loop runs, so no clock: call from a coroutine") from None

    def __repr__(self) -> str:
        where = self._url or "not started"
        tasks = len(self._play.tasks)
        ended = self._play.has_ended(self._now()) if self._loop else 0
        return f"<FakeRelay {where}: {tasks - ended} open, {ended} ended, {self.requests} requests>"


def _ids(body: bytes) -> tuple[str, ...] | None:
    try:
        return tuple(_decode_batch(body).ids)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
