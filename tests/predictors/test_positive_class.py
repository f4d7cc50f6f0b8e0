"""The score is the probability of class 1, and which class that is stands in the manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from signalserve.predictors.declared import Declared
from signalserve.predictors.errors import DeclarationError, UnsupportedModelError
from signalserve.predictors.manifest import read_manifest
from signalserve.predictors.opening import open_predictor
from signalserve.predictors.seal import seal_run_dir
from tests.predictors.conftest import MODELS, NAMES, training_data

X, Y, VALUES = training_data()

# of one that converts, one whose ONNX form gives its columns by another operator, and one that serves natively
MAKERS: dict[str, Callable[[Any], Any]] = {
    "forest": lambda y: RandomForestClassifier(10, max_depth=5, random_state=0).fit(X, y),
    "scaled_logreg": lambda y: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y),
    "calibrated": lambda y: CalibratedClassifierCV(RandomForestClassifier(5, random_state=0), cv=3).fit(X, y),
    "hist_gb": lambda y: HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(X, y),
}


def sealed(folder: Path, model: Any, **declared: Any) -> Path:
    folder.mkdir(parents=True)
    joblib.dump(model, folder / "model.joblib")
    seal_run_dir(folder, model, NAMES, X, declared=Declared.of(declared))
    return folder


@pytest.mark.parametrize("positive", ["long", "short"])
@pytest.mark.parametrize("name", MAKERS)
def test_the_score_is_the_probability_of_the_declared_class(name: str, positive: str, tmp_path: Path) -> None:
    model = MAKERS[name](np.where(Y == 1, "long", "short"))
    folder = sealed(tmp_path / "m", model, positive_class=positive)
    predictor = open_predictor(folder, expected_digest=read_manifest(folder)[1])
    assert (predictor.engine == "native") == (name == "hist_gb")
    expected = model.predict_proba(X)[:, list(model.classes_).index(positive)]
    assert np.max(np.abs(predictor.predict(X) - expected)) <= 1e-6
    assert (np.corrcoef(predictor.predict(X), Y)[0, 1] > 0) == (positive == "long")
    manifest = read_manifest(folder)[0]
    assert (manifest.format, manifest.classes, manifest.positive_class) == (2, ["long", "short"], positive)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-1, 1), (False, True), (0.0, 1.0), (np.int8(-1), np.int8(1))]
)
def test_the_usual_classes_go_by_themselves(low: Any, high: Any, tmp_path: Path) -> None:
    model = MAKERS["forest"](np.where(Y == 1, high, low))
    predictor = open_predictor(sealed(tmp_path / "m", model))
    assert np.max(np.abs(predictor.predict(X) - model.predict_proba(X)[:, 1])) <= 1e-6


@pytest.mark.parametrize(
    ("classes", "declared"),
    [
        (np.where(Y == 1, 1, 2), 1),
        (np.where(Y == 1, 1, 2), 1.0),
        (np.where(Y == 1, 0, 1), 0),
        (np.where(Y == 1, False, True), False),
        (np.where(Y == 1, 2.0, 3.0), 2),
        (np.where(Y == 1, "auf", "zu").astype(object), "auf"),
    ],
)
def test_a_class_is_declared_as_json_has_it(classes: Any, declared: Any, tmp_path: Path) -> None:
    model = MAKERS["forest"](classes)
    predictor = open_predictor(sealed(tmp_path / "m", model, positive_class=declared))
    assert np.max(np.abs(predictor.predict(X) - model.predict_proba(X)[:, 0])) <= 1e-6


@pytest.mark.parametrize("declared", [0, 1])
def test_the_declared_class_of_an_xgboost_model_is_its_score(declared: int, tmp_path: Path) -> None:
    model = MODELS["xgb"](X, Y, VALUES)
    predictor = open_predictor(sealed(tmp_path / "m", model, positive_class=declared))
    assert predictor.engine == "onnx"
    assert np.max(np.abs(predictor.predict(X) - model.predict_proba(X)[:, declared])) <= 1e-6


@pytest.mark.parametrize(
    ("classes", "declared", "said"),
    [
        (np.where(Y == 1, "long", "short"), None, '"positive_class": "short" or "long" into meta.json'),
        (np.where(Y == 1, 2, 1), None, '"positive_class": 2 or 1 into meta.json'),
        (np.where(Y == 1, "1", "0"), None, '"positive_class"'),
        (np.where(Y == 1, "long", "short"), "up", "'long' and 'short': write one of them"),
        (np.where(Y == 1, 2, 1), True, "write one of them"),
        (np.where(Y == 1, 2, 1), "2", "write one of them"),
        (np.where(Y == 1, True, False), 1, "write one of them"),
        (Y, ["long"], "a class is a text"),
    ],
)
def test_what_is_not_declared_or_is_no_class_is_refused_with_what_to_write(
    classes: Any, declared: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(DeclarationError) as caught:
        sealed(tmp_path / "m", MAKERS["forest"](classes), positive_class=declared)
    assert said in str(caught.value)
    assert not (tmp_path / "m" / "manifest.json").exists()


def test_a_booster_gives_the_probability_of_label_1_and_says_so(tmp_path: Path) -> None:
    booster = MODELS["booster"](X, Y, VALUES)
    assert read_manifest(sealed(tmp_path / "one", booster, positive_class=1))[0].classes == [0, 1]
    with pytest.raises(DeclarationError, match="label 1"):
        sealed(tmp_path / "zero", booster, positive_class=0)


def test_three_classes_stay_too_many_whatever_is_declared(tmp_path: Path) -> None:
    model = MAKERS["forest"](np.arange(len(Y)) % 3)
    with pytest.raises(UnsupportedModelError, match="3 classes"):
        sealed(tmp_path / "m", model, positive_class=1)


@pytest.mark.parametrize("name", ["forest", "hist_gb"])
def test_a_model_that_was_sealed_before_classes_were_declared_is_served_as_it_was(
    name: str, tmp_path: Path
) -> None:
    model = MAKERS[name](np.where(Y == 1, "long", "short"))
    folder = sealed(tmp_path / "m", model, positive_class="short")  # the greater: what format 1 meant
    values = json.loads((folder / "manifest.json").read_text())
    del values["classes"], values["positive_class"], values["feature_set"]
    (folder / "manifest.json").write_text(json.dumps(values | {"format": 1, "accepts_nan": True}))
    predictor = open_predictor(folder, expected_digest=read_manifest(folder)[1])
    assert np.max(np.abs(predictor.predict(X) - model.predict_proba(X)[:, 1])) <= 1e-6
    assert predictor.accepts_nan  # and of missing values what its manifest says
