import json
import threading
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest

from signalserve.client import SignalClient
from signalserve.client.backoff import Backoff
from signalserve.features.pipeline import LONGEST_WINDOW, FeaturePipeline
from signalserve.features.row import FeatureRow
from signalserve.features.synthetic import synthetic_bars
from signalserve.live.pipelines import Pipelines
from signalserve.live.scoring import BURST, StreamScorer
from signalserve.live.snapshot import SnapshotFile
from signalserve.trading.account import Account
from signalserve.trading.strategy import MLSignalStrategy, Signal
from signalserve.v1 import prediction_pb2

LONG_MS = 60_000.0
AWAY_MS = 1_500.0  # where a bar has to wait its deadline out
PIPELINE = FeaturePipeline("core")
WARM = PIPELINE.warmup_bars
SCORED = 60
FRAME = synthetic_bars("SYNTH", WARM + SCORED, seed=4)


def replayed(rig, records):
    """What strategy and account make of the scores that were there in time, told again from the records."""
    strategy, account = MLSignalStrategy(rig.trader.rules), Account(rig.trader.rules, 1000.0)
    since, told = -1, []
    opens = rig.frame["open"].to_numpy()[-len(records) :]
    for record, opened in zip(records, opens, strict=True):
        account.open_bar(opened)
        in_time = None if record.late else record.probability
        since += since >= 0 or in_time is not None
        signal = strategy.on_score(in_time, side=account.side, bars_since=since)
        account.order(signal)
        told.append((signal, account.position, account.mark(record.close)))
    return told


def checked(rig, result):
    """What must hold of every run, whatever happened to the server."""
    assert [record.bar_time for record in result.records] == [bar.time for bar in rig.source._bars]
    told = [(record.signal, record.position, record.equity) for record in result.records]
    assert told == replayed(rig, result.records)
    late = [call.bar_time for call in rig.calls if call.late]
    assert late == sorted(set(late))
    assert all(call.signal is None for call in rig.calls if call.late)


def test_every_bar_has_the_score_of_its_offline_features_and_the_signals_follow(make_rig):
    rig = make_rig(FRAME)
    result = rig.engine.run()
    checked(rig, result)
    rig.check_scores(result.records)
    assert result.counts.bars == len(FRAME)
    assert (result.counts.warmup, result.counts.answers, result.counts.holds) == (WARM, SCORED, 0)
    assert {record.signal for record in result.records} == {None, Signal.LONG, Signal.CLOSE}
    assert result.counts.signals == sum(record.signal is not None for record in result.records)
    assert result.counts.fills == len(rig.trader.account.fills) > 2
    assert (result.used_model_id, result.unanswered, result.stopped) == ("first", 0, False)
    assert all(record.latency_ms > 0.0 for record in result.records[WARM:])
    assert [record.note for record in result.records[:WARM]] == ["warm-up of the features"] * WARM
    assert rig.calls == list(result.records)


def test_an_engine_that_may_sell_short_does_and_a_flip_counts_as_two_fills(make_rig):
    rig = make_rig(FRAME, allow_short=True)
    result = rig.engine.run()
    checked(rig, result)
    assert {record.signal for record in result.records} >= {None, Signal.LONG, Signal.SHORT}
    assert {record.position for record in result.records} == {"flat", "long", "short"}
    sides = [("flat", "long", "short").index(record.position) for record in result.records]
    flips = sum({before, after} == {1, 2} for before, after in pairwise(sides))
    changes = sum(before != after for before, after in pairwise(sides))
    assert flips > 2
    assert result.counts.fills == changes + flips


def test_a_run_from_the_middle_gives_the_bars_the_scores_of_a_run_from_the_start(make_rig):
    rig = make_rig(FRAME, history=WARM + 20)
    result = rig.engine.run()
    checked(rig, result)
    rig.check_scores(result.records)
    assert None not in rig.expected
    assert (len(result.records), result.counts.warmup) == (SCORED - 20, 0)
    assert rig.source.asked_for == LONGEST_WINDOW - 1


