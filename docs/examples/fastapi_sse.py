"""A FastAPI service that waits in the background, and tells browsers of each end.

python docs/examples/fastapi_sse.py [PORT]

POST /videos submits, GET /videos/ID tells how it stands, GET /events streams the ends, and / is a
page that shows them as they come.
"""

import asyncio
import itertools
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import HTMLResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from luma_async import Ended, Learned, LumaError, LumaSession, SubmitUnknown, WaitAborted

PACE = Learned(float(os.environ.get("PACE", "5")))  # seconds; less where videos take seconds
KEPT = 1000  # ends that are remembered, for GET and for browsers that come back
AHEAD = 100  # ends that a slow browser may lag behind before it is sent away, to come back
AGAIN = 30.0  # seconds until the relay is asked again after it refused the key

logger = logging.getLogger("uvicorn.error")


class Order(BaseModel):
    """What a customer sends."""

    prompt: str = Field(min_length=1, max_length=2000)


class Video(BaseModel):
    """What a customer sees."""

    id: str
    prompt: str
    state: str = "open"
    url: str | None = None
    reason: str | None = None


# start of Studio
class Studio:
    """Submits videos, waits for all of them, and tells whoever listens."""

    def __init__(self, luma: LumaSession) -> None:
        self.open: dict[str, Video] = {}
        self.ended: dict[str, tuple[int, Video]] = {}
        self._luma = luma
        self._following = luma.follow()
        self._numbers = itertools.count(time.time_ns())  # they grow across restarts, too
        self._readers: set[asyncio.Queue[tuple[int, Video] | None]] = set()

    async def submit(self, prompt: str) -> Video:
        """Submit a video, and begin to wait."""
        task_id = (await self._luma.create(prompt)).id
        video = self.open[task_id] = Video(id=task_id, prompt=prompt)
        with suppress(WaitAborted):  # wait() has them all, and begins anew
            self._following.add([task_id])
        return video

    async def wait(self) -> None:
        """Take each end as it comes; where the key is refused, forget nothing, and begin anew."""
        while True:
            try:
                async for ended in self._following:
                    self._tell(ended)
            except WaitAborted as error:
                logger.error("nothing is waited for: %s", error)
            await asyncio.sleep(AGAIN)
            self._following = self._luma.follow()
            self._following.add(self.open)

    def _tell(self, ended: Ended) -> None:
        video = self.open.pop(ended.id)
        video.state = "missing"
        if ended.generation is not None:
            video.state = ended.generation.state.value
            video.url, video.reason = ended.generation.url, ended.generation.failure_reason
        news = self.ended[video.id] = next(self._numbers), video
        while len(self.ended) > KEPT:
            del self.ended[next(iter(self.ended))]
        for reader in tuple(self._readers):
            self._hand(reader, news)

    def _hand(
        self, reader: asyncio.Queue[tuple[int, Video] | None], news: tuple[int, Video]
    ) -> None:
        """Hand news to a reader; one that is too slow is sent away: it comes back for the rest."""
        try:
            reader.put_nowait(news)
        except asyncio.QueueFull:
            self._send_away(reader)

    def _send_away(self, reader: asyncio.Queue[tuple[int, Video] | None]) -> None:
        self._readers.discard(reader)
        if reader.full():
            reader.get_nowait()
        reader.put_nowait(None)

    def send_all_away(self) -> None:
        """Let every stream end."""
        for reader in tuple(self._readers):
            self._send_away(reader)

    @contextmanager
    def listening(self) -> Generator[asyncio.Queue[tuple[int, Video] | None]]:
        """Yield a queue of the ends from now on; None is its end."""
        reader: asyncio.Queue[tuple[int, Video] | None] = asyncio.Queue(AHEAD)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)


