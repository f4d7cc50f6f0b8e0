"""Challenger and champion are measured on bars that neither has seen, and the gate judges what was measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from signalserve.common.key import Key
from signalserve.config.evidence import PromotionSettings
from signalserve.config.settings import Settings
from signalserve.features.bars import read_bars
from signalserve.features.synthetic import synthetic_bars
from signalserve.judging import Evidence, Measured
from signalserve.judging.resampling import probability_better
from signalserve.judging.sharpe import expected_max_sharpe
from signalserve.registry import (
    ModelMetadata,
    ModelRegistryEntry,
    Promotion,
    promote_model,
    register_model,
    verify_log,
)
from signalserve.registry.errors import ArtefactError, GateRefusedError, WrongStatusError
from signalserve.registry.events import EventLog
from signalserve.registry.folder_store import open_store
from signalserve.registry.state import RegistryState
from signalserve.trading.rules import THRESHOLDS, TradingRules
from signalserve.trading.simulation import Simulation, simulate
from signalserve.training.errors import TrainingError, TrainingRequestError
from signalserve.training.evaluation import Evaluation, evaluate
from signalserve.training.metrics import probabilistic_sharpe, return_moments, strategy_metrics
from signalserve.training.request import TrainRequest
from signalserve.training.run import train
from signalserve.training.scoring import open_scoring_model
from tests.registries import gate_of, registry_at

BARS_PER_YEAR = 4 * 24 * 365


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bars") / "SYNTH_15m.csv"
    synthetic_bars("SYNTH", 4000, seed=11).to_csv(path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, bars: Path) -> tuple[Path, str, str]:
    """A registry with two models of one key: a forest, and a logistic regression."""
    from tests.training.conftest import CONFIG

    base = tmp_path_factory.mktemp("trained") / "registry"
    settings = Settings(**CONFIG)
    ids = [
        train(
            TrainRequest.from_settings(settings, "SYNTH", model_type=kind, output_dir=base, ohlcv=bars)
        ).model_id
        for kind in ("rf", "logreg")
    ]
    return base, ids[0], ids[1]


@pytest.fixture
def base(trained: tuple[Path, str, str], tmp_path: Path) -> Path:
    shutil.copytree(trained[0], tmp_path / "registry")
    return tmp_path / "registry"


@pytest.fixture
def champion(trained: tuple[Path, str, str]) -> str:
    return trained[1]


@pytest.fixture
def challenger(trained: tuple[Path, str, str]) -> str:
    return trained[2]


@pytest.fixture
def gated(settings: Settings) -> Settings:
    return with_promotion(settings)


def with_promotion(settings: Settings, **changes: Any) -> Settings:
    policy = PromotionSettings(**{"resamples": 300, "max_data_age": None, **changes})
    return settings.model_copy(update={"promotion": policy})


def compared(settings: Settings, base: Path, champion: str, challenger: str, bars: Path) -> Evaluation:
    promote_model(champion, base_dir=base, gate=gate_of(policy=PromotionSettings(gate="none")))
    return evaluate(settings, challenger, ohlcv=bars, base_dir=base)


def test_every_figure_is_that_of_the_same_bars_after_both_training_spans(
    gated: Settings, base: Path, champion: str, challenger: str, bars: Path
) -> None:
    result = compared(gated, base, champion, challenger, bars)
    evidence = result.evidence
    whole = read_bars(bars)
    registry = registry_at(base)
    models = [open_scoring_model(registry, registry.state, model_id) for model_id in (challenger, champion)]
    last = max(pd.Timestamp(model.meta.train_end) for model in models)
    start = pd.Timestamp(evidence.window_start)
    assert start == last + pd.Timedelta("15min") * (1 + 4)  # the next bar, and a purge of the horizon
    frame = whole.frame.loc[start:]
    assert (evidence.bars, evidence.window_end) == (len(frame), frame.index[-1].isoformat())
    runs = []
    for model, measured in zip(models, (evidence.challenger, evidence.champion), strict=True):
        probability = model.score(whole)[-len(frame) :]
        run = simulate(
            frame["open"].to_numpy(), frame["close"].to_numpy(), probability, TradingRules.of(gated.trading)
        )
        metrics = strategy_metrics(run, frame["close"].to_numpy(), bars_per_year=BARS_PER_YEAR)
        assert measured is not None
        assert measured.cum_return == pytest.approx(metrics["cum_return"], abs=1e-12)
        assert measured.sharpe == pytest.approx(metrics["sharpe"], abs=1e-12)
        assert measured.max_drawdown == pytest.approx(metrics["max_drawdown"], abs=1e-12)
        assert measured.trades == metrics["trades"]
        runs.append(run.returns)
    again = probability_better(runs[0] - runs[1], resamples=300, seed=gated.promotion.seed)
    assert evidence.probability_better == again.probability
    assert evidence.block_bars == again.block_bars
    # the registering of each model and the evaluation of one of them were two looks
    assert result.tries == 2
    assert result.deflated_sharpe == pytest.approx(
        probabilistic_sharpe(runs[0], expected_max_sharpe(2, 1 / (len(frame) - 1))), abs=1e-12
    )
    assert evidence.rules == TradingRules.of(gated.trading).used_for(["probability"])
    assert verify_log(base).ok


def test_the_event_keeps_what_the_decision_read(
    gated: Settings, base: Path, champion: str, challenger: str, bars: Path
) -> None:
    result = compared(gated, base, champion, challenger, bars)
    event = EventLog(base / "registry_events.jsonl").read_new().events[-1]
    assert event.action == "evaluate"
    assert Evidence.from_dict(event.evidence["evidence"]) == result.evidence
    assert event.evidence["policy"]["resamples"] == 300
    data = event.evidence["evidence"]["data"]
    assert data == {"file": bars.name, "sha256": read_bars(bars).sha256, "configured": False}
    assert event.evidence["trading_rules"] == TradingRules.of(gated.trading).used_for(THRESHOLDS)
    assert {item["verdict"] for item in event.evidence["verdicts"]} >= {
        "better",
        "drawdown",
        "deflated_sharpe",
    }


def test_a_copy_of_the_champion_gets_one_half_and_is_refused(
    gated: Settings, base: Path, champion: str, bars: Path
) -> None:
    twin(base, champion)
    result = compared(gated, base, champion, "twin", bars)
    assert result.evidence.probability_better == 0.5
    assert not result.passed
    assert result.status == "success"
    with pytest.raises(
        GateRefusedError, match=r"better: P\(better than the champion\) of 0\.500 after 3 look"
    ):
        registry_at(base, policy=gated.promotion).promote([Promotion("twin")])


def test_the_first_model_of_a_key_is_held_against_the_absolute_bar(
    settings: Settings, base: Path, champion: str, bars: Path
) -> None:
    strict = with_promotion(settings, min_sharpe=1000.0, max_drawdown=1.0)
    refused = evaluate(strict, champion, ohlcv=bars, base_dir=base)
    assert "sharpe" in {rule.name for rule in refused.decision.failed}
    assert refused.evidence.probability_better is None
    mild = with_promotion(
        settings,
        min_sharpe=-1000.0,
        min_deflated_sharpe=0.0,
        min_probability=0.0,
        max_drawdown=1.0,
        min_trades=0,
        max_data_age=None,
        min_walk_forward=None,
    )
    passed = evaluate(mild, champion, ohlcv=bars, base_dir=base)
    assert passed.passed
    assert passed.status == "candidate"
    registry_at(base, policy=mild.promotion).promote([Promotion(champion, "")])
    assert open_store(base).view().state.entries[champion].status == "production"


def test_asking_again_on_the_same_bars_deflates_the_sharpe_ratio(
    gated: Settings, base: Path, champion: str, challenger: str, bars: Path
) -> None:
    first = compared(gated, base, champion, challenger, bars)
    found = [first] + [evaluate(gated, challenger, ohlcv=bars, base_dir=base) for _ in range(4)]
    assert [item.tries for item in found] == [2, 3, 4, 5, 6]
    deflated = [item.deflated_sharpe for item in found]
    assert all(later < earlier for earlier, later in pairwise(deflated))


def test_trials_of_a_grid_deflate_the_folds_that_chose_and_not_the_test_span(
    gated: Settings, base: Path, champion: str, challenger: str, bars: Path
) -> None:
    before = compared(gated, base, champion, challenger, bars)
    meta = json.loads((base / challenger / "meta.json").read_text())
    twin(base, challenger, trials={"count": 50, "per_bar_sharpe_variance": 1e-3}, test_start=None)
    after = evaluate(gated, "twin", ohlcv=bars, base_dir=base)
    assert meta["trials"]["count"] == 1
    assert after.evidence.challenger.moments == before.evidence.challenger.moments
    assert before.evidence.folds is not None
    assert after.evidence.folds == replace(before.evidence.folds, trials=50, trial_variance=1e-3)
    found = {
        item.name: item.found for item in (*before.verdicts, *after.verdicts) if item.name == "folds_sharpe"
    }
    before_that = next(item.found for item in before.verdicts if item.name == "folds_sharpe")
    assert found["folds_sharpe"] < before_that


def twin(base: Path, model_id: str, **changes: Any) -> None:
    """Register a copy of a model as `twin`, with other metadata; None leaves a key out."""
    shutil.copytree(base / model_id, base / "twin")
    (base / "twin" / "manifest.json").unlink()
    meta = json.loads((base / "twin" / "meta.json").read_text()) | {"model_id": "twin"} | changes
    meta = {name: value for name, value in meta.items() if value is not None}
    (base / "twin" / "meta.json").write_text(json.dumps(meta))
    register_model(ModelMetadata.from_dict(meta), base, pins=())


def test_metadata_that_was_edited_is_no_ground_for_a_judgement(
    gated: Settings, base: Path, champion: str, challenger: str, bars: Path
) -> None:
    promote_model(champion, base_dir=base, gate=gate_of(policy=PromotionSettings(gate="none")))
    for model_id in (challenger, champion):
        path = base / model_id / "meta.json"
        honest = path.read_text()
        path.write_text(json.dumps(json.loads(honest) | {"train_end": "2024-01-02T00:00:00+00:00"}))
        with pytest.raises(ArtefactError, match=f"{model_id}.meta.json is not the one that was registered"):
            evaluate(gated, challenger, ohlcv=bars, base_dir=base)
        path.write_text(honest)
    assert evaluate(gated, challenger, ohlcv=bars, base_dir=base).tries == 2


def test_model_files_that_were_changed_are_not_evaluated(
    gated: Settings, base: Path, champion: str, challenger: str, bars: Path
) -> None:
    promote_model(champion, base_dir=base, gate=gate_of(policy=PromotionSettings(gate="none")))
    for model_id in (challenger, champion):
        path = base / model_id / "model.onnx"
        honest = path.read_bytes()
        path.write_bytes(honest + b"\0")
        with pytest.raises(ArtefactError, match=f"{model_id}.model.onnx is not the file that was registered"):
            evaluate(gated, challenger, ohlcv=bars, base_dir=base)
        path.write_bytes(honest)


def test_the_window_starts_after_the_later_training_span_and_the_longer_horizon(
    gated: Settings, base: Path, champion: str, challenger: str, bars: Path
) -> None:
    horizon = json.loads((base / challenger / "meta.json").read_text())["label_config"]
    end = pd.Timestamp(ModelMetadata.read(base / challenger / "meta.json").train_end)
    later = end + pd.Timedelta("1D")
    twin(base, champion, train_end=later.isoformat(), label_config={**horizon, "horizon_bars": 9})
    promote_model("twin", base_dir=base, gate=gate_of(policy=PromotionSettings(gate="none")))
    evidence = evaluate(gated, challenger, ohlcv=bars, base_dir=base).evidence
    assert pd.Timestamp(evidence.window_start) == later + pd.Timedelta("15min") * (1 + 9)
    assert evidence.champion is not None
    assert (evidence.challenger.horizon_bars, evidence.champion.horizon_bars) == (4, 9)


def test_a_look_counts_by_its_bars_and_by_the_models_that_were_measured_there(
    gated: Settings, base: Path, challenger: str, bars: Path
) -> None:
    meta = ModelMetadata.read(base / challenger / "meta.json")
    first = read_bars(bars).frame.index
    state = open_store(base).view().state
    looks = state.looks[Key("SYNTH", "15m")]
    assert len(looks) == 2
    assert {(look.first, look.last) for look in looks} == {(meta.extra["test_start"], first[-1].isoformat())}


def test_without_later_bars_or_a_training_span_nothing_is_judged(
    gated: Settings, base: Path, champion: str, challenger: str, bars: Path, tmp_path: Path
) -> None:
    end = pd.Timestamp(ModelMetadata.read(base / challenger / "meta.json").train_end)
    early = tmp_path / "early.csv"
    frame = read_bars(bars).frame
    frame.loc[: end + pd.Timedelta("1h")].to_csv(early)
    with pytest.raises(TrainingError, match="add later bars"):
        evaluate(gated, challenger, ohlcv=early, base_dir=base)
    with pytest.raises(TrainingError, match="no such file"):
        evaluate(gated, challenger, ohlcv=tmp_path / "none.csv", base_dir=base)
    twin(base, challenger, train_end=None)
    with pytest.raises(TrainingRequestError, match="no train_start and train_end"):
        evaluate(gated, "twin", ohlcv=bars, base_dir=base)
    promote_model(champion, base_dir=base, gate=gate_of(policy=PromotionSettings(gate="none")))
    with pytest.raises(WrongStatusError, match="champion"):
        evaluate(gated, champion, ohlcv=bars, base_dir=base)


def test_a_model_of_a_random_walk_is_refused(settings: Settings, tmp_path: Path) -> None:
    random = np.random.default_rng(17)
    close = 100.0 * np.exp(np.cumsum(0.002 * random.standard_normal(3000)))
    opened = np.concatenate(([100.0], close[:-1]))
    spread = 1.0 + 0.001 * random.random((2, 3000))
    frame = pd.DataFrame(
        {
            "open": opened,
            "high": np.maximum(opened, close) * spread[0],
            "low": np.minimum(opened, close) / spread[1],
            "close": close,
            "volume": 1000.0 * np.exp(0.3 * random.standard_normal(3000)),
        },
        index=pd.date_range("2024-01-01", periods=3000, freq="15min", tz="UTC", name="timestamp"),
    )
    path = tmp_path / "WALK_15m.csv"
    frame.to_csv(path)
    base = tmp_path / "registry"
    request = TrainRequest.from_settings(settings, "WALK", output_dir=base, ohlcv=path)
    model_id = train(request).model_id
    result = evaluate(with_promotion(settings), model_id, ohlcv=path, base_dir=base)
    assert not result.passed
    # a standard error of the AUC at so many bars is about 0.03, and labels of 4 bars overlap
    assert abs((result.evidence.challenger.auc or 0.5) - 0.5) < 4 * 0.06


NO_SKILL = 200


@pytest.mark.parametrize("with_champion", [True, False])
def test_of_two_hundred_challengers_without_skill_at_most_the_nominal_share_passes(
    with_champion: bool,
) -> None:
    policy = PromotionSettings(max_data_age=None, resamples=200, min_trades=0, min_bars=2, max_drawdown=1.0)
    nominal = (1.0 - policy.min_probability) * NO_SKILL
    assert passing(policy, TradingRules(0.55, 0.45, fee_bps=5.0, slippage_bps=2.0), with_champion) <= nominal
    # without costs, which would refuse most by themselves, up to the noise of so many draws
    noise = 2.0 * np.sqrt(nominal * policy.min_probability)
    assert (
        passing(policy, TradingRules(0.55, 0.45, fee_bps=0.0, slippage_bps=0.0), with_champion)
        <= nominal + noise
    )


def passing(policy: PromotionSettings, rules: TradingRules, with_champion: bool) -> int:
    """How many random challengers on random walks the gate lets through."""
    random = np.random.default_rng(0)
    passed = 0
    for _ in range(NO_SKILL):
        close = 100.0 * np.exp(np.cumsum(0.002 * random.standard_normal(500)))
        opened = np.concatenate(([100.0], close[:-1]))
        runs = [simulate(opened, close, random.random(500), rules) for _ in range(2)]
        evidence = no_skill_evidence(runs[0], runs[1] if with_champion else None, close)
        state = state_of(evidence)
        passed += gate_of(policy).judge(state, state.entries["a"], force=False).allowed
    return passed


def state_of(evidence: Evidence) -> RegistryState:
    """A registry whose log has this one evaluation, of a beside b."""
    statuses = {"a": "success"} | ({"b": "production"} if evidence.champion else {})
    entries = {
        name: ModelRegistryEntry(name, "X", "15m", "rf", "", status=status)
        for name, status in statuses.items()
    }
    state = RegistryState(entries=entries, digests={"a": "1", "b": "2"})
    state.take_evidence("a", entries["a"].key, evidence.to_dict())
    return state


def no_skill_evidence(challenger: Simulation, champion: Simulation | None, close: np.ndarray) -> Evidence:
    runs = {"a": challenger} | ({"b": champion} if champion else {})
    sides = []
    for name, digest in zip(runs, ("1", "2"), strict=False):
        metrics = strategy_metrics(runs[name], close, bars_per_year=BARS_PER_YEAR)
        sides.append(
            Measured(
                name,
                digest,
                "2025-01-01T00:00:00+00:00",
                float(metrics["cum_return"] or 0.0),
                float(metrics["sharpe"] or 0.0),
                float(metrics["max_drawdown"] or 0.0),
                int(metrics["trades"] or 0),
                moments=return_moments(runs[name].returns),
            )
        )
    resampled = probability_better(challenger.returns - champion.returns, resamples=200) if champion else None
    return Evidence(
        challenger=sides[0],
        champion=sides[1] if champion else None,
        evaluated_at=datetime.now(UTC).isoformat(),
        window_start="2025-02-01T00:00:00+00:00",
        window_end="2025-03-01T00:00:00+00:00",
        bars=len(close),
        probability_better=resampled.probability if resampled else None,
        resamples=200,
        seed=42,
    )


@pytest.mark.parametrize(
    "how", ["as they were", "cut at the start", "another symbol's", "one price changed", "all new"]
)
def test_the_bars_before_the_window_must_be_those_that_the_model_was_trained_on(
    gated: Settings, base: Path, challenger: str, bars: Path, tmp_path: Path, how: str
) -> None:
    frame = read_bars(bars).frame
    if how == "cut at the start":
        frame = frame.iloc[1500:]
    elif how == "another symbol's":
        frame = synthetic_bars("OTHER", 4000, seed=11)
    elif how == "one price changed":
        frame.iloc[1000, frame.columns.get_loc("close")] *= 1.0 + 1e-9
    elif how == "all new":
        frame = frame.iloc[2700:]
    path = tmp_path / "BROUGHT_15m.csv"
    frame.to_csv(path, float_format="%.17g")
    if how == "another symbol's":
        before = registry_at(base).state
        with pytest.raises(TrainingRequestError, match="another symbol's file"):
            evaluate(gated, challenger, ohlcv=path, base_dir=base)
        assert registry_at(base).state == before, "a slip of the pen is no look"
        return
    result = evaluate(gated, challenger, ohlcv=path, base_dir=base)
    assert result.evidence.measured_by == "brought"
    [verdict] = [item for item in result.verdicts if item.name == "same_bars"]
    assert verdict.passed == (how in ("as they were", "cut at the start"))
    found = result.evidence.trained_on
    assert found is not None
    assert {
        "as they were": found.differ == 0,
        "cut at the start": found.overlap > 0 and found.differ == 0,
        "one price changed": found.differ == 1,
        "all new": found.overlap == 0,
    }[how], found
