"""Items and groups: watchers, removed ids, and groups that are split and merged."""

from collections.abc import Iterable
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luma_async.scheduling.batches import Batch
from luma_async.scheduling.items import Group, Item, Status, Transition, regroup, split_at
from tests.properties import examples


def group_of(*ids: str, created_at: Iterable[float] = (), now: float = 0.0) -> Group[str]:
    group = Group([Item[str](task_id, now, now) for task_id in ids], now)
    for item, at in zip(group.items, created_at, strict=False):
        item.created_at = at
    if created_at:
        group.update_age_range()
    return group


def ids_of(group: Group[str]) -> list[str]:
    """Return the ids that are left in a group."""
    return [item.task_id for item in group.items if item.group is group]


# watchers


def test_an_item_has_each_watcher_once_in_the_order_in_which_they_came() -> None:
    item = Item[str]("a", 0.0, 0.0)
    for name in ("ann", "bob", "ann", "cyd", "bob"):
        item.add_watcher((name,))
    assert list(item.watchers) == ["ann", "bob", "cyd"]
    assert not item.remove_watcher("dan")
    assert [item.remove_watcher(name) for name in ("bob", "bob", "ann", "cyd")] == [
        True, False, True, True,
    ]  # fmt: skip
    assert not item.watchers
    item.add_watcher(("eve",))
    assert item.remove_watcher("eve")
    assert not item.remove_watcher("eve")


def test_items_with_one_watcher_share_its_tuple() -> None:
    only = ("ann",)
    first, second = Item[str]("a", 0.0, 0.0), Item[str]("b", 0.0, 0.0)
    for item in (first, second, second):
        item.add_watcher(only)
    assert first.watchers is second.watchers is only


def test_the_watchers_of_an_item_are_not_copied_when_one_is_added() -> None:
    item = Item[str]("a", 0.0, 0.0)
    for name in ("ann", "bob"):
        item.add_watcher((name,))
    watchers = item.watchers
    item.add_watcher(("cyd",))
    assert item.watchers is watchers
    assert len(watchers) == 3


def test_an_item_has_one_anomaly() -> None:
    item = Item[str]("a", 0.0, 0.0)
    assert item.anomaly is None
    assert item.anomaly_or_new() is item.anomaly_or_new() is item.anomaly


def test_the_status_of_an_item_is_that_of_its_group() -> None:
    group = group_of("a", "b")
    watched, unwatched = group.items
    watched.add_watcher(("ann",))
    assert {item.status for item in group.items} == {Status.UNTRACKED}
    group.apply(Transition.SUBSCRIBE)
    assert {item.status for item in group.items} == {Status.NEW}
    group.apply(Transition.SEND)
    assert (watched.status, unwatched.status) == (Status.IN_FLIGHT, Status.ABANDONED)
    watched.leave()
    assert (watched.status, group.size) == (Status.UNTRACKED, 1)
    assert not watched.watchers
    watched.leave()
    assert group.size == 1, "it has left"


# removed ids


def test_a_group_keeps_no_more_removed_ids_than_others() -> None:
    group = group_of(*"abcdefgh")
    kept: list[int] = []
    for item in group.items:
        group.remove(item)
        kept.append(len(group.items))
    assert kept == [8, 8, 8, 8, 3, 3, 1, 0]
    assert group.size == 0


def test_a_group_in_flight_keeps_its_removed_ids_until_it_has_returned() -> None:
    group = group_of(*"abcd")
    group.apply(Transition.SUBSCRIBE)
    Batch([group], 0.0)
    for item in group.items[:3]:
        group.remove(item)
    assert (len(group.items), group.size) == (4, 1)
    group.compact()
    assert ids_of(group) == ["d"]
    assert len(group.items) == 1


def test_compacting_a_group_of_which_nothing_was_removed_costs_nothing() -> None:
    group = group_of(*"abcd")
    items = group.items
    group.compact()
    assert group.items is items


# groups that are split and merged


def polled(*ids: str) -> Group[str]:
    """Return a group each of whose fields differs from those of a new one."""
    group = group_of(*ids, created_at=(3.0, 1.0, 2.0), now=9.0)
    group.apply(Transition.SUBSCRIBE)
    group.sent_at, group.due_at, group.last_heard_at = 10.0, 15.0, 11.0
    group.failed_attempts, group.hangs = 3, True
    return group


def fields_of(group: Group[str]) -> dict[str, object]:
    names = (
        "status", "sent_at", "due_at", "last_heard_at", "failed_attempts", "hangs", "oldest",
        "youngest",
    )  # fmt: skip
    return {name: getattr(group, name) for name in names}


