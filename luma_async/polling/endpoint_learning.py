"""What a session has learned of the relay's two endpoints, and the warnings about it."""

import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from luma_async.errors import APIError, LumaError, NoSuchRouteError
from luma_async.scheduling.capabilities import is_filtered
from luma_async.scheduling.missing_evidence import DOUBT_FACTOR
from luma_async.scheduling.route_check import MAX_WITHOUT_ROUTE, RouteCheck
from luma_async.structs import State
from luma_async.text import format_duration

if TYPE_CHECKING:
    from luma_async.polling.poller import Poller

logger: logging.Logger = logging.getLogger("luma_async")


class EndpointLearner:
    """Learn what a relay can do from polls and direct calls; warn once of each fact."""

    def __init__(self, poller: "Poller") -> None:
        self._poller = poller
        self._warned_no_batch = self._warned_no_single = self._warned_cap = False
        self._warned_no_route = False
        self._routes = RouteCheck()
        self._is_answered = False
        self._postponed: list[str] = []  # warnings, until the relay has answered at all

    def record_response(self) -> None:
        """Learn from a response: the key is good, and the base URL leads to a relay."""
        self._poller.key_rejections.record_response()
        self._routes.record_response()
        self._is_answered = True
        for warning in self._postponed:
            logger.warning(warning)
        self._postponed.clear()

    def leads_nowhere(self, error: LumaError, *, batch_endpoint: bool) -> bool:
        """Learn from the error of a poll. Return whether the base URL leads to no relay at all."""
        if not isinstance(error, NoSuchRouteError):
            if isinstance(error, APIError):
                self._routes.reset()
            return False
        now = self._poller.loop.time()
        is_certain = error.certain and bool(error.extra_path)
        if self._routes.record_no_route(
            batch_endpoint=batch_endpoint, now=now, is_certain=is_certain
        ):
            self._routes.reset()
            return True
        if self._routes.has_neither and not self._warned_no_route:
            self._warned_no_route = True
            message = "no endpoint has answered yet, and waits end after %s of this: %s"
            logger.warning(message, format_duration(MAX_WITHOUT_ROUTE), error)
        return False

    def record_batch(self, asked: int, states: Mapping[str, State]) -> None:
        """Learn from a batch that was answered: the relay has a batch endpoint.

        One that leaves out all running tasks is of no more use than none.
        """
        if is_filtered(asked, states):
            return
        self._warned_no_batch = False
        self._poller.scheduler.capabilities = self._poller.scheduler.capabilities.confirmed()

    def record_too_large(self, ids: int) -> None:
        """Learn from a batch of `ids` ids that was too large: all of its parts passed."""
        now = self._poller.loop.time()
        self._poller.scheduler.capabilities = self._poller.scheduler.capabilities.halved(ids, now)

    def record_no_batch_route(
        self, error: LumaError, ids: Collection[str], *, has_others: bool = True
    ) -> bool:
        """Learn from a batch that no endpoint answered. Return whether to believe that.

        `has_others`: ids are open that are not in the batch.
        """
        now, known = self._poller.loop.time(), self._poller.scheduler.capabilities
        certain = isinstance(error, NoSuchRouteError) and error.certain
        if not certain:
            known = known.after_no_route(ids, now, has_others=has_others)
        else:
            known = known.without_batch(now)
        self._poller.scheduler.capabilities = known
        if known.has_batch(now):
            return False
        self._warn_no_batch("the relay has no batch endpoint")
        return True

    def _warn_no_batch(self, why: str) -> None:
        if not self._warned_no_batch:
            self._warned_no_batch = True
            self._warn(f"{why}; polling one id per request for now")

    def _warn(self, warning: str) -> None:
        """Log a warning once a request was answered: until then the base URL may be wrong."""
        if self._is_answered:
            logger.warning(warning)
        else:
            self._postponed.append(warning)

    def record_no_single_route(self) -> None:
        """Learn from a single GET that no endpoint answered."""
        now = self._poller.loop.time()
        known = self._poller.scheduler.capabilities.without_single(now)
        self._poller.scheduler.capabilities = known
        if not known.has_single(now) and not self._warned_no_single:
            self._warned_no_single = True
            self._warn(
                "the relay has no single endpoint; an id that batch responses leave out counts as "
                f"missing after {DOUBT_FACTOR:g} times missing_grace"
            )

    def log_lesson(self) -> None:
        """Warn that batch responses leave out tasks, after the batch size was learned from that."""
        now = self._poller.loop.time()
        if not self._poller.scheduler.capabilities.has_batch(now):
            self._warn_no_batch("batch responses leave out tasks that the single endpoint knows")
        elif not self._warned_cap:
            self._warned_cap = True
            size = self._poller.scheduler.capabilities.max_ids(now)
            logger.warning("batch responses leave out tasks; asking for %d at a time now", size)
