"""What can go wrong with a registry, in one tree that knows no gRPC.

RegistryError
├── CallerError                    the call can't be done; nothing changed
│   ├── InvalidArgumentError       the request itself is wrong
│   │   └── RequestIdReusedError   one request_id, two different requests
│   ├── NotFoundError
│   │   ├── UnknownModelError
│   │   └── UnknownKeyError
│   ├── PreconditionError          right request, wrong state
│   │   ├── WrongStatusError       the lifecycle has no such step from here
│   │   ├── InProductionError
│   │   ├── QuarantinedError
│   │   ├── GateRefusedError       the evidence is not enough
│   │   ├── NotAdoptedError        a legacy folder: no digest was ever taken
│   │   ├── ArtefactError          the artefacts are missing or not what was registered
│   │   │   ├── DeclarationError   meta.json must say something of the model first
│   │   │   └── NotServableError   its registration found that it gives no score
│   │   └── NothingToRollBackToError
│   └── StaleExpectationError      compare-and-set lost the race
└── StorageError                   our side
    ├── RegistryBusyError          another writer holds the lock
    ├── RegistryMissingError       there is none
    │   └── RegistryGoneError      there was one, and it is away
    └── LogCorruptError            the event log is not a whole chain

Every error has a `reason` in UPPER_SNAKE for programs and a text for people that says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping


class RegistryError(Exception):
    """Root of the tree. `metadata` holds the facts of the text, for programs."""

    reason = "REGISTRY_ERROR"

    def __init__(
        self, message: str, *, metadata: Mapping[str, str] | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.metadata = dict(metadata or {})
        if reason is not None:
            self.reason = reason


class CallerError(RegistryError):
    """The call can't be done; nothing changed."""


class InvalidArgumentError(CallerError):
    """The request itself is wrong."""

    reason = "INVALID_ARGUMENT"


class RequestIdReusedError(InvalidArgumentError):
    """A request_id came back with another request."""

    reason = "REQUEST_ID_REUSED"


class NotFoundError(CallerError):
    """The thing that was named does not exist."""


class UnknownModelError(NotFoundError):
    """No entry has this model_id."""

    reason = "UNKNOWN_MODEL"

    def __init__(self, model_id: str) -> None:
        super().__init__(
            f"no model {model_id!r} in the registry; `signalserve models` lists them",
            metadata={"model_id": model_id},
        )


class UnknownKeyError(NotFoundError):
    """No entry has this symbol and timeframe."""

    reason = "UNKNOWN_KEY"

    def __init__(self, symbol: str, timeframe: str) -> None:
        super().__init__(
            f"no model of {symbol}/{timeframe} in the registry; `signalserve models` lists what there is",
            metadata={"symbol": symbol, "timeframe": timeframe},
        )


class PreconditionError(CallerError):
    """A right request in the wrong state."""


class WrongStatusError(PreconditionError):
    """The lifecycle has no such step from the model's status."""

    reason = "WRONG_STATUS"


class InProductionError(PreconditionError):
    """The step would leave a key with nothing in production."""

    reason = "IN_PRODUCTION"


class QuarantinedError(PreconditionError):
    """A rollback left the model behind; putting it back needs force."""

    reason = "QUARANTINED"


class GateRefusedError(PreconditionError):
    """The promote gate refused the evidence."""

    reason = "GATE_REFUSED"


class NotAdoptedError(PreconditionError):
    """No digest of the artefacts was ever taken."""

    reason = "NOT_ADOPTED"

    def __init__(self, model_id: str) -> None:
        super().__init__(
            f"{model_id} has no digest in the event log; check where its folder comes from, "
            f"then run `signalserve registry adopt {model_id}`",
            metadata={"model_id": model_id},
        )


class ArtefactError(PreconditionError):
    """The artefacts are missing, or are not what was registered."""

    reason = "ARTIFACT_INVALID"


class DeclarationError(ArtefactError):
    """The owner must declare something in meta.json (which class is class 1), or declared what is not so."""

    reason = "DECLARATION_NEEDED"


class NotServableError(ArtefactError):
    """The model can't give one score a row, so that no digest was taken, or no server can open it."""

    reason = "MODEL_NOT_SERVABLE"


def no_digest(model_id: str, why: str) -> PreconditionError:
    """The error for a model without a digest; `why` is what its registration found, empty where nobody looked."""
    if not why:
        return NotAdoptedError(model_id)
    return not_servable(model_id, why)


def not_servable(model_id: str, why: str) -> NotServableError:
    """The error for a model that will not be served."""
    return NotServableError(f"{model_id} can't be served: {why}", metadata={"model_id": model_id})


class NothingToRollBackToError(PreconditionError):
    """The key has no earlier production model that verifies and is not quarantined."""

    reason = "NOTHING_TO_ROLL_BACK_TO"


class StaleExpectationError(CallerError):
    """Another promote came first."""

    reason = "STALE_EXPECTATION"


class StorageError(RegistryError):
    """The registry could not be read or written."""

    reason = "REGISTRY_STORAGE"


class RegistryBusyError(StorageError):
    """Another writer holds the lock."""

    reason = "REGISTRY_BUSY"


class RegistryMissingError(StorageError):
    """There is no registry where one should be; nobody but who registers a model or says `registry init` makes one."""

    reason = "REGISTRY_MISSING"


class RegistryGoneError(RegistryMissingError):
    """There was one, as this process saw, and it is away: it comes back with its disk, and must not be made anew."""


class LogCorruptError(StorageError):
    """The event log is not a whole chain; nothing is written on top of it."""

    reason = "LOG_CORRUPT"
