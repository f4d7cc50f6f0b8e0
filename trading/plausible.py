"""Figures that are too good to be true on bars, and the one place of their bounds.

A model that knows the future by accident (a feature that reads ahead, a training span that was stated wrongly) shows it
first here. An area under the ROC curve as far below 0.5 is as suspicious: the same leak, the other way round.
"""

from __future__ import annotations

MOST_AUC = 0.75
MOST_SHARPE = 10.0
SUSPICION = "implausible: look for leakage"


def suspicion(name: str, value: float | None) -> str:
    """What is to be said beside a metric of this name; empty where nothing is.

    `auc` and `auc_all`: beyond 0.75, or below 0.25; `sharpe`, annualised: beyond 10 either way.

    >>> suspicion("auc", 0.81), suspicion("sharpe", 3.0)
    ('implausible: look for leakage', '')
    """
    if value is None:
        return ""
    beyond = {
        "auc": abs(value - 0.5) > MOST_AUC - 0.5,
        "auc_all": abs(value - 0.5) > MOST_AUC - 0.5,
        "sharpe": abs(value) > MOST_SHARPE,
    }
    return SUSPICION if beyond.get(name, False) else ""
