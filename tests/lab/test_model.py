"""One model: its page, its importances, its proof, and the two paths that share a shape."""

from __future__ import annotations

import json
import math
from pathlib import Path
from urllib.parse import quote

import pytest

from signalserve.lab.importances import normalised
from signalserve.lab.pages.words import VERDICTS
from signalserve.registry import promote_model
from signalserve.training.evaluation import evaluate
from tests.lab.conftest import OpenLab, Workshop, lab_settings
from tests.registries import gate_of
from tests.small_models import register_copy

MODELS = "/api/ml/models"


def test_a_model_says_where_it_comes_from_how_it_was_measured_and_what_was_decided(
    workshop: Workshop, open_lab: OpenLab
) -> None:
    lab = open_lab(workshop.settings(promotion={"min_bars": 100, "min_trades": 1, "min_walk_forward": None}))
    found = lab.json(f"{MODELS}/{workshop.challenger}")
    assert found["row"]["metadata"] == "registered"
    champion = lab.json(f"/api/ml/models/{workshop.champion}")["row"]["let_in"]
    assert (champion["gate"], champion["text"]) == ("none", "let in by no gate, measured by nobody")
    for page in ("/", f"/models/{workshop.champion}"):
        assert champion["text"] in lab.get(page).text
    assert found["golden"]["reproduced"] is True
    provenance = found["provenance"]
    assert (provenance["data_file"], provenance["seeds"]["model"]) == ("SYNTH_15m.csv", 42)
    assert len(provenance["data_sha256"]) == 64
    assert provenance["train_end"].endswith("Z")
    assert provenance["libraries"]["scikit-learn"]
    assert [fold["number"] for fold in found["folds"]] == [1, 2]
    assert found["metrics"]["auc"] == found["metadata"]["metrics"]["auc"]
    assert len(found["features"]) == 40
    evaluation = found["evaluation"]
    assert (evaluation["champion"], evaluation["evidence"]["challenger"]["model_id"]) == (
        workshop.champion,
        workshop.challenger,
    )
    names = [rule["name"] for rule in evaluation["rules"]]
    assert {"fresh", "same_champion", "deflated_sharpe", "better"} <= set(names)
    assert evaluation["passed"] == all(rule["passed"] for rule in evaluation["rules"])
    assert found["judgement"]["against"] == workshop.champion
    assert [rule["name"] for rule in found["judgement"]["rules"]] == names
    assert {event["action"] for event in found["events"]} == {
        "register",
        "evaluate",
    }  # its backtest is the same look


def test_a_model_shows_how_its_positions_were_timed_what_its_folds_gave_and_what_looks_cost(
    workshop: Workshop, tmp_path: Path, open_lab: OpenLab
) -> None:
    copy = workshop.copied_to(tmp_path / "copy")
    settings = copy.settings(promotion={"min_bars": 100, "min_trades": 1})
    lab = open_lab(settings)
    found = lab.json(f"{MODELS}/{copy.challenger}")
    evidence = found["judgement"]["evidence"]
    assert [item["model_id"] for item in found["findings"]["timings"]] == [copy.challenger, copy.champion]
    own, measured = found["findings"]["timings"][0], evidence["challenger"]
    assert (own["probability"], own["mean"]) == (measured["timing"], measured["timing_mean"])
    assert (own["low"], own["high"]) == (measured["timing_low"], measured["timing_high"])
    walk, folds = found["findings"]["walk_forward"], evidence["folds"]
    assert (walk["trials"], walk["bars"], walk["timing"]) == (2, folds["bars"], folds["timing"])
    per_bar = folds["moments"]["sharpe"] / folds["sharpe"]
    assert walk["sharpe_se"] * per_bar == pytest.approx(1.0 / math.sqrt(folds["bars"]), rel=0.1)
    looks = found["judgement"]["looks"]
    assert looks["asked"] == pytest.approx(1.0 - (1.0 - looks["asked_of_one"]) / looks["count"])
    rules = {rule["name"]: rule["bound"] for rule in found["judgement"]["rules"]}
    assert (rules["timing"], rules["better"]) == (looks["asked"], looks["asked"])
    assert set(rules) <= set(VERDICTS)
    # one more look at the same bars asks for more, and the page says so
    evaluate(
        settings, copy.challenger, ohlcv=copy.folder / "SYNTH_15m.csv", base_dir=copy.folder / "ml_models"
    )
    after = lab.json(f"{MODELS}/{copy.challenger}")["judgement"]["looks"]
    assert (after["count"], after["asked"] > looks["asked"]) == (looks["count"] + 1, True)


