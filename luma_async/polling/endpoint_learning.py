"""What a session has learned of the relay's two endpoints, and the warnings about it."""

import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from luma_async.errors import LumaError, NoSuchRouteError
from luma_async.scheduling.capabilities import is_filtered
from luma_async.scheduling.missing_evidence import DOUBT_FACTOR
from luma_async.structs import State

if TYPE_CHECKING:
    from luma_async.polling.poller import Poller

logger: logging.Logger = logging.getLogger("luma_async")


class EndpointLearner:
    """Learn what a relay can do from polls and direct calls; warn once of each fact."""

    def __init__(self, poller: "Poller") -> None:
        self._poller = poller
        self._warned_no_batch = self._warned_no_single = self._warned_cap = False

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
            logger.warning("%s; polling one id per request for now", why)
            self._warned_no_batch = True

    def record_no_single_route(self) -> None:
        """Learn from a single GET that no endpoint answered."""
        now = self._poller.loop.time()
        known = self._poller.scheduler.capabilities.without_single(now)
        self._poller.scheduler.capabilities = known
        if not known.has_single(now) and not self._warned_no_single:
            self._warned_no_single = True
            logger.warning(
                "the relay has no single endpoint; an id that batch responses leave out counts as "
                "missing after %g times missing_grace",
                DOUBT_FACTOR,
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
