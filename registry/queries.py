"""What the registry holds, for readers. None of these writes or locks anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from signalserve.common.key import Key
from signalserve.common.log import LibraryLog
from signalserve.registry.artefact import LoadedModel
from signalserve.registry.description import Description, by_hand_text, second_row_text
from signalserve.registry.entry import ModelRegistryEntry, Status, newest_first
from signalserve.registry.events import Event
from signalserve.registry.parts import Parts
from signalserve.registry.state import RegistryState
from signalserve.registry.store import View

_USABLE = (Status.SUCCESS, Status.CANDIDATE, Status.PRODUCTION)

_log = LibraryLog("registry")


def select(
    state: RegistryState,
    *,
    symbol: str | None = None,
    timeframe: str | None = None,
    model_type: str | None = None,
    statuses: Iterable[str] = (),
) -> list[ModelRegistryEntry]:
    """The entries that pass every filter that is given, newest first; `model_type` compares without case."""
    wanted = {str(status) for status in statuses}
    return newest_first(
        entry
        for entry in state.entries.values()
        if (symbol is None or entry.symbol == symbol)
        and (timeframe is None or entry.timeframe == timeframe)
        and (model_type is None or entry.model_type.casefold() == model_type.casefold())
        and (not wanted or entry.status in wanted)
    )


def warnings_of(view: View, *, index: str, hold: bool = False) -> Iterator[str]:
    """What ops should mend, though everything goes on; `index` is what people call the index.

    `hold`: servers keep to what was decided, whatever was edited by hand.
    """
    for other, served in view.state.conflicts().items():
        yield (
            f"{other} is {second_row_text(view.state.entries[other].key, served)}; promote one of them, which "
            "archives the other"
        )
    for model_id in view.state.by_hand:
        entry = view.state.entries.get(model_id)
        if entry is not None and model_id in (
            view.state.production(entry.key),
            view.state.standing(entry.key, hold=hold),
        ):
            yield f"{entry.key}: {by_hand_text(model_id)}"
    if hold:
        for key, decided in sorted(view.state.unconfirmed().items()):
            if decided is not None and decided not in view.state.entries:
                what = f"{decided} went by hand, row and folder: nothing is served"
            else:
                what = f"the index was edited by hand; {decided or 'nothing'} is served"
            yield f"{key}: {what} until `signalserve registry confirm` (promotion.hand_edits: hold)"
    yield from view.warnings
    for row in view.unreadable:
        yield f"{index}, {row}; the row counts for nothing until it is mended"


class Queries(Parts):
    """Listing, finding, opening, describing."""

    def models(
        self,
        symbol: str | None = None,
        timeframe: str | None = None,
        model_type: str | None = None,
        statuses: Iterable[str] = (),
    ) -> list[ModelRegistryEntry]:
        """The entries that pass every filter, newest first."""
        return select(
            self.state, symbol=symbol, timeframe=timeframe, model_type=model_type, statuses=statuses
        )

    def latest(self, symbol: str, timeframe: str, model_type: str | None = None) -> ModelRegistryEntry | None:
        """The newest entry of status success, candidate or production whose artefacts are valid.

        Broken ones are passed over with a warning; no file is changed.
        """
        state = self.state
        found = select(state, symbol=symbol, timeframe=timeframe, model_type=model_type, statuses=_USABLE)
        return next((entry for entry in found if self._is_valid(state, entry)), None)

    def latest_production(
        self, symbol: str, timeframe: str, model_type: str | None = None
    ) -> ModelRegistryEntry | None:
        """The production model of a key, if its artefacts are valid; a row that was set by hand counts."""
        state = self.state
        model_id = state.production(Key(symbol, timeframe))
        if model_id is None:
            return None
        entry = state.entries[model_id]
        if model_type is not None and entry.model_type.casefold() != model_type.casefold():
            return None
        return entry if self._is_valid(state, entry) else None

    def load(self, model_id: str) -> LoadedModel:
        """The fitted model and its metadata.

        This opens `model.joblib`, after its digest was checked where one was taken; a legacy folder is opened on
        the caller's word.

        Raises:
            UnknownModelError, ArtefactError: there is none, or it is not what was registered.
        """
        artefact = self.artefact(model_id)
        meta = artefact.meta()
        return LoadedModel(artefact.load(), meta)

    def descriptions(
        self, view: View, entries: Iterable[ModelRegistryEntry], *, thorough: bool = False
    ) -> Iterator[Description]:
        """For each entry its digest, engine, problems and basis, as of a view; `thorough` reads every file."""
        winners = view.state.conflicts()
        for entry in entries:
            artefact = self.artefact_of(view.state, entry.model_id)
            found = artefact.describe(
                thorough=thorough,
                winner=winners.get(entry.model_id, ""),
                by_hand=view.state.is_by_hand(entry.model_id, hold=self.holds_hand_edits),
                refit_of=view.state.refits.get(entry.model_id, ""),
            )
            yield replace(found, basis=view.state.basis(entry.model_id, hold=self.holds_hand_edits))

    def events(self, since: int = 0) -> Sequence[Event]:
        """The audit log after a revision, oldest first.

        Raises:
            StorageError: it can't be read.
        """
        return self.store.events(since)

    def _is_valid(self, state: RegistryState, entry: ModelRegistryEntry) -> bool:
        found = self.artefact_of(state, entry.model_id).describe(thorough=True)
        if not found:
            _log.warning("registry.entry_passed_over", model_id=entry.model_id, problems=list(found.problems))
        return bool(found)
