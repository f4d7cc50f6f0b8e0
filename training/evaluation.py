"""Challenger against champion, on bars that neither was trained on.

1. The window starts after both models' training spans and a purge of the longer label horizon; it ends with
   the file.
2. Both models' signals pass the same simulation, with the rules and costs of the configuration.
3. What is measured is these models' files, so the evidence is of kind `artefact`; the challenger's refits carry it on,
   as evidence on their recipe (`training.recipe`).
4. The deflated Sharpe ratio is the probability that the true ratio is above what luck gives: the best of all looks at
   bars of this window that the log knows of (`judging.gate`, under the registry's lock). The grid's trials deflate the
   folds that chose among them (`training.folds`).
5. The record goes into the event log whether or not it passes the gate, so that asking again is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from signalserve.common.moments import second_text, utc_now
from signalserve.common.timeframe import timeframe_seconds
from signalserve.config.ml import LabelSettings
from signalserve.config.settings import Settings
from signalserve.features.bars import Bars
from signalserve.judging import (
    Evidence,
    Folds,
    Measured,
    PromoteGate,
    Resampling,
    TrainedOn,
    deflated_sharpe,
    probability_better,
    timing,
)
from signalserve.registry import Decision, ModelMetadata, Registry, Verdict, open_registry, signer_of
from signalserve.registry.gate import champion_of
from signalserve.registry.lifecycle import check_measurable
from signalserve.registry.plans import entry_of
from signalserve.registry.state import RegistryState
from signalserve.trading.rules import VALUE, TradingRules
from signalserve.trading.simulation import Simulation, simulate
from signalserve.training.errors import TrainingError, TrainingRequestError
from signalserve.training.folds import measure_folds
from signalserve.training.labels import make_labels
from signalserve.training.metrics import classification_metrics, return_moments, strategy_metrics
from signalserve.training.plan import named_otherwise
from signalserve.training.progress import Report, quiet
from signalserve.training.recipe import Carried, carry_evidence
from signalserve.training.scoring import ScoringModel, open_scoring_model, read_scoring_bars, training_span
from signalserve.training.trained_on import compare_weeks
from signalserve.training.value_metrics import realised_returns, value_metrics


@dataclass(frozen=True)
class Evaluation:
    """An evaluation that stands in the log: the evidence, every verdict, and the model's status after.

    `warning` is "" unless the bar file looks like another key's. `refits` are those that carry the evidence on.
    """

    evidence: Evidence
    decision: Decision
    status: str
    warning: str = ""
    refits: tuple[Carried, ...] = ()

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
    def vouched(self) -> str:
        """Who says that no bar of the window was trained on, `declared` or `registered`."""
        return next((str(item.found) for item in self.verdicts if item.name == "training_span"), "declared")

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
    rank_ic: float | None


def evaluate(
    settings: Settings,
    model_id: str,
    *,
    ohlcv: Path | str | None = None,
    base_dir: Path | str | None = None,
    registry: Registry | None = None,
    report: Report = quiet,
    by_trainer: bool = False,
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
        by_trainer: the run that trained the challenger asks.
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
    try:
        window = _window(bars, models, _registered(state, models, settings))
    except TrainingError as error:
        if (measured_id := state.refits.get(model_id)) is None:
            raise
        raise TrainingError(
            f"{error}. {model_id} was refitted on all bars, and carries the evidence of {measured_id}: `signalserve "
            f"evaluate {measured_id}` renews it"
        ) from error
    trained_on = _trained_on(models[0].meta, bars)
    report(f"scoring {len(window):,} bars with {len(models)} model(s)")
    rules = TradingRules.of(settings.trading)
    measured = [_measure(model, bars, window, rules) for model in models]
    report("resampling")
    folds = measure_folds(registry.artefact_of(state, model_id).folder, models[0].meta, bars, rules)
    evidence = _evidence(
        settings,
        bars,
        window,
        rules,
        measured,
        folds,
        trained_on,
        configured=file == configured,
        by_trainer=by_trainer,
    )
    decision = registry.record_evaluation(
        model_id, evidence.to_dict(), request_id=request_id, actor=actor, via=via
    )
    refits = carry_evidence(registry, model_id, request_id=request_id, actor=actor, via=via)
    status = registry.entry(model_id).status
    warning = named_otherwise(str(settings.data.ohlcv_path), file, *entry.key)
    return Evaluation(Evidence.from_dict(decision.record["evidence"]), decision, status, warning, refits)


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


def _registered(state: RegistryState, models: list[ScoringModel], settings: Settings) -> pd.Timestamp | None:
    """When the last of the models was registered, where only bars of after that count.

    Raises:
        TrainingRequestError: one of them was not.
    """
    if settings.promotion.training_span != "registered":
        return None
    times = {model.entry.model_id: state.registered.get(model.entry.model_id) for model in models}
    unknown = [model_id for model_id, time in times.items() if time is None]
    if unknown:
        raise TrainingRequestError(
            f"{', '.join(unknown)}: the log does not say when it was registered, and promotion.training_span is "
            "registered; `signalserve registry adopt` registers it"
        )
    return max(pd.Timestamp(time) for time in times.values() if time is not None)


def _window(bars: Bars, models: list[ScoringModel], registered: pd.Timestamp | None) -> range:
    """Positions of the bars after every training span and the purge, and after `registered`."""
    index = bars.frame.index
    purge = max(_horizon(model.meta) for model in models)
    last = max(_train_end(model.meta) for model in models)
    start = int(index.searchsorted(last, side="right")) + purge
    if registered is not None:
        start = max(start, int(index.searchsorted(registered, side="left")))
        if len(index) - start < 2:
            raise TrainingError(
                f"{bars.path} ends at {index[-1].isoformat()} and leaves no bars to judge on: only bars of after the "
                f"registration at {registered.isoformat()} count (promotion.training_span: registered); wait for them"
            )
    if len(index) - start < 2:
        raise TrainingError(
            f"{bars.path} ends at {index[-1].isoformat()} and leaves no bars to judge on: the training spans "
            f"end at {last.isoformat()} and {purge} bars are purged; add later bars"
        )
    return range(start, len(index))


def _measure(model: ScoringModel, bars: Bars, window: range, rules: TradingRules) -> _Measurement:
    scores = model.score(bars)[window.start : window.stop]
    frame = bars.frame.iloc[window.start : window.stop]
    close = frame["close"].to_numpy()
    output = model.predictor.output
    simulation = simulate(frame["open"].to_numpy(), close, scores, rules, output=output)
    metrics = strategy_metrics(simulation, close, bars_per_year=bars.bars_per_year)
    auc, rank_ic = None, None
    if output == VALUE:
        realised = realised_returns(bars.frame["close"].to_numpy(), model.meta.label_config)
        found = value_metrics(scores, realised[window.start : window.stop])["rank_ic"]
        rank_ic = None if found is None else float(found)
    else:
        auc = _auc(model.meta, bars, window, scores)
    return _Measurement(model, simulation, metrics, auc, rank_ic)


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
    folds: Folds | None,
    trained_on: TrainedOn | None,
    *,
    configured: bool,
    by_trainer: bool,
) -> Evidence:
    challenger = measured[0]
    champion = measured[1] if len(measured) > 1 else None
    policy = settings.promotion
    index = bars.frame.index
    resampled: Resampling | None = None
    if champion is not None:
        resampled = probability_better(
            challenger.simulation.returns - champion.simulation.returns,
            resamples=policy.resamples,
            block_bars=policy.block_bars,
            seed=policy.seed,
        )
    return Evidence(
        challenger=_measured(challenger, bars, window),
        champion=_measured(champion, bars, window) if champion is not None else None,
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
        measured_by=("trainer" if by_trainer else "evaluate") if configured else "brought",
        folds=folds,
        trained_on=trained_on,
        data={"file": bars.path.name, "sha256": bars.sha256, "configured": configured},
        rules=rules.used_for(dict.fromkeys(item.model.predictor.output for item in measured)),
    )


def _trained_on(meta: ModelMetadata, bars: Bars) -> TrainedOn | None:
    """The training's weeks beside those of the file; None where it kept none.

    Raises:
        TrainingRequestError: none is the same, so the bars can't be of its market; they were not looked at.
    """
    known, span = meta.extra.get("trained_weeks"), training_span(meta)
    if not isinstance(known, Mapping) or span is None:
        return None
    found = compare_weeks(known, bars.frame, *span)
    if found.overlap == found.differ > 0:
        raise TrainingRequestError(
            f"{bars.path}: none of the {found.overlap} weeks that {meta.model_id} was trained on has the same bars "
            "there: it is another symbol's file, or another source's; nothing was counted"
        )
    return found


def _measured(measurement: _Measurement, bars: Bars, window: range) -> Measured:
    model, metrics = measurement.model, measurement.metrics
    frame = bars.frame.iloc[window.start : window.stop]
    timed = timing(measurement.simulation.position, frame["open"].to_numpy(), frame["close"].to_numpy())
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
        timing=timed.probability,
        timing_mean=timed.mean,
        timing_low=timed.low,
        timing_high=timed.high,
        rank_ic=measurement.rank_ic,
    )
