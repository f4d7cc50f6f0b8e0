"""From a run directory to a sealed one: compiled, with golden rows and the digest of every file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from signalserve.predictors.contents import META_FILE
from signalserve.predictors.declared import Declared
from signalserve.predictors.errors import DeclarationError as Undeclared
from signalserve.predictors.errors import PredictorError
from signalserve.registry.errors import ArtefactError, DeclarationError
from signalserve.registry.metadata import ModelMetadata

if TYPE_CHECKING:
    from signalserve.predictors.seal import Sealed


def seal(folder: Path, meta: ModelMetadata, model: Any, reference: np.ndarray | None = None) -> Sealed:
    """Compile a model, write its golden rows and manifest, and say in meta.json which engine serves it.

    Args:
        folder: the run directory, under its hidden or its final name; everything else is in it already.
        meta: what meta.json says.
        model: the fitted model.
        reference: the rows [rows, features] of the fit: golden rows are drawn from them, and if they have missing
            values, the model takes such. None makes golden rows up.

    Raises:
        ArtefactError: the model can't be served at all (more than two classes, say), or its columns are not named.
        DeclarationError: meta.json must say which class is class 1, or says it wrongly.
    """
    from signalserve.predictors.seal import seal_run_dir  # brings the converters, which a server never needs

    if not meta.feature_cols:
        raise ArtefactError(f"{meta.model_id}: {META_FILE} has no feature_cols, so nobody knows its columns")
    with as_artefact_error(meta.model_id):
        return seal_run_dir(
            folder,
            model,
            meta.feature_cols,
            reference,
            declared=Declared.of(meta.extra),
            feature_set=meta.feature_set,
            before_manifest=lambda compiled: meta.with_extra(
                engine=compiled.engine, engine_reason=compiled.engine_reason
            ).write(folder / META_FILE),
        )


@contextmanager
def as_artefact_error(model_id: str) -> Iterator[None]:
    """Give a refusal of the predictors the registry's own type."""
    try:
        yield
    except Undeclared as error:
        raise DeclarationError(f"{model_id}: {error}", metadata={"model_id": model_id}) from error
    except (PredictorError, OSError) as error:
        raise ArtefactError(f"{model_id}: {error}", metadata={"model_id": model_id}) from error
