"""LumaSession: the public API."""

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Self, overload

import anyio

from luma_async import validation as checks
from luma_async.polling.admission import session_closed
from luma_async.polling.direct import DirectClient
from luma_async.polling.hooks import ChangeEvent, Hook, InstrumentedRelay, RequestEvent
from luma_async.polling.interfaces import Relay
from luma_async.polling.iterator import Reader
from luma_async.polling.poller import Poller
from luma_async.polling.stats import Stats
from luma_async.polling.subscription import Following
from luma_async.polling.wait import Notify, Wait
from luma_async.scheduling.changes import Grace
from luma_async.scheduling.pace import Learned, Pace
from luma_async.scheduling.throttle import Limits
from luma_async.structs import Generation
from luma_async.transport import Transport

if TYPE_CHECKING:
    import aiohttp


class LumaSession:
    """A session with one relay: asks about tasks, and waits for any number of them at once.

    All calls share one poller and one budget. `base_url` (may have a path) and `api_key` default to
    LUMA_BASE_URL and LUMA_API_KEY. `http` is the caller's own aiohttp.ClientSession; it is never
    closed, and its headers and cookies are not relied on. `request_timeout` bounds one request,
    `missing_grace` is how long an id that the relay does not know is asked about again,
    `link_grace` the same for a task completed without a link; all in seconds. Raises ValueError or
    TypeError for what cannot work.

    `on_request` is told of each HTTP request once it is over, `on_change` of each change of state
    seen of an id that somebody waits for, once however many wait; direct calls (`get`, `get_many`,
    a `timeout` of 0) tell requests alone. Both are plain functions, called in the event loop, and
    must not block. What they raise is logged once, and harms nothing.
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
    ) -> None:
        self._base_url = checks.base_url(
            os.environ.get("LUMA_BASE_URL") if base_url is None else base_url
        )
        self._pace = checks.instance("pace", pace, Pace, "such as Every(5.0)")
        self._limits = checks.instance("limits", limits, Limits, "Limits(…)")
        self._patience = checks.positive("request_timeout", request_timeout)
        self._grace = Grace(
            missing=checks.not_negative("missing_grace", missing_grace),
            link=checks.not_negative("link_grace", link_grace),
        )
        self._transport = Transport(
            self._base_url,
            checks.api_key(os.environ.get("LUMA_API_KEY") if api_key is None else api_key),
            http=http,
            request_timeout=self._patience,
            max_body=self._limits.max_body,
            proxy=None if proxy is None else checks.http_url("proxy", proxy, plain=False),
        )
        self._relay: Relay = self._transport
        if (told := checks.hook("on_request", on_request)) is not None:
            self._relay = InstrumentedRelay(self._transport, Hook("on_request", told))
        changed = checks.hook("on_change", on_change)
        self._on_change = None if changed is None else Hook("on_change", changed)
        self._poller: Poller | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        if self._closed:
            raise session_closed()
        if self._poller is not None:
            raise RuntimeError("the session is already entered; enter it once")
        await self._transport.__aenter__()
        self._poller = Poller(
            self._relay,
            self._pace,
            self._limits,
            self._grace,
            max_cooldown=self._patience,
            on_change=self._on_change,
        )
        self._transport.open_ids_like = self._poller.ids_like
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End every wait and every request, and close what the session opened; twice is fine.

        Waits end with WaitAborted, single calls with SessionClosed. RuntimeError where it is not
        the session's own process, thread and loop.
        """
        if self._poller is not None:
            self._poller.check_home()
        self._closed = True
        if self._poller is not None:
            with anyio.CancelScope(shield=True):
                try:
                    await self._poller.close()
                finally:
                    await self._transport.__aexit__(None, None, None)

    async def get(self, task_id: str) -> Generation:
        """Ask about one task, once.

        Raises NotFoundError where the relay does not know it, another LumaError where it does not
        answer.
        """
        poller = self._ready()
        return await DirectClient(poller, self._relay).get(checks.task_id(task_id))

    async def get_many(self, ids: Iterable[str]) -> dict[str, Generation]:
        """Ask about many tasks, once, in requests of `max_batch` ids.

        Returns them in the order given; ids that the relay does not know are absent. Raises a
        LumaError where a request brings no answer.
        """
        poller = self._ready()
        asked = checks.task_ids(ids)
        found: dict[str, Generation] = {}
        await DirectClient(poller, self._relay).get_many(asked, found)
        return {task_id: found[task_id] for task_id in asked if task_id in found}

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
        """Wait until each task is completed or failed; a failed one is a value, not an error.

        Returns one Generation for one id, else a dict in the order given. `timeout` is seconds for
        the whole wait, None for ever, 0 for one look. Every other end raises a WaitIncomplete that
        carries what is done, pending and missing: WaitTimeout, WaitAborted (the key was refused, or
        the session closed), GenerationsMissing (the relay does not know some ids).
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
        """Iterate over the tasks, each once, as it is completed or failed.

        Ends and raises as `wait_until_done` does. Waiting begins with the first step, which also
        checks the ids beyond the first 2,000.
        """
        return Reader(self._wait(ids, timeout, Notify.ENDS))

    def watch(self, ids: Iterable[str], *, timeout: float | None = 1800.0) -> Reader:
        """Iterate over each change of state, the first one seen included, until all have ended.

        Ends and raises as `wait_until_done` does. Waiting begins with the first step.
        """
        return Reader(self._wait(ids, timeout, Notify.CHANGES))

    def follow(self) -> Following:
        """Return a wait without a list and without a timeout: `add` ids, and iterate over the ends.

        For whoever takes ids as they come. An id that the relay does not know is an end, too.
        """
        return Following(self._ready())

    def _wait(self, ids: Iterable[str], timeout: float | None, news: Notify) -> Wait:
        poller = self._ready()
        return Wait(poller, self._relay, ids, checks.timeout(timeout), news)

    @property
    def stats(self) -> Stats:
        """What the session has done so far, and what is open: a frozen snapshot."""
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
        self._poller.check_home()
        return self._poller
