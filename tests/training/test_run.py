"""A training run from bars to a registered, sealed, servable model, and what a failed one leaves behind."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from signalserve.config.settings import Settings
from signalserve.features.bars import read_bars
from signalserve.features.pipeline import FeaturePipeline
from signalserve.predictors.opening import open_predictor
from signalserve.registry import (
    ModelMetadata,
    list_models,
    load_registry,
    validate_registry_entry,
    verify_log,
)
from signalserve.training.errors import TrainingError, TrainingRequestError
from signalserve.training.models import MODEL_TYPES
from signalserve.training.request import TrainRequest
from signalserve.training.run import train

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "ohlcv"


def request(settings: Settings, bars: Path, base: Path, **choices: object) -> TrainRequest:
    return TrainRequest.from_settings(settings, "SYNTH", "15m", output_dir=base, ohlcv=bars, **choices)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_model_type_is_trained_sealed_registered_and_scores_as_in_python(
    settings: Settings, bar_file: Path, base: Path, model_type: str
) -> None:
    result = train(request(settings, bar_file, base, model_type=model_type, seed=5))
    folder = base / result.model_id
    assert result.path == folder
    names = {path.name for path in folder.iterdir()}
    assert {"model.joblib", "meta.json", "metrics.csv", "feature_importances.csv"} <= names
    assert {"golden.npz", "manifest.json"} <= names

    [entry] = [entry for entry in list_models(base) if entry.model_id == result.model_id]
    assert entry.status == "success"
    assert entry.cum_return == pytest.approx(result.metrics["cum_return"])
    assert entry.sharpe == pytest.approx(result.metrics["sharpe"])
    assert validate_registry_entry(base, entry)

    predictor = open_predictor(folder, expected_digest=result.digest)
    features = FeaturePipeline("core").transform(read_bars(bar_file).frame).iloc[-100:].to_numpy()
    native = joblib.load(folder / "model.joblib").predict_proba(features)[:, 1]
    np.testing.assert_allclose(predictor.predict(features), native, atol=1e-6)
    assert predictor.feature_names == FeaturePipeline("core").names
    assert predictor.feature_set == FeaturePipeline("core").feature_set


def test_metadata_says_all_that_is_needed_to_repeat_the_run(
    settings: Settings, bar_file: Path, base: Path
) -> None:
    result = train(request(settings, bar_file, base, seed=9, preset="extended"))
    meta = ModelMetadata.read(result.path / "meta.json")
    bars = read_bars(bar_file)
    assert meta.feature_cols == list(FeaturePipeline("extended").names)
    assert meta.feature_preset == "extended"
    assert meta.random_state == 9
    assert meta.label_config == {
        "method": "fixed_horizon",
        "horizon_bars": 4,
        "up_threshold": 0.001,
        "down_threshold": -0.001,
    }
    assert meta.model_id == result.model_id
    assert meta.extra["data"] == {
        "file": bar_file.name,
        "sha256": bars.sha256,
        "bars": 2500,
        "span": [bars.frame.index[200].isoformat(), bars.frame.index[-1].isoformat()],
        "rows": 2300,
    }
    assert meta.extra["code_version"]["signalserve"]
    assert meta.extra["library_versions"]["scikit-learn"] == meta.sklearn_version
    assert None not in meta.extra["library_versions"].values()
    assert meta.extra["seeds"]["model"] == 9
    assert meta.extra["trials"] == {
        "count": 1,
        "metric": None,
        "per_bar_sharpe_variance": None,
        "file": None,
    }
    folds = meta.extra["walk_forward"]["folds"]
    assert (meta.extra["walk_forward"]["mode"], [fold["fold"] for fold in folds]) == ("expanding", [1, 2])
    for fold in folds:
        assert fold["train_start"] < fold["train_end"] < fold["test_start"] < fold["test_end"]
        assert fold["test_end"] < meta.extra["test_start"]
        assert 0.0 < fold["auc"] < 1.0
    assert meta.extra["model_params"]["n_estimators"] == 12
    assert meta.config_snapshot is not None
    assert meta.config_snapshot["ml"]["label"]["horizon_bars"] == 4
    assert meta.config_snapshot["trading"]["fee_bps"] == 1.0
    assert None not in (meta.python_version, meta.sklearn_version, meta.pandas_version, meta.pipeline_version)
    # time goes forward: what the fit has read ends before the test span starts
    assert meta.train_start is not None
    assert meta.train_end is not None
    moments = [meta.train_start, meta.train_end, meta.extra["test_start"], meta.extra["test_end"]]
    assert [pd.Timestamp(moment) for moment in moments] == sorted(map(pd.Timestamp, moments))
    assert pd.Timestamp(meta.train_end) < pd.Timestamp(meta.extra["test_start"])
    assert pd.Timestamp(meta.extra["test_end"]) == bars.frame.index[-1]
    # it reaches as far as the label of the last bar that has one: four bars ahead
    close = bars.frame["close"]
    ahead = close.shift(-4) / close - 1.0
    label = meta.config_snapshot["ml"]["label"]
    labelled = close.index[(ahead >= label["up_threshold"]) | (ahead <= label["down_threshold"])]
    fit_for = labelled[labelled < pd.Timestamp(meta.extra["test_start"]) - pd.Timedelta("1h")]
    assert pd.Timestamp(meta.train_end) == fit_for[-1] + pd.Timedelta("1h")
    recipe, artefact = meta.extra["evidence"]
    assert (recipe["kind"], artefact["kind"]) == ("recipe", "artefact")
    assert (artefact["window_start"], artefact["window_end"]) == (
        meta.extra["test_start"],
        meta.extra["test_end"],
    )
    assert meta.metrics is not None
    assert artefact["bars"] == meta.metrics["test_bars"]
    assert artefact["sharpe"] == meta.metrics["sharpe"]
    assert recipe["window_end"] == folds[-1]["test_end"]
    assert recipe["auc"] == meta.extra["walk_forward"]["metrics"]["auc"]


def test_metrics_and_importances_are_the_same_in_every_file(
    settings: Settings, bar_file: Path, base: Path
) -> None:
    result = train(request(settings, bar_file, base))
    stored = json.loads((result.path / "meta.json").read_text(encoding="utf-8"))
    table = pd.read_csv(result.path / "metrics.csv", index_col="metric")["value"]
    assert table.to_dict() == pytest.approx(stored["metrics"])
    assert {"cum_return", "sharpe", "auc", "log_loss", "brier", "accuracy", "precision", "recall"} <= set(
        table.index
    )
    importances = pd.read_csv(result.path / "feature_importances.csv")
    assert list(importances.columns) == ["feature", "importance"]
    assert (
        dict(zip(importances["feature"], importances["importance"], strict=True))
        == stored["feature_importances"]
    )
    assert importances["importance"].sum() == pytest.approx(1.0)


def test_a_model_finds_the_pattern_of_the_synthetic_bars(
    settings: Settings, bar_file: Path, base: Path
) -> None:
    metrics = train(request(settings, bar_file, base)).metrics
    assert float(metrics["auc"] or 0.0) > 0.55


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_one_seed_and_one_input_give_the_same_bytes_and_the_same_figures(
    settings: Settings, bar_file: Path, base: Path, model_type: str
) -> None:
    first, second = (train(request(settings, bar_file, base, model_type=model_type)) for _ in range(2))
    assert first.model_id != second.model_id
    assert first.metrics == second.metrics
    assert first.metadata.extra["walk_forward"] == second.metadata.extra["walk_forward"]
    names = {"golden.npz", "oos_predictions.csv", "metrics.csv", "feature_importances.csv"}
    names |= {"model.onnx"} if first.engine == "onnx" else set()
    for name in names:
        digests = [hashlib.sha256((result.path / name).read_bytes()).digest() for result in (first, second)]
        assert digests[0] == digests[1], name


def test_another_seed_gives_another_model(settings: Settings, bar_file: Path, base: Path) -> None:
    first, other = (train(request(settings, bar_file, base, seed=seed)) for seed in (1, 2))
    assert first.metrics != other.metrics
    rows = np.random.default_rng(0).standard_normal((50, len(FeaturePipeline("core").names)))
    assert not np.array_equal(*(open_predictor(result.path).predict(rows) for result in (first, other)))


def test_every_out_of_sample_probability_is_kept_and_gives_the_metrics_again(
    settings: Settings, bar_file: Path, base: Path
) -> None:
    result = train(request(settings, bar_file, base))
    table = pd.read_csv(result.path / "oos_predictions.csv", dtype={"fold": str}, parse_dates=["timestamp"])
    assert list(table.columns) == ["timestamp", "fold", "probability", "class", "forward_return"]
    assert list(table["fold"].unique()) == ["1", "2", "test"]
    assert table["timestamp"].is_monotonic_increasing
    for part, metrics in (
        (table[table["fold"] == "test"], result.metrics),
        (table[table["fold"] != "test"], result.metadata.extra["walk_forward"]["metrics"]),
    ):
        known = part.dropna(subset=["class"])
        assert roc_auc_score(known["class"], known["probability"]) == pytest.approx(metrics["auc"])
        assert ((known["probability"] - known["class"]) ** 2).mean() == pytest.approx(metrics["brier"])
        come = part.dropna(subset=["forward_return"])
        assert roc_auc_score(come["forward_return"] > 0, come["probability"]) == pytest.approx(
            metrics["auc_all"]
        )
    test = table[table["fold"] == "test"]
    features = FeaturePipeline("core").transform(read_bars(bar_file).frame).loc[test["timestamp"]].to_numpy()
    np.testing.assert_allclose(open_predictor(result.path).predict(features), test["probability"], atol=1e-6)


def test_a_request_id_registers_one_model_however_often_it_is_run(
    settings: Settings, bar_file: Path, tmp_path: Path
) -> None:
    base = tmp_path / "models"
    first = train(request(settings, bar_file, base, request_id="job-1"))
    again = train(request(settings, bar_file, base, request_id="job-1", model_type="logreg"))
    assert again == replace(first, metadata=again.metadata)
    assert again.metadata == first.metadata
    other = train(request(settings, bar_file, base, request_id="job-2"))
    assert sorted(entry.model_id for entry in list_models(base)) == sorted([first.model_id, other.model_id])
    with pytest.raises(TrainingRequestError, match="request_id 'job-1' was used at revision 1"):
        train(replace(request(settings, bar_file, base, request_id="job-1"), symbol="OTHER"))


def test_a_request_that_another_process_answers_meanwhile_leaves_one_model(
    settings: Settings, bar_file: Path, tmp_path: Path
) -> None:
    base = tmp_path / "models"
    choice = request(settings, bar_file, base, model_type="logreg", request_id="job")
    answers: list[str] = []

    def overtaken(step: str, *, done: float = 0.0, total: float = 0.0, note: str = "") -> None:
        if step == "registering" and not answers:
            answers.append("on its way")
            answers[0] = train(choice).model_id

    result = train(choice, report=overtaken)
    assert result.model_id == answers[0]
    assert [entry.model_id for entry in list_models(base)] == answers
    assert [path.name for path in base.iterdir() if path.is_dir()] == answers


def test_a_failed_request_fails_again_with_the_same_text_and_one_entry(
    settings: Settings, tmp_path: Path
) -> None:
    base = tmp_path / "models"
    failures = []
    for _ in range(2):
        with pytest.raises(TrainingError, match="no such file") as caught:
            train(request(settings, tmp_path / "absent.csv", base, request_id="job"))
        failures.append((str(caught.value), caught.value.model_id))
    assert failures[0] == failures[1]
    assert len(load_registry(base)) == 1


def test_labels_weights_and_calibration_of_the_configuration_reach_the_model(
    settings: Settings, bar_file: Path, base: Path
) -> None:
    ml = settings.ml.model_dump() | {
        "label": {
            "method": "triple_barrier",
            "horizon_bars": 12,
            "up_threshold": 3.0,
            "down_threshold": -3.0,
            "volatility_bars": 96,
        },
        "class_weight": "balanced",
        "calibration": "sigmoid",
        "walk_forward": {"mode": "rolling", "folds": 2, "train_bars": 600},
    }
    result = train(request(Settings(**{**settings.model_dump(), "ml": ml}), bar_file, base))
    model = joblib.load(result.path / "model.joblib")
    assert model.method == "sigmoid"
    assert model.estimator.class_weight == "balanced"
    assert result.engine == "onnx"
    meta = result.metadata
    assert (meta.extra["class_weight"], meta.extra["calibration"]) == ("balanced", "sigmoid")
    assert meta.label_config is not None
    assert meta.label_config["method"] == "triple_barrier"
    assert meta.extra["walk_forward"]["mode"] == "rolling"
    assert pd.Timestamp(meta.train_end) < pd.Timestamp(meta.extra["test_start"])  # type: ignore[arg-type]
    # the last window alone: 600 bars and the horizon of the last label
    fitted = pd.Timestamp(meta.extra["fit_end"]) - pd.Timestamp(meta.extra["fit_start"])
    assert fitted <= 612 * pd.Timedelta(minutes=15)
    # what is taken for seen reaches back to the first fold's fit
    folds = meta.extra["walk_forward"]["folds"]
    assert pd.Timestamp(meta.train_start) <= pd.Timestamp(folds[0]["train_start"])  # type: ignore[arg-type]
    assert pd.Timestamp(meta.train_start) < pd.Timestamp(meta.extra["fit_start"])  # type: ignore[arg-type]


def test_bars_after_the_training_span_change_nothing_in_the_fit(
    settings: Settings, bar_file: Path, base: Path, tmp_path: Path
) -> None:
    plain = train(request(settings, bar_file, base))
    lines = bar_file.read_text(encoding="utf-8").splitlines()
    start = next(
        i
        for i, line in enumerate(lines)
        if line.startswith(plain.metadata.extra["test_start"].replace("T", " "))
    )
    changed = [line.split(",") for line in lines[start:]]
    # the test span's prices are replaced by a steady climb
    climb = [
        [row[0], *(repr(100.0 * 1.001**i * f) for f in (1.0, 1.002, 0.998, 1.001)), row[5]]
        for i, row in enumerate(changed)
    ]
    other_file = tmp_path / "changed.csv"
    other_file.write_text("\n".join([*lines[:start], *(",".join(row) for row in climb)]), encoding="utf-8")
    other = train(request(settings, other_file, base))
    assert other.metrics != plain.metrics
    rows = FeaturePipeline("core").transform(read_bars(bar_file).frame).iloc[300:400].to_numpy()
    np.testing.assert_array_equal(
        open_predictor(other.path).predict(rows), open_predictor(plain.path).predict(rows)
    )


def failed_entry(base: Path, error: TrainingError) -> tuple[str, dict[str, object]]:
    [entry] = [entry for entry in load_registry(base) if entry.model_id == error.model_id]
    assert {path.name for path in (base / entry.model_id).iterdir()} == {"meta.json"}
    return entry.status, json.loads((base / entry.model_id / "meta.json").read_text(encoding="utf-8"))


def test_bars_that_cannot_be_trusted_register_a_failed_entry_with_the_text(
    settings: Settings, bar_file: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.csv"
    lines = bar_file.read_text(encoding="utf-8").splitlines()
    broken.write_text(
        "\n".join([*lines[:50], lines[50].replace(",", ",oops", 1), *lines[51:]]), encoding="utf-8"
    )
    with pytest.raises(TrainingError, match=r"line 51 .*open is text: 'oops") as caught:
        train(request(settings, broken, tmp_path / "models"))
    status, meta = failed_entry(tmp_path / "models", caught.value)
    assert status == "failed"
    assert meta["error"] == str(caught.value)
    assert meta["error_type"] == "BarsError"
    assert verify_log(tmp_path / "models").ok


def test_a_missing_bar_file_and_an_estimator_that_refuses_leave_failed_entries_too(
    settings: Settings, bar_file: Path, tmp_path: Path
) -> None:
    base = tmp_path / "models"
    with pytest.raises(TrainingError, match="no such file") as absent:
        train(request(settings, tmp_path / "absent.csv", base))
    assert failed_entry(base, absent.value)[0] == "failed"
    refusing = settings.model_copy(
        update={"ml": settings.ml.model_copy(update={"models": {"rf": {"n_estimators": -3}}})}
    )
    with pytest.raises(TrainingError, match=r"InvalidParameterError: .*n_estimators") as refused:
        train(request(refusing, bar_file, base))
    assert failed_entry(base, refused.value)[0] == "failed"
    assert not list(base.glob(".building-*"))


def test_too_few_bars_say_how_many_are_needed_for_what(
    settings: Settings, bar_file: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.csv"
    short.write_text("\n".join(bar_file.read_text(encoding="utf-8").splitlines()[:150]), encoding="utf-8")
    with pytest.raises(TrainingError, match="149 bars are too few: 200 warm the features up"):
        train(request(settings, short, tmp_path / "models"))


def test_thresholds_that_no_bar_reaches_are_named(settings: Settings, bar_file: Path, tmp_path: Path) -> None:
    label = settings.ml.label.model_copy(update={"up_threshold": 0.9})
    far = settings.model_copy(update={"ml": settings.ml.model_copy(update={"label": label})})
    with pytest.raises(TrainingError, match=r"0 bars of class 1 .*ml.label"):
        train(request(far, bar_file, tmp_path / "models"))


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"preset": "everything"}, "no feature preset"),
        ({"model_type": "svm"}, "no model type 'svm'"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_request_that_cannot_be_run_writes_nothing(
    settings: Settings, bar_file: Path, tmp_path: Path, choices: dict[str, object], says: str
) -> None:
    with pytest.raises(TrainingRequestError, match=says):
        train(request(settings, bar_file, tmp_path / "models", **choices))
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("symbol", "timeframe"), [("../X", "15m"), ("", "15m"), ("X", "15 minutes"), ("X", "0m")]
)
def test_names_that_lead_elsewhere_and_timeframes_that_are_none_are_refused(
    settings: Settings, symbol: str, timeframe: str
) -> None:
    with pytest.raises(TrainingRequestError):
        TrainRequest.from_settings(settings, symbol, timeframe)


def test_retention_keeps_the_newest_runs(settings: Settings, bar_file: Path, tmp_path: Path) -> None:
    few = settings.model_copy(update={"ml": settings.ml.model_copy(update={"max_models_per_symbol_tf": 2})})
    base = tmp_path / "models"
    runs = [train(request(few, bar_file, base, model_type="logreg")).model_id for _ in range(3)]
    assert sorted(entry.model_id for entry in list_models(base)) == sorted(runs[1:])


@pytest.mark.skipif(not REAL.is_dir(), reason="no real bars beside the repository")
def test_real_bars_with_gaps_train_and_their_gaps_are_kept_in_the_metadata(
    settings: Settings, base: Path
) -> None:
    choice = TrainRequest.from_settings(settings, "BTCUSDT", output_dir=base, ohlcv=REAL / "BTCUSDT_15m.csv")
    result = train(choice)
    assert any(note.startswith("gaps: ") for note in result.metadata.extra["warnings"])
    assert result.metrics["test_bars"] == round((8809 - 200) * 0.25)
    assert all(value is None or np.isfinite(value) for value in result.metrics.values())
