"""Submissions: what is sent, what is refused before, and the task in an answer of any shape."""

import json
from typing import Any

import pytest

from luma_async.errors import (
    APIError,
    BadRequestError,
    DecodeError,
    LumaError,
    NoSuchRouteError,
    QuotaError,
)
from luma_async.protocol.submissions import Submission, decode_submission, shown_prompt
from luma_async.structs import State
from tests.protocol.response_builders import SAMPLE_ID

JSON = {"Content-Type": "application/json"}
PENDING = {"id": "a", "prompt": "", "state": "pending", "queue_state": None, "video": None}
SIGNED = "https://cdn.example/a.png?X-Signature=secret"


def sent(submission: Submission) -> Any:
    assert submission.request.body is not None
    return json.loads(submission.request.body)


class TestWhatIsSent:
    def test_only_the_fields_that_were_given_are_sent(self) -> None:
        assert sent(Submission(user_prompt="a cat")) == {"user_prompt": "a cat"}
        whole = Submission(
            user_prompt="a cat",
            aspect_ratio="9:21",
            expand_prompt=False,
            loop=True,
            image_url="https://cdn.example/a.png",
            image_end_url="data:image/png;base64,AAAA",
            others={"model_name": "ray-v2", "duration": "5s", "nothing": None},
        )
        assert sent(whole) == {
            "user_prompt": "a cat",
            "aspect_ratio": "9:21",
            "expand_prompt": False,
            "loop": True,
            "image_url": "https://cdn.example/a.png",
            "image_end_url": "data:image/png;base64,AAAA",
            "model_name": "ray-v2",
            "duration": "5s",
        }

    def test_a_new_task_and_an_extension_have_a_path_each_without_a_slash_at_its_end(self) -> None:
        assert Submission(user_prompt="a").request.path == "/luma/generations"
        extension = Submission(user_prompt="a", extends="a/b").request
        assert (extension.method, extension.path) == ("POST", "/luma/generations/a%2Fb/extend")

    def test_a_subclass_of_str_is_sent_as_text(self) -> None:
        class Prompt(str):
            __slots__ = ()

        assert sent(Submission(user_prompt=Prompt("a cat"))) == {"user_prompt": "a cat"}

    @pytest.mark.parametrize(
        "fields",
        [
            {"user_prompt": ""},
            {"user_prompt": " \n"},
            {"user_prompt": b"a cat"},
            {"user_prompt": "\ud800"},
            {"aspect_ratio": "16/9"},
            {"aspect_ratio": 1.5},
            {"expand_prompt": "yes"},
            {"loop": 1},
            {"image_url": "cdn.example/a.png"},
            {"image_url": "file:///etc/passwd"},
            {"image_end_url": "data:image/png,AAAA"},
            {"image_url": b"https://cdn.example"},
            {"others": {"prompt": "a cat"}},
            {"others": {"": 1}},
            {"others": {5: 1}},
            {"others": {"\ud800": 1}},
            {"others": {"x": 1j}},
            {"others": {"x": "\ud800"}},
            {"extends": ""},
        ],
        ids=str,
    )
    def test_what_no_relay_accepts_is_refused_with_a_remedy(self, fields: dict[str, Any]) -> None:
        with pytest.raises((ValueError, TypeError), match=r"; give [^;]+(;base64,…)?$"):
            Submission(**dict[str, Any](user_prompt="a cat") | fields)

    def test_nothing_secret_is_in_a_repr(self) -> None:
        submission = Submission(user_prompt=f"like {SIGNED}", image_url=SIGNED, loop=True)
        assert repr(submission) == (
            "Submission('like https://cdn.example/a.png?…', with loop, image_url)"
        )

    def test_a_long_prompt_is_shown_in_one_line(self) -> None:
        assert shown_prompt("a\n" * 100) == f"{'a ' * 30}…"
        assert shown_prompt("x" * 60) == "x" * 60
        assert shown_prompt("x" * 61) == f"{'x' * 60}…"
        assert shown_prompt("see data:image/png;base64,AAAA now") == "see data:… now"


