"""The log of messages that are dropped: one warning, and short lines of foreign text."""

import logging

import pytest

from luma_async.worker.server.invalid_messages import InvalidMessages


def dropped(subject: str, cause: str, expected: str = "an id") -> str:
    problem = f"it is not {expected} ({cause}); further ones are logged with -v"
    return f"dropped a message on {subject}: {problem}"


def test_the_first_message_of_each_kind_is_a_warning_and_the_others_are_for_debugging(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "luma_async")
    ids, results = InvalidMessages("an id"), InvalidMessages("a result")
    for kind in (ids, ids, results, ids):
        kind.log("luma.wait.x", ValueError("too long"))
    line, other = (
        dropped("luma.wait.x", "too long", expected) for expected in ("an id", "a result")
    )
    assert caplog.record_tuples == [
        ("luma_async", logging.WARNING, line),
        ("luma_async", logging.DEBUG, line),
        ("luma_async", logging.WARNING, other),
        ("luma_async", logging.DEBUG, line),
    ]


def test_a_foreign_subject_and_its_cause_are_cut_to_one_line_of_200_characters_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    InvalidMessages("an id").log("luma.\x1b[1m\nx", ValueError("a\nb"))
    InvalidMessages("an id").log("s" * 300, ValueError("c" * 300))
    assert [record.getMessage() for record in caplog.records] == [
        dropped("luma.\ufffd[1m x", "a b"),
        dropped("s" * 200, "c" * 200),
    ]
