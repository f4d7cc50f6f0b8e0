"""`registry_events.jsonl`: the append-only, hash-chained log of every change.

One JSON object a line. `hash` is the sha256 of the line's canonical JSON without `hash`; it covers
`prev_hash`, so no line can be changed, dropped or moved without breaking the chain behind it. A line
without a line end was never committed. `signature` (`registry.signing`) is in a line only where there is one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from enum import StrEnum
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pydantic_core import from_json

from signalserve.common.files import open_regular, sha256_hex, write_atomically
from signalserve.registry.errors import LogCorruptError, RegistryGoneError, StorageError

LOG_FILE = "registry_events.jsonl"
GENESIS = "0" * 64
# of a hash, so that no other event is taken for the one that is meant
SHORTEST_HEAD = 8
# of the lines that are written here; lines of before the format was said have 0
FORMAT = 1
# of the file, read at once where nothing but its hash is wanted
_PART = 1 << 20
_WAY_OUT = "put a backup of it back, or see `signalserve registry repair`"
# what a line calls the changes; hashes cover it
_CHANGES = "transitions"


class Action(StrEnum):
    """What an event is called, and what moves a model from status to status (`registry.lifecycle`)."""

    REGISTER = "register"
    ADOPT = "adopt"
    EVALUATE = "evaluate"
    LOOK = "look"
    CANDIDATE = "candidate"
    RESTORE = "restore"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    ARCHIVE = "archive"
    CLEAN = "clean"
    RETENTION = "retention"
    DELETE_DIR = "delete_dir"
    EXTERNAL_EDIT = "external_edit"
    CONFIRM = "confirm"
    REPAIR = "repair"
    # steps that are part of one of the events above
    SUPERSEDE = "supersede"
    REMOVE = "remove"


@dataclass(frozen=True)
class StatusChange:
    """One model's change of status; `before` None: new, `after` None: deleted."""

    symbol: str
    timeframe: str
    model_id: str
    before: str | None
    after: str | None
    digest: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As the log has it."""
        return {
            "key": [self.symbol, self.timeframe],
            "model_id": self.model_id,
            "from": self.before,
            "to": self.after,
            "digest": self.digest,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StatusChange:
        """From a log line."""
        symbol, timeframe = values["key"]
        return cls(
            symbol, timeframe, values["model_id"], values["from"], values["to"], values.get("digest", "")
        )


@dataclass(frozen=True)
class Event:
    """One revision of the registry.

    `detail` holds what only some actions need: the rows of a register or an external edit, the result that
    a retry gets, the metadata of what was deleted.
    """

    revision: int
    time: str
    actor: str
    via: str
    action: str
    request_id: str = ""
    reason: str = ""
    forced: bool = False
    changes: tuple[StatusChange, ...] = ()
    evidence: Mapping[str, Any] | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    index_sha256: str = ""
    prev_hash: str = GENESIS
    hash: str = ""
    format: int = FORMAT
    signature: str = ""

    def is_about(self, symbol: str = "", timeframe: str = "", model_id: str = "") -> bool:
        """Whether the event is about what is named; an empty name stands for any."""
        if not (symbol or timeframe or model_id):
            return True
        subjects = [(change.symbol, change.timeframe, change.model_id) for change in self.changes]
        if self.action == Action.EVALUATE and self.evidence is not None:  # it may have moved nothing
            subjects.append((*self.detail["key"], self.evidence["challenger"]))
        if self.action == Action.LOOK:
            subjects.append((*self.detail["key"], self.detail["model_id"]))
        return any(
            (not symbol or symbol == of_symbol)
            and (not timeframe or timeframe == of_timeframe)
            and (not model_id or model_id == of_model)
            for of_symbol, of_timeframe, of_model in subjects
        )

    @property
    def looked(self) -> Mapping[str, Any] | None:
        """What a look was at: `model_id`, `first` and `last` bar, and the `rules` traded by; None for no look."""
        return self.detail if self.action == Action.LOOK else None

    def body(self) -> dict[str, Any]:
        """All but `hash`, as plain JSON values."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "hash"}
        values[_CHANGES] = [change.to_dict() for change in values.pop("changes")]
        if not self.signature:
            del values["signature"]
        return dict(json_safe(values))

    def digest(self) -> str:
        """What `hash` must be."""
        return sha256_hex(canonical(self.body()))

    def to_line(self) -> bytes:
        """The log line, line end included."""
        return canonical(self.body() | {"hash": self.hash}) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Event:
        """Read a log line and check its own hash, which covers fields of later versions too.

        Raises:
            ValueError: no JSON object, a missing field, or a hash that does not fit.
        """
        try:
            values = parsed(line)
        except ValueError as error:
            why = "holds NUL bytes, as a power cut leaves them" if b"\0" in line else "is no JSON"
            raise ValueError(why) from error
        if not isinstance(values, dict):
            raise ValueError("is no JSON object")
        if not values.keys() >= _FIELDS:
            raise ValueError("lacks fields of an event")
        stored = values.pop("hash")
        if not _hashes_to(line, values, stored):
            raise ValueError("has a hash that does not fit its content")
        try:
            changes = tuple(StatusChange.from_dict(item) for item in values.pop(_CHANGES))
            fields_of_ours = {name: values[name] for name in _FIELDS if name in values}
            return cls(
                **fields_of_ours,
                changes=changes,
                hash=stored,
                format=int(values.get("format", 0)),
                signature=str(values.get("signature", "")),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"has a malformed change: {error}") from error


