"""The audit log: who did what, by which way, why, and what the decision read.

1. Newest first, filtered and cut into pages here, not by whoever shows it.
2. The chain is verified from the file's first line, whatever else is in memory; a log that is no whole chain has no
   events to show, and says where it breaks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from signalserve.lab.files import Kept
from signalserve.lab.plain import mapping, moment, plain, text_of
from signalserve.lab.trail import Trail
from signalserve.lab.verdicts import Rule, failed_names, recorded_rules
from signalserve.registry import Registry, verify_log
from signalserve.registry.basis import bases_of
from signalserve.registry.errors import StorageError
from signalserve.registry.events import LOG_FILE, Action, Event
from signalserve.registry.index import INDEX_FILE

LONGEST_PAGE = 500
ACTIONS = tuple(str(action) for action in Action if action not in (Action.SUPERSEDE, Action.REMOVE))
VALID, BROKEN, NO_LOG = "valid", "broken", "no_log"


@dataclass(frozen=True)
class EventQuery:
    """What is asked of the log; an empty text stands for any.

    `actor` is looked for in the actor, `text` in reason, ids, action and actor, without case, every word of it. `page`
    counts from 1.
    """

    symbol: str = ""
    timeframe: str = ""
    model_id: str = ""
    action: str = ""
    actor: str = ""
    text: str = ""
    page: int = 1
    per_page: int = 50


@dataclass(frozen=True)
class Change:
    """One model's change of status; `before` empty: new, `after` empty: deleted."""

    symbol: str
    timeframe: str
    model_id: str
    before: str
    after: str
    digest: str


@dataclass(frozen=True)
class EventRow:
    """One revision. `outcome` says what came of it: `passed`, `refused by better`, `forced past fresh`."""

    revision: int
    time: datetime | None
    actor: str
    via: str
    action: str
    reason: str
    forced: bool
    request_id: str
    changes: tuple[Change, ...]
    subjects: tuple[str, ...]
    outcome: str


@dataclass(frozen=True)
class Decided:
    """What the gate decided of one model in an event, and the evidence that it read."""

    model_id: str
    champion: str
    rules: tuple[Rule, ...]
    failed: tuple[str, ...]
    overridden: tuple[str, ...]
    tries: int | None
    policy: Mapping[str, Any]
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class EventDetail:
    """One revision with all that its line has; `hash` covers `prev_hash` and every other field."""

    row: EventRow
    decisions: tuple[Decided, ...]
    detail: Mapping[str, Any]
    evidence: Mapping[str, Any]
    index_sha256: str
    prev_hash: str
    hash: str


@dataclass(frozen=True)
class Chain:
    """The proof of the log. `state`: `valid`, `broken` or `no_log`; `head`: the newest event's hash, or empty."""

    state: str
    text: str
    events: int
    head: str
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EventPage:
    """A page of the log; `total` events pass the filters."""

    chain: Chain
    rows: tuple[EventRow, ...]
    total: int
    page: int
    pages: int
    per_page: int
    actors: tuple[str, ...]
    actions: tuple[str, ...]


class Audit:
    """The log of one registry."""

    def __init__(self, registry: Registry, trail: Trail) -> None:
        self._registry = registry
        self._trail = trail
        self._chains: Kept[Chain] = Kept(2)

    def page(self, query: EventQuery) -> EventPage:
        """The events that pass the filters, newest first, one page of them; a page beyond the last is the last one.

        Raises:
            ValueError: the query's page makes no sense.
        """
        if query.page < 1 or not 1 <= query.per_page <= LONGEST_PAGE:
            raise ValueError(f"pages count from 1 and hold 1 to {LONGEST_PAGE} events")
        chain = self.chain()
        events = self._readable()
        found = [event for event in reversed(events) if _passes(event, query)]
        pages = max(1, math.ceil(len(found) / query.per_page))
        page = min(query.page, pages)
        start = (page - 1) * query.per_page
        return EventPage(
            chain=chain,
            rows=tuple(event_row(event) for event in found[start : start + query.per_page]),
            total=len(found),
            page=page,
            pages=pages,
            per_page=query.per_page,
            actors=tuple(sorted({text_of(event.actor) for event in events})),
            actions=tuple(sorted({text_of(event.action) for event in events})),
        )

    def event(self, revision: int) -> EventDetail | None:
        """One revision; None where there is none.

        Raises:
            StorageError: the log can't be read.
        """
        events = self._trail.events()
        if not 1 <= revision <= len(events):
            return None
        event = events[revision - 1]
        return EventDetail(
            row=event_row(event),
            decisions=tuple(_decided(record) for record in _decisions(event)),
            detail=plain(event.detail),
            evidence=plain(mapping(event.evidence)),
            index_sha256=event.index_sha256,
            prev_hash=event.prev_hash,
            hash=event.hash,
        )

    def of_model(self, model_id: str) -> tuple[EventRow, ...]:
        """All events about a model, newest first; none where the log can't be read."""
        events = reversed(self._readable())
        return tuple(event_row(event) for event in events if _is_about(event, model_id=model_id))

    def chain(self) -> Chain:
        """Whether the log is a whole chain and the index what it says; verified once a change of either."""
        return self._chains.get(self._registry.store.signature(), self._verified)

    def _verified(self) -> Chain:
        try:
            report = verify_log(self._registry.artefacts.base_dir)
        except OSError as error:
            return Chain(BROKEN, "the log can't be read", 0, "", (text_of(error.strerror or error),))
        events = self._readable()
        head = events[-1].hash if events and report.events == len(events) else ""
        problems, notes = tuple(map(text_of, report.problems)), tuple(map(text_of, report.notes))
        if not report.events:
            base = self._registry.artefacts.base_dir
            # a folder with neither a log nor an index holds no registry yet, which is nothing broken
            if problems and any((base / name).exists() for name in (LOG_FILE, INDEX_FILE)):
                return Chain(BROKEN, "the log is no whole chain", 0, "", problems, notes)
            return Chain(NO_LOG, "no event was written yet", 0, "", (), notes or problems)
        if problems:
            return Chain(BROKEN, "the proof does not hold", report.events, head, problems, notes)
        return Chain(VALID, f"{report.events} event(s), a whole chain", report.events, head, (), notes)

    def _readable(self) -> Sequence[Event]:
        try:
            return self._trail.events()
        except StorageError:
            return ()