def test_the_strategys_warmup_comes_after_that_of_the_features(make_rig):
    rig = make_rig(FRAME, warmup_bars=30)
    result = rig.engine.run()
    checked(rig, result)
    signals = [number for number, record in enumerate(result.records) if record.signal]
    assert min(signals) >= WARM + 30
    assert result.records[WARM].probability is not None


def test_max_bars_ends_the_run_and_takes_no_bar_more(make_rig):
    rig = make_rig(FRAME)
    taken = []
    bars = rig.source._bars
    rig.source._bars = (taken.append(bar) or bar for bar in bars)
    assert len(rig.engine.run(max_bars=5).records) == len(taken) == 5


def test_a_pinned_model_is_asked_by_its_id(make_rig, server):
    result = make_rig(FRAME[: WARM + 3], pinned_model_id="challenger").engine.run()
    assert {request.model_id for request in server.prediction.requests} == {"challenger"}
    assert result.used_model_id == "challenger"


def test_a_swap_in_mid_run_changes_the_model_id_and_leaves_no_gap(make_rig, server):
    def swap(record):
        if len(rig.calls) == WARM + 50:
            server.prediction.model_id = "second"

    rig = make_rig(FRAME, on_bar=swap)
    result = rig.engine.run()
    assert [record.model_id for record in result.records[WARM:]] == ["first"] * 50 + ["second"] * (
        SCORED - 50
    )
    assert result.counts.holds == 0


def test_event_times_are_close_times_and_sent_only_when_asked_for(make_rig, server):
    make_rig(FRAME[: WARM + 2]).engine.run()
    assert not any(request.HasField("event_time") for request in server.prediction.requests)
    server.prediction.requests.clear()
    make_rig(FRAME[: WARM + 2], event_times=True).engine.run()
    closes = [request.event_time.ToDatetime() for request in server.prediction.requests]
    assert closes == [
        (time + timedelta(minutes=15)).tz_localize(None).to_pydatetime()
        for time in FRAME.index[WARM : WARM + 2]
    ]


def test_holes_are_counted_and_the_rows_are_consecutive_as_in_training(make_rig):
    rig = make_rig(FRAME.drop(FRAME.index[[50, 51, 52, 240]]))
    result = rig.engine.run()
    checked(rig, result)
    rig.check_scores(result.records)
    assert (result.counts.gaps, result.counts.missing_bars) == (2, 4)
    assert result.records[239].note == ""
    assert result.records[237].note == "1 bars are missing before this one"
    assert result.records[50].note == "3 bars are missing before this one; warm-up of the features"


def test_a_bar_that_comes_twice_or_out_of_order_is_ignored(make_rig):
    rig = make_rig(FRAME)
    bars = rig.source._bars
    rig.source._bars = [*bars[:250], bars[249], bars[100], *bars[250:]]
    result = rig.engine.run()
    assert result.counts.ignored_bars == 2
    assert [record.bar_time for record in result.records] == [bar.time for bar in bars]
    rig.check_scores(result.records)


def test_a_bar_without_features_is_held_and_the_engine_goes_on(make_rig):
    rig = make_rig(FRAME)
    bars = rig.source._bars
    broken = bars[-1].__class__(bars[-1].time, 1.0, 1.0, 1.0, float("nan"), 1.0)
    rig.source._bars = [*bars[:-1], broken]
    result = rig.engine.run()
    assert result.records[-1].probability is None
    assert "held: no features" in result.records[-1].note
    assert (result.counts.holds, result.counts.errors, result.unanswered) == (1, 1, 0)


