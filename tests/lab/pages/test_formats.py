"""Values as pages write them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from signalserve.lab.pages.formats import (
    age,
    anything,
    decimal,
    figure,
    json_data,
    marked,
    measured,
    metric,
    percent,
    title_of,
)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (decimal(0.30000000000000004), "0.30"),
        (decimal(-1234.5), "−1,234.50"),  # noqa: RUF001 - a minus sign
        (decimal(-0.001), "0.00"),
        (decimal(0.4, sign=True), "+0.40"),
        (decimal(float("nan")), "–"),  # noqa: RUF001 - an en dash
        (percent(0.1234, 1), "12.3%"),
        (percent(None), "–"),  # noqa: RUF001
        (figure(1071.0), "1,071"),
        (figure(0.1 + 0.2), "0.3"),
        (metric("max_drawdown", 0.0675), "6.75%"),
        (metric("cum_return", 0.2), "+20.00%"),
        (metric("auc", 0.61234), "0.612"),
        (title_of("auc"), "AUC (labelled bars)"),
        (title_of("accuracy_all"), "Accuracy (all bars)"),
        (metric("auc_all", 0.61234), "0.612"),
        (str(measured({"sharpe": 1.4, "sharpe_se": 0.55}, "sharpe")), "1.40 ± 0.55"),
        (str(measured({"sharpe": None, "sharpe_se": 0.55}, "sharpe")), "–"),  # noqa: RUF001
        (
            str(measured({"auc": 0.9}, "auc")),
            '0.900 <span class="badge warn doubt">implausible: look for leakage</span>',
        ),
        (anything("2026-01-05T12:00:00+00:00"), "2026-01-05 12:00"),
        (anything({"a": 1, "b": None}), "a 1, b –"),  # noqa: RUF001
        (anything([]), "none"),
        (anything(True), "yes"),
        (anything("SYNTH_15m_rf_20260101_000000"), "SYNTH_15m_rf_20260101_000000"),
    ],
)
def test_a_value_is_written_for_people(written: str, text: str) -> None:
    assert written == text


@pytest.mark.parametrize(
    ("passed", "text"),
    [
        (timedelta(days=3, hours=5), "3 d"),
        (timedelta(hours=2), "2 h"),
        (timedelta(minutes=5), "5 min"),
        (timedelta(seconds=-5), "now"),
    ],
)
def test_an_age_is_one_number_and_a_unit(passed: timedelta, text: str) -> None:
    now = datetime(2026, 1, 5, tzinfo=UTC)
    assert age(now - passed, now) == text


@pytest.mark.parametrize("value", ["</script><script>alert(1)</script>", "a & b", [1.5, None, "<!--"]])
def test_data_for_a_script_never_ends_its_element(value: Any) -> None:
    text = str(json_data(value))
    assert not set("<>&") & set(text)
    assert json.loads(text) == value


def test_commands_are_code_and_everything_else_is_escaped() -> None:
    assert marked("run `a <b>` & go") == "run <code>a &lt;b&gt;</code> &amp; go"
