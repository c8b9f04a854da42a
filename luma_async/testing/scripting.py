"""The answers of a FakeRelay that a test gives in advance: replies, scripts and captured files."""

import os
from collections import Counter
from pathlib import Path
from typing import Any, Self

from luma_async.recording.capture_file import read_capture
from luma_async.testing.playback import Playback
from luma_async.testing.responder import Responder
from luma_async.testing.scripted_replies import Endpoint
from luma_async.testing.scripts import Scripts
from luma_async.testing.simulation import Simulation
from luma_async.testing.types import Reply


class Scripting:
    """The part of FakeRelay that plays what a test gives in advance."""

    _responder: Responder
    _simulation: Simulation

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

    @property
    def script(self) -> Scripts:
        """The script of submitted tasks: a `Script` for all, or an iterable with one for each.

        Set it for the next submissions. If it is None, or used up, outcomes are random, within
        `durations` and `fails`. Setting it raises TypeError for other values.
        """
        return self._simulation.scripts.given

    @script.setter
    def script(self, script: Scripts) -> None:
        self._simulation.scripts.set(script)

    def reply(self, *replies: Reply, on: Endpoint | None = None, optional: bool = False) -> None:
        """Answer the next requests with these replies, each once, instead of the tasks.

        With `on`, only requests to that endpoint get them: "get" (single GET), "tasks" (batch
        POST), "submit" or "media"; requests for media files get no others. The replies are in one
        queue: a request gets the first one that fits. The API key is not checked. With `optional`,
        `assert_all_used` accepts that they are not sent.
        """
        self._responder.scripted.add(replies, on, optional=optional)

    def assert_all_used(self) -> None:
        """Check that all scripted replies were sent, and all scripts of a list were used.

        A single `Script`, and an iterable that is no list or tuple, need not be used. Raises
        AssertionError.
        """
        replies, scripts = self._responder.scripted.unused(), self._simulation.scripts.unused()
        if replies:
            raise AssertionError(
                f"scripted replies that no request received: {_counted(replies)}; remove them, or "
                "give optional=True to reply()"
            )
        if scripts:
            raise AssertionError(
                f"scripts that no submission used: {_counted(scripts)}; remove them from script"
            )


def _counted(texts: list[str]) -> str:
    """Return the texts in one line, each once, with their numbers."""
    counts = Counter(texts).items()
    return ", ".join(text if count == 1 else f"{count} times {text}" for text, count in counts)
