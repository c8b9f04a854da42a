"""All mutants of a module: where each is, what it changes, and by what it is known.

Left alone are annotations, decorators, docstrings, texts and f-strings, the bases and keywords of
a class, and what is imported for type checkers.
"""

import ast
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from msgspec import Struct

from tests.bench.mutants_operators import Change, Text, changes, end_line

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class Mutant(Struct, frozen=True):
    """One change of a module."""

    module: str
    """Dotted, without the package: `scheduling.throttle`."""
    function: str
    """Qualified name of the outermost function, or of the class; or empty."""
    operator: str
    line: int
    end_line: int
    before: str
    """The lines that it touches, as one line without indentation."""
    after: str
    start: int
    """Where the piece begins that is replaced, in bytes of the source."""
    end: int
    text: str
    """What it is replaced by."""
    statement_line: int
    function_line: int
    """First line of the function in whose body the change is, decorators included; or 0."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Return what identifies the mutant, also after other lines have moved."""
        return self.module, self.function, self.before, self.after

    @property
    def line_key(self) -> tuple[str, str, str, str]:
        """Return what it has in common with all mutants of its lines."""
        return self.module, self.function, self.before, ""

    @property
    def file(self) -> str:
        """Return the path of the module in a checkout."""
        return f"luma_async/{self.module.replace('.', '/')}.py"

    @property
    def lines(self) -> range:
        """Return the lines that are executed with it, from the begin of its statement."""
        return range(self.statement_line, self.end_line + 1)

    def apply(self, source: bytes) -> bytes:
        """Return the source of the module with the change."""
        return source[: self.start] + self.text.encode() + source[self.end :]


class Scope(NamedTuple):
    """The outermost function, or the class; the first lines of the function and the statement."""

    name: str = ""
    line: int = 0
    statement: int = 0


def mutants_of(module: str, source: bytes) -> list[Mutant]:
    """Return all mutants of a module, in the order of its lines."""
    text = Text(source)
    found = [
        _mutant(module, text, scope, change)
        for node, scope in _nodes([ast.parse(source)], Scope())
        for change in changes(text, node)
    ]
    return sorted(found, key=lambda one: (one.start, one.end, one.operator, one.text))


def _mutant(module: str, text: Text, scope: Scope, change: Change) -> Mutant:
    start, end = change.edits[0].start, change.edits[-1].end
    new, done = b"", start
    for edit in change.edits:
        new += text.source[done : edit.start] + edit.text.encode()
        done = edit.end
    first, last = text.lines(change.place)
    before = text.source[first:last]
    after = text.source[first:start] + new + text.source[end:last]
    return Mutant(
        module, scope.name, change.operator, change.place.lineno, end_line(change.place),
        _one_line(before), _one_line(after), start, end, new.decode(),
        scope.statement or change.place.lineno, scope.line,
    )  # fmt: skip


def _one_line(text: bytes) -> str:
    return " ".join(text.decode().split())


def _nodes(nodes: Sequence[ast.AST], scope: Scope) -> Iterator[tuple[ast.AST, Scope]]:
    """Yield the nodes that may be changed, with the scope of each."""
    for node in nodes:
        match node:
            case ast.JoinedStr() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
                pass  # positions inside an f-string are wrong before Python 3.12
            case ast.ClassDef(name=name, body=body):
                yield from _nodes(body, scope if scope.line else _inside(scope, name, 0))
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _nodes_of_function(node, scope)
            case ast.AnnAssign(value=value):
                yield from _nodes([value] if value else [], scope)
            case _:
                if isinstance(node, ast.stmt):
                    scope = scope._replace(statement=node.lineno)
                yield node, scope
                yield from _nodes(list(ast.iter_child_nodes(node)), scope)


def _nodes_of_function(node: Function, scope: Scope) -> Iterator[tuple[ast.AST, Scope]]:
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    inside = scope if scope.line else _inside(scope, node.name, first)
    defaults = [*node.args.defaults, *(one for one in node.args.kw_defaults if one)]
    yield from _nodes(defaults, scope if scope.line else inside._replace(line=0))
    yield from _nodes(node.body, inside)


def _inside(scope: Scope, name: str, line: int) -> Scope:
    return Scope(f"{scope.name}.{name}".lstrip("."), line, scope.statement)
