"""What a response says to the scheduler, and the changes that it makes, for watchers."""

from collections.abc import Mapping
from typing import Generic, Protocol

from msgspec import Struct

from luma_async.errors import LumaError
from luma_async.protocol.rows import RowText
from luma_async.scheduling.items import W
from luma_async.scheduling.missing_evidence import Sign
from luma_async.structs import Generation, State
from luma_async.validation import not_negative


class PollAnswer(Protocol):
    """What the scheduler needs of a response; `protocol.responses.Response` is one."""

    @property
    def states(self) -> Mapping[str, State]:
        """The state of each id that the response contains."""
        ...

    @property
    def unknown_states(self) -> frozenset[str]:
        """The ids among them whose state is a word that is not known."""
        ...

    @property
    def retry_after(self) -> float | None:
        """Retry-After in seconds, or None."""
        ...

    def age(self, task_id: str, /) -> float:
        """Return the age of a task in seconds; 0 if the relay gives no time of creation."""
        ...

    def row(self, task_id: str, /) -> RowText:
        """Return the row of a task."""
        ...

    def generation(self, task_id: str, /) -> Generation:
        """Build the whole task."""
        ...


class Grace(Struct, frozen=True):
    """How long to poll on, in seconds, before an id counts as missing or a link as absent."""

    missing: float = 30.0
    link: float = 60.0


def checked_grace(missing: float, link: float) -> Grace:
    """Return a Grace; ValueError or TypeError, with the names of the session, for no seconds."""
    return Grace(not_negative("missing_grace", missing), not_negative("link_grace", link))


class Change(Struct, Generic[W], frozen=True, kw_only=True):
    """A change of one id, for its watchers.

    `row` is its row in the response, None if the id is missing; `state` is the state in it,
    `previous_state` the one before. `max_lag` is the seconds since the last poll before this one
    was sent, the most by which the news can be late; None for the first response. `error` is what
    the relay said last of an id that is missing or forbidden. `forbidden`: the key may not see the
    id; its polling continues, and each further rejection is such a change that `is_repeated`.
    """

    task_id: str
    row: RowText | None
    ended: bool = False
    watchers: tuple[W, ...] = ()
    max_lag: float | None = None
    state: State | None = None
    previous_state: State | None = None
    error: LumaError | None = None
    forbidden: bool = False
    is_repeated: bool = False

    @property
    def generation(self) -> Generation | None:
        """The whole task, decoded on demand; None if the id is missing."""
        return self.row.generation() if self.row else None


class Answered(Struct, frozen=True, kw_only=True):
    """One response, and how it came: sent at, received at.

    `sign` is what it says of ids that have no row in it, `error` the relay's words. `single`: the
    request was a single GET; `single_endpoint`: the relay has one.
    """

    answer: PollAnswer
    sent_at: float
    now: float
    sign: Sign
    error: LumaError | None = None
    single: bool
    single_endpoint: bool
