"""The bodies that relays send, built once for each task and stage.

The shapes are those of the published samples (completed), of captured answers (pending,
processing, the relay's own table) and of documented keys (failed).
"""

from datetime import UTC, datetime
from typing import Any

import msgspec

from luma_async.testing.media import link
from luma_async.testing.types import Stage, Task

_SIZE = {"width": 1360, "height": 752}
_GRID = (
    "em9csKqXYUgqdHVmmqeZLB8YaFpLjVw2bmFTTElBHhMNTzgodD8eVzUeTDorRSkYYEQymV80e1M0ck0ugWVRwKCApWk0"
)
_GO_ZERO_TIME = "0001-01-01T00:00:00Z"
_NOT_YET_RUNNING = ("NOT_START", "SUBMITTED", "QUEUED")
_STATUS = {"processing": "IN_PROGRESS", "failed": "FAILURE"}
_PROGRESS = {"pending": "0%", "processing": "50%"}

UNKNOWN = b'{"code":"task_not_exist","message":"task_not_exist","data":null}'
BAD_KEY = (
    '{"error":{"message":"无效的令牌 (request id: 20241222133840139)","type":"new_api_error"}}'
).encode()


def no_such_route(method: str, path: str) -> bytes:
    """Build the body of a 404 of a relay that has no such route."""
    said = f"Invalid URL ({method} {path})"
    error = {"message": said, "type": "invalid_request_error", "param": "", "code": ""}
    return msgspec.json.encode({"error": error})


def bad_request(said: str) -> bytes:
    """Build the body of a 400 to a request that makes no sense."""
    return msgspec.json.encode({"code": "invalid_request", "message": said, "data": None})


def generation(task: Task, stage: Stage, base: str) -> dict[str, Any]:
    """Build the task object of a stage, as the upstream sends it and bare relays hand it on.

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
    nothing = dict.fromkeys(("artifact", "video", "video_raw", "thumbnail", "last_frame"))
    head = {"id": task.id, "state": "failed", "failure_reason": task.failure_reason}
    return head | {"created_at": _iso(task.created), "request": _request(task)} | nothing


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
    url, image = link(base, task_id), link(base, task_id, "svg")
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


def row(task: Task, stage: Stage, base: str) -> dict[str, Any]:
    """Build the row of the relay's own table around the task object.

    Its `id` is the table's integer. While it waits, a task has one of three statuses, by its
    number. The `fail_reason` of a SUCCESS row holds the link, as new-api's does.
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
        return _NOT_YET_RUNNING[task.number % len(_NOT_YET_RUNNING)]
    return _STATUS.get(stage, "SUCCESS")


def _fail_reason(task: Task, stage: Stage, base: str) -> str:
    if stage == "failed":
        return task.failure_reason
    return link(base, task.id) if stage == "completed" else ""


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
