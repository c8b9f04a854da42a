"""The bench of mutants: what it changes, what it runs, and how it counts."""

from pathlib import Path
from textwrap import dedent

import pytest

import luma_async
from tests.bench.mutants import CORE, Score, Tried, equivalent, modules, report, room
from tests.bench.mutants_code import Changed, Functions
from tests.bench.mutants_finder import Mutant, mutants_of
from tests.bench.mutants_map import choose
from tests.module_files import load

PACKAGE = Path(luma_async.__file__).parent


def found(source: str) -> list[Mutant]:
    return mutants_of("small", dedent(source).encode())


@pytest.mark.parametrize(
    ("line", "operator", "becomes"),
    [
        ("x = a < b", "boundary", ["x = a <= b"]),
        ("x = a >= b", "boundary", ["x = a > b"]),
        ("x = a < b <= c", "boundary", ["x = a <= b <= c", "x = a < b < c"]),
        ("x = a is not b", "comparison", ["x = a is b"]),
        ("x = a in b", "comparison", ["x = a not in b"]),
        ("x = (a) == (b)", "comparison", ["x = (a) != (b)"]),
        ("x = a - b * c", "arithmetic", ["x = a + b * c", "x = a - b / c"]),
        ("x += y", "arithmetic", ["x -= y"]),
        ("x = 'a' + y", "arithmetic", []),
        ("x = y | None", "arithmetic", []),
        ("x = 3", "constant", ["x = 4", "x = 2"]),
        ("x = 0", "constant", ["x = 1"]),
        ("x = 0.5", "constant", ["x = 1.5"]),
        ("x = True", "constant", ["x = False"]),
        ("x = 'text'", "constant", []),
        ("x: Literal[3] = y", "constant", []),
        ("x = f'{3}'", "constant", []),
        ("x = not a", "not", ["x = a"]),
        ("x = not (a or b)", "not", ["x = (a or b)"]),
        ("x = a and b and c", "logic", ["x = a or b or c"]),
        ("x = a if b else c", "condition", ["x = a if True else c", "x = a if False else c"]),
        ("x = {a for a in b if c}", "condition",
         ["x = {a for a in b if True}", "x = {a for a in b if False}"]),
        ("while a: b", "loop", ["while False: b"]),
        ("while True: b", "loop", []),
        ("f(x)", "statement", ["pass"]),
        ("raise x", "statement", ["pass"]),
        ("x.y = z", "statement", ["pass"]),
        ("x[y] = z", "statement", ["pass"]),
        ("x = y", "statement", []),
        ("'a text'", "statement", []),
        ("x = min(a, b)", "function", ["x = max(a, b)"]),
    ],
)  # fmt: skip
def test_an_operator_changes_one_thing(line: str, operator: str, becomes: list[str]) -> None:
    mutants = [mutant for mutant in found(line) if mutant.operator == operator]
    assert sorted(mutant.after for mutant in mutants) == sorted(becomes)
    assert all(mutant.apply(line.encode()).decode() == mutant.after for mutant in mutants)


def test_what_a_function_returns_and_awaits_is_left_out() -> None:
    source = """
        async def f(x):
            await g()
            for y in x:
                continue
            return y
    """
    after = {(mutant.operator, mutant.after) for mutant in found(source)}
    assert after == {("statement", "pass"), ("jump", "break"), ("return", "return None")}


def test_annotations_decorators_and_the_bases_of_a_class_stay() -> None:
    source = """
        @cache(size=3)
        class A(B, frozen=True):
            x: list[3]
            @cache(size=3)
            def f(self, y: T[3]) -> T[3]: ...
        if TYPE_CHECKING:
            z = 3
    """
    assert not found(source)


SOURCE = """\
LIMIT = 3

class A:
    @property
    def is_small(self):
        return (
            self.x
            < 7
        )

    def f(self, y=4):
        def g():
            return y + 1
        return g()
"""


def test_a_mutant_knows_its_function_and_its_lines() -> None:
    (small,) = [mutant for mutant in found(SOURCE) if mutant.operator == "boundary"]
    assert (small.function, small.function_line) == ("A.is_small", 4)
    assert list(small.lines) == [6, 7, 8]
    assert (small.before, small.after) == ("self.x < 7", "self.x <= 7")
    assert {(mutant.function, mutant.function_line > 0) for mutant in found(SOURCE)} == {
        ("", False), ("A.is_small", True), ("A.f", False), ("A.f", True),
    }  # fmt: skip


