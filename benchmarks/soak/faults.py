"""What goes wrong in a soak: each fault is provoked, must be said, is mended, and must be gone from what is said.

`provoke` and `mend` act; `said` and `gone` ask both workers. A fault that a worker's death is part of is said in the
log by the process that starts it again, and gone once two workers answer, all of them new or whole.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from typing import ClassVar

from filelock import FileLock

from benchmarks.soak.deaf_client import STREAMS
from benchmarks.soak.field import Field
from benchmarks.soak.fleet import ROOT, Fleet, strike
from benchmarks.soak.hanging import let_go
from benchmarks.soak.ledger import CANCELLED, REFUSED, Ledger
from benchmarks.soak.load import Load
from signalserve.client import Cancelled, SignalServeError
from signalserve.registry import Promotion
from signalserve.registry.lock import LOCK_FILE


class Scene:
    """What faults act on; `victim` is the worker that is killed or drained next."""

    def __init__(self, field: Field, fleet: Fleet, load: Load, ledger: Ledger, dice: random.Random) -> None:
        self.ledger = ledger
        self.field = field
        self.fleet = fleet
        self.load = load
        self.dice = dice
        self.victim = 1


class Fault:
    """One fault; its `name`, where it is `said_in`, and `hold`: the seconds that it lasts once it was said."""

    name: ClassVar[str]
    said_in: ClassVar[str]
    hold: ClassVar[float] = 3.0

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def provoke(self) -> None:
        """Have it happen."""
        raise NotImplementedError

    def said(self) -> bool:
        """Whether it is said, by every worker that it concerns."""
        raise NotImplementedError

    def mend(self) -> None:
        """Mend it, where that is not the server's own affair."""

    def gone(self) -> bool:
        """Whether no worker says it any more."""
        return self.whole()

    def after(self) -> None:
        """Leave the scene as it was."""

    def excuse(self, named: str | None, error: SignalServeError) -> str:
        """Why a prediction that failed meanwhile is not counted as lost: REFUSED, CANCELLED, or "" where it is one."""
        del named, error
        return ""

    def whole(self) -> bool:
        """Whether both workers answer and have nothing to say against anything."""
        both = self.scene.fleet.both()
        return bool(both) and all(
            status.ready
            and not (status.registry_error or status.load_errors or status.loading or status.warnings)
            for status in both
        )


class WorkerKilled(Fault):
    """SIGKILL to one worker."""

    name = "worker killed"
    said_in = "log `worker.died`"
    hold = 0.0
    struck = signal.SIGKILL

    def provoke(self) -> None:
        """Strike the victim."""
        self.scene.fleet.both()
        self.pid = self.scene.fleet.pid_of(self.scene.victim)
        if self.pid:
            strike(self.pid, self.struck)

    def said(self) -> bool:
        """Its parent says so."""
        return self.pid != 0 and self.scene.fleet.said("worker.died", pid=self.pid)

    def gone(self) -> bool:
        """Another one serves in its place."""
        return self.whole() and self.pid not in self.scene.fleet.statuses


class WorkerDrained(WorkerKilled):
    """SIGTERM to one worker: it drains, ends by itself, and is started again."""

    name = "worker drained"
    said_in = "log `server.draining`, `worker.died`"
    struck = signal.SIGTERM

    def excuse(self, named: str | None, error: SignalServeError) -> str:
        """What gRPC gives up as the connection closes is the client's to repeat."""
        return CANCELLED if isinstance(error, Cancelled) else super().excuse(named, error)

    def said(self) -> bool:
        """It says so itself, and then its parent."""
        return self.scene.fleet.said("server.draining", worker=self.scene.victim) and super().said()


class LoadHangs(Fault):
    """A model comes into production whose loading hangs: its key keeps the one before."""

    name = "load hangs"
    said_in = "status `load_errors`"

    def provoke(self) -> None:
        """Promote one beside the server, which would refuse it."""
        field = self.scene.field
        self.symbol = self.scene.dice.choice(list(field.hanging))
        self.model_id = field.hanging[self.symbol]
        self.scene.load.keep_off([self.symbol])
        os.mkfifo(field.fifo)
        field.registry().promote([Promotion(self.model_id)], reason="soak", force=True)

    def said(self) -> bool:
        """The load is past its limit in both."""
        both = self.scene.fleet.both()
        return bool(both) and all(
            any(
                error.model_id == self.model_id and "load_seconds" in error.message
                for error in status.load_errors
            )
            for status in both
        )

    def mend(self) -> None:
        """Let it go on."""
        let_go(self.scene.field.fifo)

    def gone(self) -> bool:
        """Both serve it."""
        return self.whole() and self.scene.fleet.all_serve(self.model_id)

    def after(self) -> None:
        """Another model is put in its place, so that it can be loaded anew."""
        self.scene.load.put_back(self.symbol)


