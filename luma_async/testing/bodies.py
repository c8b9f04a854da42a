"""The bodies of a FakeRelay's responses.

Their shapes are from the published samples (completed), from captured responses (pending,
processing, table rows) and from the documentation (failed).
"""

from datetime import UTC, datetime
from typing import Any

import msgspec

from luma_async.testing.media import media_url
from luma_async.testing.types import Stage, Task

_SIZE = {"width": 1360, "height": 752}
_GRID = (
    "em9csKqXYUgqdHVmmqeZLB8YaFpLjVw2bmFTTElBHhMNTzgodD8eVzUeTDorRSkYYEQymV80e1M0ck0ugWVRwKCApWk0"
)
_GO_ZERO_TIME = "0001-01-01T00:00:00Z"
_PENDING_STATUSES = ("NOT_START", "SUBMITTED", "QUEUED")
_STATUS = {"processing": "IN_PROGRESS", "failed": "FAILURE"}
_PROGRESS = {"pending": "0%", "processing": "50%"}

UNKNOWN_TASK = b'{"code":"task_not_exist","message":"task_not_exist","data":null}'
NO_ORIGIN = b'{"code":"task_origin_not_exist","message":"task_origin_not_exist","data":null}'
BAD_KEY = (
    '{"error":{"message":"无效的令牌 (request id: 20241222133840139)","type":"new_api_error"}}'
).encode()


def no_such_route(method: str, path: str) -> bytes:
    """Return the body of the 404 for an unknown route."""
    message = f"Invalid URL ({method} {path})"
    error = {"message": message, "type": "invalid_request_error", "param": "", "code": ""}
    return msgspec.json.encode({"error": error})


def bad_request(message: str) -> bytes:
    """Return the body of the 400 for an invalid request."""
    return msgspec.json.encode({"code": "invalid_request", "message": message, "data": None})


def generation(task: Task, stage: Stage, base: str) -> dict[str, Any]:
    """Return the object of a task in a stage, as Luma sends it and bare relays forward it.

    Its links lead to the relay with this base URL.
    """
    return _BUILDERS[stage](task, base)


def _pending(task: Task, _: str) -> dict[str, Any]:
    return {
        "id": task.id,
        "prompt": task.prompt,
        "state": "pending",
        "queue_state": None,
        "created_at": _iso(task.created, "microseconds"),
        "batch_id": "",
        "video": None,
        "video_raw": None,
        "liked": None,
        "estimate_wait_seconds": None,
        "thumbnail": None,
        "last_frame": None,
    }


def _processing(task: Task, _: str) -> dict[str, Any]:
    return {
        "id": task.id,
        "liked": None,
        "state": "processing",
        "video": None,
        "prompt": task.prompt,
        "created_at": _iso(task.created, "microseconds"),
        "estimate_wait_seconds": None,
    }


def _failed(task: Task, _: str) -> dict[str, Any]:
    empty = dict.fromkeys(("artifact", "video", "video_raw", "thumbnail", "last_frame"))
    head = {"id": task.id, "state": "failed", "failure_reason": task.failure_reason}
    return head | {"created_at": _iso(task.created), "request": _request(task)} | empty


def _request(task: Task) -> dict[str, str]:
    return {"prompt": task.prompt, "aspect_ratio": task.aspect_ratio}


def _without_link(task: Task, base: str) -> dict[str, Any]:
    return _completed(task, base) | {
        "video": {"url": "", **_SIZE, "download_url": ""},
        "artifact": None,
        "video_raw": None,
    }


def _completed(task: Task, base: str) -> dict[str, Any]:
    files = _files(task.id, base)
    return {
        "id": task.id,
        "state": "completed",
        "request": _request(task),
        "artifact": files | {"created_at": _GO_ZERO_TIME},
        "created_at": _iso(task.created),
    } | files


def _files(task_id: str, base: str) -> dict[str, Any]:
    url, image = media_url(base, task_id), media_url(base, task_id, "svg")
    return {
        "video": {"url": url, **_SIZE, "download_url": url},
        "video_raw": {"url": url, **_SIZE, "duration": 5.041667, "media_type": "video"},
        "thumbnail": _image(image, {"grid": _GRID}),
        "last_frame": _image(image, None),
    }


def _image(url: str, palette: dict[str, str] | None) -> dict[str, Any]:
    return {"url": url, **_SIZE, "palette": palette, "media_type": "image"}


_BUILDERS = {
    "pending": _pending,
    "processing": _processing,
    "without link": _without_link,
    "completed": _completed,
    "failed": _failed,
}


def table_row(task: Task, stage: Stage, base: str) -> dict[str, Any]:
    """Return the row of the relay's own table, with the task object in `data`.

    Its `id` is an integer. A pending task has one of three statuses, which depends on its number.
    The `fail_reason` of a SUCCESS row is the link (seen at new-api).
    """
    times = _times(task, stage)
    return {
        "id": task.number,
        "created_at": _iso(task.created, "seconds"),
        "updated_at": _iso(max(times.values()), "seconds"),
        "task_id": task.id,
        "platform": "luma_free",
        "action": "LUMA_VIDEO",
        "status": _status(task, stage),
        "fail_reason": _fail_reason(task, stage, base),
        "progress": _PROGRESS.get(stage, "100%"),
        **times,
        "data": generation(task, stage, base),
    }


def _status(task: Task, stage: Stage) -> str:
    if stage == "pending":
        return _PENDING_STATUSES[task.number % len(_PENDING_STATUSES)]
    return _STATUS.get(stage, "SUCCESS")


def _fail_reason(task: Task, stage: Stage, base: str) -> str:
    if stage == "failed":
        return task.failure_reason
    return media_url(base, task.id) if stage == "completed" else ""


def _times(task: Task, stage: Stage) -> dict[str, int]:
    started = None if stage == "pending" else task.processing_at
    ended = None if stage in ("pending", "processing") else task.ends_at
    return {
        "submit_time": int(task.created),
        "start_time": int(task.unix(started)),
        "finish_time": int(task.unix(ended)),
    }


def _iso(unix: float, precision: str = "milliseconds") -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec=precision)[: -len("+00:00")] + "Z"