def test_the_key_of_a_mutant_survives_that_lines_move() -> None:
    moved = "# a comment\n\n" + SOURCE
    assert [one.key for one in found(moved)] == [one.key for one in found(SOURCE)]
    assert [one.line for one in found(moved)] != [one.line for one in found(SOURCE)]


def test_each_mutant_of_a_module_is_valid_python() -> None:
    source = (PACKAGE / "scheduling" / "queues.py").read_bytes()
    mutants = mutants_of("scheduling.queues", source)
    assert len(mutants) > 50
    for mutant in mutants:
        compile(mutant.apply(source), "queues.py", "exec")


def test_each_equivalent_mutant_is_one_of_the_package_and_has_a_reason() -> None:
    listed = equivalent()
    assert all(listed.values())
    names = {key[0] for key in listed}
    existing = {
        key
        for module in names
        for mutant in mutants_of(
            module, PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_bytes()
        )
        for key in (mutant.key, mutant.line_key)
    }
    assert not set(listed) - existing, "the line has changed: is the mutant still equivalent?"


def test_a_mutant_is_in_the_source_for_a_while_and_in_functions_that_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "luma_async" / "small.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    small = load(path).A()
    small.x = 7
    (mutant,) = [mutant for mutant in found(SOURCE) if mutant.operator == "boundary"]
    with Changed(mutant) as changed:
        assert path.read_bytes() == changed.mutated == mutant.apply(SOURCE.encode())
        ((function, code),) = Functions().replacements(mutant, changed.mutated)
    assert path.read_text() == SOURCE
    assert not small.is_small
    function.__code__ = code
    assert small.is_small


def test_the_fastest_tests_come_first_and_those_of_the_module_before_them() -> None:
    durations = {"a/test_x.py::a": 3.0, "a/test_x.py::b": 1.0, "a/test_small.py::c": 4.0}
    wanted = {*durations, "a/test_x.py::failed"}
    assert choose("scheduling.small", wanted, durations, 9.0) == [
        "a/test_small.py::c", "a/test_x.py::b", "a/test_x.py::a",
    ]  # fmt: skip
    assert choose("scheduling.small", wanted, durations, 5.0) == [
        "a/test_small.py::c", "a/test_x.py::b",
    ]  # fmt: skip
    assert choose("scheduling.small", wanted, durations, 0.0) == ["a/test_small.py::c"]


def test_the_error_of_a_score_is_that_of_a_sample_without_replacement() -> None:
    assert str(Score(1000, 100, 90)) == "1000 | 100 | 90 | 90 % | 2.9"
    assert str(Score(100, 100, 90)) == "100 | 100 | 90 | 90 % | 0.0"
    assert str(Score(100, 1, 1)) == "100 | 1 | 1 | 100 % | 46.9"


def test_the_report_adds_up_by_package_and_lists_survivors_as_a_diff(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = found("x = a < b\ny = a > b")
    tried = [Tried(first, killed=True, tests=2), Tried(second, killed=False, tests=3)]
    report([first, second], tried)
    printed = capsys.readouterr().out
    assert "| small | 2 | 2 | 1 | 50 % | 0.0 |" in printed
    assert "luma_async/small.py:2 [boundary]: 3 tests\n-   y = a > b\n+   y = a >= b" in printed
    assert "x = a" not in printed


def test_a_package_names_all_of_its_modules() -> None:
    names = modules(["scheduling", "scheduling.throttle", "transport"], PACKAGE)
    assert {"scheduling.throttle", "scheduling.hazard", "transport"} <= set(names)
    assert len(names) == len(set(names))
    with pytest.raises(SystemExit, match="has no module nothing; give one such as"):
        modules(["nothing"], PACKAGE)


def test_each_module_of_the_core_exists_and_is_counted_in_a_package() -> None:
    core = modules(CORE, PACKAGE)
    assert len(core) == len(set(core))
    assert {room(module) for module in core} == {
        "protocol", "scheduling", "polling", "downloads", "transport", "worker", "render",
    }  # fmt: skip
    assert room("worker.storage.results") == room("worker.leases") == "worker"
    assert room("cli.rendering.plan") == "render"
