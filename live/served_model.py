"""Which model will answer, and which features it needs: asked before the first bar, and where a model refuses them."""

from __future__ import annotations

from dataclasses import dataclass

from signalserve.client import DeadlineExceeded, ModelDetails, ServingStatus, SignalClient
from signalserve.features.pipeline import PIPELINE_VERSION, PRESETS, FeaturePipeline

LOAD_MS = 15_000.0
"""How long a server that has just started may take to load its models."""


class NotServedError(Exception):
    """The server answers, but serves no model for the key; the text says what to do.

    `unknown` is true where the registry has no model of the key at all.
    """

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class FeaturesMissingError(Exception):
    """No feature preset gives every column that the model needs; the text names them."""


@dataclass(frozen=True)
class ChosenPipeline:
    """A pipeline that gives every feature of the model; `warning` is "" where nothing is odd about it."""

    pipeline: FeaturePipeline
    warning: str = ""


def served_model(
    client: SignalClient,
    symbol: str,
    timeframe: str,
    model_id: str | None = None,
    *,
    load_ms: float = LOAD_MS,
) -> ModelDetails:
    """Ask for the model that answers the key, or for `model_id`.

    Waits up to `load_ms` for a server that is still loading.

    Raises:
        NotServedError: nothing is served for the key, or `model_id` can never answer for it.
        SignalServeError: the server is away (Unavailable, DeadlineExceeded), knows no such model (NotFound), ...
    """
    if model_id is None:
        return client.get_model(_served_id(client, symbol, timeframe, load_ms))
    details = client.get_model(model_id)
    model = details.model
    # each bar would be refused, and asked for again in vain
    if model.status == "failed":
        why = details.metadata.get("error", "its folder does not say why")
        raise NotServedError(f"{model_id} is a failed training run: {why}")
    if (model.symbol, model.timeframe) != (symbol, timeframe):
        raise NotServedError(
            f"{model_id} is a model of {model.symbol}/{model.timeframe}, not of {symbol}/{timeframe}"
        )
    return details


def choose_pipeline(details: ModelDetails, preset: str | None = None) -> ChosenPipeline:
    """Take the preset that the model was trained with, or the given one, and check it against the model.

    The pipeline sends its own feature set, so that a server refuses the rows of a model that was trained on another
    one, and the warning says that it will. A model of no preset of ours gets the first one that has every column, under
    the name of the feature set that it was trained on: its owner's say-so that equal names are equal features. Where
    the server knows no feature set, it is the preset that meta.json names.

    Raises:
        FeaturesMissingError: a column is missing.
        UnknownPresetError: there is no preset of the given name.
    """
    trained = details.feature_set.rpartition("@")[0] or details.metadata.get("feature_preset")
    named = preset or (trained if trained in PRESETS else None)
    # a preset of ours may be another version's, or not the one that is asked for here: the row says what it is
    declared = None if trained in PRESETS else details.feature_set or None
    candidates = [FeaturePipeline(name, feature_set=declared) for name in ((named,) if named else PRESETS)]
    for pipeline in candidates:
        if not _missing(details, pipeline):
            return ChosenPipeline(pipeline, _warning(details, pipeline))
    missing = _missing(details, candidates[-1])
    shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
    raise FeaturesMissingError(
        f"{details.model.model_id} needs {len(missing)} features that preset {candidates[-1].preset} does not"
        f" give: {shown}; "
        + (f"it was trained with preset {trained}" if trained else "its preset is unknown")
    )


def served_id(status: ServingStatus, symbol: str, timeframe: str) -> str | None:
    """The id of the model that answers the key; None where none does."""
    return next(
        (model.model_id for model in status.models if (model.symbol, model.timeframe) == (symbol, timeframe)),
        None,
    )


def _served_id(client: SignalClient, symbol: str, timeframe: str, load_ms: float) -> str:
    status = client.status()
    if (found := served_id(status, symbol, timeframe)) is None and not status.ready:
        try:
            for status in client.watch_status(deadline_ms=load_ms):
                if (found := served_id(status, symbol, timeframe)) is not None or status.ready:
                    break
        except DeadlineExceeded:
            pass  # it is up and still loads: what follows says so
    if found is not None:
        return found
    for failure in status.load_errors:
        if (failure.symbol, failure.timeframe) == (symbol, timeframe):
            raise NotServedError(f"the server could not load {failure.model_id}: {failure.message}")
    if not status.ready:
        raise NotServedError("the server is still loading its models; try again shortly")
    if not client.list_models(symbol, timeframe):
        raise NotServedError(
            f"no model of {symbol}/{timeframe} in the registry; `signalserve models` lists what there is",
            unknown=True,
        )
    raise NotServedError(
        f"no model of {symbol}/{timeframe} is in production; `signalserve models --symbol {symbol}` lists what"
        " there is, `signalserve promote MODEL_ID` puts one into production"
    )


def _missing(details: ModelDetails, pipeline: FeaturePipeline) -> list[str]:
    given = frozenset(pipeline.names)
    return [name for name in details.feature_names if name not in given]


def _warning(details: ModelDetails, pipeline: FeaturePipeline) -> str:
    trained, metadata = details.feature_set, details.metadata
    version = metadata.get("pipeline_version")
    if version and metadata.get("feature_preset") and not trained:
        return (
            f"the server does not know what {details.model.model_id} was trained on: its meta.json, which it does not"
            f" vouch for, says {metadata['feature_preset']}@{version}"
        )
    if trained and trained != pipeline.feature_set:
        said, own = trained, pipeline.feature_set
    elif version and not trained and str(version) != pipeline.version:
        said, own = f"feature version {version}", f"version {PIPELINE_VERSION}"
    else:
        return ""
    return (
        f"{details.model.model_id} was trained on {said}, and this engine computes {own}: its live scores differ from"
        " its offline ones, and are held where the server says so"
    )
