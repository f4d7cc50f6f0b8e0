"""Replays against `signalserve serve`, with models that the trainer made."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from signalserve.client import SignalClient
from signalserve.config.settings import load_settings
from signalserve.features.bars import read_bars
from signalserve.features.synthetic import synthetic_bars
from signalserve.live.bars import CsvReplay
from signalserve.live.bootstrap import build_engine
from signalserve.live.engine import LiveEngine
from signalserve.live.scoring import StreamScorer
from signalserve.live.served_model import choose_pipeline, served_model
from signalserve.registry import load_model_by_id, promote_model
from signalserve.trading.rules import TradingRules
from signalserve.trading.strategy import MLSignalStrategy
from signalserve.trading.trader import Trader
from signalserve.training.request import TrainRequest
from signalserve.training.run import train
from tests.registries import gate_of

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data" / "ohlcv" / "BTCUSDT_15m.csv"
LONG_MS = 60_000.0
AWAY_MS = 2_000.0


class Served:
    """Two models of one key, the first in production, and a server process that can be killed."""

    def __init__(self, folder, symbol, bars):
        self.symbol, self.bars, self.base = symbol, bars, folder / "models"
        self.config = folder / "system.yml"
        values = {
            "ml": {
                "models_dir": str(self.base),
                "label": {"up_threshold": 0.001, "down_threshold": -0.001},
                "models": {
                    "rf": {"n_estimators": 20, "max_depth": 4, "n_jobs": 1},
                    "logreg": {"C": 0.1},
                },
            },
            "live": {"snapshot_dir": str(folder / "live")},
            "trading": {"proba_entry": 0.52, "proba_exit": 0.48},
            "client": {"deadline_ms": LONG_MS},
            "server": {"port": 0, "poll_ms": 50},
        }
        self.config.write_text(yaml.safe_dump(values))
        self.settings = load_settings(self.config)
        self.first, self.second = (
            train(
                TrainRequest.from_settings(self.settings, symbol, model_type=kind, preset=preset, ohlcv=bars)
            ).model_id
            for kind, preset in (("rf", "core"), ("logreg", "core"))
        )
        promote_model(self.first, base_dir=self.base, gate=gate_of())
        self.log = (folder / "server.log").open("w")
        self.process = None
        self.port = 0

    @property
    def target(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "signalserve.cli.main",
                "serve",
                "--config",
                self.config,
                "--port",
                str(self.port),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        line = self.process.stdout.readline()
        assert line.startswith("ready on 127.0.0.1:"), (line, Path(self.log.name).read_text())
        self.port = int(line.rpartition(":")[2])

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.log.close()

    def offline(self, pipeline):
        """Each model's `predict_proba` of every bar of the file, by the bar's open time; None in the warm-up."""
        frame = read_bars(self.bars).frame
        rows = pipeline.transform(frame).to_numpy()
        scores = {}
        for model_id in (self.first, self.second):
            model = load_model_by_id(self.base, model_id).model
            probability = np.full(len(rows), np.nan)
            probability[pipeline.warmup_bars :] = model.predict_proba(rows[pipeline.warmup_bars :])[:, 1]
            scores[model_id] = dict(
                zip((time.to_pydatetime() for time in frame.index), probability, strict=True)
            )
        return scores


def check_scores(served, pipeline, records):
    """Every bar has the offline score of the model that it names."""
    offline = served.offline(pipeline)
    expected = [offline[record.model_id][record.bar_time] for record in records]
    np.testing.assert_allclose([record.probability for record in records], expected, rtol=0.0, atol=1e-6)


@pytest.fixture
def serve(tmp_path):
    made = []

    def start(symbol, bars):
        made.append(Served(tmp_path, symbol, bars))
        made[-1].start()
        return made[-1]

    yield start
    for served in made:
        served.close()


@pytest.fixture
def synthetic_file(tmp_path):
    path = tmp_path / "SYNTH_15m.csv"
    synthetic_bars("SYNTH", 1500, seed=11).to_csv(path)
    return path


def replay_with_a_promote(served, count):
    with SignalClient(served.target, deadline_ms=LONG_MS) as client:
        pipeline = choose_pipeline(served_model(client, served.symbol, "15m")).pipeline
        calls = []

        def promote_halfway(record):
            calls.append(record)
            if len(calls) == count // 2:
                assert client.promote(served.second).served

        source = CsvReplay(served.bars, last=count)
        result = build_engine(
            client,
            source,
            pipeline,
            served.symbol,
            "15m",
            rules=TradingRules.of(served.settings.trading),
            starting_equity=served.settings.trading.starting_equity,
            deadline_ms=served.settings.client.deadline_ms,
            snapshot_dir=served.settings.live.snapshot_dir,
            on_bar=promote_halfway,
        ).run()
    assert len(result.records) == count
    assert [record.model_id for record in result.records] == [served.first] * (count // 2) + [
        served.second
    ] * (count - count // 2)
    assert (result.counts.holds, result.counts.errors, result.unanswered) == (0, 0, 0)
    check_scores(served, pipeline, result.records)


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not there")
def test_every_live_score_of_real_bars_is_the_offline_score_of_the_model_that_answered(serve):
    replay_with_a_promote(serve("BTCUSDT", REAL), 600)


def test_every_live_score_of_synthetic_bars_is_the_offline_score(serve, synthetic_file):
    replay_with_a_promote(serve("SYNTH", synthetic_file), 200)


def test_a_server_killed_and_restarted_in_mid_replay_loses_no_bar_and_invents_no_signal(
    serve, synthetic_file
):
    served = serve("SYNTH", synthetic_file)
    calls = []

    def outage(record):
        calls.append(record)
        if len(calls) == 60:
            served.kill()
        elif len(calls) == 100:
            served.start()
            while scorer.report().state != "connected":
                scorer.wait_late(0.05)

    with SignalClient(served.target, deadline_ms=AWAY_MS) as client:
        pipeline = choose_pipeline(served_model(client, "SYNTH", "15m")).pipeline
        scorer = StreamScorer(client, "SYNTH", "15m")
        trader = Trader(TradingRules(0.52, 0.48, fee_bps=5.0, slippage_bps=2.0), 10_000.0)
        source = CsvReplay(synthetic_file, last=160)
        result = LiveEngine("SYNTH", "15m", source, pipeline, scorer, trader, on_bar=outage).run()

    assert [record.bar_time for record in result.records] == [bar.time for bar in source]
    check_scores(served, pipeline, result.records)
    assert [number for number, record in enumerate(result.records) if record.late] == list(range(60, 100))
    assert result.unanswered == 0
    strategy, side, expected = MLSignalStrategy(trader.rules), 0, []
    for record in result.records:
        in_time = None if record.late else record.probability
        expected.append(strategy.on_score(in_time, side=side, bars_since=0))
        side = side if expected[-1] is None else int(expected[-1] == "LONG")
    assert [record.signal for record in result.records] == expected
    assert any(expected[:60])
    assert not any(expected[60:100])
