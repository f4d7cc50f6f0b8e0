"""A promote becomes a hot swap, and loses nothing."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from signalserve.client import AsyncSignalClient, FailedPrecondition
from signalserve.common.key import Key
from signalserve.predictors.contents import Contents
from signalserve.predictors.opening import open_predictor
from signalserve.predictors.predictor import Predictor
from signalserve.registry import promote_model
from tests.registries import gate_of, registry_at
from tests.server.conftest import serving
from tests.small_models import NAMES, fitted, rows

KEY = Key("BTCUSDT", "15m")
PROMOTES = 100


async def test_a_stream_without_pause_sees_no_error_and_no_gap_through_a_hundred_promotes(base: Path) -> None:
    X = rows(8)
    expected = {f"btc{column}": fitted(column).predict_proba(X)[:, 1] for column in (0, 1)}
    answered: list[str] = []
    done = asyncio.Event()

    async def stream_on(client: AsyncSignalClient) -> None:
        async with client.stream(deadline_ms=60_000) as stream:
            sent = 0
            while not done.is_set():
                wanted = []
                for _ in range(4):  # several in flight, as a burst has it
                    wanted.append((await stream.send(*KEY, X[sent % 8], feature_names=NAMES), sent % 8))
                    sent += 1
                for sequence, row in wanted:
                    item = await anext(stream)
                    prediction = item.result()
                    assert item.sequence == sequence
                    assert abs(prediction.score - expected[prediction.model_id][row]) < 1e-6
                    answered.append(prediction.model_id)

    async with serving(base) as (client, _):
        streaming = asyncio.create_task(stream_on(client))
        current = "btc0"
        for _ in range(PROMOTES):
            following = "btc1" if current == "btc0" else "btc0"
            if current == "btc1" or answered.count("btc1"):
                await asyncio.to_thread(registry_at(base).make_candidate, following)
            result = await client.promote(following, expected_production_model_id=current, reason="test")
            assert result.served_revision >= result.registry_revision
            before = len(answered)
            current = following
            while len(answered) < before + 8:  # the stream goes on under the new model
                assert not streaming.done(), streaming.result()
                await asyncio.sleep(0)
            assert answered[-1] == current
        done.set()
        await streaming
    assert answered.count("btc0") > PROMOTES
    assert answered.count("btc1") > PROMOTES


async def test_a_replaced_predictor_is_let_go(base: Path) -> None:
    async with serving(base) as (client, server):
        old = weakref.ref(server.state.snapshot.by_key[KEY].predictor)
        await client.promote("btc1")
        await client.predict(*KEY, rows(1), feature_names=NAMES)
        gc.collect()
        assert old() is None


async def test_what_a_promote_or_a_rollback_proved_is_served_without_opening_it_again(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counted(contents: Contents, **options: Any) -> Predictor:
        opened.append(contents.folder.name)
        return open_predictor(contents, **options)

    async with serving(base) as (client, _):
        monkeypatch.setattr("signalserve.registry.artefact.open_predictor", counted)
        await client.promote("btc1", reason="test")
        assert opened == ["btc1"]
        await client.rollback([KEY], reason="test")
        assert opened == ["btc1", "btc0"]
        assert (await client.predict(*KEY, rows(1), feature_names=NAMES)).model_id == "btc0"
        assert opened == ["btc1", "btc0"]


async def test_a_damaged_model_is_not_promoted_and_the_old_one_serves_on(base: Path) -> None:
    (base / "btc1" / "model.onnx").write_bytes(b"damaged")
    async with serving(base) as (client, _):
        with pytest.raises(FailedPrecondition, match=r"model\.onnx") as caught:
            await client.promote("btc1", force=True, reason="try")
        assert caught.value.reason == "ARTIFACT_INVALID"
        assert (await client.predict(*KEY, rows(1), feature_names=NAMES)).model_id == "btc0"


async def test_a_model_that_fails_to_load_leaves_the_old_one_serving_and_is_reported(base: Path) -> None:
    async with serving(base) as (client, server):
        index = base / "registry_index.csv"
        (base / "btc1" / "golden.npz").unlink()
        lines = index.read_text().splitlines()
        for number, line in enumerate(lines):
            status = {"btc0": "archived", "btc1": "production"}.get(line.split(",")[0])
            if status:
                lines[number] = line.rsplit(",", 1)[0] + "," + status
        index.write_text("\n".join(lines) + "\n")
        while not server.state.snapshot.failures:
            await server.watcher.wait_for_change(server.watcher.version)
        assert (await client.predict(*KEY, rows(1), feature_names=NAMES)).model_id == "btc0"
        status = await client.status()
        assert status.ready
        assert [(error.model_id, "golden.npz" in error.message) for error in status.load_errors] == [
            ("btc1", True)
        ]


async def test_a_promote_by_another_process_and_a_hand_edit_are_followed(base: Path) -> None:
    async with serving(base) as (client, server):
        await asyncio.to_thread(promote_model, "btc1", "production", base, gate=gate_of())
        while server.state.snapshot.by_key[KEY].model_id != "btc1":
            await server.watcher.wait_for_change(server.watcher.version)
        index = base / "registry_index.csv"
        index.write_text(index.read_text().replace(",production", ",archived"))
        while KEY in server.state.snapshot.by_key:
            await server.watcher.wait_for_change(server.watcher.version)
        with pytest.raises(FailedPrecondition, match="promote one") as caught:
            await client.predict(*KEY, rows(1), feature_names=NAMES)
        assert caught.value.reason == "NO_PRODUCTION_MODEL"


async def test_a_registry_that_appears_after_the_start_is_served(
    tmp_path: Path, templates: list[Path]
) -> None:
    from tests.small_models import register_copy

    base = tmp_path / "later"
    async with serving(base, ready=False) as (client, server):
        while not server.watcher.trouble:
            await server.watcher.wait_for_change(server.watcher.version)
        register_copy(templates[0], base, "btc0")
        promote_model("btc0", base_dir=base, gate=gate_of())
        while KEY not in server.state.snapshot.by_key:
            await server.watcher.wait_for_change(server.watcher.version)
        expected = fitted(0).predict_proba(rows(1))[0, 1]
        assert abs((await client.predict(*KEY, rows(1), feature_names=NAMES)).score - expected) < 1e-6


async def test_a_broken_log_leaves_the_present_models_serving(base: Path) -> None:
    async with serving(base) as (client, server):
        log = base / "registry_events.jsonl"
        log.write_bytes(log.read_bytes() + b'{"no": "event"}\n')
        while not server.watcher.trouble:
            await server.watcher.wait_for_change(server.watcher.version)
        prediction = await client.predict(*KEY, rows(1), feature_names=NAMES)
        assert prediction.model_id == "btc0"
        assert np.isfinite(prediction.score)


async def test_watching_the_status_shows_each_change(base: Path) -> None:
    async with serving(base) as (client, _):
        watch = client.watch_status()
        first = await anext(watch)
        assert [model.model_id for model in first.models] == ["btc0"]
        await client.promote("btc1")
        async for status in watch:
            if status.models[0].model_id == "btc1":
                break
        await client.promote("eth2")
        async for status in watch:
            if len(status.models) == 2:
                break
        await watch.aclose()
