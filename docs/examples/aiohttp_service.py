"""An aiohttp.web service with long polling: who asks may wait for the end.

python docs/examples/aiohttp_service.py [PORT]

POST /videos submits, GET /videos/ID?wait=30 answers when the video has ended, after 30 seconds at
the latest. However many clients wait, one poller asks the relay; while nobody waits, nobody asks.
"""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator

from aiohttp import web

from luma_async import (
    Generation,
    Learned,
    LumaError,
    LumaSession,
    SubmitUnknown,
    WaitAborted,
    WaitIncomplete,
    WaitTimeout,
)

PACE = Learned(float(os.environ.get("PACE", "5")))  # seconds; less where videos take seconds
LONGEST = 60.0  # seconds that a client may wait for; less than its proxy does

LUMA = web.AppKey("LUMA", LumaSession)
SUBMITTING = web.AppKey("SUBMITTING", set[asyncio.Task[str]])

routes = web.RouteTableDef()


async def sessions(app: web.Application) -> AsyncGenerator[None, None]:
    """Keep one session for the whole service."""
    submitting: set[asyncio.Task[str]] = set()
    async with LumaSession(pace=PACE) as luma:
        app[LUMA], app[SUBMITTING] = luma, submitting
        yield


async def wake(app: web.Application) -> None:
    """Let everybody who waits have an answer when the service stops; what is paid for, first."""
    submitting = app[SUBMITTING]
    if submitting:
        await asyncio.wait(submitting)
    await app[LUMA].close()


@routes.post("/videos")
async def post_video(request: web.Request) -> web.Response:
    """Submit a video; it is paid for, so a client that leaves meanwhile does not break it off."""
    try:
        prompt = str((await request.json())["prompt"])
    except (ValueError, TypeError, KeyError):
        raise web.HTTPBadRequest(text='send {"prompt": "…"}\n') from None
    submitting = asyncio.create_task(submit(request.app[LUMA], prompt))
    request.app[SUBMITTING].add(submitting)
    submitting.add_done_callback(request.app[SUBMITTING].discard)
    task_id = await asyncio.shield(submitting)
    return web.json_response({"id": task_id}, status=202)


@routes.get("/videos/{task_id}")
async def get_video(request: web.Request) -> web.Response:
    """Tell how a video stands, at its end if that comes soon enough."""
    task_id = request.match_info["task_id"]
    try:
        wait = min(max(float(request.query.get("wait", "0")), 0.0), LONGEST)
        generation = await request.app[LUMA].wait_until_done(task_id, timeout=wait)
    except WaitTimeout as error:
        return told(error.pending[task_id])
    except WaitAborted:
        return web.json_response({"error": "not now, ask again"}, status=503)
    except WaitIncomplete:
        return told(None)
    except ValueError:
        raise web.HTTPBadRequest(text="wait is a number of seconds\n") from None
    return told(generation)


def told(generation: Generation | None) -> web.Response:
    """Tell what is known of a video: 200 has ended, 202 is open, 404 the relay does not know it."""
    if generation is None:
        return web.json_response({"error": "no such video, or not yet"}, status=404)
    state, url = generation.state.value, generation.url
    said = {"id": generation.id, "state": state, "url": url, "reason": generation.failure_reason}
    return web.json_response(said, status=200 if generation.is_done else 202)


async def submit(luma: LumaSession, prompt: str) -> str:
    """Submit a video, and return its id."""
    try:
        return (await luma.create(prompt)).id
    except SubmitUnknown:
        raise web.HTTPGatewayTimeout(text="it may be made; ask before you order again\n") from None
    except LumaError as error:
        raise web.HTTPBadGateway(text=f"the relay refuses: {error}\n") from None


def application() -> web.Application:
    """Make the service."""
    app = web.Application()
    app.add_routes(routes)
    app.cleanup_ctx.append(sessions)
    app.on_shutdown.append(wake)
    return app


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    # A handler whose client has left is cancelled, and with it the wait that nobody needs.
    web.run_app(application(), host="127.0.0.1", port=port, handler_cancellation=True)
