"""Challenger against champion, on bars that neither was trained on.

1. The window starts after both models' training spans and a purge of the longer label horizon; it ends with
   the file.
2. Both models' signals pass the same simulation, with the rules and costs of the configuration.
3. What is measured is these models' files, so the evidence is of kind `artefact`.
4. The deflated Sharpe ratio is the probability that the true ratio is above what luck gives: the best of the
   challenger's grid trials, and the best of all looks at bars of this window that the log knows of
   (`judging.gate`, under the registry's lock).
5. The record goes into the event log whether or not it passes the gate, so that asking again is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from signalserve.common.moments import second_text, utc_now
from signalserve.common.timeframe import bars_per_year, timeframe_seconds
from signalserve.config.ml import LabelSettings
from signalserve.config.settings import Settings
from signalserve.features.bars import Bars
from signalserve.judging import (
    Evidence,
    Measured,
    PromoteGate,
    Resampling,
    deflated_sharpe,
    probability_better,
)
from signalserve.registry import Decision, ModelMetadata, Registry, Verdict, open_registry, signer_of
from signalserve.registry.gate import champion_of
from signalserve.registry.lifecycle import check_measurable
from signalserve.registry.plans import entry_of
from signalserve.registry.state import RegistryState
from signalserve.trading.rules import TradingRules
from signalserve.trading.simulation import Simulation, simulate
from signalserve.training.errors import TrainingError, TrainingRequestError
from signalserve.training.labels import make_labels
from signalserve.training.metrics import classification_metrics, return_moments, strategy_metrics
from signalserve.training.plan import named_otherwise
from signalserve.training.progress import Report, quiet
from signalserve.training.scoring import ScoringModel, open_scoring_model, read_scoring_bars, training_span


@dataclass(frozen=True)
class Evaluation:
    """An evaluation that stands in the log: the evidence, every verdict, and the model's status after.

    `warning` is "" unless the bar file looks like another key's.
    """

    evidence: Evidence
    decision: Decision
    status: str
    warning: str = ""

    @property
    def passed(self) -> bool:
        """Whether the gate would let the challenger into production now."""
        return self.decision.allowed

    @property
    def failed_verdicts(self) -> tuple[str, ...]:
        """The verdicts against the challenger, each with its numbers."""
        return tuple(f"{verdict.name}: {verdict.text}" for verdict in self.decision.failed)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Every verdict of the gate."""
        return self.decision.verdicts

    @property
    def tries(self) -> int:
        """Looks at these bars so far, this one included."""
        return int(self.decision.record["tries"])

    @property
    def deflated_sharpe(self) -> float | None:
        """P(the challenger's true Sharpe ratio is above what luck gives)."""
        return deflated_sharpe(self.evidence, self.tries)

    @property
    def record(self) -> dict[str, Any]:
        """What the event keeps."""
        return dict(self.decision.record)


@dataclass(frozen=True)
class _Measurement:
    model: ScoringModel
    simulation: Simulation
    metrics: Mapping[str, Any]
    auc: float | None


def evaluate(
    settings: Settings,
    model_id: str,
    *,
    ohlcv: Path | str | None = None,
    base_dir: Path | str | None = None,
    registry: Registry | None = None,
    report: Report = quiet,
    request_id: str = "",
    actor: str = "",
    via: str = "python",
) -> Evaluation:
    """Measure a model beside its key's champion, keep the evidence, and make it a candidate where it passes.

    Args:
        settings: rules, costs and the gate's bounds.
        model_id: the challenger.
        ohlcv: its bars; None: `data.ohlcv_path`.
        base_dir: the registry's folder; None: `ml.models_dir`.
        registry: the registry itself, where there is one already; its gate judges.
        report: is told each step as it starts.
        request_id: a job's own id: an evaluation that it has in the log already is the answer.
        actor: who evaluates, for the event log.
        via: cli, lab or python.

    Raises:
        RegistryError: there is no such model, it can't be opened, or its status has no evaluation.
        TrainingRequestError: a model says too little of itself to be measured.
        TrainingError: the bars can't be read, or none is left after the training spans.
    """
    if registry is None:
        base = Path(base_dir) if base_dir is not None else settings.ml.models_dir
        registry = open_registry(
            base,
            gate=PromoteGate.of(settings),
            pins=settings.ml.pinned_ids(),
            signer=signer_of(settings.registry.signing_key, base),
        )
    state = registry.state
    entry = entry_of(state, model_id)
    champion_id = champion_of(state, entry, hold=registry.holds_hand_edits)
    report(f"opening {model_id}")
    models = [_open(registry, state, model_id, settings)]
    check_measurable(state, entry)
    if champion_id is not None:
        models.append(_open(registry, state, champion_id, settings))
    configured = settings.data.ohlcv_file(entry.symbol, entry.timeframe)
    file = Path(ohlcv) if ohlcv is not None else configured
    report(f"reading {file}")
    bars = read_scoring_bars(file, entry.timeframe)
    window = _window(bars, [model.meta for model in models])
    report(f"scoring {len(window):,} bars with {len(models)} model(s)")
    rules = TradingRules.of(settings.trading)
    measured = [_measure(model, bars, window, rules) for model in models]
    report("resampling")
    evidence = _evidence(settings, bars, window, rules, measured, configured=file == configured)
    decision = registry.record_evaluation(
        model_id, evidence.to_dict(), request_id=request_id, actor=actor, via=via
    )
    status = registry.entry(model_id).status
    warning = named_otherwise(str(settings.data.ohlcv_path), file, *entry.key)
    return Evaluation(Evidence.from_dict(decision.record["evidence"]), decision, status, warning)


