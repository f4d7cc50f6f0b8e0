"""The serving core answers questions: no message, no channel, no protobuf."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from signalserve.common.key import Key
from signalserve.predictors.errors import InputError
from signalserve.predictors.predictor import Predictor
from signalserve.registry.errors import UnknownModelError
from signalserve.server.errors import (
    LateError,
    NothingToServeError,
    RequestError,
    ServingError,
    UnknownServingKeyError,
)
from signalserve.server.limits import ScoringLimits
from signalserve.server.loading import Loading
from signalserve.server.named import NamedModels
from signalserve.server.question import Answer, Flag, Question
from signalserve.server.scorer import Scorer
from signalserve.server.snapshot import ServedModel, ServingSnapshot, ServingState
from signalserve.server.threads import Threads
from tests.server.conftest import ROOT

KEY = Key("BTCUSDT", "15m")
COLUMNS = ("a", "b", "c")
THREADS = "predict"
LOADERS = "load"


def predictor(
    score: Callable[[np.ndarray], np.ndarray] = lambda matrix: matrix[:, 0], engine: str = "onnx"
) -> Predictor:
    """A model of three columns, trained on values from -1 to 1, that gives the first one back."""
    return Predictor(
        score,
        COLUMNS,
        dtype=np.float64,
        digest="d" * 64,
        engine=engine,
        engine_reason="",
        kind="probability",  # type: ignore[arg-type]
        accepts_nan=False,
        feature_min=[-1.0] * 3,
        feature_max=[1.0] * 3,
    )


def model(model_id: str = "one", key: Key = KEY, **fields: Any) -> ServedModel:
    fields.setdefault("predictor", predictor())
    return ServedModel(model_id, key, **fields)


def named_models(load: Callable[[str], ServedModel], seconds: float = 60.0) -> NamedModels:
    """At most two of them, opened by `load`."""
    return NamedModels(Loading(Threads(LOADERS, 2), seconds), load, 2)


def no_model(model_id: str) -> ServedModel:
    raise AssertionError(f"{model_id} was loaded")


WITHOUT_PROTOBUF = """
import sys
for name in ("google", "grpc", "signalserve.v1"):
    sys.modules[name] = None  # whoever imports it now fails

import asyncio
import numpy as np
import signalserve.server.guard, signalserve.server.loader, signalserve.server.watcher
from signalserve.common.key import Key
from signalserve.predictors.predictor import Predictor
from signalserve.server.limits import ScoringLimits
from signalserve.server.named import NamedModels
from signalserve.server.question import Question
from signalserve.server.scorer import Scorer
from signalserve.server.snapshot import ServedModel, ServingSnapshot, ServingState

async def main():
    key, state = Key("BTCUSDT", "15m"), ServingState()
    predictor = Predictor(lambda matrix: matrix[:, 0], "ab", dtype=np.float64, digest="", engine="native",
                          engine_reason="", kind=None, accepts_nan=False)
    state.snapshot = ServingSnapshot(1, {key: ServedModel("one", key, predictor)})
    scorer = Scorer(state, NamedModels(None, None, 1), ScoringLimits(), lambda seconds: None, None)
    print(await scorer.answer(Question(key, [0.5, 0.0], "ab"), 1.0, lambda answer: answer.scores.tolist()))
    scorer.close()

