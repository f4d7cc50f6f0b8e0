from collections.abc import Iterable

from google.protobuf.any_pb2 import Any
from google.protobuf.descriptor import Descriptor
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.message import Message

class Status(Message):
    """google.rpc.Status: how a call, or one item of a call, ended."""

    DESCRIPTOR: Descriptor
    code: int
    message: str
    @property
    def details(self) -> RepeatedCompositeFieldContainer[Any]: ...
    def __init__(
        self, *, code: int = ..., message: str = ..., details: Iterable[Any] | None = ...
    ) -> None: ...
