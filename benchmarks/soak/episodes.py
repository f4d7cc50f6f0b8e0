"""The course of a soak: one fault after the other, each watched from its beginning to when nothing says it any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console

from benchmarks.soak.faults import Fault, Scene
from benchmarks.soak.ledger import Count

# a worker that keeps dying is started again after 30 s
_SAID_SECONDS, _GONE_SECONDS = 60.0, 90.0
_LOOK_SECONDS = 0.1

console = Console(highlight=False)


@dataclass(frozen=True)
class Episode:
    """One fault: seconds until it was said, and until it was gone once mended; None for never. And what was asked."""

    fault: type[Fault]
    said_after: float | None
    gone_after: float | None
    count: Count


def episodes(faults: tuple[type[Fault], ...], scene: Scene, until: float, quiet: float) -> Iterator[Episode]:
    """Provoke the faults in turn, again and again until so many monotonic seconds; each once at least."""
    turn = 0
    while turn < len(faults) or time.monotonic() < until:
        # worker 0 is left alone from the second turn on, so that its memory can be followed
        scene.victim = 1 if turn >= len(faults) else turn % 2
        yield _played(faults[turn % len(faults)](scene), scene)
        turn += 1
        _pass(scene, quiet)


def _played(fault: Fault, scene: Scene) -> Episode:
    ledger = scene.ledger
    before = ledger.count()
    ledger.excuse = fault.excuse
    began = time.monotonic()
    fault.provoke()
    said = _until(fault.said, _SAID_SECONDS, scene, began)
    _pass(scene, fault.hold)
    mended = time.monotonic()
    fault.mend()
    gone = _until(fault.gone, _GONE_SECONDS, scene, mended)
    fault.after()
    ledger.read(scene.field.registry().events())
    episode = Episode(type(fault), said, gone, ledger.count().since(before))
    for what, seconds in (("said", said), ("gone", gone)):
        if seconds is None:
            ledger.found(f"{fault.name}: was never {what}; {_present(scene)}")
    console.print(line_of(episode), soft_wrap=True)
    return episode


def line_of(episode: Episode) -> str:
    """One line of progress."""
    said = "never" if episode.said_after is None else f"{episode.said_after:.1f} s"
    gone = "never" if episode.gone_after is None else f"{episode.gone_after:.1f} s"
    count = episode.count
    return (
        f"{time.strftime('%X')} {episode.fault.name}: said after {said}, gone after {gone}; {count.asked} predictions, "
        f"{count.failed} failed, {count.refused} refused, {count.cancelled} cancelled, {count.wrong} wrong"
    )


def _until(holds: Callable[[], bool], seconds: float, scene: Scene, began: float) -> float | None:
    """Seconds from `began` to when it holds; None where that takes too long."""
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        if holds():
            return time.monotonic() - began
        scene.fleet.sample()
        time.sleep(_LOOK_SECONDS)
    return None


def _pass(scene: Scene, seconds: float) -> None:
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        scene.fleet.look()
        scene.fleet.sample()
        time.sleep(_LOOK_SECONDS)


def _present(scene: Scene) -> str:
    said = [
        (
            status.worker,
            status.ready,
            status.registry_error,
            status.load_errors[:2],
            status.loading[:2],
            status.warnings,
        )
        for status in scene.fleet.look().values()
    ]
    return f"the statuses are {said}"
