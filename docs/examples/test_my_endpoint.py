"""Tests of an endpoint of your own, through FastAPI's TestClient, with a relay in a thread.

pytest docs/examples/test_my_endpoint.py

TestClient blocks the event loop of a test, so a relay in that loop could not answer:
luma_relay_thread has a thread and a loop of its own. It comes with luma_async, as a plugin of
pytest. The endpoint is the one of partial_results.py.
"""

# pyright: basic
from collections.abc import Iterator

import partial_results
import pytest
from fastapi.testclient import TestClient

from luma_async import Every
from luma_async.testing import Reply, Script, ThreadedRelay


@pytest.fixture
def client(
    luma_relay_thread: ThreadedRelay, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    """Start the service, with the relay of this test and short intervals."""
    monkeypatch.setenv("LUMA_BASE_URL", luma_relay_thread.url)
    monkeypatch.setenv("LUMA_API_KEY", luma_relay_thread.api_key)
    monkeypatch.setattr(partial_results, "PACE", Every(0.02))
    with TestClient(partial_results.app) as client:
        yield client


def test_an_order_is_complete_when_all_videos_have_ended(
    client: TestClient, luma_relay_thread: ThreadedRelay
) -> None:
    luma_relay_thread.script = [Script(duration=0.1), Script(ends="failed", failure_reason="no")]
    order = client.post("/orders", json={"prompts": ["a cat", "a face"]}).json()
    assert (order["status"], order["done"], len(order["open"])) == ("waiting", [], 2)
    order = client.get(f"/orders/{order['id']}", params={"wait": 30}).json()
    assert (order["status"], order["open"]) == ("complete", [])
    assert {video["state"]: video["reason"] for video in order["done"]} == {
        "completed": None,
        "failed": "no",
    }


def test_an_order_out_of_time_has_partial_results(
    client: TestClient, luma_relay_thread: ThreadedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_results, "LIMIT", 0.5)
    luma_relay_thread.script = [Script(), Script(ends="never")]
    number = client.post("/orders", json={"prompts": ["a cat", "a dog"]}).json()["id"]
    order = client.get(f"/orders/{number}", params={"wait": 30}).json()
    assert order["status"] == "out of time"
    assert [video["state"] for video in order["done"]] == ["completed"]
    assert order["open"] == list(luma_relay_thread.tasks)[1:]


def test_a_relay_that_refuses_is_a_bad_gateway(
    client: TestClient, luma_relay_thread: ThreadedRelay
) -> None:
    luma_relay_thread.reply(Reply(status=503), on="submit")
    assert client.post("/orders", json={"prompts": ["a cat"]}).status_code == 502
    assert client.get("/orders/99").status_code == 404
