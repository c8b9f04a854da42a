"""The messages of one id in both streams, and the loop that stores a result: without a server."""

from datetime import UTC, datetime, timedelta
from typing import Any

import nats.js.errors
import pytest
from nats.js import api

from luma_async.worker.server.streams import Names
from luma_async.worker.storage.result_store import (
    IdStreams,
    microseconds,
    store_result,
    submission_of,
)
from luma_async.worker.storage.results import EndState, encode_result
from luma_async.worker.storage.submissions import StoredKey, Submission
from tests.worker.local_queue import delivery, message

OWN = Submission(5, 1_000)
NEWER = Submission(9, 2_000)
STORED_AT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
STORED_AT_MICROSECONDS = 1_767_323_045_678_901


class JetStream:
    """The last messages of both streams; `error` is what a publish raises."""

    def __init__(self) -> None:
        self.last: dict[tuple[str, str], api.RawStreamMsg] = {}
        self.error: Exception | None = None
        self.published: list[tuple[str, bytes, dict[str, str]]] = []

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        self.published.append((subject, payload, headers))
        if self.error is not None:
            raise self.error

    async def get_last_msg(self, stream: str, subject: str) -> api.RawStreamMsg:
        try:
            return self.last[stream, subject]
        except KeyError:
            raise nats.js.errors.NotFoundError(code=404) from None


def streams_of(js: Any) -> IdStreams:
    return IdStreams(js, Names("cats"), "a")


def payload_of(submission: Submission) -> bytes:
    return encode_result("a", EndState.MISSING, None, submission, max_bytes=1_000)[0]


async def test_a_result_is_published_on_the_condition_that_the_last_one_is_as_expected() -> None:
    js = JetStream()
    assert await streams_of(js).publish(b"result", 7)
    headers = {"Nats-Expected-Last-Subject-Sequence": "7"}
    assert js.published == [("cats.done.a", b"result", headers)]


async def test_a_conflict_is_no_error_and_each_other_answer_of_the_server_is_one() -> None:
    js = JetStream()
    for js.error in (nats.js.errors.APIError(400, err_code=code) for code in (10071, 10164)):
        assert await streams_of(js).publish(b"result", 0) is False
    js.error = nats.js.errors.APIError(503, err_code=10077)
    with pytest.raises(nats.js.errors.APIError) as raised:
        await streams_of(js).publish(b"result", 0)
    assert raised.value is js.error


async def test_nothing_is_read_of_an_id_that_is_in_neither_stream() -> None:
    streams = streams_of(JetStream())
    assert await streams.read_result() is None
    assert await streams.read_waiting() is None


async def test_a_stored_result_is_read_with_its_number_its_time_and_its_submission() -> None:
    js, payload = JetStream(), payload_of(OWN)
    key = ("cats-done", "cats.done.a")
    js.last[key] = api.RawStreamMsg(seq=3, data=payload, time=STORED_AT)
    read = await streams_of(js).read_result()
    assert read == (StoredKey(3, STORED_AT_MICROSECONDS, OWN), payload)
    for other in (b"{}", None):
        js.last[key] = api.RawStreamMsg(seq=4, data=other, time=STORED_AT)
        read = await streams_of(js).read_result()
        assert read == (StoredKey(4, STORED_AT_MICROSECONDS, None), other or b"")


async def test_a_message_in_the_wait_stream_is_a_submission() -> None:
    js = JetStream()
    js.last["cats-wait", "cats.wait.a"] = api.RawStreamMsg(seq=8, time=STORED_AT)
    assert await streams_of(js).read_waiting() == Submission(8, STORED_AT_MICROSECONDS)


async def test_a_message_without_a_number_or_a_time_has_zeros() -> None:
    js = JetStream()
    js.last["cats-wait", "cats.wait.a"] = api.RawStreamMsg()
    js.last["cats-done", "cats.done.a"] = api.RawStreamMsg()
    assert await streams_of(js).read_waiting() == Submission(0, 0)
    assert await streams_of(js).read_result() == (StoredKey(0, 0, None), b"")


@pytest.mark.parametrize("prefix", ["", "_.ACCOUNT.", "domain.ACCOUNT."])
def test_a_delivery_names_its_submission_to_the_microsecond(prefix: str) -> None:
    """Servers with domains put two words more before the stream, and a random one at the end."""
    time = STORED_AT_MICROSECONDS * 1_000 + 999
    end = ".random" if prefix else ""
    reply = f"$JS.ACK.{prefix}cats-wait.workers.1.42.17.{time}.6{end}"
    submission = Submission(42, STORED_AT_MICROSECONDS)
    assert submission_of(message("cats.wait.a", b"", reply)) == submission


def test_times_are_whole_microseconds_since_1970() -> None:
    assert repr(microseconds(STORED_AT)) == str(STORED_AT_MICROSECONDS), "not a float"
    assert microseconds(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=1)) == 1
    assert submission_of(delivery("a", 3)).sequence == 3


class Store:
    """One id: what is stored, what waits, and the requests in their order."""

    def __init__(self, stored: StoredKey | None, waiting: Submission | None) -> None:
        self.stored = stored
        self.waiting = waiting
        self.requests: list[str] = []

    async def publish(self, expected: int, /) -> bool:
        self.requests.append(f"publish {expected}")
        return expected == (self.stored.sequence if self.stored else 0)

    async def read_stored(self) -> StoredKey | None:
        self.requests.append("stored")
        return self.stored

    async def read_waiting(self) -> Submission | None:
        self.requests.append("waiting")
        return self.waiting


EARLIER = StoredKey(6, 900, Submission(4, 800))
READ = ["stored", "waiting"]


@pytest.mark.parametrize(
    ("stored", "waiting", "is_leased", "is_stored", "requests"),
    [
        (None, OWN, True, True, ["publish 0"]),
        (EARLIER, OWN, True, True, ["publish 0", *READ, "publish 6"]),
        (None, OWN, False, True, [*READ, "publish 0"]),
        (EARLIER, OWN, False, True, [*READ, "publish 6"]),
        (None, NEWER, False, False, READ),
        (EARLIER, NEWER, True, False, ["publish 0", *READ]),
        (StoredKey(6, 1_500, OWN), None, True, False, ["publish 0", *READ]),
    ],
)
async def test_a_result_is_published_first_and_after_a_conflict_what_is_stored_decides(
    stored: StoredKey | None,
    waiting: Submission | None,
    is_leased: bool,
    is_stored: bool,
    requests: list[str],
) -> None:
    """Without a certain lease, reading comes first."""
    store = Store(stored, waiting)
    assert await store_result(store, OWN, is_leased=is_leased) is is_stored
    assert store.requests == requests


async def test_a_lease_is_certain_unless_the_worker_says_otherwise() -> None:
    store = Store(None, OWN)
    assert await store_result(store, OWN)
    assert store.requests == ["publish 0"]
