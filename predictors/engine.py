"""ONNX Runtime, one-threaded: bytes in, a function of a matrix out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

from signalserve.predictors.errors import IntegrityError
from signalserve.predictors.kinds import Kind, Matrix


def open_session(content: bytes) -> onnxruntime.InferenceSession:
    """A session over the bytes alone.

    Raises:
        IntegrityError: they are no model that this ONNX Runtime takes.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise IntegrityError(f"model.onnx can't be opened: {str(error).splitlines()[0][:300]}") from error
    # kept by the library for a fallback to other providers, of which there is none: a sixth of the memory
    session._model_bytes = None
    return session


def input_dtype(session: onnxruntime.InferenceSession) -> type[np.floating[Any]]:
    """The number type of the session's one input."""
    return np.float64 if session.get_inputs()[0].type == "tensor(double)" else np.float32


def onnx_scorer(
    session: onnxruntime.InferenceSession, kind: Kind, column: int = 1
) -> Callable[[Matrix], Matrix]:
    """A function of a matrix of the session's own number type to float64 scores [n].

    `column` is that of class 1, where a classifier's graph gives one a class; where it gives one column alone, that
    is the score.
    """
    name, output = session.get_inputs()[0].name, [session.get_outputs()[0].name]
    run = session.run

    def classifier(matrix: Matrix) -> Matrix:
        scores = run(output, {name: matrix})[0]
        if scores.ndim == 2:
            scores = scores[:, column if scores.shape[1] > 1 else 0]
        return np.asarray(scores, dtype=np.float64)

    def regressor(matrix: Matrix) -> Matrix:
        return np.asarray(run(output, {name: matrix})[0], dtype=np.float64).reshape(-1)

    return classifier if kind == "classifier" else regressor


def refuse_external_data(content: bytes) -> None:
    """Refuse a model whose weights lie in other files: no digest covers those.

    Raises:
        IntegrityError: it has such references, or is no ONNX.
    """
    import onnx  # the server, which opens what the registry vouches for, never needs it

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:
        raise IntegrityError(f"model.onnx is no ONNX: {error}") from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise IntegrityError("model.onnx keeps its weights in other files; store it in one")
