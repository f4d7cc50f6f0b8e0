"""Who searches among models without skill gets no further by looking more often: each look is counted and paid for."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from signalserve.config.evidence import PromotionSettings
from signalserve.judging import Evidence, Measured, timing
from signalserve.registry import Promotion
from signalserve.registry.errors import GateRefusedError
from signalserve.trading.rules import TradingRules
from signalserve.trading.simulation import simulate
from signalserve.training.metrics import return_moments
from tests.registries import recorded, registry_at
from tests.small_models import register_copy

WORLDS, BARS, SEEDS = 20, 800, range(6)
THRESHOLDS = [(0.55, 0.5), (0.6, 0.5), (0.55, 0.45), (0.6, 0.4)]
CUT_OFFS = [BARS, BARS - 100]
FIRST = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=15 * BARS)


def market(random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Open and close [BARS] of a random walk with heavy tails."""
    close = 100.0 * np.exp(np.cumsum(0.003 * random.standard_t(4, BARS)))
    return np.concatenate(([100.0], close[:-1])), close


def scores(random: np.random.Generator) -> NDArray[np.float64]:
    """Probabilities [BARS] that know nothing of the market, and change slowly as a model's do."""
    latent = lfilter([1.0], [1.0, -0.9], random.normal(size=BARS))
    return 1.0 / (1.0 + np.exp(-0.25 * latent))


def measured(
    model_id: str,
    digest: str,
    bars: tuple[NDArray[np.float64], NDArray[np.float64]],
    score: NDArray[np.float64],
    rules: TradingRules,
    stop: int,
) -> Evidence:
    """What an evaluation of these scores finds up to the bar `stop`."""
    open_, close = (part[:stop] for part in bars)
    traded = simulate(open_, close, score[:stop], rules)
    equity = traded.equity
    challenger = Measured(
        model_id,
        digest,
        (FIRST - timedelta(days=1)).isoformat(),
        float(equity[-1] / equity[0] - 1.0),
        float(traded.returns.mean() / (traded.returns.std() or 1.0)),
        float((1.0 - equity / np.maximum.accumulate(equity)).max()),
        len(traded.trades),
        moments=return_moments(traded.returns),
        timing=timing(traded.position, open_, close).probability,
    )
    return Evidence(
        challenger=challenger,
        champion=None,
        evaluated_at=datetime.now(UTC).isoformat(),
        window_start=FIRST.isoformat(),
        window_end=(FIRST + timedelta(minutes=15 * (stop - 1))).isoformat(),
        bars=stop,
        bar_minutes=15.0,
        measured_by="evaluate",
        rules=asdict(rules),
    )


def test_six_seeds_four_threshold_pairs_and_a_chosen_cut_off_promote_no_more_than_luck(
    tmp_path: Path, template: Path
) -> None:
    base = tmp_path / "registry"
    promoted = uncounted = 0
    plain = TradingRules(0.55, 0.45, fee_bps=1.0, slippage_bps=0.0)
    for world in range(WORLDS):
        random = np.random.default_rng([11, world])
        model_id, bars = f"model{world}", market(random)
        register_copy(template, base, model_id, symbol=f"WALK{world}")
        digest = registry_at(base).state.digests[model_id]
        found: list[tuple[float, Evidence]] = []
        signals = [scores(random) for _ in SEEDS]
        for score, (entry, leave), stop in product(signals, THRESHOLDS, CUT_OFFS):
            rules = replace(plain, proba_entry=entry, proba_exit=leave)
            seen = measured(model_id, digest, bars, score, rules, stop)
            registry_at(base).record_look(model_id, seen.window_start, seen.window_end, rules=seen.rules)
            found.append((seen.challenger.timing or 0.0, seen))
        best = max(found, key=lambda item: item[0])[1]
        chosen = registry_at(base, PromotionSettings(max_drawdown=1.0), best.rules)
        chosen.record_evaluation(*recorded(best))
        state = chosen.state.copy()
        entry_of_it = state.entries[model_id]
        tries = len(found) + 1
        assert state.tries(entry_of_it.key, best.window_start, best.window_end) == tries
        state.looks[entry_of_it.key] = state.looks[entry_of_it.key][-1:]  # as if the evaluation were alone
        uncounted += chosen.gate.judge(state, entry_of_it, force=False).allowed
        try:
            chosen.promote([Promotion(model_id)])
            promoted += 1
        except GateRefusedError as error:
            assert f"after {tries} look(s)" in str(error)
    assert uncounted > 0.6 * WORLDS
    assert promoted <= 0.15 * WORLDS
