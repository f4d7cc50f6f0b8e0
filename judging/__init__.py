"""Evidence, the statistics of a comparison, and the promote gate.

>>> from signalserve.judging import PromoteGate
"""

from signalserve.judging.evidence import Evidence, Measured
from signalserve.judging.gate import PromoteGate, deflated_sharpe
from signalserve.judging.policy import Policy
from signalserve.judging.resampling import Resamples, Resampling, probability_better, resample, summary_of
from signalserve.judging.sharpe import ReturnMoments, expected_max_sharpe, luck

__all__ = [
    "Evidence",
    "Measured",
    "Policy",
    "PromoteGate",
    "Resamples",
    "Resampling",
    "ReturnMoments",
    "deflated_sharpe",
    "expected_max_sharpe",
    "luck",
    "probability_better",
    "resample",
    "summary_of",
]
