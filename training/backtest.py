"""A registered model over bars that it was not trained on, with the account's books.

1. The bars start after the model's training span. A span that touches it is refused, or allowed by name and
   then marked in everything that is written.
2. Features are computed on the whole file before the span is cut out, so that their warm-up costs no bar of it.
3. The trading rules are those of `trading`; what is written is in `training.backtest_files`.
4. It is a look at the bars after the training, and stands in the registry's log before any figure is shown. Where it
   can't be kept there, nothing is shown, or, allowed by name, marked in everything that is written. Bars of the
   training span are no new ones, and looking at them is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from signalserve.common.key import Key
from signalserve.common.moments import in_utc
from signalserve.config.ml import LabelSettings
from signalserve.config.settings import Settings
from signalserve.features.bars import Bars
from signalserve.registry import Artefact, Registry, open_registry, signer_of
from signalserve.registry.errors import PreconditionError, StorageError, UnknownKeyError
from signalserve.trading.metrics import Metrics
from signalserve.trading.rules import THRESHOLDS, VALUE, TradingRules
from signalserve.trading.simulation import simulate
from signalserve.training.backtest_files import free_folder, write_backtest
from signalserve.training.backtest_result import BacktestResult, Counted
from signalserve.training.errors import InSampleError, TrainingError, TrainingRequestError, UnrecordedError
from signalserve.training.labels import make_labels
from signalserve.training.metrics import score_metrics, strategy_metrics
from signalserve.training.progress import Report, quiet
from signalserve.training.scoring import ScoringModel, open_scoring_model, read_scoring_bars, training_span
from signalserve.training.value_metrics import realised_returns, value_metrics


@dataclass(frozen=True)
class BacktestRequest:
    """One backtest. `model_id` None: the key's production model; `start`, `end` None: all that is allowed.

    `asked`: the rules that were given for this very backtest; a threshold among them must suit the model's scores.
    `unrecorded`: where the registry can't be written, go on all the same. `signing_key` signs what is recorded.
    """

    symbol: str
    timeframe: str
    model_id: str | None
    base_dir: Path
    ohlcv: Path
    start: pd.Timestamp | None
    end: pd.Timestamp | None
    allow_in_sample: bool
    output_dir: Path
    rules: TradingRules
    starting_equity: float
    unpickle: str
    signing_key: Path | None
    unrecorded: bool
    asked: frozenset[str] = frozenset()

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        symbol: str,
        timeframe: str = "15m",
        *,
        model_id: str | None = None,
        ohlcv: Path | str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        allow_in_sample: bool = False,
        unrecorded: bool = False,
        output_dir: Path | str | None = None,
        base_dir: Path | str | None = None,
        asked: Collection[str] = (),
    ) -> BacktestRequest:
        """Take from the configuration what is not given; a time without a zone is UTC."""
        return cls(
            symbol=symbol,
            timeframe=timeframe,
            model_id=model_id,
            base_dir=settings.ml.models_dir if base_dir is None else Path(base_dir),
            ohlcv=settings.data.ohlcv_file(symbol, timeframe) if ohlcv is None else Path(ohlcv),
            start=_utc(start),
            end=_utc(end),
            allow_in_sample=allow_in_sample,
            output_dir=settings.backtest.output_dir if output_dir is None else Path(output_dir),
            rules=TradingRules.of(settings.trading),
            starting_equity=settings.trading.starting_equity,
            unpickle=settings.security.unpickle,
            signing_key=settings.registry.signing_key,
            unrecorded=unrecorded,
            asked=frozenset(asked),
        )


def backtest(
    request: BacktestRequest,
    report: Report = quiet,
    *,
    registry: Registry | None = None,
    request_id: str = "",
    actor: str = "",
    via: str = "python",
) -> BacktestResult:
    """Run a model over a span of bars, keep that in the log, and write trades, equity, metrics and a report.

    `registry` has the model; None: that of `request.base_dir`. With one `request_id` a backtest counts once. `actor`
    and `via` are the event's.

    Raises:
        RegistryError: there is no such model, or it may not be opened.
        TrainingRequestError: the span touches the model's training span, the model says too little of itself, or a
            threshold was asked for that is none for its scores.
        UnrecordedError: the registry can't be written, and `request.unrecorded` is false.
        TrainingError: the bars can't be read, or none is left.
    """
    if registry is None:
        registry = open_registry(request.base_dir, signer=signer_of(request.signing_key, request.base_dir))
    key = Key(request.symbol, request.timeframe)
    state = registry.state
    model_id = request.model_id or registry.standing(state, key)
    if model_id is None:
        keys = state.keys()
        if key not in keys:
            raise UnknownKeyError(*key)
        raise PreconditionError(f"nothing is in production for {key}: name a model, or promote one")
    report(f"opening {model_id}")
    model = open_scoring_model(registry, state, model_id, unpickle=request.unpickle)
    if model.entry.key != key:
        raise TrainingRequestError(f"{model_id} is a model of {model.entry.key}, not of {key}")
    output = model.predictor.output
    _check_thresholds(request, model)
    report(f"reading {request.ohlcv}")
    bars = read_scoring_bars(request.ohlcv, request.timeframe)
    span, in_sample = _span(request, model, bars)
    report(f"scoring {len(span):,} bars")
    scores = model.score(bars)[span.start : span.stop]
    part = bars.frame.iloc[span.start : span.stop]
    report("trading")
    close = part["close"].to_numpy()
    simulation = simulate(
        part["open"].to_numpy(),
        close,
        scores,
        request.rules,
        starting_equity=request.starting_equity,
        output=output,
    )
    classes, forward = (values[span.start : span.stop] for values in _labels(model, bars))
    # a return is no probability, in no file and no figure
    columns = (
        {"probability": np.full(len(span), np.nan), "value": scores}
        if output == VALUE
        else {"probability": scores}
    )
    metrics: Metrics = {
        **strategy_metrics(simulation, close, bars_per_year=bars.bars_per_year),
        **_skill(model, bars, span, scores, (classes, forward)),
        "bars": len(span),
    }
    report("recording the look")
    new = _new_bars(model, pd.DatetimeIndex(part.index), in_sample=in_sample)
    origin = {"request_id": request_id, "actor": actor, "via": via}
    rules = request.rules.used_for([output])
    counted = _counted(request, registry, model_id, new, rules, origin)
    result = BacktestResult(
        model=model,
        bars=bars,
        rules=request.rules,
        starting_equity=request.starting_equity,
        frame=pd.DataFrame({"open": part["open"], "close": part["close"], **columns}, index=part.index),
        classes=classes,
        forward_return=forward,
        simulation=simulation,
        metrics=metrics,
        in_sample=in_sample,
        importances=_importances(registry.artefact_of(state, model_id)),
        counted=counted,
        folder=request.output_dir / f"{model_id}_{part.index[0]:%Y%m%dT%H%M}_{part.index[-1]:%Y%m%dT%H%M}",
    )
    report("writing the report")
    result = replace(result, folder=free_folder(result))
    write_backtest(result)
    return result


def _span(request: BacktestRequest, model: ScoringModel, bars: Bars) -> tuple[range, bool]:
    index = pd.DatetimeIndex(bars.frame.index)
    trained = training_span(model.meta)
    first = 0
    if trained is not None:
        first = int(index.searchsorted(trained[1], side="right"))
    elif not request.allow_in_sample:
        raise TrainingRequestError(
            f"{model.entry.model_id}: meta.json has no train_start and train_end, so nobody knows which bars it "
            "has seen; allow_in_sample runs it all the same and marks the result"
        )
    start = first if request.start is None else int(index.searchsorted(request.start, side="left"))
    stop = len(index) if request.end is None else int(index.searchsorted(request.end, side="right"))
    if stop - start < 2:
        raise TrainingError(
            f"{bars.path} has bars from {index[0].isoformat()} to {index[-1].isoformat()}, which leaves fewer than "
            f"2 in the span{_trained_text(trained)}; give a longer file or another span"
            + ("; without a start it begins after the training" if request.start is None and trained else "")
        )
    overlaps = trained is None or (index[start] <= trained[1] and index[stop - 1] >= trained[0])
    if overlaps and not request.allow_in_sample:
        allowed = index[first].isoformat() if first < len(index) else "none in this file"
        raise InSampleError(
            f"the span {index[start].isoformat()} to {index[stop - 1].isoformat()} overlaps the bars that "
            f"{model.entry.model_id} was trained on{_trained_text(trained)}; the first bar after them is {allowed}. "
            "allow_in_sample runs it all the same and marks the result"
        )
    return range(start, stop), overlaps


def _new_bars(model: ScoringModel, index: pd.DatetimeIndex, *, in_sample: bool) -> pd.DatetimeIndex:
    """Those of a span's bars that a look is counted for: of one in sample those after the training."""
    trained = training_span(model.meta)
    return index[index > trained[1]] if in_sample and trained is not None else index


