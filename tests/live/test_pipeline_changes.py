"""Promotes to models of other features, against `signalserve serve`: the engine changes too, or holds and says why."""

import json
import shutil
from datetime import UTC, datetime

import joblib
import numpy as np
import pytest
import yaml
from sklearn.ensemble import RandomForestClassifier

from signalserve.client import SignalClient
from signalserve.features.pipeline import FeaturePipeline
from signalserve.features.synthetic import synthetic_bars
from signalserve.live.bars import CsvReplay
from signalserve.live.bootstrap import build_engine
from signalserve.live.served_model import choose_pipeline, served_model
from signalserve.registry import ModelMetadata, new_run, promote_model, register_model
from signalserve.trading.rules import TradingRules
from tests.registries import gate_of
from tests.server.conftest import server_process

LONG_MS = 60_000.0
STEP = 8
CORE, WIDE = FeaturePipeline("core"), FeaturePipeline("extended")


class Models:
    """Forests of one key, by a name; each knows what computes its features."""

    def __init__(self, base, frame):
        self.base, self.frame = base, frame
        self.ids, self._fitted = {}, {}
        self._rows = {pipeline: pipeline.transform(frame) for pipeline in (CORE, WIDE)}
        self._up = (frame["close"].shift(-1) > frame["close"]).astype(int).to_numpy()

    def add(self, name, pipeline, columns, **said):
        month = len(self.ids) + 1
        rows = self._rows[pipeline].reindex(columns=columns, fill_value=0.0)
        X, y = rows.to_numpy()[pipeline.warmup_bars :], self._up[pipeline.warmup_bars :]
        model = RandomForestClassifier(5, max_depth=4, random_state=month).fit(X, y)
        moment = datetime(2026, month, 2, tzinfo=UTC)
        with new_run(self.base, "SYNTH", "15m", "rf", clock=lambda: moment) as run:
            joblib.dump(model, run.path / "model.joblib")
            meta = ModelMetadata(
                run.model_id,
                "SYNTH",
                "15m",
                "rf",
                created_at=run.created_at,
                feature_cols=list(columns),
                **said,
            )
            meta.write(run.path / "meta.json")
            run.commit()
        register_model(meta, self.base, model=model, reference=X)
        self.ids[name] = run.model_id
        self._fitted[run.model_id] = (model, rows)

    def offline(self, model_id, bar_time):
        model, rows = self._fitted[model_id]
        return model.predict_proba(rows.loc[[bar_time]].to_numpy())[0, 1]


@pytest.fixture(scope="module")
def bars_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("bars") / "SYNTH_15m.csv"
    synthetic_bars("SYNTH", 1500, seed=11).to_csv(path)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory, bars_file):
    made = Models(tmp_path_factory.mktemp("registry") / "models", synthetic_bars("SYNTH", 1500, seed=11))
    made.add("core", CORE, CORE.names, feature_preset="core", pipeline_version="1")
    made.add("twin", WIDE, CORE.names, feature_preset="extended", pipeline_version="1")
    made.add("wide", WIDE, WIDE.names, feature_preset="extended", pipeline_version="1")
    made.add("silent", WIDE, WIDE.names)
    made.add("older", CORE, CORE.names, feature_preset="core", pipeline_version="0")
    made.add("moon", CORE, (*CORE.names, "moon_phase"))
    return made


@pytest.fixture
def client(models, tmp_path):
    config = tmp_path / "system.yml"
    config.write_text(
        yaml.safe_dump(
            {"promotion": {"gate": "none"}, "server": {"poll_ms": 50}, "logging": {"level": "info"}}
        )
    )
    base = shutil.copytree(models.base, tmp_path / "models")
    promote_model(models.ids["core"], base_dir=base, gate=gate_of())
    with (
        server_process(base, tmp_path / "server.log", "--config", str(config)) as (_, address),
        SignalClient(address, deadline_ms=LONG_MS) as opened,
    ):
        yield opened


def replay(client, models, bars_file, folder, names, **options):
    """Replay with a promote of each of the named models, `STEP` bars apart; the first one is in production before."""
    calls = []

    def promote(record):
        calls.append(record)
        place, rest = divmod(len(calls), STEP)
        if not rest and place < len(names):
            assert client.promote(models.ids[names[place]], force=True, reason="a test").served

    pipeline = choose_pipeline(
        served_model(client, "SYNTH", "15m", options.get("model_id")), options.get("preset")
    ).pipeline
    return build_engine(
        client,
        CsvReplay(bars_file, last=STEP * len(names)),
        pipeline,
        "SYNTH",
        "15m",
        rules=TradingRules(0.52, 0.48, fee_bps=5.0, slippage_bps=2.0),
        starting_equity=1000.0,
        deadline_ms=LONG_MS,
        snapshot_dir=folder,
        on_bar=promote,
        **options,
    ).run()


