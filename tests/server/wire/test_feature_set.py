"""Equal names don't make equal features: a model says which definition computed its own, and takes no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from signalserve.client import FailedPrecondition, SignalClient
from signalserve.registry import (
    ModelMetadata,
    list_models,
    new_run,
    open_registry,
    promote_model,
    register_model,
    validate_registry_entry,
)
from signalserve.registry.sealing import seal
from signalserve.v1 import prediction_pb2, prediction_service_pb2_grpc, serving_status_pb2
from tests.registries import gate_of
from tests.server.wire.conftest import LONG_MS, NAMES, Server, ServerProcess, refusal, request, training_rows

GOOD = [0.1, 0.2, 0.3, 0.4]
INDEX = "model_id,symbol,timeframe,model_type,created_at,path,cum_return,sharpe,status"


def save(base: Path, symbol: str, model: Any, month: int = 1, **said: Any) -> str:
    """A model in production whose metadata says this and that."""
    X, _ = training_rows()
    with new_run(base, symbol, "15m", "logreg", clock=lambda: datetime(2026, month, 2, tzinfo=UTC)) as run:
        joblib.dump(model, run.path / "model.joblib")
        meta = ModelMetadata(
            run.model_id, symbol, "15m", "logreg", created_at=run.created_at, feature_cols=NAMES, **said
        )
        meta.write(run.path / "meta.json")
        run.commit()
    register_model(meta, base, model=model, reference=X)
    promote_model(run.model_id, base_dir=base, gate=gate_of())
    return run.model_id


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """BTC of core@3; ETH whose metadata does not say; VALUE, a regressor."""
    X, y = training_rows()
    base = tmp_path / "models"
    classifier = LogisticRegression().fit(X, y)
    save(base, "BTC", classifier, feature_preset="core", pipeline_version="3")
    save(base, "ETH", classifier, feature_preset="core")
    save(base, "VALUE", LinearRegression().fit(X, X[:, 0]), feature_preset="wide", pipeline_version="1")
    return base


def ask(symbol: str, feature_set: str = "") -> prediction_pb2.PredictRequest:
    return request(GOOD, symbol=symbol, feature_set=feature_set)


def test_an_answer_says_its_feature_set_and_what_its_scores_are(
    serve: Callable[..., Server], base: Path
) -> None:
    predict = serve(base).prediction.Predict
    said = [(answer.feature_set, answer.output) for answer in map(predict, map(ask, ("BTC", "ETH", "VALUE")))]
    probability, value = (
        prediction_pb2.PREDICTION_OUTPUT_PROBABILITY,
        prediction_pb2.PREDICTION_OUTPUT_VALUE,
    )
    assert said == [("core@3", probability), ("", probability), ("wide@1", value)]


def test_another_feature_set_than_the_model_s_is_refused_with_both(
    serve: Callable[..., Server], base: Path
) -> None:
    server = serve(base)
    error = refusal(server.prediction.Predict, ask("BTC", "core@2"))
    assert (type(error), error.reason) == (FailedPrecondition, "FEATURE_SET_MISMATCH")
    assert error.metadata == {"feature_set": "core@2", "model_feature_set": "core@3"}
    batch = prediction_pb2.PredictBatchRequest(requests=[ask("BTC", "core@3"), ask("BTC", "core@2")])
    right, wrong = server.prediction.PredictBatch(batch).results
    assert len(right.response.scores) == 1
    assert wrong.error.code == 9
    # who does not say, and a model that does not say, are taken at their word
    for question in (ask("BTC"), ask("ETH", "core@2")):
        assert len(server.prediction.Predict(question).scores) == 1


def test_the_refusal_comes_before_anything_is_computed(serve: Callable[..., Server], base: Path) -> None:
    nothing = request([], symbol="BTC", feature_set="core@2")
    assert refusal(serve(base).prediction.Predict, nothing).reason == "FEATURE_SET_MISMATCH"


def test_the_status_says_each_model_s_feature_set_also_after_a_promote(
    serve: Callable[..., Server], base: Path
) -> None:
    server = serve(base)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(server.channel)

    def sets() -> dict[str, str]:
        status = stub.GetServingStatus(serving_status_pb2.GetServingStatusRequest()).status
        return {model.symbol: model.feature_set for model in status.models}

    assert sets() == {"BTC": "core@3", "ETH": "", "VALUE": "wide@1"}
    X, y = training_rows()
    newer = LogisticRegression(C=0.1).fit(X, y)
    model_id = save(base, "BTC", newer, month=2, feature_preset="core", pipeline_version="4")
    server.until(lambda status: status.models[0].model_id == model_id)
    assert sets()["BTC"] == "core@4"


def edit(folder: Path, **said: str) -> None:
    """Edit a meta.json by hand."""
    path = folder / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | said))


@pytest.mark.parametrize("edits", [{"note": "nice"}, {"pipeline_version": "99"}])
def test_an_edited_meta_json_changes_no_model_s_feature_set(
    serve: Callable[..., Server], base: Path, edits: dict[str, str]
) -> None:
    (folder,) = base.glob("BTC_*")
    edit(folder, **edits)
    server = serve(base)
    error = refusal(server.prediction.Predict, ask("BTC", "core@99"))
    assert (error.reason, error.metadata["model_feature_set"]) == ("FEATURE_SET_MISMATCH", "core@3")
    assert server.prediction.Predict(ask("BTC", "core@3")).feature_set == "core@3"
    assert {model.symbol: model.feature_set for model in server.client.status().models}["BTC"] == "core@3"
    details = server.client.get_model(folder.name)
    assert (details.feature_set, details.metadata | edits) == ("core@3", details.metadata)


def test_nor_where_it_was_deleted(serve: Callable[..., Server], base: Path) -> None:
    (folder,) = base.glob("BTC_*")
    (folder / "meta.json").unlink()
    server = serve(base)
    assert refusal(server.prediction.Predict, ask("BTC", "core@99")).reason == "FEATURE_SET_MISMATCH"
    assert server.client.get_model(folder.name).feature_set == "core@3"


def test_an_adopted_model_keeps_the_feature_set_that_its_owner_gave_it(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    X, y = training_rows()
    base = tmp_path / "found"
    folder = base / "old"
    folder.mkdir(parents=True)
    joblib.dump(LogisticRegression().fit(X, y), folder / "model.joblib")
    said = {"feature_preset": "core", "pipeline_version": "3"}
    ModelMetadata("old", "BTC", "15m", "logreg", feature_cols=NAMES, **said).write(folder / "meta.json")
    (base / "registry_index.csv").write_text(f"{INDEX}\nold,BTC,15m,logreg,,old,,,success\n")
    open_registry(base).adopt("old")
    promote_model("old", base_dir=base, gate=gate_of())
    edit(folder, note="nice")
    assert refusal(serve(base).prediction.Predict, ask("BTC", "core@99")).reason == "FEATURE_SET_MISMATCH"


def test_a_model_of_an_older_manifest_is_known_by_an_unchanged_meta_json_and_its_loss_is_said(
    serve: Callable[..., Server], serve_process: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    X, y = training_rows()
    base, model = tmp_path / "old", LogisticRegression().fit(X, y)
    folder = base / "m"
    folder.mkdir(parents=True)
    joblib.dump(model, folder / "model.joblib")
    meta = ModelMetadata("m", "BTC", "15m", "logreg", feature_cols=NAMES)
    meta = replace(meta, feature_preset="core", pipeline_version="3")
    seal(folder, meta, model, X)
    values = json.loads((folder / "manifest.json").read_text()) | {"format": 1}
    for name in ("classes", "positive_class", "feature_set"):
        del values[name]
    (folder / "manifest.json").write_text(json.dumps(values))
    register_model(meta, base)
    promote_model("m", base_dir=base, gate=gate_of())
    before = serve(base)
    error = refusal(before.prediction.Predict, ask("BTC", "core@99"))
    assert (error.reason, error.metadata["model_feature_set"]) == ("FEATURE_SET_MISMATCH", "core@3")
    assert before.client.get_model("m").feature_set == "core@3"
    edit(folder, note="nice")
    why = "meta.json was changed since registration, so nobody knows its feature set"
    (warning,) = validate_registry_entry(base, list_models(base)[0]).warnings
    assert warning.startswith(why)
    process = serve_process(base)
    with SignalClient(process.target, deadline_ms=LONG_MS) as client:
        answer = client.predict("BTC", "15m", [GOOD], feature_names=NAMES, feature_set="core@99")
        assert (answer.feature_set, client.get_model("m").feature_set) == ("", "")
    lines = [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
    (said,) = [line for line in lines if line["event"] == "model.feature_set_unknown"]
    assert (said["level"], said["model_id"]) == ("warning", "m")
    assert said["why"].startswith(why)


def test_a_model_that_a_request_names_has_its_feature_set_too(
    serve: Callable[..., Server], base: Path
) -> None:
    X, y = training_rows()
    save(
        base, "BTC", LogisticRegression(C=0.1).fit(X, y), month=2, feature_preset="core", pipeline_version="4"
    )
    older = min(folder.name for folder in base.glob("BTC_*"))
    server = serve(base)
    named = request(GOOD, symbol="BTC", model_id=older, feature_set="core@4")
    error = refusal(server.prediction.Predict, named)
    assert (error.reason, error.metadata["model_feature_set"]) == ("FEATURE_SET_MISMATCH", "core@3")
