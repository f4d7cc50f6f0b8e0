"""docs/migrating.md says what moves research code here: its examples run, on a registry as such code leaves it."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.ensemble import RandomForestClassifier

import signalserve.registry
from signalserve.features.pipeline import FeaturePipeline
from signalserve.features.synthetic import synthetic_bars
from signalserve.registry import ModelMetadata

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "migrating.md").read_text(encoding="utf-8")
EXAMPLES = "\n".join(re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL))
ROWS = (("20260101", 0.9, "success"), ("20260201", 1.2, "production"), ("20260210", 1.3, "success"))


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page takes for granted: the registry that research code left, and the rows that it trains on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIGNALSERVE__PROMOTION__GATE")  # the gate as a user meets it
    bars = synthetic_bars("BTCUSDT", 600, seed=7)
    frame = FeaturePipeline("core").transform(bars).dropna()
    X = frame.to_numpy()
    y = (bars["close"].shift(-4) > bars["close"]).astype(int).reindex(frame.index).to_numpy()
    base = tmp_path / "outputs" / "ml_models"
    lines = ["model_id,symbol,timeframe,model_type,created_at,path,cum_return,sharpe,status"]
    for seed, (day, sharpe, status) in enumerate(ROWS):
        model_id = f"BTCUSDT_15m_rf_{day}_000000"
        (base / model_id).mkdir(parents=True)
        model = RandomForestClassifier(10, max_depth=3, random_state=seed).fit(X, y)
        joblib.dump(model, base / model_id / "model.joblib")
        moment = f"{day[:4]}-{day[4:6]}-{day[6:]}T00:00:00Z"
        meta = ModelMetadata(
            model_id, "BTCUSDT", "15m", "rf", created_at=moment, feature_cols=list(frame.columns)
        )
        meta.write(base / model_id / "meta.json")
        lines.append(f"{model_id},BTCUSDT,15m,rf,{moment},/gone/{model_id},0.1,{sharpe},{status}")
    (base / model_id / "model.joblib").unlink()
    (base / "registry_index.csv").write_text("\n".join(lines) + "\n")
    return {"BASE": base, "X": X, "y": y, "NAMES": list(frame.columns)}


def test_every_example_of_the_page_gives_what_it_says(names: dict[str, Any]) -> None:
    examples = doctest.DocTestParser().get_doctest(EXAMPLES, names, "migrating.md", "docs/migrating.md", 0)
    assert len(examples.examples) > 30
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False).run(examples, out=said.append)
    assert not said, "".join(said)


def test_every_function_of_the_research_code_is_spoken_of() -> None:
    spoken = {
        name
        for row in re.findall(r"^\| (`.+?) \|", TEXT, flags=re.MULTILINE)
        for name in re.findall(r"`(\w+)", row)
    }
    kept = {
        "register_model",
        "list_models",
        "load_registry",
        "get_latest_model",
        "get_latest_production_model",
        "promote_model",
        "validate_registry_entry",
        "load_model_by_id",
        "ModelRegistryEntry",
        "ModelMetadata",
    }
    assert spoken == kept
    assert all(hasattr(signalserve.registry, name) for name in kept)
