"""What a promote, rollback or archive would change, before anybody confirms it; nothing is changed here.

The registry decides when it is done; this is what it looks like now. What is sent along as the expectation (`previous`)
makes a promote that came too late fail instead of surprising.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from signalserve.common.key import Key
from signalserve.lab.catalogue import Catalogue, Row
from signalserve.lab.live import LiveEngines
from signalserve.lab.verdicts import Judgement, judgement
from signalserve.registry import ModelRegistryEntry, Registry, Status
from signalserve.registry.plans import entry_of
from signalserve.registry.store import View


@dataclass(frozen=True)
class Step:
    """What would become of one key, or of one model of it.

    `model` is what the call is about: the one to be promoted, to be brought back or to be archived; `previous` what is
    in production now. `by_hand_alone`: the model that would come back was in production by an edit of the index that
    nobody confirmed. `engines` are the live engines that follow the key. `leaves_unserved`: nothing would be in
    production. `problem` says why it can't be done.
    """

    symbol: str
    timeframe: str
    model: Row | None
    previous: Row | None
    judgement: Judgement | None
    engines: tuple[str, ...]
    leaves_unserved: bool
    problem: str = ""
    by_hand_alone: bool = False


@dataclass(frozen=True)
class Preview:
    """The steps, all of which are taken or none. `needs_reason`: it is refused without one."""

    action: str
    steps: tuple[Step, ...]
    needs_reason: bool

    @property
    def possible(self) -> bool:
        """Whether nothing stands against it but the gate."""
        return all(not step.problem for step in self.steps)


class Previews:
    """Previews within one registry."""

    def __init__(self, registry: Registry, catalogue: Catalogue, engines: LiveEngines) -> None:
        self._registry = registry
        self._catalogue = catalogue
        self._engines = engines

    def promote(self, model_ids: Sequence[str], served: frozenset[str] | None = None) -> Preview:
        """Put models into production.

        Raises:
            UnknownModelError, StorageError: one is not there, or the registry can't be read.
        """
        view = self._registry.view()
        steps: list[Step] = []
        for model_id in model_ids:
            entry = entry_of(view.state, model_id)
            problem = ""
            if entry.status == Status.FAILED:
                problem = "its training failed"
            elif self._is_there(view, entry):
                problem = "it is in production already"
            elif not view.state.digests.get(model_id):
                problem = f"no digest was taken; `signalserve registry adopt {model_id}` takes one"
            judged = judgement(self._registry, view.state, model_id)
            steps.append(self._step(view, entry.key, model_id, served, judged, problem))
        return Preview("promote", tuple(steps), needs_reason=False)

    def rollback(self, keys: Sequence[tuple[str, str]], served: frozenset[str] | None = None) -> Preview:
        """Take keys back to the model before.

        Raises:
            StorageError: the registry can't be read.
        """
        view = self._registry.view()
        steps: list[Step] = []
        for key in (Key(*pair) for pair in keys):
            found = view.state.rollback_targets(key, hold=self._registry.holds_hand_edits)
            targets = [target for target in found if view.state.digests.get(target)]
            problem = "" if targets else "there is no earlier production model that may come back"
            step = self._step(view, key, targets[0] if targets else "", served, None, problem)
            by_hand = bool(targets) and not view.state.was_decided_on(targets[0])
            steps.append(replace(step, by_hand_alone=by_hand))
        return Preview("rollback", tuple(steps), needs_reason=True)

    def archive(self, model_ids: Sequence[str], served: frozenset[str] | None = None) -> Preview:
        """Retire models.

        Raises:
            UnknownModelError, StorageError: one is not there, or the registry can't be read.
        """
        view = self._registry.view()
        steps: list[Step] = []
        for model_id in model_ids:
            entry = entry_of(view.state, model_id)
            problem = (
                "its training failed; there is nothing to retire" if entry.status == Status.FAILED else ""
            )
            unserved = self._registry.standing(view.state, entry.key) == model_id
            steps.append(self._step(view, entry.key, model_id, served, None, problem, unserved=unserved))
        return Preview("archive", tuple(steps), needs_reason=any(step.leaves_unserved for step in steps))

    def _is_there(self, view: View, entry: ModelRegistryEntry) -> bool:
        """Whether a promote has nothing to decide."""
        state = view.state
        standing = self._registry.standing(state, entry.key)
        by_decision = standing == state.production(entry.key) and not state.is_by_hand(entry.model_id)
        return by_decision and standing == entry.model_id

    def _step(
        self,
        view: View,
        key: Key,
        model_id: str,
        served: frozenset[str] | None,
        judged: Judgement | None,
        problem: str,
        *,
        unserved: bool = False,
    ) -> Step:
        def row(of: str | None) -> Row | None:
            return self._catalogue.rows(view, [view.state.entries[of]], served)[0] if of else None

        return Step(
            symbol=key.symbol,
            timeframe=key.timeframe,
            model=row(model_id),
            previous=row(self._registry.standing(view.state, key)),
            judgement=judged,
            engines=tuple(engine.name for engine in self._engines.following(*key)),
            leaves_unserved=unserved,
            problem=problem,
        )
