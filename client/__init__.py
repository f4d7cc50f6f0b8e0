"""The client of a signalserve server.

`SignalClient` for threads, `AsyncSignalClient` for asyncio; both send, answer and raise the same. Needs the
stubs of `signalserve.v1`, grpcio, protobuf and numpy alone.

::

    from signalserve.client import SignalClient

    with SignalClient("localhost:50051") as client:
        print(client.predict("BTCUSDT", "15m", {"rsi_14": 61.5}).score)
"""

from .aio import AsyncSignalClient
from .aio_stream import AsyncStream
from .basis import Basis
from .errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    SignalServeError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    UnknownError,
)
from .health import Health
from .latency import LatencySummary, LatencyWindow
from .registry_values import (
    AuditEvent,
    LaggingWorker,
    ModelDetails,
    ModelInfo,
    ModelList,
    PromoteResult,
    StatusChange,
    Transition,
)
from .requests import PredictionRequest, Promotion
from .stream import Stream
from .sync import SignalClient
from .tls import Tls
from .values import (
    BatchItem,
    LoadError,
    LoadingModel,
    Prediction,
    ServedModel,
    ServingStatus,
    StreamItem,
)

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncSignalClient",
    "AsyncStream",
    "AuditEvent",
    "Basis",
    "BatchItem",
    "Cancelled",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Health",
    "InternalError",
    "InvalidArgument",
    "LaggingWorker",
    "LatencySummary",
    "LatencyWindow",
    "LoadError",
    "LoadingModel",
    "ModelDetails",
    "ModelInfo",
    "ModelList",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "Prediction",
    "PredictionRequest",
    "PromoteResult",
    "Promotion",
    "ResourceExhausted",
    "ServedModel",
    "ServingStatus",
    "SignalClient",
    "SignalServeError",
    "StatusChange",
    "Stream",
    "StreamItem",
    "Tls",
    "Transition",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "UnknownError",
]
