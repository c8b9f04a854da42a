"""Ids by their name without regard to case."""

from luma_async.scheduling.folded_ids import FoldedIds


def test_an_id_is_found_under_each_case_until_it_is_removed() -> None:
    ids = FoldedIds(["Abc", "aBC", "other"])
    assert list(ids.like("ABC")) == ["Abc", "aBC"]
    ids.remove("Abc")
    assert list(ids.like("abc")) == ["aBC"]
    ids.remove("aBC")
    assert list(ids.like("abc")) == []
    ids.add(["abc"])
    assert list(ids.like("ABC")) == ["abc"]


def test_removed_ids_take_no_memory() -> None:
    ids = FoldedIds([])
    for number in range(100):
        ids.add([f"Task-{number}"])
        ids.remove(f"Task-{number}")
    assert not ids._ids  # pyright: ignore[reportPrivateUsage]
