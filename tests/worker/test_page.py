"""The commands, tables and examples of docs/workers.md."""

import asyncio
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from luma_async.cli import _parser  # pyright: ignore[reportPrivateUsage]
from luma_async.testing import FakeRelay
from luma_async.worker import (
    Queue,
)
from luma_async.worker.metrics import Metrics
from luma_async.worker.server import streams
from tests import optional
from tests.docs_blocks import ROOT, blocks
from tests.worker.worker_processes import WorkerPool

yaml: Any = optional.module("yaml")
PAGE = "docs/workers.md"
TEXT = (ROOT / PAGE).read_text()


def commands() -> list[str]:
    (unit,) = blocks(PAGE, "ini")
    (compose,) = blocks(PAGE, "yaml")
    shown = re.findall(r"^    (?:LUMA_API_KEY=\S+ )?(luma-async .*)$", TEXT, flags=re.MULTILINE)
    started = re.findall(r"ExecStart=\S+/(luma-async .*)", unit)
    folded = yaml.safe_load(compose)["services"]["worker1"]["command"]
    return [*shown, *started, folded.strip()]


@pytest.mark.parametrize("command", commands())
def test_each_command_of_the_page_is_valid(command: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "luma-async"
    _parser().parse_args(arguments)


def test_the_table_of_settings_has_each_option_of_the_command() -> None:
    parser = _parser()
    actions: Any = next(a for a in parser._actions if a.dest == "command")  # pyright: ignore[reportPrivateUsage]
    options = {
        option
        for action in actions.choices["worker"]._actions
        for option in action.option_strings
        if option.startswith("--")
    }
    documented = set(re.findall(r"`(--[a-z-]+)", TEXT))
    assert options - documented == {"--help", "--base-url", "--proxy", "--verbose"}
    assert documented <= options


def test_each_metric_is_on_the_page() -> None:
    names = set(re.findall(r"`(luma_[a-z_]+)[`{]", TEXT)) - {"luma_async"}
    assert "luma_lag_seconds" in names
    from luma_async.polling.stats import Stats
    from luma_async.worker import metrics
    from luma_async.worker.storage.results import EndState
    from luma_async.worker.worker import Work

    work = Work(
        ends=dict.fromkeys(EndState, 0), taken=0, redelivered=0, handed_back=0, held=0,
        capacity=1, oldest=0.0, untold=0, peers=0, connected=True,
    )  # fmt: skip
    collected = [
        metrics._result_metric(work.ends),  # pyright: ignore[reportPrivateUsage]
        *metrics._families(work, metrics.WORK_METRICS),  # pyright: ignore[reportPrivateUsage]
        *metrics._families(Stats(), metrics.STATS_METRICS),  # pyright: ignore[reportPrivateUsage]
    ]
    full = {f"{m.name}_total" if m.type == "counter" else m.name for m in collected}
    assert names == full | {"luma_lag_seconds"}
    assert b"luma_lag_seconds" in Metrics().text()


def test_the_cluster_of_the_page_has_three_workers_and_three_connected_servers() -> None:
    (compose,) = blocks(PAGE, "yaml")
    services = yaml.safe_load(compose)["services"]
    servers = {name for name in services if name.startswith("nats")}
    assert len(servers) == 3
    assert len(services) == 6
    for name in servers:
        arguments = services[name]["command"].split()
        assert arguments[arguments.index("-n") + 1] == name
        routes = set(re.findall(r"nats\d", arguments[arguments.index("-routes") + 1]))
        assert routes == servers - {name}
    assert set(re.findall(r"nats\d", services["worker1"]["environment"]["LUMA_NATS"])) == servers


def test_the_image_of_the_page_is_built_from_files_of_this_repository() -> None:
    (compose,) = blocks(PAGE, "yaml")
    build = yaml.safe_load(compose)["services"]["worker1"]["build"]
    assert build["context"] == "."
    text = (ROOT / build["dockerfile"]).read_text()
    copied = [
        name
        for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE)
        for name in line.split()
    ]
    assert {"pyproject.toml", "luma_async"} <= set(copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"]} <= set(copied)
    (extra,) = re.findall(r"pip install .*'\.\[(\w+)\]'", text)
    assert extra in project["optional-dependencies"]
    (command,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    assert json.loads(command) == ["luma-async", "worker"]


def test_the_times_of_the_page_are_those_of_the_code() -> None:
    assert "kept for a week" in TEXT
    assert streams.RESULT_MAX_AGE == 7 * 86_400


async def test_the_examples_of_the_page_wait_for_submitted_ids(
    tmp_path: Path, relay: FakeRelay, capsys: pytest.CaptureFixture[str], server: str, pool: str,
    workers: WorkerPool, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    await workers.start()
    names: dict[str, Any] = {}
    first, second, _ = blocks(PAGE, "python")
    exec(first.replace('Queue(data="./luma-data")', f'Queue("{server}", pool="{pool}")'), names)
    await names["wait_for_videos"](ids := [relay.add(duration=0.0)])
    assert ids[0] in capsys.readouterr().out
    saved: list[str] = []

    def save(task_id: str, *_: object, **__: object) -> None:
        saved.append(task_id)

    exec(second, names | {"save": save}, names)
    names["save"] = save
    async with Queue(server, pool=pool) as queue:
        reading = asyncio.create_task(names["ends"](queue, 0))
        async with asyncio.timeout(20):
            while not saved:  # noqa: ASYNC110 - the page's loop has no end
                await asyncio.sleep(0.02)
        reading.cancel()
        await asyncio.wait([reading])
    assert saved == ids


async def test_the_example_of_the_page_polls_with_a_shared_budget(
    relay: FakeRelay, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMA_BASE_URL", relay.url)
    monkeypatch.setenv("LUMA_API_KEY", relay.api_key)
    names: dict[str, Any] = {}
    *_, text = blocks(PAGE, "python")
    exec(text.replace('Queue(data="./luma-data")', f'Queue("{server}")'), names)
    await names["poll"]([relay.add(duration=0.0)])
    assert relay.requests
