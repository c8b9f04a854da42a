"""Several processes save to one directory: each file is requested once, and is complete."""

import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web

from luma_async import download
from luma_async.downloads.partial_file import PARTS_FOLDER
from luma_async.testing import media
from tests.downloads.video_store import BODY, HERE, VideoStore, files, parts

PATIENCE = 60.0
SAVE = """
import asyncio, os, sys
from pathlib import Path
from luma_async import Downloader, Generation, State, Video
processes, count, url, directory = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]

async def save():
    async with Downloader(directory, allow_hosts=["127.0.0.1"]) as downloader:
        await asyncio.gather(*(
            downloader.download(Generation(
                id=str(n), state=State.COMPLETED, video=Video(download_url=f"{url}/{n}.mp4")
            ))
            for n in range(count)
        ))

children = []
for _ in range(processes):
    if not (child := os.fork()):
        try:
            asyncio.run(save())
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    children.append(child)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""
DIE_BEFORE_THE_MOVE = """
import asyncio, os, sys
from pathlib import Path
from luma_async import Generation, State, Video, download
Path.replace = lambda self, target: os.kill(os.getpid(), 9)
video = Video(download_url=sys.argv[1])
generation = Generation(id="a", state=State.COMPLETED, video=video)
asyncio.run(download(generation, sys.argv[2], allow_hosts=["127.0.0.1"]))
"""


async def run(program: str, *arguments: object) -> tuple[int | None, str]:
    """Return the exit code and the standard error of a program."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *map(str, arguments), stderr=asyncio.subprocess.PIPE
    )
    try:
        _, error = await asyncio.wait_for(process.communicate(), PATIENCE)
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    return process.returncode, error.decode()


@pytest.mark.parametrize(
    ("processes", "count"), [(4, 40), pytest.param(8, 2000, marks=pytest.mark.thorough)]
)
async def test_processes_that_share_names_request_each_file_once(
    tmp_path: Path, processes: int, count: int
) -> None:
    requested: Counter[str] = Counter()

    async def handle(request: web.BaseRequest) -> web.Response:
        requested[request.path] += 1
        name = request.path.strip("/").removesuffix(".mp4")
        return web.Response(body=media.video(name), content_type="video/mp4")

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        code, error = await run(SAVE, processes, count, url, tmp_path)
    finally:
        await runner.cleanup()
    assert (code, error) == (0, "")
    assert files(tmp_path) == sorted(f"{number}.mp4" for number in range(count))
    for number in range(count):
        assert (tmp_path / f"{number}.mp4").read_bytes() == media.video(str(number))
    assert requested == Counter({f"/{number}.mp4": 1 for number in range(count)})


@pytest.mark.parametrize("etag", ['"one"', None])
@pytest.mark.parametrize("has_length", [True, False])
async def test_a_process_that_is_killed_before_the_move_leaves_the_whole_file(
    store: VideoStore, tmp_path: Path, etag: str | None, has_length: bool
) -> None:
    async def send(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"ETag": etag} if etag else None)
        if has_length:
            response.content_length = len(BODY)
        else:
            response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(BODY)
        return response

    store.script = [send]
    code, error = await run(DIE_BEFORE_THE_MOVE, f"{store.url}/v.mp4", tmp_path)
    assert code == -signal.SIGKILL, error
    assert files(tmp_path) == [PARTS_FOLDER]
    assert parts(tmp_path) == ["a.mp4", "a.mp4.json"]
    assert (await download(store.video(), tmp_path, allow_hosts=HERE)).read_bytes() == BODY
    assert len(store.seen) == 1, "nothing is requested again"
    assert files(tmp_path) == ["a.mp4"]