def test_any_exception_in_the_features_of_one_bar_holds_that_bar_alone(make_rig):
    class OneBadBar(FeaturePipeline):
        def latest(self, frame):
            if frame.index[-1] == FRAME.index[WARM + 20]:
                raise ZeroDivisionError("a window of nothing")
            return super().latest(frame)

    rig = make_rig(FRAME, pipeline=OneBadBar("core"))
    result = rig.engine.run()
    checked(rig, result)
    rig.expected[WARM + 20] = None
    rig.check_scores(result.records)
    assert result.records[WARM + 20].note == "held: no features: ZeroDivisionError: a window of nothing"
    assert (result.counts.holds, result.counts.errors, result.unanswered) == (1, 1, 0)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([float("nan")], "held: first answered nan, which is no score"),
        ([float("-inf")], "held: first answered -inf, which is no score"),
        ([], "held: first answered 0 scores to one row"),
        ([0.9, 0.1], "held: first answered 2 scores to one row"),
    ],
)
def test_an_answer_that_is_no_score_holds_its_bar_and_ends_nothing(make_rig, server, tmp_path, scores, said):
    bad = PIPELINE.transform(FRAME).to_numpy()[WARM + 20][0]
    server.prediction.scores = lambda request: (
        scores if request.values[0] == bad else [server.model(request.values)]
    )
    file = SnapshotFile(tmp_path, "SYNTH", "15m")
    rig = make_rig(FRAME, snapshot=file)
    result = rig.engine.run()
    checked(rig, result)
    rig.expected[WARM + 20] = None
    rig.check_scores(result.records)
    assert (result.records[WARM + 20].note, result.records[WARM + 20].model_id) == (said, "first")
    assert (result.counts.holds, result.counts.unusable, result.counts.answers) == (1, 1, SCORED)
    assert json.loads(file.path.read_text(), parse_constant=pytest.fail)["counts"]["unusable"] == 1


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"feature_set": "core@0"}, "held: first was trained on core@0, and this engine computes core@1"),
        ({"flags": [prediction_pb2.PREDICTION_FLAG_NOT_CURRENT]}, "held: flagged NOT_CURRENT (score "),
    ],
)
def test_an_answer_that_is_not_to_be_traded_on_is_held_and_says_why(make_rig, server, extra, said):
    def change(record):
        server.prediction.extra = extra if len(rig.calls) == WARM + 20 else right

    right = {"output": prediction_pb2.PREDICTION_OUTPUT_PROBABILITY, "feature_set": "core@1"}
    rig = make_rig(FRAME, hold_on=("NOT_CURRENT",), on_bar=change)
    result = rig.engine.run()
    checked(rig, result)
    rig.expected[WARM + 20] = None
    rig.check_scores(result.records)
    assert result.records[WARM + 20].note.startswith(said)
    assert (result.counts.holds, result.counts.unusable, result.counts.answers) == (1, 1, SCORED)


def test_a_regressors_value_is_traded_by_its_own_thresholds_and_is_no_probability(make_rig, server, tmp_path):
    server.prediction.extra = {"output": prediction_pb2.PREDICTION_OUTPUT_VALUE}
    file = SnapshotFile(tmp_path, "SYNTH", "15m")
    rig = make_rig(FRAME, snapshot=file)
    result = rig.engine.run()
    values = [record.value for record in result.records if record.value is not None]
    assert values == [score for score in rig.expected if score is not None]
    assert all(record.probability is None for record in result.records)
    # every one of them is far above what a round trip costs, and many would leave by 0.4 as a probability
    assert min(values) < 0.4
    assert [record.signal for record in result.records if record.signal] == ["LONG"]
    found = json.loads(file.path.read_text())
    assert (found["last_probability"], found["last_value"]) == (None, values[-1])
    assert (found["rules"]["value_entry_bps"], found["signals"][0]["value"]) == (14.0, values[0])


def test_a_flag_that_is_not_to_be_held_on_is_noted_and_traded_on(make_rig, server):
    server.prediction.extra = {
        "flags": [prediction_pb2.PREDICTION_FLAG_OUT_OF_RANGE],
        "out_of_range_features": ["rsi_14", "ret_1"],
    }
    rig = make_rig(FRAME, hold_on=("NOT_CURRENT",))
    result = rig.engine.run()
    rig.check_scores(result.records)
    assert result.records[-1].flags == ("OUT_OF_RANGE",)
    assert result.records[-1].note == "out of range: rsi_14, ret_1"
    assert (result.counts.holds, result.counts.unusable) == (0, 0)


