"""Your own ClientSession, traced by OpenTelemetry: each request to the relay is a span.

python docs/examples/traced.py ID …

Prints a line for each span; a real service exports them by OTLP instead.
"""

import asyncio
import os
import sys

import aiohttp
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import create_trace_config
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from luma_async import Learned, LumaSession, WaitIncomplete

PACE = Learned(float(os.environ.get("PACE", "5")))  # seconds; less where videos take seconds


def line(span: ReadableSpan) -> str:
    """Write a span as a line: its name and, of a request, method, URL and status."""
    said = dict(span.attributes or {})
    method, url, status = (
        said.get(new) or said.get(old)
        for new, old in (
            ("http.request.method", "http.method"),
            ("url.full", "http.url"),
            ("http.response.status_code", "http.status_code"),
        )
    )
    took = ((span.end_time or 0) - (span.start_time or 0)) / 1e9
    what = f"{method} {url} {status}" if method else f"{said}"
    return f"{took:7.3f} s  {span.name:12}  {what}\n"


async def main(ids: list[str]) -> None:
    """Wait for the ids, with spans around it and in it."""
    async with (
        aiohttp.ClientSession(trace_configs=[create_trace_config()]) as http,
        LumaSession(http=http, pace=PACE) as luma,
    ):
        tracer = trace.get_tracer("example")
        with tracer.start_as_current_span("wait", attributes={"luma.ids": len(ids)}) as span:
            try:
                done = await luma.wait_until_done(ids)
            except WaitIncomplete as error:
                done = error.done
            span.set_attribute("luma.done", len(done))


if __name__ == "__main__":
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=line)))
    trace.set_tracer_provider(provider)
    asyncio.run(main(sys.argv[1:]))
