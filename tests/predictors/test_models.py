"""Every model type gives its native scores through the sealed folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from signalserve.predictors.compile import compile_model
from signalserve.predictors.errors import (
    GoldenMismatchError,
    InputError,
    IntegrityError,
    NonFiniteScoreError,
    UnsupportedModelError,
)
from signalserve.predictors.golden import GoldenRows, beside
from signalserve.predictors.opening import open_predictor
from signalserve.predictors.predictor import Predictor
from signalserve.predictors.seal import seal_run_dir
from signalserve.predictors.thresholds import split_points
from tests.predictors.conftest import MODELS, NAMES, training_data

# ONNX has no form of hist_gb here, and puts rows that stand on a split of the other two on the wrong side
NATIVE = {"hist_gb", "scaled_rf", "isotonic_logreg"}


def sealed(folder: Path, model: Any, reference: np.ndarray | None = None, names: list[str] = NAMES) -> Path:
    folder.mkdir(parents=True)
    joblib.dump(model, folder / "model.joblib")
    seal_run_dir(folder, model, names, reference)
    return folder


def native(model: Any, X: np.ndarray) -> np.ndarray:
    """The model's own answer, asked without any of our code."""
    if isinstance(model, xgboost.Booster):
        return model.predict(xgboost.DMatrix(X, feature_names=NAMES)).astype(float)
    if hasattr(model, "predict_proba"):
        return model.predict_proba(X)[:, 1]
    return model.predict(X).astype(float)


def threshold_rows(model: Any, X: np.ndarray) -> np.ndarray:
    """Rows on every split (up to 400) and one ulp to either side, in float32 and in float64."""
    splits = split_points(model)[:400]
    rows = np.repeat(X[: max(1, len(splits))], 5, axis=0)[: 5 * len(splits)]
    if len(rows) < 5 * len(splits):
        rows = np.resize(X, (5 * len(splits), X.shape[1]))
    for number, (column, threshold) in enumerate(splits):
        for which in range(5):
            rows[5 * number + which, column] = beside(threshold, which)
    return rows


@pytest.mark.parametrize("name", MODELS)
def test_scores_equal_the_native_ones_on_random_and_on_threshold_rows(
    name: str, fitted: dict[str, Any], tmp_path: Path
) -> None:
    X, _, _ = training_data()
    model = fitted[name]
    predictor = open_predictor(sealed(tmp_path / name, model, X))
    rows = np.vstack(
        [X, np.random.default_rng(1).normal(size=(200, 8)) * X.std(axis=0), threshold_rows(model, X)]
    )
    expected = native(model, rows)
    scale = 1.0 if predictor.kind == "classifier" else max(1e-12, float(np.sqrt(np.mean(expected**2))))
    assert np.max(np.abs(predictor.predict(rows) - expected)) <= 1e-6 * scale
    single = np.array([predictor.predict(row.reshape(1, -1))[0] for row in rows[:50]])
    assert np.max(np.abs(single - expected[:50])) <= 1e-6 * scale


@pytest.mark.parametrize("name", MODELS)
def test_the_engine_is_onnx_or_the_reason_is_kept(name: str, fitted: dict[str, Any]) -> None:
    compiled = compile_model(fitted[name], NAMES, training_data()[0])
    assert (compiled.engine == "native") == (name in NATIVE)
    assert bool(compiled.engine_reason) == (compiled.engine == "native")
    assert (compiled.onnx is None) == (compiled.engine == "native")


@pytest.mark.parametrize("name", ["rf", "xgb", "scaled_logreg"])
def test_a_model_without_training_rows_is_proven_on_rows_around_its_own_splits(
    name: str, fitted: dict[str, Any]
) -> None:
    compiled = compile_model(fitted[name], NAMES, None)
    assert compiled.engine == "onnx"
    assert np.ptp(compiled.golden.scores) > 0.05
    assert compiled.feature_min is None


def test_compiling_twice_gives_the_same_bytes(fitted: dict[str, Any]) -> None:
    X = training_data()[0]
    for name in ("rf", "xgb", "calibrated_rf", "scaled_logreg"):
        first, second = (compile_model(fitted[name], NAMES, X) for _ in range(2))
        assert first.onnx == second.onnx
        assert first.golden.to_bytes() == second.golden.to_bytes()