def _counted(
    request: BacktestRequest,
    registry: Registry,
    model_id: str,
    new: pd.DatetimeIndex,
    rules: Mapping[str, Any],
    origin: Mapping[str, str],
) -> Counted:
    if new.empty:
        return Counted("in_sample")
    first, last = new[0].isoformat(), new[-1].isoformat()
    try:
        looked = registry.record_look(model_id, first, last, rules=rules, **origin)
    except StorageError as error:
        why = " ".join(str(error).split())
        if not request.unrecorded:
            raise UnrecordedError(
                f"the registry's log must count that {model_id} was measured on these bars, and can't be written: "
                f"{why}. "
                "unrecorded shows the backtest all the same and marks it"
            ) from error
        return Counted("not_recorded", why=why)
    return Counted("evaluation" if looked.revision is None else "recorded", looked.revision, looked.looks)


def _trained_text(trained: tuple[pd.Timestamp, pd.Timestamp] | None) -> str:
    return f" (trained on {trained[0].isoformat()} to {trained[1].isoformat()})" if trained else ""


def _check_thresholds(request: BacktestRequest, model: ScoringModel) -> None:
    """Refuse what was asked for by name and would not be used."""
    own = model.predictor.output
    wrong = [
        name
        for output, names in THRESHOLDS.items()
        if output != own
        for name in names
        if name in request.asked
    ]
    if wrong:
        gives = (
            "expected returns and no probabilities"
            if own == VALUE
            else "probabilities and no expected returns"
        )
        raise TrainingRequestError(
            f"{model.entry.model_id} gives {gives}: {', '.join(wrong)} is no threshold for it,"
            f" {' and '.join(THRESHOLDS[own])} are"
        )