def test_a_late_answer_that_is_no_score_is_said_with_its_bar(make_rig, server):
    def block(record):
        if len(rig.calls) == WARM + 10:
            server.prediction.gate.clear()
            server.prediction.scores = lambda _: [float("nan")]
        elif len(rig.calls) == WARM + 11:
            server.prediction.gate.set()

    rig = make_rig(FRAME[: WARM + 11], deadline_ms=500.0, on_bar=block)
    result = rig.engine.run()
    last = result.records[-1]
    assert (last.probability, last.late) == (None, False)
    assert last.note == "held: no answer within 500 ms; no score: first answered nan, which is no score"
    assert (result.counts.unusable, result.unanswered) == (1, 0)


def test_a_bar_asked_again_with_other_features_waits_no_longer_than_the_one_deadline(
    make_rig, client, server
):
    def refuse(_, request):
        if request.feature_set == "core@1":
            server.prediction.gate.clear()  # for the next request, which is of the same bar
            return server.refusal("FAILED_PRECONDITION", "FEATURE_SET_MISMATCH")
        return None

    def release(record):
        server.prediction.gate.set()

    wide = FeaturePipeline("extended")
    server.registry.metadata["feature_preset"] = "extended"
    server.registry.feature_names = list(wide.names)
    server.prediction.refuse = refuse
    rig = make_rig(
        FRAME[: WARM + 3],
        deadline_ms=500.0,
        on_bar=release,
        pipelines=Pipelines(client, "SYNTH", "15m", PIPELINE),
    )
    result = rig.engine.run()
    first = result.records[WARM]
    assert first.late
    assert first.note == "features changed from core@1 to extended@1; held: no answer within 500 ms"
    rows = wide.transform(rig.frame).to_numpy()[WARM:]
    np.testing.assert_allclose(
        [record.probability for record in result.records[WARM:]],
        [server.model(row) for row in rows],
        atol=1e-6,
    )
    sets = [request.feature_set for request in server.prediction.requests]
    assert sets[0] == "core@1"
    assert set(sets[1:]) == {"extended@1"}
    assert (result.counts.mismatched, result.counts.pipeline_changes, result.unanswered) == (0, 1, 0)


def test_a_late_answer_is_held_to_the_features_that_it_was_asked_with(make_rig, client, server):
    """The pipeline has changed meanwhile, and the answer is as good as it was."""
    wide = FeaturePipeline("extended")

    slow = PIPELINE.transform(FRAME).to_numpy()[WARM + 10][0]
    helpers = []

    def answer(count, request):
        server.prediction.extra = {"feature_set": request.feature_set}
        if count > 11 and request.feature_set == "core@1" and request.values[0] != slow:
            return server.refusal("FAILED_PRECONDITION", "FEATURE_SET_MISMATCH")
        return None

    def release():
        while rig.scorer.report().outstanding < 2:
            rig.scorer.wait_late(0.01)
        server.prediction.gate.set()

    def block(record):
        if len(rig.calls) == WARM + 10:
            server.prediction.gate.clear()
        elif len(rig.calls) == WARM + 11:
            helpers.append(threading.Thread(target=release))
            helpers[0].start()

    server.prediction.refuse = answer
    server.registry.metadata["feature_preset"] = "extended"
    server.registry.feature_names = list(wide.names)
    pipelines = Pipelines(client, "SYNTH", "15m", PIPELINE)
    rig = make_rig(FRAME[: WARM + 13], deadline_ms=2_000.0, on_bar=block, pipelines=pipelines)
    result = rig.engine.run()
    helpers[0].join()
    assert [record.late for record in result.records[WARM + 10 :]] == [True, False, False]
    assert result.records[WARM + 10].probability == pytest.approx(rig.expected[WARM + 10])
    assert (result.counts.unusable, result.counts.pipeline_changes) == (0, 1)


