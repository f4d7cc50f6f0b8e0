"""Which of a classifier's two classes is class 1, the one whose probability is the score.

1. Of {0, 1}, {-1, 1} and {False, True} it is the greater, unless something else is declared.
2. Of any other two it must be declared: a forest of 'long' and 'short' knows no up.
3. A class is compared as what JSON makes of it: text with text, a truth value with a truth value, a number with a
   number. The estimator's own types (`np.str_`, `np.int64`) count as those.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

from signalserve.predictors.errors import DeclarationError, UnsupportedModelError

ClassLabel: TypeAlias = str | bool | int | float

_OBVIOUS: tuple[tuple[ClassLabel, ClassLabel], ...] = ((0, 1), (-1, 1), (False, True))


@dataclass(frozen=True)
class Classes:
    """The two classes in the order of the estimator's columns, and the one whose probability is the score."""

    labels: tuple[ClassLabel, ClassLabel]
    positive: ClassLabel

    @property
    def column(self) -> int:
        """The column of class 1."""
        return next(number for number, label in enumerate(self.labels) if same_class(label, self.positive))


def classes_of(known: Iterable[Any], declared: object, what: str) -> Classes:
    """The classes of a fitted estimator.

    Args:
        known: its `classes_`.
        declared: `positive_class` of meta.json; None where it is not said.
        what: the estimator's name, for messages.

    Raises:
        UnsupportedModelError: they are not two.
        DeclarationError: it isn't said which one is class 1, or one is named that the model doesn't know.
    """
    found = list(known)
    if len(found) != 2:
        raise UnsupportedModelError(f"{what} knows {len(found)} classes; a score needs exactly two")
    first, second = (plain_label(label, what) for label in found)
    labels = (first, second)
    choice = f"{first!r} and {second!r}"
    if declared is None:
        if any(same_class(first, low) and same_class(second, high) for low, high in _OBVIOUS):
            return Classes(labels, second)
        raise DeclarationError(
            f"{what} knows the classes {choice}, and nobody says which of them the score is the probability of: "
            f'write "positive_class": {json_text(second)} or {json_text(first)} into meta.json'
        )
    for label in labels:
        if same_class(label, declared):
            return Classes(labels, label)
    raise DeclarationError(
        f"positive_class in meta.json is {declared!r}, and {what} knows the classes {choice}: write one of them"
    )


def same_class(one: object, other: object) -> bool:
    """Whether two labels are one class: 1 and 1.0 are, 1 and true or "1" are not.

    >>> same_class(1, 1.0), same_class(1, True), same_class(1, "1")
    (True, False, False)
    """
    return _sort(one) == _sort(other) and one == other


def is_label(value: object) -> TypeGuard[ClassLabel]:
    """Whether a value can be a class: text, a truth value or a number."""
    return _sort(value) is not None


def json_text(label: ClassLabel) -> str:
    """A label as meta.json has it."""
    return json.dumps(label, ensure_ascii=False)


def plain_label(label: Any, what: str) -> ClassLabel:
    """A class of an estimator, whatever its type there, as JSON has it.

    Raises:
        UnsupportedModelError: JSON has no such value.
    """
    value = label.item() if hasattr(label, "item") else label
    if not is_label(value):
        raise UnsupportedModelError(
            f"{what} has a class {label!r}; classes are texts, truth values or numbers"
        )
    return value


def _sort(value: object) -> str | None:
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, int | float) else None