# end of Studio
# start of the service
@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    """Keep one session for the whole service; it ends when the service does."""
    async with LumaSession(pace=PACE) as luma:
        app.state.studio = studio = Studio(luma)
        waiting = asyncio.create_task(studio.wait())
        yield
        waiting.cancel()
        await asyncio.wait([waiting])
        logger.info("still open: %s", " ".join(studio.open) or "nothing")


app = FastAPI(lifespan=lifespan)


def the_studio(request: Request) -> Studio:
    """Return the studio of the service."""
    studio: Studio = request.app.state.studio
    return studio


TheStudio = Annotated[Studio, Depends(the_studio)]


@app.post("/videos", status_code=202)
async def post_video(order: Order, studio: TheStudio) -> Video:
    """Submit a video."""
    try:
        return await studio.submit(order.prompt)
    except SubmitUnknown:
        raise HTTPException(504, "it may be made; ask before you order again") from None
    except LumaError as error:
        raise HTTPException(502, f"the relay refuses: {error}") from None


@app.get("/videos")
async def get_videos(studio: TheStudio) -> list[Video]:
    """Tell which videos are open."""
    return list(studio.open.values())


@app.get("/videos/{task_id}")
async def get_video(task_id: str, studio: TheStudio) -> Video:
    """Tell how a video stands."""
    if task_id in studio.open:
        return studio.open[task_id]
    if task_id in studio.ended:
        return studio.ended[task_id][1]
    raise HTTPException(404, "no such video")


@app.get("/events", response_class=EventSourceResponse)
async def events(
    studio: TheStudio, last_event_id: Annotated[str, Header()] = ""
) -> AsyncGenerator[ServerSentEvent, None]:
    """Stream the ends: those that the browser has missed, then each as it comes."""
    last = int(last_event_id) if last_event_id.isdecimal() and len(last_event_id) < 20 else 0
    with studio.listening() as reader:
        for number, video in list(studio.ended.values()):
            if number > last:
                yield ServerSentEvent(event="end", id=str(number), data=video)
        while (news := await reader.get()) is not None:
            yield ServerSentEvent(event="end", id=str(news[0]), data=news[1])


# end of the service
PAGE = """<!doctype html><meta charset="utf-8"><title>Videos</title>
<style>body{font:16px system-ui;max-width:45em;margin:2em auto}li{margin:.4em 0}
input{font:inherit;width:70%}.open{color:#888}.failed,.missing{color:#b00}</style>
<h1>Videos</h1><form><input name="prompt" placeholder="a cat that dances" required maxlength="2000">
<button>Make it</button></form><ul></ul><script>
const list = document.querySelector("ul"), form = document.querySelector("form"), seen = new Map();
function show(video) {  // ids, prompts and reasons are text, never markup
  let item = seen.get(video.id);
  if (item && item.className !== "open") return;
  if (!item) { item = document.createElement("li"); seen.set(video.id, item); list.prepend(item); }
  item.className = video.state;
  item.textContent = `${video.prompt}: ${video.state} ${video.reason ?? ""} `;
  if (/^https?:/.test(video.url ?? "")) {
    const link = document.createElement("a");
    link.href = video.url; link.textContent = "watch"; link.rel = "noreferrer"; item.append(link);
  }
}
form.onsubmit = async event => {
  event.preventDefault();
  const body = JSON.stringify({prompt: form.prompt.value});
  const headers = {"Content-Type": "application/json"};
  const answer = await fetch("videos", {method: "POST", headers, body});
  if (answer.ok) { show(await answer.json()); form.reset(); }
};
fetch("videos").then(answer => answer.json()).then(videos => videos.forEach(show));
const source = new EventSource("events");  // comes back by itself, and says what it saw last
source.addEventListener("end", event => show(JSON.parse(event.data)));
</script>"""


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """Return the page."""
    return PAGE


class Server(uvicorn.Server):
    """A server whose streams end when it stops; uvicorn alone would wait for the browsers."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        app.state.studio.send_all_away()
        await super().shutdown(sockets)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    Server(uvicorn.Config(app, port=port, timeout_graceful_shutdown=5)).run()
