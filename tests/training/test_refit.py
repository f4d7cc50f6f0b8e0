"""The recipe of a measured model, fitted again on all bars: a second model that carries the first one's evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import yaml

from signalserve.cli import exits
from signalserve.config.settings import Settings, load_settings
from signalserve.features.bars import read_bars
from signalserve.features.pipeline import FeaturePipeline
from signalserve.judging import PromoteGate
from signalserve.registry import ModelMetadata, Promotion, load_registry, open_registry, verify_log
from signalserve.registry.events import EventLog
from signalserve.registry.folder_store import open_store
from signalserve.training.errors import TrainingError, TrainingRequestError
from signalserve.training.labels import make_labels
from signalserve.training.request import TrainRequest
from signalserve.training.run import train
from tests.cli.test_commands import signalserve
from tests.training.conftest import CONFIG

PASSES = {
    "gate": "evidence",
    "min_sharpe": -1e6,
    "min_deflated_sharpe": 0.0,
    "min_probability": 0.0,
    "min_bars": 2,
    "min_trades": 0,
    "max_drawdown": 1.0,
    "max_data_age": None,
    "min_walk_forward": None,
}


@pytest.fixture(autouse=True)
def _gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNALSERVE__PROMOTION__GATE", "evidence")


def config(folder: Path, bars: Path, **promotion: Any) -> Path:
    path = folder / "system.yml"
    content = {
        **CONFIG,
        "ml": {**CONFIG["ml"], "models_dir": str(folder / "models"), "model_type": "logreg", "refit": True},
        "data": {"ohlcv_path": str(bars)},
        "promotion": {**PASSES, **promotion},
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def request(settings: Settings, base: Path, bars: Path, **choices: Any) -> TrainRequest:
    return TrainRequest.from_settings(
        settings, "SYNTH", output_dir=base, ohlcv=bars, model_type="logreg", **{"refit": True, **choices}
    )


def test_a_refit_is_trained_on_all_bars_and_carries_the_evidence_from_training_to_promote(
    bar_file: Path, tmp_path: Path
) -> None:
    path = config(tmp_path, bar_file)
    trained = json.loads(signalserve("train", "--symbol", "SYNTH", "--config", str(path), "--json"))
    measured, refitted = trained["model_id"], trained["refitted"]["model_id"]
    base = tmp_path / "models"
    assert {entry.model_id for entry in load_registry(base)} == {measured, refitted}
    meta = ModelMetadata.read(base / refitted / "meta.json")
    bars = read_bars(bar_file)
    last = bars.frame.index[-1].isoformat()
    assert (meta.train_start, meta.train_end) == (trained["train_start"], last)
    assert meta.extra["refit_of"] == {"model_id": measured, "digest": trained["digest"]}
    assert meta.metrics is None
    assert "test_start" not in meta.extra
    assert meta.extra["fit_end"] <= last

    # the model itself: the same recipe on every labelled bar that the features have, but the last horizon
    settings = Settings(**CONFIG)
    own = request(settings, base, bar_file)
    pipeline = FeaturePipeline(own.preset)
    labels = make_labels(bars, own.label)
    usable = np.flatnonzero(labels.known)
    usable = usable[(usable >= pipeline.warmup_bars) & (usable < len(bars.frame) - own.label.horizon_bars)]
    matrix = pipeline.transform(bars.frame).to_numpy()
    wanted = own.model().fit(matrix[usable], labels.classes[usable]).predict_proba(matrix[-50:])
    found = joblib.load(base / refitted / "model.joblib").predict_proba(matrix[-50:])
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    assert not np.allclose(found, joblib.load(base / measured / "model.joblib").predict_proba(matrix[-50:]))

    shown = signalserve("evaluate", measured, "--config", str(path))
    assert f"{refitted} carries this evidence; the promote gate would refuse it: artefact: " in shown
    state = open_store(base).view().state
    record, own_record = state.evidence[refitted], state.evidence[measured]
    assert (record["kind"], record["recipe_of"]["model_id"]) == ("recipe", measured)
    assert record["challenger"]["train_end"] == own_record["challenger"]["train_end"] == trained["train_end"]
    key = state.entries[refitted].key
    assert state.tries(key, record["window_start"], record["window_end"]) == 1

    path = config(tmp_path, bar_file, accept_kinds=["artefact", "recipe"])
    again = json.loads(signalserve("evaluate", measured, "--config", str(path), "--json"))
    assert again["refits"] == [
        {"model_id": refitted, "passed": True, "status": "candidate", "failed_verdicts": []}
    ]
    assert again["tries"] == 2
    none_left = signalserve("evaluate", refitted, "--config", str(path), code=exits.FAILED)
    assert f"carries the evidence of {measured}: `signalserve evaluate {measured}` renews it" in none_left
    registry = open_registry(base, gate=PromoteGate.of(load_settings(path)))
    registry.promote([Promotion(refitted, "")])
    assert open_store(base).view().state.production(key) == refitted
    assert verify_log(base).ok
    register = list(EventLog(base / "registry_events.jsonl").read_new().events)[1]
    assert register.detail["refit_of"]["model_id"] == measured


def test_a_refit_that_was_evaluated_on_later_bars_keeps_that(bar_file: Path, tmp_path: Path) -> None:
    text = bar_file.read_text(encoding="utf-8").splitlines(keepends=True)
    early = tmp_path / "bars.csv"
    early.write_text("".join(text[:2000]), encoding="utf-8")
    path = config(tmp_path, early)
    result = train(request(Settings(**CONFIG), tmp_path / "models", early))
    assert result.refitted is not None
    early.write_text("".join(text), encoding="utf-8")
    for model_id in (result.refitted.model_id, result.model_id):
        answer = json.loads(signalserve("evaluate", model_id, "--config", str(path), "--json"))
        assert answer["refits"] == []
    record = open_store(tmp_path / "models").view().state.evidence[result.refitted.model_id]
    assert record["kind"] == "artefact"
    assert record["window_start"] > str(result.refitted.metadata.train_end)


def test_a_job_that_ended_between_the_two_models_goes_on_with_the_same_bars_and_no_others(
    settings: Settings, bar_file: Path, tmp_path: Path
) -> None:
    bars, base = tmp_path / "bars.csv", tmp_path / "models"
    bars.write_bytes(bar_file.read_bytes())
    alone = train(request(settings, base, bars, refit=False, request_id="job"))
    assert alone.refitted is None
    first = train(request(settings, base, bars, request_id="job"))
    again = train(request(settings, base, bars, request_id="job"))
    assert first.model_id == again.model_id == alone.model_id
    assert first.refitted is not None
    assert again.refitted is not None
    assert first.refitted.model_id == again.refitted.model_id
    assert len(load_registry(base)) == 2

    train(request(settings, base, bars, refit=False, request_id="other"))
    frame = pd.read_csv(bars)
    frame.iloc[:-1].to_csv(bars, index=False)
    with pytest.raises(TrainingError, match=r"is registered, and its refit failed: .* has changed since"):
        train(request(settings, base, bars, request_id="other"))


def test_a_registry_that_keeps_one_model_has_no_place_for_a_refit(
    settings: Settings, bar_file: Path, tmp_path: Path
) -> None:
    settings = settings.model_copy(
        update={"ml": settings.ml.model_copy(update={"max_models_per_symbol_tf": 1})}
    )
    with pytest.raises(TrainingRequestError, match="max_models_per_symbol_tf keeps 1"):
        request(settings, tmp_path, bar_file)
    assert not request(settings, tmp_path, bar_file, refit=False).refit
