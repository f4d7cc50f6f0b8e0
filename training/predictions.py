"""`oos_predictions.csv` of a run directory: every out-of-sample probability of a training, one row a bar.

First the bars of the folds, by the fold's number, then those of the final model's test span, whose fold is `test`:
`timestamp,fold,probability,class,forward_return`. A bar without a class, or of a fold that gave no answer, has an empty
cell. The return is the one that the label speaks of (`training.labels`), empty where nobody knows it yet.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from signalserve.common.files import read_regular, sha256_hex
from signalserve.registry.artefact import PREDICTIONS_FILE
from signalserve.training.dataset import Dataset
from signalserve.training.walk_forward import WalkForward

TEST = "test"
_LARGEST = 1 << 28


def write_predictions(
    folder: Path, dataset: Dataset, walk: WalkForward, test_probability: NDArray[np.float64]
) -> str:
    """Write the file, and give its sha256."""
    parts = [
        (str(fold.number), fold.test, walk.probability[fold.test.start : fold.test.stop])
        for fold in walk.folds
    ]
    parts.append((TEST, dataset.split.test, test_probability))
    classes, forward = dataset.labels.classes, dataset.labels.forward_return
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["timestamp", "fold", "probability", "class", "forward_return"])
    for name, span, probability in parts:
        for bar, value in zip(span, probability.tolist(), strict=True):
            known = "" if np.isnan(classes[bar]) else int(classes[bar])
            told, came = ("" if np.isnan(number) else repr(float(number)) for number in (value, forward[bar]))
            writer.writerow([dataset.opened(bar), name, told, known, came])
    content = text.getvalue().encode()
    (folder / PREDICTIONS_FILE).write_bytes(content)
    return sha256_hex(content)


def read_fold_predictions(folder: Path, sha256: str) -> pd.Series:
    """The folds' probabilities by the open time of their bars (UTC), NaN where a fold gave no answer.

    Raises:
        ValueError: it is not the file that the training wrote.
        OSError: it can't be read.
    """
    content = read_regular(folder / PREDICTIONS_FILE, largest=_LARGEST)
    if sha256_hex(content) != sha256:
        raise ValueError(f"{PREDICTIONS_FILE} is not what the training wrote")
    table = pd.read_csv(io.BytesIO(content), dtype={"fold": str})
    rows = table[table["fold"] != TEST]
    return pd.Series(
        rows["probability"].to_numpy(dtype=np.float64), index=pd.to_datetime(rows["timestamp"], utc=True)
    )
