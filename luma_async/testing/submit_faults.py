"""The faults that submissions to a FakeRelay meet, and the bodies that relays send for them.

Pure. A fault is a refusal (no task is made, and the response says so), or a loss: of the request,
before a task is made, or of the response, after one was made and paid for.
"""

from typing import get_args

from luma_async.testing.faults import check_probabilities, error_page, prepare_breakage
from luma_async.testing.types import Loss, Refusal, Reply, SubmitFault, SubmitShape

SUBMIT_FAULTS: tuple[SubmitFault, ...] = (*get_args(Loss), *get_args(Refusal))
SUBMIT_SHAPES: tuple[SubmitShape, ...] = get_args(SubmitShape)
_INSERT_FAILED = b'{"code":"insert_task_failed","message":"insert_task_failed","data":null}'
_REFUSALS: dict[SubmitFault, Reply] = {
    "saturated": Reply(
        429, '{"code":"","message":"当前分组上游负载已饱和，请稍后再试","data":null}'.encode()
    ),
    "no_channel": Reply(
        503,
        (
            '{"error":{"message":"当前分组 default 下对于模型 luma_video 无可用渠道 '
            '(request id: 20241222133840142)","type":"new_api_error"}}'
        ).encode(),
    ),
    "quota": Reply(
        401,
        (
            '{"error":{"message":"该令牌额度已用尽 (request id: 20241222133840143)",'
            '"type":"new_api_error","code":""}}'
        ).encode(),
    ),
    "moderated": Reply(400, b'{"detail":"Advanced moderation failed"}'),
    "double_document": Reply(
        400, b'{"detail":"bad request"}{"detail":{"code":1,"reason":"unexpected end of JSON"}}'
    ),
}


def check_submit_faults(value: object) -> dict[SubmitFault, float]:
    """Return the probability of each fault; TypeError or ValueError for an invalid one."""
    return check_probabilities("submit_faults", value, SUBMIT_FAULTS)


def check_submit_shape(value: SubmitShape) -> SubmitShape:
    """Return a shape; ValueError if there is none of this name."""
    if value not in SUBMIT_SHAPES:
        raise ValueError(f"submit_shape is {value!r}: give one of {', '.join(SUBMIT_SHAPES)}")
    return value


def makes_task(fault: SubmitFault | None) -> bool:
    """Return whether a task is made, and paid for."""
    return fault is None or fault.endswith("_after")


def apply_submit_fault(reply: Reply, fault: SubmitFault | None) -> Reply:
    """Return the reply to a submission with a fault."""
    match fault:
        case None:
            return reply
        case "lost_before" | "lost_after":
            return prepare_breakage(reply, "reset")
        case "cut_after":
            return prepare_breakage(reply, "truncated")
        case "silent_after":
            return prepare_breakage(reply, "black_hole")
        case "gateway_timeout_after":
            return Reply(504, error_page(504), {"Content-Type": "text/html"}, delay=reply.delay)
        case "insert_failed_after":
            return Reply(500, _INSERT_FAILED, delay=reply.delay)
        case _:
            refusal = _REFUSALS[fault]
            return Reply(refusal.status, refusal.body, delay=reply.delay)


def shaped(body: bytes, task_id: str, shape: SubmitShape) -> bytes:
    """Return the response to a submission in a shape that relays have; `body` is the task."""
    name = task_id.encode()
    match shape:
        case "task":
            return body
        case "array":
            return b"[%b]" % body
        case "task_id":
            return b'{"task_id":"%b"}' % name
        case "data":
            return b'{"code":"success","message":"","data":{"task_id":"%b"}}' % name
        case "data_text":
            return b'{"code":"success","message":"","data":"%b"}' % name
