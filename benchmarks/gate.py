"""How often models without skill pass the promote gate, and how often those with skill do.

1. A search looks at signals of its own on one window, one after the other, until it has looked 1, 5 or 20 times. They
   know nothing of the bars; how much and how long they hold is drawn at random. Each look is an evaluation in a
   registry's state, and the gate is the product's with its default bounds, on the product's account with its costs.
2. "any" is the share of searches in which some look passes as it is made, so that the search ends there; "best" that in
   which some look passes after all of them were made.
3. Markets: random walks of heavy tails (Student, 4 degrees of freedom) that fall, stay and rise, by 0.03 % a bar; and
   of each `--bars FILE` the last quarter, as it is and with its returns in another order.
4. Skill: the signal leans on the next bars' mean return by so much (a correlation), in the market that stays.

Shares have 95 % intervals (Wilson, 1927).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest, norm

from signalserve.common.key import Key
from signalserve.common.moments import second_text, utc_now
from signalserve.config.evidence import PromotionSettings
from signalserve.config.trading import TradingSettings
from signalserve.features.bars import read_bars
from signalserve.judging import Evidence, Measured, Policy, PromoteGate, probability_better, timing
from signalserve.registry import ModelRegistryEntry
from signalserve.registry.state import RegistryState
from signalserve.trading.rules import TradingRules
from signalserve.trading.simulation import Simulation, simulate
from signalserve.training.metrics import return_moments, strategy_metrics

Array = NDArray[np.float64]

LOOKS = (1, 5, 20)
SKILLS = (0.0, 0.05, 0.1, 0.2)
BARS = 2_150
_DRIFT = 0.0003
_SPREAD = 0.004
_AHEAD = 8
_BARS_A_YEAR = 35_040.0

console = Console(highlight=False)


@dataclass(frozen=True)
class Market:
    """Returns of bars, float64 [n], drawn anew for each search by `walk`, or as they are."""

    name: str
    drift: float = 0.0
    returns: Array | None = None
    shuffled: bool = False

    def prices(self, random: np.random.Generator) -> tuple[Array, Array]:
        """Opens and closes of one window."""
        if self.returns is None:
            returns = random.standard_t(4, BARS) * _SPREAD / np.sqrt(2.0) + self.drift
        else:
            returns = random.permutation(self.returns) if self.shuffled else self.returns
        close = 100.0 * np.cumprod(1.0 + returns)
        return np.concatenate(([100.0], close[:-1])), close


@dataclass(frozen=True)
class Found:
    """Of one search: which looks passed as they were made, and which after all were; and what timing said."""

    as_made: tuple[bool, ...]
    after_all: dict[int, bool]
    timed: float


def markets(files: Sequence[Path]) -> Iterator[Market]:
    """The made-up ones, and two of each file."""
    for name, drift in (("falls", -_DRIFT), ("stays", 0.0), ("rises", _DRIFT)):
        yield Market(name, drift)
    for file in files:
        close = read_bars(file).frame["close"].to_numpy()
        returns = np.asarray(np.diff(close) / close[:-1], dtype=np.float64)
        last = returns[-len(returns) // 4 :]
        yield Market(f"{file.stem}, as it was", returns=last)
        yield Market(f"{file.stem}, shuffled", returns=last, shuffled=True)


def scores(close: Array, random: np.random.Generator, skill: float) -> Array:
    """Probabilities of n bars: a latent that remembers, and leans on the next bars' mean return by `skill`."""
    remembers = float(np.exp(-1.0 / random.uniform(2.0, 60.0)))
    shocks = random.normal(size=close.size) * np.sqrt(1.0 - remembers**2)
    latent = np.empty(close.size)
    latent[0] = random.normal()
    for bar in range(1, close.size):
        latent[bar] = remembers * latent[bar - 1] + shocks[bar]
    if skill:
        ahead = np.zeros(close.size)
        ahead[:-_AHEAD] = close[_AHEAD:] / close[:-_AHEAD] - 1.0
        latent = np.sqrt(1.0 - skill**2) * latent + skill * (ahead - ahead.mean()) / ahead.std()
    return np.asarray(norm.cdf(latent * 0.4 + 0.4 * norm.ppf(random.uniform(0.1, 0.95))), dtype=np.float64)


