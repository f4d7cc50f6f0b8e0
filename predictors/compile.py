"""From a fitted model to its serving form: ONNX where that reproduces every golden row, else native.

This runs in the trainer's process, never in the server's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from signalserve.predictors.classes import Classes
from signalserve.predictors.convert import conversions
from signalserve.predictors.declared import NOTHING_DECLARED, Declared
from signalserve.predictors.engine import input_dtype, onnx_scorer, open_session
from signalserve.predictors.errors import UnsupportedModelError
from signalserve.predictors.golden import ROWS, GoldenRows, golden_inputs
from signalserve.predictors.kinds import Kind, Matrix
from signalserve.predictors.native import NativeModel, walk
from signalserve.predictors.thresholds import Splits, split_points

Engine = Literal["onnx", "native"]


@dataclass(frozen=True)
class CompiledModel:
    """What registration stores beside `model.joblib`.

    `feature_min` and `feature_max` are the training range of each column, None where no training rows were
    given. `engine_reason` is empty for onnx. `classes` is None for a regressor.
    """

    onnx: bytes | None
    golden: GoldenRows
    engine: Engine
    engine_reason: str
    kind: Kind
    classes: Classes | None
    accepts_nan: bool
    feature_min: tuple[float, ...] | None
    feature_max: tuple[float, ...] | None


def compile_model(
    model: Any,
    feature_names: Sequence[str],
    reference: Matrix | None = None,
    *,
    seed: int = 0,
    declared: Declared = NOTHING_DECLARED,
) -> CompiledModel:
    """Compile a fitted model and prove the result.

    Args:
        model: a scikit-learn or xgboost model of two classes or a regressor, or an xgboost Booster.
        feature_names: its columns, in their order.
        reference: rows [m, k] of the training data; None makes rows up around the model's own splits.
        seed: which rows are drawn.
        declared: what the model's owner says of it.

    Raises:
        UnsupportedModelError: the model can't give one score a row.
        DeclarationError: the owner must say which class is class 1.
    """
    native = NativeModel(model, feature_names, declared.positive_class)
    width = len(native.feature_names)
    splits = split_points(model)
    rows = _made_up(model, width, splits, seed) if reference is None else _matrix(reference, width)
    # a model that was fitted on whole rows answers missing values by branches that no row has ever trained
    wanted = bool(np.isnan(rows).any()) if declared.accepts_nan is None else declared.accepts_nan
    takes_nan = wanted and native.accepts_nan(np.nan_to_num(rows[0]))
    golden = _ask(native, rows, splits, seed, with_nan=takes_nan)
    content, reason = _convert(model, width, golden, native)
    low = high = None
    if reference is not None:
        with np.errstate(all="ignore"):
            low = tuple(float(value) for value in np.nanmin(rows, axis=0))
            high = tuple(float(value) for value in np.nanmax(rows, axis=0))
    return CompiledModel(
        onnx=content,
        golden=golden,
        engine="native" if content is None else "onnx",
        engine_reason=reason if content is None else "",
        kind=native.kind,
        classes=native.classes,
        accepts_nan=takes_nan,
        feature_min=low,
        feature_max=high,
    )


def _ask(native: NativeModel, rows: Matrix, splits: Splits, seed: int, *, with_nan: bool) -> GoldenRows:
    inputs = golden_inputs(rows, splits, seed=seed, with_nan=with_nan)
    try:
        scores = native.scores(inputs)
    except Exception as error:
        raise UnsupportedModelError(f"the model does not answer: {_first_line(error)}") from error
    if not np.isfinite(scores).all():
        raise UnsupportedModelError("the model gives scores that are no finite numbers")
    return GoldenRows(inputs, scores)


def _convert(model: Any, width: int, golden: GoldenRows, native: NativeModel) -> tuple[bytes | None, str]:
    """The first form that reproduces the golden rows; else none, and why."""
    reasons: list[str] = []
    kind, classes = native.kind, native.classes
    try:
        for dtype, content in conversions(model, width, kind):
            try:
                session = open_session(content)
                scorer = onnx_scorer(session, kind, 1 if classes is None else classes.column)
                with np.errstate(over="ignore"):
                    scores = scorer(golden.rows.astype(input_dtype(session)))
            except Exception as error:  # noqa: BLE001 - whatever ONNX Runtime raises, the native model serves
                reasons.append(f"ONNX in {dtype} does not run: {_first_line(error)}")
                continue
            missed = golden.misses(scores, kind)
            if not missed.any():
                return content, ""
            worst = float(np.max(np.abs(scores - golden.scores)))
            reasons.append(
                f"ONNX in {dtype} misses {int(missed.sum())} of {ROWS} golden rows by up to {worst:.2g}"
            )
    except Exception as error:  # noqa: BLE001 - as above, for the converters
        reasons.append(f"no ONNX form: {_first_line(error)}")
    return None, "; ".join(reasons)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160] if str(error).strip() else ''}"


def _matrix(reference: Matrix, width: int) -> Matrix:
    rows = np.asarray(reference, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != width or len(rows) == 0:
        raise UnsupportedModelError(f"the reference rows are of shape {rows.shape}, not [rows, {width}]")
    return rows


def _made_up(model: Any, width: int, splits: Splits, seed: int) -> Matrix:
    """Rows around the model's splits, else around its scaler's means, else of the normal distribution."""
    random = np.random.default_rng(seed)
    centre, spread = np.zeros(width), np.ones(width)
    for part in walk(model):
        mean, scale = getattr(part, "mean_", None), getattr(part, "scale_", None)
        if mean is not None and scale is not None and len(mean) == width:
            centre, spread = np.asarray(mean), np.asarray(scale)
    for column in range(width):
        own = [threshold for index, threshold in splits if index == column]
        if own:
            centre[column] = float(np.median(own))
            spread[column] = float(np.ptp(own)) or max(abs(own[0]), 1e-6)
    return centre + spread * random.standard_normal((4 * ROWS, width))
