"""The command that installs what an extra of this package needs.

It names the packages of the extra, not this package: so it works however this package was
installed, from a wheel, a path, a git URL or an index.
"""

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

_DISTRIBUTION = "luma-async"
_REQUIREMENT = re.compile(r"([^;]+?)\s*;.*\bextra == '([\w-]+)'")


def install_command(extra: str) -> str:
    """Return the shell command that installs what an extra needs.

    Without the metadata of an installed package it says which extra to install.
    """
    from importlib.metadata import PackageNotFoundError, requires

    try:
        needed = requirements_of(extra, requires(_DISTRIBUTION) or ())
    except PackageNotFoundError:
        needed = []
    if not needed:
        return f"install {_DISTRIBUTION} with its extra {extra!r}"
    return " ".join([_pip(), "install", *(f"'{one}'" for one in needed)])


def requirements_of(extra: str, required: Iterable[str]) -> list[str]:
    """Return the requirements of an extra, of those that the metadata of the package lists."""
    found = map(_REQUIREMENT.match, required)
    return [one[1] for one in found if one is not None and one[2] == extra]


def _pip() -> str:
    """Return the pip of this Python: by its path if this is an environment that is not active."""
    is_active = os.environ.get("VIRTUAL_ENV") == sys.prefix
    pip = Path(sys.executable).with_name("pip")
    return str(pip) if sys.prefix != sys.base_prefix and not is_active and pip.exists() else "pip"
