"""The words of the answers: what a Luma task looks like, as frozen msgspec structs."""

import json
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from luma_async.errors import GenerationFailed


class State(StrEnum):
    """Where a task stands: the four states that the published API documents."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def is_done(self) -> bool:
        """Whether a task in this state has ended and will not change again."""
        return self is State.COMPLETED or self is State.FAILED


class Palette(Struct, frozen=True, kw_only=True, gc=False):
    """The colours of a picture, as the relay encodes them.

    `grid` is opaque base64 text.
    """

    grid: str | None = None


class Image(Struct, frozen=True, kw_only=True, gc=False):
    """A still picture of the video: its thumbnail, or its last frame.

    `width` and `height` are pixels.
    """

    url: str | None = None
    width: int | None = None
    height: int | None = None
    media_type: str | None = None
    palette: Palette | None = None


class Video(Struct, frozen=True, kw_only=True, gc=False):
    """The video as it is shown.

    `width` and `height` are pixels; `url` may carry a watermark; `download_url` may be empty, or a
    link signed for an hour; `thumbnail` is a link (all seen at relays).
    """

    url: str | None = None
    width: int | None = None
    height: int | None = None
    download_url: str | None = None
    thumbnail: str | None = None


class VideoRaw(Struct, frozen=True, kw_only=True, gc=False):
    """The video as it was made.

    `width` and `height` are pixels, `duration` is seconds.
    """

    url: str | None = None
    width: int | None = None
    height: int | None = None
    duration: float | None = None
    media_type: str | None = None


class Request(Struct, frozen=True, kw_only=True, gc=False):
    """What was asked for when the task was submitted."""

    prompt: str | None = None
    aspect_ratio: str | None = None


class Assets(Struct, frozen=True, kw_only=True, gc=False):
    """The links as the official API groups them (seen behind some relays)."""

    video: str | None = None


class Artifact(Struct, frozen=True, kw_only=True, gc=False):
    """The relay's second copy of what was made.

    `created_at` is None where the relay sends Go's zero time, which means unknown.
    """

    video: Video | None = None
    thumbnail: Image | None = None
    video_raw: VideoRaw | None = None
    last_frame: Image | None = None
    created_at: datetime | None = None


class Body(Struct, frozen=True, kw_only=True, gc=False):
    """What a task carries beside its name and its state.

    Any field may be None: the batch call documents every one as optional, and open tasks carry few.
    `created_at` is aware, or None where it is unknown. `prompt` is where open tasks tell it; in
    `request` it is always there if it is anywhere.
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
    """One video task, as the relay last told it.

    The object that the relay sent stays reachable: `raw` is it as plain data, `original` its JSON
    text.
    """

    id: str
    state: State
    original: str = "{}"

    @property
    def is_done(self) -> bool:
        """Whether the task has ended: completed or failed."""
        return self.state.is_done

    @property
    def url(self) -> str | None:
        """The best link to the video, or None.

        The file to keep comes before the copy to look at, which may carry a watermark.
        """
        return next(filter(None, self._links()), None)

    @property
    def raw(self) -> Any:
        """The relay's own object as plain data, decoded at each access."""
        return json.loads(self.original)

    def raise_for_failed(self) -> None:
        """Raise GenerationFailed, with the relay's reason, if the task failed."""
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
