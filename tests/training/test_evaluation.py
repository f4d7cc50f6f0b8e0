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

from config.evidence import PromotionSettings
from config.settings import Settings
from features.bars import read_bars
from features.synthetic import synthetic_bars
from registry import (
    Evidence,
    Measured,
    ModelMetadata,
    Promotion,
    open_store,
    promote,
    promote_model,
    register_model,
    verify_log,
)
from registry.errors import GateRefusedError, WrongStatusError
from registry.events import EventLog
from registry.gate import decide
from training.bootstrap import probability_better
from training.errors import TrainingError, TrainingRequestError
from training.evaluation import Evaluation, evaluate
from training.metrics import (
    deflated_sharpe,
    expected_max_sharpe,
    probabilistic_sharpe,
    strategy_metrics,
)
from training.request import TrainRequest
from training.run import train
from training.scoring import open_scoring_model
from training.simulation import Rules, simulate

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
    policy = PromotionSettings(resamples=300, **changes)
    return settings.model_copy(update={"promotion": policy})


def compared(settings: Settings, base: Path, champion: str, challenger: str, bars: Path) -> Evaluation:
    promote_model(champion, base_dir=base, policy=PromotionSettings(gate="none"))
    return evaluate(settings, challenger, ohlcv=bars, base_dir=base)


