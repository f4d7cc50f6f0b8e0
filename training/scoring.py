"""Scores of a registered model over bars, through the predictor that would serve them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from signalserve.common.timeframe import UnknownTimeframeError
from signalserve.features.bars import Bars, read_bars
from signalserve.features.errors import FeatureError, NoBarFileError
from signalserve.features.pipeline import PIPELINE_VERSION, FeaturePipeline
from signalserve.predictors.predictor import Predictor
from signalserve.registry import Artefact, ModelMetadata, Registry, Status
from signalserve.registry.entry import ModelRegistryEntry
from signalserve.registry.errors import ArtefactError, WrongStatusError
from signalserve.registry.state import RegistryState
from signalserve.training.errors import TrainingError, TrainingRequestError


@dataclass(frozen=True)
class ScoringModel:
    """A registered model, opened and proven, with what computes its features."""

    entry: ModelRegistryEntry
    meta: ModelMetadata
    digest: str
    predictor: Predictor
    pipeline: FeaturePipeline

    def score(self, bars: Bars) -> NDArray[np.float64]:
        """P(class 1) of every bar, or a regressor's value, float64 [n]; NaN where the features are not warm yet."""
        matrix = self.pipeline.transform(bars.frame).to_numpy()
        warm = min(self.pipeline.warmup_bars, len(matrix))
        scores = np.full(len(matrix), np.nan)
        if warm < len(matrix):
            scores[warm:] = self.predictor.predict(np.ascontiguousarray(matrix[warm:]))
        return scores


def training_span(meta: ModelMetadata) -> tuple[pd.Timestamp, pd.Timestamp] | None:
    """Open times of the first and the last bar that a model's training has seen, in UTC; None where it does not say.

    Raises:
        TrainingRequestError: one of them is no time.
    """
    if not meta.train_start or not meta.train_end:
        return None
    first, last = (_moment(meta, text) for text in (meta.train_start, meta.train_end))
    return first, last


def _moment(meta: ModelMetadata, text: str) -> pd.Timestamp:
    try:
        moment = pd.Timestamp(text)
    except (ValueError, TypeError) as error:
        raise TrainingRequestError(f"{meta.model_id}: meta.json has a span of {text!r}, no time") from error
    return moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")


def read_scoring_bars(path: Path, timeframe: str) -> Bars:
    """Read the bars to score.

    Raises:
        TrainingRequestError: there is no such file.
        TrainingError: they can't be trusted.
    """
    try:
        return read_bars(path, timeframe=timeframe)
    except NoBarFileError as error:
        raise TrainingRequestError(str(error)) from error
    except (FeatureError, UnknownTimeframeError) as error:
        raise TrainingError(str(error)) from error


def open_scoring_model(
    registry: Registry, state: RegistryState, model_id: str, *, unpickle: str = "verified"
) -> ScoringModel:
    """Open a model to score bars with.

    Raises:
        UnknownModelError, WrongStatusError, NotAdoptedError, ArtefactError: there is none, or it may not be opened.
        TrainingRequestError: its features are not those of a preset of ours.
    """
    artefact = registry.artefact_of(state, model_id)
    if artefact.entry.status == Status.FAILED:
        raise WrongStatusError(f"{model_id} is a failed training run: {_why_it_failed(artefact)}")
    predictor = artefact.open(unpickle=unpickle)
    # a legacy folder, which `unpickle: always` opens without a digest, has nothing to hold its metadata against
    meta = artefact.proven_meta() if artefact.digest else artefact.meta()
    return ScoringModel(artefact.entry, meta, artefact.digest, predictor, _pipeline(meta, predictor))


def _why_it_failed(artefact: Artefact) -> str:
    try:
        return str(artefact.meta().extra.get("error", "its folder does not say why"))
    except ArtefactError as error:
        return str(error)


def _pipeline(meta: ModelMetadata, predictor: Predictor) -> FeaturePipeline:
    if not meta.feature_preset:
        raise TrainingRequestError(
            f"{meta.model_id}: meta.json names no feature_preset, so its features can't be computed from bars"
        )
    try:
        pipeline = FeaturePipeline(meta.feature_preset)
    except FeatureError as error:
        raise TrainingRequestError(f"{meta.model_id}: {error}") from error
    if tuple(predictor.feature_names) != tuple(pipeline.names):
        raise TrainingRequestError(
            f"{meta.model_id}: its features are not those of preset {meta.feature_preset} any more"
        )
    if meta.pipeline_version and meta.pipeline_version != PIPELINE_VERSION:
        raise TrainingRequestError(
            f"{meta.model_id}: trained on features of pipeline version {meta.pipeline_version}; this is "
            f"{PIPELINE_VERSION}: train it again"
        )
    return pipeline
