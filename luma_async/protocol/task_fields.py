"""Fields of a task in the places where relays other than Luma's own put them.

Relays of this family hand on what their upstreams answer, so the link to a video may be a dozen
levels away from where Luma has it. The paths below were seen at relays or in their documents.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, cast

JSONObject = dict[str, Any]

_MAX_DEPTH = 8
LINK_PATHS: tuple[str, ...] = (
    "video.download_url", "video_raw.url", "video.url", "video.uri", "assets.video",
    "assets.video.url", "video_url", "videoUrl", "video_uri", "download_url", "downloadUrl",
    "result_url", "resultUrl", "output_url", "outputUrl", "file_url", "media_url", "play_url",
    "mp4_url", "video", "videos.url", "videos.video.url", "videos", "video_urls", "unsigned_urls",
    "signed_urls", "result_urls", "resultUrls", "urls", "task_result.videos.url",
    "task_result.video_url", "task_result.url", "content.result_url", "content.video_url",
    "content.url", "content.video.url", "output.video_url", "output.video.url", "output.url",
    "output.video", "output.videos.url", "output.result_url", "output", "outputs.url", "outputs",
    "result.video_url", "result.video.url", "result.videos.url", "result.url", "result.video",
    "result.result_url", "result.output.url", "result", "results.video_url", "results.url",
    "results", "response.video_url", "response.resultUrls", "response.result_urls",
    "response.url", "metadata.video_url", "metadata.result_url", "metadata.url",
    "metadata.output.url", "generation.video.url", "generations.video.url", "generations.url",
    "artifacts.url", "artifact.video.url", "artifact.url", "files.url", "file.download_url",
    "file.url", "creations.url", "works.resource.resource", "assets.url", "media.url",
    "info.resultUrls", "info.result_urls", "data.video_url", "data.url", "links.video",
    "links.download", "link", "uri", "url",
)  # fmt: skip
REASON_PATHS: tuple[str, ...] = (
    "failure_reason", "fail_reason", "failureReason", "failReason", "failure.reason",
    "failure.message", "failure_message", "failure", "error.message", "error.msg", "error.reason",
    "error.detail", "error.error", "error", "error_message", "errorMessage", "error_msg",
    "errorMsg", "err_msg", "errMsg", "task_status_msg", "status_msg", "status_message",
    "statusMessage", "fail_msg", "failMsg", "reason", "detail.reason", "detail", "metadata.error",
    "task_result.error", "result.error", "output.error", "message", "msg",
)  # fmt: skip
CREATED_PATHS: tuple[str, ...] = (
    "created_at", "createdAt", "create_time", "createTime", "created", "submit_time",
    "submitTime", "submitted_at", "task_info.created_at",
)  # fmt: skip
_VIDEO_FILE = re.compile(r"^https?://[^?#]+\.(?:mp4|mov|webm|m4v|mkv)(?:[?#]|$)", re.IGNORECASE)
_NO_VIDEO = re.compile(
    r"thumb|cover|poster|image|img|frame|avatar|audio|callback|webhook|notify|request|input|"
    r"prompt|reference|source|refer",
    re.IGNORECASE,
)
_SUCCESS_WORDS = ("", "ok", "success", "succeed", "succeeded", "successful", "none", "null")
_SECONDS_MOST = 1e11


def as_object(value: object) -> JSONObject | None:
    """Return a JSON object; None if the value is none."""
    return cast("JSONObject", value) if isinstance(value, dict) else None


def as_list(value: object) -> list[object] | None:
    """Return a JSON array; None if the value is none."""
    return cast("list[object]", value) if isinstance(value, list) else None


def find_link(levels: Iterable[JSONObject]) -> str | None:
    """Return the link to a video in the first of these objects that has one; None if none has."""
    for level in levels:
        known = (value for path in LINK_PATHS for value in _at(level, path.split(".")))
        link = next((value for value in known if is_link(value)), None)
        if link is None:
            link = next(_video_files(level, 0), None)
        if link is not None:
            return cast("str", link)
    return None


def find_reason(levels: Iterable[JSONObject]) -> str | None:
    """Return why a task failed, from the first of these objects that says so."""
    for level in levels:
        for path in REASON_PATHS:
            for value in _at(level, path.split(".")):
                if isinstance(value, str) and value.strip().lower() not in _SUCCESS_WORDS:
                    return value
    return None


def find_created_at(levels: Iterable[JSONObject]) -> datetime | None:
    """Return when a task was created, from the first of these objects that says so."""
    for level in levels:
        for path in CREATED_PATHS:
            for value in _at(level, path.split(".")):
                if (moment := to_moment(value)) is not None:
                    return moment
    return None


def is_link(value: object) -> bool:
    """Return whether a value is an HTTP link."""
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def to_moment(value: object) -> datetime | None:
    """Read ISO 8601 text, or unix time in seconds, milliseconds or finer; None for zero times."""
    if isinstance(value, str):
        try:
            return known_moment(datetime.fromisoformat(value.strip()))
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e20:
        return None
    seconds = float(value)
    while seconds > _SECONDS_MOST:
        seconds /= 1000.0
    return datetime.fromtimestamp(seconds, UTC)


def known_moment(moment: datetime | None) -> datetime | None:
    """Return an aware moment; None for Go's zero time and unix time 0, which mean unknown."""
    if moment is None or moment.year <= 1:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None if aware.year == 1970 and aware.timestamp() == 0.0 else aware


def _at(value: object, path: list[str]) -> Iterator[object]:
    """Yield the values at a path; a list stands for each of its items."""
    if (items := as_list(value)) is not None:
        for item in items:
            yield from _at(item, path)
    elif not path:
        yield value
    elif (level := as_object(value)) is not None:
        yield from _at(level.get(path[0]), path[1:])


def _video_files(value: object, depth: int) -> Iterator[str]:
    """Yield links to video files anywhere, but for what was given as input."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, str):
        if _VIDEO_FILE.match(value):
            yield value
        return
    for item in as_list(value) or ():
        yield from _video_files(item, depth + 1)
    for key, item in (as_object(value) or {}).items():
        if not _NO_VIDEO.search(key):
            yield from _video_files(item, depth + 1)
