"""`make soak`: load and faults for some minutes, a table of both, exit code 1 where something did not hold."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.soak.episodes import Episode, console, episodes
from benchmarks.soak.faults import FAULTS, Scene
from benchmarks.soak.field import planted
from benchmarks.soak.fleet import ROOT, serving
from benchmarks.soak.ledger import Ledger
from benchmarks.soak.load import Load
from benchmarks.soak.report import growth, table
from signalserve.config.logs import configure_logs
from signalserve.config.settings import LoggingSettings


def soak(work: Path, options: argparse.Namespace) -> list[str]:
    """Run it below a folder; gives what did not hold."""
    faults = tuple(fault for fault in FAULTS if not options.only or fault.name in options.only)
    began = time.monotonic()
    field = planted(work, options.keys)
    console.print(
        f"{len(field.expected)} models of {options.keys} keys after {time.monotonic() - began:.0f} s"
    )
    ledger = Ledger(field.expected)
    done: list[Episode] = []
    with serving(field.base, work) as fleet:
        with Load(fleet.target, field, ledger, pause=options.pause, seed=options.seed) as load:
            dice = random.Random(options.seed)  # noqa: S311 - a course that can be repeated
            scene = Scene(field, fleet, load, ledger, dice)
            try:
                done.extend(episodes(faults, scene, time.monotonic() + options.seconds, options.quiet))
            finally:
                field.mend()
        fleet.said("")
        ledger.read(field.registry().events())
        left = fleet.stop()
    for text in (*left, *load.crashed):
        ledger.found(text)
    lines, grown = growth(fleet.lives.values())
    for text in grown:
        ledger.found(text)
    count = ledger.count()
    console.print(f"\n{table(faults, done)}\n", soft_wrap=True)
    console.print(
        f"{count.asked:,} predictions in {time.monotonic() - began:.0f} s, {count.failed} failed, "
        f"{count.refused} refused by a worker that had not loaded them, "
        f"{count.cancelled} cancelled by drains, {count.wrong} wrong; "
        f"the slowest answer took {ledger.longest_ms:.0f} ms; {load.promoted} promotes, {load.refused} refused",
        soft_wrap=True,
    )
    for name, number in (*ledger.kinds.most_common(), *ledger.failures.most_common()):
        console.print(f"  {number:>8,}  {name}", soft_wrap=True)
    for line in lines:
        console.print(line, soft_wrap=True)
    return ledger.findings


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="each fault happens once, however few")
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument(
        "--pause", type=float, default=0.02, help="seconds between two questions of an engine"
    )
    parser.add_argument("--quiet", type=float, default=2.0, help="seconds between two faults")
    parser.add_argument("--seed", type=int, default=0)
    names = [fault.name for fault in FAULTS]
    parser.add_argument("--only", nargs="+", choices=names, help="these faults; default all")
    parser.add_argument("--keep", type=Path, help="a folder to leave the registry and the log in")
    options = parser.parse_args()
    configure_logs(LoggingSettings(level="error"))
    # workers unpickle a model of `benchmarks`
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        work = options.keep or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        findings = soak(work, options)
    if findings:
        console.print(f"\n{len(findings)} did not hold:")
        for text in findings:
            console.print(f"- {text}", soft_wrap=True)
        sys.exit(1)
    console.print("\neverything held")


if __name__ == "__main__":
    main()
