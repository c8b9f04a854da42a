"""The replies of a FakeRelay: which endpoint a request is for, and what it is answered.

A reply is, in this order: a scripted one, a 404 for an unknown route, or the state of the simulated
tasks, with a random fault if there is one. There is no event loop and no HTTP here.
"""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal
from urllib.parse import unquote

import msgspec

from luma_async.testing import bodies, media, submissions
from luma_async.testing.faults import apply_fault, choose_fault, prepare_breakage, stale_ids
from luma_async.testing.playback import Playback
from luma_async.testing.scripted_replies import Endpoint, ScriptedReplies
from luma_async.testing.simulation import Simulation
from luma_async.testing.submit_faults import (
    apply_submit_fault,
    makes_task,
    shaped,
)
from luma_async.testing.types import Asked, Fault, IncomingRequest, Reply, SubmitFault, SubmitShape

_SUBMIT_PATH = "/luma/generations"
_SINGLE_PATH = "/luma/generations/"
_EXTEND = "/extend"
_BATCH_PATH = "/luma/tasks"


class _Batch(msgspec.Struct):
    ids: list[str]


_batch_decoder = msgspec.json.Decoder(_Batch)


class Responder:
    """Chooses the reply to each request.

    `latency` is in seconds. `seed` decides which requests meet one of the `faults`.
    """

    def __init__(
        self,
        simulation: Simulation,
        *,
        api_key: str,
        latency: float,
        path_prefix: str,
        seed: int,
        faults: dict[Fault, float],
        submit_faults: dict[SubmitFault, float],
        submit_shape: SubmitShape,
    ) -> None:
        self.api_key: str = api_key
        self.faults: dict[Fault, float] = faults
        self.submit_faults: dict[SubmitFault, float] = submit_faults
        self.submit_shape: SubmitShape = submit_shape
        self.path_prefix: str = path_prefix
        self._simulation = simulation
        self._latency = latency
        self._rng = random.Random(f"faults of {seed}")  # noqa: S311 - reproducible
        self._submit_rng = random.Random(f"faults of submissions of {seed}")  # noqa: S311
        self.playback: Playback | None = None
        self.scripted: ScriptedReplies = ScriptedReplies()

    def respond(self, request: IncomingRequest, now: float) -> tuple[Endpoint | None, Reply, Asked]:
        """Return the endpoint of a request, None if unknown, its reply and its record."""
        endpoint, ids = self._parse(request)
        known_ids = self._simulation.interned(ids or ())
        record = Asked(now, request.method, request.path, known_ids)
        if (reply := self.scripted.take(endpoint)) is not None:
            record = replace(record, fault=reply.breakage)
            return endpoint, prepare_breakage(reply, reply.breakage), record
        return endpoint, *self._simulated(endpoint, ids, record, request)

    def _parse(self, request: IncomingRequest) -> tuple[Endpoint | None, tuple[str, ...] | None]:
        """Return the endpoint and the task ids of a request; None for what is invalid."""
        method, path, _, body = request
        route = path.removeprefix(self.path_prefix) if path.startswith(self.path_prefix) else ""
        if method == "POST" and route == _BATCH_PATH:
            return "tasks", _decode_ids(body)
        if method == "POST" and route == _SUBMIT_PATH:
            return "submit", None
        parent = route.removeprefix(_SINGLE_PATH).removesuffix(_EXTEND)
        if method == "POST" and route == f"{_SINGLE_PATH}{parent}{_EXTEND}" and parent:
            return "submit", (unquote(parent),)
        segment = route.removeprefix(_SINGLE_PATH)
        if method == "GET" and route.startswith(_SINGLE_PATH) and segment and "/" not in segment:
            return "get", (unquote(segment),)
        if method in ("GET", "HEAD") and (file := media.parse_route(route)):
            return "media", file[:1]
        return None, None

    def _simulated(
        self,
        endpoint: Endpoint | None,
        ids: tuple[str, ...] | None,
        record: Asked,
        request: IncomingRequest,
    ) -> tuple[Reply, Asked]:
        match endpoint:
            case None:
                body = bodies.no_such_route(record.method, record.path)
                return Reply(404, body, delay=self._latency), record
            case "media":
                return self._file(record, request.headers), record
            case "submit":
                return self._submission(record, request, ids)
            case "get" | "tasks":
                return self._poll(endpoint, ids, record, request.headers)

    def _file(self, record: Asked, headers: Mapping[str, str]) -> Reply:
        (task_id,) = record.ids
        if not self._simulation.has_files(task_id, record.at):
            return Reply(404, b"no such file\n", {"Content-Type": "text/plain"})
        kind: media.Kind = "mp4" if record.path.endswith(".mp4") else "svg"
        return media.media_reply(task_id, kind, record.method, headers)

    def _submission(
        self, record: Asked, request: IncomingRequest, parent: tuple[str, ...] | None
    ) -> tuple[Reply, Asked]:
        """Return the reply to a submission, with a fault if one is chosen; make the task."""
        if not self._is_authorized(request.headers):
            return Reply(401, bodies.BAD_KEY, delay=self._latency), record
        try:
            submission = submissions.decode_submission(request.body)
        except ValueError as error:
            return Reply(400, bodies.bad_request(str(error)), delay=self._latency), record
        if parent and self._simulation.get(parent[0], record.at) is None:
            return Reply(400, bodies.NO_ORIGIN, delay=self._latency), record
        fault = choose_fault(self.submit_faults, self._submit_rng.random())
        body, ids = b"", record.ids
        if makes_task(fault):
            task_id = self._simulation.create(submission, record.at)
            ids = (*ids, task_id)
            body = self._simulation.get(task_id, record.at) or b""
            if self.submit_shape == "array":
                body = self._simulation.bare_object(task_id, record.at)
            body = shaped(body, task_id, self.submit_shape)
        reply = Reply(200, body, delay=self._latency)
        return apply_submit_fault(reply, fault), replace(record, ids=ids, submit_fault=fault)

    def _poll(
        self,
        endpoint: Literal["get", "tasks"],
        ids: tuple[str, ...] | None,
        record: Asked,
        headers: Mapping[str, str],
    ) -> tuple[Reply, Asked]:
        """Return the reply to a request for tasks, with a fault if one is chosen.

        One random number chooses the fault and is the seed of its details, so that the fault of a
        request does not depend on the content of the requests before it.
        """
        number = self._rng.random()
        fault, rng = choose_fault(self.faults, number), random.Random(number)  # noqa: S311
        record = replace(record, fault=fault)
        if fault == "stale" and ids:
            ids = stale_ids(ids, rng) if endpoint == "tasks" else ()
        if self.playback is not None and ids and self._is_authorized(headers):
            simulated = self._simulation
            reply = self.playback.reply(
                endpoint, ids, simulated.tasks, record.at, simulated.base_url
            )
            reply = replace(reply, delay=self._latency)
        else:
            status, body = self._tasks(endpoint, ids, record, headers)
            reply = Reply(status, body, delay=self._latency)
        fields = {**reply.headers, "Date": self._simulation.date(record.at)}
        return apply_fault(replace(reply, headers=fields), fault, rng), record

    def _tasks(
        self,
        endpoint: Literal["get", "tasks"],
        ids: tuple[str, ...] | None,
        record: Asked,
        headers: Mapping[str, str],
    ) -> tuple[int, bytes]:
        """Return status and body for a request for tasks."""
        if not self._is_authorized(headers):
            return 401, bodies.BAD_KEY
        if ids is None:
            return 400, bodies.bad_request("ids: a list of texts is needed")
        if endpoint == "tasks":
            strangers = record.fault == "strangers"
            return 200, self._simulation.get_many(ids, record.at, strangers=strangers)
        found = self._simulation.get(ids[0], record.at) if ids else None
        return (400, bodies.UNKNOWN_TASK) if found is None else (200, found)

    def _is_authorized(self, headers: Mapping[str, str]) -> bool:
        return headers.get("Authorization", "") == f"Bearer {self.api_key}"


def _decode_ids(body: bytes) -> tuple[str, ...] | None:
    try:
        return tuple(_batch_decoder.decode(body).ids)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
