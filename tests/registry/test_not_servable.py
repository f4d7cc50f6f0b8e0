"""What will never be served is registered, as research code wants it, and it is said why, everywhere."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression

from signalserve.predictors.manifest import read_manifest
from signalserve.predictors.trial import tried_in_fresh_process
from signalserve.registry import (
    ModelMetadata,
    Promotion,
    get_latest_model,
    list_models,
    open_registry,
    promote_model,
    register_model,
    validate_registry_entry,
    verify_log,
)
from signalserve.registry.errors import NotServableError
from signalserve.registry.folder_store import FolderStore
from tests.registries import gate_of, registry_at
from tests.small_models import NAMES, rows

X = rows()
Y = (X[:, 0] > 0).astype(int)
ROOT = Path(__file__).resolve().parents[2]


def register(base: Path, model: Any, model_id: str = "m") -> None:
    """Register a model as research code does."""
    (base / model_id).mkdir(parents=True)
    joblib.dump(model, base / model_id / "model.joblib")
    meta = ModelMetadata(model_id, "BTCUSDT", "15m", "rf", feature_cols=NAMES)
    meta.write(base / model_id / "meta.json")
    register_model(meta, base)


NEVER = {
    "three_classes": (lambda: RandomForestClassifier(3).fit(X, np.arange(len(X)) % 3), "knows 3 classes"),
    "hard_voting": (
        lambda: VotingClassifier([("one", LogisticRegression()), ("two", LogisticRegression())]).fit(X, Y),
        "has no predict_proba",
    ),
    "dict": (lambda: {"model": LogisticRegression().fit(X, Y)}, "dict has neither predict_proba nor predict"),
}


@pytest.mark.parametrize("name", NEVER)
def test_what_gives_no_one_score_says_so_in_the_event_in_listings_and_when_it_is_asked_for(
    name: str, tmp_path: Path
) -> None:
    make, why = NEVER[name]
    base = tmp_path / "registry"
    register(base, make())
    assert list_models(base)[0].status == "success"
    registry = open_registry(base)
    assert why in registry.events()[0].detail["not_sealed"]
    (found,) = registry.descriptions(registry.view(), list_models(base))
    assert why in found.not_servable
    assert why in found.engine_reason
    thorough = validate_registry_entry(base, list_models(base)[0])
    assert why in thorough.warnings[0]
    assert "adopt" not in str(thorough)
    # its files are whole, and who trains it may go on with it
    assert thorough
    assert get_latest_model(base, "BTCUSDT", "15m") is not None
    for attempt in (
        lambda: promote_model("m", base_dir=base, gate=gate_of(), force=True, reason="try"),
        lambda: registry.artefact("m").open(unpickle="verified"),
    ):
        with pytest.raises(NotServableError, match=why):
            attempt()
    # whoever opens the registry anew reads the same
    assert why in FolderStore(base).view().state.not_servable["m"]
    assert verify_log(base).ok


SCRIPT = """
import sys
import joblib
import numpy as np
from pathlib import Path
from sklearn.base import BaseEstimator, ClassifierMixin
from signalserve.registry import ModelMetadata, register_model

class Mine(ClassifierMixin, BaseEstimator):
    classes_ = np.array([0, 1])
    def predict_proba(self, X):
        return np.column_stack([1 - np.clip(X[:, 0], 0, 1), np.clip(X[:, 0], 0, 1)])

