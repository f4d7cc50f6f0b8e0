"""When a policy is due, and what was run when.

1. A slot is a moment of the policy's cron expression (UTC), in every `weeks`-th week; weeks are counted from a
   fixed Monday, so that a restart does not shift them.
2. A slot is due once its moment has come and until it has been finished. Of several that were missed only the
   newest is: it is caught up once.
3. Nothing before the policy was first seen with its present schedule is missed: there was no slot.
4. A slot that was started and not finished (the machine died, the run was interrupted) stays due until a newer
   one comes; its jobs are known by their request_id, so what was done is not done again.
5. Every function takes the time from its caller.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cronsim import CronSim, CronSimError

from signalserve.common.files import write_atomically
from signalserve.common.moments import in_utc, parse_moment
from signalserve.config.evidence import RetrainPolicy
from signalserve.config.settings import ConfigError

STATE_FILE = "state.json"
_FIRST_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
_WEEK = timedelta(weeks=1)
_SECOND = timedelta(seconds=1)
# 29 February in every 52nd week may be long in coming
_HORIZON = timedelta(days=365 * 60)


@dataclass(frozen=True)
class Progress:
    """How far a policy is: `since` it is known with its `schedule`; its last slot `started` and `finished`."""

    schedule: str
    since: datetime
    started: datetime | None = None
    finished: datetime | None = None


@dataclass(frozen=True)
class ScheduleState:
    """Progress by a policy's name; a frozen value, `write_state` keeps it."""

    policies: Mapping[str, Progress] = field(default_factory=dict)

    def of(self, policy: RetrainPolicy, now: datetime) -> Progress:
        """A policy's progress; one that is new, or has a new schedule, is known since now."""
        known = self.policies.get(policy.name)
        if known is None:
            return Progress(_schedule(policy), now)
        if known.schedule != _schedule(policy):
            return replace(known, schedule=_schedule(policy), since=now)
        return known

    def seen(self, policy: RetrainPolicy, now: datetime) -> ScheduleState:
        """The state in which a policy is known."""
        return self._with(policy, self.of(policy, now))

    def start(self, policy: RetrainPolicy, slot: datetime, now: datetime) -> ScheduleState:
        """The state in which a slot runs."""
        return self._with(policy, replace(self.of(policy, now), started=slot))

    def finish(self, policy: RetrainPolicy, slot: datetime, now: datetime) -> ScheduleState:
        """The state in which a slot is done with."""
        return self._with(policy, replace(self.of(policy, now), finished=slot))

    def _with(self, policy: RetrainPolicy, progress: Progress) -> ScheduleState:
        return ScheduleState({**self.policies, policy.name: progress})


def check_schedule(policy: RetrainPolicy, now: datetime) -> None:
    """Refuse a schedule that can't be read or is never due.

    Raises:
        ConfigError: it names the policy and the expression.
    """
    if next_slot(policy, now) is None:
        raise ConfigError(
            f"retrain.policies: {policy.name}: schedule {policy.schedule!r} is never due"
            + (f" in every {policy.weeks}th week" if policy.weeks > 1 else "")
        )


def next_slot(policy: RetrainPolicy, after: datetime) -> datetime | None:
    """The first slot after a moment; None where there is none within 60 years.

    Raises:
        ConfigError: the cron expression can't be read.
    """
    cursor = after
    while cursor - after <= _HORIZON:
        slot = next(_ticks(policy, cursor), None)
        if slot is None:
            return None
        away = -_week(slot) % policy.weeks
        if away == 0:
            return slot
        cursor = _FIRST_MONDAY + (_week(slot) + away) * _WEEK - _SECOND
    return None


def newest_slot(policy: RetrainPolicy, now: datetime) -> datetime | None:
    """The last slot whose moment has come; None where there is none within 60 years.

    Raises:
        ConfigError: the cron expression can't be read.
    """
    cursor = now.replace(microsecond=0) + _SECOND
    while now - cursor <= _HORIZON:
        slot = next(_ticks(policy, cursor, reverse=True), None)
        if slot is None:
            return None
        away = _week(slot) % policy.weeks
        if away == 0:
            return slot
        cursor = _FIRST_MONDAY + (_week(slot) - away + 1) * _WEEK
    return None


def due_slot(policy: RetrainPolicy, progress: Progress, now: datetime) -> datetime | None:
    """The slot to run now, None for none."""
    newest = newest_slot(policy, now)
    if newest is None or newest < progress.since:
        return None
    if progress.started is None or newest > progress.started:
        return newest
    unfinished = progress.finished is None or progress.finished < newest
    return newest if newest == progress.started and unfinished else None


def read_state(folder: Path) -> ScheduleState:
    """What is kept in `{folder}/state.json`; empty where there is no file.

    Raises:
        ConfigError: the file can't be read.
    """
    path = folder / STATE_FILE
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ScheduleState()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    try:
        return ScheduleState(
            {name: _progress(item) for name, item in json.loads(content)["policies"].items()}
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path}: is not what a retrain wrote ({error}); remove it, and no slot before now counts as missed"
        ) from error


def write_state(folder: Path, state: ScheduleState) -> None:
    """Replace `{folder}/state.json` at once; the folder is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    policies = {
        name: {key: _text(value) for key, value in asdict(progress).items()}
        for name, progress in state.policies.items()
    }
    write_atomically(folder / STATE_FILE, json.dumps({"policies": policies}, indent=2).encode())


def _ticks(policy: RetrainPolicy, cursor: datetime, *, reverse: bool = False) -> Iterator[datetime]:
    try:
        ticks: Iterator[datetime] = CronSim(policy.schedule, in_utc(cursor), reverse=reverse)
    except CronSimError as error:
        raise ConfigError(
            f"retrain.policies: {policy.name}: schedule {policy.schedule!r} is no cron expression ({error});"
            " write minute, hour, day of month, month, day of week, such as '0 3 * * 1'"
        ) from error
    return ticks


def _week(moment: datetime) -> int:
    return (moment - _FIRST_MONDAY) // _WEEK


def _schedule(policy: RetrainPolicy) -> str:
    return policy.schedule if policy.weeks == 1 else f"{policy.schedule} / {policy.weeks} weeks"


def _text(value: Any) -> Any:
    return in_utc(value).isoformat() if isinstance(value, datetime) else value


def _progress(item: Mapping[str, Any]) -> Progress:
    def moment(name: str) -> datetime | None:
        return None if item.get(name) is None else parse_moment(item[name])

    return Progress(
        str(item["schedule"]),
        parse_moment(item["since"]),
        moment("started"),
        moment("finished"),
    )
