"""The report's pictures, as SVG that needs no font, script or network."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.dates import AutoDateFormatter, AutoDateLocator
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

_INK, _MUTED, _MAIN, _OTHER, _BAD = "#1f2933", "#9aa5b1", "#0b6e99", "#b0b7bf", "#b3392f"
_STYLE = {
    "font.size": 10,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "axes.axisbelow": True,
    "svg.hashsalt": "signalserve",
}
_BINS = 10
Scored = tuple[NDArray[np.float64], NDArray[np.float64]]


def equity_plot(equity: pd.DataFrame, starting_equity: float) -> Markup:
    """Equity beside buying at the first close and holding."""

    def draw(axes: Axes) -> None:
        held = starting_equity * equity["close"] / equity["close"].iloc[0]
        axes.plot(equity.index, held, color=_OTHER, linewidth=1.2, label="buy and hold")
        axes.plot(equity.index, equity["equity"], color=_MAIN, linewidth=1.5, label="model")
        axes.set_ylabel("equity")
        axes.legend(frameon=False, loc="upper left")
        _dates(axes)

    return _render(draw, 3.6)


def drawdown_plot(equity: pd.DataFrame) -> Markup:
    """The fall from the high before, in percent."""

    def draw(axes: Axes) -> None:
        axes.fill_between(equity.index, -equity["drawdown"], 0.0, color=_BAD, alpha=0.35, linewidth=0)
        axes.plot(equity.index, -equity["drawdown"], color=_BAD, linewidth=1.0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylabel("drawdown")
        _dates(axes)

    return _render(draw, 2.2)


def calibration_groups(
    probability: NDArray[np.float64], classes: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Ten groups of equal size by probability: its mean, the share of class 1, and that share's standard error."""
    order = np.argsort(probability, kind="stable")
    groups = [group for group in np.array_split(order, _BINS) if group.size]
    said = np.array([probability[group].mean() for group in groups])
    was = np.array([classes[group].mean() for group in groups])
    return said, was, np.sqrt(was * (1.0 - was) / [len(group) for group in groups])


def calibration_plot(labelled: Scored, every: Scored | None) -> Markup:
    """How often class 1 came among the labelled bars and a rise among all, by ten groups of equal size.

    Each is probabilities and what came, 0.0 or 1.0, float64 [n], finite. None: nobody knows what came.
    """

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_OTHER, linewidth=1.0, linestyle="--", label="perfect")
        edges: list[float] = []
        for scored, color, name in (
            (every, _MUTED, "all bars: rose"),
            (labelled, _MAIN, "labelled bars: class 1"),
        ):
            if scored is None:
                continue
            said, was, spread = calibration_groups(*scored)
            axes.errorbar(
                said, was, yerr=spread, color=color, marker="o", markersize=4, linewidth=1.2, label=name
            )
            edges += [said.min(), was.min(), said.max(), was.max()]
        low, high = min(edges), max(edges)
        margin = max(0.05, (high - low) * 0.2)
        axes.set_xlim(max(0.0, low - margin), min(1.0, high + margin))
        axes.set_ylim(max(0.0, low - margin), min(1.0, high + margin))
        axes.set_xlabel("probability given")
        axes.set_ylabel("share that came so")
        axes.legend(frameon=False, loc="upper left")

    return _render(draw, 3.8, width=5.2)


def importances_plot(importances: Sequence[tuple[str, float]]) -> Markup:
    """Features with their shares, the largest on top."""

    def draw(axes: Axes) -> None:
        names, shares = zip(*reversed(importances), strict=True)
        axes.barh(range(len(names)), shares, color=_MAIN, height=0.7)
        axes.set_yticks(range(len(names)), names)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("share of the whole")

    return _render(draw, 0.8 + 0.24 * len(importances), width=7.0)


def _dates(axes: Axes) -> None:
    """Whole dates, so that no label leaves the year to be guessed; the time of day where a day has several."""
    # fewer at least, and no step of matplotlib's fits three days and a half
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    formatter = AutoDateFormatter(locator, defaultfmt="%Y-%m-%d")
    formatter.scaled = {
        365.0: "%Y",
        30.0: "%Y-%m",
        1.0: "%Y-%m-%d",
        1.0 / 24.0: "%Y-%m-%d %H:%M",
        0.0: "%Y-%m-%d %H:%M",
    }
    axes.xaxis.set_major_formatter(formatter)
    axes.set_xlabel("UTC")


def _render(draw: Callable[[Axes], None], height: float, *, width: float = 9.0) -> Markup:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])  # noqa: S704 - drawn here, from numbers alone