asyncio.run(main())
"""

Core = Callable[..., Scorer]


@pytest.fixture
def core() -> Iterator[Core]:
    """A scorer of one snapshot: `core(model(...), limits=..., known={...}, load=...)`."""
    scorers: list[Scorer] = []

    def build(
        *models: ServedModel,
        limits: ScoringLimits = ScoringLimits(),  # noqa: B008 - frozen
        known: dict[str, Key] | None = None,
        load: Callable[[str], ServedModel] = no_model,
    ) -> Scorer:
        state = ServingState()

        async def at_once(revision: int, until: float | None, keys: Collection[Key]) -> ServingSnapshot:
            return state.snapshot

        state.snapshot = ServingSnapshot(
            revision=7,
            by_key=MappingProxyType({served.key: served for served in models}),
            by_id=MappingProxyType({served.model_id: served for served in models}),
            known_keys=frozenset(served.key for served in models) | frozenset((known or {}).values()),
            known_ids=MappingProxyType({served.model_id: served.key for served in models} | (known or {})),
        )
        scorers.append(Scorer(state, named_models(load), limits, lambda seconds: None, at_once))
        return scorers[-1]

    yield build
    for scorer in scorers:
        scorer.close()


def same(given: Any) -> Any:
    return given


async def answered(scorer: Scorer, question: Question) -> Answer:
    return await scorer.answer(question, None, same)


async def test_an_answer_says_what_gave_it(core: Core) -> None:
    before = time.time_ns()
    answer = await answered(core(model()), Question(KEY, [0.5, 0, 0, 0.25, 0, 0], COLUMNS, sequence=9))
    assert answer.scores.tolist() == [0.5, 0.25]
    assert answer[1:5] == ("one", "d" * 64, predictor().schema_hash, 7)
    assert before <= answer.served_ns <= time.time_ns()
    assert (answer.flags, answer.sequence) == ((), 9)


@pytest.mark.parametrize(
    "values",
    [[0.5, 0.25, 0.0], (0.5, 0.25, 0.0), np.array([0.5, 0.25, 0.0]), np.array([[0.5, 0.25, 0.0]])[0]],
)
async def test_columns_in_another_order_are_taken_by_their_names(core: Core, values: Any) -> None:
    scorer = core(model())
    for columns, score in ((("a", "b", "c"), 0.5), (("b", "a", "c"), 0.25)):
        assert (await answered(scorer, Question(KEY, values, columns))).scores.tolist() == [score]
    more = np.append(values, 0.75)
    assert (await answered(scorer, Question(KEY, more, ("b", "c", "other", "a")))).scores.tolist() == [0.75]
    by_hash = Question(KEY, values, schema_hash=predictor().schema_hash)
    assert (await answered(scorer, by_hash)).scores.tolist() == [0.5]


REFUSED: dict[str, tuple[Question, type[Exception], str]] = {
    "no such key": (Question(Key("NOPE", "15m"), [0.0] * 3, COLUMNS), UnknownServingKeyError, "UNKNOWN_KEY"),
    "nothing in production": (
        Question(Key("SOL", "1h"), [0.0] * 3, COLUMNS),
        NothingToServeError,
        "NO_PRODUCTION_MODEL",
    ),
    "no such model": (Question(KEY, [0.0] * 3, COLUMNS, model_id="x"), UnknownModelError, "UNKNOWN_MODEL"),
    "another key's model": (
        Question(KEY, [0.0] * 3, COLUMNS, model_id="sol"),
        NothingToServeError,
        "KEY_MISMATCH",
    ),
    "no name of a key": (Question(Key("", "15m"), [0.0] * 3, COLUMNS), RequestError, "INVALID_SYMBOL"),
    "no columns": (Question(KEY, [0.0] * 3), RequestError, "SCHEMA_REQUIRED"),
    "columns and hash": (Question(KEY, [0.0] * 3, COLUMNS, "h"), RequestError, "SCHEMA_AMBIGUOUS"),
    "another hash": (Question(KEY, [0.0] * 3, schema_hash="h"), NothingToServeError, "SCHEMA_MISMATCH"),
    "a column twice": (Question(KEY, [0.0] * 3, ("a", "a", "b")), RequestError, "DUPLICATE_FEATURES"),
    "a column missing": (Question(KEY, [0.0] * 2, ("a", "b")), RequestError, "MISSING_FEATURES"),
    "no row": (Question(KEY, [], COLUMNS), RequestError, "NO_ROWS"),
    "half a row": (Question(KEY, [0.0] * 4, COLUMNS), RequestError, "WRONG_WIDTH"),
    "too many rows": (Question(KEY, [0.0] * 9, COLUMNS), RequestError, "TOO_MANY_ROWS"),
    "a missing value": (Question(KEY, [0.0, np.nan, 0.0], COLUMNS), InputError, "NAN_VALUE"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_can_t_be_answered_is_refused_alone_and_as_an_item_of_a_batch(
    core: Core, case: str
) -> None:
    question, kind, reason = REFUSED[case]
    scorer = core(model(), limits=ScoringLimits(max_rows=2), known={"sol": Key("SOL", "1h")})
    with pytest.raises(kind) as caught:
        await answered(scorer, question)
    good = Question(KEY, [0.5, 0.0, 0.0], COLUMNS)
    first, bad, last = await scorer.answer_each([good, question, good], None, ask=same, give=same, fail=same)
    assert caught.value.reason == bad.reason == reason  # type: ignore[attr-defined]
    assert type(bad) is kind
    assert first.scores.tolist() == last.scores.tolist() == [0.5]


async def test_flags_say_what_the_asker_may_not_want_to_trade_on(core: Core) -> None:
    now = time.time()
    fresh, old = core(model()), core(model(stale_at=now - 1))
    row = Question(KEY, [0.5, 0.0, 0.0], COLUMNS)
    far = row._replace(values=[0.5, 0.0, 1.5])
    for scorer, question, flags in (
        (fresh, row, ()),
        (fresh, row._replace(event_time=now), ()),
        (fresh, row._replace(event_time=now - 4 * 900), (Flag.STALE_BAR,)),
        (fresh, row._replace(event_time=now + 2 * 900), (Flag.FUTURE_BAR,)),
        (old, row, (Flag.STALE_MODEL,)),
        (fresh, far, (Flag.OUT_OF_RANGE,)),
        (old, far._replace(event_time=0.0), (Flag.STALE_BAR, Flag.STALE_MODEL, Flag.OUT_OF_RANGE)),
    ):
        assert (await answered(scorer, question)).flags == flags
    refusing = core(model(stale_at=now - 1), limits=ScoringLimits(refuse_stale=True))
    with pytest.raises(NothingToServeError, match=r"ml\.max_model_age"):
        await answered(refusing, row)
    assert (await answered(refusing, row._replace(model_id="one"))).flags == (Flag.STALE_MODEL,)


async def test_only_what_is_quick_is_computed_on_the_event_loop(core: Core) -> None:
    where: list[str] = []

    def noted(matrix: np.ndarray) -> np.ndarray:
        where.append(threading.current_thread().name)
        return matrix[:, 0]

    def give(answer: Answer) -> str:
        return threading.current_thread().name

    quick, slow = model(predictor=predictor(noted)), model(predictor=predictor(noted), row_seconds=1.0)
    row = Question(KEY, [0.5, 0.0, 0.0], COLUMNS)
    big = row._replace(values=np.zeros(3 * 10_000))
    foreign = model(predictor=predictor(noted, engine="native"))  # its code may do anything
    for served, question, in_thread in (
        (quick, row, False),
        (quick, big, True),
        (slow, row, True),
        (foreign, row, True),
    ):
        given = await core(served).answer(question, None, give)
        assert given == where[-1]
        assert given.startswith(THREADS) == in_thread
    # what counts is rows times the time of a row
    measured = model(predictor=predictor(noted), row_seconds=1e-4)
    for rows, in_thread in ((1, False), (9, False), (11, True), (500, True)):
        given = await core(measured).answer(row._replace(values=np.zeros(3 * rows)), None, give)
        assert given.startswith(THREADS) == in_thread
    prepared = await core(quick).prepare(lambda content: threading.current_thread().name, b"")
    assert prepared.startswith("messages")
    asked: list[str] = []

    def ask(question: Question) -> Question:
        asked.append(threading.current_thread().name)
        return question

    given_each = await core(quick).answer_each([row] * 100, None, ask=ask, give=give, fail=repr)
    assert len(given_each) == len(asked) == 100
    assert all(name.startswith(THREADS) for name in [*given_each, *asked])


async def test_a_deadline_that_has_gone_costs_no_work(core: Core) -> None:
    def never(matrix: np.ndarray) -> np.ndarray:
        raise AssertionError("it was computed")

    scorer = core(model(predictor=predictor(never)))
    row = Question(KEY, [0.5, 0.0, 0.0], COLUMNS)
    for remaining in (0.0, -1.0):
        with pytest.raises(LateError, match="nothing was computed"):
            await scorer.answer(row, remaining, same)
        with pytest.raises(LateError, match="nothing was computed"):
            await scorer.answer_each([row], remaining, ask=same, give=same, fail=same)


async def test_an_item_whose_turn_comes_after_the_deadline_is_late_and_the_others_are_not(
    core: Core,
) -> None:
    def slow(matrix: np.ndarray) -> np.ndarray:
        time.sleep(0.2)
        return matrix[:, 0]

    scorer = core(model(predictor=predictor(slow)))
    row = Question(KEY, [0.5, 0.0, 0.0], COLUMNS)
    first, second = await scorer.answer_each([row, row], 0.1, ask=same, give=same, fail=same)
    assert first.scores.tolist() == [0.5]
    assert isinstance(second, LateError)


async def test_a_batch_has_its_bounds(core: Core) -> None:
    scorer = core(model(), limits=ScoringLimits(max_batch_requests=2))
    row = Question(KEY, [0.5, 0.0, 0.0], COLUMNS)
    for items, reason in (([], "NO_REQUESTS"), ([row] * 3, "TOO_MANY_REQUESTS")):
        with pytest.raises(ServingError) as caught:
            await scorer.answer_each(items, None, ask=same, give=same, fail=same)
        assert caught.value.reason == reason


async def test_a_named_model_is_loaded_off_the_event_loop_and_kept(core: Core) -> None:
    loads: list[str] = []

    def load(model_id: str) -> ServedModel:
        loads.append(threading.current_thread().name)
        return model(model_id)

    scorer = core(model(), known={"two": KEY}, load=load)
    row = Question(KEY, [0.5, 0.0, 0.0], COLUMNS, model_id="two")
    for _ in range(3):
        assert (await answered(scorer, row)).model_id == "two"
    assert loads == [LOADERS]


async def test_a_named_model_is_loaded_once_for_all_who_wait() -> None:
    loads: list[str] = []
    go = threading.Event()

    def load(model_id: str) -> ServedModel:
        loads.append(model_id)
        go.wait(60)
        return model(model_id)

    named = named_models(load)
    waiting = [asyncio.create_task(named.load("one")) for _ in range(8)]
    await asyncio.sleep(0)
    assert named.get("one") is None
    go.set()
    models = {id(await call) for call in waiting}
    assert (len(models), loads) == (1, ["one"])


async def test_the_named_model_that_nobody_asked_for_longest_goes_first_and_a_changed_one_is_forgotten() -> (
    None
):
    named = named_models(model)
    await named.load("one")
    await named.load("two")
    assert named.get("one") is not None
    await named.load("three")
    assert list(named.loaded()) == ["one", "three"]
    named.forget(lambda served: served.model_id != "one")
    assert list(named.loaded()) == ["three"]


async def test_a_load_that_failed_is_tried_again_by_the_next() -> None:
    results: Iterator[Any] = iter([UnknownModelError("one"), model("one")])

    def load(model_id: str) -> ServedModel:
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result  # type: ignore[no-any-return]

    named = named_models(load)
    with pytest.raises(UnknownModelError):
        await named.load("one")
    assert (await named.load("one")).model_id == "one"


def test_the_core_answers_where_neither_protobuf_nor_grpc_can_be_imported() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT_PROTOBUF], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert answer.stdout == "[0.5]\n"
