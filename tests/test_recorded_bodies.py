"""Every recorded body of a relay, decoded from bytes and received as a real HTTP response."""

import json
from pathlib import Path
from typing import Any

import pytest

from luma_async import (
    AuthenticationError,
    BadRequestError,
    DecodeError,
    Generation,
    LumaError,
    LumaSession,
    NoSuchRouteError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    RateLimitedError,
    RelayError,
    State,
)
from luma_async.protocol.decoding import decode_response
from luma_async.testing import FakeRelay, Reply

pytestmark = pytest.mark.virtual_time

DATA = Path(__file__).parent / "data"
ID = "4665a07c-7641-4809-a133-10786201bb56"
MP4 = "video0b6619468da8e409da860706bbf26bbad.mp4"

COMPLETED = (State.COMPLETED, MP4, None)
PENDING = (State.PENDING, None, None)
PROCESSING = (State.PROCESSING, None, None)
EXPECTED = {
    "get-completed.json": COMPLETED,
    "get-completed-2024-07.json": (State.COMPLETED, f"{MP4}?X-Amz-Expires=3600", None),
    "get-completed-without-link.json": (State.COMPLETED, None, None),
    "get-data-list.json": COMPLETED,
    "get-failed.json": (State.FAILED, None, "Advanced moderation failed"),
    "get-pending.json": PENDING,
    "get-processing-short.json": PROCESSING,
    "get-wrapped-completed.json": COMPLETED,
    "tasks-completed.json": COMPLETED,
    "tasks-wrapped-completed.json": COMPLETED,
    "tasks-wrapped-none.json": None,
    "tasks-wrapped-open.json": PROCESSING,
    "tasks-wrapped-timed-out.json": (State.FAILED, None, "任务超时（1440分钟）"),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_kept_row_decodes_to_the_same_generation(name: str) -> None:
    answer = decode_response(200, {}, body(name)).for_task(ID)
    for task_id in answer.states:
        whole = answer.generation(task_id)
        again = answer.row(task_id).generation()
        assert again == whole
        assert again.raw == whole.raw


MEANS: dict[str, type[LumaError]] = {
    "authentication": AuthenticationError,
    "quota; the paid tasks still run": QuotaError,
    "quota": QuotaError,
    "permission": PermissionDeniedError,
    "not found": NotFoundError,
    "transient": RelayError,
    "no luma route here: configuration, not a task": NoSuchRouteError,
    "no such route: on the batch path, fall back to single GETs": NoSuchRouteError,
    "rate limited": RateLimitedError,
    "bad request; message from the first": BadRequestError,
}
ERRORS: list[dict[str, Any]] = json.loads((DATA / "errors.json").read_text())


def gist(generation: Generation) -> tuple[State, str | None, str | None]:
    url = generation.url and generation.url.rsplit("/")[-1].split("&")[0]
    return generation.state, url, generation.failure_reason


def body(name: str) -> bytes:
    return (DATA / name).read_bytes()


def test_each_recorded_body_has_an_expected_value() -> None:
    assert {path.name for path in DATA.glob("*.json")} == EXPECTED.keys() | {"errors.json"}
    assert {row["means"] for row in ERRORS} == MEANS.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_each_body_is_decoded(name: str) -> None:
    answer = decode_response(200, {}, body(name)).for_task(ID)
    expected = EXPECTED[name]
    assert list(answer.states) == ([ID] if expected else [])
    if expected:
        generation = answer.generation(ID)
        assert (generation.id, gist(generation)) == (ID, expected)
        assert generation.created_at is None or generation.created_at.tzinfo
        assert generation.artifact is None or generation.artifact.created_at is None


@pytest.mark.parametrize("name", EXPECTED)
async def test_each_body_is_decoded_from_a_real_response(
    relay: FakeRelay, luma: LumaSession, name: str
) -> None:
    relay.reply(Reply(body=body(name)))
    if name.startswith("tasks"):
        found = (await luma.get_many([ID, "another"])).get(ID)
    else:
        found = await luma.get(ID)
    assert (found and gist(found)) == EXPECTED[name]


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: row["name"])
async def test_each_error_body_raises_the_error_of_its_meaning(
    relay: FakeRelay, luma: LumaSession, row: dict[str, Any]
) -> None:
    headers = {"Content-Type": row["content_type"]} if row["content_type"] else {}
    raw = row["body"].encode()
    relay.reply(*[Reply(status=row["status"], headers=headers, body=raw)] * 3, optional=True)
    kind = DecodeError if not raw and row["status"] == 200 else MEANS[row["means"]]
    with pytest.raises(kind) as decoded:
        decode_response(row["status"], headers, raw)
    with pytest.raises(kind) as raised:
        await luma.get(ID)
    assert str(raised.value).replace(f" {relay.url}", "") == str(decoded.value)
    assert len(str(raised.value).splitlines()) == 1
    assert "<title>" not in str(raised.value) or len(str(raised.value)) < 300
