"""One unary call to make: which method, with what, how patiently, and what its answer becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from ..v1.prediction_service_pb2_grpc import PredictionServiceStub
from ..v1.registry_service_pb2_grpc import RegistryServiceStub
from .health import HealthStub

Q = TypeVar("Q")
A = TypeVar("A")
V = TypeVar("V")

if TYPE_CHECKING:
    import grpc

    Method: TypeAlias = grpc.UnaryUnaryMultiCallable[Q, A]  # no generic at run time


@dataclass(frozen=True, slots=True)
class Stubs:
    """The services over one channel, which lives as long as somebody holds this."""

    channel: object
    prediction: PredictionServiceStub
    registry: RegistryServiceStub
    health: HealthStub


class Kind(Enum):
    """What a call does, in the order of the patience that it gets."""

    PREDICTION = auto()
    READ = auto()
    CHANGE = auto()


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, A, V]):
    """One call to make. `value` turns the answer, and the milliseconds that it took, into what is returned."""

    kind: Kind
    method: Callable[[Stubs], Method[Q, A]]
    request: Q
    value: Callable[[A, float], V]
    request_id: str = ""