class Search:
    """One window, its champion if it has one, and the looks at it."""

    def __init__(self, market: Market, *, champion: bool, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.rules = TradingRules.of(TradingSettings())
        self.policy = PromotionSettings()
        self.gate = PromoteGate(Policy.of(self.policy), asdict(self.rules))
        self.open, self.close = market.prices(self.random)
        self.key = Key("SYNTH", "15m")
        self.state = RegistryState()
        self._champion = self._trade(0.0) if champion else None
        if champion:
            self._add("champion", "production")

    def looks(self, count: int, skill: float) -> Found:
        """Look so many times."""
        as_made = []
        after_all = {}
        for number in range(count):
            model_id = f"model{number}"
            self._add(model_id, "success")
            evidence = self._evidence(model_id, self._trade(skill))
            self.state.take_evidence(model_id, self.key, evidence.to_dict())
            as_made.append(self._passes(model_id))
            if number + 1 in LOOKS:
                after_all[number + 1] = any(self._passes(f"model{other}") for other in range(number + 1))
        return Found(tuple(as_made), after_all, float(evidence.challenger.timing or 0.0))

    def _passes(self, model_id: str) -> bool:
        return self.gate.judge(self.state, self.state.entries[model_id], force=False).allowed

    def _trade(self, skill: float) -> Simulation:
        return simulate(self.open, self.close, scores(self.close, self.random, skill), self.rules)

    def _add(self, model_id: str, status: str) -> None:
        entry = ModelRegistryEntry(model_id, *self.key, "rf", second_text(utc_now()), status=status)
        self.state.entries[model_id] = entry
        self.state.digests[model_id] = "0" * 64
        if status == "production":
            self.state.in_production[self.key] = (model_id,)

    def _evidence(self, model_id: str, simulation: Simulation) -> Evidence:
        ended = datetime.now(UTC).replace(microsecond=0)
        began = ended - timedelta(minutes=15 * self.close.size)
        policy, champion = self.policy, self._champion
        better = None
        if champion is not None:
            better = probability_better(
                simulation.returns - champion.returns, resamples=policy.resamples, seed=policy.seed
            )
        return Evidence(
            challenger=self._measured(model_id, simulation, began),
            champion=None if champion is None else self._measured("champion", champion, began),
            evaluated_at=second_text(utc_now()),
            window_start=began.isoformat(),
            window_end=ended.isoformat(),
            bars=self.close.size,
            bar_minutes=15.0,
            probability_better=None if better is None else better.probability,
            resamples=policy.resamples,
            seed=policy.seed,
            measured_by="evaluate",
            rules=asdict(self.rules),
        )

    def _measured(self, model_id: str, simulation: Simulation, began: datetime) -> Measured:
        metrics = strategy_metrics(simulation, self.close, bars_per_year=_BARS_A_YEAR)
        return Measured(
            model_id,
            "0" * 64,
            (began - timedelta(days=1)).isoformat(),
            float(metrics["cum_return"] or 0.0),
            float(metrics["sharpe"] or 0.0),
            float(metrics["max_drawdown"] or 0.0),
            int(metrics["trades"] or 0),
            moments=return_moments(simulation.returns),
            timing=timing(simulation.position, self.open, self.close).probability,
        )


def searched(market: Market, champion: bool, count: int, skill: float, seed: int) -> Found:
    """One search."""
    return Search(market, champion=champion, seed=seed).looks(count, skill)


def share(passed: Sequence[bool]) -> str:
    """In a hundred, with its interval."""
    interval = binomtest(sum(passed), len(passed)).proportion_ci(0.95, "wilson")
    return f"{100 * np.mean(passed):.0f} ({100 * interval.low:.0f}-{100 * interval.high:.0f})"


def run(searches: int = 200, files: Sequence[Path] = (), jobs: int = 2) -> None:
    """Print both tables."""
    bound = PromotionSettings().min_probability
    rates = Table(
        title=f"without skill, in a hundred searches of {searches}; nominal {100 * (1 - bound):.0f}"
    )
    kinds = [f"{count} looks, {kind}" for count in LOOKS[1:] for kind in ("any", "best")]
    for name in ("market", "champion", "1 look", *kinds):
        rates.add_column(name)
    power = Table(title="with skill, after one look")
    for name in ("champion", "skill", "timing alone", "the whole gate"):
        power.add_column(name)
    with Parallel(n_jobs=jobs) as parallel:
        for market in markets(files):
            for champion in (False, True):
                found = parallel(
                    delayed(searched)(market, champion, max(LOOKS), 0.0, seed) for seed in range(searches)
                )
                cells = [share([one.as_made[0] for one in found])]
                for count in LOOKS[1:]:
                    cells.append(share([any(one.as_made[:count]) for one in found]))
                    cells.append(share([one.after_all[count] for one in found]))
                rates.add_row(market.name, "yes" if champion else "no", *cells)
        for champion in (False, True):
            for skill in SKILLS:
                found = parallel(
                    delayed(searched)(Market("stays"), champion, 1, skill, 10_000 + seed)
                    for seed in range(searches)
                )
                alone = share([one.timed >= bound for one in found])
                power.add_row(
                    "yes" if champion else "no", f"{skill:g}", alone, share([one.as_made[0] for one in found])
                )
    console.print(rates)
    console.print(power)


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--searches", type=int, default=200, help="a market")
    parser.add_argument("--bars", type=Path, nargs="*", default=[], help="files of real bars")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()
    run(options.searches, options.bars, options.jobs)


if __name__ == "__main__":
    main()
