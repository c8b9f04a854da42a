"""Wait for thousands of Luma (Dream Machine) video tasks behind a relay, with one shared poller."""

from luma_async._version import __version__
from luma_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    DecodeError,
    GenerationFailed,
    GenerationsMissing,
    LumaError,
    NoSuchRouteError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    RateLimitedError,
    RelayError,
    RequestTimeout,
    SessionClosed,
    TransportError,
    WaitAborted,
    WaitIncomplete,
    WaitTimeout,
)
from luma_async.gate import Limits
from luma_async.pace import Every, Pace
from luma_async.session import LumaSession
from luma_async.stats import Stats
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
from luma_async.waits import Reader

__all__ = [
    "APIError",
    "Artifact",
    "Assets",
    "AuthenticationError",
    "BadRequestError",
    "DecodeError",
    "Every",
    "Generation",
    "GenerationFailed",
    "GenerationsMissing",
    "Image",
    "Limits",
    "LumaError",
    "LumaSession",
    "NoSuchRouteError",
    "NotFoundError",
    "Pace",
    "Palette",
    "PermissionDeniedError",
    "QuotaError",
    "RateLimitedError",
    "Reader",
    "RelayError",
    "Request",
    "RequestTimeout",
    "SessionClosed",
    "State",
    "Stats",
    "TransportError",
    "Video",
    "VideoRaw",
    "WaitAborted",
    "WaitIncomplete",
    "WaitTimeout",
    "__version__",
]
