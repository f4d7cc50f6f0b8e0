"""What people do to the index by hand: given an event of its own, confirmed, or accepted where it was asked about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from signalserve.common.key import Key
from signalserve.registry.answers import Committed
from signalserve.registry.errors import NotFoundError
from signalserve.registry.events import Action, Event, StatusChange
from signalserve.registry.folder_store import read_kept
from signalserve.registry.parts import Parts
from signalserve.registry.plans import Transition
from signalserve.registry.store import Acceptance, Draft, KeptIndex, Origin


@dataclass(frozen=True)
class AcceptancePlan:
    """An index that somebody may accept, and what it would change."""

    index: KeptIndex
    effect: Acceptance


class HandEdits(Parts):
    """Decisions on the index that were made in an editor."""

    def record_edits(self, *, via: str = "python") -> None:
        """Give what was edited by hand an event, if nobody is writing now.

        An index without any log is left to its owner's first change.

        Raises:
            RegistryMissingError, StorageError: it can't be read or written.
            RegistryBusyError: another writer has its turn.
        """
        view = self.view(wait=True)
        if view.edited_outside and view.state.revision:
            with self.store.transaction(Origin("unknown", via), seconds=0.0):
                pass  # a writer's turn begins with what others did

    def confirm(
        self, keys: Iterable[Key] = (), *, reason: str = "", actor: str = "", via: str = "python"
    ) -> Committed | None:
        """Decide that what the index was edited to is in production, of these keys or of all; None where nothing waits.

        It is no evidence, and clears no quarantine. A transition says what its key has now and what had been decided;
        either may be empty.

        Raises:
            NotFoundError: a key has nothing that waits to be confirmed.
            RegistryMissingError, RegistryBusyError, StorageError: as for any change.
        """
        with self.store.transaction(Origin(actor, via, reason=reason)) as transaction:
            state = transaction.state
            waiting, now = state.unconfirmed(), state.productions()
            chosen = list(dict.fromkeys(keys)) or sorted(waiting)
            for key in chosen:
                if key not in waiting:
                    raise NotFoundError(
                        f"{key}: nothing of it waits to be confirmed", reason="NOTHING_TO_CONFIRM"
                    )
            if not chosen:
                return None
            changes = tuple(
                StatusChange(*key, now[key], "production", "production", state.digests.get(now[key], ""))
                for key in chosen
                if key in now
            )
            results = tuple(Transition(*key, now.get(key, ""), waiting[key] or "") for key in chosen)
            detail = {
                "keys": [[key.symbol, key.timeframe] for key in chosen],
                "result": [asdict(result) for result in results],
            }
            event = transaction.commit(Draft(Action.CONFIRM, changes, detail))
            return Committed(event.revision, results, head=event.hash)

    def plan_acceptance(self, file: Path | None = None) -> AcceptancePlan:
        """What `accept_index` would take, and what that would change. Changes nothing.

        Raises:
            NotFoundError: there is none.
            InvalidArgumentError: none of its rows can be read.
            ArtefactError: a model would go into production whose folder is not there.
            RegistryMissingError, StorageError: it, or the registry, can't be read.
        """
        index = self.store.asked_about() if file is None else read_kept(file)
        if index is None:
            raise NotFoundError(
                "no index is asked about, and none was kept aside", reason="NOTHING_TO_ACCEPT"
            )
        return AcceptancePlan(index, self.store.plan_acceptance(index.content))

    def accept_index(
        self,
        file: Path | None = None,
        *,
        confirmed: AcceptancePlan | None = None,
        reason: str = "",
        actor: str = "",
        via: str = "python",
    ) -> Event | None:
        """Take an index that is asked about, or another file of its form, as a decision; None where it changes nothing.

        By default the one that lies there, or else the one that was kept aside last. A row that is missing deletes
        nothing while the model's folder stands. A `confirmed` plan is carried out as it was shown, or not at all.

        Raises:
            PreconditionError: what was confirmed is not what it would do any more.
            NotFoundError, InvalidArgumentError, ArtefactError: as for `plan_acceptance`.
            RegistryMissingError, RegistryBusyError, StorageError: as for any change.
        """
        plan = confirmed or self.plan_acceptance(file)
        shown = None if confirmed is None else confirmed.effect
        return self.store.accept(plan.index.content, Origin(actor, via, reason=reason), shown=shown)
