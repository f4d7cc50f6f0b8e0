"""The registry as a table: filtered, sorted and cut into pages before any model's files are looked at.

1. What orders and filters comes from the index and the log: the engine of every model is in the event that took its
   digest. So the files of the page's rows alone are opened, whatever the registry's size.
2. It is read as it stands: being written, empty, or not there, in which case nothing is made.
3. What is broken stays in the table and says what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from signalserve.lab.engines import Engine, engine_of, engines_of
from signalserve.lab.order import STATUSES, VALUES, ordered
from signalserve.lab.plain import number, text_of
from signalserve.lab.trail import Trail
from signalserve.registry import Artefact, ModelRegistryEntry, Registry, Status
from signalserve.registry.errors import RegistryError
from signalserve.registry.plans import entry_of
from signalserve.registry.queries import select, warnings_of
from signalserve.registry.store import View

SORTS = (
    "created_at",
    "model_id",
    "symbol",
    "timeframe",
    "model_type",
    "status",
    "sharpe",
    "cum_return",
    "engine",
    "served",
)
LONGEST_PAGE = 500
MISSING, EMPTY, FILLED = "missing", "empty", "filled"


@dataclass(frozen=True)
class Query:
    """What is asked of the table; an empty text and an empty tuple stand for any.

    `text` is looked for in model_id, symbol, timeframe, type and status, without case, every word of it. `sort` is one
    of `SORTS`; what has no value comes last either way. `page` counts from 1.
    """

    symbol: str = ""
    timeframe: str = ""
    model_type: str = ""
    statuses: tuple[str, ...] = ()
    text: str = ""
    sort: str = "created_at"
    descending: bool = True
    page: int = 1
    per_page: int = 50


@dataclass(frozen=True)
class LetIn:
    """What a candidate, or a model in production, was let in on, as `registry.basis` has it; `text` is it in words.

    `gate`: evidence, none, forced, other or by_hand; costs in basis points a side, null without an evaluation;
    `measured_by`: trainer, evaluate, brought or empty; `training_span`: whose word it is that no bar was trained on,
    `registered` (the log's) or `declared` (the files' alone).
    """

    gate: str
    fee_bps: float | None
    slippage_bps: float | None
    measured_by: str
    training_span: str
    text: str


@dataclass(frozen=True)
class Row:
    """One model of the table.

    `sharpe_se`: the standard error of `sharpe`, where its metadata have it.
    `in_production`: it is what the registry has in production for its key, where edits are held what was decided.
    `by_hand`: an edit of the index put it there, without evidence. `refit_of`: the model by whose recipe it was
    refitted on all bars, and whose evidence it carries. `served`: it answers for its key now; None
    where the server does not say. `metadata`: `registered` where meta.json is the one whose digest the log has and
    names a training span, `edited` where it is another one by now, `unknown` where none is named. `let_in`: null but
    for candidates and what is in production. `problems` stop it from serving.
    """

    model_id: str
    symbol: str
    timeframe: str
    model_type: str
    status: str
    created_at: datetime | None
    cum_return: float | None
    sharpe: float | None
    sharpe_se: float | None
    digest: str
    engine: str
    engine_reason: str
    quarantined: bool
    by_hand: bool
    refit_of: str
    in_production: bool
    served: bool | None
    metadata: str
    let_in: LetIn | None
    problems: tuple[str, ...]

    @property
    def broken(self) -> bool:
        """Whether its files can't be used."""
        return bool(self.problems)


@dataclass(frozen=True)
class RegistryInfo:
    """The registry behind a page. `state`: `missing` (no such folder), `empty`, `filled`; `text` says what to do."""

    location: str
    state: str
    text: str
    revision: int
    models: int
    warnings: tuple[str, ...] = ()
    edited_outside: bool = False


@dataclass(frozen=True)
class Page:
    """A page of the table; `total` models pass the filters. The choices are those of the whole registry."""

    registry: RegistryInfo
    rows: tuple[Row, ...]
    total: int
    page: int
    pages: int
    per_page: int
    symbols: tuple[str, ...]
    timeframes: tuple[str, ...]
    model_types: tuple[str, ...]
    counts: Mapping[str, int]


