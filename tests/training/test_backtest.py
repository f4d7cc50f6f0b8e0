"""A backtest through its command: what it refuses, what it writes, and that every figure follows from the books."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from typer.testing import CliRunner

from signalserve.cli.main import app
from signalserve.features.bars import read_bars
from signalserve.lab.backtests import Backtests
from signalserve.registry import ModelMetadata, load_model_by_id, promote_model, register_model, verify_log
from signalserve.registry.errors import ArtefactError, RequestIdReusedError
from signalserve.registry.lock import LOCK_FILE
from signalserve.training.backtest import BacktestRequest, backtest
from signalserve.training.errors import TrainingError, TrainingRequestError
from signalserve.training.plots import calibration_groups
from tests.registries import gate_of, registry_at
from tests.training.recompute import check_report


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, bar_file: Path) -> tuple[Path, str]:
    from signalserve.config.settings import Settings
    from signalserve.training.request import TrainRequest
    from signalserve.training.run import train
    from tests.training.conftest import CONFIG

    base = tmp_path_factory.mktemp("backtest") / "registry"
    request = TrainRequest.from_settings(Settings(**CONFIG), "SYNTH", output_dir=base, ohlcv=bar_file)
    model_id = train(request).model_id
    promote_model(model_id, base_dir=base, gate=gate_of())
    return base, model_id


def request(trained: tuple[Path, str], bar_file: Path, folder: Path, **more: Any) -> BacktestRequest:
    from signalserve.config.settings import Settings
    from tests.training.conftest import CONFIG

    return BacktestRequest.from_settings(
        Settings(**CONFIG), "SYNTH", ohlcv=bar_file, base_dir=trained[0], output_dir=folder, **more
    )


def books(folder: Path) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    summary = json.loads((folder / "metrics.json").read_text())
    equity = pd.read_csv(folder / "equity.csv", index_col="timestamp", parse_dates=True)
    return summary, pd.read_csv(folder / "trades.csv"), equity


def test_every_figure_follows_from_the_trades_and_the_equity(
    trained: tuple[Path, str], bar_file: Path, tmp_path: Path
) -> None:
    result = backtest(request(trained, bar_file, tmp_path))
    summary, trades, equity = books(result.folder)
    frame = read_bars(bar_file).frame
    check_report(result.folder, summary, frame["close"].loc[equity.index])
    start = summary["starting_equity"]
    assert trades["pnl"].sum() == pytest.approx(summary["final_equity"] - start, abs=1e-6)
    assert equity["equity"].iloc[-1] == pytest.approx(summary["final_equity"])
    assert summary["metrics"]["cum_return"] == pytest.approx(float(np.prod(1 + trades["net_return"])) - 1)
    assert summary["metrics"]["max_drawdown"] == pytest.approx(equity["drawdown"].max())
    assert summary["metrics"]["bars"] == summary["span"]["bars"] == len(equity)
    assert summary["metrics"]["trades"] > 3
    held = trades.loc[0]
    rules = summary["rules"]
    assert held["entry_price"] == pytest.approx(
        frame.loc[held["entry_time"], "open"] * (1 + rules["slippage_bps"] / 1e4)
    )
    fill_values = trades["quantity"] * (trades["entry_price"] + trades["exit_price"])
    assert trades["fees"].to_numpy() == pytest.approx(fill_values.to_numpy() * rules["fee_bps"] / 1e4)


def test_the_scores_are_the_native_models_and_the_classes_those_of_its_label(
    trained: tuple[Path, str], bar_file: Path, tmp_path: Path
) -> None:
    from signalserve.features.pipeline import FeaturePipeline

    result = backtest(request(trained, bar_file, tmp_path))
    summary, _, equity = books(result.folder)
    frame = read_bars(bar_file).frame
    matrix = FeaturePipeline("core").transform(frame).loc[equity.index].to_numpy()
    native = load_model_by_id(*trained).model.predict_proba(matrix)[:, 1]
    np.testing.assert_allclose(equity["probability"], native, atol=1e-6)
    close = frame["close"]
    ahead = (close.shift(-4) / close - 1).loc[equity.index]
    known = (ahead >= 0.001) | (ahead <= -0.001)
    classes = (ahead >= 0.001)[known]
    assert summary["metrics"]["auc"] == pytest.approx(roc_auc_score(classes, native[known]), abs=1e-6)
    assert summary["metrics"]["log_loss"] == pytest.approx(log_loss(classes, native[known]), abs=1e-6)


def test_a_span_that_touches_the_training_is_refused_or_marked(
    trained: tuple[Path, str], bar_file: Path, tmp_path: Path
) -> None:
    first = read_bars(bar_file).frame.index[300].to_pydatetime()
    with pytest.raises(TrainingRequestError, match="overlaps the bars that") as caught:
        backtest(request(trained, bar_file, tmp_path, start=first))
    assert "the first bar after them is" in str(caught.value)
    assert not list(tmp_path.iterdir())
    result = backtest(request(trained, bar_file, tmp_path, start=first, allow_in_sample=True))
    assert result.in_sample
    assert json.loads((result.folder / "metrics.json").read_text())["in_sample"] is True
    assert "In sample." in (result.folder / "report.html").read_text()


def test_the_default_span_is_all_that_the_model_has_not_seen(
    trained: tuple[Path, str], bar_file: Path, tmp_path: Path
) -> None:
    result = backtest(request(trained, bar_file, tmp_path))
    index = read_bars(bar_file).frame.index
    last_seen = pd.Timestamp(load_model_by_id(*trained).meta.train_end)
    assert result.span == (index[index > last_seen][0], index[-1])
    assert not result.in_sample
    assert "In sample." not in (result.folder / "report.html").read_text()


def test_the_report_needs_nothing_from_outside_and_escapes_what_it_shows(
    trained: tuple[Path, str], bar_file: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "<b>bars.csv"
    shutil.copy(bar_file, odd)
    page = (backtest(request(trained, odd, tmp_path / "out")).folder / "report.html").read_text()
    assert "&lt;b&gt;bars.csv" in page
    assert "<b>bars" not in page
    assert page.count("<svg") == 4
    for outside in ("<script", "<link", "@import", "src=", 'href="http'):
        assert outside not in page


def test_a_repeat_replaces_the_folder_and_leaves_nothing_else(
    trained: tuple[Path, str], bar_file: Path, tmp_path: Path
) -> None:
    first = backtest(request(trained, bar_file, tmp_path))
    before = books(first.folder)[0]
    (first.folder / "trades.csv").write_text("spoilt")
    second = backtest(request(trained, bar_file, tmp_path))
    assert second.folder == first.folder
    again = books(second.folder)[0]
    assert again.pop("look")["looks"] == before.pop("look")["looks"] + 1
    assert again == before
    assert len(books(second.folder)[1]) > 3
    assert [path.name for path in tmp_path.iterdir()] == [first.folder.name]


def test_a_model_that_says_nothing_of_its_training_needs_the_owners_word(
    trained: tuple[Path, str], bar_file: Path, tmp_path: Path
) -> None:
    base = tmp_path / "registry"
    shutil.copytree(trained[0], base)
    shutil.copytree(base / trained[1], base / "silent")
    (base / "silent" / "manifest.json").unlink()
    path = base / "silent" / "meta.json"
    meta = json.loads(path.read_text()) | {"model_id": "silent"}
    del meta["train_end"]
    path.write_text(json.dumps(meta))
    register_model(ModelMetadata.from_dict(meta), base, pins=())
    with pytest.raises(TrainingRequestError, match="nobody knows which bars"):
        backtest(request((base, "silent"), bar_file, tmp_path, model_id="silent"))
    free = request((base, "silent"), bar_file, tmp_path, model_id="silent", allow_in_sample=True)
    assert backtest(free).in_sample


def test_metadata_that_was_edited_moves_no_training_span(
    trained: tuple[Path, str], bar_file: Path, tmp_path: Path
) -> None:
    base = tmp_path / "registry"
    shutil.copytree(trained[0], base)
    path = base / trained[1] / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"train_end": "2024-01-02T00:00:00+00:00"}))
    with pytest.raises(ArtefactError, match="not the one that was registered"):
        backtest(request((base, ""), bar_file, tmp_path))


def test_other_rules_on_the_same_span_get_a_folder_of_their_own(
    trained: tuple[Path, str], bar_file: Path, tmp_path: Path
) -> None:
    plain = request(trained, bar_file, tmp_path)
    dear = replace(plain, rules=replace(plain.rules, fee_bps=50.0))
    folders = [backtest(choice).folder for choice in (plain, dear, dear, plain)]
    assert folders[1].name == f"{folders[0].name}_2"
    assert folders[2:] == [folders[1], folders[0]]
    fees = [json.loads((folder / "metrics.json").read_text())["rules"]["fee_bps"] for folder in folders[:2]]
    assert fees == [plain.rules.fee_bps, 50.0]


def test_a_span_without_bars_is_a_clear_error(
    trained: tuple[Path, str], bar_file: Path, tmp_path: Path
) -> None:
    late = read_bars(bar_file).frame.index[-1].to_pydatetime()
    with pytest.raises(TrainingError, match="fewer than 2 in the span"):
        backtest(request(trained, bar_file, tmp_path, start=late))


def test_the_command_prints_a_table_and_where_things_landed(
    trained: tuple[Path, str], bar_file: Path, config_file: Path, tmp_path: Path
) -> None:
    common = ["backtest", "-c", str(config_file), "--ohlcv", str(bar_file), "-r", str(trained[0])]
    done = CliRunner().invoke(app, [*common, "-s", "SYNTH", "--output-dir", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "report.html" in done.stdout
    assert trained[1] in done.stdout
    as_json = CliRunner().invoke(app, [*common, "-s", "SYNTH", "--output-dir", str(tmp_path), "--json"])
    assert json.loads(as_json.stdout)["metrics"]["trades"] > 3
    changed = ["--fee-bps", "50", "--allow-short", "--proba-entry", "0.52", "--json"]
    dear = json.loads(
        CliRunner().invoke(app, [*common, "-s", "SYNTH", "--output-dir", str(tmp_path), *changed]).stdout
    )
    assert (dear["rules"]["fee_bps"], dear["rules"]["allow_short"], dear["rules"]["proba_entry"]) == (
        50,
        True,
        0.52,
    )
    odd = CliRunner().invoke(app, [*common, "-s", "SYNTH", "--proba-exit", "2"])
    assert (odd.exit_code, "proba_exit" in odd.stderr) == (2, True)
    refused = CliRunner().invoke(app, [*common, "-s", "SYNTH", "--start", "2024-01-04"])
    assert refused.exit_code == 5
    missing = CliRunner().invoke(
        app, ["backtest", "-c", str(config_file), "-s", "SYNTH", "-r", str(trained[0])]
    )
    assert missing.exit_code == 2


def test_the_calibration_plot_is_of_ten_groups_of_equal_size() -> None:
    random = np.random.default_rng(5)
    said = random.random(1000)
    was = (random.random(1000) < said).astype(float)
    groups = pd.DataFrame({"said": said, "was": was}).groupby(pd.qcut(said, 10, labels=False))
    found = calibration_groups(said, was)
    np.testing.assert_allclose(found[0], groups["said"].mean())
    np.testing.assert_allclose(found[1], groups["was"].mean())
    np.testing.assert_allclose(found[2], groups["was"].std(ddof=0) / np.sqrt(groups["was"].count()))
    assert abs(found[1] - found[0]).max() < 0.15


def copied(trained: tuple[Path, str], folder: Path) -> tuple[Path, str]:
    """A registry of the test's own, with the trained model in production."""
    return shutil.copytree(trained[0], folder / "registry"), trained[1]


