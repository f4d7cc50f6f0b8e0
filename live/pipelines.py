"""To which features an engine changes when the model that answers refuses those that it was sent.

Stricter than the choice before the first bar, which somebody makes and sees: a model that says its feature set gets
that one or none, because equal names don't make equal features. Only one that does not say gets its columns by their
names.
"""

from __future__ import annotations

from time import monotonic

from signalserve.client import SignalClient, SignalServeError
from signalserve.features.pipeline import PRESETS, FeaturePipeline
from signalserve.live.served_model import FeaturesMissingError, choose_pipeline, served_id


class NoPipelineError(Exception):
    """The engine can't compute what the model needs, or can't find out what that is; the text says why."""


class Pipelines:
    """The pipelines of a key's engine: the one that it starts with, and those of `preset`, or of all presets.

    `model_id`: the model that is asked for by name; None: the key's. The client stays the caller's.
    """

    def __init__(
        self,
        client: SignalClient,
        symbol: str,
        timeframe: str,
        first: FeaturePipeline,
        *,
        model_id: str | None = None,
        preset: str | None = None,
    ) -> None:
        self._client = client
        self._symbol = symbol
        self._timeframe = timeframe
        self._model_id = model_id
        self._preset = preset
        # made now: a bar that waits for its score has no time for it
        presets = PRESETS if preset is None else (preset,)
        self._by_set = {pipeline.feature_set: pipeline for pipeline in map(FeaturePipeline, presets)}
        self._by_set[first.feature_set] = first

    def after(self, refusal: SignalServeError, within: float) -> FeaturePipeline:
        """The pipeline for the model that refused a row, within so many seconds.

        A refusal that names the model's feature set is the word of the very model; otherwise the server is asked which
        model it is.

        Raises:
            NoPipelineError: there is none, or no answer in time.
        """
        if named := refusal.metadata.get("model_feature_set", ""):
            return self._computing(named, "the model that answers now")
        give_up = monotonic() + within
        try:
            model_id = self._model_id
            if model_id is None:
                status = self._client.status(deadline_ms=_left_ms(give_up))
                model_id = served_id(status, self._symbol, self._timeframe)
            if model_id is None:
                raise NoPipelineError(f"nothing is served for {self._symbol}/{self._timeframe} any more")
            details = self._client.get_model(model_id, deadline_ms=_left_ms(give_up))
        except SignalServeError as error:
            raise NoPipelineError(f"{refusal}; which features the model needs is unknown: {error}") from error
        if known := details.feature_set:
            return self._computing(known, model_id)
        try:
            return choose_pipeline(details, self._preset).pipeline
        except FeaturesMissingError as error:
            raise NoPipelineError(str(error)) from error

    def _computing(self, feature_set: str, model: str) -> FeaturePipeline:
        try:
            return self._by_set[feature_set]
        except KeyError:
            computed = ", ".join(self._by_set)
            raise NoPipelineError(
                f"{model} was trained on {feature_set}, and this engine computes {computed} alone"
            ) from None


def _left_ms(give_up: float) -> float:
    return max(0.0, give_up - monotonic()) * 1000.0
