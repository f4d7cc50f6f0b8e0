"""What a policy stands for: one job a policy, symbol, timeframe and slot.

1. A name is a job whether or not its bar file is there; without one the job fails and says so.
2. A pattern (`*USDT`, `[135]m`) is held against the bar files that `data.ohlcv_path` stands for: the symbol and
   the timeframe are read back from a file's path by the template. One that matches nothing is a warning.
3. A job's `request_id` follows from policy, key and slot alone, so a job that is run again is known by it.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from string import Formatter

from signalserve.common.moments import in_utc
from signalserve.common.timeframe import UnknownTimeframeError, timeframe_seconds
from signalserve.config.evidence import RetrainPolicy
from signalserve.config.settings import Settings

_FIELDS = {"symbol": r"(?P<symbol>.+)", "timeframe": r"(?P<timeframe>[0-9]+[A-Za-z]+)"}


@dataclass(frozen=True)
class Job:
    """One model to train, evaluate and report on; `slot` is the time of the schedule that it is for, in UTC."""

    policy: RetrainPolicy
    symbol: str
    timeframe: str
    slot: datetime
    ohlcv: Path
    model_type: str

    @property
    def key(self) -> str:
        """`SYMBOL/TIMEFRAME`."""
        return f"{self.symbol}/{self.timeframe}"

    @property
    def request_id(self) -> str:
        """The job's own id in the registry's log."""
        return f"retrain:{self.policy.name}:{self.symbol}:{self.timeframe}:{slot_text(self.slot)}"

    @property
    def job_id(self) -> str:
        """The request_id as a file's name: any symbol goes, also one that can't be part of a path."""
        return sha256(self.request_id.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Plan:
    """Jobs in the order of the configuration, and what was odd on the way."""

    jobs: tuple[Job, ...]
    warnings: tuple[str, ...] = ()


def slot_text(slot: datetime) -> str:
    """A slot as ids and files write it: ISO 8601 to the second, in UTC."""
    return in_utc(slot).strftime("%Y-%m-%dT%H:%M:%SZ")


def plan_jobs(settings: Settings, slots: Iterable[tuple[RetrainPolicy, datetime]]) -> Plan:
    """The jobs of some policies, each for its slot. Looks at the names of bar files, and at no bar."""
    jobs: list[Job] = []
    warnings: list[str] = []
    files = bar_files(settings.data.ohlcv_path)
    for policy, slot in slots:
        keys: dict[tuple[str, str], Path | None] = {}
        for symbol in policy.symbols:
            for timeframe in policy.timeframes:
                if not _is_pattern(symbol) and not _is_pattern(timeframe):
                    keys.setdefault((symbol, timeframe), None)
                    continue
                found = _matching(files, symbol, timeframe)
                keys |= {key: path for key, path in found.items() if key not in keys}
                if not found:
                    warnings.append(
                        f"policy {policy.name}: no bar file of {settings.data.ohlcv_path} matches"
                        f" {symbol}/{timeframe}"
                    )
        jobs += [
            Job(
                policy,
                symbol,
                timeframe,
                slot,
                path or settings.data.ohlcv_file(symbol, timeframe),
                policy.model_type or settings.ml.model_type,
            )
            for (symbol, timeframe), path in keys.items()
        ]
    return Plan(tuple(jobs), tuple(warnings))


def bar_files(template: str) -> dict[tuple[str | None, str | None], Path]:
    """(symbol, timeframe) -> the file, for each file that a template stands for; sorted by path.

    A part that the template does not hold is None: the file stands for any. A file whose timeframe is none
    (`BTCUSDT_notes.csv`) is left out.
    """
    pattern, expression = _compiled(template)
    found: dict[tuple[str | None, str | None], Path] = {}
    for path in sorted(glob.glob(pattern)):  # noqa: PTH207 - Path.glob takes no pattern from the root
        match = expression.fullmatch(path)
        if match is None:
            continue
        parts = match.groupdict()
        timeframe = parts.get("timeframe")
        if timeframe is None or _is_timeframe(timeframe):
            found.setdefault((parts.get("symbol"), timeframe), Path(path))
    return found


def named_otherwise(template: str, path: Path, symbol: str, timeframe: str) -> str:
    """A warning where a file's name, read by the template, is another key's; "" where it is not."""
    _, expression = _compiled(Path(template).name)
    match = expression.fullmatch(path.name)
    found = {} if match is None else match.groupdict()
    if not _is_timeframe(found.get("timeframe", timeframe)):
        return ""
    own = found.get("symbol", symbol), found.get("timeframe", timeframe)
    if own == (symbol, timeframe):
        return ""
    return f"{path.name} looks like bars of {own[0]}/{own[1]}, and is taken for {symbol}/{timeframe}"


def _compiled(template: str) -> tuple[str, re.Pattern[str]]:
    """A template as a glob and as a regular expression; a field's second place must repeat the first."""
    pattern, expression = "", ""
    seen: set[str] = set()
    for literal, name, _, _ in Formatter().parse(template):
        pattern += glob.escape(literal)
        expression += re.escape(literal)
        if name is not None:
            pattern += "*"
            expression += f"(?P={name})" if name in seen else _FIELDS[name]
            seen.add(name)
    return pattern, re.compile(expression, re.DOTALL)


def _matching(
    files: dict[tuple[str | None, str | None], Path], symbol: str, timeframe: str
) -> dict[tuple[str, str], Path]:
    """The keys among the files that two names or patterns match."""
    found: dict[tuple[str, str], Path] = {}
    for (own_symbol, own_timeframe), path in files.items():
        # a part that the template leaves open takes a name as it is; a pattern stands for nothing there
        key = (_matched(own_symbol, symbol), _matched(own_timeframe, timeframe))
        if key[0] is not None and key[1] is not None:
            found.setdefault((key[0], key[1]), path)
    return found


def _matched(own: str | None, wanted: str) -> str | None:
    if own is None:
        return None if _is_pattern(wanted) else wanted
    return own if fnmatchcase(own, wanted) else None


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _is_timeframe(text: str) -> bool:
    try:
        timeframe_seconds(text)
    except UnknownTimeframeError:
        return False
    return True
