"""Two to four models side by side: what the gate says, their equity on the same bars, and in what they differ.

The first is the challenger, the others are what it is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from signalserve.judging import Policy
from signalserve.lab.backtests import Backtests
from signalserve.lab.catalogue import Catalogue, Row
from signalserve.lab.files import Kept
from signalserve.lab.overlay import (
    Common,
    Distribution,
    Overlay,
    common_bars,
    distribution_of,
    no_overlay,
    overlay_of,
)
from signalserve.lab.plain import mapping, number, plain, text_of
from signalserve.lab.timing import TimingDistribution, timing_distribution
from signalserve.lab.verdicts import ABSENT, CURRENT, IN_PRODUCTION, STALE, Judgement, judgement
from signalserve.registry import ModelMetadata, Registry
from signalserve.registry.errors import RegistryError
from signalserve.registry.plans import entry_of

FEWEST, MOST = 2, 4
OTHER = "other_champion"
_NOT_COMPARED = frozenset(
    {"model_id", "created_at", "model_path", "metrics_path", "meta_path", "metrics", "feature_importances",
     "feature_cols", "evidence", "walk_forward", "warnings", "request_id", "engine", "engine_reason"}
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """The challenger against one of the others.

    `state`: `current` or `stale` where the challenger's evidence was measured against this one; `other_champion` where
    it was measured against another or none; `absent` where no evaluation of it counts now. `probability_better` is the
    evidence's, None unless it is about this pair. `text` says it in words, and what to do.
    """

    challenger: str
    other: str
    state: str
    text: str
    probability_better: float | None


@dataclass(frozen=True)
class Difference:
    """A setting in which the models differ; one value a model, None where a model has none."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Features:
    """Columns: how many all have, and for each model those that not all have."""

    common: int
    own: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Comparison:
    """The models in the order asked. `judgement`: what the gate says of the challenger, against its key's champion.

    `distributions` has one for each of the others, `timings` one for each model whose backtest has all its closes.
    """

    rows: tuple[Row, ...]
    judgement: Judgement
    pairs: tuple[Pair, ...]
    metrics: tuple[Mapping[str, float | None], ...]
    overlay: Overlay
    distributions: tuple[Distribution, ...]
    timings: tuple[TimingDistribution, ...]
    differences: tuple[Difference, ...]
    features: Features
    warnings: tuple[str, ...]


