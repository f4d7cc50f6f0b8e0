"""Server-sent events about what moves: told at once, also to who comes back, and ended when it is over."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from signalserve.lab.app import lab_of
from signalserve.lab.changes import Changes, Pace, Stopping
from signalserve.registry import Promotion
from tests.lab.conftest import OpenLab, lab_settings
from tests.registries import registry_at

STREAM = "/api/ml/stream"


def events(answer: httpx.Response) -> Iterator[tuple[str, str]]:
    """Each event's id and name."""
    identity = name = ""
    for line in answer.iter_lines():
        field, _, value = line.partition(": ")
        if field == "id":
            identity = value
        elif field == "event":
            name = value
        elif field == "data":
            assert json.loads(value)["topic"] == name
        elif not line and name:
            yield identity, name
            identity = name = ""


def test_what_moves_is_told_and_nothing_else(base: Path, tmp_path: Path, open_lab: OpenLab) -> None:
    lab = open_lab(lab_settings(tmp_path))
    with lab.http.stream("GET", STREAM) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        told = events(answer)
        assert next(told)[1] == "hello"
        registry_at(base).promote([Promotion("btc1")])
        # the log and the index are two files, so a commit may be told twice
        assert next(told)[1] == "registry"
        (tmp_path / "live").mkdir()
        (tmp_path / "live" / "X_15m.json").write_text("{}")
        assert next(event for event in told if event[1] != "registry")[1] == "live"
        (tmp_path / "backtests").mkdir()
        assert next(event for event in told if event[1] not in ("registry", "live"))[1] == "backtests"


def test_who_comes_back_is_told_what_changed_meanwhile_by_any_worker(
    base: Path, tmp_path: Path, open_lab: OpenLab
) -> None:
    settings = lab_settings(tmp_path)
    with open_lab(settings).http.stream("GET", STREAM) as answer:
        seen, _ = next(events(answer))
    registry_at(base).promote([Promotion("btc1")])
    other = open_lab(settings)
    with other.http.stream("GET", STREAM, headers={"Last-Event-ID": seen}) as answer:
        told = events(answer)
        assert [next(told)[1], next(told)[1]] == ["hello", "registry"]
    with other.http.stream("GET", STREAM, headers={"Last-Event-ID": "no.id"}) as answer:
        assert next(events(answer))[1] == "hello"


def test_there_is_room_for_so_many_and_a_stream_ends_when_the_lab_stops(
    base: Path, tmp_path: Path, open_lab: OpenLab
) -> None:
    lab = open_lab(lab_settings(tmp_path))
    lab.app.state.changes._pace = Pace(poll_seconds=0.01, most=1)
    with lab.http.stream("GET", STREAM) as answer:
        told = events(answer)
        next(told)
        refused = lab.get(STREAM)
        assert (refused.status_code, refused.json()["reason"]) == (429, "TOO_MANY_STREAMS")
        lab.stopping.set()
        assert list(told) == []


async def collected(changes: Changes, gone: Iterator[bool]) -> list[bytes]:
    async def has_gone() -> bool:
        return next(gone)

    return [part async for part in changes.stream("me", "", has_gone)]


@pytest.mark.parametrize("longest", [0.05, 60.0])
async def test_a_stream_beats_and_ends_after_its_time_or_when_its_listener_has_gone(
    base: Path, tmp_path: Path, longest: float
) -> None:
    pace = Pace(poll_seconds=0.001, heartbeat_seconds=0.0, longest_seconds=longest)
    changes = Changes(lab_of(lab_settings(tmp_path)), Stopping(), pace)
    gone = iter([False] * 3 + [True] * 1_000) if longest > 1.0 else iter([False] * 100_000)
    parts = await asyncio.wait_for(collected(changes, gone), 30.0)
    assert parts[0].startswith(b"retry: 2000\nid: ")
    assert parts[1:] and set(parts[1:]) == {b": still here\n\n"}
    with changes.place("me"):
        assert changes._listeners.total() == 1
    assert changes._listeners.total() == 0


def test_a_look_reads_nothing(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = Changes(lab_of(lab_settings(tmp_path)), Stopping())

    def fails(*_: object, **__: object) -> None:
        raise AssertionError("a look opened a file")

    monkeypatch.setattr(os, "open", fails)
    monkeypatch.setattr(Path, "open", fails)
    monkeypatch.setattr(Path, "read_bytes", fails)
    assert changes._look() == changes._look()