def _open(registry: Registry, state: RegistryState, model_id: str, settings: Settings) -> ScoringModel:
    model = open_scoring_model(registry, state, model_id, unpickle=settings.security.unpickle)
    if training_span(model.meta) is None:
        raise TrainingRequestError(
            f"{model_id}: meta.json has no train_start and train_end, so nobody knows which bars it has seen; "
            "train it again, or promote with force and a reason"
        )
    return model


def _train_end(meta: ModelMetadata) -> pd.Timestamp:
    span = training_span(meta)
    if span is None:
        raise TrainingRequestError(f"{meta.model_id}: its training span is unknown")
    return span[1]


def _horizon(meta: ModelMetadata) -> int:
    """How many bars a model's labels read ahead; 0 where they are not ours."""
    horizon = (meta.label_config or {}).get("horizon_bars", 0)
    if not isinstance(horizon, int) or isinstance(horizon, bool) or horizon < 0:
        raise TrainingRequestError(f"{meta.model_id}: meta.json has a horizon_bars of {horizon!r}, no count")
    return horizon


def _window(bars: Bars, metas: list[ModelMetadata]) -> range:
    """Positions of the bars after every training span and the purge."""
    index = bars.frame.index
    purge = max(_horizon(meta) for meta in metas)
    last = max(_train_end(meta) for meta in metas)
    start = int(index.searchsorted(last, side="right")) + purge
    if len(index) - start < 2:
        raise TrainingError(
            f"{bars.path} ends at {index[-1].isoformat()} and leaves no bars to judge on: the training spans "
            f"end at {last.isoformat()} and {purge} bars are purged; add later bars"
        )
    return range(start, len(index))


def _measure(model: ScoringModel, bars: Bars, window: range, rules: TradingRules) -> _Measurement:
    probability = model.score(bars)[window.start : window.stop]
    frame = bars.frame.iloc[window.start : window.stop]
    close = frame["close"].to_numpy()
    simulation = simulate(frame["open"].to_numpy(), close, probability, rules)
    metrics = strategy_metrics(simulation, close, bars_per_year=bars_per_year(bars.timeframe))
    return _Measurement(model, simulation, metrics, _auc(model.meta, bars, window, probability))


def _auc(meta: ModelMetadata, bars: Bars, window: range, probability: NDArray[np.float64]) -> float | None:
    """Area under the ROC curve by the model's own label; None where it has none of ours."""
    label = LabelSettings.read(meta.label_config or {})
    if label is None:
        return None
    classes = make_labels(bars, label).classes[window.start : window.stop]
    known = np.isfinite(classes) & np.isfinite(probability)
    value = classification_metrics(classes[known], probability[known])["auc"]
    return None if value is None else float(value)


def _evidence(
    settings: Settings,
    bars: Bars,
    window: range,
    rules: TradingRules,
    measured: list[_Measurement],
    *,
    configured: bool,
) -> Evidence:
    challenger = measured[0]
    champion = measured[1] if len(measured) > 1 else None
    policy = settings.promotion
    index = bars.frame.index
    trials, variance = _trials(challenger.model.meta)
    resampled: Resampling | None = None
    if champion is not None:
        resampled = probability_better(
            challenger.simulation.returns - champion.simulation.returns,
            resamples=policy.resamples,
            block_bars=policy.block_bars,
            seed=policy.seed,
        )
    return Evidence(
        challenger=_measured(challenger),
        champion=_measured(champion) if champion is not None else None,
        evaluated_at=second_text(utc_now()),
        window_start=index[window.start].isoformat(),
        window_end=index[window.stop - 1].isoformat(),
        bars=len(window),
        bar_minutes=timeframe_seconds(bars.timeframe) / 60,
        probability_better=resampled.probability if resampled else None,
        mean_difference=resampled.mean if resampled else None,
        block_bars=resampled.block_bars if resampled else None,
        resamples=resampled.resamples if resampled else 0,
        seed=policy.seed,
        trials=trials,
        trial_variance=variance,
        data={"file": bars.path.name, "sha256": bars.sha256, "configured": configured},
        rules=asdict(rules),
    )


def _measured(measurement: _Measurement) -> Measured:
    model, metrics = measurement.model, measurement.metrics
    return Measured(
        model_id=model.entry.model_id,
        digest=model.digest,
        train_end=_train_end(model.meta).isoformat(),
        cum_return=float(metrics["cum_return"]),
        sharpe=float(metrics["sharpe"]),
        max_drawdown=float(metrics["max_drawdown"]),
        trades=int(metrics["trades"]),
        horizon_bars=_horizon(model.meta),
        moments=return_moments(measurement.simulation.returns),
        auc=measurement.auc,
    )


def _trials(meta: ModelMetadata) -> tuple[int, float | None]:
    """How many parameter sets were tried for a model, and the variance of their per-bar Sharpe ratios."""
    trials = meta.extra.get("trials")
    if not isinstance(trials, Mapping):
        return 1, None
    count, variance = trials.get("count"), trials.get("per_bar_sharpe_variance")
    known = float(variance) if isinstance(variance, int | float) and math.isfinite(variance) else None
    return (count if isinstance(count, int) and count > 0 else 1), known
