"""What the owner of a model says of it in meta.json, because the fitted model does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from signalserve.predictors.classes import ClassLabel, is_label
from signalserve.predictors.errors import DeclarationError


@dataclass(frozen=True)
class Declared:
    """`positive_class`: the class whose probability is the score. `accepts_nan`: whether missing values may be asked.

    None is what is not said: then the classes speak for themselves, and so do the training rows.
    """

    positive_class: ClassLabel | None = None
    accepts_nan: bool | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Declared:
        """What the keys of those names say.

        Raises:
            DeclarationError: a value is of another type.
        """
        positive, nan = values.get("positive_class"), values.get("accepts_nan")
        if positive is not None and not is_label(positive):
            raise DeclarationError(
                f"positive_class in meta.json is {positive!r}; a class is a text, a truth value or a number"
            )
        if nan is not None and not isinstance(nan, bool):
            raise DeclarationError(f"accepts_nan in meta.json is {nan!r}; it is true or false")
        return cls(positive, nan)


NOTHING_DECLARED = Declared()
