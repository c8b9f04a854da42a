"""`luma-async doctor`: what a relay does, and which settings follow from it."""

import argparse
import json
import os
import sys
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

from luma_async import validation as checks
from luma_async.cli.display.diagnosis import show
from luma_async.cli.options.ids import parts
from luma_async.cli.options.session import add_capture_option, add_session, key_of
from luma_async.cli.options.types import Commands, add_command
from luma_async.cli.runtime import print_error, run, run_and_report
from luma_async.diagnosis.checks import CHECKS
from luma_async.diagnosis.examiner import Examiner
from luma_async.diagnosis.findings import Diagnosis, Subject, diagnose
from luma_async.diagnosis.plan import MAX_REQUESTS, SIZES, Examination
from luma_async.diagnosis.questions import Question
from luma_async.recording.capture_file import read_capture
from luma_async.recording.recorder import Recorder, secrets_of
from luma_async.scheduling.throttle import Limits
from luma_async.transport import Transport

REQUEST_TIMEOUT = 30.0  # seconds
CODES = (
    "Exit codes: 0 no trouble was found, 1 trouble was found, 2 invalid arguments, files or "
    "packages, 130 ctrl-C, 143 SIGTERM or SIGHUP."
)
_NAMES = {"get": "single GET", "tasks": "batch POST", "link": "link"}


def add_doctor(commands: Commands) -> None:
    """Add the command."""
    about = "check what a relay does, and print the settings that fit it"
    more = (
        f" It sends {MAX_REQUESTS} requests at most, within --max-rate, and prints each one before "
        "it is sent. It never submits a task. It finds more if it has ids of your own tasks: give "
        "some that run and some that are completed."
    )
    parser = add_command(commands, "doctor", about, run_doctor, more, CODES)
    add_examination(parser)
    add_capture_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_examination(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of an examination."""
    parser.add_argument(
        "ids", nargs="*", metavar="ID", help="a task id; - reads them from standard input, by line"
    )
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="request links to this host even if its address is private; may be repeated",
    )  # fmt: skip
    add_session(parser)


def add_capture(commands: Commands) -> None:
    """Add the command."""
    about = "write the responses of a relay into a file, without secrets"
    more = (
        " It sends the requests of luma-async doctor, and writes each distinct shape of response "
        "once, with stand-ins for the key, ids, prompts, names, hosts and signatures. The option "
        "--capture of wait, get and doctor does the same with their requests."
    )
    parser = add_command(commands, "capture", about, run_capture, more, CODES)
    add_examination(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the file; it is replaced"
    )


def run_capture(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    return run_and_report(lambda: _captured(arguments))


def _captured(arguments: argparse.Namespace) -> int:
    arguments.capture = arguments.out
    diagnosis = run(examination(arguments))
    print(f"{len(read_capture(arguments.out))} shapes of responses are in {arguments.out}")
    for finding in diagnosis.findings:
        if finding.level == "trouble":
            print_error(f"{finding.check}: {finding.text}; {finding.follows}")
    return int(diagnosis.has_trouble)


def run_doctor(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    return run_and_report(lambda: _examined(arguments))


def _examined(arguments: argparse.Namespace) -> int:
    diagnosis = run(examination(arguments))
    if arguments.json:
        print(json.dumps(diagnosis.plain()))
    else:
        show(diagnosis)
    return int(diagnosis.has_trouble)


async def examination(arguments: argparse.Namespace) -> Diagnosis:
    """Examine the relay that the options name; ValueError where they cannot be used."""
    url = checks.base_url(arguments.base_url or os.environ.get("LUMA_BASE_URL"))
    key = checks.api_key(key_of(arguments) or os.environ.get("LUMA_API_KEY"))
    proxy = arguments.proxy
    if proxy is not None:
        proxy = checks.http_url("proxy", proxy, plain=False)
    limits = Limits(max_batch=arguments.max_batch, max_rate=arguments.max_rate)
    ids = [one async for part in parts(arguments.ids) for one in part]

    def transport(base_url: str) -> Transport:
        return Transport(
            base_url, key, http=None, request_timeout=REQUEST_TIMEOUT, max_body=limits.max_body,
            proxy=proxy,
        )  # fmt: skip

    examiner = Examiner(
        transport, api_key=key, limits=limits, proxy=proxy, request_timeout=REQUEST_TIMEOUT,
        allow_hosts=arguments.allow_host, announce=_announce,
    )  # fmt: skip
    most = min(limits.max_batch, SIZES[-1])
    unknown = tuple(str(uuid.uuid4()) for _ in range(most))
    what = Examination(url, checks.task_ids(ids), unknown, most)
    async with AsyncExitStack() as stack:
        if arguments.capture is not None:
            recorder = Recorder(arguments.capture, secrets_of(url, key, proxy))
            examiner.observer = (await stack.enter_async_context(recorder)).observe
        answers = await examiner.run(what)
    subject = Subject(url, what.ids, most, limits.max_rate, MAX_REQUESTS)
    return diagnose(answers, subject, CHECKS)


def _announce(number: int, question: Question) -> None:
    """Print a request before it is sent, without ids and links, which may be long or secret."""
    if sys.stderr is not None:
        about = f"{len(question.ids)} ids: " if len(question.ids) > 1 else ""
        method = " HEAD" if question.method == "HEAD" else ""
        what = f"{_NAMES[question.call]}{method}, {about}{question.purpose}"
        print_error(f"request {number} of {MAX_REQUESTS} at most: {what}")
