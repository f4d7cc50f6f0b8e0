"""What a policy stands for: names, patterns over the bar files, and ids that follow from the slot."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from signalserve.config.evidence import RetrainPolicy
from signalserve.config.settings import Settings
from signalserve.training.plan import Plan, bar_files, named_otherwise, plan_jobs

SLOT = datetime(2024, 5, 20, 3, tzinfo=UTC)


def settings_of(template: str) -> Settings:
    return Settings(data={"ohlcv_path": template})  # type: ignore[arg-type]


def planned(template: str, symbols: list[str], timeframes: list[str] | None = None, **more: object) -> Plan:
    policy = RetrainPolicy(name="weekly", symbols=symbols, timeframes=timeframes or ["15m"], **more)  # type: ignore[arg-type]
    return plan_jobs(settings_of(template), [(policy, SLOT)])


@pytest.fixture
def files(tmp_path: Path) -> str:
    for name in (
        "BTCUSDT_15m",
        "ETHUSDT_15m",
        "ETHUSDT_1h",
        "ETH_BTC_15m",
        "BTC-PERP_4h",
        "BTCUSDT_notes",
        "BTCUSDT_15min",
    ):
        (tmp_path / f"{name}.csv").touch()
    return f"{tmp_path}/{{symbol}}_{{timeframe}}.csv"


def keys(plan: Plan) -> list[str]:
    return [job.key for job in plan.jobs]


def test_patterns_stand_for_the_bar_files_that_are_there(files: str) -> None:
    assert keys(planned(files, ["*USDT"])) == ["BTCUSDT/15m", "ETHUSDT/15m"]
    assert keys(planned(files, ["ETHUSDT"], ["*"])) == ["ETHUSDT/15m", "ETHUSDT/1h"]
    assert keys(planned(files, ["*"], ["[14]h"])) == ["BTC-PERP/4h", "ETHUSDT/1h"]
    assert planned(files, ["*USDT"]).warnings == ()


def test_a_symbol_may_hold_the_separator_and_other_files_are_no_bars(files: str) -> None:
    assert keys(planned(files, ["*"], ["*"])) == [
        "BTC-PERP/4h",
        "BTCUSDT/15m",
        "ETHUSDT/15m",
        "ETHUSDT/1h",
        "ETH_BTC/15m",
    ]


def test_a_name_without_a_file_is_a_job_and_a_pattern_without_one_a_warning(files: str) -> None:
    plan = planned(files, ["XRPUSDT", "XRP*"])
    assert keys(plan) == ["XRPUSDT/15m"]
    assert plan.jobs[0].ohlcv == Path(files.format(symbol="XRPUSDT", timeframe="15m"))
    [warning] = plan.warnings
    assert "XRP*/15m" in warning
    assert "policy weekly" in warning


def test_a_key_that_several_patterns_match_is_one_job(files: str) -> None:
    assert keys(planned(files, ["BTCUSDT", "BTC*", "*USDT"])) == ["BTCUSDT/15m", "ETHUSDT/15m"]


def test_the_case_of_a_symbol_counts(files: str) -> None:
    assert keys(planned(files, ["*usdt"])) == []


def test_templates_with_folders_one_part_or_a_part_twice_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "15m").mkdir()
    for path in ("15m/A[1].parquet", "15m/B.parquet"):
        (tmp_path / path).touch()
    template = f"{tmp_path}/{{timeframe}}/{{symbol}}.parquet"
    assert keys(planned(template, ["*"], ["*"])) == ["A[1]/15m", "B/15m"]
    (tmp_path / "A").mkdir()
    for path in ("A/A.csv", "A/B.csv"):
        (tmp_path / path).touch()
    twice = f"{tmp_path}/{{symbol}}/{{symbol}}.csv"
    assert list(bar_files(twice)) == [("A", None)]
    # the template says nothing of timeframes: a name stands as it is, a pattern for nothing
    assert keys(planned(twice, ["*"], ["1h"])) == ["A/1h"]
    assert keys(planned(twice, ["*"], ["*"])) == []


def test_a_relative_template_finds_the_same_files(
    files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for template in ("{symbol}_{timeframe}.csv", "./{symbol}_{timeframe}.csv"):
        assert keys(planned(template, ["*USDT"])) == ["BTCUSDT/15m", "ETHUSDT/15m"]


def test_a_jobs_id_follows_from_policy_key_and_slot(files: str) -> None:
    [job] = planned(files, ["BTCUSDT"]).jobs
    assert job.request_id == "retrain:weekly:BTCUSDT:15m:2024-05-20T03:00:00Z"
    [again] = planned(files, ["BTC*"], lookback_days=90).jobs
    assert again.request_id == job.request_id
    ids = {item.job_id for item in planned(files, ["*"], ["*"]).jobs}
    assert len(ids) == 5
    assert all(name.isalnum() for name in ids)


def test_the_model_type_is_the_policys_or_the_configurations(files: str) -> None:
    assert planned(files, ["BTCUSDT"]).jobs[0].model_type == "rf"
    assert planned(files, ["BTCUSDT"], model_type="xgb").jobs[0].model_type == "xgb"


@pytest.mark.parametrize(
    ("template", "file", "odd"),
    [
        ("data/{symbol}_{timeframe}.csv", "elsewhere/BTCUSDT_15m.csv", False),
        ("data/{symbol}_{timeframe}.csv", "BCHUSDT_15m.csv", True),
        ("data/{symbol}_{timeframe}.csv", "BTCUSDT_1h.csv", True),
        ("data/{symbol}_{timeframe}.csv", "mine.csv", False),
        ("data/{symbol}_{timeframe}.csv", "BTCUSDT_notes.csv", False),
        ("data/{symbol}/{timeframe}.csv", "elsewhere/15m.csv", False),
        ("data/{symbol}/{timeframe}.csv", "elsewhere/1h.csv", True),
        ("data/bars.csv", "BCHUSDT_15m.csv", False),
    ],
)
def test_a_file_that_names_another_key_is_noticed(template: str, file: str, odd: bool) -> None:
    warning = named_otherwise(template, Path(file), "BTCUSDT", "15m")
    assert bool(warning) == odd
    assert not odd or warning.endswith("and is taken for BTCUSDT/15m")
