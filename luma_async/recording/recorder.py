"""Writes what a relay answers to a file: each shape once, redacted, in a thread of its own."""

import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, Self
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from luma_async.protocol.headers import lower_case
from luma_async.protocol.requests import HTTPRequest
from luma_async.protocol.tolerant_json import to_utf8
from luma_async.recording.capture_file import Captured, head_line, line
from luma_async.recording.json_pairs import dump, json_documents
from luma_async.recording.redaction import CaptureRedactor, is_known
from luma_async.recording.shapes import Rows, rows_of, shapes_of, trimmed
from luma_async.recording.stand_ins import StandIns

logger: logging.Logger = logging.getLogger("luma_async")

MAX_WAITING = 32 * 2**20  # bytes of bodies that wait for the thread; more responses are left out
MAX_SHAPES = 500
MAX_OMITTING = 4
MAX_SEEN = 100_000  # ids
MAX_TEXT = 65_536  # characters of a body that is not JSON
_NOT_KEPT = ("content-length", "transfer-encoding", "connection", "keep-alive")


class _Batch(Struct):
    ids: list[str]


class Exchange(Struct, frozen=True):
    """One request with its response, as the transport reports it."""

    request: HTTPRequest
    status: int
    headers: dict[str, str]
    body: bytes


class ShapeFilter:
    """Redacts responses, and passes each shape once. Pure but for what it has seen.

    The last batches that omitted ids are kept: if a later response has a row of such an id, the
    batch is passed again, as one that omits what the relay knows.
    """

    def __init__(self, stand_ins: StandIns, literals: Iterable[str] = ()) -> None:
        self._stand_ins = stand_ins
        self._literals = tuple(literals)
        self._shapes: set[Hashable] = set()
        self._seen: set[str] = set()
        self._omitting: deque[tuple[Exchange, frozenset[str]]] = deque(maxlen=MAX_OMITTING)

    def add(self, exchange: Exchange) -> list[Captured]:
        """Return the responses to write: none if the shape is known already."""
        ids = ids_of(exchange.request)
        headers = lower_case(exchange.headers)
        rows, names = rows_of(exchange.status, headers, exchange.body, ids, self._seen)
        if len(self._seen) < MAX_SEEN:
            self._seen.update(names)
        captured = self._new_shape(exchange, ids, headers, rows)
        again = [known for known in self._omitting if not known[1].isdisjoint(names)]
        for known in again:
            self._omitting.remove(known)
        if rows.omitted == "unknown" and exchange.request.body and len(exchange.body) < MAX_TEXT:
            self._omitting.append((exchange, frozenset(ids).difference(names)))
        later = [one for known, _ in again for one in self.add(known)]
        return later if captured is None else [captured, *later]

    def _new_shape(
        self, exchange: Exchange, ids: Sequence[str], headers: dict[str, str], rows: Rows
    ) -> Captured | None:
        body = to_utf8(exchange.body, headers.get("content-type", "")).decode("utf-8", "replace")
        documents = json_documents(body)
        if documents is not None:
            short = [trimmed(one) for one in documents]
            body = "".join(dump(one, ascii_only=body.isascii()) for one in short)
        call: Literal["get", "tasks"] = "tasks" if exchange.request.body else "get"
        shapes = shapes_of(call, exchange.status, headers, body, rows)
        if shapes <= self._shapes or len(self._shapes) >= MAX_SHAPES:
            return None
        self._shapes |= shapes
        words = [task_id for task_id in ids if not is_known(task_id)]
        redactor = CaptureRedactor(self._stand_ins, [*self._literals, *words])
        kept = {name: value for name, value in headers.items() if name not in _NOT_KEPT}
        named = [task_id for task_id in ids if redactor.names(body, task_id)] or ids[:1]
        return Captured(
            call=call,
            status=exchange.status,
            headers=redactor.headers(kept),
            body=redactor.body(body if documents is not None else body[:MAX_TEXT]),
            asked=len(ids),
            ids=[redactor.strict(task_id) for task_id in named],
            rows=rows,
        )


def ids_of(request: HTTPRequest) -> list[str]:
    """Return the ids in a request."""
    if request.body is None:
        return [unquote(request.path.rpartition("/")[2])]
    return msgspec.json.decode(request.body, type=_Batch).ids


def secrets_of(base_url: str, api_key: str, proxy: str | None) -> list[str]:
    """Return the texts that are replaced wherever they are: the key, the host, the proxy."""
    texts = [api_key, urlsplit(base_url).hostname]
    if proxy is not None:
        parts = urlsplit(proxy)
        texts += [parts.hostname, parts.username, parts.password]
        texts += [unquote(part) for part in (parts.username, parts.password) if part]
    return [text for text in texts if text and not is_known(text)] + [api_key]


def recorder_of(
    path: str | os.PathLike[str] | None, base_url: str, api_key: str, proxy: str | None
) -> "Recorder | None":
    """Return the recorder of a session with a relay; None without a path."""
    return None if path is None else Recorder(path, secrets_of(base_url, api_key, proxy))


class Recorder:
    """Writes the responses of a relay to a file: each shape once, redacted.

    An async context manager, or `start` and `close`. `observe` only queues: parsing, redaction and
    writing happen in a thread. What it cannot write it leaves out, with one warning.
    """

    def __init__(self, path: str | os.PathLike[str], literals: Iterable[str] = ()) -> None:
        self.path: Path = Path(path)
        self.shapes: int = 0
        self._filter = ShapeFilter(StandIns(os.urandom(32)), literals)
        self._queue: queue.SimpleQueue[Exchange | None] = queue.SimpleQueue()
        self._waiting = 0
        self._thread: threading.Thread | None = None
        self._has_warned = False

    def start(self) -> None:
        """Create the file, or empty it; OSError if that fails."""
        file = self.path.open("wb")
        file.write(head_line())
        file.flush()
        self._thread = threading.Thread(target=self._write_all, args=(file,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is queued, and close the file; a second call does nothing."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join()

    async def __aenter__(self) -> Self:
        await anyio.to_thread.run_sync(self.start)
        return self

    async def __aexit__(self, *error: object) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.close)

    def observe(
        self, request: HTTPRequest, status: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Queue a response; it never blocks and never raises."""
        if self._thread is None:
            return
        if self._waiting + len(body) > MAX_WAITING:
            self._warn("responses come faster than they can be recorded; some are left out")
            return
        self._waiting += len(body)
        self._queue.put(Exchange(request, status, dict(headers), body))

    def _write_all(self, file: BinaryIO) -> None:
        with file:
            while (exchange := self._queue.get()) is not None:
                try:
                    for captured in self._filter.add(exchange):
                        file.write(line(captured))
                        file.flush()
                        self.shapes += 1
                except Exception as error:  # recording must not stop what it records
                    self._warn(f"a response was not recorded: {type(error).__name__}")
                self._waiting -= len(exchange.body)

    def _warn(self, message: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning("%s (record=%s)", message, self.path)
