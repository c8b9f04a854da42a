"""Whether a base URL leads to no relay: both endpoints are missing, for certain or for a minute."""

from hypothesis import given, settings
from hypothesis import strategies as st

from luma_async.scheduling.route_check import MAX_WITHOUT_ROUTE, RouteCheck
from tests.properties import examples


def test_the_base_url_is_wrong_if_both_endpoints_are_missing_for_a_minute() -> None:
    assert MAX_WITHOUT_ROUTE == 60.0
    check = RouteCheck()
    assert not check.record_no_route(batch_endpoint=True, now=0.0)
    assert not check.record_no_route(batch_endpoint=True, now=MAX_WITHOUT_ROUTE)
    assert not check.has_neither
    assert check.record_no_route(batch_endpoint=False, now=MAX_WITHOUT_ROUTE)
    check.reset()
    assert not check.has_neither
    assert not check.record_no_route(batch_endpoint=False, now=500.0)
    assert not check.record_no_route(batch_endpoint=True, now=501.0)
    assert check.has_neither
    check.record_response()
    assert not check.has_neither
    assert not check.record_no_route(batch_endpoint=True, now=900.0)
    assert not check.record_no_route(batch_endpoint=False, now=1900.0)


def test_the_base_url_is_wrong_at_once_if_both_endpoints_say_so_for_certain() -> None:
    check = RouteCheck()
    assert not check.record_no_route(batch_endpoint=True, now=0.0, is_certain=True)
    assert not check.record_no_route(batch_endpoint=False, now=1.0)
    assert check.record_no_route(batch_endpoint=False, now=1.0, is_certain=True)


no_routes = st.tuples(st.sampled_from([0.0, 1.0, 29.0, 30.0, 31.0]), st.booleans(), st.booleans())


@settings(max_examples=examples(40))
@given(st.lists(st.lists(no_routes, max_size=5), min_size=1, max_size=2))
def test_the_base_url_is_wrong_by_what_was_said_since_another_error(
    runs: list[list[tuple[float, bool, bool]]],
) -> None:
    """Each run of "no such route" ends with an error of another kind."""
    check, now = RouteCheck(), 0.0
    for run in runs:
        said: dict[bool, bool] = {}
        started_at: float | None = None
        for seconds, batch_endpoint, is_certain in run:
            now += seconds
            started_at = now if started_at is None else started_at
            said[batch_endpoint] = is_certain
            over = now - started_at >= 60.0 or all(said.values())
            is_wrong = check.record_no_route(
                batch_endpoint=batch_endpoint, now=now, is_certain=is_certain
            )
            assert is_wrong is (len(said) == 2 and over)
            assert check.has_neither is (len(said) == 2)
        check.reset()
        assert not check.has_neither
