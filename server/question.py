"""What the core is asked and what it answers; any protocol turns its messages into these and back.

Both are tuples: one of each is made for every row that is scored, and a tuple is made in a fifth of a microsecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from signalserve.common.key import Key
from signalserve.predictors.kinds import Output

LONGEST_REQUEST_ID = 256

Matrix = np.ndarray[Any, np.dtype[np.float64]]


class Flag(Enum):
    """A remark on an answer that the asker may not want to trade on."""

    STALE_MODEL = "the model is older than ml.max_model_age"
    STALE_BAR = "the bar is older than server.stale_bar_factor bars"
    FUTURE_BAR = "the bar's close is more than one bar ahead: a clock is wrong"
    NOT_CURRENT = "the key's model in the registry could not be loaded; the one that it replaces answered"
    OUT_OF_RANGE = "a value lies outside the range that the model was trained on"


class Question(NamedTuple):
    """Rows to be scored by one model.

    `values` are n rows x k columns, row-major; they are looked at by whoever computes, in whatever thread, so
    that a big matrix costs the asker nothing. `columns` names the k columns, or `schema_hash` says that they
    are the model's own. `model_id` is empty for the key's pin or production model. `event_time` is the close
    of the bar in Unix seconds. `sequence` is the asker's own and comes back in the answer. `feature_set` says which
    definition computed the values; empty for nothing. `min_revision`: the answer must be of that registry revision
    or a later one.
    """

    key: Key
    values: Sequence[float] | Matrix
    columns: Sequence[str] = ()
    schema_hash: str = ""
    model_id: str = ""
    event_time: float | None = None
    sequence: int = 0
    feature_set: str = ""
    min_revision: int = 0


class Answer(NamedTuple):
    """Scores [n], float64, and the model that gave them; `served_ns` is the Unix time in nanoseconds.

    `out_of_range` names the features that the flag is about, at most twenty. `output` says what the scores are,
    `feature_set` which definition computes the model's features, empty where nobody knows.
    """

    scores: Matrix
    model_id: str
    digest: str
    schema_hash: str
    revision: int
    served_ns: int
    flags: tuple[Flag, ...] = ()
    sequence: int = 0
    output: Output = "probability"
    feature_set: str = ""
    out_of_range: tuple[str, ...] = ()
