"""Messages that are not what they should be: any client of a shared server may publish some."""

import logging

from luma_async.text import one_line

logger: logging.Logger = logging.getLogger("luma_async")

MAX_SHOWN = 200  # characters of a subject, and of a cause


class InvalidMessages:
    """Logs each message that is dropped: the first one as a warning, the others for debugging."""

    def __init__(self, expected: str) -> None:
        self._expected = expected
        self._level = logging.WARNING

    def log(self, subject: str, cause: Exception) -> None:
        """Log that a message on `subject` is dropped, because it is not what is expected."""
        shown = one_line(subject)[:MAX_SHOWN], one_line(str(cause))[:MAX_SHOWN]
        logger.log(
            self._level,
            "dropped a message on %s: it is not %s (%s); further ones are logged with -v",
            shown[0], self._expected, shown[1],
        )  # fmt: skip
        self._level = logging.DEBUG
