"""Runs a block of Python as a page shows it, with what the page takes as given.

The loop's clock jumps, unless others than the loop are at work: a worker with its server, a block
that has a thread because it blocks. `asyncio.run(…)` becomes `await …`, so that the block shares
the relay's loop. The published URL and key are those of the relay. What the block defines and does
not use is called, with what it asks for by name.
"""

import ast
import asyncio
import importlib
import inspect
import logging
import re
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import pytest

import luma_async
import luma_async.testing
import luma_async.worker
from luma_async import Generation, LumaSession
from luma_async.testing import (
    Breakage,
    FakeRelay,
    Reply,
    SubmitFault,
    ThreadedRelay,
    VirtualTimeLoop,
)
from luma_async.testing.pytest_plugin import session_with
from luma_async.worker import Queue, Worker
from tests import optional
from tests.docs_blocks import Block

DURATIONS = (5.0, 75.0, 900.0)
ENDS: tuple[Literal["completed", "failed"], ...] = ("completed", "failed", "completed")
QUICK = (0.0, 0.1, 0.2)
SLOWDOWN, NAPS = 100.0, 200
OPTIONAL = {"rich": "cli", "tqdm": "examples"}  # packages and their extras
_FAILURE = re.compile(r"(status|body|breakage|submit_fault)_(\w+)")
_ATTEMPTS = 3  # of a direct call
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


def real(block: Block) -> bool:
    """Tell whether a block needs a clock that does not jump: others than its loop are at work."""
    return not {"worker", "thread"}.isdisjoint(block.given or ())


class Recorder:
    """A function that the page says is yours; it must be called."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, *arguments: Any, **_: Any) -> None:
        self.calls.append(arguments)


class Stage:
    """What a block may be given; each is made when it is asked for."""

    def __init__(
        self, block: Block, relay: FakeRelay, stack: AsyncExitStack, request: pytest.FixtureRequest
    ) -> None:
        self.relay = relay
        scripts = QUICK if real(block) else DURATIONS
        named = dict.fromkeys(_UUID.findall(block.text))
        self.ids = [relay.add(d, duration=s) for d, s in zip(named, scripts, strict=False)] or [
            relay.add(duration=seconds, ends=end)
            for seconds, end in zip(scripts, ENDS, strict=True)
        ]
        self.recorders: list[Recorder] = []
        self._stack = stack
        self._request = request
        self._made: dict[str, Any] = {}
        Path("ids.txt").write_text("".join(f"{task_id}\n" for task_id in self.ids))

    async def give(self, name: str) -> Any:
        """Return what has this name: ours, the library's, or a module."""
        if name not in self._made:
            self._made[name] = await self._make(name)
        return self._made[name]

    async def _make(self, name: str) -> Any:
        maker = getattr(self, f"_{name}", None)
        if maker is not None:
            made = maker()
            return await made if inspect.isawaitable(made) else made
        if failure := _FAILURE.fullmatch(name):
            return self._fail(*failure.groups())
        for house in (luma_async, luma_async.testing, luma_async.worker):
            if hasattr(house, name):
                return getattr(house, name)
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            pytest.fail(f"nobody gives {name!r}; let the block define it, or add it to Stage")

    def _fail(self, kind: str, what: str) -> None:
        """Let the next call of the block fail, which its page does not show: `status_502`."""
        if kind == "submit_fault":
            self.relay.submit_faults = {cast("SubmitFault", what): 1.0}
            return
        replies = {
            "status": lambda: Reply(int(what), b'{"error": {"message": "as the page needs it"}}'),
            "body": lambda: Reply(body=what.encode()),
            "breakage": lambda: Reply(breakage=cast("Breakage", what)),
        }
        reply = replies[kind]()
        self.relay.reply(reply)
        self.relay.reply(*[reply] * (_ATTEMPTS - 1), optional=True)  # if it is retried

    def _url(self) -> str:
        return self.relay.url

    def _key(self) -> str:
        return self.relay.api_key

    def _ids(self) -> list[str]:
        return self.ids

    def _task_id(self) -> str:
        return self.ids[0]

    def _path(self) -> Path:
        return Path("kept.json")

    def _save(self) -> Recorder:
        self.recorders.append(recorder := Recorder())
        return recorder

    def _config(self) -> object:
        return self._request.config

    def _item(self) -> object:
        return self._request.node

    def _luma_relay(self) -> FakeRelay:
        return self.relay

    async def _luma(self) -> LumaSession:
        """Return a session that has seen an end."""
        luma = await self._session(LumaSession(self.relay.url, api_key=self.relay.api_key))
        await luma.wait_until_done(self.relay.add(duration=2.0))
        return luma

    async def _luma_session(self) -> LumaSession:
        return await self._session(session_with(self.relay))

    async def _luma_relay_thread(self) -> ThreadedRelay:
        return self._stack.enter_context(ThreadedRelay())

    async def _session(self, luma: LumaSession) -> LumaSession:
        return await self._stack.enter_async_context(luma)

    async def _generation(self) -> Generation:
        luma = await self.give("luma")
        return cast("Generation", await luma.wait_until_done(self.ids[0]))

    def _thread(self) -> None:
        """Say that the block blocks: it gets a thread, and sleeps less."""

    async def _worker(self) -> None:
        """Let a worker poll for what is submitted to the directory of the pages."""
        queue = await self._stack.enter_async_context(Queue(data="./luma-data"))
        worker = Worker(await self.give("luma_session"), queue)
        running = asyncio.create_task(worker.run())

        async def stop() -> None:
            worker.stop()
            await asyncio.wait([running])

        self._stack.push_async_callback(stop)


