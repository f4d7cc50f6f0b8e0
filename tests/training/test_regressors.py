"""A registered regressor trades by its expected returns: thresholds in basis points, and no probability anywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import typer
from scipy.stats import spearmanr
from typer.testing import CliRunner
from xgboost import XGBRegressor

from signalserve.cli.backtest import backtest as backtest_command
from signalserve.config.evidence import PromotionSettings
from signalserve.config.settings import Settings
from signalserve.config.trading import TradingSettings
from signalserve.features.bars import read_bars
from signalserve.features.pipeline import FeaturePipeline
from signalserve.features.synthetic import synthetic_bars
from signalserve.judging import PromoteGate
from signalserve.registry import ModelMetadata, list_models, promote_model, register_model
from signalserve.training.backtest import BacktestRequest, backtest
from signalserve.training.errors import TrainingRequestError
from signalserve.training.evaluation import evaluate
from signalserve.training.request import TrainRequest
from signalserve.training.run import train
from tests.registries import gate_of, registry_at

REGRESSOR = "SYNTH_15m_xgb_reg_1"
HORIZON, TRAINED = 4, 2000


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bars") / "SYNTH_15m.csv"
    synthetic_bars("SYNTH", 3000, seed=11).to_csv(path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, bars: Path) -> Path:
    """A registry with an XGBRegressor of the returns over four bars, as research code leaves it, and a classifier."""
    from tests.training.conftest import CONFIG

    base = tmp_path_factory.mktemp("made") / "registry"
    classifier = TrainRequest.from_settings(
        Settings(**CONFIG), "SYNTH", model_type="logreg", output_dir=base, ohlcv=bars
    )
    train(classifier)
    frame, pipeline = read_bars(bars).frame, FeaturePipeline("core")
    close = frame["close"].to_numpy()
    fit = slice(pipeline.warmup_bars, TRAINED - HORIZON)
    coming = close[HORIZON:] / close[:-HORIZON] - 1.0
    matrix = pipeline.transform(frame).to_numpy()
    model = XGBRegressor(n_estimators=15, max_depth=3, n_jobs=1).fit(matrix[fit], coming[fit])
    folder = base / REGRESSOR
    folder.mkdir()
    joblib.dump(model, folder / "model.joblib")
    meta = ModelMetadata(
        REGRESSOR,
        "SYNTH",
        "15m",
        "xgb_reg",
        created_at="2024-02-01T00:00:00+00:00",
        feature_preset="core",
        feature_cols=list(pipeline.names),
        label_config={"method": "fixed_horizon", "horizon_bars": HORIZON},
        train_start=frame.index[fit.start].isoformat(),
        train_end=frame.index[TRAINED - 1].isoformat(),
    )
    meta.write(folder / "meta.json")
    register_model(meta, base)
    return base


@pytest.fixture
def base(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "registry")
    return tmp_path / "registry"


def classifier_of(base: Path) -> str:
    [model_id] = [entry.model_id for entry in list_models(base, model_type="logreg")]
    return model_id


def traded(settings: Settings, **trading: float) -> Settings:
    return settings.model_copy(
        update={"trading": TradingSettings(**trading), "promotion": PromotionSettings(resamples=200)}
    )


def test_it_is_evaluated_by_its_own_thresholds_and_the_gate_asks_about_them_alone(
    settings: Settings, base: Path, bars: Path
) -> None:
    now = traded(settings, value_exit_bps=1.0)
    result = evaluate(now, REGRESSOR, ohlcv=bars, base_dir=base)
    evidence = result.evidence
    thresholds = {
        name: value for name, value in evidence.rules.items() if name.startswith(("proba", "value"))
    }
    assert thresholds == {"value_entry_bps": 14.0, "value_exit_bps": 1.0}
    assert evidence.challenger.trades > 0
    assert evidence.challenger.auc is None

    frame = read_bars(bars).frame
    model = joblib.load(base / REGRESSOR / "model.joblib")
    close = frame["close"].to_numpy()
    values = model.predict(FeaturePipeline("core").transform(frame).to_numpy())
    window = slice(len(frame) - evidence.bars, len(frame) - HORIZON)
    coming = (close[HORIZON:] / close[:-HORIZON] - 1.0)[window]
    assert evidence.challenger.rank_ic == pytest.approx(spearmanr(values[window], coming).statistic, abs=1e-4)

    def same(settings: Settings) -> bool:
        registry = registry_at(base)
        decision = PromoteGate.of(settings).judge(registry.state, registry.entry(REGRESSOR), force=False)
        return next(item.passed for item in decision.verdicts if item.name == "same_settings")

    assert same(now)
    assert same(traded(settings, value_exit_bps=1.0, proba_entry=0.7))
    assert not same(traded(settings, value_exit_bps=1.0, value_entry_bps=15.0))
    assert not same(traded(settings, value_exit_bps=1.0, fee_bps=6.0))


def test_beside_a_classifier_the_evidence_has_the_thresholds_of_both(
    settings: Settings, base: Path, bars: Path
) -> None:
    promote_model(classifier_of(base), base_dir=base, gate=gate_of())
    evidence = evaluate(traded(settings), REGRESSOR, ohlcv=bars, base_dir=base).evidence
    assert {"proba_entry": 0.55, "value_entry_bps": 14.0}.items() <= dict(evidence.rules).items()
    assert evidence.champion is not None
    assert (evidence.champion.rank_ic, evidence.challenger.auc) == (None, None)
    assert evidence.champion.auc is not None


def test_a_backtest_trades_expected_returns_and_writes_no_probability(
    settings: Settings, base: Path, bars: Path, tmp_path: Path
) -> None:
    request = BacktestRequest.from_settings(
        traded(settings, value_entry_bps=20.0, value_exit_bps=-3.0),
        "SYNTH",
        model_id=REGRESSOR,
        ohlcv=bars,
        base_dir=base,
        output_dir=tmp_path / "backtests",
    )
    result = backtest(request)
    equity = pd.read_csv(result.folder / "equity.csv")
    assert equity["probability"].isna().all()
    held, expected = 0, []
    for value in 10_000.0 * equity["value"]:
        expected.append(held)
        held = 1 if value >= 20.0 else 0 if value <= -3.0 else held
    assert equity["position"].tolist() == expected
    assert sum(expected) > 0
    document = json.loads((result.folder / "metrics.json").read_text(encoding="utf-8"))
    assert document["output"] == "value"
    assert not {"proba_entry", "proba_exit"} & set(document["rules"])
    assert not {"auc", "log_loss", "brier", "accuracy"} & set(document["metrics"])
    assert np.isfinite([document["metrics"]["rank_ic"], document["metrics"]["sign_accuracy"]]).all()
    report = (result.folder / "report.html").read_text(encoding="utf-8")
    assert "20.0 bps" in report
    assert "Rank correlation" in report


def test_thresholds_that_are_given_must_suit_the_scores(
    settings: Settings, base: Path, bars: Path, tmp_path: Path
) -> None:
    app = typer.Typer()
    app.command("backtest")(backtest_command)
    app.command("other")(lambda: None)  # with a single command typer would drop the command's name
    at = ["backtest", "--symbol", "SYNTH", "--ohlcv", str(bars), "--registry", str(base)]
    at += ["--output-dir", str(tmp_path / "backtests"), "--json", "--model-id"]
    refused = CliRunner().invoke(app, [*at, REGRESSOR, "--proba-entry", "0.6"])
    assert refused.exit_code == 2
    assert "proba_entry is no threshold for it, value_entry_bps and value_exit_bps are" in refused.stderr
    with pytest.raises(TrainingRequestError, match="value_exit_bps is no threshold for it, proba_entry and"):
        backtest(
            BacktestRequest.from_settings(
                settings,
                "SYNTH",
                model_id=classifier_of(base),
                ohlcv=bars,
                base_dir=base,
                asked=["value_exit_bps"],
            )
        )
    assert not (tmp_path / "backtests").exists()
    taken = CliRunner().invoke(app, [*at, REGRESSOR, "--value-entry-bps", "30"])
    assert taken.exit_code == 0, taken.output
    assert json.loads(taken.stdout)["rules"]["value_entry_bps"] == 30.0