def test_calibration_and_confusion_count_the_out_of_sample_bars(
    workshop: Workshop, open_lab: OpenLab
) -> None:
    lab = open_lab(workshop.settings())
    found = lab.json(f"{MODELS}/{workshop.challenger}")["calibration"]
    assert [part["name"] for part in found["parts"]] == ["test", "test_all", "folds", "folds_all"]
    rows = (
        (workshop.folder / "ml_models" / workshop.challenger / "oos_predictions.csv").read_text().splitlines()
    )
    scored = [line.split(",") for line in rows[1:]]
    test = [(float(p), int(known)) for _, fold, p, known, _ in scored if fold == "test" and p and known]
    every = [(float(p), float(came) > 0) for _, fold, p, _, came in scored if fold == "test" and p and came]
    assert found["parts"][1]["bars"] == len(every) > len(test)
    assert found["parts"][1]["base_rate"] == pytest.approx(sum(rose for _, rose in every) / len(every))
    part = found["parts"][0]
    assert part["bars"] == len(test) == sum(item["bars"] for item in part["bins"])
    assert part["brier"] == pytest.approx(sum((p - y) ** 2 for p, y in test) / len(test))
    for item in part["bins"]:
        inside = [(p, y) for p, y in test if item["low"] <= p < item["high"]]
        assert item["bars"] == len(inside)
        if inside:
            assert item["share"] == pytest.approx(sum(y for _, y in inside) / len(inside))
    entry, leave = part["confusions"]
    assert (entry["threshold"], leave["threshold"]) == (0.55, 0.45)
    assert entry["true_positives"] == sum(p >= 0.55 and y == 1 for p, y in test)
    assert entry["false_negatives"] == sum(p < 0.55 and y == 1 for p, y in test)
    assert leave["false_positives"] == sum(p >= 0.45 and y == 0 for p, y in test)


def test_a_model_without_predictions_and_with_broken_metadata_still_has_a_page(
    base: Path, tmp_path: Path, open_lab: OpenLab
) -> None:
    (base / "btc1" / "meta.json").write_text('{"model_id": ')
    found = open_lab(lab_settings(tmp_path)).json(f"{MODELS}/btc1")
    assert "JSON" in found["metadata_problem"]
    assert (found["metadata"], found["calibration"]["parts"]) == ({}, [])
    assert "missing" in found["calibration"]["problem"]
    assert (found["row"]["metadata"], found["judgement"]["state"]) == ("unknown", "absent")
    assert [event["action"] for event in found["events"]] == ["register"]


def test_importances_sum_to_one_and_the_largest_goes_first(
    workshop: Workshop, base: Path, tmp_path: Path, open_lab: OpenLab
) -> None:
    trained = open_lab(workshop.settings()).json(f"{MODELS}/{workshop.challenger}/importance")
    shares = [item["importance"] for item in trained["importances"]]
    assert (trained["source"], len(shares)) == ("feature_importances.csv", 40)
    assert math.isclose(sum(shares), 1.0, rel_tol=1e-12)
    assert shares == sorted(shares, reverse=True)

    meta = json.loads((base / "btc1" / "meta.json").read_text())
    meta["feature_importances"] = {"a": 1.0, "b": 3, "c": None}
    (base / "btc1" / "meta.json").write_text(json.dumps(meta))
    lab = open_lab(lab_settings(tmp_path))
    assert lab.json(f"{MODELS}/btc1/importance") == {
        "model_id": "btc1",
        "source": "meta.json",
        "problem": "",
        "importances": [{"feature": "b", "importance": 0.75}, {"feature": "a", "importance": 0.25}],
    }
    none = lab.json(f"{MODELS}/btc0/importance")
    assert (none["importances"], none["problem"]) == ([], "none were kept with this model")
    missing = lab.get(f"{MODELS}/nobody/importance")
    assert (missing.status_code, missing.json()["reason"]) == (404, "UNKNOWN_MODEL")


