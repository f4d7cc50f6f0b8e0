"""The models of a soak: what is registered, and the score that each must give for each row.

The scores are those of the fitted models themselves, computed before any server runs.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import joblib
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from benchmarks.soak.hanging import Hanging, let_go
from signalserve.config import Settings
from signalserve.judging import PromoteGate
from signalserve.registry import ModelMetadata, Promotion, Registry, open_registry, register_model
from signalserve.registry.sealing import seal

TIMEFRAME = "15m"
FEATURES = 6
NAMES = [f"feature_{number}" for number in range(FEATURES)]
ROWS = 64
HUNG_KEYS = SPOILT_KEYS = 3
_TEMPLATES = 12
_VARIANTS = 3


def rows() -> np.ndarray:
    """The rows [64, 6] that are asked about."""
    return np.random.default_rng(1).normal(size=(ROWS, FEATURES))


@dataclass
class Field:
    """A registry with several models a key.

    `models`: the model_ids of each symbol, the one in production first. `hanging`: for the first symbols, a model that
    hangs in being loaded while there is a FIFO at `fifo`; `spoilt`: for the next ones, a model that nothing else loads,
    so that what its file has become is seen. `expected`: scores [64] of each model.
    """

    base: Path
    fifo: Path
    models: dict[str, list[str]] = field(default_factory=dict)
    hanging: dict[str, str] = field(default_factory=dict)
    spoilt: dict[str, str] = field(default_factory=dict)
    expected: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def symbols(self) -> list[str]:
        """All symbols."""
        return list(self.models)

    def mend(self) -> None:
        """Have nothing hang that a fault left so."""
        let_go(self.fifo)

    def registry(self) -> Registry:
        """The registry as a library has it; a promote needs no evidence."""
        ungated = PromoteGate.of(Settings(promotion={"gate": "none"}))  # type: ignore[arg-type]
        return open_registry(self.base, gate=ungated)


def planted(work: Path, keys: int) -> Field:
    """A new registry of so many keys below a folder, one model of each in production."""
    found = Field(work / "models", work / "hang")
    found.base.mkdir(parents=True)
    templates = [_template(work / f"template_{number}", _fitted(number)) for number in range(_TEMPLATES)]
    for number in range(keys):
        symbol = f"S{number}"
        found.models[symbol] = []
        for variant in range(_VARIANTS):
            # no two of a key's models are alike, nor those in production of neighbours
            folder, scores = templates[(number + variant * 5) % _TEMPLATES]
            model_id = _registered(folder, found.base, symbol, variant)
            found.models[symbol].append(model_id)
            found.expected[model_id] = scores
    slow = Hanging(str(found.fifo), score=0.625)
    folder, scores = _template(work / "template_hanging", slow)
    for symbol in found.symbols[:HUNG_KEYS]:
        model_id = _registered(folder, found.base, symbol, _VARIANTS)
        found.hanging[symbol] = model_id
        found.expected[model_id] = scores
    for symbol in found.symbols[HUNG_KEYS : HUNG_KEYS + SPOILT_KEYS]:
        folder, scores = templates[-1]
        model_id = _registered(folder, found.base, symbol, _VARIANTS)
        found.spoilt[symbol] = model_id
        found.expected[model_id] = scores
    found.registry().promote([Promotion(ids[0]) for ids in found.models.values()], reason="soak")
    return found


def _fitted(number: int) -> BaseEstimator:
    random = np.random.default_rng(100 + number)
    X = random.normal(size=(400, FEATURES))
    y = (X @ random.normal(size=FEATURES) + 0.5 * random.normal(size=len(X)) > 0).astype(int)
    if number % 3 == 1:
        return RandomForestClassifier(12, max_depth=4, random_state=number).fit(X, y)
    return LogisticRegression().fit(X, y)


def _template(folder: Path, model: BaseEstimator) -> tuple[Path, np.ndarray]:
    """A sealed run directory to copy, and the model's own scores of the rows."""
    X = np.random.default_rng(2).normal(size=(400, FEATURES))
    if isinstance(model, Hanging):
        model.fit(X, (X[:, 0] > 0).astype(int))
    folder.mkdir(parents=True)
    joblib.dump(model, folder / "model.joblib")
    meta = ModelMetadata(folder.name, "TEMPLATE", TIMEFRAME, "soak", feature_cols=NAMES)
    meta.write(folder / "meta.json")
    seal(folder, meta, model, X)
    return folder, model.predict_proba(rows())[:, 1]


def _registered(template: Path, base: Path, symbol: str, variant: int) -> str:
    model_id = f"{symbol}_{TIMEFRAME}_soak_{variant}"
    shutil.copytree(template, base / model_id)
    values = json.loads((template / "meta.json").read_text())
    meta = ModelMetadata.from_dict(values | {"model_id": model_id, "symbol": symbol})
    meta.write(base / model_id / "meta.json")
    register_model(meta, base, pins=())
    return model_id