class TestAnswers:
    @pytest.mark.parametrize("status", [200, 201])
    @pytest.mark.parametrize(
        "body",
        [
            PENDING,
            [PENDING],
            {"task_id": "a"},
            {"code": "success", "message": "", "data": {"task_id": "a"}},
            {"code": "success", "message": "", "data": PENDING},
            {"code": "success", "message": "", "data": [PENDING]},
            {"code": 200, "message": "ok", "data": "a"},
            {"id": 17, "task_id": "a", "status": "NOT_START", "data": PENDING},
            {"id": 17, "task_id": "a", "status": "SUBMITTED"},
            {"status": "success", "data": {"id": "a"}},
        ],
        ids=str,
    )
    def test_the_id_is_found_in_each_shape(self, body: Any, status: int) -> None:
        submitted = decode_submission(status, JSON, json.dumps(body).encode())
        assert submitted.generation.id == "a"
        assert submitted.generation.state is State.PENDING

    def test_a_second_document_behind_the_task_is_ignored(self) -> None:
        body = json.dumps(PENDING) + '{"detail":{"code":1,"reason":"unexpected end"}}'
        assert decode_submission(200, JSON, body.encode()).generation.id == "a"

    def test_the_task_has_what_the_relay_sent(self) -> None:
        body = {**PENDING, "prompt": "a cat", "created_at": "2024-12-22T13:38:40.123456Z"}
        task = decode_submission(200, JSON, json.dumps(body).encode()).generation
        assert task.raw == body
        assert task.created_at is not None
        assert task.request is not None
        assert task.request.prompt == "a cat"

    @pytest.mark.parametrize(
        "row",
        [
            {"task_id": "a", "status": "NOT_START", "data": {"id": "u", "prompt": "a cat"}},
            {"id": "a", "state": "pending", "prompt": "a cat"},
        ],
        ids=str,
    )
    def test_the_task_is_the_row_in_the_envelope_with_what_is_in_it(self, row: Any) -> None:
        for body in (row, {"code": "success", "data": row}):
            task = decode_submission(200, JSON, json.dumps(body).encode()).generation
            assert (task.id, task.prompt, task.raw) == ("a", "a cat", row)

    @pytest.mark.parametrize(
        ("body", "state"),
        [
            ({"id": "a", "state": "dreaming"}, State.PROCESSING),
            ({"id": "a", "state": "failed"}, State.FAILED),
            ({"id": "a", "state": "odd", "status": "in_progress"}, State.PROCESSING),
            ({"status": "success", "data": {"id": "a", "state": "running"}}, State.PROCESSING),
            ({"status": "success", "data": {"id": "a", "status": "running"}}, State.PROCESSING),
            ({"status": "running", "data": {"id": "a", "status": "success"}}, State.PENDING),
            ({"task_id": "a", "status": "QUEUED", "data": {"state": "running"}}, State.PROCESSING),
        ],
        ids=str,
    )
    def test_the_state_is_that_of_the_new_task_and_success_is_that_of_the_request(
        self, body: Any, state: State
    ) -> None:
        assert decode_submission(200, JSON, json.dumps(body).encode()).generation.state is state

    def test_a_number_that_is_too_large_does_not_lose_the_new_task(self) -> None:
        body = b'{"id": "a", "state": "pending", "odd": ' + b"9" * 5000 + b"}"
        assert decode_submission(200, JSON, body).generation.id == "a"

    @pytest.mark.parametrize("status", [199, 200, 299, 300])
    def test_only_an_answer_with_a_status_of_success_has_a_task(self, status: int) -> None:
        body = json.dumps(PENDING).encode()
        if 200 <= status < 300:
            assert decode_submission(status, JSON, body).generation.id == "a"
        else:
            with pytest.raises(LumaError):
                decode_submission(status, JSON, body)

    @pytest.mark.parametrize(
        ("body", "shown"),
        [(b"", "an empty body"), (b" \n", "an empty body"), (b'{"id":\n5}', '{"id": 5}')],
    )
    def test_the_error_shows_the_answer_without_an_id(self, body: bytes, shown: str) -> None:
        with pytest.raises(DecodeError) as caught:
            decode_submission(200, JSON, body)
        assert str(caught.value) == f"status 200 without the id of a task: {shown}"

    @pytest.mark.parametrize(
        ("status", "body", "kind"),
        [
            (400, {"detail": "Advanced moderation failed"}, BadRequestError),
            (400, {"code": "task_origin_not_exist", "message": "x", "data": None}, APIError),
            (401, {"error": {"message": "该令牌额度已用尽", "code": ""}}, QuotaError),
            (200, {"code": "quota_not_enough", "message": "", "data": None}, QuotaError),
            (200, {"code": "x", "message": "no", "data": None}, APIError),
            (200, {"detail": "bad request"}, APIError),
            (200, {"state": "pending"}, DecodeError),
            (200, {"id": "x" * 5000}, DecodeError),
            (200, {"id": 5}, DecodeError),
            (200, [], DecodeError),
            (302, {}, NoSuchRouteError),
        ],
        ids=str,
    )
    def test_an_answer_without_a_task_is_an_error(
        self, status: int, body: Any, kind: type[LumaError]
    ) -> None:
        with pytest.raises(kind):
            decode_submission(status, JSON, json.dumps(body).encode())

    @pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 100_000, b'{"id":"a"'])
    def test_a_body_that_makes_no_sense_is_a_decode_error(self, body: bytes) -> None:
        with pytest.raises(DecodeError):
            decode_submission(200, {}, body)

    def test_retry_after_is_in_an_answer_and_in_an_error(self) -> None:
        fields = {**JSON, "Retry-After": "7"}
        body = json.dumps({"id": SAMPLE_ID, "state": "pending"}).encode()
        assert decode_submission(200, fields, body).retry_after == 7
        with pytest.raises(APIError) as caught:
            decode_submission(429, fields, b"")
        assert caught.value.retry_after == 7


