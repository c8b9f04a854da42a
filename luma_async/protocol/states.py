"""The words that relays use for the state of a task."""

import logging
import re

from luma_async.structs import State

logger: logging.Logger = logging.getLogger("luma_async")

STATES: dict[str, State] = {
    word: state
    for state, words in {
        State.PENDING: (
            "pending queued queueing queuing in_queue submitted not_start not_started waiting "
            "enqueued scheduled created 排队中 等待中"
        ),
        State.PROCESSING: (
            "processing in_progress inprogress dreaming running unknown generating rendering "
            "executing 处理中 生成中 进行中"
        ),
        State.COMPLETED: (
            "completed complete success succeeded succeed successful done finished finish "
            "已完成 完成 成功"
        ),
        State.FAILED: (
            "failed failure fail error errored canceled cancelled expired timeout timed_out "
            "timedout rejected aborted terminated 失败 已失败 已取消 超时"
        ),
    }.items()
    for word in words.split()
}
MAX_WARNINGS = 256
_PREFIX = re.compile(r"^(?:task_|generation_|video_)?(?:status_|state_)?")
_warned: set[str] = set()


def known_state(word: object) -> State | None:
    """Return the state that a word means, without regard to case and blanks; None if unknown."""
    if not isinstance(word, str):
        return None
    plain = re.sub(r"[\s_-]+", "_", word.strip().lower())
    return STATES.get(plain) or STATES.get(_PREFIX.sub("", plain))


def warn_unknown(word: str) -> None:
    """Warn of a word that is not known: it is taken as still running."""
    warn_once("unknown state %s is taken as still running", word)


def warn_once(message: str, word: str) -> None:
    """Warn once of each word, of `MAX_WARNINGS` words at most."""
    warning = message % repr(word[:80])
    if warning not in _warned and len(_warned) < MAX_WARNINGS:
        _warned.add(warning)
        logger.warning("%s", warning)
