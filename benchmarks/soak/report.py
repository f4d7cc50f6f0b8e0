"""What a soak found: the table of the faults, memory and threads of the workers, and what did not hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from benchmarks.soak.episodes import Episode
from benchmarks.soak.faults import Fault
from benchmarks.soak.fleet import Life
from benchmarks.soak.ledger import Count

# a process that lived for less has not settled
_SETTLED_SECONDS = 60.0
_MOST_GROWTH, _MOST_MB = 1.25, 25.0
_MOST_MORE_THREADS = 12
_COUNTS = ("predictions", *Count._fields[1:])


def table(faults: Iterable[type[Fault]], episodes: Sequence[Episode]) -> str:
    """A Markdown table with a line a fault; the seconds are the longest."""
    head = ("fault", "times", "said in", "said after s", "gone after s", *_COUNTS)
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for fault in faults:
        mine = [episode for episode in episodes if episode.fault is fault]
        sums = (sum(getattr(episode.count, name) for episode in mine) for name in Count._fields)
        cells = (
            *(fault.name, str(len(mine)), fault.said_in),
            _longest(episode.said_after for episode in mine),
            _longest(episode.gone_after for episode in mine),
            *(f"{number:,}" for number in sums),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def growth(lives: Iterable[Life]) -> tuple[list[str], list[str]]:
    """A line on memory and threads of each worker process that lived long enough, and what did not hold.

    The median of a life's last third is held against that of its first, its beginning left out.
    """
    lines, findings = [], []
    for life in lives:
        start = next(
            (n for n, second in enumerate(life.seconds) if second - life.seconds[0] >= _SETTLED_SECONDS / 2),
            None,
        )
        if start is None or life.seconds[-1] - life.seconds[0] < _SETTLED_SECONDS:
            continue
        memory, threads = life.resident_mb[start:], life.threads[start:]
        third = max(1, len(memory) // 3)
        first, last = median(memory[:third]), median(memory[-third:])
        few, many = median(threads[:third]), median(threads[-third:])
        lived = life.seconds[-1] - life.seconds[0]
        line = (
            f"worker {life.worker}, {lived:.0f} s: {first:.0f} MB, later {last:.0f} MB; "
            f"{few:.0f} threads, later {many:.0f}, {max(threads)} at most"
        )
        lines.append(line)
        if last > first * _MOST_GROWTH + _MOST_MB:
            findings.append(f"memory grows: {line}")
        if many > few + _MOST_MORE_THREADS:
            findings.append(f"threads grow: {line}")
    return lines, findings


def _longest(seconds: Iterable[float | None]) -> str:
    found = list(seconds)
    if not found:
        return "-"
    return "never" if None in found else f"{max(s for s in found if s is not None):.1f}"
