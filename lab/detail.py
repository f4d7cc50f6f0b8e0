"""One model: what it is, where it comes from, how it was measured, what was decided about it.

Each part stands for itself: a run directory without a readable meta.json still has its row, its events and its
evaluation, and says what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from signalserve.lab.audit import Audit, EventRow
from signalserve.lab.calibration import Calibration, calibration_of
from signalserve.lab.catalogue import Catalogue, Row
from signalserve.lab.findings import Findings, findings_of
from signalserve.lab.importances import Importances, importances_of
from signalserve.lab.plain import mapping, moment, number, plain, text_of
from signalserve.lab.trail import Trail
from signalserve.lab.verdicts import Evaluation, Judgement, judgement, last_evaluation
from signalserve.registry import Artefact, ModelMetadata, Registry
from signalserve.registry.errors import RegistryError
from signalserve.registry.plans import entry_of


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from; empty where it is not known. `modified`: the code differed from its commit."""

    data_file: str
    data_sha256: str
    data_bars: int | None
    train_start: datetime | None
    train_end: datetime | None
    test_start: datetime | None
    test_end: datetime | None
    code_version: str
    commit: str
    modified: bool | None
    python_version: str
    pipeline_version: str
    libraries: Mapping[str, str]
    seeds: Mapping[str, Any]
    folder: str


@dataclass(frozen=True)
class Golden:
    """The golden rows: whether the engine reproduced them when the digest was taken; None where none were asked."""

    reproduced: bool | None
    text: str


@dataclass(frozen=True)
class Fold:
    """One fold of the walk-forward; `skipped` says why it gave no answer."""

    number: int | None
    train_start: datetime | None
    train_end: datetime | None
    test_start: datetime | None
    test_end: datetime | None
    train_rows: int | None
    test_bars: int | None
    auc: float | None
    skipped: str


@dataclass(frozen=True)
class ModelDetail:
    """All that the lab knows of a model but its backtests.

    `metadata`: meta.json whole, empty where `metadata_problem` says why. `metrics` are those of its test span,
    `walk_forward` those of its folds joined. `judgement` is what the gate says now, `evaluation` what it said last;
    `findings` is what was measured, by the evidence that counts now, else by the last evaluation.
    """

    row: Row
    golden: Golden
    provenance: Provenance
    importances: Importances
    metrics: Mapping[str, float | None]
    walk_forward: Mapping[str, float | None]
    folds: tuple[Fold, ...]
    parameters: Mapping[str, Any]
    features: tuple[str, ...]
    warnings: tuple[str, ...]
    calibration: Calibration
    judgement: Judgement
    evaluation: Evaluation | None
    findings: Findings | None
    rollback_target: str
    events: tuple[EventRow, ...]
    metadata: Mapping[str, Any]
    metadata_problem: str


@dataclass(frozen=True)
class Proof:
    """What a look at the files now says: their digests, and for a compiled model its golden rows."""

    model_id: str
    holds: bool
    engine: str
    text: str


class Models:
    """Single models of one registry.

    Args:
        registry, trail, catalogue, audit: what is shown of it.
        thresholds: the probabilities at which a long is entered and left, for the confusion matrices.
    """

    def __init__(
        self,
        registry: Registry,
        trail: Trail,
        catalogue: Catalogue,
        audit: Audit,
        thresholds: tuple[float, float],
    ) -> None:
        self._registry = registry
        self._trail = trail
        self._catalogue = catalogue
        self._audit = audit
        self._thresholds = (("entry", thresholds[0]), ("exit", thresholds[1]))

    def detail(self, model_id: str, served: frozenset[str] | None = None) -> ModelDetail:
        """One model. `served`: as `ServerState.served`.

        Raises:
            UnknownModelError, StorageError: there is none, or the registry can't be read.
        """
        view = self._registry.view()
        entry = entry_of(view.state, model_id)
        (row,) = self._catalogue.rows(view, [entry], served)
        artefact = self._registry.artefact_of(view.state, model_id)
        meta, problem = _meta(artefact)
        extra = mapping(meta.extra if meta is not None else None)
        walk = mapping(extra.get("walk_forward"))
        judged = judgement(self._registry, view.state, model_id)
        evaluation = last_evaluation(self._trail.events(), model_id)
        measured = judged.evidence or (evaluation.evidence if evaluation is not None else None)
        targets = view.state.rollback_targets(entry.key, hold=self._registry.holds_hand_edits)
        return ModelDetail(
            row=row,
            golden=golden_of(row),
            provenance=_provenance(meta, artefact),
            importances=importances_of(artefact),
            metrics=_numbers(meta.metrics if meta is not None else None),
            walk_forward=_numbers(walk.get("metrics")),
            folds=tuple(_fold(mapping(item)) for item in _items(walk.get("folds"))),
            parameters=plain(mapping(extra.get("model_params"))),
            features=tuple(map(text_of, (meta.feature_cols or ()) if meta is not None else ())),
            warnings=tuple(map(text_of, _items(extra.get("warnings")))),
            calibration=calibration_of(artefact.folder, self._thresholds),
            judgement=judged,
            evaluation=evaluation,
            findings=findings_of(measured),
            rollback_target=targets[0] if row.in_production and targets else "",
            events=self._audit.of_model(model_id),
            metadata=plain(meta.to_dict()) if meta is not None else {},
            metadata_problem=problem,
        )

    def importances(self, model_id: str) -> Importances:
        """A model's feature importances.

        Raises:
            UnknownModelError, StorageError: there is none, or the registry can't be read.
        """
        return importances_of(self._registry.artefact(model_id))

    def prove(self, model_id: str) -> Proof:
        """Hash the files and, of a compiled model, score the golden rows now; nothing is unpickled.

        Raises:
            UnknownModelError, StorageError: there is none, or the registry can't be read.
        """
        artefact = self._registry.artefact(model_id)
        try:
            proof = artefact.prove()
        except RegistryError as error:
            return Proof(model_id, False, "", text_of(error))
        if not proof.opened:
            text = "every file is what was registered; a native model's golden rows are scored as the server loads it"
        else:
            text = "every file is what was registered, and the engine gives every golden score"
        return Proof(model_id, True, proof.manifest.engine, text)


