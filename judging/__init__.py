"""Evidence, the statistics of a comparison, and the promote gate.

>>> from signalserve.judging import PromoteGate
"""

from signalserve.judging.evidence import Evidence, Folds, Measured, RecipeOf, TrainedOn
from signalserve.judging.false_discovery import Ranked, benjamini_hochberg, chance
from signalserve.judging.gate import PromoteGate, asked_after, deflated_sharpe, vouched_by
from signalserve.judging.policy import Policy
from signalserve.judging.resampling import Resamples, Resampling, probability_better, resample, summary_of
from signalserve.judging.sharpe import ReturnMoments, expected_max_sharpe, luck
from signalserve.judging.timing import Timing, shifted_means, timing, timing_of

__all__ = [
    "Evidence",
    "Folds",
    "Measured",
    "Policy",
    "PromoteGate",
    "Ranked",
    "RecipeOf",
    "Resamples",
    "Resampling",
    "ReturnMoments",
    "Timing",
    "TrainedOn",
    "asked_after",
    "benjamini_hochberg",
    "chance",
    "deflated_sharpe",
    "expected_max_sharpe",
    "luck",
    "probability_better",
    "resample",
    "shifted_means",
    "summary_of",
    "timing",
    "timing_of",
    "vouched_by",
]
