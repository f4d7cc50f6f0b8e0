"""Which model answers: the request's own, a pin, the production model."""

from __future__ import annotations

from pathlib import Path

import pytest

from signalserve.client import FailedPrecondition
from signalserve.common.key import Key
from signalserve.registry import ModelMetadata, Promotion, promote_model, register_model
from tests.predictors.conftest import MODELS, training_data
from tests.predictors.conftest import NAMES as WIDE
from tests.registries import gate_of, registry_at
from tests.server.conftest import serving
from tests.small_models import NAMES, register_copy, rows, write_run

ROW = rows(1)[0]


async def asked(client, model_id: str | None = None) -> str:
    return (await client.predict("BTCUSDT", "15m", ROW, model_id, feature_names=NAMES)).model_id


async def test_the_request_goes_before_the_pin_and_the_pin_before_production(base: Path) -> None:
    registry_at(base).archive(["btc1"])
    async with serving(base) as (client, _):
        assert await asked(client) == "btc0"
        assert await asked(client, "btc1") == "btc1"
    async with serving(base, ml={"models_dir": base, "pins": {"BTCUSDT/15m": "btc1"}}) as (client, _):
        assert await asked(client) == "btc1"
        assert await asked(client, "btc0") == "btc0"
        assert [(model.model_id, model.pinned) for model in (await client.status()).models] == [
            ("btc1", True)
        ]
    async with serving(base, ml={"models_dir": base, "production_model": "btc1"}) as (client, _):
        assert await asked(client) == "btc1"


async def test_a_pin_that_names_nothing_serves_nothing_and_says_so(base: Path) -> None:
    pins = {"BTCUSDT/15m": "eth2"}
    async with serving(base, ready=False, ml={"models_dir": base, "pins": pins}) as (client, server):
        while server.state.snapshot.revision < 0:
            await server.watcher.wait_for_change(server.watcher.version)
        with pytest.raises(FailedPrecondition, match=r"ml\.pins") as caught:
            await asked(client)
        assert caught.value.reason == "MODEL_NOT_SERVABLE"
        assert not (await client.status()).ready


async def test_models_that_requests_name_stay_within_the_bound(base: Path, templates: list[Path]) -> None:
    for number in range(4):
        register_copy(templates[number], base, f"named{number}")
    async with serving(base, server={"port": 0, "max_pinned_models": 2}) as (client, server):
        for number in range(4):
            assert await asked(client, f"named{number}") == f"named{number}"
        assert list(server.named.loaded()) == ["named2", "named3"]
        assert await asked(client, "named0") == "named0"


async def test_models_that_requests_name_stay_within_a_number_of_bytes(
    base: Path, templates: list[Path]
) -> None:
    for number in range(4):
        register_copy(templates[number], base, f"named{number}")
    sizes = [
        sum((base / f"named{number}" / name).stat().st_size for name in ("model.joblib", "model.onnx"))
        for number in range(4)
    ]
    for megabytes, kept in ((2.5 * max(sizes) / 1024**2, 2), (1e-6, 1)):
        async with serving(base, server={"port": 0, "max_pinned_mb": megabytes}) as (client, server):
            for number in (0, 1, 0, 2, 0, 3):
                assert await asked(client, f"named{number}") == f"named{number}"
            # the one that was named again stays before one that came later
            assert list(server.named.loaded()) == ["named0", "named3"][-kept:]


async def test_a_failed_run_is_never_served(base: Path) -> None:
    register_model(ModelMetadata("bad", "BTCUSDT", "15m", "rf"), base, "failed", error="no bars", pins=())
    async with serving(base) as (client, _):
        with pytest.raises(FailedPrecondition, match="failed training run"):
            await asked(client, "bad")


async def test_a_legacy_folder_is_listed_and_served_once_adopted(base: Path) -> None:
    write_run(base / "legacy", "BTCUSDT", column=3)
    index = base / "registry_index.csv"
    index.write_text(index.read_text() + "legacy,BTCUSDT,15m,logreg,2026-01-09,elsewhere,0.1,1.0,success\n")
    async with serving(base) as (client, server):
        listed = {model.model_id: model for model in await client.list_models()}
        assert listed["legacy"].engine == "legacy"
        with pytest.raises(FailedPrecondition, match="registry adopt"):
            await asked(client, "legacy")
        registry_at(base).adopt("legacy")
        while server.state.snapshot.revision < registry_at(base).state.revision:
            await server.watcher.wait_for_change(server.watcher.version)
        assert await asked(client, "legacy") == "legacy"
        assert promote_model("legacy", base_dir=base, gate=gate_of()).status == "production"
    async with serving(base, security={"unpickle": "never"}) as (client, _):
        assert await asked(client) == "legacy"


async def test_a_native_model_is_served_as_the_unpickle_policy_allows(tmp_path: Path) -> None:
    base = tmp_path / "registry"
    X, y, values = training_data()
    model = MODELS["hist_gb"](X, y, values)
    (base / "native").mkdir(parents=True)
    meta = ModelMetadata("native", "BTCUSDT", "15m", "hist_gb", feature_cols=WIDE)
    import joblib

    joblib.dump(model, base / "native" / "model.joblib")
    register_model(meta, base, model=model, reference=X, pins=())
    async with serving(base, security={"unpickle": "never"}) as (client, _):
        # this server could not serve it: nothing is committed, by force neither
        for force in (False, True):
            with pytest.raises(FailedPrecondition, match=r"security\.unpickle"):
                await client.promote("native", reason="test", force=force)
        assert registry_at(base).state.production(Key("BTCUSDT", "15m")) is None
    promote_model("native", base_dir=base, gate=gate_of(), force=True, reason="test")
    async with serving(base) as (client, _):
        score = (await client.predict("BTCUSDT", "15m", X[:1], feature_names=WIDE)).score
        assert abs(score - model.predict_proba(X[:1])[0, 1]) < 1e-6
        served = (await client.status()).models[0]
        assert served.engine == "native"
        assert served.engine_reason
    async with serving(base, ready=False, security={"unpickle": "never"}) as (client, server):
        while not server.state.snapshot.failures:
            await server.watcher.wait_for_change(server.watcher.version)
        assert "security.unpickle" in (await client.status()).load_errors[0].message


async def test_production_model_pins_a_model_for_its_own_key_and_no_other(base: Path) -> None:
    registry_at(base).promote([Promotion("eth2")])
    ml = {"models_dir": base, "production_model": "btc1"}
    async with serving(base, ml=ml) as (client, _):
        assert await asked(client) == "btc1"  # btc0 is in production
        eth = await client.predict("ETHUSDT", "15m", ROW, feature_names=NAMES)
        assert eth.model_id == "eth2"
        pinned = {model.model_id: model.pinned for model in (await client.status()).models}
        assert pinned == {"btc1": True, "eth2": False}
