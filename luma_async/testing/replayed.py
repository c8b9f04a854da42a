"""A FakeRelay that answers as a captured relay did."""

import os
from pathlib import Path
from typing import Any, Self

from luma_async.recording.capture_file import read_capture
from luma_async.testing.playback import Playback
from luma_async.testing.responder import Responder


class Replayed:
    """The part of FakeRelay that plays captured files."""

    _responder: Responder

    @classmethod
    def replay(cls, file: str | os.PathLike[str], **options: Any) -> Self:
        """Return a relay that answers as a captured one did, about tasks of its own.

        `file` was written by `luma-async capture` or `LumaSession(record=…)`. Envelopes, words,
        headers, limits of rows and ids, the order, and the answers about unknown ids are those of
        the file. Each captured error is played once; a call of which only errors were captured
        always answers with them. `options` are the arguments of FakeRelay; `envelope` has no
        effect.

        Raises OSError if the file cannot be read, and ValueError if it is no captured file.
        """
        relay = cls(**options)
        relay._responder.playback = Playback(read_capture(Path(file)))
        return relay
