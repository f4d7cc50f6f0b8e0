"""Proofs that are made before the registry's lock is taken, since hashing and opening a model take time.

1. A proof is of a model_id and a digest. Under the lock only digests are compared.
2. Where the state under the lock asks for a proof that was not made, the lock is let go and it is made.
3. Who serves hands in how a model is proven: it opens it as it would serve it. Anybody else checks the files, and has a
   fresh process open a model of which the registration said that it will not be served.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from signalserve.common.key import Key
from signalserve.predictors.trial import tried_in_fresh_process
from signalserve.registry.artefact import Artefact
from signalserve.registry.errors import (
    ArtefactError,
    NotAdoptedError,
    NotServableError,
    RegistryBusyError,
    no_digest,
    not_servable,
)
from signalserve.registry.plans import check_rollback_expected, nothing_to_roll_back_to, rollback_candidates
from signalserve.registry.state import RegistryState

# raises what `proven_here` raises
Prove = Callable[[Artefact], object]
T = TypeVar("T")

_TRIES = 5
_UNPROVEN = (ArtefactError, NotAdoptedError, NotServableError)


def proven_here(artefact: Artefact) -> None:
    """As `Artefact.prove`, for who serves nothing: what was found not servable must open in a fresh process by now.

    That takes a minute at most, and unpickles `model.joblib` there. Any other model was tried as it was registered.

    Raises:
        NotAdoptedError, ArtefactError: its files can't be proven.
        NotServableError: no server can open it still.
    """
    digest = artefact.prove().digest
    if artefact.not_servable and (why := tried_in_fresh_process(artefact.folder, digest)):
        raise not_servable(artefact.entry.model_id, why)


class ProofMissingError(Exception):
    """The state under the lock is another one than that which the proofs were made for."""


class Proofs:
    """What was proven for one change, and what was not and why."""

    def __init__(self, artefact_of: Callable[[RegistryState, str], Artefact], prove: Prove) -> None:
        self._artefact_of = artefact_of
        self._prove = prove
        self._found: dict[tuple[str, str], ArtefactError | NotAdoptedError | NotServableError | None] = {}

    def make(self, state: RegistryState, model_id: str) -> None:
        """Prove a model, unless it was judged before; outside the lock.

        Raises:
            NotAdoptedError, NotServableError, ArtefactError: it can't be proven.
        """
        name = (model_id, state.digests.get(model_id, ""))
        if name not in self._found:
            try:
                self._prove(self._artefact_of(state, model_id))
            except _UNPROVEN as error:
                self._found[name] = error
            else:
                self._found[name] = None
        self.check(state, model_id)

    def check(self, state: RegistryState, model_id: str) -> None:
        """See that a model was proven as it is in this state.

        Raises:
            NotAdoptedError, NotServableError, ArtefactError: it was not, as said by `make`.
            ProofMissingError: nobody tried.
        """
        digest = state.digests.get(model_id, "")
        if not digest:
            raise no_digest(model_id, state.not_servable.get(model_id, ""))
        if (model_id, digest) not in self._found:
            raise ProofMissingError
        if (why := self._found[model_id, digest]) is not None:
            raise why

    def nearest(
        self,
        state: RegistryState,
        keys: Sequence[Key],
        expected: Sequence[str],
        judge: Callable[[RegistryState, str], None],
        *,
        hold: bool,
    ) -> tuple[dict[Key, str], dict[str, str]]:
        """Where a rollback of the keys leads, and which nearer models were passed over, and why.

        `judge` is `make` or `check`; `expected` is what each key must have; `hold` is as for `RegistryState.standing`.

        Raises:
            UnknownKeyError, NothingToRollBackToError, StaleExpectationError, InvalidArgumentError: nowhere.
            ProofMissingError: as `check` says.
        """
        check_rollback_expected(state, keys, expected, hold=hold)
        targets: dict[Key, str] = {}
        skipped: dict[str, str] = {}
        for key, candidates in rollback_candidates(state, keys, hold=hold).items():
            for model_id in candidates:
                try:
                    judge(state, model_id)
                except _UNPROVEN as error:
                    skipped[model_id] = str(error)
                else:
                    targets[key] = model_id
                    break
            if key not in targets:
                raise nothing_to_roll_back_to(key, skipped)
        return targets, skipped


def tried_again(attempt: Callable[[], T]) -> T:
    """What an attempt gives; it is repeated while the registry changes under it.

    Raises:
        RegistryBusyError: it did so time and again.
    """
    for _ in range(_TRIES):
        try:
            return attempt()
        except ProofMissingError:
            continue
    raise RegistryBusyError("the registry changes faster than its models can be proven; try again shortly")