def test_a_server_that_is_killed_and_comes_back_costs_no_bar_and_invents_no_signal(make_rig, server, caplog):
    def outage(record):
        if len(rig.calls) == WARM + 30:
            server.stop()
        elif len(rig.calls) == WARM + 50:
            server.start()
            rig.wait_connected()

    rig = make_rig(FRAME, deadline_ms=AWAY_MS, on_bar=outage)
    result = rig.engine.run()
    checked(rig, result)
    rig.check_scores(result.records)
    held = [number for number, record in enumerate(result.records) if record.late]
    assert held == list(range(WARM + 30, WARM + 50))
    assert (result.counts.holds, result.counts.late, result.counts.answers) == (20, 20, SCORED)
    assert result.counts.reconnects == 1 <= result.counts.reconnect_attempts
    assert result.counts.errors >= 1
    assert {result.records[number].note for number in held} == {"held: UNAVAILABLE: the server is away"}
    assert caplog.text.count("live.server_away") == 1
    assert result.last_error == ""
    assert result.unanswered == 0
    # each held bar was told twice: when it was held, and with its score
    assert len(rig.calls) == len(FRAME) + 20


def test_a_server_that_was_away_between_two_bars_only_costs_nothing(make_rig, server):
    def restart(record):
        if len(rig.calls) == WARM + 30:
            server.stop()
            server.start()

    rig = make_rig(FRAME, on_bar=restart)
    result = rig.engine.run()
    checked(rig, result)
    rig.check_scores(result.records)
    assert result.counts.holds == 0
    assert result.counts.reconnects == 1 <= result.counts.reconnect_attempts


def test_a_server_that_comes_up_after_the_last_bar_still_scores_them_all(make_rig, server):
    server.stop()
    rig = make_rig(FRAME, deadline_ms=AWAY_MS)
    rig.hook = lambda _: server.start() if len(rig.calls) == len(FRAME) else None
    result = rig.engine.run()
    checked(rig, result)
    rig.check_scores(result.records)
    assert (result.counts.holds, result.counts.late) == (SCORED, SCORED)
    assert result.unanswered == 0


def test_a_server_that_never_comes_leaves_every_bar_held_and_says_how_many(make_rig, server):
    server.stop()
    rig = make_rig(FRAME, deadline_ms=100.0, settle_seconds=0.05)
    result = rig.engine.run()
    checked(rig, result)
    assert (result.counts.holds, result.counts.answers, result.counts.signals) == (SCORED, 0, 0)
    assert result.unanswered == SCORED
    assert "UNAVAILABLE" in result.last_error
    assert (result.position, result.equity, result.used_model_id) == ("flat", 1000.0, None)


def test_an_answer_beyond_the_deadline_never_trades_and_goes_to_its_bar(make_rig, server):
    def block(record):
        if len(rig.calls) == WARM + 10:
            server.prediction.gate.clear()
        elif len(rig.calls) == WARM + 13:
            server.prediction.gate.set()

    rig = make_rig(FRAME, deadline_ms=500.0, on_bar=block)
    result = rig.engine.run()
    checked(rig, result)
    rig.check_scores(result.records)
    assert [record.late for record in result.records[WARM + 10 : WARM + 13]] == [True] * 3
    assert "held: no answer within 500 ms" in result.records[WARM + 10].note
    assert result.counts.errors == 0


def test_a_server_that_still_loads_its_models_is_asked_again_until_it_answers(make_rig, server):
    server.prediction.refuse = lambda count, _: (
        server.refusal("NOT_FOUND", "UNKNOWN_KEY") if count <= 3 else None
    )
    rig = make_rig(FRAME)
    result = rig.engine.run()
    checked(rig, result)
    rig.check_scores(result.records)
    assert (result.counts.errors, result.counts.holds) == (3, 0)


@pytest.mark.parametrize(("code", "errors"), [("INVALID_ARGUMENT", 1), ("INTERNAL", 3)])
def test_a_row_that_the_server_cannot_score_keeps_no_other_from_its_score(make_rig, server, code, errors):
    bad = PIPELINE.transform(FRAME).to_numpy()[WARM + 20][0]
    server.prediction.refuse = lambda _, request: (
        server.refusal(code, "WHY") if request.values[0] == bad else None
    )
    rig = make_rig(FRAME)
    result = rig.engine.run()
    checked(rig, result)
    rig.expected[WARM + 20] = None
    rig.check_scores(result.records)
    assert "WHY" in result.records[WARM + 20].note
    assert (result.counts.errors, result.unanswered) == (errors, 0)


