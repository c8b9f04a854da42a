"""A mutant in the source and in the functions of a process."""

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType

from tests.bench.mutants_finder import Mutant


class Changed:
    """A module of the package, changed on disk for as long as the block lasts."""

    _written = 0

    def __init__(self, mutant: Mutant) -> None:
        self._path = Path(mutant.file)
        self._source = self._path.read_bytes()
        self.mutated: bytes = mutant.apply(self._source)

    def __enter__(self) -> "Changed":
        self._write(self.mutated)
        return self

    def __exit__(self, *_: object) -> None:
        self._write(self._source)

    def _write(self, source: bytes) -> None:
        """Write with a time of its own, so that no compiled module is taken for this one."""
        Changed._written += 1
        self._path.write_bytes(source)
        at = int(time.time()) + Changed._written
        os.utime(self._path, (at, at))


class Functions:
    """The functions of the package that exist in this process, by where they are defined."""

    def __init__(self) -> None:
        gc.unfreeze()  # frozen objects are not found
        self._at: dict[tuple[str, int], list[FunctionType]] = {}
        for one in gc.get_objects():
            if isinstance(one, FunctionType):
                code = one.__code__
                self._at.setdefault((code.co_filename, code.co_firstlineno), []).append(one)
        gc.freeze()

    def replacements(self, mutant: Mutant, source: bytes) -> list[tuple[FunctionType, CodeType]]:
        """Return the changed function, wherever it is referred to, and its new code.

        Empty if it is not known here, or cannot be replaced: it has other free variables.
        """
        path = str(Path(mutant.file).absolute())
        try:
            compiled = compile(source, path, "exec")
        except SyntaxError:
            return []
        found = [
            (function, code)
            for code in _codes(compiled)
            if code.co_firstlineno == mutant.function_line
            for function in self._at.get((path, code.co_firstlineno), ())
            if function.__code__.co_name == code.co_name
        ]
        fit = all(one.__code__.co_freevars == code.co_freevars for one, code in found)
        return found if fit else []


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)