def _skill(
    model: ScoringModel,
    bars: Bars,
    span: range,
    scores: NDArray[np.float64],
    labels: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> Metrics:
    if model.predictor.output == VALUE:
        realised = realised_returns(bars.frame["close"].to_numpy(), model.meta.label_config)
        return value_metrics(scores, realised[span.start : span.stop])
    return score_metrics(*labels, scores)


def _labels(model: ScoringModel, bars: Bars) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Class and return of every bar by the model's own label; NaN where it has none of ours, and for a regressor."""
    if model.predictor.output == VALUE:
        unknown = np.full(len(bars.frame), np.nan)
        return unknown, unknown
    label = LabelSettings.read(model.meta.label_config or {})
    if label is None:
        unknown = np.full(len(bars.frame), np.nan)
        return unknown, unknown
    labels = make_labels(bars, label)
    return labels.classes, labels.forward_return


def _importances(artefact: Artefact) -> tuple[tuple[str, float], ...]:
    kept = [(name, share) for name, share in artefact.importances() if math.isfinite(share) and share > 0.0]
    total = sum(share for _, share in kept)
    return tuple((name, share / total) for name, share in sorted(kept, key=lambda item: -item[1]))


def _utc(moment: datetime | None) -> pd.Timestamp | None:
    return None if moment is None else pd.Timestamp(in_utc(moment))
