"""What stands in the way of a change, in words: a refusal of the server, or a server that does not answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from signalserve.client import SignalServeError
from signalserve.lab.api.problems import STATUSES
from signalserve.lab.plain import text_of

_LOST = frozenset({"DEADLINE_EXCEEDED", "UNAVAILABLE", "CANCELLED"})
_GATE, _STATUS = "GATE_REFUSED", "WRONG_STATUS"
_TITLES = {
    "ABORTED": "Somebody changed this meanwhile",
    "CANCELLED": "The gRPC server is away",
    "DEADLINE_EXCEEDED": "The gRPC server did not answer in time",
    "FAILED_PRECONDITION": "The registry refuses",
    "INTERNAL": "The gRPC server failed",
    "INVALID_ARGUMENT": "This can't be done as it was asked",
    "NOT_FOUND": "It is not there any more",
    "PERMISSION_DENIED": "Your role may not do this",
    "RESOURCE_EXHAUSTED": "The gRPC server has too much to do",
    "UNAUTHENTICATED": "You are not logged in",
    "UNAVAILABLE": "The gRPC server is away",
}
_ADVICE = {
    "ABORTED": "Nothing was changed. What you see below is what holds now; look at it, and confirm again if you still "
    "want it.",
    "CANCELLED": "Start it with `signalserve serve`, then send this form again: what was done already is not done "
    "twice.",
    "DEADLINE_EXCEEDED": "The change may have been made. Sending this form again is safe: what was done already is not "
    "done twice.",
    "INTERNAL": "Its log says why. Look at the events before you repeat this.",
    "PERMISSION_DENIED": "Log in with a token of the role ops; `signalserve token create --role ops` makes one.",
    "RESOURCE_EXHAUSTED": "Wait a moment, then send this form again.",
    "UNAUTHENTICATED": "Log in with an ops token; `signalserve token create --role ops` makes one.",
    "UNAVAILABLE": "Start it with `signalserve serve`, then send this form again: what was done already is not done "
    "twice.",
}


@dataclass(frozen=True)
class Refusal:
    """Why a form did not do what it asked for.

    `by_gate`: the promote gate refused. `may_force`: a promote may go past it. `may_repeat`: the answer was lost, so
    the form goes out again under the same request_id.
    """

    title: str
    text: str
    advice: str
    status: int
    reason: str = ""
    by_gate: bool = False
    may_force: bool = False
    may_repeat: bool = False
    facts: Mapping[str, str] | None = None


def refusal_of(error: SignalServeError) -> Refusal:
    """What a call's error says to a person."""
    code = error.code.name
    by_gate = error.reason == _GATE
    # an archived model is evaluated anew, or promoted as it is
    may_force = by_gate or (error.reason == _STATUS and error.metadata.get("status") == "archived")
    advice = _ADVICE.get(code, "Nothing was changed.")
    return Refusal(
        title="The promote gate refuses" if by_gate else _TITLES.get(code, "It was not done"),
        text=text_of(error.message),
        advice="Nothing was changed. It can be forced below, with a reason of its own."
        if may_force
        else advice,
        status=STATUSES.get(code, 502),
        reason=error.reason or code,
        by_gate=by_gate,
        may_force=may_force,
        may_repeat=code in _LOST,
        facts={text_of(name): text_of(value) for name, value in error.metadata.items()},
    )


def missing(text: str) -> Refusal:
    """The refusal of a form that lacks something."""
    return Refusal("Something is missing", text, "Nothing was changed.", 400, "INVALID_ARGUMENT")


def changed_meanwhile(text: str) -> Refusal:
    """The refusal of a form whose page is out of date."""
    return Refusal(_TITLES["ABORTED"], text, _ADVICE["ABORTED"], STATUSES["ABORTED"], "CHANGED_MEANWHILE")