class Comparisons:
    """Comparisons within one registry; `policy` has the bootstrap's settings."""

    def __init__(
        self, registry: Registry, catalogue: Catalogue, backtests: Backtests, policy: Policy
    ) -> None:
        self._registry = registry
        self._catalogue = catalogue
        self._backtests = backtests
        self._policy = policy
        self._distributions: Kept[Distribution] = Kept(64)
        self._timings: Kept[TimingDistribution] = Kept(64)

    def of(
        self, model_ids: Sequence[str], served: frozenset[str] | None = None, *, max_points: int = 2_000
    ) -> Comparison:
        """Compare two to four different models.

        Raises:
            ValueError: they are not two to four different ones.
            UnknownModelError, StorageError: one is not there, or the registry can't be read.
        """
        if not FEWEST <= len(model_ids) <= MOST or len(set(model_ids)) != len(model_ids):
            raise ValueError(f"name {FEWEST} to {MOST} different models, the challenger first")
        view = self._registry.view()
        entries = [entry_of(view.state, model_id) for model_id in model_ids]
        rows = self._catalogue.rows(view, entries, served)
        metas = [self._meta(model_id) for model_id in model_ids]
        judged = judgement(self._registry, view.state, model_ids[0])
        overlay, distributions, timings = self._measured(model_ids, max_points)
        unread = [row.model_id for row, meta in zip(rows, metas, strict=True) if meta is None]
        warnings = [f"{model_id}: its metadata can't be read" for model_id in unread]
        if len({entry.key for entry in entries}) > 1:
            warnings.append("they are of different keys: equity and returns are not of the same market")
        if overlay.in_sample:
            warnings.append(
                "a backtest touches the bars that its model was trained on: its curve proves nothing"
            )
        if not overlay.problem and len(timings) < len(model_ids):
            told = {item.model_id for item in timings}
            without = ", ".join(model_id for model_id in model_ids if model_id not in told)
            warnings.append(f"bars without a close in the backtest of {without}: its timing can't be told")
        return Comparison(
            rows=tuple(rows),
            judgement=judged,
            pairs=tuple(_pair(judged, other) for other in model_ids[1:]),
            metrics=tuple(_metrics(meta) for meta in metas),
            overlay=overlay,
            distributions=distributions,
            timings=timings,
            differences=differences([_settings(meta) for meta in metas]),
            features=_features(metas),
            warnings=tuple(warnings),
        )

    def _meta(self, model_id: str) -> ModelMetadata | None:
        try:
            return self._registry.artefact(model_id).meta()
        except RegistryError:
            return None

    def _measured(
        self, model_ids: Sequence[str], max_points: int
    ) -> tuple[Overlay, tuple[Distribution, ...], tuple[TimingDistribution, ...]]:
        common = common_bars(self._backtests, model_ids)
        if isinstance(common, str):
            return no_overlay(common), (), ()
        policy = self._policy
        origin = tuple(self._backtests.signature(item) for item in common.backtests)
        found = []
        for place, other in enumerate(model_ids[1:], 1):
            difference = common.returns[0] - common.returns[place]
            found.append(
                self._distributions.get(
                    (origin, place, policy.resamples, policy.block_bars, policy.seed),
                    lambda other=other, difference=difference: distribution_of(  # type: ignore[misc]
                        model_ids[0],
                        other,
                        difference,
                        resamples=policy.resamples,
                        block_bars=policy.block_bars,
                        seed=policy.seed,
                    ),
                )
            )
        return overlay_of(common, max_points), tuple(found), self._timings_of(model_ids, common, origin)

    def _timings_of(
        self, model_ids: Sequence[str], common: Common, origin: tuple[object, ...]
    ) -> tuple[TimingDistribution, ...]:
        return tuple(
            self._timings.get((origin, place), partial(timing_distribution, model_id, position, close))
            for place, (model_id, position, close) in enumerate(
                zip(model_ids, common.position, common.close, strict=True)
            )
            if np.isfinite(close).all() and (close > 0.0).all()
        )


def differences(settings: Sequence[Mapping[str, Any]]) -> tuple[Difference, ...]:
    """The settings that are not the same for all, by name."""
    names = sorted({name for values in settings for name in values})
    found = (Difference(name, tuple(values.get(name) for values in settings)) for name in names)
    return tuple(item for item in found if any(value != item.values[0] for value in item.values))


def _pair(judged: Judgement, other: str) -> Pair:
    if judged.evidence is None:
        hint = f"run `signalserve evaluate {judged.model_id}`"
        return Pair(judged.model_id, other, ABSENT, f"{judged.model_id} has no evidence; {hint}", None)
    champion = text_of(mapping(judged.evidence.get("champion")).get("model_id"))
    if champion != other:
        text = f"its evidence was measured against {champion or 'no champion'}, not against {other}"
        return Pair(judged.model_id, other, OTHER, text, None)
    better = number(judged.evidence.get("probability_better"))
    if judged.state == IN_PRODUCTION:
        text = "it is in production; the evidence is that of before"
        return Pair(judged.model_id, other, STALE, text, better)
    state = CURRENT if judged.state == CURRENT else STALE
    return Pair(judged.model_id, other, state, judged.text, better)


def _settings(meta: ModelMetadata | None) -> dict[str, Any]:
    """What a model was made by, one level deep a name: `label_config.horizon_bars`."""
    if meta is None:
        return {}
    values = {name: value for name, value in meta.to_dict().items() if name not in _NOT_COMPARED}
    values.pop("config_snapshot", None)  # what of it counts stands in the others
    return dict(_flat(plain(values)))


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{before}{name}.")
        else:
            found.append((f"{before}{name}", value))
    return found


def _metrics(meta: ModelMetadata | None) -> Mapping[str, float | None]:
    stated = mapping(meta.metrics if meta is not None else None)
    return {text_of(name): number(value) for name, value in stated.items()}


def _features(metas: Sequence[ModelMetadata | None]) -> Features:
    columns = [tuple(map(text_of, meta.feature_cols or ())) if meta is not None else () for meta in metas]
    common = set(columns[0]).intersection(*columns[1:])
    return Features(len(common), tuple(tuple(name for name in own if name not in common) for own in columns))