class TestAnErrorThatNamesATask:
    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (200, b'{"code":201,"message":"created","data":{"task_id":"abc"}}'),
            (200, b'{"code":"error","message":"quota","data":{"id":"abc"}}'),
            (200, b'{"task_id":"abc","code":"202"}'),
            (500, b'{"code":"insert_task_failed","message":"","data":{"task_id":"abc"}}'),
            (503, b'[{"code":"x","message":"","data":{"task_id":"abc"}}]'),
        ],
    )
    def test_it_is_unknown_and_the_id_is_reported(self, status: int, body: bytes) -> None:
        with pytest.raises(DecodeError, match="names task abc"):
            decode_submission(status, JSON, body)

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (200, b'{"id":"request","error":{"message":"no"}}'),
            (200, b'{"code":"x","message":"no","data":"text"}'),
            (400, b'{"code":"task_origin_not_exist","message":"","data":{"task_id":"parent"}}'),
            (499, b'{"code":"x","message":"closed","data":{"task_id":"parent"}}'),
            (503, b'{"code":"x","message":"no channel","data":null}'),
            (503, b"<html>Service Unavailable</html>"),
            (500, b"[]"),
        ],
    )
    def test_the_id_of_a_request_or_of_the_parent_is_none(self, status: int, body: bytes) -> None:
        with pytest.raises(APIError):
            decode_submission(status, JSON, body)


@pytest.mark.parametrize(
    "link",
    [r"https:\/\/h\/a?sig=SECRET", r"https:\u002f\u002Fh/a?sig=SECRET", "HTTPS://u:SECRET@h/a"],
)
def test_a_link_in_a_prompt_or_an_answer_is_cut_however_it_is_written(link: str) -> None:
    assert "SECRET" not in shown_prompt(f"a cat {link}")


def test_a_task_that_failed_at_once_is_pending_with_the_reason_for_a_poll_to_confirm() -> None:
    body = json.dumps({"id": SAMPLE_ID, "status": "failed", "fail_reason": "moderated"}).encode()
    task = decode_submission(200, {}, body).generation
    assert (task.state, task.failure_reason) == (State.PENDING, "moderated")