def test_every_figure_is_that_of_the_same_bars_after_both_training_spans(
    gated: Settings, base: Path, champion: str, challenger: str, bars: Path
) -> None:
    result = compared(gated, base, champion, challenger, bars)
    evidence = result.evidence
    whole = read_bars(bars)
    view = open_store(base).view()
    models = [open_scoring_model(base, view, model_id) for model_id in (challenger, champion)]
    last = max(pd.Timestamp(model.meta.train_end) for model in models)
    start = pd.Timestamp(evidence.window_start)
    assert start == last + pd.Timedelta("15min") * (1 + 4)  # the next bar, and a purge of the horizon
    frame = whole.frame.loc[start:]
    assert (evidence.bars, evidence.window_end) == (len(frame), frame.index[-1].isoformat())
    runs = []
    for model, measured in zip(models, (evidence.challenger, evidence.champion), strict=True):
        probability = model.score(whole)[-len(frame) :]
        run = simulate(
            frame["open"].to_numpy(), frame["close"].to_numpy(), probability, Rules.from_settings(gated)
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
    assert evidence.challenger.deflated_sharpe == pytest.approx(deflated_sharpe(runs[0], trials=1), abs=1e-12)
    assert verify_log(base).ok


def test_the_event_keeps_what_the_decision_read(
    gated: Settings, base: Path, champion: str, challenger: str, bars: Path
) -> None:
    result = compared(gated, base, champion, challenger, bars)
    event = EventLog(base / "registry_events.jsonl").read_new()[1][-1]
    assert event.action == "evaluate"
    assert Evidence.from_dict(event.evidence["evidence"]) == result.evidence
    assert event.evidence["policy"]["resamples"] == 300
    assert event.evidence["evidence"]["data"]["sha256"] == read_bars(bars).sha256
    assert {rule["rule"] for rule in event.evidence["rules"]} >= {"better", "drawdown", "deflated_sharpe"}


def test_a_copy_of_the_champion_gets_one_half_and_is_refused(
    gated: Settings, base: Path, champion: str, bars: Path
) -> None:
    shutil.copytree(base / champion, base / "twin")
    (base / "twin" / "manifest.json").unlink()
    meta = json.loads((base / "twin" / "meta.json").read_text()) | {"model_id": "twin"}
    (base / "twin" / "meta.json").write_text(json.dumps(meta))
    register_model(ModelMetadata.from_dict(meta), base, pins=())
    result = compared(gated, base, champion, "twin", bars)
    assert result.evidence.probability_better == 0.5
    assert not result.passed
    assert result.status == "success"
    with pytest.raises(GateRefusedError, match=r"better: P\(better than the champion\) of 0\.500, and 0\.9"):
        promote(base, [Promotion("twin")], policy=gated.promotion)


def test_the_first_model_of_a_key_is_held_against_the_absolute_bar(
    settings: Settings, base: Path, champion: str, bars: Path
) -> None:
    strict = with_promotion(settings, min_sharpe=1000.0, max_drawdown=1.0)
    refused = evaluate(strict, champion, ohlcv=bars, base_dir=base)
    assert "sharpe" in {rule.name for rule in refused.decision.failed}
    assert refused.evidence.probability_better is None
    mild = with_promotion(
        settings, min_sharpe=-1000.0, min_deflated_sharpe=0.0, max_drawdown=1.0, min_trades=0
    )
    passed = evaluate(mild, champion, ohlcv=bars, base_dir=base)
    assert passed.passed
    assert passed.status == "candidate"
    promote(base, [Promotion(champion, "")], policy=mild.promotion)
    assert open_store(base).view().state.entries[champion].status == "production"


def test_asking_again_on_the_same_bars_deflates_the_sharpe_ratio(
    gated: Settings, base: Path, champion: str, challenger: str, bars: Path
) -> None:
    first = compared(gated, base, champion, challenger, bars)
    found = [first.evidence] + [
        evaluate(gated, challenger, ohlcv=bars, base_dir=base).evidence for _ in range(4)
    ]
    assert [item.tries for item in found] == [1, 2, 3, 4, 5]
    deflated = [item.challenger.deflated_sharpe for item in found]
    assert all(later < earlier for earlier, later in pairwise(deflated))


def test_trials_of_a_grid_deflate_the_sharpe_ratio(
    gated: Settings, base: Path, champion: str, challenger: str, bars: Path
) -> None:
    before = compared(gated, base, champion, challenger, bars).evidence.challenger
    path = base / challenger / "meta.json"
    meta = json.loads(path.read_text()) | {"trials": {"count": 50, "per_bar_sharpe_variance": 1e-3}}
    path.write_text(json.dumps(meta))
    after = evaluate(gated, challenger, ohlcv=bars, base_dir=base).evidence
    assert after.trials == 50
    assert after.challenger.deflated_sharpe is not None
    assert before.deflated_sharpe is not None
    assert after.challenger.deflated_sharpe < 0.5 * before.deflated_sharpe
    assert expected_max_sharpe(50, 1e-3) > 2 * np.sqrt(1e-3)


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
    path = base / challenger / "meta.json"
    meta = {name: value for name, value in json.loads(path.read_text()).items() if name != "train_end"}
    path.write_text(json.dumps(meta))
    with pytest.raises(TrainingRequestError, match="no train_start and train_end"):
        evaluate(gated, challenger, ohlcv=bars, base_dir=base)
    promote_model(champion, base_dir=base, policy=PromotionSettings(gate="none"))
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


def test_of_two_hundred_challengers_without_skill_at_most_the_nominal_share_passes() -> None:
    policy = PromotionSettings(resamples=200, min_trades=0, min_bars=2, max_drawdown=1.0)
    rules = Rules(0.55, 0.45, fee_bps=0.0, slippage_bps=0.0)  # costs would refuse them by themselves
    random = np.random.default_rng(0)
    passed = 0
    for _ in range(200):
        close = 100.0 * np.exp(np.cumsum(0.002 * random.standard_normal(500)))
        opened = np.concatenate(([100.0], close[:-1]))
        runs = [simulate(opened, close, random.random(500), rules) for _ in range(2)]
        difference = probability_better(runs[0].returns - runs[1].returns, resamples=200)
        evidence = no_skill_evidence(runs[0], runs[1], close, difference.probability)
        decision = decide(
            challenger="a",
            champion="b",
            digests={"a": "1", "b": "2"},
            quarantined=False,
            evidence=evidence.to_dict(),
            policy=policy,
            now=datetime.now(UTC),
            force=False,
        )
        passed += decision.allowed
    assert passed <= (1.0 - policy.min_probability) * 200


def no_skill_evidence(challenger: Any, champion: Any, close: np.ndarray, probability: float) -> Evidence:
    sides = []
    for name, digest, run in (("a", "1", challenger), ("b", "2", champion)):
        metrics = strategy_metrics(run, close, bars_per_year=BARS_PER_YEAR)
        sides.append(
            Measured(
                name,
                digest,
                "2025-01-01T00:00:00+00:00",
                float(metrics["cum_return"] or 0.0),
                float(metrics["sharpe"] or 0.0),
                float(metrics["max_drawdown"] or 0.0),
                int(metrics["trades"] or 0),
                probabilistic_sharpe(run.returns),
            )
        )
    return Evidence(
        challenger=sides[0],
        champion=replace(sides[1], deflated_sharpe=None),
        evaluated_at=datetime.now(UTC).isoformat(),
        window_start="2025-02-01T00:00:00+00:00",
        window_end="2025-03-01T00:00:00+00:00",
        bars=len(close),
        probability_better=probability,
    )
