"""docs/openapi.yaml: our requests, the responses of FakeRelay and the samples conform to it."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any
from urllib.parse import quote, unquote

import aiohttp
import pytest
from hypothesis import given, settings

from luma_async import Limits, LumaSession, State, WaitTimeout
from luma_async.protocol.requests import batch_request, single_request
from luma_async.protocol.states import known_state
from luma_async.protocol.submissions import Submission, decode_submission
from luma_async.testing import SUBMIT_FAULTS, FakeRelay, Reply, SubmitShape
from luma_async.testing.simulation import ENVELOPES, Envelope
from luma_async.testing.submit_faults import SUBMIT_SHAPES
from tests import optional
from tests.properties import examples

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "openapi.yaml"
DATA = Path(__file__).parent / "data"
GET, POST = "/luma/generations/{task_id}", "/luma/tasks"
CREATE, EXTEND = "/luma/generations", "/luma/generations/{task_id}/extend"
SUBMISSION = {
    "user_prompt": "a cat",
    "aspect_ratio": "9:21",
    "expand_prompt": False,
    "loop": True,
    "image_url": "https://cdn.example/a.png",
    "image_end_url": "data:image/png;base64,AAAA",
    "model_name": "ray-v2",
    "another": 1,
}
TASK_ID = "4665a07c-7641-4809-a133-10786201bb56"
HOSTILE = ["a/b", "a/../b", "...", "任务", 'a"b', "%2F", "a b", "?x=1", "#", "\\", "\0", "a\r\nb"]
SAMPLES = {path.stem: path for path in sorted(DATA.glob("*-*.json"))}
ERRORS: list[dict[str, Any]] = json.loads((DATA / "errors.json").read_text())
WITHOUT_ANSWER = ("lost_before", "lost_after", "cut_after", "silent_after", "double_document")
NO_PRISM = "Prism: npm install -g @stoplight/prism-cli"
START_TIMEOUT = 60.0
LIMITS = Limits(max_rate=1000.0)
Check = Callable[[Any, str, int], list[str]]


@pytest.fixture(scope="module")
def document() -> Any:
    yaml = optional.module("yaml")
    return yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))


def operations(document: Any) -> dict[str, Any]:
    return {path: call for item in document["paths"].items() for path, call in [_only_call(*item)]}


def _only_call(path: str, calls: dict[str, Any]) -> tuple[str, Any]:
    (call,) = calls.values()
    return path, call


def content(document: Any, path: str, status: int) -> dict[str, Any]:
    """Return the documented bodies by media type; KeyError if the status is not documented."""
    responses = operations(document)[path]["responses"]
    response = responses.get(str(status)) or responses[f"{status // 100}XX"]
    if "$ref" in response:
        response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
    return dict(response["content"])


@pytest.fixture(scope="module")
def violations(document: Any) -> Check:
    """Return a function that lists the violations of the document in a JSON body."""
    jsonschema = optional.module("jsonschema_rs")

    def check(body: Any, path: str, status: int) -> list[str]:
        schema = content(document, path, status)["application/json"]["schema"]
        whole = {**schema, "components": document["components"]}
        validator = jsonschema.Draft202012Validator(whole, validate_formats=True)
        return [str(violation) for violation in validator.iter_errors(body)]

    return check


# the document


def test_the_document_has_exactly_the_four_requests_of_the_client(document: Any) -> None:
    submissions = [Submission(user_prompt="a", extends=one) for one in (None, "{task_id}")]
    requests = [single_request("{task_id}"), batch_request(["a"])]
    requests += [submission.request for submission in submissions]
    sent = {(unquote(each.path), each.method.lower(), each.body is not None) for each in requests}
    assert sent == {
        (path, method, "requestBody" in call)
        for path, calls in document["paths"].items()
        for method, call in calls.items()
    }


def test_the_client_knows_each_documented_state(document: Any) -> None:
    options = document["components"]["schemas"]["State"]["anyOf"]
    documented = [option["enum"] for option in options if "enum" in option]
    for words, state in zip(documented, State, strict=True):
        assert {known_state(word) for word in words} == {state}


def test_the_examples_of_the_document_are_the_samples(document: Any) -> None:
    kept = document["components"]["examples"]
    used = [content(document, path, 200)["application/json"]["examples"] for path in (GET, POST)]
    assert {name: example["value"] for name, example in kept.items()} == {
        name: json.loads(path.read_text()) for name, path in SAMPLES.items()
    }
    assert [name for examples in used for name in examples] == list(kept)


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_conforms_to_the_document(violations: Check, name: str) -> None:
    path = POST if name.startswith("tasks") else GET
    assert violations(json.loads(SAMPLES[name].read_text()), path, 200) == []


@pytest.mark.parametrize("path", [GET, POST])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error["name"])
def test_each_error_conforms_to_the_document(
    document: Any, violations: Check, error: dict[str, Any], path: str
) -> None:
    media_type = error["content_type"].partition(";")[0]
    documented = content(document, path, error["status"])
    is_web_page = error["status"] == 200 and media_type == "text/html"
    assert not media_type or (media_type in documented) is not is_web_page
    try:
        body = json.loads(error["body"])
    except ValueError:
        return
    assert violations(body, path, error["status"]) == []


@pytest.mark.parametrize("path", [CREATE, EXTEND])
def test_the_fields_of_a_submission_are_those_of_the_document(document: Any, path: str) -> None:
    call = operations(document)[path]
    assert call["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Submission"
    }
    named = document["components"]["schemas"]["Submission"]["properties"]
    assert set(Submission.__struct_fields__) - set(named) == {"others", "extends"}


@pytest.mark.parametrize("status", [200, 201])
def test_each_example_of_a_new_task_is_decoded(
    document: Any, violations: Check, status: int
) -> None:
    examples = content(document, CREATE, status)["application/json"]["examples"]
    for example in examples.values():
        assert violations(example["value"], CREATE, status) == []
        body = json.dumps(example["value"]).encode()
        assert decode_submission(status, {}, body).generation.id == TASK_ID


@pytest.mark.parametrize(
    ("name", "where", "value"),
    [
        ("get-completed", ["id"], 5),
        ("get-completed", ["id"], ""),
        ("get-completed", ["state"], None),
        ("get-completed", ["created_at"], "yesterday"),
        ("get-completed", ["video", "width"], "1360"),
        ("get-completed", ["artifact", "video_raw", "duration"], "5 s"),
        ("get-completed", ["thumbnail", "palette"], "grid"),
        ("get-wrapped-completed", ["data", "status"], "DONE"),
        ("get-wrapped-completed", ["data", "data", "state"], 1),
        ("get-data-list", ["data", 0, "id"], None),
        ("tasks-completed", [0, "id"], None),
        ("tasks-wrapped-open", ["data", 0, "id"], TASK_ID),
        ("tasks-wrapped-open", ["data", 0, "start_time"], "0"),
        ("tasks-wrapped-none", ["data"], {}),
    ],
)
def test_a_sample_with_one_wrong_value_violates_the_document(
    violations: Check, name: str, where: list[str | int], value: object
) -> None:
    body = inner = json.loads(SAMPLES[name].read_text())
    for step in where[:-1]:
        inner = inner[step]
    assert inner[where[-1]] != value
    inner[where[-1]] = value
    assert violations(body, POST if name.startswith("tasks") else GET, 200)


# our requests


@pytest.fixture(scope="module")
def prism() -> Iterator[str]:
    """Yield the URL of a Prism, which answers valid requests with the examples of the document."""
    named = os.environ.get("PRISM")
    local = ROOT / "node_modules" / ".bin" / "prism"
    command = shutil.which(named or "prism") or (None if named else shutil.which(str(local)))
    if command is None:
        pytest.skip(f"there is no {named}, which PRISM names" if named else NO_PRISM)
    arguments = ["mock", "-h", "127.0.0.1", "-p", "0", "--errors", str(DOCUMENT)]
    with subprocess.Popen(
        [command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout
            url = _listening(process, process.stdout)
            drain = threading.Thread(target=process.stdout.read)
            drain.start()
            yield url
            _kill(process)
            drain.join()
        finally:
            _kill(process)


def _listening(process: subprocess.Popen[str], output: IO[str]) -> str:
    """Read the URL from the first lines of Prism; fail if it exits first or takes too long."""
    timer = threading.Timer(START_TIMEOUT, _kill, [process])
    timer.start()
    printed = ""
    try:
        for line in output:
            printed += line
            if found := re.search(r"is listening on (http://[\w.]+:\d+)", line):
                return found[1]
    finally:
        timer.cancel()
    pytest.fail(f"Prism did not start within {START_TIMEOUT:g} s:\n{printed}")


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill Prism and all processes that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@asynccontextmanager
async def watched(
    headers: dict[str, str] | None = None,
) -> AsyncGenerator[tuple[aiohttp.ClientSession, list[tuple[str, int, str | None]]], None]:
    """Yield an HTTP session and its responses: method, status, and the violations Prism reports."""
    responses: list[tuple[str, int, str | None]] = []

    async def see(
        _: aiohttp.ClientSession, __: SimpleNamespace, end: aiohttp.TraceRequestEndParams
    ) -> None:
        violations = end.response.headers.get("sl-violations")
        responses.append((end.method, end.response.status, violations))

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(see)
    async with aiohttp.ClientSession(trace_configs=[trace], headers=headers) as http:
        yield http, responses


async def test_the_single_request_conforms_to_the_document(prism: str) -> None:
    """Prism resolves `%2E` and `%2E%2E` as a browser would, so these two ids are left out."""
    any_id = {"Prefer": "example=get-data-list"}
    async with (
        watched(any_id) as (http, responses),
        LumaSession(prism, api_key="sk-test", http=http, limits=LIMITS) as luma,
    ):
        for task_id in HOSTILE:
            assert (await luma.get(task_id)).id == task_id
    assert responses == [("GET", 200, None)] * len(HOSTILE)


async def test_the_batch_request_conforms_to_the_document(prism: str) -> None:
    async with (
        watched() as (http, responses),
        LumaSession(prism, api_key="sk-test", http=http, limits=LIMITS) as luma,
    ):
        assert list(await luma.get_many([*HOSTILE, TASK_ID, TASK_ID])) == [TASK_ID]
    assert responses == [("POST", 200, None)]


async def test_the_requests_of_a_wait_conform_to_the_document(prism: str) -> None:
    async with (
        watched() as (http, responses),
        LumaSession(prism, api_key="sk-test", http=http, limits=LIMITS) as luma,
    ):
        assert (await luma.wait_until_done(TASK_ID)).state is State.COMPLETED
        with pytest.raises(WaitTimeout):
            await luma.wait_until_done([TASK_ID, *HOSTILE], timeout=0)
    assert {(status, violations) for _, status, violations in responses} == {(200, None)}


@pytest.mark.parametrize("example", ["task", "array", "task id", "data", "data is the id"])
async def test_the_submissions_conform_to_the_document(prism: str, example: str) -> None:
    async with (
        watched({"Prefer": f'example="{example}"'}) as (http, responses),
        LumaSession(prism, api_key="sk-test", http=http, limits=LIMITS) as luma,
    ):
        fields: dict[str, Any] = SUBMISSION
        assert (await luma.create(**fields)).id == TASK_ID
        assert (await luma.create("任务")).id == TASK_ID
        assert (await luma.extend("a/b", **fields)).id == TASK_ID
    assert responses == [("POST", 200, None)] * 3


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("get-completed", State.COMPLETED),
        ("get-pending", State.PENDING),
        ("get-processing-short", State.PROCESSING),
        ("get-failed", State.FAILED),
        ("get-completed-2024-07", State.COMPLETED),
        ("get-completed-without-link", State.COMPLETED),
        ("get-wrapped-completed", State.COMPLETED),
        ("get-data-list", State.COMPLETED),
        ("tasks-completed", State.COMPLETED),
        ("tasks-wrapped-completed", State.COMPLETED),
        ("tasks-wrapped-open", State.PROCESSING),
        ("tasks-wrapped-timed-out", State.FAILED),
        ("tasks-wrapped-none", None),
    ],
)
async def test_each_example_that_prism_returns_is_decoded(
    prism: str, name: str, state: State | None
) -> None:
    async with (
        watched({"Prefer": f"example={name}"}) as (http, responses),
        LumaSession(prism, api_key="sk-test", http=http, limits=LIMITS) as luma,
    ):
        if name.startswith("tasks"):
            found = (await luma.get_many([TASK_ID, "b"])).get(TASK_ID)
        else:
            found = await luma.get(TASK_ID)
    assert (found and found.state) is state
    assert [status for _, status, _ in responses] == [200]


HEADERS = {
    "Authorization": "Bearer sk-test",
    "Accept": "application/json",
    "Content-Type": "application/json",
}


@pytest.mark.parametrize(
    ("method", "path", "body", "omitted"),
    [
        ("POST", POST, b'{"ids":[]}', ""),
        ("POST", POST, b'{"ids":[""]}', ""),
        ("POST", POST, b'{"ids":[1]}', ""),
        ("POST", POST, b'{"ids":["a","a"]}', ""),
        ("POST", POST, b'{"ids":"a"}', ""),
        ("POST", POST, b'{"ids":["a"],"model":"ray-2"}', ""),
        ("POST", POST, b"{}", ""),
        ("POST", POST, None, ""),
        ("GET", "/luma/generations/a", b'{"model":"ray-2"}', ""),
        ("GET", "/luma/generations/", None, ""),
        ("GET", "/luma/generations/a/b", None, ""),
        ("POST", CREATE, b"{}", ""),
        ("POST", CREATE, None, ""),
        ("POST", CREATE, b'{"prompt":"a cat"}', ""),
        ("POST", CREATE, b'{"user_prompt":" "}', ""),
        ("POST", CREATE, b'{"user_prompt":"a cat","aspect_ratio":"wide"}', ""),
        ("POST", "/luma/generations/a/extend", b'{"loop":true}', ""),
        *[("GET", "/luma/generations/a", None, name) for name in HEADERS],
        *[("POST", CREATE, b'{"user_prompt":"a"}', name) for name in HEADERS],
        *[("POST", POST, b'{"ids":["a"]}', name) for name in HEADERS],
    ],
)
async def test_prism_rejects_an_invalid_request(
    prism: str, method: str, path: str, body: bytes | None, omitted: str
) -> None:
    headers = {name: value for name, value in HEADERS.items() if name != omitted}
    async with (
        aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as http,
        http.request(method, prism + path, data=body, headers=headers) as response,
    ):
        assert 400 <= response.status < 500


# FakeRelay


@pytest.fixture(scope="module")
def calls() -> list[Any]:
    """Return the single and the batch operation, as schemathesis reads them."""
    schemathesis = optional.module("schemathesis")
    schema = schemathesis.openapi.from_path(str(DOCUMENT))
    paths = {GET: "GET", POST: "POST", CREATE: "POST", EXTEND: "POST"}
    return [schema[path][method] for path, method in paths.items()]


@pytest.mark.parametrize("envelope", ENVELOPES)
async def test_the_responses_about_existing_tasks_conform_to_the_document(
    calls: list[Any], envelope: Envelope
) -> None:
    get, post, *_ = calls
    async with FakeRelay(envelope=envelope) as relay:
        for task_id in HOSTILE:
            relay.add(task_id)
        relay.add(ends="failed")
        relay.add(ends="never")
        relay.add(link_after=1000.0)
        for _ in range(3):
            relay.add(queued=1000.0, duration=2000.0)
        ids = list(relay.tasks)
        for task_id in ids:
            await _try(relay, get.Case(path_parameters={"task_id": quote(task_id, safe="")}))
        await _try(relay, post.Case(body={"ids": ids}, media_type="application/json"))
    assert [asked.ids for asked in relay.log] == [*[(each,) for each in ids], tuple(ids)]
    assert {asked.status for asked in relay.log} == {200}


@pytest.mark.parametrize("envelope", ENVELOPES)
async def test_the_responses_to_generated_requests_conform_to_the_document(
    calls: list[Any], envelope: Envelope
) -> None:
    async with FakeRelay(envelope=envelope) as relay:
        relay.add(TASK_ID)
        for call in calls:
            await asyncio.to_thread(_attack, relay, call)
    found = {(asked.method, asked.status) for asked in relay.log}
    assert found >= {(method, status) for method in ("GET", "POST") for status in (200, 400, 401)}


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("shape", SUBMIT_SHAPES)
async def test_the_responses_to_submissions_conform_to_the_document(
    calls: list[Any], shape: SubmitShape, envelope: Envelope
) -> None:
    *_, create, extend = calls
    async with FakeRelay(envelope=envelope, submit_shape=shape) as relay:
        await _try(relay, create.Case(body=SUBMISSION, media_type="application/json"))
        parent = {"task_id": relay.created[0]}
        for path_parameters in (parent, {"task_id": "unknown"}):
            await _try(
                relay,
                extend.Case(
                    path_parameters=path_parameters,
                    body={"user_prompt": "more"},
                    media_type="application/json",
                ),
            )
        assert [asked.status for asked in relay.log] == [200, 200, 400]
        for fault in SUBMIT_FAULTS:
            if fault not in WITHOUT_ANSWER:
                relay.submit_faults = {fault: 1.0}
                await _try(relay, create.Case(body=SUBMISSION, media_type="application/json"))


@pytest.mark.parametrize(
    "wrong",
    [
        Reply(200, b'{"id":5,"state":"completed"}'),
        Reply(200, b'{"code":"success","message":"","data":[{"id":1}]}'),
        Reply(200, b"<html>", {"Content-Type": "text/html"}),
        Reply(200, b"[]", {}),
        Reply(418, b'{"error":{"message":"I am a teapot"}}'),
        Reply(400, b'{"oops":1}'),
    ],
    ids=lambda wrong: f"{wrong.status} {wrong.body.decode()}",
)
async def test_a_response_that_violates_the_document_is_found(
    calls: list[Any], relay: FakeRelay, wrong: Reply
) -> None:
    relay.reply(wrong)
    with pytest.raises(BaseExceptionGroup):
        await _try(relay, calls[1].Case(body={"ids": ["a"]}, media_type="application/json"))


async def _try(relay: FakeRelay, case: Any) -> None:
    await asyncio.to_thread(_send, relay, case)


def _attack(relay: FakeRelay, call: Any) -> None:
    """Send requests that the document allows and that it forbids, and check each response."""
    for mode in optional.module("schemathesis").GenerationMode:

        @settings(max_examples=examples(10))
        @given(case=call.as_strategy(generation_mode=mode))
        def attack(case: Any) -> None:
            _send(relay, case)

        attack()


def _send(relay: FakeRelay, case: Any) -> None:
    """Send a request; raise if the response violates the document."""
    checks = optional.module("schemathesis.specs.openapi.checks")
    case.call_and_validate(
        base_url=relay.url,
        headers={"Authorization": f"Bearer {relay.api_key}"},
        checks=[
            checks.status_code_conformance,
            checks.content_type_conformance,
            checks.response_headers_conformance,
            checks.response_schema_conformance,
        ],
    )
