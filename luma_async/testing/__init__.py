"""For the tests of your service: a fake relay with scripted tasks, and virtual time."""

from luma_async.testing.faults import FAULTS
from luma_async.testing.relay import FakeRelay
from luma_async.testing.scripts import Script
from luma_async.testing.submit_faults import SUBMIT_FAULTS
from luma_async.testing.threaded_relay import ThreadedRelay
from luma_async.testing.types import (
    Asked,
    Breakage,
    Fault,
    Reply,
    SubmitFault,
    SubmitShape,
    Task,
)
from luma_async.testing.virtual_time import VirtualTimeLoop, loop_factories, run_virtual

__all__ = [
    "FAULTS",
    "SUBMIT_FAULTS",
    "Asked",
    "Breakage",
    "FakeRelay",
    "Fault",
    "Reply",
    "Script",
    "SubmitFault",
    "SubmitShape",
    "Task",
    "ThreadedRelay",
    "VirtualTimeLoop",
    "loop_factories",
    "run_virtual",
]