def test_each_backtest_is_a_look_that_the_log_counts(
    trained: tuple[Path, str], bar_file: Path, tmp_path: Path
) -> None:
    mine = copied(trained, tmp_path)
    registry = registry_at(mine[0])
    entry = registry.entry(mine[1])
    result = backtest(request(mine, bar_file, tmp_path / "other"))
    first, last = (moment.isoformat() for moment in result.span)
    looks = registry.state.tries(entry.key, first, last)
    assert (result.counted.state, result.counted.looks) == ("recorded", looks)
    event = registry.events()[-1]
    assert (event.action, event.via, event.changes) == ("look", "python", ())
    rules = request(mine, bar_file, tmp_path).rules
    seen = {"key": ["SYNTH", "15m"], "model_id": mine[1], "first": first, "last": last}
    assert event.detail == {**seen, "rules": rules.used_for(["probability"])}
    assert event.is_about("SYNTH", "15m", mine[1])
    assert not event.is_about("SYNTH", "1h")
    cut = read_bars(bar_file).frame.index[-200].to_pydatetime()
    dear = replace(request(mine, bar_file, tmp_path / "b"), rules=replace(rules, fee_bps=50.0))
    for choice in (request(mine, bar_file, tmp_path / "a", end=cut), dear):
        backtest(choice)
    assert registry.state.tries(entry.key, first, last) == looks + 2
    for _ in range(2):
        result = backtest(request(mine, bar_file, tmp_path / "a"), request_id="once")
    assert (result.counted.state, result.counted.looks) == ("recorded", looks + 3)
    with pytest.raises(RequestIdReusedError):
        backtest(dear, request_id="once")
    assert registry.entry(mine[1]).status == "production"
    assert not verify_log(mine[0]).problems