class Catalogue:
    """The table, and the rows that other pages show."""

    def __init__(self, registry: Registry, trail: Trail) -> None:
        self._registry = registry
        self._trail = trail

    def page(self, query: Query, served: frozenset[str] | None = None) -> Page:
        """The models that pass the filters, in order, one page of them. `served`: as `ServerState.served`.

        A page beyond the last is the last one.

        Raises:
            StorageError: the registry can't be read.
            ValueError: the query names another sort or status.
        """
        _check(query)
        view = self._registry.view()
        entries = list(view.state.entries.values())
        found = [entry for entry in entries if _passes(entry, query)]
        found = ordered(found, self._value_of(query.sort, view, served), descending=query.descending)
        pages = max(1, math.ceil(len(found) / query.per_page))
        page = min(query.page, pages)
        start = (page - 1) * query.per_page
        return Page(
            registry=self.registry_info(view),
            rows=tuple(self.rows(view, found[start : start + query.per_page], served)),
            total=len(found),
            page=page,
            pages=pages,
            per_page=query.per_page,
            symbols=_choices(entry.symbol for entry in entries),
            timeframes=_choices(entry.timeframe for entry in entries),
            model_types=_choices(entry.model_type for entry in entries),
            counts={status: sum(entry.status == status for entry in entries) for status in STATUSES},
        )

    def usable(self, symbol: str, timeframe: str, served: frozenset[str] | None = None) -> tuple[Row, ...]:
        """A key's models of status success, candidate and production whose artefacts are valid, newest first.

        Every file is hashed: that is what valid means.

        Raises:
            StorageError: the registry can't be read.
        """
        view = self._registry.view()
        usable = (Status.SUCCESS, Status.CANDIDATE, Status.PRODUCTION)
        entries = select(view.state, symbol=symbol, timeframe=timeframe, statuses=usable)
        return tuple(row for row in self.rows(view, entries, served, thorough=True) if not row.problems)

    def row(self, model_id: str, served: frozenset[str] | None = None) -> Row:
        """One model's row.

        Raises:
            UnknownModelError, StorageError: there is none, or the registry can't be read.
        """
        view = self._registry.view()
        (row,) = self.rows(view, [entry_of(view.state, model_id)], served)
        return row

    def rows(
        self,
        view: View,
        entries: Sequence[ModelRegistryEntry],
        served: frozenset[str] | None = None,
        *,
        thorough: bool = False,
    ) -> list[Row]:
        """The rows of some entries, as of a view; looks at their files."""
        engines = self._engines()
        found = self._registry.descriptions(view, entries, thorough=thorough)
        rows: list[Row] = []
        for entry, description in zip(entries, found, strict=True):
            artefact = self._registry.artefact_of(view.state, entry.model_id)
            engine, basis = engine_of(entry, view, engines), description.basis
            # why it is native or legacy, and why no server will open it, where it was registered with that word
            reasons = (description.engine_reason or engine.reason, description.not_servable)
            rows.append(
                Row(
                    model_id=entry.model_id,
                    symbol=entry.symbol,
                    timeframe=entry.timeframe,
                    model_type=text_of(entry.model_type),
                    status=entry.status,
                    created_at=entry.created if entry.is_dated else None,
                    cum_return=number(entry.cum_return),
                    sharpe=number(entry.sharpe),
                    sharpe_se=_sharpe_se(artefact),
                    digest=description.digest,
                    engine=description.engine or engine.name,
                    engine_reason=text_of("; ".join(dict.fromkeys(filter(None, reasons)))),
                    quarantined=entry.model_id in view.state.quarantined,
                    by_hand=description.by_hand,
                    refit_of=description.refit_of,
                    in_production=self._registry.standing(view.state, entry.key) == entry.model_id,
                    served=None if served is None else entry.model_id in served,
                    metadata=_metadata(artefact),
                    let_in=None if basis is None else LetIn(**basis._asdict(), text=basis.text),
                    problems=tuple(map(text_of, description.problems)),
                )
            )
        return rows

    def registry_info(self, view: View | None = None) -> RegistryInfo:
        """Where the registry is and what it holds.

        Raises:
            StorageError: the registry can't be read.
        """
        view = self._registry.view() if view is None else view
        base = self._registry.artefacts.base_dir
        count = len(view.state.entries)
        if not self._registry.store.exists():
            what = "holds no registry: is its disk mounted?" if base.is_dir() else "does not exist yet:"
            state, text = MISSING, f"{base} {what} `signalserve train` makes one with its first model"
        elif not count:
            state, text = EMPTY, f"{base} holds no model yet: `signalserve train` trains and registers one"
        else:
            state, text = FILLED, f"{count} model(s), revision {view.state.revision}"
        return RegistryInfo(
            location=str(base),
            state=state,
            text=text,
            revision=view.state.revision,
            models=count,
            warnings=tuple(
                map(
                    text_of,
                    warnings_of(view, index="registry_index.csv", hold=self._registry.holds_hand_edits),
                )
            ),
            edited_outside=view.edited_outside,
        )

    def _value_of(
        self, sort: str, view: View, served: frozenset[str] | None
    ) -> Callable[[ModelRegistryEntry], Any]:
        """What a column sorts by; None where an entry has no value."""
        if sort == "engine":
            engines = self._engines()
            return lambda entry: engine_of(entry, view, engines).name or None
        if sort == "served":
            return lambda entry: None if served is None else entry.model_id in served
        return VALUES[sort]

    def _engines(self) -> Mapping[str, Engine]:
        return self._trail.folded(engines_of)


def _sharpe_se(artefact: Artefact) -> float | None:
    try:
        return number((artefact.meta().metrics or {}).get("sharpe_se"))
    except RegistryError:
        return None


def _metadata(artefact: Artefact) -> str:
    try:
        stated = artefact.meta().train_end
    except RegistryError:
        return "unknown"
    if not stated:
        return "unknown"
    try:
        artefact.proven_meta()
    except RegistryError:
        return "edited"
    return "registered"


def _check(query: Query) -> None:
    if query.sort not in SORTS:
        raise ValueError(f"sort {query.sort!r} is none of {', '.join(SORTS)}")
    for status in query.statuses:
        if status not in STATUSES:
            raise ValueError(f"status {status!r} is none of {', '.join(STATUSES)}")
    if query.page < 1 or not 1 <= query.per_page <= LONGEST_PAGE:
        raise ValueError(f"pages count from 1 and hold 1 to {LONGEST_PAGE} models")


def _passes(entry: ModelRegistryEntry, query: Query) -> bool:
    if query.statuses and entry.status not in query.statuses:
        return False
    if query.symbol and entry.symbol != query.symbol:
        return False
    if query.timeframe and entry.timeframe != query.timeframe:
        return False
    if query.model_type and entry.model_type.casefold() != query.model_type.casefold():
        return False
    if not query.text.strip():
        return True
    text = f"{entry.model_id} {entry.symbol} {entry.timeframe} {entry.model_type} {entry.status}".casefold()
    return all(word in text for word in query.text.casefold().split())


def _choices(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(map(text_of, values))))