def golden_of(row: Row) -> Golden:
    """What is known of a model's golden rows without opening it."""
    if row.status == "failed":
        return Golden(None, "its training failed; there is nothing to serve")
    if row.engine == "legacy" or not row.digest:
        return Golden(None, "a legacy folder: no digest was taken and no golden rows were asked")
    if not row.engine:
        return Golden(None, "its manifest can't be read")
    if row.engine == "native":
        why = f": {row.engine_reason}" if row.engine_reason else ""
        return Golden(False, f"no compiled form reproduced the golden rows, so the native model serves{why}")
    return Golden(True, f"{row.engine} reproduced every golden row when it was registered")


def _meta(artefact: Artefact) -> tuple[ModelMetadata | None, str]:
    try:
        return artefact.meta(), ""
    except RegistryError as error:
        return None, text_of(error)


def _provenance(meta: ModelMetadata | None, artefact: Artefact) -> Provenance:
    extra = mapping(meta.extra if meta is not None else None)
    data, code = mapping(extra.get("data")), mapping(extra.get("code_version"))
    libraries = mapping(extra.get("library_versions"))
    if meta is not None and not libraries:
        stated = {"scikit-learn": meta.sklearn_version, "pandas": meta.pandas_version}
        libraries = {name: version for name, version in stated.items() if version}
    seeds = mapping(extra.get("seeds"))
    if meta is not None and not seeds and meta.random_state is not None:
        seeds = {"model": meta.random_state}
    modified = code.get("modified")
    return Provenance(
        data_file=text_of(data.get("file")),
        data_sha256=text_of(data.get("sha256")),
        data_bars=_count(data.get("bars")),
        train_start=moment(meta.train_start) if meta is not None else None,
        train_end=moment(meta.train_end) if meta is not None else None,
        test_start=moment(extra.get("test_start")),
        test_end=moment(extra.get("test_end")),
        code_version=text_of(code.get("signalserve")),
        commit=text_of(code.get("commit")),
        modified=modified if isinstance(modified, bool) else None,
        python_version=text_of(meta.python_version if meta is not None else None),
        pipeline_version=text_of(meta.pipeline_version if meta is not None else None),
        libraries={text_of(name): text_of(version) for name, version in libraries.items()},
        seeds=plain(seeds),
        folder=str(artefact.folder),
    )


def _fold(values: Mapping[str, Any]) -> Fold:
    return Fold(
        number=_count(values.get("fold")),
        train_start=moment(values.get("train_start")),
        train_end=moment(values.get("train_end")),
        test_start=moment(values.get("test_start")),
        test_end=moment(values.get("test_end")),
        train_rows=_count(values.get("train_rows")),
        test_bars=_count(values.get("test_bars")),
        auc=number(values.get("auc")),
        skipped=text_of(values.get("skipped")),
    )


def _numbers(found: object) -> dict[str, float | None]:
    return {text_of(name): number(value) for name, value in mapping(found).items()}


def _items(found: object) -> Sequence[Any]:
    return found if isinstance(found, list | tuple) else ()


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
