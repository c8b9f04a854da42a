"""When trouble is told of, and when it is over."""

from hypothesis import given
from hypothesis import strategies as st

from luma_async.polling.outages import MAX_QUIET_AFTER_OUTAGE, QUIET_AFTER_OUTAGE, Outage

outcomes = st.lists(st.tuples(st.floats(0.01, 2000.0), st.booleans()), max_size=200)


def played(told: list[tuple[float, bool]]) -> list[tuple[float, Outage, Outage]]:
    """Return when each request was over, with the episode before and after."""
    now, episode, steps = 0.0, Outage(), list[tuple[float, Outage, Outage]]()
    for gap, failed in told:
        now += gap
        after = episode.after_failure(now) if failed else episode.after_answer(now)
        steps.append((now, episode, after))
        episode = after
    return steps


@given(outcomes)
def test_no_hour_has_more_than_four_beginnings(told: list[tuple[float, bool]]) -> None:
    begun = [now for now, before, after in played(told) if after.is_on and not before.is_on]
    for first, fifth in zip(begun, begun[4:], strict=False):
        assert fifth - first > MAX_QUIET_AFTER_OUTAGE


@given(outcomes)
def test_it_is_on_from_a_failure_until_an_answer_after_the_calm(
    told: list[tuple[float, bool]],
) -> None:
    for (_, failed), (now, before, after) in zip(told, played(told), strict=True):
        assert not failed or after.is_on
        if before.is_on and not after.is_on:
            assert now - before.failed_at >= before.quiet_for >= QUIET_AFTER_OUTAGE


@given(outcomes)
def test_all_requests_of_an_episode_are_counted(told: list[tuple[float, bool]]) -> None:
    since: list[bool] = []
    for (_, failed), (_, _, after) in zip(told, played(told), strict=True):
        since = [*since, failed] if after.is_on else []
        assert (after.failed, after.requests) == (sum(since), len(since))


def test_the_calm_grows_fourfold_within_an_hour_and_is_a_minute_after_one() -> None:
    first = Outage().after_failure(0.0).after_answer(60.0)
    second = first.after_failure(61.0)
    assert second.quiet_for == 4 * QUIET_AFTER_OUTAGE
    assert second.after_answer(300.0).is_on
    assert not second.after_answer(301.0).is_on
    assert (
        second.after_answer(301.0).after_failure(61.0 + MAX_QUIET_AFTER_OUTAGE).quiet_for
        == QUIET_AFTER_OUTAGE
    )


def test_calm_costs_nothing() -> None:
    calm = Outage()
    assert calm.after_answer(1.0) is calm
