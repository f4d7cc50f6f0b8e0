import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from signalserve.client.encode import encode_features, encode_predict
from signalserve.features.pipeline import FeaturePipeline
from signalserve.features.synthetic import synthetic_bars
from signalserve.v1.prediction_pb2 import PredictRequest

NAMES = ["rsi", "atr", "macd"]
ROWS = np.array([[1.5, 2.0, -3.25], [4.0, 5.0, 6.0]])


def matrix_of(request: PredictRequest, width: int) -> np.ndarray:
    return np.array(request.values).reshape(-1, width)


@pytest.mark.parametrize(
    "features",
    [
        [dict(zip(NAMES, row, strict=True)) for row in ROWS],
        [dict(zip(reversed(NAMES), reversed(row), strict=True)) for row in ROWS.tolist()],
        pd.DataFrame(ROWS, columns=NAMES),
        pd.DataFrame(ROWS, columns=NAMES).astype("Float64"),
    ],
    ids=["mappings", "mappings in another order", "frame", "frame of nullable floats"],
)
def test_named_rows_become_the_same_matrix_under_their_names(features):
    names, matrix = encode_features(features, NAMES)
    assert names == tuple(NAMES)
    np.testing.assert_array_equal(matrix, ROWS)


@pytest.mark.parametrize("features", [ROWS, ROWS.tolist(), np.asfortranarray(ROWS), ROWS[::1, :]])
def test_an_array_is_sent_row_by_row_with_the_given_names(features):
    request = encode_predict("BTCUSDT", "15m", features, feature_names=NAMES)
    assert list(request.feature_names) == NAMES
    assert list(request.values) == ROWS.ravel().tolist()


def test_one_mapping_one_series_and_one_flat_array_are_one_row():
    row = dict(zip(NAMES, ROWS[0], strict=True))
    frame = pd.DataFrame(ROWS, columns=NAMES)
    for features, names in ((row, None), (frame.iloc[0], None), (ROWS[0], NAMES)):
        request = encode_predict("X", "15m", features, feature_names=names)
        assert list(request.feature_names) == NAMES
        assert list(request.values) == ROWS[0].tolist()


def test_feature_names_pick_and_order_the_columns_of_a_frame_past_a_text_column():
    frame = pd.DataFrame(ROWS, columns=NAMES).assign(note="text")
    names, matrix = encode_features(frame, ["macd", "rsi"])
    assert names == ("macd", "rsi")
    np.testing.assert_array_equal(matrix, ROWS[:, [2, 0]])


def test_a_schema_hash_stands_for_the_names_of_an_array():
    request = encode_predict("X", "15m", ROWS, schema_hash="ab" * 32)
    assert (list(request.feature_names), request.schema_hash) == ([], "ab" * 32)


def test_integers_booleans_and_float32_are_numbers():
    request = encode_predict("X", "15m", {"i": 3, "b": True, "f": np.float32(0.5), "n": np.int64(-2)})
    assert list(request.values) == [3.0, 1.0, 0.5, -2.0]


def test_nan_and_infinite_values_are_left_for_the_server_to_judge():
    request = encode_predict("X", "15m", {"a": math.nan, "b": math.inf})
    assert math.isnan(request.values[0])
    assert request.values[1] == math.inf


@pytest.mark.parametrize(
    ("features", "names", "text"),
    [
        ({"a": "1.5"}, None, "feature 'a': '1.5' is no number"),
        ({"a": None}, None, "send math.nan"),
        ({"a": 1j}, None, "is no number"),
        ({"a": Decimal("1.5")}, None, "is no number"),
        ({3: 1.0}, None, "not a text"),
        ([{"a": 1.0}, [2.0]], None, "row 1 is a list"),
        (np.array([["1.5"]]), ["a"], "not numbers"),
        (np.array([["2026-01-01"]], dtype="datetime64[s]"), ["a"], "not numbers"),
        (pd.DataFrame({"a": ["x"]}, dtype=object), None, "row 0, feature 'a'"),
        (pd.DataFrame({"a": [1.0, pd.NA]}, dtype=object), None, "send math.nan"),
        ("1.5", ["a"], "features are a str"),
        (1.5, ["a"], "features are a float"),
        (None, None, "features are a NoneType"),
        ([[1.0]], "a", "single text"),
    ],
)
def test_what_is_no_number_is_a_type_error_that_says_where(features, names, text):
    with pytest.raises(TypeError, match=text):
        encode_predict("X", "15m", features, feature_names=names)


