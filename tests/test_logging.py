"""What is logged: changes of state at DEBUG, outages once, and no more than that."""

import asyncio
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from luma_async import (
    AuthenticationError,
    ChangeEvent,
    Every,
    LumaSession,
    RelayError,
    WaitAborted,
    WaitTimeout,
)
from luma_async.polling.hooks import ChangeNotifier, Hook
from luma_async.testing import FakeRelay, Reply
from luma_async.testing.types import Fault
from tests.odd_relays import Oddity, OddRelay, always, on_batch, storm

pytestmark = pytest.mark.virtual_time

HOUR = 3600.0
PAGE = Path(__file__).parent.parent / "docs" / "howto" / "logging.md"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "luma_async")
    return caplog


def lines(log: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [one.getMessage() for one in log.records if one.levelno == level]


def session(relay: FakeRelay) -> LumaSession:
    return LumaSession(relay.url, api_key=relay.api_key, pace=Every(20.0))


async def waited(luma: LumaSession, relay: FakeRelay, ids: int, seconds: float) -> None:
    with pytest.raises(WaitTimeout):
        await luma.wait_until_done([relay.add(ends="never") for _ in range(ids)], timeout=seconds)


class TestChanges:
    async def test_changes_of_state_are_logged_at_debug(
        self, relay: FakeRelay, luma: LumaSession, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "luma_async")
        task_id = relay.add(queued=20.0, duration=60.0, ends="failed")
        await luma.wait_until_done([task_id])
        assert lines(caplog, logging.DEBUG) == [
            f"{task_id}: pending",
            f"{task_id}: pending -> processing",
            f"{task_id}: processing -> failed",
        ]

    async def test_an_unknown_id_is_missing(
        self, relay: FakeRelay, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "luma_async")
        async with LumaSession(relay.url, api_key=relay.api_key, missing_grace=0.0) as luma:
            await asyncio.wait([asyncio.ensure_future(luma.wait_until_done(["unknown"]))])
        assert lines(caplog, logging.DEBUG) == ["unknown: missing"]

    async def test_a_hostile_id_forges_no_line(
        self, relay: FakeRelay, luma: LumaSession, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "luma_async")
        task_id = relay.add(task_id="a\nERROR all is lost\x1b[2J\u202e")
        await luma.wait_until_done([task_id])
        assert lines(caplog, logging.DEBUG) == ["a ERROR all is lost\ufffd[2J\ufffd: completed"]

    def test_a_notifier_without_a_hook_or_a_debug_log_has_no_listener(
        self, log: pytest.LogCaptureFixture
    ) -> None:
        assert not ChangeNotifier(None).has_listener
        events: list[ChangeEvent] = []
        assert ChangeNotifier(Hook("on_change", events.append)).has_listener
        log.set_level(logging.DEBUG, "luma_async")
        assert ChangeNotifier(None).has_listener


class TestOutages:
    async def test_an_outage_of_ten_minutes_is_logged_once_and_so_is_its_end(
        self, relay: FakeRelay, luma: LumaSession, log: pytest.LogCaptureFixture
    ) -> None:
        wait = asyncio.ensure_future(waited(luma, relay, 300, 1500.0))
        await asyncio.sleep(60.0)
        relay.faults = {"storm": 1.0}
        await asyncio.sleep(600.0)
        relay.faults = {}
        failed = luma.stats.errors
        await wait
        (warning,) = lines(log)
        assert warning.startswith("a request failed: status 5")
        assert warning.endswith("; retrying with increasing delay")
        (well,) = lines(log, logging.INFO)
        assert well.startswith(f"the relay recovered: no failure for 60 s; {failed} of ")
        assert well.endswith(" requests failed before")

    @pytest.mark.parametrize(("open_ids", "seed"), [(1, 0), (100, 1)])
    async def test_an_hour_in_which_each_twentieth_request_fails_is_logged_six_times_at_most(
        self, open_ids: int, seed: int, log: pytest.LogCaptureFixture
    ) -> None:
        faults: dict[Fault, float] = {"storm": 0.02, "throttled": 0.02, "reset": 0.01}
        async with (
            FakeRelay(seed=seed, faults=faults) as relay,
            LumaSession(relay.url, api_key=relay.api_key, pace=Every(5.0)) as luma,
        ):
            await waited(luma, relay, open_ids, HOUR)
            assert luma.stats.errors > 15
        assert 1 <= len(lines(log)) <= 6
        assert len(lines(log, logging.INFO)) <= 6

    async def test_a_retry_after_is_logged(
        self, relay: FakeRelay, luma: LumaSession, log: pytest.LogCaptureFixture
    ) -> None:
        relay.reply(Reply(status=429, headers={"Retry-After": "300"}, body=b'{"message": "slow"}'))
        await luma.wait_until_done([relay.add()])
        assert lines(log) == [
            "a request failed: status 429: slow; waiting for 5 min, as the relay asks"
        ]

    async def test_a_rejected_batch_is_logged_with_the_action(
        self, relay: FakeRelay, luma: LumaSession, log: pytest.LogCaptureFixture
    ) -> None:
        relay.reply(Reply(status=422, body=b'{"message": "bad id"}'))
        await luma.wait_until_done([relay.add(), relay.add()])
        assert lines(log) == [
            "a request failed: status 422: bad id; retrying with fewer ids per request"
        ]

    async def test_a_rejected_key_is_logged_once_however_often_it_is_tried(
        self, relay: FakeRelay, log: pytest.LogCaptureFixture
    ) -> None:
        async with LumaSession(relay.url, api_key="sk-of-another-account") as luma:
            for _ in range(20):
                with pytest.raises(WaitAborted) as caught:
                    await luma.wait_until_done([relay.add()])
                assert isinstance(caught.value.cause, AuthenticationError)
                with pytest.raises(AuthenticationError):
                    await luma.get("a")
        (warning,) = lines(log)
        assert warning.startswith("a request failed: status 401")
        assert warning.endswith("; check the API key and the account")

    async def test_a_rejected_key_is_logged_during_an_outage_too(
        self, relay: FakeRelay, luma: LumaSession, log: pytest.LogCaptureFixture
    ) -> None:
        relay.reply(Reply(status=503), *[Reply(status=401, body=b'{"message": "no"}')] * 2)
        with pytest.raises(WaitAborted):
            await luma.wait_until_done([relay.add()])
        assert [line.split(";")[0] for line in lines(log)] == [
            "a request failed: status 503",
            "a request failed: status 401: no",
        ]

    async def test_a_relay_without_a_batch_endpoint_is_logged_once_and_is_no_outage(
        self, relay: FakeRelay, luma: LumaSession, log: pytest.LogCaptureFixture
    ) -> None:
        relay.reply(*[Reply(status=404, body=b'{"message": "Invalid URL"}')] * 3, on="tasks")
        await luma.wait_until_done([relay.add(duration=300.0) for _ in range(3)])
        assert lines(log) == ["the relay has no batch endpoint; polling one id per request for now"]

    async def test_a_batch_endpoint_that_is_lost_again_is_logged_again(
        self, relay: FakeRelay, luma: LumaSession, log: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(2):
            relay.reply(*[Reply(status=404, body=b'{"message": "Invalid URL"}')] * 3, on="tasks")
            await luma.wait_until_done([relay.add(duration=600.0) for _ in range(3)])
        assert len(lines(log)) == 2

    async def test_batches_without_running_tasks_are_logged_once(
        self, log: pytest.LogCaptureFixture
    ) -> None:
        none = Oddity("finished tasks alone", on_batch(lambda _: []))
        async with OddRelay(none) as relay, session(relay) as luma:
            await waited(luma, relay, 12, 0.5 * HOUR)
        assert lines(log) == [
            "batch responses leave out tasks that the single endpoint knows; "
            "polling one id per request for now"
        ]

    async def test_empty_answers_of_both_endpoints_are_no_proof_against_batches(
        self, log: pytest.LogCaptureFixture
    ) -> None:
        empty = storm("empty", always(200, []), 60.0)
        async with OddRelay(empty) as relay, LumaSession(relay.url, api_key="key") as luma:
            relay.api_key = "key"
            await waited(luma, relay, 30, 200.0)
        assert lines(log) == []

    async def test_what_a_relay_says_forges_no_line(
        self, relay: FakeRelay, luma: LumaSession, log: pytest.LogCaptureFixture
    ) -> None:
        relay.reply(Reply(status=500, body=b'{"message": "a\\nERROR all is lost\\u001b[2J"}'))
        await luma.wait_until_done([relay.add()])
        (warning,) = lines(log)
        assert warning.startswith("a request failed: status 500: a ERROR all is lost\ufffd[2J;")

    async def test_direct_calls_share_the_outage_with_the_polls(
        self, relay: FakeRelay, luma: LumaSession, log: pytest.LogCaptureFixture
    ) -> None:
        relay.faults = {"storm": 1.0}
        for _ in range(3):
            with pytest.raises(RelayError):
                await luma.get("a")
        await waited(luma, relay, 2, 30.0)
        assert len(lines(log)) == 1

    async def test_a_timeout_is_logged_as_one(
        self, relay: FakeRelay, luma: LumaSession, log: pytest.LogCaptureFixture
    ) -> None:
        relay.reply(Reply(breakage="black_hole"))
        await luma.wait_until_done([relay.add()])
        (warning,) = lines(log)
        assert warning.startswith("a request failed: no answer within 30 s; retrying")


def test_the_page_runs_as_it_is_pasted_from_its_top_to_its_end() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    command = [sys.executable, "-W", "error", "-c", "".join(blocks)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert 'luma_request_seconds_count{call="get_many",error=""} 1.0' in run.stdout
    assert run.stderr.count("DEBUG luma_async ") == 2