def test_a_look_at_the_bars_of_the_training_is_not_counted_and_what_comes_after_them_is(
    trained: tuple[Path, str], bar_file: Path, tmp_path: Path
) -> None:
    mine = copied(trained, tmp_path)
    index = read_bars(bar_file).frame.index
    revision = registry_at(mine[0]).state.revision
    inside = {"start": index[300].to_pydatetime(), "allow_in_sample": True}
    within = backtest(request(mine, bar_file, tmp_path, end=index[900].to_pydatetime(), **inside))
    assert within.counted.state == "in_sample"
    assert registry_at(mine[0]).state.revision == revision
    beyond = backtest(request(mine, bar_file, tmp_path, **inside))
    event = registry_at(mine[0]).events()[-1]
    trained_to = pd.Timestamp(load_model_by_id(*mine).meta.train_end)
    assert (beyond.in_sample, beyond.counted.state) == (True, "recorded")
    assert (event.detail["first"], event.detail["last"]) == (
        index[index > trained_to][0].isoformat(),
        index[-1].isoformat(),
    )


def test_where_the_registry_cant_be_written_a_backtest_is_refused_or_marked_everywhere(
    trained: tuple[Path, str], bar_file: Path, config_file: Path, tmp_path: Path
) -> None:
    mine = copied(trained, tmp_path)
    (mine[0] / LOCK_FILE).unlink(missing_ok=True)
    (mine[0] / LOCK_FILE).mkdir()  # no writer gets its turn, whoever runs this
    out = tmp_path / "out"
    command = [
        "backtest",
        "-s",
        "SYNTH",
        "-c",
        str(config_file),
        "-r",
        str(mine[0]),
        "--ohlcv",
        str(bar_file),
    ]
    refused = CliRunner().invoke(app, [*command, "--output-dir", str(out)])
    assert refused.exit_code == 7
    assert "--unrecorded shows the backtest all the same" in " ".join(refused.stderr.split())
    assert not out.exists()
    done = CliRunner().invoke(app, [*command, "--output-dir", str(out), "--unrecorded"])
    assert done.exit_code == 0, done.output
    assert "NOT RECORDED" in done.stdout
    (found,) = Backtests(out).all()
    assert (found.look, "NOT RECORDED" in found.look_text) == ("not_recorded", True)
    assert "<strong>Not recorded.</strong>" in (out / found.name / "report.html").read_text()
    (mine[0] / LOCK_FILE).rmdir()
    counted = CliRunner().invoke(app, [*command, "--output-dir", str(out), "--unrecorded", "--json"])
    assert json.loads(counted.stdout)["look"]["state"] == "recorded"
    assert registry_at(mine[0]).events()[-1].via == "cli"