class FileSpoilt(Fault):
    """One byte of a model's file is flipped between its proof and its load: its key keeps the one before."""

    name = "file spoilt"
    said_in = "status `load_errors`"

    def provoke(self) -> None:
        """Spoil a model, and promote it unproven."""
        field = self.scene.field
        self.symbol = self.scene.dice.choice(list(field.spoilt))
        self.model_id = field.spoilt[self.symbol]
        self.scene.load.keep_off([self.symbol])
        self.file = field.base / self.model_id / "model.onnx"
        self.whole_bytes = self.file.read_bytes()
        self.file.write_bytes(flipped(self.whole_bytes))
        field.registry().promote([Promotion(self.model_id)], reason="soak", force=True, prove=lambda _: None)

    def said(self) -> bool:
        """Neither could load it."""
        both = self.scene.fleet.both()
        return bool(both) and all(
            any(error.model_id == self.model_id for error in status.load_errors)
            and any(model.wanted_model_id == self.model_id for model in status.models)
            for status in both
        )

    def mend(self) -> None:
        """Put the byte back."""
        self.file.write_bytes(self.whole_bytes)

    def gone(self) -> bool:
        """Both serve it."""
        return self.whole() and self.scene.fleet.all_serve(self.model_id)

    def after(self) -> None:
        """Another model is put in its place, so that it can be loaded anew."""
        self.scene.load.put_back(self.symbol)


class RegistryAway(Fault):
    """The registry's folder is gone, as a disk that was unmounted, and comes back."""

    name = "registry away"
    said_in = "status `registry_error`"

    def provoke(self) -> None:
        """Move it away."""
        base = self.scene.field.base
        self.away = base.with_name("unmounted")
        base.rename(self.away)

    def said(self) -> bool:
        """Both say so."""
        both = self.scene.fleet.both()
        return bool(both) and all(status.registry_error for status in both)

    def excuse(self, named: str | None, error: SignalServeError) -> str:
        """What this worker has not loaded yet it can't load; the other one may have it, which is not looked at."""
        return REFUSED if named and error.reason == "REGISTRY_MISSING" else super().excuse(named, error)

    def mend(self) -> None:
        """Move it back."""
        self.away.rename(self.scene.field.base)


class LockHeld(Fault):
    """Somebody holds the registry's lock; changes wait for it."""

    name = "lock held"
    said_in = "status `warnings`"

    def provoke(self) -> None:
        """Take it."""
        self.lock = FileLock(self.scene.field.base / LOCK_FILE, is_singleton=False)
        self.lock.acquire()

    def said(self) -> bool:
        """The worker that a promote waits in says so."""
        return any(
            "registry's lock" in warning
            for status in self.scene.fleet.look().values()
            for warning in status.warnings
        )

    def mend(self) -> None:
        """Let it go."""
        self.lock.release()


class ClientDeaf(Fault):
    """A client opens streams, reads no answer, and stops; its connection is closed after two silent keepalives."""

    name = "client stops reading"
    said_in = "metric `signalserve_open_streams`"
    hold = 0.0

    def provoke(self) -> None:
        """Start it; it stops itself."""
        self.client = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.soak.deaf_client", self.scene.fleet.target],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self.client.stdout:
            self.client.stdout.readline()

    def said(self) -> bool:
        """Its streams are among the open ones."""
        self.scene.fleet.both()
        return self.scene.fleet.open_streams() >= STREAMS

    def gone(self) -> bool:
        """Its streams are closed, while it lives on, stopped."""
        if not self.whole() or not 0 <= self.scene.fleet.open_streams() < STREAMS:
            return False
        self.close()
        return True

    def close(self) -> None:
        """End it."""
        self.client.kill()
        self.client.wait()
        if self.client.stdout:
            self.client.stdout.close()


class KilledWhileAway(RegistryAway):
    """A worker dies while the registry is away: the one in its place has nothing to serve, and keeps off the port."""

    name = "registry away, worker killed"
    said_in = "log `worker.died`, status `registry_error`"

    def provoke(self) -> None:
        """Both at once."""
        self.scene.fleet.both()
        self.pid = self.scene.fleet.pid_of(self.scene.victim)
        super().provoke()
        if self.pid:
            strike(self.pid, signal.SIGKILL)

    def said(self) -> bool:
        """The one that is left says so, and the parent that one died."""
        found = self.scene.fleet.look()
        return (
            self.pid not in found
            and any(status.registry_error for status in found.values())
            and self.scene.fleet.said("worker.died", pid=self.pid)
        )


class ThenKilled(Fault):
    """A worker dies too: the one in its place keeps off the port, as the other has the model before."""

    said_in = "log `worker.keeps_off`, status `load_errors`, `warnings`"
    pid = 0

    def said(self) -> bool:
        """The one that is left says both; the other is killed once both have said the first."""
        if not self.pid:
            if super().said():
                self.pid = self.scene.fleet.pid_of(self.scene.victim)
                strike(self.pid, signal.SIGKILL)
            return False
        found = self.scene.fleet.look()
        return self.pid not in found and any(
            status.load_errors and any("keeps off the port" in warning for warning in status.warnings)
            for status in found.values()
        )


class KilledWhileLoading(ThenKilled, LoadHangs):
    """A load hangs, and a worker dies."""

    name = "load hangs, worker killed"


class KilledWhileSpoilt(ThenKilled, FileSpoilt):
    """A file is spoilt, and a worker dies."""

    name = "file spoilt, worker killed"


SIMPLE: tuple[type[Fault], ...] = (
    LoadHangs,
    WorkerKilled,
    RegistryAway,
    FileSpoilt,
    WorkerDrained,
    LockHeld,
    ClientDeaf,
)
FAULTS = (*SIMPLE, KilledWhileAway, KilledWhileLoading, KilledWhileSpoilt)


def flipped(content: bytes) -> bytes:
    """The same with one bit of its middle byte flipped."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x01]) + content[middle + 1 :]
