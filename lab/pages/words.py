"""What the names of the gate, the log and the server mean, in words that need no manual."""

from __future__ import annotations

TITLES = {
    "evidence": "An evaluation",
    "fresh": "Fresh evidence",
    "recent_bars": "Recent bars",
    "measured_by": "Measured by",
    "artefact": "These very files",
    "same_artefacts": "Unchanged files",
    "same_champion": "Same champion",
    "same_settings": "Same settings",
    "out_of_sample": "Out of sample",
    "training_span": "Training span",
    "same_bars": "Same market",
    "quarantined": "Not quarantined",
    "drawdown_ratio": "Drawdown beside the champion's",
    "deflated_sharpe": "Sharpe ratio beyond luck",
    "better": "Better than the champion",
    "timing": "Timing is skill",
    "folds_timing": "Timing is skill, walk-forward",
    "folds_sharpe": "Sharpe ratio beyond luck, walk-forward",
}
"""What each of the gate's verdicts is called, where its own name does not say it."""

VERDICTS = {
    "quarantined": "no rollback left the model behind",
    "evidence": "it was evaluated, and the record can be read",
    "fresh": "the evaluation is recent",
    "recent_bars": "the bars it was measured on are recent",
    "measured_by": "who measured it counts: its trainer, evaluate on the configured bars, or brought from elsewhere",
    "artefact": "these very files were measured",
    "same_artefacts": "both models' files are still those that were measured",
    "same_champion": "it was compared with what is in production now",
    "same_settings": "it was simulated by the thresholds and costs of now",
    "out_of_sample": "the first bar comes after both training spans and all that their labels read ahead",
    "training_span": "no bar was trained on: by its files' own word (declared), or registered before the first bar",
    "same_bars": "no week of the training span has other bars than it was trained on",
    "bars": "enough out-of-sample bars",
    "trades": "enough trades",
    "drawdown": "the drawdown is bearable",
    "drawdown_ratio": "the drawdown is not much deeper than the champion's",
    "deflated_sharpe": "the Sharpe ratio is more than luck, after every look at these bars",
    "better": "it is probably better than the champion",
    "sharpe": "the Sharpe ratio is high enough",
    "timing": "its positions came at the right time: P that they beat their own copies at other times by skill",
    "folds_timing": "so they did on the bars of its walk-forward folds",
    "folds_sharpe": "over those folds its Sharpe ratio is more than luck, after all that its grid tried on them",
}
"""What each of the gate's verdicts asks."""

AT_MOST = frozenset({"drawdown", "drawdown_ratio", "fresh", "recent_bars", "same_bars"})
AT_LEAST = frozenset(
    {"bars", "trades", "deflated_sharpe", "better", "sharpe", "timing", "folds_timing", "folds_sharpe"}
)
_BOUNDS = {"out_of_sample": "after", "measured_by": "one of", "artefact": "one of"}

ACTIONS = {
    "register": "registered",
    "evaluate": "evaluated",
    "look": "backtested",
    "promote": "promoted",
    "rollback": "rolled back",
    "archive": "archived",
    "restore": "restored",
    "external_edit": "edited outside",
    "refusal": "refused",
    "clean": "cleaned",
    "retention": "retired by retention",
    "adopt": "adopted",
}
"""What happened, as a mark or a heading says it."""

STATES = {
    "serving": ("good", "serving"),
    "not_ready": ("warn", "not ready"),
    "draining": ("warn", "draining"),
    "away": ("bad", "away"),
    "refused": ("warn", "does not tell"),
    "running": ("good", "running"),
    "stopped": ("mute", "stopped"),
    "stale": ("bad", "stale"),
    "unreadable": ("bad", "unreadable"),
    "production": ("good", "production"),
    "candidate": ("info", "candidate"),
    "success": ("info", "success"),
    "archived": ("mute", "archived"),
    "failed": ("bad", "failed"),
    "deleted": ("mute", "deleted"),
    "valid": ("good", "whole"),
    "broken": ("bad", "broken"),
    "no_log": ("mute", "no log"),
    "current": ("good", "evidence is current"),
    "absent": ("warn", "no evidence"),
    "in_production": ("good", "in production"),
    "other_champion": ("warn", "another champion"),
}
"""The tone and the word of a state; the word is always written, so that nothing hangs on a colour."""


def verdict_bound(name: str) -> str:
    """The sign or the words between what was found and its bound."""
    return "≤" if name in AT_MOST else "≥" if name in AT_LEAST else _BOUNDS.get(name, "")


def tone_of(state: str) -> str:
    """The colour of a state's badge."""
    return STATES.get(state, ("mute", state))[0]


def word_of(state: str) -> str:
    """The text of a state's badge."""
    return STATES.get(state, ("mute", state.replace("_", " ")))[1]
