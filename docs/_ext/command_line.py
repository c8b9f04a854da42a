"""The directive `commands`: what each command of `luma-async` says of itself under --help."""

import argparse
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

from luma_async.cli import _parser  # pyright: ignore[reportPrivateUsage]


class Commands(Directive):
    """A section for each command, with its help."""

    def run(self) -> list[Any]:
        """Write the sections."""
        parser = _parser()
        actions = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        told = [
            self._section(f"luma-async {name}", sub) for name, sub in next(actions).choices.items()
        ]
        return [_literal(parser), *told]

    def _section(self, title: str, parser: argparse.ArgumentParser) -> nodes.section:
        name = title.replace(" ", "-")
        section = nodes.section(ids=[name], names=[name])
        section += nodes.title(title, "", nodes.literal(title, title))
        section += _literal(parser)
        self.state.document.note_explicit_target(section)
        return section


def _literal(parser: argparse.ArgumentParser) -> nodes.literal_block:
    text = parser.format_help().rstrip()
    return nodes.literal_block(text, text, language="text")


def setup(app: Any) -> dict[str, bool]:
    """Join the build."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
