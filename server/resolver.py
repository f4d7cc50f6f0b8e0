"""Which model answers a question: its own model_id, else a pin, else the key's production model."""

from __future__ import annotations

from signalserve.common.key import Key, name_problem
from signalserve.registry.errors import UnknownModelError
from signalserve.server.errors import NothingToServeError, RequestError, StartingError, UnknownServingKeyError
from signalserve.server.question import Question
from signalserve.server.snapshot import ServedModel, ServingSnapshot


def resolve(snapshot: ServingSnapshot, question: Question) -> ServedModel | None:
    """The loaded model that answers, or None where `question.model_id` is known but not loaded yet.

    Raises:
        RequestError: symbol or timeframe can't be a name.
        UnknownServingKeyError, UnknownModelError: the registry has no such key or id.
        NothingToServeError: the key has nothing in production, or the model is of another key.
        StartingError: the server has not read the registry yet, or the key's first model is being loaded.
    """
    key, model_id = question.key, question.model_id
    if not model_id:
        served = snapshot.by_key.get(key)
        if served is not None:
            return served
        _check(key)
        raise _nothing(snapshot, key)
    served = snapshot.by_id.get(model_id)
    owner = served.key if served is not None else snapshot.known_ids.get(model_id)
    if owner is None:
        _check(key)
        _check_started(snapshot)
        raise UnknownModelError(model_id)
    if owner != key:
        _check(key)
        raise NothingToServeError(
            "KEY_MISMATCH",
            f"{model_id} is a model of {owner}, not of {key}",
            field="model_id",
            metadata={"model_id": model_id},
        )
    return served


def _check(key: Key) -> None:
    for field, value in zip(Key._fields, key, strict=True):
        problem = name_problem(value)
        if problem is not None:
            raise RequestError(f"INVALID_{field.upper()}", f"{field} {value!r} {problem}", field=field)


def _check_started(snapshot: ServingSnapshot) -> None:
    if snapshot.revision < 0:
        raise StartingError(
            "STARTING",
            "the server has not loaded its models yet; try again shortly (its log says what keeps it)",
        )


def _nothing(snapshot: ServingSnapshot, key: Key) -> Exception:
    _check_started(snapshot)
    facts = {"symbol": key.symbol, "timeframe": key.timeframe}
    if (pending := snapshot.pending.get(key)) is not None:
        raise StartingError(
            "LOADING",
            f"{pending.model_id} of {key} is being loaded; try again shortly",
            metadata=facts | {"model_id": pending.model_id},
        )
    for failure in snapshot.failures:
        if failure.key == key:
            return NothingToServeError(
                "MODEL_NOT_SERVABLE",
                f"{failure.model_id} of {key} could not be loaded: {failure.message}",
                metadata=facts | {"model_id": failure.model_id},
            )
    if key in snapshot.known_keys:
        return NothingToServeError(
            "NO_PRODUCTION_MODEL",
            f"{key} has no model in production: promote one (`signalserve models --symbol {key.symbol}` lists "
            "them) or name a model_id",
            metadata=facts,
        )
    return UnknownServingKeyError(
        "UNKNOWN_KEY",
        f"the registry has no model of {key}; `signalserve models` lists what there is",
        metadata=facts,
    )