def test_half_of_the_golden_rows_of_a_tree_model_stand_on_splits(fitted: dict[str, Any]) -> None:
    golden = compile_model(fitted["rf"], NAMES, training_data()[0]).golden
    edges = {(column, beside(t, which)) for column, t in split_points(fitted["rf"]) for which in range(5)}
    on_edge = [any((column, value) in edges for column, value in enumerate(row)) for row in golden.rows]
    assert sum(on_edge) >= 128


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        (np.zeros((0, 8)), "NO_ROWS"),
        (np.zeros((1, 7)), "WRONG_WIDTH"),
        (np.full((1, 8), np.inf), "INFINITE_VALUE"),
        (np.full((1, 8), 1e300), "INFINITE_VALUE"),
    ],
)
def test_a_matrix_that_can_not_be_answered_is_refused(
    matrix: np.ndarray, reason: str, fitted: dict[str, Any], tmp_path: Path
) -> None:
    predictor = open_predictor(sealed(tmp_path / "rf", fitted["rf"], training_data()[0]))
    with pytest.raises(InputError) as caught:
        predictor.predict(matrix)
    assert caught.value.reason == reason


def test_models_that_can_not_give_one_score_are_refused_with_the_reason() -> None:
    X, y, _ = training_data()
    with pytest.raises(UnsupportedModelError, match="3 classes"):
        compile_model(LogisticRegression(max_iter=5000).fit(X / X.std(axis=0), np.arange(600) % 3), NAMES, X)
    with pytest.raises(UnsupportedModelError, match="1 classes"):
        compile_model(RandomForestClassifier(2).fit(X, np.zeros(600)), NAMES, X)
    with pytest.raises(UnsupportedModelError, match="8 columns"):
        compile_model(RandomForestClassifier(2).fit(X, y), NAMES[:7], X[:, :7])
    named = RandomForestClassifier(2).fit(pd.DataFrame(X, columns=NAMES), y)
    with pytest.raises(UnsupportedModelError, match="another order"):
        compile_model(named, NAMES[::-1], X)


def test_a_model_fitted_on_a_data_frame_and_on_classes_minus_one_and_one_serves(tmp_path: Path) -> None:
    X, y, _ = training_data()
    model = RandomForestClassifier(5, random_state=0).fit(pd.DataFrame(X, columns=NAMES), np.where(y, 1, -1))
    predictor = open_predictor(sealed(tmp_path / "m", model, X))
    expected = model.predict_proba(pd.DataFrame(X, columns=NAMES))[:, 1]
    assert np.max(np.abs(predictor.predict(X) - expected)) <= 1e-6


def test_early_stopping_uses_the_trees_that_the_native_model_uses(tmp_path: Path) -> None:
    X, y, _ = training_data()
    model = xgboost.XGBClassifier(n_estimators=200, early_stopping_rounds=3, learning_rate=0.5, n_jobs=1)
    model.fit(X[:400], y[:400], eval_set=[(X[400:], y[400:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    predictor = open_predictor(sealed(tmp_path / "m", model, X))
    assert predictor.engine == "onnx"
    assert np.max(np.abs(predictor.predict(X) - native(model, X))) <= 1e-6


@pytest.mark.parametrize("count", [1, 300])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_an_error_that_names_its_row(count: int, bad: float) -> None:
    scores = np.linspace(0.1, 0.9, count)
    scores[count // 2 :] = bad
    predictor = Predictor(
        lambda matrix: scores,
        ["a"],
        dtype=np.float64,
        digest="",
        engine="native",
        engine_reason="",
        kind="regressor",
        accepts_nan=False,
    )
    with pytest.raises(NonFiniteScoreError, match="no finite number") as caught:
        predictor.predict(np.zeros((count, 1)))
    assert caught.value.row == count // 2


def test_a_model_that_gives_nan_for_a_golden_row_is_not_opened(
    fitted: dict[str, Any], tmp_path: Path
) -> None:
    X, _, _ = training_data()
    folder = sealed(tmp_path / "run", fitted["logreg"], X)
    golden = GoldenRows.from_bytes((folder / "golden.npz").read_bytes())
    with pytest.raises(GoldenMismatchError, match=r"golden row 0 gets nan .* register it anew"):
        golden.check(_never_a_number, "classifier")
    scores = golden.scores.copy()
    scores[7] = np.nan
    with pytest.raises(IntegrityError, match="no finite numbers"):
        GoldenRows.from_bytes(GoldenRows(golden.rows, scores).to_bytes())


def _never_a_number(matrix: np.ndarray) -> np.ndarray:
    raise NonFiniteScoreError(0, float("nan"))
