"""What a model was let in on, as the registry and the serving status answer it."""

from __future__ import annotations

from dataclasses import dataclass

from ..v1 import registry_pb2


@dataclass(frozen=True, slots=True)
class Basis:
    """What the decision read that put a model where it is; `text` has all of it in words.

    `gate`: evidence, none, forced, other or by_hand; costs in basis points a side, None without an evaluation;
    `measured_by`: trainer, evaluate, brought or ""; `training_span`: declared or registered.
    """

    gate: str
    fee_bps: float | None
    slippage_bps: float | None
    measured_by: str
    training_span: str
    text: str

    @classmethod
    def from_proto(cls, message: registry_pb2.Basis) -> Basis:
        """Copy the message."""
        return cls(
            gate=message.gate,
            fee_bps=message.fee_bps if message.HasField("fee_bps") else None,
            slippage_bps=message.slippage_bps if message.HasField("slippage_bps") else None,
            measured_by=message.measured_by,
            training_span=message.training_span,
            text=message.text,
        )
