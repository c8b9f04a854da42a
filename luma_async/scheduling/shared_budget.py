"""One rate limit for several sessions: a common timetable, from which each reserves its slots.

The timetable is one small record that all sessions read and replace by compare-and-set: a
replacement is accepted only if the record is the one that was read. So whatever messages are lost
or late, and whichever sessions are frozen or killed, two sessions never have the same slot, and
slots are at least `spacing` apart. A rate per session would not do: three sessions with a third of
ten requests per second may send twelve in a second that begins at the right moment.

- A slot is at most HORIZON seconds ahead: that much a killed session wastes, and no more.
- A session that is frozen misses its slots, and has none when it continues (see `slots`).
- Without the record, or if it may be an old one, nothing is sent for HORIZON seconds: by then all
  slots that were reserved before have passed. That is the *barrier*.

`plan` is pure. Times are those of the server that keeps the record, in Unix seconds.
"""

from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from luma_async.scheduling.throttle import MAX_RETRY_AFTER

HORIZON = 1.0  # seconds
MEMBER_TIMEOUT = 10.0  # seconds after its last reservation after which a session is not counted
CLOCK_TOLERANCE = 0.5  # seconds by which a record may be beyond HORIZON
QUIET_TOLERANCE = 3600.0  # seconds by which a quiet time may be beyond MAX_RETRY_AFTER
MAX_MEMBERS = 1000
MAX_SPACING = 1e6  # seconds
MAX_TIME = 1e11  # a Unix time that a record may have

Time = Annotated[float, Meta(ge=0.0, le=MAX_TIME)]


class Member(Struct, frozen=True):
    """A session: how many open ids it holds, and until when it is counted."""

    held: Annotated[int, Meta(ge=0, le=1_000_000_000)]
    until: Time


class Timetable(Struct, frozen=True):
    """The common record.

    `last_slot` is the last reserved slot. `spacing` is the longest time between two slots that a
    session asks for, until `spacing_until`. No session sends before `quiet_until`.
    """

    last_slot: Time = 0.0
    spacing: Annotated[float, Meta(ge=0.0, le=MAX_SPACING)] = 0.0
    spacing_until: Time = 0.0
    quiet_until: Time = 0.0
    members: Annotated[dict[str, Member], Meta(max_length=MAX_MEMBERS)] = {}


class Wish(Struct, frozen=True):
    """What a session wants: `count` slots, at least `spacing` apart.

    `own_next` is when its next slot is due by its own share. With `needs_barrier`, the session does
    not know whether the record is the newest one.
    """

    member: str
    held: int
    spacing: float
    count: int = 1
    own_next: float = 0.0
    needs_barrier: bool = False


class Reservation(Struct, frozen=True):
    """The replacement of the record, and the slots that the session has if it is accepted."""

    timetable: Timetable
    slots: tuple[float, ...] = ()
    own_next: float = 0.0


class Later(Struct, frozen=True):
    """No slot can be reserved now: plan again at the time `at`."""

    at: float


def plan(timetable: Timetable | None, wish: Wish, now: float) -> Reservation | Later:
    """Return the reservation to try.

    `timetable` is None if there is no record.
    """
    # first      = max(now, last_slot + spacing)
    # last       ≤ now + HORIZON
    # own_next   = own_next + count · spacing / share, and slots of others ahead (contention) make
    #              a session wait for it: so each gets its share, by the ids that it holds
    known = timetable or Timetable()
    is_ahead = known.last_slot > now + HORIZON + CLOCK_TOLERANCE  # the clock was set back
    if timetable is None or wish.needs_barrier or is_ahead:
        last_slot = now + HORIZON if is_ahead else max(known.last_slot, now + HORIZON)
        return Reservation(_updated(known, wish, last_slot, now), own_next=wish.own_next)
    spacing = _spacing(known, wish, now)
    first = max(now, known.last_slot + spacing)
    if first > now + HORIZON:
        return Later(first - HORIZON)
    if known.last_slot > now and wish.own_next > first + spacing / 2:
        return Later(min(now + wish.own_next - first, known.last_slot))
    count = max(1, min(wish.count, 1 + int((now + HORIZON - first) / spacing)))
    slots = tuple(first + number * spacing for number in range(count))
    own_next = max(wish.own_next, first) + count * spacing / share(known, wish, now)
    return Reservation(_updated(known, wish, slots[-1], now), slots, own_next)


def share(timetable: Timetable, wish: Wish, now: float) -> float:
    """Return the part of all slots that is due to a session, by the ids that each one holds."""
    others = sum(
        1 + member.held
        for name, member in timetable.members.items()
        if name != wish.member and member.until > now
    )
    own = 1 + wish.held
    return own / (own + others)


def with_quiet(timetable: Timetable | None, until: float, now: float) -> Timetable:
    """Return the record with a quiet time until `until` at least."""
    known = timetable or Timetable()
    return replace(known, quiet_until=max(quiet_until(known, now), until))


def quiet_until(timetable: Timetable, now: float) -> float:
    """Return until when no session sends; 0 if no session can have shared such a quiet time.

    Each session shares `MAX_RETRY_AFTER` seconds at most, so a later end is an error of a record or
    of a clock. It would stop all sessions for good.
    """
    latest = now + MAX_RETRY_AFTER + QUIET_TOLERANCE
    return timetable.quiet_until if timetable.quiet_until <= latest else 0.0


def _spacing(timetable: Timetable, wish: Wish, now: float) -> float:
    return max(wish.spacing, timetable.spacing if timetable.spacing_until > now else 0.0)


def _updated(timetable: Timetable, wish: Wish, last_slot: float, now: float) -> Timetable:
    members = {name: one for name, one in timetable.members.items() if one.until > now}
    if wish.member in members or len(members) < MAX_MEMBERS:
        members[wish.member] = Member(wish.held, now + MEMBER_TIMEOUT)
    spacing = _spacing(timetable, wish, now)
    is_own = spacing <= wish.spacing
    return Timetable(
        last_slot=last_slot,
        spacing=spacing,
        spacing_until=now + MEMBER_TIMEOUT if is_own else timetable.spacing_until,
        quiet_until=quiet_until(timetable, now),
        members=members,
    )
