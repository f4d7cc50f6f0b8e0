"""How values are written on a page.

1. What has no value is an en dash, never an empty cell and never `nan`.
2. A negative number has a true minus sign; a share is in percent; no number shows more digits than it is worth.
3. Moments are in UTC and to the second at most; an age is one number and one unit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from markupsafe import Markup, escape

from signalserve.lab.plain import json_bytes, moment, moment_text, number, plain
from signalserve.trading.plausible import suspicion

NOTHING = "–"  # noqa: RUF001 - an en dash is meant
_MINUS = "−"  # noqa: RUF001 - a minus sign is meant
_NO_TIME = Markup("–")  # noqa: RUF001 - the same
_CODE = re.compile(r"`([^`]+)`")
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_SHARES = frozenset(
    {"cum_return", "buy_hold_return", "max_drawdown", "drawdown", "hit_rate", "exposure", "base_rate", "accuracy",
     "precision", "recall", "net_return", "importance", "mean_bar_return", "labelled_share", "sign_accuracy"}
)  # fmt: skip
_THREE = frozenset(
    {"auc", "log_loss", "brier", "probabilistic_sharpe", "deflated_sharpe", "better", "probability_better", "rank_ic",
     "timing", "folds_timing", "folds_sharpe"}
)  # fmt: skip
# over the bars that have a class alone, which their future chose; `<name>_all` is over all bars
_LABELLED = frozenset({"auc", "accuracy", "log_loss", "brier", "precision", "recall", "base_rate"})
_ALL = "_all"
_NAMES = {
    "auc": "AUC",
    "bars_per_year": "Bars a year",
    "brier": "Brier score",
    "buy_hold_return": "Buy-and-hold return",
    "cum_return": "Cumulative return",
    "log_loss": "Log loss",
    "max_drawdown": "Maximum drawdown",
    "probabilistic_sharpe": "Probabilistic Sharpe",
    "rank_ic": "Rank correlation",
    "sharpe": "Sharpe ratio",
    "sortino": "Sortino ratio",
}


def decimal(value: object, places: int = 2, *, sign: bool = False) -> str:
    """A number with so many decimals; `sign` writes a plus too."""
    found = number(value)
    if found is None:
        return NOTHING
    text = f"{found:{'+' if sign else ''},.{places}f}"
    # what rounds to zero has no sign
    return text.lstrip("+-") if not float(text.replace(",", "")) else text.replace("-", _MINUS)


def percent(value: object, places: int = 1, *, sign: bool = False) -> str:
    """A share as percent: 0.123 is `12.3%`."""
    found = number(value)
    return NOTHING if found is None else f"{decimal(100.0 * found, places, sign=sign)}%"


def basis_points(value: object) -> str:
    """A share as signed basis points: 0.00012 is `+1.200 bp`."""
    found = number(value)
    return NOTHING if found is None else f"{decimal(10_000.0 * found, 3, sign=True)} bp"


def figure(value: object) -> str:
    """Any number, to about four digits."""
    found = number(value)
    if found is None:
        return NOTHING
    if found == int(found) and abs(found) < 1e15:
        return f"{int(found):,}".replace("-", _MINUS)
    if abs(found) >= 1_000:
        return decimal(found, 0 if abs(found) >= 100_000 else 2)
    return f"{found:.4g}".replace("-", _MINUS)


def metric(name: str, value: object) -> str:
    """A metric in the unit that its name implies."""
    name = name.removesuffix(_ALL)
    if name in _SHARES:
        return percent(value, 2, sign=name.endswith("return"))
    if name in _THREE:
        return decimal(value, 3)
    if name in ("sharpe", "sharpe_se", "sortino", "turnover", "drawdown_ratio"):
        return decimal(value, 2)
    return figure(value)


def measured(values: Mapping[str, Any], name: str) -> Markup:
    """One metric of some, a Sharpe ratio with its standard error, and what is to be doubted of it."""
    value = number(values.get(name))
    text = metric(name, value)
    error = number(values.get("sharpe_se")) if name == "sharpe" and value is not None else None
    if error is not None:
        text = f"{text} ± {decimal(error)}"
    doubt = suspicion(name, value)
    return (
        Markup('{} <span class="badge warn doubt">{}</span>').format(text, doubt) if doubt else escape(text)
    )


def title_of(name: str) -> str:
    """A metric's or a setting's name in words, and over which bars: `auc_all` is `AUC (all bars)`."""
    base = name.removesuffix(_ALL)
    words = base.replace("_", " ").strip()
    title = _NAMES.get(base, words[:1].upper() + words[1:])
    if base not in _LABELLED:
        return title if base == name else f"{title} all"
    return f"{title} ({'labelled' if base == name else 'all'} bars)"


def anything(value: Any, name: str = "") -> str:
    """Whatever a JSON document holds, on one line."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return metric(name, value)
    if isinstance(value, datetime):
        return clock(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {anything(item, str(key))}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(anything(item) for item in value) or "none"
    text = str(value)
    # a moment that a record keeps as text; a plain number or word is none
    found = moment(text) if len(text) >= 16 and text[4] == "-" and text[10] in "T " else None
    return text if found is None else clock(found)


def clock(value: datetime | None, *, seconds: bool = False) -> str:
    """`2026-01-05 12:00`, in UTC."""
    if value is None:
        return NOTHING
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def when(value: datetime | None, *, seconds: bool = False) -> Markup:
    """A moment as a `<time>` element."""
    if value is None:
        return _NO_TIME
    shown = clock(value, seconds=seconds)
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        moment_text(value), clock(value, seconds=True), shown
    )


def age(value: datetime | None, now: datetime | None = None) -> str:
    """How long ago: `3 d`, `5 min`; what is about to be is `now`."""
    if value is None:
        return NOTHING
    return span((now or datetime.now(UTC)) - value)


def span(value: timedelta) -> str:
    """A length of time in its largest unit."""
    seconds = value.total_seconds()
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size):,} {unit}"
    return "now"


def aged(value: datetime | None) -> Markup:
    """A `<time>` element that shows the age."""
    if value is None:
        return _NO_TIME
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        moment_text(value), clock(value, seconds=True), age(value)
    )


def marked(text: str) -> Markup:
    """A text whose `commands` are shown as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped


def path_part(value: str) -> str:
    """A text as one part of a path, whatever it holds."""
    return quote(value, safe="", errors="replace")


def json_data(value: Any) -> Markup:
    """A value for a `<script type="application/json">` element: no `<` ends it early."""
    text = json_bytes(value).decode()
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704 - nothing of HTML is left in it


def pretty(value: Any) -> str:
    """A JSON document to be read by a person."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False)


FILTERS = {
    "aged": aged,
    "anything": anything,
    "basis_points": basis_points,
    "clock": clock,
    "decimal": decimal,
    "figure": figure,
    "json_data": json_data,
    "marked": marked,
    "metric": metric,
    "path_part": path_part,
    "percent": percent,
    "pretty": pretty,
    "title_of": title_of,
    "when": when,
}
