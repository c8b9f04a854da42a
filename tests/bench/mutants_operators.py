"""What mutation changes: each operator turns a node of a module into replacements of its text.

| operator | what it does |
| --- | --- |
| boundary | `<` becomes `<=`, `>` becomes `>=`, and the reverse |
| comparison | `==` becomes `!=`, `is` becomes `is not`, `in` becomes `not in`, and the reverse |
| arithmetic | `+` becomes `-`, `*` becomes `/`, `//` and `%` become `/` and `*`, and the reverse |
| constant | a number plus 1, an int above 0 minus 1, True becomes False, and the reverse |
| not | `not x` becomes `x` |
| logic | `and` becomes `or`, and the reverse |
| condition | that of an if, a ternary, a comprehension or a guard becomes True, and False |
| loop | the condition of a `while` becomes False |
| statement | a call, a raise, a del, `x.y = …`, `x[y] = …` or `x += …` is left out |
| jump | `break` becomes `continue`, and the reverse |
| return | `return x` becomes `return None` |
| function | `min` becomes `max`, `any` becomes `all`, and the reverse |
"""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple, TypeAlias

Place: TypeAlias = ast.expr | ast.stmt

COMPARISONS: dict[type[ast.cmpop], tuple[str, str, str]] = {
    ast.Lt: ("boundary", "<", "<="),
    ast.LtE: ("boundary", "<=", "<"),
    ast.Gt: ("boundary", ">", ">="),
    ast.GtE: ("boundary", ">=", ">"),
    ast.Eq: ("comparison", "==", "!="),
    ast.NotEq: ("comparison", "!=", "=="),
    ast.Is: ("comparison", r"\bis\b", "is not"),
    ast.IsNot: ("comparison", r"\bis\s+not\b", "is"),
    ast.In: ("comparison", r"\bin\b", "not in"),
    ast.NotIn: ("comparison", r"\bnot\s+in\b", "in"),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: (r"\+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: (r"\*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "*"),
    ast.BitOr: (r"\|", "&"),
    ast.BitAnd: ("&", "|"),
}
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
ATOMS = (ast.Name, ast.Attribute, ast.Call, ast.Subscript, ast.Constant)


class Edit(NamedTuple):
    """A piece of the source that is replaced; positions in bytes."""

    start: int
    end: int
    text: str


class Change(NamedTuple):
    """One mutation of a node: `place` is the node whose lines a reader has to see."""

    operator: str
    place: Place
    edits: list[Edit]


class Text:
    """The source of a module, addressed by its nodes."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self._starts: list[int] = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def lines(self, place: Place) -> tuple[int, int]:
        """Return where the first line of a node begins, and where its last one ends."""
        return self._starts[place.lineno - 1], self._starts[end_line(place)]

    def replace(self, place: Place, text: str) -> Edit:
        """Replace a node."""
        return Edit(self._start(place), self._end(place), text)

    def swap(self, left: Place, right: Place, pattern: str, text: str) -> Edit:
        """Replace an operator that stands between two nodes."""
        start, end = self._end(left), self._start(right)
        found = re.search(pattern, self.source[start:end].decode())
        assert found, (pattern, self.source[start:end])
        return Edit(start + found.start(), start + found.end(), text)

    def read(self, place: Place) -> str:
        """Return the text of a node."""
        return self.source[self._start(place) : self._end(place)].decode()

    def _start(self, place: Place) -> int:
        return self._starts[place.lineno - 1] + place.col_offset

    def _end(self, place: Place) -> int:
        return self._starts[end_line(place) - 1] + (place.end_col_offset or 0)


def end_line(place: Place) -> int:
    """Return the last line of a node."""
    return place.end_lineno or place.lineno


def changes(text: Text, node: ast.AST) -> Iterator[Change]:
    """Yield what can be changed in a node itself, its children left as they are."""
    for operator in (_compare, _calculate, _constants, _logic, _conditions, _statements):
        yield from operator(text, node)


def _compare(text: Text, node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
        for left, op, right in zip(operands, node.ops, operands[1:], strict=False):
            operator, pattern, other = COMPARISONS[type(op)]
            yield Change(operator, node, [text.swap(left, right, pattern, other)])


def _calculate(text: Text, node: ast.AST) -> Iterator[Change]:
    match node:
        case (
            ast.BinOp(left=left, op=op, right=right)
            | ast.AugAssign(target=left, op=op, value=right)
        ):  # fmt: skip
            if type(op) in ARITHMETIC and not _is_no_number(left) and not _is_no_number(right):
                yield Change("arithmetic", node, [text.swap(left, right, *ARITHMETIC[type(op)])])
        case ast.Call(func=ast.Name(id=name) as function) if name in FUNCTIONS:
            yield Change("function", node, [text.replace(function, FUNCTIONS[name])])
        case _:
            pass


def _is_no_number(node: ast.expr) -> bool:
    """Return whether an operand is a text, or a part of a union of types."""
    match node:
        case ast.Constant(value=str() | bytes() | None) | ast.JoinedStr():
            return True
        case ast.Name(id=name):
            return name in ("str", "bytes", "int", "float") or name.istitle()
        case _:
            return False


def _constants(text: Text, node: ast.AST) -> Iterator[Change]:
    values: list[int | float] = []
    match node:
        case ast.Constant(value=bool(value)):
            values = [not value]
        case ast.Constant(value=int(value)):
            values = [value + 1, value - 1] if value > 0 else [value + 1]
        case ast.Constant(value=float(value)):
            values = [value + 1.0]
        case _:
            return
    for other in values:
        yield Change("constant", node, [text.replace(node, str(other))])


def _logic(text: Text, node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.BoolOp(op=op, values=values):
            pattern, other = (r"\band\b", "or") if isinstance(op, ast.And) else (r"\bor\b", "and")
            edits = [text.swap(left, right, pattern, other) for left, right in pairwise(values)]
            yield Change("logic", node, edits)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = text.read(operand)
            without = inner if isinstance(operand, ATOMS) else f"({inner})"
            yield Change("not", node, [text.replace(node, without)])
        case _:
            pass


def _conditions(text: Text, node: ast.AST) -> Iterator[Change]:
    tests: list[ast.expr] = []
    match node:
        case ast.If(test=test) | ast.IfExp(test=test):
            tests = [test]
        case ast.comprehension(ifs=ifs):
            tests = ifs
        case ast.match_case(guard=ast.expr() as guard):
            tests = [guard]
        case ast.While(test=test) if not isinstance(test, ast.Constant):
            yield Change("loop", test, [text.replace(test, "False")])
        case _:
            pass
    for test in tests:
        yield Change("condition", test, [text.replace(test, "True")])
        yield Change("condition", test, [text.replace(test, "False")])


def _statements(text: Text, node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise() | ast.Delete():
            yield Change("statement", node, [text.replace(node, "pass")])
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.AugAssign():
            yield Change("statement", node, [text.replace(node, "pass")])
        case ast.Break():
            yield Change("jump", node, [text.replace(node, "continue")])
        case ast.Continue():
            yield Change("jump", node, [text.replace(node, "break")])
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield Change("return", node, [text.replace(value, "None")])
        case _:
            pass
