"""What somebody asks of a retrain beside its policies: other bars, other keys.

1. What is given goes before the policy's own. `lookback_days` takes the place of a policy's spans, and a span that
   of its `lookback_days`; of several spans each takes the place of its own.
2. Other bars make another policy, of a name of its own (`weekly.1f3a9c07`): the slot of the policy itself is not
   done by it, and no model that the one has trained is taken for the other's. The same again has the same name.
3. With symbols, and no policy configured, there is a policy `given` of the configuration's defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from hashlib import sha256
from typing import Any

from pydantic import ValidationError

from signalserve.common.moments import in_utc
from signalserve.config.evidence import RetrainPolicy
from signalserve.training.errors import TrainingRequestError

_SPANS = ("train_start", "train_end", "test_start", "test_end")


@dataclass(frozen=True)
class Override:
    """What was given; None and nothing: it stays the policy's. Times without a zone are UTC."""

    symbols: tuple[str, ...] = ()
    timeframes: tuple[str, ...] = ()
    lookback_days: float | None = None
    train_start: datetime | None = None
    train_end: datetime | None = None
    test_start: datetime | None = None
    test_end: datetime | None = None

    def apply(self, policies: Sequence[RetrainPolicy]) -> list[RetrainPolicy]:
        """The policies as what was given makes them; the same where nothing was.

        Raises:
            TrainingRequestError: what was given excludes one another, or does not fit a policy's own.
        """
        given = self._given()
        if self.symbols and not policies:
            policies = [RetrainPolicy(name="given", symbols=list(self.symbols))]
        return [_changed(policy, given) if given else policy for policy in policies]

    def _given(self) -> dict[str, Any]:
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in found.items() if value not in (None, ())}


def _changed(policy: RetrainPolicy, given: dict[str, Any]) -> RetrainPolicy:
    spans = [name for name in _SPANS if name in given]
    replaced = [*(_SPANS if "lookback_days" in given else ()), *(("lookback_days",) if spans else ())]
    own = {name: value for name, value in policy.model_dump().items() if name not in replaced}
    lists = {name: list(value) for name, value in given.items() if isinstance(value, tuple)}
    try:
        return RetrainPolicy.model_validate(
            {**own, **given, **lists, "name": f"{policy.name}.{_digest(given)}"}
        )
    except ValidationError as error:
        texts = "; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors())
        raise TrainingRequestError(f"retrain policy {policy.name}, with what was given: {texts}") from error


def _digest(given: dict[str, Any]) -> str:
    plain = {
        name: in_utc(value).isoformat() if isinstance(value, datetime) else value
        for name, value in given.items()
    }
    return sha256(repr(sorted(plain.items())).encode()).hexdigest()[:8]
