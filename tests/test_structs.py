"""The structs: each field of the published samples, the best link, and what a value promises."""

import inspect
import json
import pickle
from collections.abc import Iterator
from copy import copy, deepcopy
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from msgspec import Struct

import luma_async
from luma_async import Generation, GenerationFailed, State
from luma_async.protocol.decoding import decode_response

DATA = Path(__file__).parent / "data"
SAMPLES = ["get-completed.json", "tasks-completed.json"]
ZERO_TIME = "0001-01-01T00:00:00Z"
LINKS = [
    "video.download_url",
    "video_raw.url",
    "video.url",
    "assets.video",
    "artifact.video.download_url",
    "artifact.video_raw.url",
    "artifact.video.url",
    "result_url",
]


def sample(name: str) -> dict[str, Any]:
    task: Any = json.loads((DATA / name).read_bytes())
    return cast("dict[str, Any]", task[0] if isinstance(task, list) else task)


def decoded(name: str) -> Generation:
    answer = decode_response(200, {}, (DATA / name).read_bytes())
    (task_id,) = answer.states
    return answer.generation(task_id)


def decoded_task(**fields: object) -> Generation:
    """Return the Generation of a bare completed task with these fields."""
    body = json.dumps({"id": "a", "state": "completed", **fields}).encode()
    return decode_response(200, {}, body).generation("a")


def linked(links: dict[str, str | None]) -> Generation:
    """Build a completed task from links by the dotted names of their fields."""
    task: dict[str, Any] = {"id": "a", "state": "completed"}
    for place, link in links.items():
        *parents, name = place.split(".")
        inner = task
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = link
    return msgspec.convert(task, Generation)


def plain(generation: Generation) -> dict[str, Any]:
    """Return all fields but `original` as plain data, with datetimes as they are."""
    fields = msgspec.structs.asdict(generation)
    del fields["original"]
    return cast("dict[str, Any]", msgspec.to_builtins(fields, builtin_types=(datetime,)))


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict):
        yield path, value
        return
    for name, inner in cast("dict[str, object]", value).items():
        yield from leaves(inner, f"{path}.{name}")


def structs(value: object) -> Iterator[Struct]:
    """Yield every struct in a value, itself first."""
    if isinstance(value, Struct):
        yield value
        for name in value.__struct_fields__:
            yield from structs(getattr(value, name))


@pytest.mark.parametrize("name", SAMPLES)
def test_each_field_of_the_published_samples_has_a_field_here(name: str) -> None:
    expected = dict(leaves(sample(name)))
    for path, leaf in expected.items():
        if path.endswith("created_at"):
            moment = None if leaf == ZERO_TIME else datetime.fromisoformat(str(leaf))
            expected[path] = moment
    assert len(expected) > 30
    found = dict(leaves(plain(decoded(name))))
    assert {path: found[path] for path in expected} == expected
    assert {found[path] for path in found.keys() - expected.keys()} == {None}


def test_both_published_samples_are_the_same_task() -> None:
    single, batch = (decoded(name) for name in SAMPLES)
    assert plain(single) == plain(batch)


def test_the_published_sample_is_completed() -> None:
    assert decoded(SAMPLES[0]).state is State.COMPLETED


@pytest.mark.parametrize(
    ("state", "is_done"),
    [
        (State.PENDING, False),
        (State.PROCESSING, False),
        (State.COMPLETED, True),
        (State.FAILED, True),
    ],
)
def test_a_task_is_done_when_it_is_completed_or_failed(state: State, is_done: bool) -> None:
    assert state.is_done is is_done
    assert Generation(id="a", state=state).is_done is is_done


def test_there_are_four_states() -> None:
    assert [state.value for state in State] == ["pending", "processing", "completed", "failed"]


def test_nothing_in_a_generation_can_be_set() -> None:
    found = list(structs(decoded(SAMPLES[0])))
    assert len({type(one) for one in found}) == 7
    for one in found:
        for name in one.__struct_fields__:
            with pytest.raises(AttributeError):
                setattr(one, name, None)


def test_everything_in_a_generation_can_be_hashed() -> None:
    first, second = (list(structs(decoded(SAMPLES[0]))) for _ in range(2))
    assert [hash(one) for one in first] == [hash(one) for one in second]


def test_two_equal_responses_give_equal_generations() -> None:
    one = decoded(SAMPLES[0])
    assert one == decoded(SAMPLES[0])
    assert len({one, decoded(SAMPLES[0])}) == 1


@pytest.mark.parametrize(
    "change", [{"id": "b"}, {"state": State.FAILED}, {"video": None}, {"result_url": "other"}]
)
def test_a_generation_with_another_field_is_not_equal(change: dict[str, Any]) -> None:
    one = decoded(SAMPLES[0])
    assert msgspec.structs.replace(one, **change) != one


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_generation_can_be_pickled(protocol: int) -> None:
    one = decoded(SAMPLES[1])
    other = pickle.loads(pickle.dumps(one, protocol))
    assert other == one
    assert other.raw == one.raw


