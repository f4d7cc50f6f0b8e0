"""When a policy is due: each slot once, the newest missed one caught up, every other week by the calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalserve.config.evidence import RetrainPolicy
from signalserve.config.settings import ConfigError
from signalserve.training.schedule import (
    Progress,
    ScheduleState,
    check_schedule,
    due_slot,
    newest_slot,
    next_slot,
    read_state,
    write_state,
)

CRONS = ("0 3 * * 1", "*/15 * * * *", "30 2 1 * *", "0 0 * * 1,4", "5 4 * * *", "0 12 * * 7")
moments = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds it
policies = st.builds(
    lambda cron, weeks: policy(cron, weeks), st.sampled_from(CRONS), st.sampled_from((1, 1, 2, 3, 52))
)


def policy(schedule: str = "0 3 * * 1", weeks: int = 1, name: str = "weekly") -> RetrainPolicy:
    return RetrainPolicy(name=name, symbols=["X"], schedule=schedule, weeks=weeks)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_weekly_slot_comes_every_monday_at_three_in_utc() -> None:
    first = next_slot(policy(), at("2024-05-15 12:00"))
    assert first == at("2024-05-20 03:00")
    assert next_slot(policy(), first) == at("2024-05-27 03:00")
    assert newest_slot(policy(), first) == first
    assert newest_slot(policy(), first - timedelta(microseconds=1)) == at("2024-05-13 03:00")


def test_every_other_week_alternates_whenever_the_process_started() -> None:
    slots = [next_slot(policy(weeks=2), at("2024-01-03 00:00") + timedelta(days=day)) for day in range(200)]
    distinct = sorted({slot for slot in slots if slot is not None})
    assert {later - earlier for earlier, later in pairwise(distinct)} == {timedelta(weeks=2)}


def test_a_schedule_with_several_days_runs_all_of_them_in_its_week_and_none_in_the_other() -> None:
    both = policy("0 0 * * 1,4", weeks=2)
    slots, cursor = [], at("2024-01-01 00:00")
    for _ in range(6):
        found = next_slot(both, cursor)
        assert found is not None
        slots.append(found)
        cursor = found
    assert [later - earlier for earlier, later in pairwise(slots)][:3] in (
        [timedelta(days=3), timedelta(days=11), timedelta(days=3)],
        [timedelta(days=11), timedelta(days=3), timedelta(days=11)],
    )


@given(policies, moments)
def test_newest_and_next_slot_are_neighbours(some: RetrainPolicy, now: datetime) -> None:
    newest, following = newest_slot(some, now), next_slot(some, now)
    assert newest is not None
    assert following is not None
    assert newest <= now < following
    assert next_slot(some, newest) == following
    assert newest_slot(some, following) == following


@given(policies, moments, st.lists(st.tuples(st.floats(0.01, 60), st.booleans()), max_size=40))
def test_no_slot_runs_twice_and_the_newest_missed_one_always_runs(
    some: RetrainPolicy, start: datetime, steps: list[tuple[float, bool]]
) -> None:
    state, now = ScheduleState().seen(some, start), start
    finished: list[datetime] = []
    for days, survives in steps:
        now += timedelta(days=days)
        slot = due_slot(some, state.of(some, now), now)
        newest = newest_slot(some, now)
        assert newest is not None
        if slot is None:
            # nothing is due: the newest slot is done, or was before anyone knew of the policy
            assert newest < start or newest in finished
            continue
        assert slot == newest
        assert slot not in finished
        state = state.start(some, slot, now)
        if survives:
            state = state.finish(some, slot, now)
            finished.append(slot)
        else:
            # the machine died in mid-run: it is still due
            assert due_slot(some, state.of(some, now), now) == slot
    assert finished == sorted(set(finished))


def test_of_many_missed_slots_the_newest_is_caught_up_and_no_other() -> None:
    state = ScheduleState().seen(policy(), at("2024-01-01 12:00"))
    now = at("2024-03-07 09:00")
    slot = due_slot(policy(), state.of(policy(), now), now)
    assert slot == at("2024-03-04 03:00")
    state = state.start(policy(), slot, now).finish(policy(), slot, now)
    assert due_slot(policy(), state.of(policy(), now), now) is None


def test_slots_before_a_policy_was_known_are_not_missed() -> None:
    now = at("2024-05-15 12:00")
    assert due_slot(policy(), ScheduleState().of(policy(), now), now) is None
    known = ScheduleState().seen(policy(), at("2024-01-01 00:00"))
    other = policy("0 3 * * 2")
    assert due_slot(other, known.of(other, now), now) is None, "the schedule is new, so nothing was missed"


def test_a_run_off_schedule_takes_no_slot_away_and_is_not_taken_up_again() -> None:
    now = at("2024-05-19 12:00")
    state = ScheduleState().seen(policy(), now).start(policy(), now, now)
    assert due_slot(policy(), state.of(policy(), now), now) is None
    later = at("2024-05-20 03:00")
    assert due_slot(policy(), state.of(policy(), later), later) == later


@pytest.mark.parametrize("expression", ["", "hourly", "61 * * * *", "0 3 * *", "0 3 31 2 *"])
def test_a_schedule_that_is_none_is_a_configuration_error_that_names_it(expression: str) -> None:
    with pytest.raises(ConfigError, match="weekly: schedule"):
        check_schedule(policy(expression), at("2024-01-01 00:00"))


def test_progress_survives_the_process(tmp_path: Path) -> None:
    now = at("2024-05-20 03:00")
    state = ScheduleState().start(policy(), now, now).finish(policy(), now, now)
    state = state.seen(policy("0 0 * * *", name="daily"), now)
    write_state(tmp_path / "new", state)
    assert read_state(tmp_path / "new") == state
    assert read_state(tmp_path) == ScheduleState()
    assert read_state(tmp_path / "new").policies["weekly"] == Progress("0 3 * * 1", now, now, now)


@pytest.mark.parametrize("content", ["", "[]", '{"policies": {"weekly": {}}}', '{"policies": {"weekly": 3}}'])
def test_a_state_file_that_is_broken_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="remove it"):
        read_state(tmp_path)
