"""Names that the registry takes."""

from __future__ import annotations

from signalserve.common.key import name_problem
from signalserve.registry.errors import InvalidArgumentError


def check_name(what: str, value: str) -> None:
    """Refuse a name that can't be used.

    Raises:
        InvalidArgumentError: it says which name and why; the reason is INVALID_SYMBOL, INVALID_MODEL_ID, ...
    """
    problem = name_problem(value)
    if problem is not None:
        raise InvalidArgumentError(
            f"{what} {value!r} {problem}", metadata={what: value}, reason=f"INVALID_{what.upper()}"
        )
