"""What there is to say of a model's files, for listings, pages and people."""

from __future__ import annotations

from dataclasses import dataclass

from signalserve.common.key import Key
from signalserve.registry.basis import Basis


@dataclass(frozen=True)
class Description:
    """What there is to say of an entry's files; false in a condition where they can't be used.

    `engine` is `legacy` where no digest was ever taken, empty where there is nothing to serve. `problems` stop
    the model from serving; `warnings` are what does not: an importance file that was edited, say. `not_servable` is
    why the model will not be served, as its registration found: its files may be whole all the same. `by_hand`: an edit
    of the index put it into production. `basis`: what a candidate, or a model in production, was let in on. `refit_of`:
    the model by whose recipe it was refitted on all bars, and whose evidence it carries; empty for none.
    """

    digest: str = ""
    engine: str = ""
    engine_reason: str = ""
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    not_servable: str = ""
    by_hand: bool = False
    basis: Basis | None = None
    refit_of: str = ""

    def __bool__(self) -> bool:
        return not self.problems


def second_row_text(key: Key, winner: str) -> str:
    """What is wrong with a production row that loses against another of its key."""
    return f"a second production row of {key}: {winner} counts"


def by_hand_text(model_id: str) -> str:
    """What is said of a model that an edit of the index put into production."""
    return f"{model_id} was put into production by hand, without evidence"