def perform(block: Block, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a block in a loop of its own; the current directory is its to write into."""
    _skip_without_optional(block)
    factory = asyncio.new_event_loop if real(block) else VirtualTimeLoop
    with _logging_as_it_was(), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_perform(block, request, monkeypatch))


def _skip_without_optional(block: Block) -> None:
    """Skip the test of a block that imports an optional package which is not installed."""
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            package = node.module.partition(".")[0]
            if package in OPTIONAL:
                optional.module(package, OPTIONAL[package])


@contextmanager
def _logging_as_it_was() -> Generator[None, None, None]:
    """Undo what a block sets up for its whole process."""
    loggers = [logging.getLogger(name) for name in (None, "luma_async")]
    kept = [(logger.level, logger.handlers.copy()) for logger in loggers]
    try:
        yield
    finally:
        for logger, (level, handlers) in zip(loggers, kept, strict=True):
            logger.setLevel(level)
            logger.handlers[:] = handlers


async def _perform(
    block: Block, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeRelay() as relay, AsyncExitStack() as stack:
        stage = Stage(block, relay, stack, request)
        names = {name: await stage.give(name) for name in block.given or ()}
        monkeypatch.setenv("LUMA_BASE_URL", relay.url)
        monkeypatch.setenv("LUMA_API_KEY", relay.api_key)
        names["__name__"] = "__main__"
        text = block.text.replace("https://relay.example", relay.url).replace("sk-…", relay.api_key)
        if "thread" in (block.given or ()):
            monkeypatch.setattr(time, "sleep", _short(time.sleep))
            await asyncio.get_running_loop().run_in_executor(None, exec, text, names)
        else:
            await _run(text, str(block), names)
        await _call_the_rest(text, names, stage)
        for recorder in stage.recorders:
            assert recorder.calls, "the block was given save(), and never came to call it"


def _short(sleep: Callable[[float], None]) -> Callable[[float], None]:
    """Return a sleep that is shorter, and that ends a loop which has no end."""
    naps = iter(range(NAPS))

    def nap(seconds: float) -> None:
        assert next(naps, None) is not None, "the block goes on sleeping; its tasks have ended"
        sleep(seconds / SLOWDOWN)

    return nap


async def _run(text: str, name: str, names: dict[str, Any]) -> None:
    tree = _Awaiting().visit(ast.parse(text, name))
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(ast.fix_missing_locations(tree), name, "exec", flags=flags)
    outcome = eval(code, names)
    if inspect.isawaitable(outcome):
        await outcome


class _Awaiting(ast.NodeTransformer):
    """Makes `asyncio.run(…)` and `run_virtual(…)` an await: the loop is there already."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if ast.unparse(node.func) in ("asyncio.run", "run_virtual"):
            return ast.Await(value=node.args[0])
        return node


async def _call_the_rest(text: str, names: dict[str, Any], stage: Stage) -> None:
    tree = ast.parse(text)
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in used:
            function = names[node.name]
            asked = [p.name for p in inspect.signature(function).parameters.values()
                     if p.default is p.empty]  # fmt: skip
            outcome = function(**{name: await stage.give(name) for name in asked})
            if isinstance(outcome, Awaitable):
                await outcome