def parsed(line: bytes) -> Any:
    """The value of JSON text.

    Raises:
        ValueError: it is none.
    """
    try:
        return from_json(line)
    except ValueError:  # half of a surrogate pair, which the library of Python alone takes
        return json.loads(line)


def are_nuls(line: bytes) -> bool:
    """Whether a line is NUL bytes alone: a file that had grown as the power was cut, before its content was there."""
    return b"\0" in line and not line.strip(b"\0\r\n")


def _hashes_to(line: bytes, values: Mapping[str, Any], stored: Any) -> bool:
    """Whether `stored` is the hash of a line without its hash; one that is spelt as we do is not spelt again."""
    if isinstance(stored, str):
        left, member, right = line.rstrip(b"\n").partition(b'"hash":"' + stored.encode() + b'",')
        if member and sha256_hex(left + right) == stored:
            return True
    return bool(sha256_hex(canonical(values)) == stored)


_FIELDS = {_CHANGES if item.name == "changes" else item.name for item in fields(Event)} - {
    "format",
    "signature",
}


def signed_part(line: bytes) -> tuple[str, bytes]:
    """The signature of an event's line, empty for none, and what it is of; fields of later versions included."""
    values = parsed(line)
    del values["hash"]
    signature = values.pop("signature", "")
    return str(signature), canonical(values)


