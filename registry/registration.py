"""How a run directory becomes an entry: register what was trained here, adopt what was found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from signalserve.common.files import is_folder, sync_tree
from signalserve.common.log import LibraryLog
from signalserve.common.moments import parse_moment, second_text, utc_now
from signalserve.predictors.contents import META_FILE
from signalserve.predictors.manifest import MODEL_FILE
from signalserve.predictors.trial import tried_in_fresh_process
from signalserve.registry.answers import answered, commit
from signalserve.registry.artefact import Artefact, Proof
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.errors import ArtefactError, DeclarationError, InvalidArgumentError, StorageError
from signalserve.registry.events import Action
from signalserve.registry.identifiers import check_name
from signalserve.registry.lifecycle import first_step, step
from signalserve.registry.metadata import ModelMetadata
from signalserve.registry.plans import entry_of, plan_adopt, plan_register
from signalserve.registry.retention import Retained, Retention
from signalserve.registry.state import RegistryState, not_servable_of
from signalserve.registry.store import Origin

_log = LibraryLog("registry")


class Registration(Retention):
    """Register and adopt."""

    def register(
        self,
        meta: ModelMetadata,
        status: str = "success",
        *,
        keep: int | None = None,
        model: Any = None,
        reference: np.ndarray | None = None,
        error: str | None = None,
        request_id: str = "",
        actor: str = "",
        via: str = "python",
    ) -> ModelRegistryEntry:
        """Make the run directory of `meta.model_id` an entry of the registry; the first one makes the registry.

        A model that is served natively is also tried in a fresh process, at most a minute long. One that will not be
        served (it gives no one score a row, or its class is nowhere but in this process) is registered all the same: a
        warning in the log, its event and every listing say why.

        A folder without a manifest is sealed first: the model is compiled, golden rows and digests are written.
        That opens its `model.joblib`, as the caller has just written it, unless `model` is given. A `failed` entry
        needs no artefacts.

        Args:
            meta: the run's metadata; it is written to meta.json where the folder has none.
            status: `success` or `failed`.
            keep: how many to keep per symbol, timeframe and model_type; older entries leave the index, and their
                folders are deleted (never those of production, pinned models or the rollback target; the log says
                what was spared). None keeps all.
            model: the fitted model.
            reference: the rows [rows, features] that the model was fitted on: golden rows are drawn from them, and if
                they have missing values, the model takes such.
            error: what went wrong, for a failed run.
            request_id: a job's own id: where it has registered a model already, that model's entry is the answer
                and nothing changes.
            actor: who registers; the default is this process's user.
            via: cli, rpc, lab or python.

        Raises:
            InvalidArgumentError: a name can't be used, the id is taken, or the status is another.
            ArtefactError: the folder is not whole.
            DeclarationError: meta.json must say which class the score is the probability of (`positive_class`).
            StorageError: nothing was registered.
        """
        first_step(status)
        for name in ("model_id", "symbol", "timeframe", "model_type"):
            check_name(name, getattr(meta, name))
        if keep is not None and keep < 1:
            raise InvalidArgumentError("max_models_per_symbol_tf must be at least 1", reason="INVALID_LIMIT")
        request = [meta.symbol, meta.timeframe]
        # a registry that has gone is no place to begin another one
        known = self.state if self.store.exists() else RegistryState()
        earlier = _registered(known, request_id, request)
        if earlier is not None:
            return earlier
        good = status == Status.SUCCESS
        entry = ModelRegistryEntry(
            model_id=meta.model_id,
            symbol=meta.symbol,
            timeframe=meta.timeframe,
            model_type=meta.model_type,
            created_at=meta.created_at or second_text(utc_now()),
            path=str(self.artefacts.stated / meta.model_id),
            cum_return=meta.metric("cum_return") if good else math.nan,
            sharpe=meta.metric("sharpe") if good else math.nan,
            status=str(status),
        )
        # the folder of an id that is taken is another model's, which may be served: nothing is written there
        plan_register(known, entry, "", {})
        if good:
            digest, detail = _take_digest(self.artefacts.of(entry, ""), meta, model, reference)
            detail |= _refit_of(meta, known)
            if why := not_servable_of(detail):
                _log.warning("registry.not_servable", model_id=meta.model_id, why=why)
        else:
            digest, detail = "", {"error": error or str(meta.extra.get("error", ""))}
        _make_durable(self.artefacts.folder(entry))
        verified = self.foresee(known, entry, keep) if keep is not None else {}
        retained = Retained()
        self.store.make()
        with self.store.transaction(Origin(actor, via, request_id=request_id)) as transaction:
            earlier = _registered(transaction.state, request_id, request)
            if earlier is not None:
                return earlier
            draft = plan_register(transaction.state, entry, digest, detail)
            commit(transaction, Action.REGISTER, request, draft)
            if keep is not None:
                retained = self.retain(transaction, entry, keep, verified)
        _log.info("registry.registered", model_id=entry.model_id, status=entry.status, digest=digest[:12])
        self.delete_retired(retained)
        return entry

    def adopt(self, model_id: str, *, reason: str = "", actor: str = "", via: str = "python") -> str:
        """Take the digest of a legacy folder, on its owner's word, and give it.

        This opens the folder's `model.joblib`: only adopt what you trust. A model that already has a digest
        keeps it, if its files still fit. One that is served natively is tried in a fresh process, as by `register`.

        Raises:
            UnknownModelError, ArtefactError, StorageError: nothing changed.
        """
        artefact = self.artefact(model_id)
        if artefact.digest:
            artefact.verify()
            return artefact.digest
        step(Action.ADOPT, artefact.entry)  # before anything is unpickled
        artefact.meta()
        if (
            not self.state.revision
        ):  # by what is sealed beside a log without an event one that was emptied is told
            with self.store.transaction(Origin(actor, via, reason)):
                pass
        proof = artefact.adopt()
        detail = _engine(artefact, proof)
        if why := not_servable_of(detail):
            _log.warning("registry.not_servable", model_id=model_id, why=why)
        _make_durable(artefact.folder)
        with self.store.transaction(Origin(actor, via, reason)) as transaction:
            transaction.commit(plan_adopt(transaction.state, model_id, proof.digest, detail))
        _log.info(
            "registry.adopted", model_id=model_id, engine=proof.manifest.engine, digest=proof.digest[:12]
        )
        return proof.digest


def _make_durable(folder: Path) -> None:
    """What an event speaks of is on disk before it, also where another program wrote it."""
    try:
        if is_folder(folder):  # a failed run may have none
            sync_tree(folder)
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror or error}; nothing was registered") from error


def _take_digest(
    artefact: Artefact, meta: ModelMetadata, model: Any, reference: np.ndarray | None
) -> tuple[str, dict[str, Any]]:
    folder = artefact.folder
    if not artefact.has(MODEL_FILE):
        raise ArtefactError(
            f"{folder / MODEL_FILE} is missing: write the run directory before registering it"
        )
    if not artefact.has(META_FILE):
        meta.write(folder / META_FILE)
    artefact.meta()
    if not artefact.is_sealed:
        fitted = model if model is not None else artefact.load()
        try:
            artefact.seal(fitted, reference)
        except DeclarationError:
            raise  # a line in meta.json mends it, and a guess would be served
        except ArtefactError as error:
            # registered all the same, as research code always could; it can't be promoted
            why = str(error).removeprefix(f"{meta.model_id}: ")
            return "", {"not_sealed": why} | _tested(meta)
    proof = artefact.adopt()
    return proof.digest, _engine(artefact, proof) | _tested(meta)


def _engine(artefact: Artefact, proof: Proof) -> dict[str, Any]:
    """Which engine serves the model, and whether it does so where nothing of this process is loaded."""
    detail = {"engine": proof.manifest.engine, "engine_reason": proof.manifest.engine_reason}
    if not proof.opened:  # what was opened from its ONNX form needs nothing else
        why = tried_in_fresh_process(artefact.folder, proof.digest)
        if why:
            detail["not_servable"] = why
    return detail


def _tested(meta: ModelMetadata) -> dict[str, Any]:
    """The bars that the training measured the model on, for the event."""
    try:
        span = [parse_moment(meta.extra[name]).isoformat() for name in ("test_start", "test_end")]
    except (KeyError, TypeError, ValueError):
        return {}  # not every model is of our training
    return {"tested": span}


def _refit_of(meta: ModelMetadata, state: RegistryState) -> dict[str, Any]:
    """The model whose recipe was fitted again on all bars, for the event, where the log knows that very model."""
    found = meta.extra.get("refit_of")
    if not isinstance(found, Mapping):
        return {}
    model_id, digest = found.get("model_id"), found.get("digest")
    known = isinstance(model_id, str) and bool(digest) and state.digests.get(model_id) == digest
    return {"refit_of": {"model_id": model_id, "digest": digest}} if known else {}


def _registered(state: RegistryState, request_id: str, request: Any) -> ModelRegistryEntry | None:
    """What an earlier register of this request_id made; None where there was none."""
    if answered(state, request_id, Action.REGISTER, request) is None:
        return None
    return entry_of(state, state.requests[request_id].changes[0].model_id)