def test_a_new_group_was_not_polled_and_is_due_at_once() -> None:
    group = group_of("a", "b", now=7.0)
    assert group.size == 2
    assert fields_of(group) == {
        "status": Status.UNTRACKED, "sent_at": None, "due_at": 7.0, "last_heard_at": 7.0,
        "failed_attempts": 0, "hangs": False, "oldest": 7.0, "youngest": 7.0,
    }  # fmt: skip


def test_ids_that_are_split_off_keep_what_is_known_of_their_last_poll() -> None:
    group = polled("a", "b", "c")
    part = group.split_off(group.items[1:])
    group.compact()
    assert (ids_of(group), group.size) == (["a"], 1)
    assert (ids_of(part), part.size) == (["b", "c"], 2)
    assert fields_of(part) == fields_of(group)
    part.update_age_range()
    assert (part.oldest, part.youngest, part.mean_created_at) == (1.0, 2.0, 1.5)


def test_the_age_range_of_a_group_without_ids_stays() -> None:
    group = polled("a", "b", "c")
    for item in group.items:
        group.remove(item)
    group.update_age_range()
    assert (group.oldest, group.youngest) == (1.0, 3.0)


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_a_part_of_a_group_is_taken_only_if_there_are_more_ids(most: int) -> None:
    group = polled("a", "b", "removed", "c")
    group.remove(group.items[2])
    taken = group.take(most)
    assert ids_of(taken) == ["a", "b", "c"][:most]
    assert (taken is group) is (most >= 3)
    if taken is not group:
        assert ids_of(group) == ["a", "b", "c"][most:]
        assert len(group.items) == group.size == 3 - most


@pytest.mark.parametrize(
    ("sent_at", "merged"), [((4.0, 6.0, 5.0), 4.0), ((None, 6.0, 5.0), 5.0), ((None,) * 3, None)]
)
def test_of_merged_groups_the_earliest_poll_counts(
    sent_at: tuple[float | None, ...], merged: float | None
) -> None:
    groups = [
        group_of("a", created_at=[2.0]),
        group_of("b", "c", created_at=[1.0, 3.0]),
        group_of("d", created_at=[2.5]),
    ]
    for group, at in zip(groups, sent_at, strict=True):
        group.sent_at = at
    first, *others = groups
    first.merge(others)
    assert (ids_of(first), first.size) == (["a", "b", "c", "d"], 4)
    assert (first.oldest, first.youngest, first.sent_at) == (1.0, 3.0, merged)


@settings(max_examples=examples(30))
@given(st.lists(st.integers(0, 4), max_size=5), st.integers(0, 12))
def test_groups_are_split_at_a_number_of_ids(sizes: list[int], size: int) -> None:
    ends = list(accumulate(sizes))
    groups = [
        group_of(*map(str, range(end - count, end))) for count, end in zip(sizes, ends, strict=True)
    ]
    ids = [task_id for group in groups for task_id in ids_of(group)]
    first, rest = split_at(groups, size)
    assert [task_id for group in first for task_id in ids_of(group)] == ids[:size]
    assert [task_id for group in rest for task_id in ids_of(group)] == ids[size:]
    assert all(group.size for group in (*first, *rest)), "none is empty"


@settings(max_examples=examples(30))
@given(st.lists(st.lists(st.integers(0, 40), max_size=5), max_size=4))
def test_groups_are_sorted_by_the_keys_of_their_ids(created_at: list[list[int]]) -> None:
    def key_of(at: float) -> float:
        return at // 10

    groups = [
        group_of(*(f"{number}-{place}" for place in range(len(times))), created_at=times)
        for number, times in enumerate(created_at)
    ]
    expected: dict[float, set[str]] = {}
    for group in groups:
        for item in group.items:
            expected.setdefault(key_of(item.created_at), set()).add(item.task_id)
    found = {key_of(group.oldest): group for group in regroup(groups, key_of)}
    assert {key: set(ids_of(group)) for key, group in found.items()} == expected
    for group in found.values():
        times = [item.created_at for item in group.items]
        assert (group.size, group.oldest, group.youngest) == (len(times), min(times), max(times))


def test_a_group_of_one_key_stays_as_it_is() -> None:
    group = group_of("a", "b", created_at=[1.0, 2.0])
    items = group.items
    assert list(regroup([group], lambda _: 7.0)) == [group]
    assert group.items is items, "no work for each id"


def test_a_group_whose_ids_have_left_is_not_polled_again() -> None:
    group = group_of("a", created_at=[1.0])
    group.remove(group.items[0])
    assert list(regroup([group], lambda at: at)) == []