def event_row(event: Event) -> EventRow:
    """An event, as a table shows it."""
    changes = tuple(
        Change(
            text_of(change.symbol),
            text_of(change.timeframe),
            text_of(change.model_id),
            text_of(change.before),
            text_of(change.after),
            change.digest,
        )
        for change in event.changes
    )
    about = [mapping(event.evidence).get("challenger"), mapping(event.looked).get("model_id")]
    subjects = dict.fromkeys([*(change.model_id for change in changes), *map(text_of, filter(None, about))])
    return EventRow(
        revision=event.revision,
        time=moment(event.time),
        actor=text_of(event.actor),
        via=text_of(event.via),
        action=text_of(event.action),
        reason=text_of(event.reason),
        forced=event.forced,
        request_id=text_of(event.request_id),
        changes=changes,
        subjects=tuple(subjects),
        outcome=_outcome(event),
    )


def _outcome(event: Event) -> str:
    failed = dict.fromkeys(name for record in _decisions(event) for name in failed_names(record))
    if event.looked is not None:
        return f"backtest over {text_of(event.looked.get('first'))} to {text_of(event.looked.get('last'))}"
    if event.action == Action.EVALUATE:
        said = f"refused by {', '.join(failed)}" if failed else "passed"
        recipe = mapping(mapping(mapping(event.evidence).get("evidence")).get("recipe_of"))
        return said + (f", on the evidence of {text_of(recipe['model_id'])}" if recipe else "")
    bases = {basis.text for basis in bases_of(event.evidence, forced=event.forced).values()}
    if failed and event.forced:
        return "; ".join([f"forced past {', '.join(failed)}", *sorted(bases)])
    return "; ".join(sorted(bases))


def _decisions(event: Event) -> list[Mapping[str, Any]]:
    """The records of what the gate decided in an event."""
    evidence = mapping(event.evidence)
    if "challenger" in evidence:
        return [evidence]
    found = evidence.get("decisions", ())
    return [mapping(item) for item in found] if isinstance(found, list | tuple) else []


def _decided(record: Mapping[str, Any]) -> Decided:
    tries = record.get("tries")
    overridden = record.get("overridden_verdicts", record.get("overridden_rules", ()))
    return Decided(
        model_id=text_of(record.get("challenger")),
        champion=text_of(record.get("champion")),
        rules=recorded_rules(record),
        failed=failed_names(record),
        overridden=tuple(map(text_of, overridden)) if isinstance(overridden, list | tuple) else (),
        tries=tries if isinstance(tries, int) else None,
        policy=plain(mapping(record.get("policy"))),
        evidence=plain(mapping(record.get("evidence"))),
    )


def _passes(event: Event, query: EventQuery) -> bool:
    if query.action and event.action != query.action:
        return False
    if query.actor and query.actor.casefold() not in event.actor.casefold():
        return False
    if not _is_about(event, query.symbol, query.timeframe, query.model_id):
        return False
    if not query.text.strip():
        return True
    row = event_row(event)
    parts = (row.reason, row.action, row.actor, row.via, row.request_id, row.outcome, *row.subjects)
    text = " ".join(parts).casefold()
    return all(word in text for word in query.text.casefold().split())


def _is_about(event: Event, symbol: str = "", timeframe: str = "", model_id: str = "") -> bool:
    try:
        return event.is_about(symbol, timeframe, model_id)
    except (KeyError, TypeError, ValueError):  # an evaluation that another program wrote
        return False
