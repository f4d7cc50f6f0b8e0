"""Whether a model's probabilities mean what they say, from its own out-of-sample predictions.

1. The file is `oos_predictions.csv` of the run directory: `timestamp,fold,probability,class,forward_return`. The bars
   of the folds were scored by the folds' models (part `folds`), those of the test span by this very model (`test`).
2. A bar counts in these where it has both a probability and a class. Its future chose whether it has one, so each part
   has a twin, `folds_all` and `test_all`, of all bars whose return is known: there class 1 is a return above zero. A
   file of before the return was kept has no twins.
3. A bin holds its lower bound and not its upper one; the last holds 1 too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from signalserve.lab.files import Kept, read_rows, signature
from signalserve.lab.plain import moment, number_of_text, text_of
from signalserve.registry.artefact import PREDICTIONS_FILE

PARTS = {
    "test": "Test span, labelled bars",
    "test_all": "Test span, all bars",
    "folds": "Folds, labelled bars",
    "folds_all": "Folds, all bars",
}
"""The parts, and what each is of."""
BINS = 10


@dataclass(frozen=True)
class Bin:
    """Bars whose probability is in [low, high): how many, their mean probability, the share of class 1 among them."""

    low: float
    high: float
    bars: int
    mean_probability: float | None
    share: float | None


@dataclass(frozen=True)
class Confusion:
    """Class 1 predicted at this probability or above, against what came; shares are None where nothing is to share."""

    name: str
    threshold: float
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    precision: float | None
    recall: float | None
    accuracy: float | None


@dataclass(frozen=True)
class CalibrationPart:
    """One of `PARTS`; `brier` is the mean of (p - y)^2, `base_rate` the share of class 1."""

    name: str
    start: datetime | None
    end: datetime | None
    bars: int
    brier: float | None
    base_rate: float | None
    bins: tuple[Bin, ...]
    confusions: tuple[Confusion, ...]


@dataclass(frozen=True)
class Calibration:
    """The parts that have bars; `problem` says why there are none."""

    parts: tuple[CalibrationPart, ...]
    problem: str = ""


_Scored = tuple[str, float, int]
_kept: Kept[Calibration] = Kept(128)


def calibration_of(folder: Path, thresholds: Sequence[tuple[str, float]]) -> Calibration:
    """The calibration of a run directory's predictions; `thresholds`: name and probability of each confusion matrix."""
    path = folder / PREDICTIONS_FILE
    origin = (path, signature(path), tuple(thresholds))
    return _kept.get(origin, lambda: _calibration(path, thresholds))


def _calibration(path: Path, thresholds: Sequence[tuple[str, float]]) -> Calibration:
    rows = read_rows(path)
    if rows.value is None:
        return Calibration((), rows.problem)
    scored: dict[str, list[_Scored]] = {name: [] for name in PARTS}
    for row in rows.value:
        probability, known = number_of_text(row.get("probability")), number_of_text(row.get("class"))
        if probability is None or not 0.0 <= probability <= 1.0:
            continue
        name = "test" if row.get("fold") == "test" else "folds"
        time, came = text_of(row.get("timestamp")), number_of_text(row.get("forward_return"))
        if known in (0.0, 1.0):
            scored[name].append((time, probability, int(known)))
        if came is not None:
            scored[f"{name}_all"].append((time, probability, int(came > 0.0)))
    parts = tuple(_part(name, bars, thresholds) for name, bars in scored.items() if bars)
    return Calibration(parts, "" if parts else f"{path.name} has no bar with a probability and a class")


def _part(name: str, bars: list[_Scored], thresholds: Sequence[tuple[str, float]]) -> CalibrationPart:
    counts = [[0.0, 0.0, 0.0] for _ in range(BINS)]  # bars, sum of probabilities, bars of class 1
    for _, probability, known in bars:
        held = counts[min(int(probability * BINS), BINS - 1)]
        held[0] += 1
        held[1] += probability
        held[2] += known
    return CalibrationPart(
        name=name,
        start=moment(bars[0][0]),
        end=moment(bars[-1][0]),
        bars=len(bars),
        brier=sum((probability - known) ** 2 for _, probability, known in bars) / len(bars),
        base_rate=sum(known for _, _, known in bars) / len(bars),
        bins=tuple(
            Bin(
                place / BINS,
                (place + 1) / BINS,
                int(held),
                total / held if held else None,
                ones / held if held else None,
            )
            for place, (held, total, ones) in enumerate(counts)
        ),
        confusions=tuple(_confusion(label, threshold, bars) for label, threshold in thresholds),
    )


def _confusion(name: str, threshold: float, bars: list[_Scored]) -> Confusion:
    said = [(probability >= threshold, known == 1) for _, probability, known in bars]
    hits = sum(guess and truth for guess, truth in said)
    false_alarms = sum(guess and not truth for guess, truth in said)
    misses = sum(truth and not guess for guess, truth in said)
    passed = len(said) - hits - false_alarms - misses
    return Confusion(
        name,
        threshold,
        hits,
        false_alarms,
        passed,
        misses,
        precision=hits / (hits + false_alarms) if hits + false_alarms else None,
        recall=hits / (hits + misses) if hits + misses else None,
        accuracy=(hits + passed) / len(said) if said else None,
    )
