"""A configuration that can't be used is one line a key, with its path."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from signalserve.config.settings import ConfigError, Settings, load_settings
from signalserve.trading.rules import TradingRules

MOVED = {
    "live": {"proba_entry": 0.6, "proba_exit": 0.4, "warmup_bars": 5, "starting_equity": 1.0},
    "backtest": {
        "fee_bps": 1.0,
        "slippage_bps": 1.0,
        "allow_short": True,
        "warmup_bars": 5,
        "starting_equity": 1.0,
    },
}


def test_keys_of_earlier_versions_say_where_they_went(tmp_path: Path) -> None:
    path = tmp_path / "system.yml"
    path.write_text(yaml.safe_dump(MOVED))
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert sorted(str(caught.value).splitlines()) == sorted(
        f"{path}: {section}.{key}: moved to trading.{key}" for section, keys in MOVED.items() for key in keys
    )


def test_a_variable_of_an_earlier_version_says_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "system.yml"
    path.write_text("backtest: {fee: 1.0}\n")
    monkeypatch.setenv("SIGNALSERVE__LIVE__PROBA_ENTRY", "0.6")
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert sorted(str(caught.value).splitlines()) == [
        f"{path}: backtest.fee: unknown key",
        "environment SIGNALSERVE__LIVE__PROBA_ENTRY: live.proba_entry: moved to trading.proba_entry",
    ]


def test_where_a_moved_key_went_there_is_one_of_that_name() -> None:
    for keys in MOVED.values():
        assert set(keys) <= set(type(Settings().trading).model_fields)


def test_the_trading_section_gives_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNALSERVE__TRADING__ALLOW_SHORT", "true")
    assert asdict(TradingRules.of(Settings().trading)) == {
        "proba_entry": 0.55,
        "proba_exit": 0.45,
        "fee_bps": 5.0,
        "slippage_bps": 2.0,
        "warmup_bars": 0,
        "allow_short": True,
        "value_entry_bps": None,
        "value_exit_bps": 0.0,
    }


@pytest.mark.parametrize(
    "text",
    ["2024-06-30", "2024-06-30 00:00:00+00:00", "2024-06-30T00:00Z", "'20240630'", "2024-06-30T02:00+02:00"],
)
def test_a_span_is_any_iso_time_and_utc_without_a_zone(tmp_path: Path, text: str) -> None:
    (tmp_path / "system.yml").write_text(
        f"retrain: {{policies: [{{name: p, symbols: [A], train_end: {text}}}]}}", encoding="utf-8"
    )
    [policy] = load_settings(tmp_path / "system.yml").retrain.policies
    assert policy.train_end == datetime(2024, 6, 30, tzinfo=UTC)


def test_a_number_is_no_time(tmp_path: Path) -> None:
    (tmp_path / "system.yml").write_text(
        "retrain: {policies: [{name: p, symbols: [A], train_end: 20240630}]}", encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=r"train_end: is no time; write 2024-06-30"):
        load_settings(tmp_path / "system.yml")


def test_the_file_that_ships_holds_the_defaults() -> None:
    assert load_settings(Path(__file__).parents[2] / "config/system.yml").trading == Settings().trading
