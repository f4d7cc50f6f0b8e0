"""What a model was let in on -> its message."""

from __future__ import annotations

from signalserve.registry.basis import Basis
from signalserve.v1 import registry_pb2


def basis_message(basis: Basis) -> registry_pb2.Basis:
    """The basis, and the same in words."""
    return registry_pb2.Basis(**basis._asdict(), text=basis.text)