@pytest.mark.parametrize(
    ("features", "options", "text"),
    [
        ([[1.0, 2.0], [3.0]], {"feature_names": ["a", "b"]}, "different widths"),
        (ROWS, {"feature_names": ["a", "b"]}, "3 values, but feature_names has 2"),
        (ROWS, {}, "give feature_names= or schema_hash="),
        (ROWS, {"feature_names": NAMES, "schema_hash": "ab"}, "exclude each other"),
        ({"a": 1.0}, {"schema_hash": "ab"}, "leave schema_hash out"),
        ({"a": 1.0}, {"feature_names": ["a", "b"]}, r"missing \['b'\]"),
        ([{"a": 1.0}, {"b": 1.0}], {}, r"row 1: features missing \['a'\], not expected \['b'\]"),
        (pd.DataFrame({"a": [1.0]}), {"feature_names": ["b"]}, r"no column \['b'\]"),
        (np.zeros((1, 2, 3)), {"schema_hash": "ab"}, "shape"),
        ({"a": 10**400}, {}, "does not fit a double"),
    ],
)
def test_what_does_not_fit_together_is_a_value_error_that_says_why(features, options, text):
    with pytest.raises(ValueError, match=text):
        encode_predict("X", "15m", features, **options)


def test_zero_rows_with_their_names_are_sent_for_the_server_to_refuse():
    request = encode_predict("X", "15m", np.empty((0, 3)), feature_names=NAMES)
    assert (len(request.values), len(request.feature_names)) == (0, 3)


def test_event_time_keeps_its_instant_in_any_timezone_and_a_naive_one_is_refused():
    moment = datetime(2026, 3, 1, 12, 15, tzinfo=timezone(timedelta(hours=5)))
    request = encode_predict("X", "15m", {"a": 1.0}, event_time=moment)
    assert request.event_time.ToDatetime(tzinfo=UTC) == moment
    stamp = pd.Timestamp("2026-03-01T07:15:00Z")
    assert encode_predict("X", "15m", {"a": 1.0}, event_time=stamp).event_time == request.event_time
    with pytest.raises(ValueError, match="no timezone"):
        encode_predict("X", "15m", {"a": 1.0}, event_time=moment.replace(tzinfo=None))
    with pytest.raises(TypeError, match="datetime with its timezone"):
        encode_predict("X", "15m", {"a": 1.0}, event_time=1_700_000_000)


def test_a_matrix_over_two_gib_is_refused_before_it_is_copied():
    rows = np.broadcast_to(np.zeros(1, dtype=np.float64), (300_000_000, 1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("signalserve.client.encode.encode_features", lambda *_: (("a",), rows))
        with pytest.raises(ValueError, match="2 GiB"):
            encode_predict("X", "15m", rows, feature_names=["a"])


@given(
    arrays(
        st.sampled_from([np.float64, np.float32, np.int32, np.bool_]),
        st.tuples(st.integers(1, 20), st.integers(1, 30)),
    )
)
def test_every_numeric_matrix_arrives_bit_for_bit(matrix):
    names = [f"f{n}" for n in range(matrix.shape[1])]
    sent = encode_predict("X", "15m", matrix, feature_names=names)
    read = PredictRequest.FromString(sent.SerializeToString())
    assert read == sent or np.isnan(matrix).any()
    expected = np.asarray(matrix, dtype=np.float64)
    assert matrix_of(read, matrix.shape[1]).tobytes() == expected.tobytes()


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.floats() | st.integers(-(2**53), 2**53),
        min_size=1,
    )
)
def test_every_mapping_arrives_with_its_names_and_values_in_order(row):
    request = encode_predict("X", "15m", row)
    assert list(request.feature_names) == list(row)
    np.testing.assert_array_equal(np.array(request.values), [float(value) for value in row.values()])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    st.none() | st.lists(st.text(), max_size=3),
    st.none() | st.just("ab"),
)
def test_whatever_is_given_is_encoded_whole_or_refused_as_a_value_or_type_error(features, names, schema_hash):
    try:
        found, matrix = encode_features(features, names, schema_hash)
    except (TypeError, ValueError):
        return
    assert matrix.ndim == 2
    assert matrix.dtype == np.float64
    assert len(found) == matrix.shape[1] or schema_hash or not len(matrix)


def test_what_the_pipeline_gives_goes_as_it_is_with_its_names_and_feature_set():
    pipeline = FeaturePipeline("core")
    row = pipeline.latest(synthetic_bars("SYNTH", 250, seed=3))
    request = encode_predict("X", "15m", row)
    assert tuple(request.feature_names) == pipeline.names
    assert list(request.values) == row.values.tolist()
    assert request.feature_set == pipeline.feature_set == "core@1"
    assert encode_predict("X", "15m", row, feature_set="mine@2").feature_set == "mine@2"


def test_feature_set_and_min_registry_revision_travel_and_are_left_out_by_default():
    request = encode_predict("X", "15m", {"a": 1.0}, feature_set="core@1", min_registry_revision=9)
    assert (request.feature_set, request.min_registry_revision) == ("core@1", 9)
    plain = encode_predict("X", "15m", {"a": 1.0})
    assert (plain.feature_set, plain.min_registry_revision) == ("", 0)


def test_a_feature_that_stands_twice_is_refused_by_its_name():
    frame = pd.DataFrame([[1.0, 2.0, 3.0]], columns=["a", "b", "a"])
    with pytest.raises(ValueError, match="feature 'a' stands more than once"):
        encode_predict("X", "15m", frame)
    with pytest.raises(ValueError, match="feature 'b' stands more than once"):
        encode_predict("X", "15m", [1.0, 2.0], feature_names=["b", "b"])
