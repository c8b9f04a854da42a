"""FakeRelay: a relay for tests, which is a real HTTP server with simulated tasks."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Self

from luma_async.testing.faults import check_faults, sent_status
from luma_async.testing.loop_clock import LoopClock
from luma_async.testing.responder import Responder
from luma_async.testing.scripting import Scripting
from luma_async.testing.scripts import MODERATED
from luma_async.testing.simulation import Envelope, Simulation
from luma_async.testing.submissions import ASPECT_RATIO, PROMPT, Outcomes
from luma_async.testing.submit_faults import (
    check_submit_faults,
    check_submit_shape,
)
from luma_async.testing.types import (
    Asked,
    Fault,
    IncomingRequest,
    Reply,
    SubmitFault,
    SubmitShape,
    Task,
    TaskEnd,
    busiest_second,
    check_key,
    check_port,
    check_prefix,
    seconds,
)

if TYPE_CHECKING:
    from luma_async.testing.server import Server


class FakeRelay(Scripting):
    """A relay on 127.0.0.1 for tests: a real HTTP server with simulated tasks.

    It answers `GET /luma/generations/ID` and `POST /luma/tasks`. Use it as an async context
    manager, or call `start` and `close`. Tasks are added by `add`, each with a script, or by
    clients with `POST /luma/generations` or `POST /luma/generations/ID/extend`, and
    `{"user_prompt": …, "aspect_ratio": …}`; `created` has those. The duration of such a task is
    random within `durations` (shortest, longest), and the share `fails` of them fails. The links of
    completed tasks work without a key: `/media/ID.mp4` is a video, `/media/ID.svg` an image.

    All times are in seconds of the running event loop, so virtual time works. A reply contains the
    states at the arrival of the request, and is sent `latency` seconds later. `envelope` is "bare"
    (task objects as Luma sends them) or "wrapped" (rows of the relay's own table). `path_prefix` is
    the path of the base URL, such as "/pro". `port` 0 chooses a free port. `faults` maps the names
    of faults to their probabilities; see the property `faults`. `submit_faults` does the same for
    submissions, and `submit_shape` is the shape of the responses to them: "task", "array",
    "task_id", "data" or "data_text". All random values depend on `seed`
    alone: the ids that `add` creates, the requests that meet a fault, and the outcomes of
    submitted tasks. With `assert_all_used`, the end of the `async with` block calls the method of
    that name, unless an exception leaves the block.

    Raises ValueError or TypeError for invalid arguments.
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
        submit_faults: Mapping[SubmitFault, float] | None = None,
        submit_shape: SubmitShape = "task",
        assert_all_used: bool = False,
    ) -> None:
        key = check_key(api_key)
        self._simulation = Simulation(envelope, seed, Outcomes(durations, fails))
        self._responder = Responder(
            self._simulation,
            api_key=key,
            latency=seconds("latency", latency),
            path_prefix=check_prefix(path_prefix),
            seed=seed,
            faults=check_faults(faults),
            submit_faults=check_submit_faults(submit_faults),
            submit_shape=check_submit_shape(submit_shape),
        )
        self._host = host
        self._port = check_port(port)
        self._log: list[Asked] = []
        self._media_log: list[Asked] = []
        self._clock = LoopClock()
        self._asserts_all_used = assert_all_used
        self._server: Server | None = None
        self._url: str | None = None

    async def start(self) -> None:
        """Start listening.

        Raises RuntimeError if the relay is started already, and OSError if the address is in use.
        """
        if self._server is not None:
            raise RuntimeError("this FakeRelay is started already: close it first")
        from luma_async.testing.server import Server

        server = Server(self._handle)
        port = await server.start(self._host, self._port)
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._server = server
        self._clock.start()
        self._url = f"http://{host}:{port}{self._responder.path_prefix}"
        self._simulation.set_base_url(self._url)

    async def close(self) -> None:
        """Stop listening, and close all connections; pending requests get no response."""
        server, self._server = self._server, None
        self._clock.stop()
        if server is not None:
            await server.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
        self._check_use(error)

    def _check_use(self, error: Sequence[object]) -> None:
        """Check that all scripted answers were used, at the end of a block without an error."""
        if self._asserts_all_used and error[0] is None:
            self.assert_all_used()

    @property
    def url(self) -> str:
        """The base URL, with the prefix, without a trailing slash.

        Raises RuntimeError before `start`, and in another loop while the loop of the relay rests.
        """
        self._clock.check()
        if self._url is None:
            raise RuntimeError("this FakeRelay has no URL yet: start it, or enter it, first")
        return self._url

    @property
    def api_key(self) -> str:
        """The API key that requests must have; it can be set."""
        return self._responder.api_key

    @api_key.setter
    def api_key(self, api_key: str) -> None:
        self._responder.api_key = api_key

    @property
    def tasks(self) -> Mapping[str, Task]:
        """All tasks by their id, in the order of submission: a live view."""
        return MappingProxyType(self._simulation.tasks)

    @property
    def log(self) -> list[Asked]:
        """A copy of the log: one record per request, in order of arrival, without media files."""
        return self._log.copy()

    @property
    def media_log(self) -> list[Asked]:
        """A copy of the log of the media files: one record per request, in order of arrival."""
        return self._media_log.copy()

    @property
    def requests(self) -> int:
        """The number of requests that arrived, without those for media files."""
        return len(self._log)

    @property
    def faults(self) -> Mapping[Fault, float]:
        """The probability of each fault, for requests for tasks (single GET and batch POST).

        Set it to change the faults from the next request on; None is no faults. Scripted replies
        meet no fault. Setting it raises ValueError or TypeError for an unknown fault, an invalid
        probability, or a sum of more than 1.
        """
        return MappingProxyType(self._responder.faults)

    @faults.setter
    def faults(self, faults: Mapping[Fault, float] | None) -> None:
        self._responder.faults = check_faults(faults)

    @property
    def submit_faults(self) -> Mapping[SubmitFault, float]:
        """The probability of each fault of submissions.

        A task is made, and its response is lost ("lost_after", "cut_after"), late for ever
        ("silent_after"), a 504 of a proxy ("gateway_timeout_after") or the relay's own 500
        ("insert_failed_after"). The request is lost, and no task is made ("lost_before"). The relay
        refuses: "saturated" (429), "no_channel" (503), "quota" (401), "moderated" (400), and
        "double_document" (400 with two JSON documents). It can be set, as `faults`.
        """
        return MappingProxyType(self._responder.submit_faults)

    @submit_faults.setter
    def submit_faults(self, submit_faults: Mapping[SubmitFault, float] | None) -> None:
        self._responder.submit_faults = check_submit_faults(submit_faults)

    @property
    def created(self) -> list[str]:
        """A copy of the ids of all tasks that clients submitted over HTTP: what is paid for."""
        return self._simulation.created.copy()

    def busiest_second(self) -> int:
        """Return the largest number of requests within one second, its end excluded."""
        return busiest_second(self._log)

    def add(
        self,
        task_id: str | None = None,
        *,
        duration: float = 0.0,
        ends: TaskEnd = "completed",
        queued: float = 0.0,
        visible_after: float = 0.0,
        link_after: float = 0.0,
        failure_reason: str = MODERATED,
        prompt: str = PROMPT,
        aspect_ratio: str = ASPECT_RATIO,
    ) -> str:
        """Add a task, submitted now, and return its id; a new UUID if `task_id` is None.

        It is pending for `queued` seconds, then processing until `duration` seconds from now, then
        completed or failed, as `ends` says; with `ends="never"` it stays processing. The relay does
        not know it before `visible_after` seconds from now. A completed task has no link until
        `link_after` seconds later. `failure_reason` is that of a failed task.

        Raises ValueError or TypeError for invalid arguments, and ValueError if the id exists.
        """
        return self._simulation.add(
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

    def submit(self, prompt: str = PROMPT, aspect_ratio: str = ASPECT_RATIO) -> str:
        """Submit a task now, like a client, and return its id; `script` says what it becomes."""
        return self._simulation.submit(prompt, aspect_ratio, self._now())

    def finish(self, task_id: str, ends: Literal["completed", "failed"] = "completed") -> None:
        """Complete or fail a task now, whatever its script is.

        Raises ValueError if the task is unknown, or completed or failed already.
        """
        self._simulation.finish(task_id, ends, self._now())

    def forget(self, task_id: str) -> None:
        """Remove a task: the relay no longer knows it; raise ValueError if it is unknown."""
        self._simulation.forget(task_id)

    async def _handle(self, request: IncomingRequest) -> Reply:
        endpoint, reply, record = self._responder.respond(request, self._now())
        log = self._media_log if endpoint == "media" else self._log
        index = len(log)
        log.append(record)
        if reply.delay:
            await asyncio.sleep(reply.delay)
        log[index] = replace(record, status=sent_status(reply))
        return reply

    def _now(self) -> float:
        self._clock.check()
        return self._clock.now()

    def __repr__(self) -> str:
        where = self._url or "not started"
        done = self._simulation.done_count(self._clock.now()) if self._url else 0
        open_ = len(self._simulation.tasks) - done
        return f"<FakeRelay {where}: {open_} open, {done} ended, {self.requests} requests>"