def test_stop_ends_a_run_that_waits_for_scores(make_rig, server):
    server.stop()
    rig = make_rig(FRAME, deadline_ms=100.0, settle_seconds=3600.0)
    rig.hook = lambda _: rig.engine.stop() if len(rig.calls) == len(FRAME) else None
    result = rig.engine.run()
    assert result.stopped
    assert result.unanswered == SCORED


def test_a_backlog_longer_than_a_burst_is_answered_in_order(client, server):
    server.stop()
    rows = PIPELINE.transform(synthetic_bars("SYNTH", WARM + 90, seed=4)).to_numpy()[WARM:]
    scorer = StreamScorer(client, "SYNTH", "15m", deadline_ms=100.0)
    for number in range(90):
        assert (
            scorer.score(number, FeatureRow(rows[number], PIPELINE.names, PIPELINE.feature_set)).prediction
            is None
        )
    server.prediction.refuse = lambda count, _: server.refusal("UNAVAILABLE", "STILL") if count == 1 else None
    server.start()
    late = []
    while scorer.wait_late(1.0):
        late += scorer.late()
    scorer.close()
    assert BURST < 90
    assert [score.number for score in late] == list(range(90))
    assert [score.prediction.score for score in late] == [server.model(row) for row in rows[:90]]


def test_the_newest_bar_goes_before_what_waits(client, server):
    server.prediction.gate.clear()
    scorer = StreamScorer(client, "SYNTH", "15m", deadline_ms=700.0)

    def release():
        while scorer.report().outstanding < 5:
            scorer.wait_late(0.01)
        server.prediction.gate.set()

    helper = threading.Thread(target=release)
    helper.start()
    scores = [scorer.score(number, FeatureRow(np.array([float(number)]), ("a",), "")) for number in range(5)]
    helper.join()
    late = []
    while scorer.wait_late(1.0):
        late += scorer.late()
    scorer.close()
    assert [score.prediction is None for score in scores] == [True] * 4 + [False]
    assert [score.number for score in late] == [0, 1, 2, 3]
    assert [request.values[0] for request in server.prediction.requests] == [0.0, 4.0, 1.0, 2.0, 3.0]


def test_a_question_whose_time_is_used_up_is_asked_and_not_waited_for(client, server):
    server.prediction.gate.clear()
    scorer = StreamScorer(client, "SYNTH", "15m", deadline_ms=LONG_MS)
    score = scorer.score(0, FeatureRow(np.array([1.0]), ("a",), ""), within=-0.1)
    assert (score.prediction, score.final) == (None, False)
    server.prediction.gate.set()
    late = []
    while scorer.wait_late(1.0):
        late += scorer.late()
    scorer.close()
    assert [score.prediction.score for score in late] == [server.model([1.0])]


def test_a_fault_in_the_scorers_thread_is_raised_where_the_engine_asks(server):
    client = SignalClient(server.target, deadline_ms=LONG_MS)
    scorer = StreamScorer(client, "SYNTH", "15m")
    client.close()
    with pytest.raises(RuntimeError, match="ended through a fault") as caught:
        scorer.score(0, FeatureRow(np.array([1.0]), ("a",), ""))
    assert "the client is closed" in str(caught.value.__cause__)
    scorer.close()
    scorer.close()


def test_pauses_double_up_to_the_longest_and_start_over_after_a_success():
    backoff = Backoff(1.0, 5.0, chance=lambda: 0.0)
    assert [backoff.pause() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    backoff.reset()
    assert backoff.pause() == 1.0
    assert Backoff(1.0, 5.0, chance=lambda: 1.0).pause() == 0.5
    with pytest.raises(ValueError, match="make no sense"):
        Backoff(2.0, 1.0)
