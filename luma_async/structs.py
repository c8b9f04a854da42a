"""A Luma task and its parts, as frozen msgspec structs."""

import json
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from luma_async.errors import GenerationFailed


class State(StrEnum):
    """The state of a task: the four states of the published API."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def is_done(self) -> bool:
        """Whether the state is final: completed or failed."""
        return self is State.COMPLETED or self is State.FAILED


class Palette(Struct, frozen=True, kw_only=True, gc=False):
    """The colours of an image.

    `grid` is base64 text, as the relay sends it; its format is not documented.
    """

    grid: str | None = None


class Image(Struct, frozen=True, kw_only=True, gc=False):
    """A still image of the video: its thumbnail or its last frame.

    `width` and `height` are in pixels.
    """

    url: str | None = None
    width: int | None = None
    height: int | None = None
    media_type: str | None = None
    palette: Palette | None = None


class Video(Struct, frozen=True, kw_only=True, gc=False):
    """The video for viewing.

    `width` and `height` are in pixels. `url` is a link to the video, which may have a watermark.
    `download_url` is a link to the file to keep; it may be empty, or valid for an hour only.
    `thumbnail` is a link to an image. (Source: responses of relays.)
    """

    url: str | None = None
    width: int | None = None
    height: int | None = None
    download_url: str | None = None
    thumbnail: str | None = None


class VideoRaw(Struct, frozen=True, kw_only=True, gc=False):
    """The original video.

    `width` and `height` are in pixels, `duration` is in seconds.
    """

    url: str | None = None
    width: int | None = None
    height: int | None = None
    duration: float | None = None
    media_type: str | None = None


class Request(Struct, frozen=True, kw_only=True, gc=False):
    """What was requested when the task was submitted.

    `aspect_ratio` is text such as "16:9".
    """

    prompt: str | None = None
    aspect_ratio: str | None = None


class Assets(Struct, frozen=True, kw_only=True, gc=False):
    """The links in the format of the official Luma API, which some relays send."""

    video: str | None = None


class Artifact(Struct, frozen=True, kw_only=True, gc=False):
    """A second copy of the videos and images, which the relay sends beside the first.

    `created_at` is an aware datetime, or None if it is unknown (the relay sends Go's zero time).
    """

    video: Video | None = None
    thumbnail: Image | None = None
    video_raw: VideoRaw | None = None
    last_frame: Image | None = None
    created_at: datetime | None = None


class Body(Struct, frozen=True, kw_only=True, gc=False):
    """The fields of a task beside its id and its state.

    Any field may be None: the documentation of the batch POST has all of them as optional, and open
    tasks have few. `created_at` is an aware datetime, or None if it is unknown. Open tasks have the
    prompt in `prompt`; it is copied to `request` if that is missing.
    """

    video: Video | None = None
    video_raw: VideoRaw | None = None
    thumbnail: Image | None = None
    last_frame: Image | None = None
    artifact: Artifact | None = None
    request: Request | None = None
    prompt: str | None = None
    created_at: datetime | None = None
    failure_reason: str | None = None
    assets: Assets | None = None
    result_url: str | None = None


class Generation(Body, frozen=True, kw_only=True, gc=False):
    """One video task, as in the last response of the relay.

    `id` is the id of the task, and `state` is its state. `original` is the JSON text that the relay
    sent for it; `raw` is the same as plain data. Each field that the relay left out, or sent in a
    wrong type, is None.
    """

    id: str
    state: State
    original: str = "{}"

    @property
    def is_done(self) -> bool:
        """Whether the task is completed or failed."""
        return self.state.is_done

    @property
    def url(self) -> str | None:
        """The best link to the video, or None if there is no link.

        `download_url` comes first, then the original video, then the video for viewing, which may
        have a watermark.
        """
        return next(filter(None, self._links()), None)

    @property
    def raw(self) -> Any:
        """The object that the relay sent, as plain data; it is decoded again at each access."""
        return json.loads(self.original)

    def raise_for_failed(self) -> None:
        """Raise GenerationFailed, with the reason from the relay, if the state is failed."""
        if self.state is State.FAILED:
            raise GenerationFailed(self)

    def _links(self) -> Iterator[str | None]:
        yield from _links_of(self.video, self.video_raw)
        if self.assets:
            yield self.assets.video
        if self.artifact:
            yield from _links_of(self.artifact.video, self.artifact.video_raw)
        yield self.result_url

    def __repr__(self) -> str:
        reason = f", failure_reason={self.failure_reason!r}" if self.failure_reason else ""
        return f"Generation(id={self.id!r}, state={self.state.value!r}{reason})"


def _links_of(video: Video | None, video_raw: VideoRaw | None) -> Iterator[str | None]:
    if video:
        yield video.download_url
    if video_raw:
        yield video_raw.url
    if video:
        yield video.url