def canonical(value: Any) -> bytes:
    """One spelling a value: sorted keys, no spaces, ASCII (broken code points survive as escapes)."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def json_safe(value: Any) -> Any:
    """Plain JSON: numpy values unwrapped, NaN and infinities as null, which strict readers demand."""
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_safe(item) for item in value]
    if hasattr(value, "tolist"):
        return json_safe(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)


@dataclass(frozen=True)
class News:
    """What is new in the log: events, and whether they are all of it, as it is no longer what it was.

    `lost` is the event that was the newest one before and is in it no more. `after` is the beginning of the log
    that was known already, so that its events are not among them.
    """

    events: list[Event]
    restarted: bool = False
    lost: Event | None = None
    after: Beginning | None = None


class Beginning(NamedTuple):
    """The first events of a log, by the bytes of their lines: all of them, the last one's, and the sha256 of all.

    `index_sha256` is what the last one says of the index.
    """

    revision: int
    size: int
    last_size: int
    sha256: str
    index_sha256: str


class EventLog:
    """The log file: reads only what is new since the last look, appends durably.

    1. The newest known line is looked at again each time. Where it is another one the log was rewritten, cut off or put
       back from a backup, or a write was taken back: all of it is read anew, and so it is before it is called broken.
    2. So it is where the file was written to and did not grow, and what was read is there no more.
    3. A read that fails leaves all as it was, so that the next one finds what has been mended meanwhile; until then the
       log is not read again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._inode = 0
        self._line = b""
        self._last: Event | None = None
        self._digest = hashlib.sha256()
        self._found = (0, 0)
        self._broken: tuple[tuple[int, int, int], str] | None = None

    def read_new(self, known: Callable[[], Beginning | None] = lambda: None) -> News:
        """Events since the last call. At the first one, those of a beginning that is `known` are not read.

        Raises:
            LogCorruptError: a whole line is no event, or breaks the chain.
            RegistryGoneError: the file was there before and has gone, or its events have.
            StorageError: the file can't be read.
        """
        try:
            with open_regular(self.path) as stream:
                status = os.fstat(stream.fileno())
                found = (status.st_size, status.st_mtime_ns)
                if status.st_ino == self._inode and status.st_size >= self._offset:
                    news = self._further(stream, found)
                    if news is not None:
                        return news
                if self._broken is not None and self._broken[0] == (status.st_ino, *found):
                    raise LogCorruptError(self._broken[1])
                news = self._from_start(stream, status.st_ino, known)
                self._found = found
                return news
        except LogCorruptError as error:
            self._broken = ((status.st_ino, *found), str(error))
            raise
        except FileNotFoundError:
            self.check()
            return News([])
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror or error}") from error

    def _further(self, stream: BinaryIO, found: tuple[int, int]) -> News | None:
        """What was added; None where the log is no longer what it was, or what was added is broken."""
        if found[0] == self._found[0] and found[1] != self._found[1] and not self._is_there(stream):
            return None
        stream.seek(self._offset - len(self._line))
        content = stream.read()
        if not content.startswith(self._line):
            return None
        with suppress(LogCorruptError):
            news = self._take(content[len(self._line) :])
            self._found = found
            return news
        return None

    def _is_there(self, stream: BinaryIO) -> bool:
        """Whether all that was read is still there, byte for byte."""
        stream.seek(0)
        digest, left = hashlib.sha256(), self._offset
        while left and (part := stream.read(min(left, _PART))):
            digest.update(part)
            left -= len(part)
        return digest.digest() == self._digest.digest()

    def _from_start(self, stream: BinaryIO, inode: int, known: Callable[[], Beginning | None]) -> News:
        before = self._last
        kept = (self._offset, self._inode, self._line, self._last, self._digest)
        self._forget()
        self._inode = inode
        try:
            beginning = known() if before is None else None
            if beginning is not None and not self._goes_on_from(stream, beginning):
                self._forget()
                beginning = None
            stream.seek(self._offset)
            news = self._take(stream.read())
            if before is not None and not news.events:
                raise RegistryGoneError(
                    f"{self.path} was emptied; it had revision {before.revision}. Put it back; the runbook in "
                    "docs/registry.md says what to do without one"
                )
        except (LogCorruptError, RegistryGoneError, OSError):
            self._offset, self._inode, self._line, self._last, self._digest = kept
            raise
        lost = None if _holds(news.events, before) else before
        return News(news.events, restarted=True, lost=lost, after=beginning)

    def begins_with(self, beginning: Beginning) -> bool:
        """Whether the file, as it is now, begins so.

        Raises:
            OSError: it can't be read.
        """
        with open_regular(self.path) as stream:
            return EventLog(self.path)._goes_on_from(stream, beginning)

    def _forget(self) -> None:
        self._offset, self._line, self._last, self._digest = 0, b"", None, hashlib.sha256()

    def _goes_on_from(self, stream: BinaryIO, beginning: Beginning) -> bool:
        """Whether the log begins so; then what follows is next."""
        stream.seek(0)
        left = beginning.size
        last = b""
        while left and (part := stream.read(min(left, _PART))):
            self._digest.update(part)
            left -= len(part)
            last = (last + part)[-beginning.last_size :]
        if left or self._digest.hexdigest() != beginning.sha256:
            return False
        try:
            event = Event.from_line(last)
        except (ValueError, RecursionError):
            return False
        self._offset, self._line, self._last = beginning.size, last, event
        return (event.revision, event.index_sha256) == (beginning.revision, beginning.index_sha256)

    def _take(self, content: bytes) -> News:
        """The whole lines of what follows what was read. A last one of NULs alone was never committed either."""
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines(keepends=True)
        if lines and len(whole) == len(content) and are_nuls(lines[-1]):
            whole = whole[: -len(lines.pop())]
        events: list[Event] = []
        last, newest = self._last, self._line
        for line in lines:
            if line.strip():
                last, newest = self._following(line, last), line
                events.append(last)
            else:  # an editor may have left an empty one
                newest += line
        self._digest.update(whole)
        self._last = last
        self._offset += len(whole)
        self._line = newest
        return News(events)

    @property
    def beginning(self) -> Beginning | None:
        """All that was read, None for nothing."""
        if self._last is None:
            return None
        digest = self._digest.hexdigest()
        return Beginning(self._last.revision, self._offset, len(self._line), digest, self._last.index_sha256)

    def check(self) -> None:
        """See that a log that was read before is still there: a log only grows.

        Raises:
            RegistryGoneError: its disk has gone, or somebody destroyed it.
        """
        if self._offset and not self.path.exists():
            raise RegistryGoneError(
                f"{self.path} has gone; it had revision {self._last.revision if self._last else 0}. Bring it back "
                "(is its disk there?), or start again on what is left of the registry"
            )

    def _following(self, line: bytes, last: Event | None) -> Event:
        """The event of a line that comes after another one."""
        after = last.revision if last else 0
        try:
            event = Event.from_line(line)
        except (ValueError, RecursionError) as error:
            raise LogCorruptError(
                f"{self.path}: the line after revision {after} {error}; {_WAY_OUT}"
            ) from error
        if event.revision != after + 1 or event.prev_hash != (last.hash if last else GENESIS):
            raise LogCorruptError(
                f"{self.path}: revision {event.revision} does not follow revision {after}; {_WAY_OUT}"
            )
        return event

    def append(self, event: Event) -> None:
        """Commit an event: one write, then fsync; `read_new` gives it back. The caller holds the lock and has read all.

        Raises:
            StorageError: nothing was committed (a full disk, say); what was written is taken back.
        """
        # readers of this process may meet the line before it is durable, and go on behind it
        at, before = self._offset, self._line
        try:
            if not self.path.exists():
                self.check()
                # an empty one, be it for an instant, is for `init` alone to leave
                write_atomically(self.path, event.to_line())
                return
            with self.path.open("r+b", buffering=0) as stream:
                self._check_end(stream, at, before)
                stream.truncate(at)  # drops a torn last line
                stream.seek(at)
                line = event.to_line()
                try:
                    written = 0
                    while written < len(line):
                        written += stream.write(line[written:])
                    os.fsync(stream.fileno())
                except OSError:
                    stream.truncate(at)
                    raise
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror or error}") from error

    def _check_end(self, stream: RawIOBase, at: int, before: bytes) -> None:
        """See that the file is the one that was read, and ends there."""
        stream.seek(at - len(before))
        found = stream.read() or b""
        rest = found[len(before) :]
        if not found.startswith(before) or (b"\n" in rest and not are_nuls(rest)):
            raise StorageError(
                f"{self.path} is not what it was when this change began: it was replaced, or written to without the "
                "lock; nothing was changed, try again"
            )

    @property
    def last(self) -> Event | None:
        """The newest event that was read."""
        return self._last


def _holds(events: Sequence[Event], wanted: Event | None) -> bool:
    """Whether a whole log has just this event at its revision."""
    return wanted is None or (
        len(events) >= wanted.revision and events[wanted.revision - 1].hash == wanted.hash
    )
