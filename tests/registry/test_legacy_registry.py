"""A registry that research code wrote is listed, adopted, promoted, and read back by pandas."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import joblib
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalserve.registry import (
    ModelMetadata,
    ModelRegistryEntry,
    get_latest_model,
    get_latest_production_model,
    list_models,
    load_model_by_id,
    load_registry,
    promote_model,
    register_model,
    validate_registry_entry,
    verify_log,
)
from signalserve.registry.entry import COLUMNS
from signalserve.registry.errors import ArtefactError, NotAdoptedError
from signalserve.registry.index import parse_index, render_index
from tests.registries import gate_of, registry_at
from tests.small_models import NAMES, fitted, rows, sealed_template, write_run

OLD_HEADER = "model_id,symbol,timeframe,model_type,created_at,path,cum_return,sharpe"


@pytest.fixture
def legacy(tmp_path: Path) -> Path:
    """No status column, no manifest, stale absolute and relative paths, rows edited by hand."""
    base = tmp_path / "ml_models"
    for number, name in enumerate(("BTC_USDT_15m_RF_1", "BTC_USDT_15m_RF_2", "BTC-PERP_1h_rf_3")):
        symbol, timeframe = ("BTC-PERP", "1h") if "PERP" in name else ("BTC_USDT", "15m")
        write_run(base / name, symbol, timeframe, "RF", column=number)
    (base / "registry_index.csv").write_text(
        "\ufeff" + OLD_HEADER + "\r\n"
        "BTC_USDT_15m_RF_1,BTC_USDT,15m,RF,2026-01-01T00:00:00,/gone/ml_models/BTC_USDT_15m_RF_1,0.10,1.5\r\n"
        "BTC_USDT_15m_RF_2,BTC_USDT,15m,RF,2026-01-02 00:00:00,outputs/ml_models/BTC_USDT_15m_RF_2,nan,\r\n"
        'broken,"never closed,15m,RF,2026-01-01,x,0,0\r\n'
        "BTC-PERP_1h_rf_3,BTC-PERP,1h,RF,2026-01-03,BTC-PERP_1h_rf_3,-0.2,-1,production\r\n"
        "BTC_USDT_15m_RF_1,BTC_USDT,15m,RF,2026-01-01,twice,0,0\r\n"
        "too,few\r\n",
        encoding="utf-8",
    )
    return base


def test_a_legacy_registry_is_listed_adopted_promoted_and_read_back_by_pandas(legacy: Path) -> None:
    entries = {entry.model_id: entry for entry in load_registry(legacy)}
    assert {entry.model_id: entry.status for entry in entries.values()} == {
        "BTC_USDT_15m_RF_1": "success",
        "BTC_USDT_15m_RF_2": "success",
        "BTC-PERP_1h_rf_3": "production",
    }
    assert all(validate_registry_entry(legacy, entry) for entry in entries.values())
    assert math.isnan(entries["BTC_USDT_15m_RF_2"].cum_return)
    with pytest.raises(NotAdoptedError, match="registry adopt"):
        promote_model("BTC_USDT_15m_RF_2", base_dir=legacy, gate=gate_of())
    digest = registry_at(legacy).adopt("BTC_USDT_15m_RF_2")
    assert registry_at(legacy).adopt("BTC_USDT_15m_RF_2") == digest
    assert promote_model("BTC_USDT_15m_RF_2", base_dir=legacy, gate=gate_of()).status == "production"
    text = (legacy / "registry_index.csv").read_text()
    kept = ('broken,"never closed', "too,few", "twice")
    assert all(piece in text for piece in kept)
    clean = "\n".join(line for line in text.splitlines() if not any(piece in line for piece in kept))
    (legacy / "clean.csv").write_text(clean)
    frame = pd.read_csv(legacy / "clean.csv")
    assert list(frame.columns) == list(COLUMNS)
    assert frame.set_index("model_id")["status"].to_dict() == {
        "BTC_USDT_15m_RF_1": "success",
        "BTC_USDT_15m_RF_2": "production",
        "BTC-PERP_1h_rf_3": "production",
    }
    assert verify_log(legacy).ok


def test_a_hand_made_production_row_counts_and_older_models_are_found(legacy: Path) -> None:
    found = get_latest_production_model(legacy, "BTC-PERP", "1h")
    assert found is not None
    assert found.model_id == "BTC-PERP_1h_rf_3"
    latest = get_latest_model(legacy, "BTC_USDT", "15m", model_type="rf")
    assert latest is not None
    assert latest.model_id == "BTC_USDT_15m_RF_2"
    (legacy / "BTC_USDT_15m_RF_2" / "model.joblib").unlink()
    before = (legacy / "registry_index.csv").read_bytes()
    older = get_latest_model(legacy, "BTC_USDT", "15m")
    assert older is not None
    assert older.model_id == "BTC_USDT_15m_RF_1"
    assert (legacy / "registry_index.csv").read_bytes() == before
    assert not (legacy / "registry_events.jsonl").exists()


def test_a_moved_registry_finds_its_folders_beside_the_index(legacy: Path, tmp_path: Path) -> None:
    moved = legacy.rename(tmp_path / "moved")
    loaded = load_model_by_id(moved, "BTC_USDT_15m_RF_1")
    assert loaded.meta.feature_cols == NAMES
    assert loaded.model.predict_proba(rows(3)).shape == (3, 2)


def test_research_code_registers_as_it_always_did_and_its_model_can_be_promoted(tmp_path: Path) -> None:
    base = tmp_path / "registry"
    for number in range(4):
        meta = write_run(base / f"BTCUSDT_15m_logreg_{number}", "BTCUSDT", column=number)
        register_model(meta, base, "success", max_models=3)
    assert [entry.model_id[-1] for entry in list_models(base, "BTCUSDT", "15m", "LOGREG")] == ["3", "2", "1"]
    entry = promote_model("BTCUSDT_15m_logreg_3", base_dir=base, gate=gate_of())
    assert entry.status == "production"
    assert (entry.cum_return, entry.sharpe) == (0.1, 1.5)
    assert (base / "BTCUSDT_15m_logreg_3" / "manifest.json").is_file()
    assert json.loads((base / "BTCUSDT_15m_logreg_3" / "meta.json").read_text())["engine"] == "onnx"
    failed = ModelMetadata("BTCUSDT_15m_logreg_9", "BTCUSDT", "15m", "logreg")
    register_model(failed, base, status="failed", error="no bars")
    assert list_models(base, status="failed")[0].model_id == "BTCUSDT_15m_logreg_9"


def test_unknown_keys_of_meta_json_survive_a_rewrite(tmp_path: Path) -> None:
    folder = tmp_path / "registry" / "m"
    write_run(folder, "BTCUSDT")
    values = json.loads((folder / "meta.json").read_text()) | {
        "team": {"desk": "Ü-Team"},
        "note": 'a "quoted", line\n',
    }
    (folder / "meta.json").write_text(json.dumps(values))
    register_model(ModelMetadata.read(folder / "meta.json"), tmp_path / "registry")
    after = json.loads((folder / "meta.json").read_text())
    assert after["team"] == {"desk": "Ü-Team"}
    assert after["note"] == values["note"]


def test_a_swapped_folder_is_refused_by_the_log_even_with_a_manifest_of_its_own(tmp_path: Path) -> None:
    base = tmp_path / "registry"
    meta = write_run(base / "model", "BTCUSDT")
    register_model(meta, base)
    shutil.rmtree(base / "model")
    other = sealed_template(tmp_path / "other", column=3)
    shutil.copytree(other, base / "model")
    meta.write(base / "model" / "meta.json")
    with pytest.raises(ArtefactError, match="not the one that was registered"):
        promote_model("model", base_dir=base, gate=gate_of())
    with pytest.raises(ArtefactError):
        load_model_by_id(base, "model")
    joblib.dump(fitted(0), base / "model" / "model.joblib")
    assert not validate_registry_entry(base, list_models(base)[0])


_text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30)
_name = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Z"), exclude_characters="/\\."), min_size=1, max_size=20
)
_number = st.one_of(st.just(math.nan), st.floats(allow_nan=False, allow_infinity=True))


@given(
    st.lists(
        st.builds(
            ModelRegistryEntry,
            model_id=_name,
            symbol=_text.filter(bool),
            timeframe=_text.filter(bool),
            model_type=_text,
            created_at=_text,
            path=_text,
            cum_return=_number,
            sharpe=_number,
            status=st.sampled_from(["failed", "success", "candidate", "production", "archived"]),
        ),
        unique_by=lambda entry: entry.model_id,
        max_size=5,
    )
)
def test_nan_commas_quotes_line_breaks_and_other_scripts_survive_the_index(
    entries: list[ModelRegistryEntry],
) -> None:
    index = parse_index(render_index(entries))
    assert not index.unreadable
    assert [entry.to_row() for entry in index.entries.values()] == [entry.to_row() for entry in entries]


@given(st.binary(max_size=400))
def test_any_bytes_are_an_index_whose_rows_are_read_or_reported(content: bytes) -> None:
    good = ModelRegistryEntry("good", "BTCUSDT", "15m", "rf", "2026-01-01", "p", 0.5, 1.0, "success")
    row = render_index([good]).splitlines(keepends=True)[1]
    index = parse_index(b",".join(name.encode() for name in COLUMNS) + b"\n" + row + content)
    assert index.entries["good"].to_row() == good.to_row()
    again = parse_index(render_index(index.entries.values(), index.raw_rows))
    assert [e.to_row() for e in again.entries.values()] == [e.to_row() for e in index.entries.values()]
