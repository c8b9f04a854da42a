"""All checks of an examination, in the order of their findings."""

from luma_async.diagnosis import batch_checks as batches
from luma_async.diagnosis import call_checks as calls
from luma_async.diagnosis import connection_checks as connection
from luma_async.diagnosis import http_checks as http
from luma_async.diagnosis.findings import Check
from luma_async.diagnosis.link_checks import link

CHECKS: tuple[Check, ...] = (
    connection.connection,
    connection.base_url,
    connection.key,
    calls.calls,
    calls.envelope,
    calls.unknown_ids,
    calls.states,
    calls.about_others,
    batches.batch_size,
    batches.rows,
    batches.order,
    batches.names,
    http.rate,
    http.clock,
    http.compression,
    http.headers,
    http.latency,
    link,
    http.request_count,
)
"""Each check reads the answers, and yields what it finds."""
