"""Submit Luma (Dream Machine) video tasks to a relay, and wait for thousands with one poller."""

from importlib import import_module
from typing import TYPE_CHECKING

from luma_async._version import __version__

if TYPE_CHECKING:
    from luma_async.downloads.downloader import Downloader, download
    from luma_async.downloads.progress import DownloadProgress
    from luma_async.errors import (
        APIError,
        AuthenticationError,
        BadRequestError,
        DecodeError,
        DownloadError,
        GaveUp,
        GenerationFailed,
        GenerationsMissing,
        LumaError,
        NoSuchRouteError,
        NotFoundError,
        PermissionDeniedError,
        QueueError,
        QuotaError,
        RateLimitedError,
        RelayError,
        RequestTimeout,
        SessionClosed,
        SetupError,
        SubmitUnknown,
        TooLongError,
        TransportError,
        WaitAborted,
        WaitIncomplete,
        WaitTimeout,
    )
    from luma_async.polling.following import Ended, Following
    from luma_async.polling.hooks import ChangeEvent, RequestEvent
    from luma_async.polling.interfaces import Budget
    from luma_async.polling.iterator import Reader
    from luma_async.polling.stats import Stats
    from luma_async.scheduling.pace import Backoff, Every, Learned, Pace
    from luma_async.scheduling.throttle import Limits
    from luma_async.session import LumaSession
    from luma_async.structs import (
        Artifact,
        Assets,
        Generation,
        Image,
        Palette,
        Request,
        State,
        Video,
        VideoRaw,
    )

__all__ = [
    "APIError",
    "Artifact",
    "Assets",
    "AuthenticationError",
    "Backoff",
    "BadRequestError",
    "Budget",
    "ChangeEvent",
    "DecodeError",
    "DownloadError",
    "DownloadProgress",
    "Downloader",
    "Ended",
    "Every",
    "Following",
    "GaveUp",
    "Generation",
    "GenerationFailed",
    "GenerationsMissing",
    "Image",
    "Learned",
    "Limits",
    "LumaError",
    "LumaSession",
    "NoSuchRouteError",
    "NotFoundError",
    "Pace",
    "Palette",
    "PermissionDeniedError",
    "QueueError",
    "QuotaError",
    "RateLimitedError",
    "Reader",
    "RelayError",
    "Request",
    "RequestEvent",
    "RequestTimeout",
    "SessionClosed",
    "SetupError",
    "State",
    "Stats",
    "SubmitUnknown",
    "TooLongError",
    "TransportError",
    "Video",
    "VideoRaw",
    "WaitAborted",
    "WaitIncomplete",
    "WaitTimeout",
    "__version__",
    "download",
]

if not TYPE_CHECKING:
    # Only this file is imported until the first use of a public name: `luma-async` and
    # `python -m luma_async` install their signal handlers before half a second of imports.
    _MODULES = (
        "downloads.downloader",
        "downloads.progress",
        "errors",
        "polling.hooks",
        "polling.interfaces",
        "polling.iterator",
        "polling.stats",
        "polling.following",
        "scheduling.pace",
        "scheduling.throttle",
        "session",
        "structs",
    )

    def __getattr__(name):
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        for module in _MODULES:
            names = vars(import_module(f"{__name__}.{module}"))
            globals().update({public: names[public] for public in __all__ if public in names})
        return globals()[name]

    def __dir__():
        return sorted({*globals(), *__all__})
