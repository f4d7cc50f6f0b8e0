"""One example of each answer for the OpenAPI document, made of the read models themselves so that they can't lie."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from signalserve.lab.actions import Done, Transition
from signalserve.lab.api.shapes import Engines, KeyModels, KeyName, Keys, ModelBacktests, ModelImportances
from signalserve.lab.audit import Chain, Change, Decided, EventDetail, EventPage, EventRow
from signalserve.lab.backtests import Backtest, Holding, Series, Trade
from signalserve.lab.calibration import Bin, Calibration, CalibrationPart, Confusion
from signalserve.lab.catalogue import LetIn, Page, RegistryInfo, Row
from signalserve.lab.compare import Comparison, Difference, Features, Pair
from signalserve.lab.detail import Fold, Golden, ModelDetail, Proof, Provenance
from signalserve.lab.findings import Findings, Timed, Walked
from signalserve.lab.grids import Grid, GridRow
from signalserve.lab.history import Band, History, Mark, Retrain
from signalserve.lab.importances import Importance, Importances
from signalserve.lab.live import LiveBar, LiveEngine, PositionBand
from signalserve.lab.overlay import Distribution, Overlay
from signalserve.lab.plain import plain
from signalserve.lab.preview import Preview, Step
from signalserve.lab.server import ServerState, Serving
from signalserve.lab.timing import TimingDistribution
from signalserve.lab.verdicts import Evaluation, Judgement, Looks, Rule
from signalserve.registry.basis import Basis

_T = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
_BAR = timedelta(minutes=15)
_ID, _OLD = "BTCUSDT_15m_rf_20260105_120000", "BTCUSDT_15m_xgb_20251222_120000"
_DIGEST = "9e3872f55e74cba162de1826ad2b174526b576bb4e51943ae22aa8a694bd172b"


def _row(model_id: str, status: str, *, served: bool) -> Row:
    kind = "rf" if model_id == _ID else "xgb"
    return Row(
        model_id=model_id,
        symbol="BTCUSDT",
        timeframe="15m",
        model_type=kind,
        status=status,
        created_at=_T,
        cum_return=0.12,
        sharpe=1.4,
        sharpe_se=0.6,
        digest=_DIGEST,
        engine="onnx",
        engine_reason="",
        quarantined=False,
        by_hand=False,
        refit_of="",
        in_production=status == "production",
        served=served,
        metadata="registered",
        let_in=LetIn(
            "evidence", 5.0, 2.0, "trainer", "declared", Basis("evidence", 5.0, 2.0, "trainer").text
        ),
        problems=(),
    )


_CHALLENGER, _CHAMPION = _row(_ID, "candidate", served=False), _row(_OLD, "production", served=True)
_INFO = RegistryInfo("/srv/outputs/ml_models", "filled", "2 model(s), revision 7", 7, 2)
_RULE = Rule("better", True, 0.96, 0.9)
_JUDGED = Judgement(
    _ID,
    _OLD,
    "current",
    True,
    "the gate would let it pass",
    (_RULE,),
    {"probability_better": 0.96},
    Looks(1, 0.9, 0.9),
)
_EVENT = EventRow(
    7, _T, "ops:alice", "rpc", "promote", "weekly", False, "5a77", (
        Change("BTCUSDT", "15m", _OLD, "production", "archived", _DIGEST),
        Change("BTCUSDT", "15m", _ID, "candidate", "production", _DIGEST),
    ), (_OLD, _ID), "",
)  # fmt: skip
_CHAIN = Chain("valid", "7 event(s), a whole chain", 7, "cb07" + "0" * 60)
_BACKTEST = Backtest(
    name=f"{_ID}_20251201T0000_20260105T1145",
    model_id=_ID,
    symbol="BTCUSDT",
    timeframe="15m",
    in_sample=False,
    start=_T - 3 * _BAR,
    end=_T,
    bars=3,
    starting_equity=10_000.0,
    final_equity=10_120.0,
    metrics={"sharpe": 1.4, "cum_return": 0.012, "trades": 1},
    rules={"proba_entry": 0.55, "proba_exit": 0.45, "fee_bps": 5.0},
    data={"file": "BTCUSDT_15m.csv", "sha256": _DIGEST},
    model_digest=_DIGEST,
    written=_T,
    look="recorded",
    look_text="1 at these bars, recorded at revision 5; each raises what the gate asks",
)
_FOLD = Fold(1, _T - 9 * _BAR, _T - 6 * _BAR, _T - 5 * _BAR, _T - 3 * _BAR, 488, 644, 0.61, "")
_PART = CalibrationPart(
    name="test",
    start=_T - 3 * _BAR,
    end=_T,
    bars=200,
    brier=0.22,
    base_rate=0.5,
    bins=(Bin(0.5, 0.6, 80, 0.55, 0.53),),
    confusions=(Confusion("entry", 0.55, 60, 40, 60, 40, 0.6, 0.6, 0.6),),
)

PAGE = plain(
    Page(
        _INFO, (_CHALLENGER, _CHAMPION), 2, 1, 1, 50, ("BTCUSDT",), ("15m",), ("rf", "xgb"), {"production": 1}
    )
)
KEY_MODELS = plain(KeyModels("BTCUSDT", "15m", (_CHALLENGER, _CHAMPION)))
IMPORTANCES = plain(
    ModelImportances(
        _ID, "feature_importances.csv", "", (Importance("rsi_14", 0.7), Importance("atr_14", 0.3))
    )
)
PROOF = plain(
    Proof(_ID, True, "onnx", "every file is what was registered, and the engine gives every golden score")
)
DETAIL = plain(
    ModelDetail(
        row=_CHALLENGER,
        golden=Golden(True, "onnx reproduced every golden row when it was registered"),
        provenance=Provenance(
            data_file="BTCUSDT_15m.csv",
            data_sha256=_DIGEST,
            data_bars=17_280,
            train_start=_T - 9 * _BAR,
            train_end=_T - 6 * _BAR,
            test_start=_T - 5 * _BAR,
            test_end=_T,
            code_version="0.1.0",
            commit="69b1d48",
            modified=False,
            python_version="3.11.7",
            pipeline_version="1",
            libraries={"scikit-learn": "1.9.1"},
            seeds={"model": 42},
            folder=f"/srv/outputs/ml_models/{_ID}",
        ),
        importances=Importances((Importance("rsi_14", 1.0),), "feature_importances.csv"),
        metrics={"sharpe": 1.4, "sharpe_se": 0.6, "auc": 0.61, "auc_all": 0.58},
        walk_forward={"sharpe": 1.1, "sharpe_se": 0.5, "auc": 0.6, "auc_all": 0.57},
        folds=(_FOLD,),
        parameters={"n_estimators": 200},
        features=("rsi_14",),
        warnings=(),
        calibration=Calibration((_PART,)),
        judgement=_JUDGED,
        evaluation=Evaluation(6, _T, "ops:alice", _OLD, True, (_RULE,), 1, {"probability_better": 0.96}),
        findings=Findings(
            start=_T - 3 * _BAR,
            end=_T,
            bars=3,
            timings=(Timed(_ID, 0.94, 0.00012, -0.00009, 0.0001),),
            walk_forward=Walked(_T - 5 * _BAR, _T - 3 * _BAR, 644, 0.03, 1.1, 0.7, 0.9, 12),
        ),
        rollback_target="",
        events=(_EVENT,),
        metadata={"model_id": _ID, "symbol": "BTCUSDT", "timeframe": "15m", "model_type": "rf"},
        metadata_problem="",
    )
)
BACKTESTS = plain(ModelBacktests(_ID, (_BACKTEST,)))
SERIES = plain(
    Series(
        backtest=_BACKTEST,
        times=(_T - 2 * _BAR, _T - _BAR, _T),
        close=(100.0, 101.0, 102.0),
        probability=(0.6, 0.5, None),
        position=(0, 1, 1),
        equity=(10_000.0, 10_060.0, 10_120.0),
        drawdown=(0.0, 0.0, 0.0),
        buy_hold=(10_000.0, 10_100.0, 10_200.0),
        holdings=(Holding(_T - _BAR, _T, "long"),),
        trades=(Trade(_T - _BAR, _T + _BAR, "long", 100.5, 102.0, 120.0, 0.012, 10.0, 2, True),),
        trade_count=1,
        bars=3,
        thinned=False,
    )
)
COMPARISON = plain(
    Comparison(
        rows=(_CHALLENGER, _CHAMPION),
        judgement=_JUDGED,
        pairs=(Pair(_ID, _OLD, "current", "the gate would let it pass", 0.96),),
        metrics=({"sharpe": 1.4}, {"sharpe": 0.9}),
        overlay=Overlay(
            (_BACKTEST.name, "other"),
            _T - _BAR,
            _T,
            2,
            (_T - _BAR, _T),
            ((1.0, 1.01), (1.0, 0.99)),
            (1.0, 1.02),
            False,
            False,
        ),
        distributions=(
            Distribution(
                _ID, _OLD, 2, (-0.001, 0.0, 0.001), (700, 1300), 0.0004, 0.65, -0.0008, 0.0009, 4.2, 2000, 42
            ),
        ),
        timings=(
            TimingDistribution(_ID, 2, (-0.001, 0.0, 0.001), (0, 1), 0.0008, 0.0004, 0.5, 0.0004, 0.0004),
        ),
        differences=(Difference("model_params.max_depth", (6, 4)),),
        features=Features(40, ((), ())),
        warnings=(),
    )
)
KEYS = plain(Keys((KeyName("BTCUSDT", "15m"),)))
HISTORY = plain(
    History(
        symbol="BTCUSDT",
        timeframe="15m",
        production=_ID,
        models=(Retrain(_ID, "rf", _T, "production", 1.4, 0.12, False, False, {"auc": 0.61}),),
        bands=(Band(_ID, _T, None, 7, "promote"),),
        marks=(Mark("promote", _T, 7, _ID, _OLD, "ops:alice", "weekly", False, ()),),
        grids=(
            Grid(
                "rf_grid_results_BTCUSDT_15m_20260105_120000.csv", _T, ("max_depth",), ("sharpe",),
                (GridRow("rf", 1, {"max_depth": 6.0}, {"sharpe": 1.4}, ""),),
            ),
        ),
    )
)  # fmt: skip
EVENTS = plain(EventPage(_CHAIN, (_EVENT,), 7, 1, 1, 50, ("ops:alice",), ("promote",)))
CHAIN = plain(_CHAIN)
EVENT = plain(
    EventDetail(
        row=_EVENT,
        decisions=(
            Decided(_ID, _OLD, (_RULE,), (), (), 1, {"min_probability": 0.9}, {"probability_better": 0.96}),
        ),
        detail={},
        evidence={},
        index_sha256=_DIGEST,
        prev_hash="ab" * 32,
        hash=_CHAIN.head,
    )
)
ENGINE = plain(
    LiveEngine(
        name="BTCUSDT_15m",
        state="running",
        text="it runs",
        symbol="BTCUSDT",
        timeframe="15m",
        started=_T - 9 * _BAR,
        updated=_T,
        stale_after=_T + 2.5 * _BAR + timedelta(seconds=30),
        used_model_id=_ID,
        revision=7,
        last_bar=_T - _BAR,
        last_probability=0.61,
        position="long",
        equity=10_120.0,
        starting_equity=10_000.0,
        latency_p50_ms=1.2,
        latency_p99_ms=2.5,
        server="connected",
        unanswered=0,
        counts={"bars": 60.0, "errors": 0.0},
        recent=(LiveBar(_T - _BAR, 102.0, 0.61, "LONG", _ID, 1.2, False, "long", 10_120.0, ""),),
        bands=(PositionBand(_T - _BAR, _T - _BAR, "long"),),
        proba_entry=0.55,
        proba_exit=0.45,
    )
)
ENGINES = plain(Engines(())) | {"engines": [ENGINE]}
SERVER = plain(
    ServerState(
        target="127.0.0.1:50051",
        state="serving",
        text="serves 1 model(s) of registry revision 7",
        revision=7,
        seen_revision=7,
        version="0.1.0",
        process_id=4242,
        started=_T,
        models=(Serving("BTCUSDT", "15m", _ID, _DIGEST, "onnx", "", False, False, None),),
    )
)
FLEET = {"processes": [SERVER]}
DONE = plain(Done("promote", (Transition("BTCUSDT", "15m", _ID, _OLD),), 8, 8, True, "5a77"))
PREVIEW = plain(
    Preview(
        "promote",
        (Step("BTCUSDT", "15m", _CHALLENGER, _CHAMPION, _JUDGED, ("BTCUSDT_15m",), False),),
        needs_reason=False,
    )
)

ACCESS = {
    "operations": [
        {"operation": "POST /api/ml/promote", "roles": ["admin", "ops"], "anybody": False},
        {"operation": "/grpc.health.v1.Health/Check", "roles": [], "anybody": True},
    ],
    "credentials": [
        {
            "id": "5e1fa0c3",
            "name": "alice",
            "roles": ["ops"],
            "kind": "token",
            "created_at": "2026-01-05T08:00:00+00:00",
            "expires_at": None,
            "revoked_at": None,
            "state": "active",
        }
    ],
}
