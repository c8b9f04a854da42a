"""Completes what autodoc shows: defaults as values, and an example of each class and call.

The examples are in docs/reference/examples.md, each below the full name of what it shows. There
they are run by the tests, like all blocks of the pages. A missing one is a warning, so that
`sphinx -W` fails.
"""

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

from sphinx.util import logging

logger = logging.getLogger(__name__)

EXAMPLES = Path(__file__).parent.parent / "reference" / "examples.md"
_CONSTANT = re.compile(r"(?<== )[A-Z][A-Z_]+(?=[,)])")
_OPAQUE = re.compile(r"= ?<(?!factory)[^>]*>")
_FACTORY = re.compile(r"(\w+)(: [^=]*)= ?<factory>")
_NEEDS_EXAMPLE = {"class", "exception", "function", "method"}
_ENTRY = re.compile(r"^## ([^\n]+)\n+(?:<!-- [^>]* -->\n)?```python\n(.*?)^```$", re.M | re.S)


def show_values(
    _app: Any, _what: str, _name: str, obj: Any, _options: Any, signature: str | None, returns: Any
) -> tuple[str | None, Any]:
    """Replace the names of constants in a signature by their values."""
    if signature is None:
        return None
    names = vars(importlib.import_module(obj.__module__)) if hasattr(obj, "__module__") else {}

    def value(found: re.Match[str]) -> str:
        return repr(names[found[0]]) if found[0] in names else found[0]

    def made(found: re.Match[str]) -> str:
        made_by = {field.name: field.default_factory for field in dataclasses.fields(obj)}
        return f"{found[1]}{found[2]}= {made_by[found[1]]()!r}"

    shown = _CONSTANT.sub(value, signature)
    if dataclasses.is_dataclass(obj):
        shown = _FACTORY.sub(made, shown)
    return _OPAQUE.sub("= ...", shown), returns


def examples() -> dict[str, str]:
    """Return the example of each full name; a heading may have several names."""
    found = _ENTRY.findall(EXAMPLES.read_text(encoding="utf-8"))
    return {name: code for names, code in found for name in names.split(", ")}


def add_example(app: Any, what: str, name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Append the example of an object to its docstring."""
    app.env.note_dependency(str(EXAMPLES))
    if (code := app.config.luma_examples.get(name)) is None:
        if what in _NEEDS_EXAMPLE:
            logger.warning("%s has no example; add one to docs/reference/examples.md", name)
    else:
        lines += ["", ".. code-block:: python", ""]
        lines += [f"   {line}" if line else "" for line in code.splitlines()]
        lines += [""]


def setup(app: Any) -> dict[str, bool]:
    """Join the build."""
    app.add_config_value("luma_examples", examples(), "env")
    app.connect("autodoc-process-signature", show_values)
    app.connect("autodoc-process-docstring", add_example)
    return {"parallel_read_safe": True}
