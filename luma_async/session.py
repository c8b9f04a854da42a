"""LumaSession: the public API."""

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self, overload

import anyio

from luma_async import validation as checks
from luma_async.polling.admission import session_closed
from luma_async.polling.direct import DirectClient
from luma_async.polling.following import Following
from luma_async.polling.hooks import ChangeEvent, RequestEvent, hook_of, instrumented
from luma_async.polling.interfaces import Budget, checked_budget
from luma_async.polling.iterator import Reader
from luma_async.polling.poller import Poller
from luma_async.polling.stats import Stats
from luma_async.polling.submit_calls import SubmitCalls
from luma_async.polling.submitting import Submitter
from luma_async.polling.wait import Notify, Wait
from luma_async.recording.recorder import recorder_of
from luma_async.scheduling.changes import checked_grace
from luma_async.scheduling.pace import Learned, Pace
from luma_async.scheduling.slots import SHARED_SECOND, Slots
from luma_async.scheduling.throttle import Limits
from luma_async.structs import Generation
from luma_async.transport import Transport

if TYPE_CHECKING:
    import aiohttp


class LumaSession(SubmitCalls):
    """A session with one relay: submit tasks, and wait for any number of them at the same time.

    Use it as an async context manager: `async with LumaSession(…) as luma`. All calls share one
    poller and the limits of the session. Use a session only in the event loop that entered it.

    `base_url` is the address of the relay without `/luma`, such as "https://relay.example"; it may
    have a path before that. The default is the environment variable LUMA_BASE_URL; that of
    `api_key` is LUMA_API_KEY. `http` is the caller's own aiohttp.ClientSession, by default a new
    one: the session never closes it, and uses only its connections. `pace` decides when tasks are
    polled; `limits` bounds the requests. `proxy` is the URL of an HTTP proxy.

    Four times, in seconds: `request_timeout` limits one HTTP request, `submit_timeout` one that
    submits a task. `missing_grace` is how long an id that the relay does not know is polled before
    it counts as missing. `link_grace` is how long a completed task without a link is polled.

    `on_request` is called with a RequestEvent after each HTTP request. `on_change` is called with a
    ChangeEvent at each change of state of an id that a wait watches: once, even if several waits
    watch it; `get`, `get_many` and waits with a `timeout` of 0 do not call it. Both are plain
    functions, called in the event loop; they must not block. If they raise an exception, it is
    logged once and then ignored.

    `record` is a file that receives each distinct shape of response once, without secrets; None
    for no file. Entering the session replaces it, and raises OSError if it cannot be written.
    `budget` makes `limits.max_rate` the total of all sessions that share it, such as a SharedBudget
    of `luma_async.worker`; `max_in_flight` stays a limit of each.

    Raises ValueError or TypeError for invalid arguments.
    """

    _poller: Poller | None = None
    _closed = False

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        http: "aiohttp.ClientSession | None" = None,
        pace: Pace = Learned(5.0),
        limits: Limits = Limits(),
        request_timeout: float = 30.0,
        submit_timeout: float = 120.0,
        missing_grace: float = 30.0,
        link_grace: float = 60.0,
        proxy: str | None = None,
        on_request: Callable[[RequestEvent], object] | None = None,
        on_change: Callable[[ChangeEvent], object] | None = None,
        budget: Budget | None = None,
        record: str | os.PathLike[str] | None = None,
    ) -> None:
        self._base_url = checks.base_url(_or_environ(base_url, "LUMA_BASE_URL"))
        self._pace = checks.instance("pace", pace, Pace, "such as Every(5.0)")
        self._limits = checks.instance("limits", limits, Limits, "Limits(…)")
        self._request_timeout = checks.positive("request_timeout", request_timeout)
        self._submit_timeout = checks.positive("submit_timeout", submit_timeout)
        self._grace = checked_grace(missing_grace, link_grace)
        key = checks.api_key(_or_environ(api_key, "LUMA_API_KEY"))
        self._account = hashlib.sha256(f"{self._base_url}\n{key}".encode()).hexdigest()
        self._budget = checked_budget(budget, self._limits)
        self._transport = Transport(
            self._base_url,
            key,
            http=http,
            request_timeout=self._request_timeout,
            submit_timeout=self._submit_timeout,
            max_body=self._limits.max_body,
            proxy=None if proxy is None else checks.http_url("proxy", proxy, plain=False),
        )
        self._relay = instrumented(self._transport, on_request)
        self._on_change = hook_of("on_change", on_change)
        self._shared = AsyncExitStack()
        self._recorder = recorder_of(record, self._base_url, key, proxy)

    async def __aenter__(self) -> Self:
        if self._closed:
            raise session_closed()
        if self._poller is not None:
            raise RuntimeError("the session is already entered; enter it once")
        slots = None if self._budget is None else Slots()
        await self._transport.__aenter__()
        self._poller = poller = Poller(
            self._relay,
            self._pace,
            self._limits,
            self._grace,
            request_timeout=self._request_timeout,
            on_change=self._on_change,
            slots=slots,
        )
        try:
            await self._enter_shared(slots)
        except BaseException:
            await self.close()
            raise
        # The poller makes a new scheduler after an unexpected error.
        self._transport.open_ids_like = lambda name: poller.scheduler.ids_like(name)  # noqa: PLW0108
        return self

    async def _enter_shared(self, slots: Slots | None) -> None:
        """Start the recorder, and join the shared budget."""
        if self._recorder is not None:
            recorder = await self._shared.enter_async_context(self._recorder)
            self._transport.observer = recorder.observe
        if self._budget is not None and slots is not None:
            spacing = SHARED_SECOND / self._limits.max_rate
            await self._shared.enter_async_context(
                self._budget.share(self._account, slots, spacing)
            )

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the session: abort all waits and requests, and close its connections.

        Pending waits raise WaitAborted; pending calls of `get` and `get_many` raise SessionClosed.
        A second call does nothing. Raises RuntimeError in another process, thread or event loop
        than that of the session.
        """
        if self._poller is not None:
            self._poller.affinity.check()
        self._closed = True
        if self._poller is not None:
            closing = asyncio.ensure_future(self._shut_down(self._poller))
            with anyio.CancelScope(shield=True):
                try:
                    await asyncio.shield(closing)
                except asyncio.CancelledError:
                    await closing
                    raise

    async def _shut_down(self, poller: Poller) -> None:
        try:
            await poller.close()
            await self._shared.aclose()
        finally:
            await self._transport.__aexit__(None, None, None)

    async def get(self, task_id: str) -> Generation:
        """Return the current Generation of one task; do not wait for it.

        A request with a transient error is sent up to three times. Raises NotFoundError if the
        relay does not know the task, and another LumaError if the request fails.
        """
        poller = self._ready()
        return await DirectClient(poller, self._relay).get(checks.task_id(task_id))

    async def get_many(self, ids: Iterable[str]) -> dict[str, Generation]:
        """Return the current Generations of many tasks, by id; do not wait for them.

        One request contains up to `Limits.max_batch` ids. The dict is in the order of `ids`; ids
        that the relay does not know are left out. Raises a LumaError if a request fails.
        """
        poller = self._ready()
        task_ids = checks.task_ids(ids)
        found: dict[str, Generation] = {}
        await DirectClient(poller, self._relay).get_many(task_ids, found)
        return {task_id: found[task_id] for task_id in task_ids if task_id in found}

    def _submitter(self) -> Submitter:
        return Submitter(self._ready(), self._relay, self._submit_timeout)

    async def _wait_for(self, task_id: str, timeout: float | None) -> Generation:
        return await self.wait_until_done(task_id, timeout=timeout)

    @overload
    async def wait_until_done(  # type: ignore[overload-overlap]  # a str is one id
        self, ids: str, *, timeout: float | None = 1800.0
    ) -> Generation: ...
    @overload
    async def wait_until_done(
        self, ids: Iterable[str], *, timeout: float | None = 1800.0
    ) -> dict[str, Generation]: ...
    async def wait_until_done(
        self, ids: str | Iterable[str], *, timeout: float | None = 1800.0
    ) -> Generation | dict[str, Generation]:
        """Wait until all tasks are completed or failed.

        Returns one Generation if `ids` is a str, otherwise a dict in the order of `ids`. A failed
        task is returned, not raised; see `Generation.raise_for_failed`. `timeout` limits the whole
        wait, in seconds; None is no limit, and 0 polls each task once.

        Raises a WaitIncomplete, which contains the tasks that are done, pending and missing:
        WaitTimeout after `timeout`; WaitAborted if the relay rejects the API key, its quota is used
        up, the base URL leads to no relay for a minute, or the session is closed;
        GenerationsMissing if the relay does not know some of the ids.
        Requests with any other error are retried until the timeout.
        """
        wait = self._wait(ids, timeout, Notify.NOTHING)
        try:
            await wait.start()
            await wait.wait_for_news()
        finally:
            wait.stop()
        result = await wait.result()
        return result[ids] if isinstance(ids, str) else result

    def as_completed(self, ids: Iterable[str], *, timeout: float | None = 1800.0) -> Reader:
        """Iterate over the tasks in the order in which they are completed or failed.

        Each task is returned once. `timeout` and the errors are those of `wait_until_done`; of the
        tasks that were returned, `done` of an error has id, state, `url` and `failure_reason` only.
        The wait starts with the first step of the iteration, not with this call. Invalid ids raise
        at this call; only those after the first 2,000 ids raise at the first step.
        """
        return Reader(self._wait(ids, timeout, Notify.ENDS))

    def watch(self, ids: Iterable[str], *, timeout: float | None = 1800.0) -> Reader:
        """Iterate over the changes of state until all tasks are completed or failed.

        The first state of each task is a change, too. `timeout` and the errors are those of
        `as_completed`. The wait starts with the first step of the iteration.
        """
        return Reader(self._wait(ids, timeout, Notify.CHANGES))

    def follow(self, *, last_seen: bool = True) -> Following:
        """Return a wait to which ids can be added at any time; iterate over it for the results.

        It has no timeout. An id that the relay does not know is a result, too; see `Ended`. With
        `last_seen=False` the session does not keep the last response about each open id, which
        saves the memory for its text; `Following.drop` then returns ids and states only.
        """
        return Following(self._ready(), last_seen=last_seen)

    def _wait(self, ids: Iterable[str], timeout: float | None, notify: Notify) -> Wait:
        poller = self._ready()
        return Wait(poller, self._relay, ids, checks.timeout(timeout), notify)

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters of the session and of the open ids."""
        return self._poller.snapshot() if self._poller else Stats()

    @property
    def link_grace(self) -> float:
        """The `link_grace` of the session, in seconds; a Downloader uses it, too."""
        return self._grace.link

    def __repr__(self) -> str:
        if self._closed:
            state = "closed"
        elif self._poller is None:
            state = "not entered"
        else:
            state = self.stats.now
        return f"<LumaSession {self._base_url}: {state}>"

    def _ready(self) -> Poller:
        if self._closed:
            raise session_closed()
        if self._poller is None:
            raise RuntimeError(
                "the session is not entered; use `async with LumaSession(…) as luma`"
            )
        self._poller.affinity.check()
        return self._poller


def _or_environ(value: str | None, name: str) -> str | None:
    return os.environ.get(name) if value is None else value