folder = Path(sys.argv[1]) / "m"
folder.mkdir(parents=True)
joblib.dump(Mine(), folder / "model.joblib")
meta = ModelMetadata("m", "BTCUSDT", "15m", "mine", feature_cols=["a", "b"])
meta.write(folder / "meta.json")
entry = register_model(meta, folder.parent, model=Mine(), reference=np.random.default_rng(0).random((50, 2)))
assert entry.status == "success"
"""


def test_a_class_of_a_script_registers_with_the_word_that_no_server_can_open_it(tmp_path: Path) -> None:
    base = tmp_path / "registry"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(base)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == ""
    assert "registry.not_servable" in done.stderr
    registry = open_registry(base)
    (event,) = registry.events()
    assert event.changes[0].digest
    assert "put it into a module that the server can import" in event.detail["not_servable"]
    (found,) = registry.descriptions(registry.view(), list_models(base), thorough=True)
    assert found.engine == "native"
    assert "Mine" in found.not_servable
    assert "it will not be served" in found.warnings[0]
    with pytest.raises(NotServableError, match=r"m can't be served: a fresh process can't open it: .*Mine"):
        promote_model("m", base_dir=base, gate=gate_of(), force=True, reason="it works on my machine")
    assert [event.action for event in open_registry(base).events()] == ["register"]
    assert list_models(base)[0].status == "success"


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A native model whose class is in a module of `research`, which this process alone can import."""
    places = tmp_path / "research"
    places.mkdir()
    (places / "of_research.py").write_text(
        textwrap.dedent("""
            from sklearn.ensemble import HistGradientBoostingClassifier
            class Tuned(HistGradientBoostingClassifier):
                pass
        """)
    )
    monkeypatch.syspath_prepend(str(places))
    monkeypatch.delitem(sys.modules, "of_research", raising=False)
    monkeypatch.setenv("PYTHONPATH", "")
    return importlib.import_module("of_research").Tuned(max_iter=3).fit(X, Y)


def test_what_did_not_open_at_its_registration_is_promoted_and_rolled_back_to_only_while_it_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuned: Any
) -> None:
    base = tmp_path / "registry"
    for model_id, model in {"old": LogisticRegression(), "new": LogisticRegression(C=0.1)}.items():
        register(base, model.fit(X, Y), model_id)
    register(base, tuned, "tuned")
    registry = registry_at(base)
    registry.promote([Promotion("old")])
    basket = [Promotion("tuned")]
    with pytest.raises(NotServableError, match="of_research"):
        registry.promote(basket, force=True, reason="try")
    assert registry.entry("old").status == "production"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "research"))
    registry.promote(basket)
    registry.promote([Promotion("new")])
    monkeypatch.setenv("PYTHONPATH", "")
    done = registry.rollback([("BTCUSDT", "15m")], reason="worse")
    assert [step.model_id for step in done.transitions] == ["old"]
    assert "of_research" in str(registry.events()[-1].detail)
    assert verify_log(base).ok


def test_what_opened_at_its_registration_is_not_opened_again_by_a_promote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "registry"
    register(base, HistGradientBoostingClassifier(max_iter=3).fit(X, Y))
    (tmp_path / "sklearn.py").write_text("raise ImportError('none here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert tried_in_fresh_process(base / "m", read_manifest(base / "m")[1])
    assert registry_at(base).promote([Promotion("m")]).transitions


def test_a_library_that_only_this_process_has_is_named_until_it_is_there_and_the_model_adopted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuned: Any
) -> None:
    for name, path in {"before": "", "after": str(tmp_path / "research")}.items():
        monkeypatch.setenv("PYTHONPATH", path)
        base = tmp_path / name
        register(base, tuned)
        found = open_registry(base).state.not_servable.get("m", "")
        assert ("of_research" in found) == (name == "before")


def test_a_native_model_that_opens_is_servable_whatever_it_prints(tmp_path: Path) -> None:
    register(tmp_path / "registry", HistGradientBoostingClassifier(max_iter=3).fit(X, Y))
    assert open_registry(tmp_path / "registry").state.not_servable == {}


class _Never:
    """A pickle that does not come to an end."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (time.sleep, (3600,))


class _Dies:
    """A pickle that ends the process that opens it."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (os._exit, (7,))


@pytest.mark.parametrize(("pickled", "why"), [(_Never(), "within 3 s"), (_Dies(), "ended with 7")])
def test_a_model_that_hangs_or_kills_what_opens_it_hurts_only_the_trial(
    pickled: Any, why: str, tmp_path: Path
) -> None:
    from tests.predictors.test_integrity import resealed

    base = tmp_path / "registry"
    register(base, HistGradientBoostingClassifier(max_iter=3).fit(X, Y))
    joblib.dump(pickled, base / "m" / "model.joblib")
    resealed(base / "m", "model.joblib")
    assert why in tried_in_fresh_process(base / "m", read_manifest(base / "m")[1], seconds=3)
