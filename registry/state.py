"""What the log says: the registry's state as a fold over its events.

The rules that this module keeps:
1. `entries` are the index's rows in their order; `raw_rows` the rows that nobody can read.
2. A key's `history` is the stack of its production models, oldest first; the last is in production, if
   any is. Promote and hand edits push. Rollback takes off all above its target. What is archived stays, so a rollback
   after it brings that model back. Deleting a model removes it from the stack.
3. A model that a rollback left behind is quarantined until a promote takes it on again, also where its row goes and is
   put back.
4. `digests` holds the artefact digest that register or adopt took; no other digest counts. It stays when a model goes,
   and so does `not_servable`: a row that is put back is the model that it was.
5. Where an index edited from outside has two production rows of one key, the one that the log put there
   last wins, then the newest; the others are flagged in `conflicts`.
6. `evidence` holds the record of each model's last evaluation, until it is archived: what comes back is
   evaluated anew. `looks` are the spans of bars on which a key's models were measured, by an evaluation, a backtest or,
   as they were registered, by their training; they stay when the models go.
7. `not_servable` says why a model will not be served, where its registration or adoption found so.
8. `decided` is each key's last production that somebody decided on: by promote or rollback, or by confirming what was
   edited by hand. A hand edit changes what is in production and not what was decided, be it that the row goes, and
   clears no quarantine. `by_hand` are the models that an edit put into production, by its revision, until a promote
   takes them on; to be confirmed, or taken out and put back by hand, is no evidence, nor is a rollback to one that
   nobody had decided on.
9. `let_in` is what the last decision read that made a model a candidate or put it into production; what an edit by hand
   moved has none, but for what had been decided.
10. `registered` is when each model was registered or adopted: nobody can have trained it on later bars.
11. `refits` is, of each model that was refitted on all bars by the recipe of another, that other one, as the register
    event names it; it stays when the models go. What it carries of that one's evaluations is no look of its own.
12. Nothing here reads a file or a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from signalserve.common.key import Key
from signalserve.common.moments import parse_moment
from signalserve.registry.basis import Basis, bases_of
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.events import Action, Event, StatusChange
from signalserve.registry.index import render_index


class Look(NamedTuple):
    """A model was measured on the bars from `first` to `last`: open times, as ISO text.

    `evaluation`: by an evaluation or a backtest, each of which counts, and not by its training.
    """

    model_id: str
    first: str
    last: str
    evaluation: bool


class Answer(NamedTuple):
    """What a request_id was answered: what a repeat needs of the event that it made.

    `asked` is a fingerprint of the request, `result` the transitions, `error` why a training failed.
    """

    revision: int
    hash: str
    action: str
    changes: tuple[StatusChange, ...]
    asked: str = ""
    result: tuple[Mapping[str, Any], ...] = ()
    error: str = ""

    @classmethod
    def of(cls, event: Event) -> Answer:
        """The answer that an event is."""
        detail = event.detail
        return cls(
            event.revision,
            event.hash,
            event.action,
            event.changes,
            str(detail.get("request_sha256", "")),
            tuple(detail.get("result", ())),
            str(detail.get("error", "")),
        )


@dataclass
class RegistryState:
    """The registry at one revision. Treat it as read-only; `apply` belongs to the store."""

    revision: int = 0
    entries: dict[str, ModelRegistryEntry] = field(default_factory=dict)
    raw_rows: tuple[str, ...] = ()
    history: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    quarantined: set[str] = field(default_factory=set)
    digests: dict[str, str] = field(default_factory=dict)
    put_in_production: dict[str, int] = field(default_factory=dict)
    requests: dict[str, Answer] = field(default_factory=dict)
    used_ids: set[str] = field(default_factory=set)
    evidence: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    looks: dict[Key, tuple[Look, ...]] = field(default_factory=dict)
    not_servable: dict[str, str] = field(default_factory=dict)
    decided: dict[Key, str] = field(default_factory=dict)
    by_hand: dict[str, int] = field(default_factory=dict)
    in_production: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    registered: dict[str, str] = field(default_factory=dict)
    let_in: dict[str, Basis] = field(default_factory=dict)
    refits: dict[str, str] = field(default_factory=dict)

    def copy(self) -> RegistryState:
        """An independent copy; entries and events are frozen and shared."""
        return RegistryState(
            self.revision,
            dict(self.entries),
            self.raw_rows,
            dict(self.history),
            set(self.quarantined),
            dict(self.digests),
            dict(self.put_in_production),
            dict(self.requests),
            set(self.used_ids),
            dict(self.evidence),
            dict(self.looks),
            dict(self.not_servable),
            dict(self.decided),
            dict(self.by_hand),
            dict(self.in_production),
            dict(self.registered),
            dict(self.let_in),
            dict(self.refits),
        )

    def production(self, key: Key) -> str | None:
        """The model in production for a key, None for none."""
        rows = self._production_rows(key)
        return rows[-1].model_id if rows else None

    def productions(self) -> dict[Key, str]:
        """The model in production of every key that has one."""
        return {key: self._production_rows(key)[-1].model_id for key in self.in_production}

    def decision(self, key: Key) -> str | None:
        """The model of a key that was decided on last, None for none and where its entry has gone."""
        model_id = self.decided.get(key)
        return model_id if model_id in self.entries else None

    def standing(self, key: Key, *, hold: bool) -> str | None:
        """The model that servers have for a key: what is in production, or where edits are held what was decided."""
        return self.decision(key) if hold else self.production(key)

    def is_by_hand(self, model_id: str, *, hold: bool = False) -> bool:
        """Whether a model is in production, or served where edits are held, by an edit and without evidence."""
        entry = self.entries[model_id]
        in_production = entry.status == Status.PRODUCTION or (hold and self.decision(entry.key) == model_id)
        return in_production and model_id in self.by_hand

    def basis(self, model_id: str, *, hold: bool = False) -> Basis | None:
        """What the place of a candidate, or of a model in production, rests on; None for any other.

        Where edits are held (`hold`), what was decided is in production, whatever its row says.
        """
        entry = self.entries[model_id]
        decided = hold and self.decision(entry.key) == model_id
        if entry.status not in (Status.CANDIDATE, Status.PRODUCTION) and not decided:
            return None
        by_hand = self.is_by_hand(model_id, hold=hold)
        return Basis("by_hand") if by_hand else self.let_in.get(model_id, Basis("by_hand"))

    def was_decided_on(self, model_id: str) -> bool:
        """Whether a model was ever promoted, rolled back to, confirmed, or in production before there was a log."""
        return model_id in self.put_in_production

    def unconfirmed(self) -> dict[Key, str | None]:
        """What was decided, None for nothing, for each key of which an edit by hand made something else."""
        now = self.productions()
        return {
            key: self.decided.get(key)
            for key in {**self.decided, **now}
            if self.decided.get(key) != now.get(key)
        }

    def conflicts(self) -> dict[str, str]:
        """model_id -> the model that wins, for production rows that lose against another of their key."""
        several = {
            key: self.production_rows(key) for key, rows in self.in_production.items() if len(rows) > 1
        }
        return {loser: rows[-1] for rows in several.values() for loser in rows[:-1]}

    def production_rows(self, key: Key) -> list[str]:
        """Every row of a key that says production, the winner last."""
        return [entry.model_id for entry in self._production_rows(key)]

    def rollback_targets(self, key: Key, *, hold: bool = False) -> list[str]:
        """Earlier production models of a key that may come back, the nearest first.

        Where edits are held (`hold`), none that was in production by an edit alone: it was never served.
        """
        current = self.standing(key, hold=hold)
        seen: list[str] = []
        for model_id in reversed(self.history.get(key, ())):
            entry = self.entries.get(model_id)
            if (
                model_id != current
                and model_id not in seen
                and model_id not in self.quarantined
                and entry is not None
                and entry.status == Status.ARCHIVED
                and (not hold or self.was_decided_on(model_id))
            ):
                seen.append(model_id)
        return seen

    def keys(self) -> set[Key]:
        """Every key that has an entry."""
        return {entry.key for entry in self.entries.values()}

    def tries(self, key: Key, window_start: str, window_end: str) -> int:
        """How many looks at bars of this span the key's models have had: each was a chance to be lucky on them.

        Each evaluation and each backtest counts, and so does each model that its training alone measured there.
        """
        start, end = parse_moment(window_start), parse_moment(window_end)
        seen = [
            look
            for look in self.looks.get(key, ())
            if parse_moment(look.first) <= end and parse_moment(look.last) >= start
        ]
        evaluated = [look.model_id for look in seen if look.evaluation]
        return len(evaluated) + len({look.model_id for look in seen} - set(evaluated))

    def render(self) -> bytes:
        """The index file of this state."""
        return render_index(self.entries.values(), self.raw_rows)

    def apply(self, event: Event) -> None:
        """Take in the next event."""
        self.revision = event.revision
        detail = event.detail
        for row in detail.get("entries", ()):
            entry = ModelRegistryEntry.from_row(row)
            self._put(entry)
            self.used_ids.add(entry.model_id)
        if "raw_rows" in detail:
            self.raw_rows = tuple(detail["raw_rows"])
        unmoved = {
            change.model_id
            for change in event.changes
            if change.before is not None
            and change.before == change.after
            and not self.decides(event.action, change, event.evidence)
        }
        bases = bases_of(event.evidence, forced=event.forced)
        for change in event.changes:
            if change.model_id in bases and change.after in (Status.CANDIDATE, Status.PRODUCTION):
                self.let_in[change.model_id] = bases[change.model_id]
            if change.model_id not in unmoved:  # what stays where it is was not decided on
                self._apply_change(event, change.model_id, Key(change.symbol, change.timeframe), change.after)
            if change.digest:
                self.digests[change.model_id] = change.digest
        if event.action in (Action.REGISTER, Action.ADOPT):
            self._take_trial(event)
        if event.action == Action.EVALUATE and event.evidence is not None:
            challenger = event.evidence["challenger"]
            self.take_evidence(challenger, Key(*detail["key"]), event.evidence["evidence"])
            candidate = challenger in self.entries and self.entries[challenger].status == Status.CANDIDATE
            if candidate and not event.evidence.get("failed_verdicts", event.evidence.get("failed_rules")):
                self.let_in[challenger] = bases[challenger]
        elif "tested" in detail:
            (made,) = event.changes
            self._looked(
                Key(made.symbol, made.timeframe),
                Look(made.model_id, detail["tested"][0], detail["tested"][1], evaluation=False),
            )
        if event.action == Action.LOOK:
            span = (str(detail["first"]), str(detail["last"]))
            self._looked(Key(*detail["key"]), Look(detail["model_id"], *span, evaluation=True))
        if event.action == Action.CONFIRM or detail.get("accepted"):
            self._confirm([Key(*key) for key in detail["keys"]] if "keys" in detail else None)
        self.quarantined |= set(detail.get("quarantined", ()))
        if event.action == Action.REPAIR:  # what lines that it proves had ended already
            self.quarantined -= set(detail.get("released", ()))
            for model_id in detail.get("evidence_ended", ()):
                self.evidence.pop(model_id, None)
        if event.request_id:
            self.requests[event.request_id] = Answer.of(event)

    def decides(self, action: str, change: StatusChange, evidence: Mapping[str, Any] | None) -> bool:
        """Whether a change that leaves a status as it is decides something all the same.

        So does a promote of a second production row, or of one that was made by hand and is judged now; and an archive
        of what was decided on, though its row was edited away.
        """
        key = Key(change.symbol, change.timeframe)
        if action == Action.PROMOTE:
            judged = {item.get("challenger") for item in (evidence or {}).get("decisions", ())}
            return self.production(key) != change.model_id or change.model_id in judged
        return action == Action.ARCHIVE and self.decided.get(key) == change.model_id

    def take_evidence(self, model_id: str, key: Key, record: Mapping[str, Any]) -> None:
        """Keep an evaluation's record, and that it looked at its bars."""
        self.evidence[model_id] = record
        window = record["window_start"], record["window_end"]
        if not (record.get("recipe_of") and self.was_measured(self.refits.get(model_id, ""), key, *window)):
            self._looked(key, Look(model_id, *window, evaluation=True))

    def was_measured(self, model_id: str, key: Key, window_start: str, window_end: str) -> bool:
        """Whether the log has an evaluation of a model on these very bars."""
        return Look(model_id, window_start, window_end, evaluation=True) in self.looks.get(key, ())

    def _take_trial(self, event: Event) -> None:
        for change in event.changes:
            self.registered[change.model_id] = event.time
            if "refit_of" in event.detail:
                self.refits[change.model_id] = event.detail["refit_of"]["model_id"]
            why = not_servable_of(event.detail)
            self.not_servable.pop(change.model_id, None)
            if why:
                self.not_servable[change.model_id] = why.removeprefix(f"{change.model_id}: ")

    def _looked(self, key: Key, look: Look) -> None:
        self.looks[key] = (*self.looks.get(key, ()), look)

    def _apply_change(self, event: Event, model_id: str, key: Key, after: str | None) -> None:
        stack = self.history.get(key, ())
        by_hand = event.action in (Action.EXTERNAL_EDIT, Action.REPAIR)
        is_decided = self.decided.get(key) == model_id
        if not is_decided if by_hand else after is None:
            self.let_in.pop(model_id, None)
        if after != Status.PRODUCTION:
            if not by_hand or not is_decided:
                self.by_hand.pop(model_id, None)
            if is_decided and not by_hand:
                del self.decided[key]
        elif by_hand:
            if not is_decided:
                self.by_hand[model_id] = event.revision
            if event.revision == 1:  # a legacy registry's own production, of which no log could speak
                self.put_in_production.setdefault(model_id, 0)
        else:
            if event.action == Action.ROLLBACK and not self.was_decided_on(model_id):
                self.by_hand[model_id] = event.revision
            else:
                self.by_hand.pop(model_id, None)
            self.decided[key] = model_id
        if after is None:
            self._drop(model_id)
            self.evidence.pop(model_id, None)
            self.history[key] = tuple(other for other in stack if other != model_id)
            return
        entry = self.entries[model_id]
        self._put(entry.with_status(after))
        if after == Status.ARCHIVED:
            self.evidence.pop(model_id, None)
        if after == Status.PRODUCTION:
            if event.action == Action.ROLLBACK:
                while stack and stack[-1] != model_id:
                    stack = stack[:-1]
            elif not stack or stack[-1] != model_id:
                stack = (*stack, model_id)
            if not by_hand:
                self.put_in_production[model_id] = event.revision
                self.quarantined.discard(model_id)
        self.history[key] = stack

    def _production_rows(self, key: Key) -> list[ModelRegistryEntry]:
        return sorted(
            (self.entries[model_id] for model_id in self.in_production.get(key, ())), key=self._claim
        )

    def _put(self, entry: ModelRegistryEntry) -> None:
        self._drop(entry.model_id, gone=False)
        self.entries[entry.model_id] = entry
        if entry.status == Status.PRODUCTION:
            self.in_production[entry.key] = (*self.in_production.get(entry.key, ()), entry.model_id)

    def _drop(self, model_id: str, *, gone: bool = True) -> None:
        entry = self.entries.get(model_id)
        if entry is None:
            return
        if entry.status == Status.PRODUCTION:
            left = tuple(other for other in self.in_production[entry.key] if other != model_id)
            if left:
                self.in_production[entry.key] = left
            else:
                del self.in_production[entry.key]
        if gone:  # a row that is written anew keeps its place
            del self.entries[model_id]

    def _confirm(self, keys: list[Key] | None) -> None:
        now = self.productions()
        for key in {**self.decided, **now} if keys is None else keys:
            self.decided.pop(key, None)
            if key in now:
                self.decided[key] = now[key]
                self.put_in_production[now[key]] = self.revision

    def _claim(self, entry: ModelRegistryEntry) -> tuple[int, Any]:
        return self.put_in_production.get(entry.model_id, 0), entry.created


def not_servable_of(detail: Mapping[str, Any]) -> str:
    """Why the model of a registration or an adoption will not be served, by its event's detail; empty where it will."""
    return str(detail.get("not_sealed") or detail.get("not_servable") or "")