def check_scores(models, records):
    """Each record has the offline score of the model that it names."""
    found = [record.probability for record in records]
    expected = [models.offline(record.model_id, record.bar_time) for record in records]
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-6)


def test_a_promote_to_a_model_of_other_features_changes_the_pipeline_within_the_same_bar(
    client, models, bars_file, tmp_path
):
    names = ["core", "twin", "wide", "core", "silent", "core"]
    result = replay(client, models, bars_file, tmp_path / "live", names)
    answered = [models.ids[name] for name in names for _ in range(STEP)]
    assert [record.model_id for record in result.records] == answered
    check_scores(models, result.records)
    counts = result.counts
    assert (counts.holds, counts.late, counts.errors, counts.mismatched, result.unanswered) == (0, 0, 0, 0, 0)
    assert {number: record.note for number, record in enumerate(result.records) if record.note} == {
        STEP: "features changed from core@1 to extended@1",
        3 * STEP: "features changed from extended@1 to core@1",
        4 * STEP: "features changed from core@1 to extended@1",
        5 * STEP: "features changed from extended@1 to core@1",
    }
    assert counts.pipeline_changes == 4


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "older",
            "the model that answers now was trained on core@0, and this engine computes core@1, extended@1",
        ),
        ("moon", "needs 1 features that preset extended does not give: moon_phase"),
    ],
)
def test_a_model_of_features_that_nobody_computes_is_held_and_said_until_another_one_answers(
    client, models, bars_file, tmp_path, caplog, name, why
):
    names = ["core", name, "wide"]
    result = replay(client, models, bars_file, tmp_path / "live", names)
    before, held, after = (result.records[place * STEP : (place + 1) * STEP] for place in range(3))
    check_scores(models, [*before, *after])
    assert [record.probability for record in held] == [None] * STEP
    assert all(record.note.startswith("held: ") and why in record.note for record in held)
    counts = result.counts
    assert (counts.holds, counts.mismatched, counts.answers, result.unanswered) == (STEP, STEP, 2 * STEP, 0)
    snapshot = json.loads((tmp_path / "live" / "SYNTH_15m.json").read_text())
    assert (snapshot["feature_set"], snapshot["counts"]["mismatched"]) == ("extended@1", STEP)
    assert why in snapshot["recent"][STEP]["note"]
    assert caplog.text.count("live.no_pipeline") == 1


def test_an_engine_computes_what_its_model_was_trained_on_whatever_meta_json_says_now(
    client, models, bars_file, tmp_path
):
    """The twin has the columns of core, computed by the definitions of extended."""
    assert client.promote(models.ids["twin"], force=True, reason="a test").served
    meta = tmp_path / "models" / models.ids["twin"] / "meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"feature_preset": "core"}))
    chosen = choose_pipeline(served_model(client, "SYNTH", "15m"))
    assert (chosen.pipeline.feature_set, chosen.warning) == ("extended@1", "")
    result = replay(client, models, bars_file, tmp_path / "live", ["twin"])
    check_scores(models, result.records)
    assert result.counts.pipeline_changes == 0


def test_an_engine_that_was_given_its_preset_keeps_to_it(client, models, bars_file, tmp_path):
    result = replay(client, models, bars_file, tmp_path / "live", ["core", "wide"], preset="core")
    check_scores(models, result.records[:STEP])
    assert "was trained on extended@1, and this engine computes core@1 alone" in result.records[STEP].note
    assert (result.counts.mismatched, result.counts.pipeline_changes) == (STEP, 0)


def test_an_engine_whose_model_is_named_is_asked_for_the_features_of_that_one(
    client, models, bars_file, tmp_path
):
    """What is promoted meanwhile is nothing to it."""
    named = models.ids["twin"]
    result = replay(client, models, bars_file, tmp_path / "live", ["core", "wide"], model_id=named)
    assert {record.model_id for record in result.records} == {named}
    check_scores(models, result.records)
    assert result.counts.pipeline_changes == 0


def test_a_preset_that_is_not_the_trained_one_scores_nothing(client, models, bars_file, tmp_path):
    """Not even where it has every column of the model."""
    named = models.ids["older"]
    result = replay(client, models, bars_file, tmp_path / "live", ["core"], preset="extended", model_id=named)
    assert [record.probability for record in result.records] == [None] * STEP
    assert "was trained on core@0, and this engine computes extended@1 alone" in result.records[0].note
    assert (result.counts.mismatched, result.counts.answers) == (STEP, 0)
