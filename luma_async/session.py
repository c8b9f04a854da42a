"""LumaSession: the public API."""

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Self, overload

import anyio
import anyio.to_thread

from luma_async import validation as checks
from luma_async.polling.admission import session_closed
from luma_async.polling.direct import DirectClient
from luma_async.polling.following import Following
from luma_async.polling.hooks import ChangeEvent, Hook, InstrumentedRelay, RequestEvent
from luma_async.polling.interfaces import Relay
from luma_async.polling.iterator import Reader
from luma_async.polling.poller import Poller
from luma_async.polling.stats import Stats
from luma_async.polling.wait import Notify, Wait
from luma_async.recording.recorder import Recorder, secrets_of
from luma_async.scheduling.changes import Grace
from luma_async.scheduling.pace import Learned, Pace
from luma_async.scheduling.throttle import Limits
from luma_async.structs import Generation
from luma_async.transport import Transport

if TYPE_CHECKING:
    import aiohttp


class LumaSession:
    """A session with one relay: get tasks, and wait for any number of tasks at the same time.

    Use it as an async context manager: `async with LumaSession(…) as luma`. All calls share one
    poller and the limits of the session. Use a session only in the event loop that entered it.

    `base_url` may have a path; the default is the environment variable LUMA_BASE_URL. The default
    of `api_key` is LUMA_API_KEY. `http` is the caller's own aiohttp.ClientSession, by default a new
    one: the session never closes it, and uses only its connections. `pace` decides when tasks are
    polled; `limits` bounds the requests. `proxy` is the URL of an HTTP proxy.

    Three times, in seconds: `request_timeout` limits one HTTP request. `missing_grace` is how long
    an id that the relay does not know is polled before it counts as missing. `link_grace` is how
    long a completed task without a link is polled.

    `on_request` is called with a RequestEvent after each HTTP request. `on_change` is called with a
    ChangeEvent at each change of state of an id that a wait watches: once, even if several waits
    watch it; `get`, `get_many` and waits with a `timeout` of 0 do not call it. Both are plain
    functions, called in the event loop; they must not block. If they raise an exception, it is
    logged once and then ignored.

    `record` is a file that receives each distinct shape of response once, without secrets
    (docs/redaction.md); entering the session empties it, and raises OSError if it cannot be
    written. The default, None, records nothing.

    Raises ValueError or TypeError for invalid arguments.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        http: "aiohttp.ClientSession | None" = None,
        pace: Pace = Learned(5.0),
        limits: Limits = Limits(),
        request_timeout: float = 30.0,
        missing_grace: float = 30.0,
        link_grace: float = 60.0,
        proxy: str | None = None,
        on_request: Callable[[RequestEvent], object] | None = None,
        on_change: Callable[[ChangeEvent], object] | None = None,
        record: str | os.PathLike[str] | None = None,
    ) -> None:
        self._base_url = checks.base_url(
            os.environ.get("LUMA_BASE_URL") if base_url is None else base_url
        )
        self._pace = checks.instance("pace", pace, Pace, "such as Every(5.0)")
        self._limits = checks.instance("limits", limits, Limits, "Limits(…)")
        self._request_timeout = checks.positive("request_timeout", request_timeout)
        self._grace = Grace(
            missing=checks.not_negative("missing_grace", missing_grace),
            link=checks.not_negative("link_grace", link_grace),
        )
        self._transport = Transport(
            self._base_url,
            checks.api_key(os.environ.get("LUMA_API_KEY") if api_key is None else api_key),
            http=http,
            request_timeout=self._request_timeout,
            max_body=self._limits.max_body,
            proxy=None if proxy is None else checks.http_url("proxy", proxy, plain=False),
        )
        self._relay: Relay = self._transport
        if (request_hook := checks.hook("on_request", on_request)) is not None:
            self._relay = InstrumentedRelay(self._transport, Hook("on_request", request_hook))
        change_hook = checks.hook("on_change", on_change)
        self._on_change = None if change_hook is None else Hook("on_change", change_hook)
        self._recorder = None if record is None else self._recorder_of(record, api_key, proxy)
        self._poller: Poller | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        if self._closed:
            raise session_closed()
        if self._poller is not None:
            raise RuntimeError("the session is already entered; enter it once")
        if self._recorder is not None:
            await anyio.to_thread.run_sync(self._recorder.start)
            self._transport.observer = self._recorder.observe
        await self._transport.__aenter__()
        self._poller = poller = Poller(
            self._relay,
            self._pace,
            self._limits,
            self._grace,
            request_timeout=self._request_timeout,
            on_change=self._on_change,
        )
        # The poller makes a new scheduler after an unexpected error.
        self._transport.open_ids_like = lambda name: poller.scheduler.ids_like(name)  # noqa: PLW0108
        return self

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
        finally:
            await self._transport.__aexit__(None, None, None)
            if self._recorder is not None:
                await anyio.to_thread.run_sync(self._recorder.close)

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
        up, or the session is closed; GenerationsMissing if the relay does not know some of the ids.
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

        Each task is returned once. `timeout` and the errors are those of `wait_until_done`. The
        wait starts with the first step of the iteration, not with this call. Invalid ids raise at
        this call; only those after the first 2,000 ids raise at the first step.
        """
        return Reader(self._wait(ids, timeout, Notify.ENDS))

    def watch(self, ids: Iterable[str], *, timeout: float | None = 1800.0) -> Reader:
        """Iterate over the changes of state until all tasks are completed or failed.

        The first state of each task is a change, too. `timeout` and the errors are those of
        `wait_until_done`. The wait starts with the first step of the iteration.
        """
        return Reader(self._wait(ids, timeout, Notify.CHANGES))

    def follow(self) -> Following:
        """Return a wait to which ids can be added at any time; iterate over it for the results.

        It has no timeout. An id that the relay does not know is a result, too; see `Ended`.
        """
        return Following(self._ready())

    def _recorder_of(
        self, path: str | os.PathLike[str], api_key: str | None, proxy: str | None
    ) -> Recorder:
        key = checks.api_key(os.environ.get("LUMA_API_KEY") if api_key is None else api_key)
        return Recorder(path, secrets_of(self._base_url, key, proxy))

    def _wait(self, ids: Iterable[str], timeout: float | None, notify: Notify) -> Wait:
        poller = self._ready()
        return Wait(poller, self._relay, ids, checks.timeout(timeout), notify)

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters of the session and of the open ids."""
        return self._poller.snapshot() if self._poller else Stats()

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
