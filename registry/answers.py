"""Answers that are given once: what a change committed, and what a repeat of its request_id gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from signalserve.common.files import sha256_hex
from signalserve.common.log import LibraryLog
from signalserve.registry.errors import RequestIdReusedError
from signalserve.registry.events import Event, canonical, json_safe
from signalserve.registry.plans import Transition
from signalserve.registry.state import Answer, RegistryState
from signalserve.registry.store import Draft, Transaction

_log = LibraryLog("registry")


@dataclass(frozen=True)
class Committed:
    """The answer of a change: its revision and what it did, one transition a model or key.

    `repeated` is true where the request_id had been answered before. `head` is the hash of its event, empty where there
    was nothing to change: who notes it can prove later that the log still holds the change (`verify-log --expect`).
    """

    revision: int
    transitions: tuple[Transition, ...]
    repeated: bool = False
    head: str = ""


class Looked(NamedTuple):
    """How many looks at these bars the log knows of now, and by which revision this one: None for its evaluation."""

    revision: int | None
    looks: int


def decide_and_commit(
    transaction: Transaction,
    action: str,
    request: Any,
    decide: Callable[[RegistryState], tuple[Draft, list[Transition]]],
) -> Committed:
    """Give the first answer to a repeat; decide and commit otherwise. What changes nothing commits nothing.

    Args:
        transaction: the lock is held.
        action: what is asked for, and
        request: with what: a repeat that asks otherwise is refused.
        decide: from the state under the lock to the change.
    """
    origin = transaction.origin
    answer = answered(transaction.state, origin.request_id, action, request)
    if answer is not None:
        return answer
    draft, results = decide(transaction.state)
    if not origin.request_id and not any(
        change.before != change.after or transaction.state.decides(draft.action, change, draft.evidence)
        for change in draft.changes
    ):
        _log.info(f"registry.{draft.action}_unneeded", models=[item.model_id for item in results])
        return Committed(transaction.state.revision, tuple(results))
    event = commit(transaction, action, request, draft)
    for change in event.changes:
        _log.info(
            f"registry.{event.action}",
            revision=event.revision,
            key=f"{change.symbol}/{change.timeframe}",
            model_id=change.model_id,
            before=change.before,
            after=change.after,
            actor=event.actor,
        )
    return _committed(Answer.of(event))


def commit(transaction: Transaction, action: str, request: Any, draft: Draft) -> Event:
    """Commit a change so that a repeat of its request_id is known again."""
    if transaction.origin.request_id:
        draft = replace(draft, detail={**draft.detail, "request_sha256": _fingerprint(action, request)})
    return transaction.commit(draft)


def answered(state: RegistryState, request_id: str, action: str, request: Any) -> Committed | None:
    """What a request_id was answered; None where it is new, or empty.

    Raises:
        RequestIdReusedError: it was used for another request.
    """
    answer = state.requests.get(request_id) if request_id else None
    if answer is None:
        return None
    if answer.asked != _fingerprint(action, request):
        raise RequestIdReusedError(
            f"request_id {request_id!r} was used at revision {answer.revision} for another request",
            metadata={"request_id": request_id, "revision": str(answer.revision)},
        )
    return _committed(answer, repeated=True)


def _fingerprint(action: str, request: Any) -> str:
    return sha256_hex(canonical([action, json_safe(request)]))


def _committed(answer: Answer, *, repeated: bool = False) -> Committed:
    results = tuple(Transition(**item) for item in answer.result)
    return Committed(answer.revision, results, repeated, answer.hash)