def test_odd_importances_are_normalised_too() -> None:
    shares = normalised([("a", 1e308), ("b", 1e308), ("c", math.nan), ("d", -5.0), ("e", math.inf)])
    assert [(item.feature, item.importance) for item in shares][:2] == [("a", 0.5), ("b", 0.5)]
    assert sum(item.importance for item in shares) == 1.0
    assert [item.importance for item in normalised([("a", 0.0)])] == [0.0]
    assert normalised([]) == ()


def test_a_keys_models_are_the_usable_ones_newest_first(
    base: Path, tmp_path: Path, templates: list[Path], open_lab: OpenLab
) -> None:
    for number in range(3, 6):
        register_copy(templates[0], base, f"btc{number}", created_at=f"2026-01-0{number}T00:00:00+00:00")
    promote_model("btc3", base_dir=base, gate=gate_of())  # archives btc0
    content = bytearray((base / "btc4" / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (base / "btc4" / "model.onnx").write_bytes(bytes(content))
    (base / "btc5" / "model.joblib").unlink()
    lab = open_lab(lab_settings(tmp_path))
    found = lab.json(f"{MODELS}/BTCUSDT/15m")
    assert [(row["model_id"], row["status"]) for row in found["models"]] == [
        ("btc3", "production"),
        ("btc1", "success"),
    ]
    assert (found["symbol"], found["timeframe"]) == ("BTCUSDT", "15m")
    unknown = lab.get(f"{MODELS}/BTCUSDT/1h")
    assert (unknown.status_code, unknown.json()["reason"]) == (404, "UNKNOWN_KEY")
    assert unknown.json()["metadata"] == {"symbol": "BTCUSDT", "timeframe": "1h"}


@pytest.mark.parametrize(
    "symbol", ["BTC_USDT", "BTC-PERP", "BTC USDT", "BTC+X", "Ä%2F&?#", "importance", "a;b=c"]
)
def test_symbols_of_any_spelling_are_found_percent_encoded(
    tmp_path: Path, templates: list[Path], open_lab: OpenLab, symbol: str
) -> None:
    model_id = f"{symbol}_15m_rf_1"
    register_copy(templates[0], tmp_path / "ml_models", model_id, symbol=symbol)
    lab = open_lab(lab_settings(tmp_path))
    found = lab.json(f"{MODELS}/{quote(symbol, safe='')}/15m")
    assert [row["model_id"] for row in found["models"]] == [model_id]
    assert lab.json(f"{MODELS}/{quote(model_id, safe='')}")["row"]["symbol"] == symbol
    assert lab.json(f"{MODELS}/{quote(model_id, safe='')}/importance")["model_id"] == model_id


@pytest.mark.parametrize("path", ["BTC%2FUSDT/15m", "BTC/USDT/15m", "a/b/importance", "..%2F..%2Fetc/15m"])
def test_a_symbol_with_a_slash_is_a_key_that_no_registry_has(
    base: Path, tmp_path: Path, open_lab: OpenLab, path: str
) -> None:
    answer = open_lab(lab_settings(tmp_path)).get(f"{MODELS}/{path}")
    assert (answer.status_code, answer.json()["reason"]) == (404, "UNKNOWN_KEY")


def test_a_proof_hashes_the_files_and_scores_the_golden_rows_now(
    base: Path, tmp_path: Path, open_lab: OpenLab
) -> None:
    lab = open_lab(lab_settings(tmp_path))
    assert lab.json(f"{MODELS}/btc0/proof")["holds"] is True
    (base / "btc0" / "golden.npz").write_bytes(b"other")
    found = lab.json(f"{MODELS}/btc0/proof")
    assert (found["holds"], "golden.npz" in found["text"]) == (False, True)
