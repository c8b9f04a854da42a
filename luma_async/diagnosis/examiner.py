"""Asks the questions of an examination, one after the other, within the limits of a session."""

import random
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import anyio

from luma_async.diagnosis.plan import FIRST_BYTES, MAX_REQUESTS, Examination, examine
from luma_async.diagnosis.questions import Answer, Answers, Question
from luma_async.downloads.links import check_link
from luma_async.downloads.public_resolver import PublicResolver
from luma_async.errors import DownloadError, LumaError, TransportError
from luma_async.protocol.headers import lower_case
from luma_async.protocol.requests import HTTPRequest, Observer
from luma_async.scheduling.throttle import Limits, Throttle
from luma_async.text import one_line
from luma_async.transport import Transport

MAX_PAUSE = 60.0  # seconds for which a Retry-After is obeyed; a longer one ends the examination


class Examiner:
    """Sends the questions of an examination to a relay, and collects the answers.

    `open_transport` returns a transport to a base URL, not entered yet. `announce` receives each
    question and its number before it is sent. `observer` receives each exchange with the relay, as
    that of a session does. Links may lead to `allow_hosts` even if their addresses are private.
    """

    def __init__(
        self,
        open_transport: Callable[[str], Transport],
        *,
        api_key: str,
        limits: Limits,
        proxy: str | None = None,
        request_timeout: float = 30.0,
        allow_hosts: Collection[str] = (),
        announce: Callable[[int, Question], object] = lambda _number, _question: None,
    ) -> None:
        self._open_transport = open_transport
        self._api_key = api_key
        self._throttle = Throttle(limits, random.random)
        self._proxy = proxy
        self._timeout = aiohttp.ClientTimeout(total=request_timeout)
        self._allowed = frozenset(host.lower() for host in allow_hosts)
        self._announce = announce
        self.observer: Observer | None = None
        self._transports: dict[str, Transport] = {}
        self._stack = AsyncExitStack()
        self._seen: list[tuple[int, Mapping[str, str], bytes]] = []

    async def run(self, what: Examination) -> Answers:
        """Ask all questions, `MAX_REQUESTS` at most, and return the answers."""
        answers, asking = Answers(), examine(what)
        async with self._stack:
            answer: Answer | None = None
            while True:
                try:
                    question = asking.send(answer)
                except StopIteration:
                    return answers
                answer = None
                if len(answers) < MAX_REQUESTS and await self._has_slot():
                    self._announce(len(answers) + 1, question)
                    answer = await self._ask(question)
                    answers.append(answer)

    async def _has_slot(self) -> bool:
        """Wait until the limits allow a request. Return False if that takes too long."""
        now = anyio.current_time()
        if (slot := self._throttle.next_slot_at()) > now + MAX_PAUSE:
            return False
        await anyio.sleep(max(0.0, slot - now))
        return True

    async def _ask(self, question: Question) -> Answer:
        sent_at = anyio.current_time()
        self._throttle.acquire(sent_at)
        answer = Answer(question=question)
        try:
            await (self._ask_link if question.call == "link" else self._ask_relay)(answer)
        finally:
            self._throttle.release()
        now = anyio.current_time()
        answer.seconds, answer.received_at = now - sent_at, time.time()
        if isinstance(answer.error, LumaError) and answer.is_transient:
            self._throttle.back_off(answer.error, sent_at, now)
        news = answer.response or answer.error
        self._throttle.honour_retry_after(news.retry_after if news else None, now)
        return answer

    async def _ask_relay(self, answer: Answer) -> None:
        question = answer.question
        self._seen.clear()
        transport = await self._transport(question.base_url)
        try:
            if question.call == "get":
                answer.response = await transport.get(question.ids[0])
            else:
                answer.response = await transport.get_many(question.ids)
        except LumaError as error:
            answer.error = error.with_traceback(None)
        for status, headers, body in self._seen:
            answer.status, answer.headers, answer.body = status, lower_case(headers), body

    async def _transport(self, base_url: str) -> Transport:
        if base_url not in self._transports:
            transport = self._open_transport(base_url)
            transport.observer = self._observe
            self._transports[base_url] = await self._stack.enter_async_context(transport)
        return self._transports[base_url]

    def _observe(
        self, request: HTTPRequest, status: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        self._seen.append((status, headers, body))
        if self.observer is not None:
            self.observer(request, status, headers, body)

    async def _ask_link(self, answer: Answer) -> None:
        """Ask for a link, as a download does: only at public addresses, and without the key."""
        question = answer.question
        headers = {**question.headers, "Accept-Encoding": "identity"}
        if question.with_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        try:
            url = check_link(question.url, self._allowed)
            async with (
                self._http() as http,
                http.request(
                    question.method, url, headers=headers, proxy=self._proxy, allow_redirects=False
                ) as response,
            ):
                answer.status, answer.headers = response.status, lower_case(response.headers)
                answer.body = await response.content.read(FIRST_BYTES)
        except DownloadError as error:
            answer.error = error.with_traceback(None)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            answer.error = TransportError(one_line(type(error).__name__))

    @asynccontextmanager
    async def _http(self) -> AsyncGenerator[aiohttp.ClientSession, None]:
        connector = aiohttp.TCPConnector(resolver=PublicResolver(self._allowed))
        async with aiohttp.ClientSession(
            connector=connector, timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
        ) as http:
            yield http