def test_a_generation_can_be_copied() -> None:
    one = decoded(SAMPLES[0])
    assert copy(one) == one
    assert deepcopy(one) == one


@pytest.mark.parametrize("nothing", ["", None])
@pytest.mark.parametrize("best", range(len(LINKS)))
def test_url_is_the_best_link_that_is_present(best: int, nothing: str | None) -> None:
    links = {place: place if rank >= best else nothing for rank, place in enumerate(LINKS)}
    assert linked(links).url == LINKS[best]


@pytest.mark.parametrize("place", LINKS)
def test_url_is_the_only_link(place: str) -> None:
    assert linked({place: "https://cdn.example/a.mp4"}).url == "https://cdn.example/a.mp4"


@pytest.mark.parametrize("place", LINKS)
def test_an_empty_link_is_no_link(place: str) -> None:
    assert linked({place: ""}).url is None


def test_a_task_without_any_link_has_no_url() -> None:
    assert Generation(id="a", state=State.COMPLETED).url is None


@pytest.mark.parametrize("name", SAMPLES)
def test_raw_is_the_object_that_the_relay_sent(name: str) -> None:
    assert decoded(name).raw == sample(name)


def test_the_original_is_the_text_that_the_relay_sent() -> None:
    texts = ['{"id":"a", "state":"completed","loop":1.50}', '{"state":"failed","id":"b"}']
    answer = decode_response(200, {}, f"[{texts[0]},\n {texts[1]}]".encode())
    assert [answer.generation(task_id).original for task_id in "ab"] == texts


def test_unknown_fields_are_in_raw() -> None:
    unknown = {"liked": None, "progress": "40%", "media_request": {"loop": [True, 1.5]}}
    assert decoded_task(**unknown).raw == {"id": "a", "state": "completed", **unknown}


def test_invalid_utf8_is_replaced_in_raw() -> None:
    body = b'{"id": "a", "state": "completed", "note": "\xff!"}'
    assert decode_response(200, {}, body).generation("a").raw["note"] == "\ufffd!"


def test_a_change_of_raw_does_not_change_the_generation() -> None:
    one = decoded_task(liked=True)
    one.raw["liked"] = False
    assert one.raw["liked"] is True


def test_raw_of_a_generation_made_by_hand_is_empty() -> None:
    assert Generation(id="a", state=State.PENDING).raw == {}


def test_the_repr_has_id_and_state_and_no_link() -> None:
    signed = "https://cdn.example/a.mp4?X-Amz-Signature=5ecre7"
    one = linked(dict.fromkeys(LINKS, signed))
    assert repr(one) == str(one) == "Generation(id='a', state='completed')"


def test_the_repr_of_a_failed_task_has_the_reason() -> None:
    one = Generation(id="a", state=State.FAILED, failure_reason="moderated")
    assert repr(one) == "Generation(id='a', state='failed', failure_reason='moderated')"


def test_gos_zero_time_is_none() -> None:
    one = decoded_task(created_at=ZERO_TIME, artifact={"created_at": ZERO_TIME})
    assert one.created_at is None
    assert one.artifact
    assert one.artifact.created_at is None


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-12-22T13:38:40.139Z", datetime(2024, 12, 22, 13, 38, 40, 139000, UTC)),
        ("2024-12-22T13:38:40.139409Z", datetime(2024, 12, 22, 13, 38, 40, 139409, UTC)),
        (
            "2024-12-22T21:38:40+08:00",
            datetime(2024, 12, 22, 21, 38, 40, tzinfo=timezone(timedelta(hours=8))),
        ),
        ("2024-12-22T13:38:40", datetime(2024, 12, 22, 13, 38, 40, tzinfo=UTC)),
        (1734874720, datetime(2024, 12, 22, 13, 38, 40, tzinfo=UTC)),
    ],
)
def test_created_at_is_aware(text: object, moment: datetime) -> None:
    one = decoded_task(created_at=text, artifact={"created_at": text})
    assert one.artifact
    for found in (one.created_at, one.artifact.created_at):
        assert found
        assert found == moment
        assert found.utcoffset() == moment.utcoffset()


def test_raise_for_failed_raises_for_a_failed_task() -> None:
    one = Generation(id="a", state=State.FAILED, failure_reason="moderated")
    with pytest.raises(GenerationFailed, match=r"^a failed: moderated$") as caught:
        one.raise_for_failed()
    assert caught.value.generation is one


@pytest.mark.parametrize("state", [State.PENDING, State.PROCESSING, State.COMPLETED])
def test_raise_for_failed_raises_nothing_for_other_states(state: State) -> None:
    Generation(id="a", state=state, failure_reason="too early").raise_for_failed()


@pytest.mark.parametrize("name", luma_async.__all__)
def test_each_public_name_exists_and_has_a_docstring(name: str) -> None:
    public: object = getattr(luma_async, name)
    if isinstance(public, str):
        return
    assert str(vars(public).get("__doc__") or getattr(public, "__doc__", "")).strip()
    for member, value in vars(public).items():
        if not member.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
            assert inspect.getdoc(value), f"{name}.{member}"
