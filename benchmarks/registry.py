"""What a registry costs as it grows: at 1,000, 10,000 and 100,000 events, the last with 10,000 entries.

A commit is the writer's whole turn: the lock, the plan, the event and the index. Proving a model's files is done before
it, and is not measured. The targets are for the largest scale; a plan of many promotes has none of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from rich.console import Console

from benchmarks.long_log import LongLog, Scale
from signalserve.config import Settings
from signalserve.config.logs import configure_logs
from signalserve.config.settings import LoggingSettings
from signalserve.judging import PromoteGate
from signalserve.registry import ModelRegistryEntry, Promotion, Registry, open_registry, verify_log
from signalserve.registry.index import INDEX_FILE
from signalserve.registry.plans import plan_promote, plan_register
from signalserve.registry.state import RegistryState
from signalserve.registry.store import Draft, Origin

SCALES = (Scale(1_000, 1_000), Scale(10_000, 1_000), Scale(100_000, 10_000))
BASKET = 900
_TIMES = 21
_OPENS = 3

# opened as a new process opens it; what importing costs is not the registry's
_OPEN = """
import json, re, sys, time
from pathlib import Path
from signalserve.registry import open_registry

def peak_mb():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

before = peak_mb()
began = time.perf_counter()
state = open_registry(sys.argv[1]).state
seconds = time.perf_counter() - began
print(json.dumps([seconds, peak_mb() - before, state.revision]))
"""

console = Console(highlight=False)


@dataclass(frozen=True)
class Costs:
    """What was measured at one scale, in milliseconds but for `open_mb`: what opening added to the process."""

    open: float
    open_mb: float
    promote: float
    register: float
    read: float
    hand_edit: float
    basket: float


@dataclass(frozen=True)
class Line:
    """A line of the table: which of the costs, and the target in milliseconds, if it has one."""

    what: str
    cost: str
    target: float | None = None


LINES = (
    Line("cold open in a new process", "open", 1000.0),
    Line("promote, the commit", "promote", 20.0),
    Line("register, the commit", "register", 20.0),
    Line("one key's production model", "read", 1.0),
    Line("a view with a hand edit pending", "hand_edit", 100.0),
    Line("a plan to promote nine keys of ten, at most 900", "basket"),
)


def milliseconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


class Measured:
    """One registry while it is measured."""

    def __init__(self, base: Path, scale: Scale) -> None:
        self.base = base
        LongLog(scale).write(base)
        gate = PromoteGate.of(Settings(promotion={"gate": "none"}))  # type: ignore[arg-type]
        self.registry: Registry = open_registry(base, gate=gate)
        self._found = list(self.registry.state.entries.values())
        self._made = 0

    def costs(self) -> Costs:
        """Measure all. Who has registries of this size has written to them, so the commits go first."""
        registers, promotes = zip(*(self._commits() for _ in range(_TIMES)), strict=True)
        opens, sizes = zip(*(self._open() for _ in range(_OPENS)), strict=True)
        basket = median(self._basket() for _ in range(5))
        read = median(self._read(number) for number in range(_TIMES))
        hand_edit = self._hand_edits(5)
        report = verify_log(self.base)
        if not report.ok:
            raise AssertionError(report.problems)
        return Costs(
            median(opens), median(sizes), median(promotes), median(registers), read, hand_edit, basket
        )

    def _commits(self) -> tuple[float, float]:
        """Register a model of some key, and put it into production."""
        self._made += 1
        like = self._found[-self._made % len(self._found)]
        model_id = f"{like.symbol}_15m_rf_new_{self._made}"
        entry = replace(like, model_id=model_id, path=f"outputs/ml_models/{model_id}", status="success")
        return (
            milliseconds(lambda: self._register(entry)),
            milliseconds(lambda: self._promote(entry)),
        )

    def _register(self, entry: ModelRegistryEntry) -> None:
        with self.registry.store.transaction(Origin()) as turn:
            turn.commit(plan_register(turn.state, entry, "0" * 64, {"engine": "onnx", "engine_reason": ""}))

    def _promote(self, entry: ModelRegistryEntry) -> None:
        with self.registry.store.transaction(Origin(reason="benchmark")) as turn:
            turn.commit(self._planned(turn.state, [entry]))

    def _planned(self, state: RegistryState, entries: Sequence[ModelRegistryEntry]) -> Draft:
        promotions = [Promotion(entry.model_id) for entry in entries]
        return plan_promote(state, promotions, self.registry.gate, reason="benchmark", force=True)[0]

    def _open(self) -> tuple[float, float]:
        answer = subprocess.run(
            [sys.executable, "-c", _OPEN, str(self.base)], capture_output=True, text=True, check=True
        )
        seconds, megabytes, revision = json.loads(answer.stdout)
        assert revision == self.registry.state.revision
        return seconds * 1e3, megabytes

    def _basket(self) -> float:
        state = self.registry.state
        served = set(state.productions().values())
        chosen = {entry.key: entry for entry in state.entries.values() if entry.model_id not in served}
        entries = list(chosen.values())[: min(BASKET, max(1, len(chosen) * 9 // 10))]
        return milliseconds(lambda: self._planned(state, entries))

    def _read(self, number: int) -> float:
        served = list(self.registry.state.productions())
        key = served[-number % len(served)]
        return milliseconds(lambda: self.registry.state.production(key))

    def _hand_edits(self, times: int) -> float:
        """Each edit is another one, so that none is known from the view before."""
        index = self.base / INDEX_FILE
        content = index.read_bytes()
        took: list[float] = []
        for number in range(times):
            state = self.registry.state
            entry = [entry for entry in state.entries.values() if entry.status != "production"][number]
            index.write_bytes(content.replace(entry.line.encode(), entry.with_status("failed").line.encode()))
            took.append(milliseconds(self.registry.view))
            assert self.registry.state.entries[entry.model_id].status == "failed", "the edit was not followed"
        index.write_bytes(content)
        return median(took)


def run(scales: Sequence[Scale] = SCALES) -> None:
    """Measure at each scale and print the table."""
    found: list[Costs] = []
    for scale in scales:
        with tempfile.TemporaryDirectory() as name:
            found.append(Measured(Path(name) / "models", scale).costs())
    sizes = ", ".join(f"{scale.events:,} events ({scale.entries:,} entries)" for scale in scales)
    console.print(f"       a registry of {sizes}, in ms:", soft_wrap=True)
    for line in LINES:
        values = [float(getattr(costs, line.cost)) for costs in found]
        if line.target is None:
            mark, target = "     ", ""
        else:
            mark = "[green]holds[/]" if values[-1] <= line.target else "[red]MISSED[/]"
            target = f", target at most {line.target:g} ms"
        text = ", ".join(f"{value:,.2f}" for value in values)
        console.print(f"{mark}  {line.what}: {text}{target}", soft_wrap=True)
    memory = ", ".join(f"{costs.open_mb:,.0f}" for costs in found)
    console.print(f"       a cold open takes so many MB at its height: {memory}", soft_wrap=True)


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[scale.events for scale in SCALES])
    parser.add_argument(
        "--entries", type=int, nargs="+", default=[scale.entries for scale in SCALES], help="one an --events"
    )
    options = parser.parse_args()
    configure_logs(LoggingSettings(level="warning"))
    run([Scale(*pair) for pair in zip(options.events, options.entries, strict=True)])


if __name__ == "__main__":
    main()
