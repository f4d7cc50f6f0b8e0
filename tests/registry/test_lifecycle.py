"""The lifecycle through its front door, and a state machine over it."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from signalserve.common.key import Key
from signalserve.config.evidence import PromotionSettings
from signalserve.judging import Evidence, Measured
from signalserve.judging.sharpe import ReturnMoments
from signalserve.registry import Promotion, Selection, init_registry, list_models, promote_model, verify_log
from signalserve.registry.errors import (
    ArtefactError,
    CallerError,
    InProductionError,
    InvalidArgumentError,
    NothingToRollBackToError,
    QuarantinedError,
    RequestIdReusedError,
    StaleExpectationError,
    UnknownModelError,
    WrongStatusError,
)
from signalserve.registry.events import EventLog
from signalserve.registry.folder_store import FolderStore, open_store
from tests.registries import gate_of, recorded, registry_at
from tests.small_models import register_copy, sealed_template

KEY = Key("BTCUSDT", "15m")
BEFORE = "2026-01-01T00:00:00+00:00"
MOMENTS = ReturnMoments(2000, 0.2, 0.0, 3.0)
POLICY = PromotionSettings(max_data_age=None, min_deflated_sharpe=0.0, min_probability=0.9, min_trades=1)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    return sealed_template(tmp_path / "template")


@pytest.fixture
def base(tmp_path: Path, template: Path) -> Path:
    """Models a, b, c of one key, promoted in turn; d is registered."""
    base = tmp_path / "registry"
    for name in "abcd":
        register_copy(template, base, name)
    for name in "abc":
        registry_at(base).promote([name])
    return base


def production(base: Path, key: Key = KEY) -> str | None:
    return open_store(base).view().state.production(key)


def last_event(base: Path):
    return EventLog(base / "registry_events.jsonl").read_new().events[-1]


def test_rolling_back_twice_goes_two_back_and_never_forth(base: Path) -> None:
    first = registry_at(base).rollback([KEY], reason="bad day")
    assert [(t.model_id, t.previous_model_id) for t in first.transitions] == [("b", "c")]
    assert registry_at(base).rollback([KEY], reason="worse").transitions[0].model_id == "a"
    with pytest.raises(NothingToRollBackToError):
        registry_at(base).rollback([KEY], reason="no more")
    assert production(base) == "a"


def test_the_model_left_behind_needs_force_to_come_back(base: Path) -> None:
    registry_at(base).rollback([KEY], reason="bad day")
    with pytest.raises(QuarantinedError, match="force"):
        registry_at(base).promote([Promotion("c")])
    with pytest.raises(QuarantinedError):
        registry_at(base).make_candidate("c")
    with pytest.raises(InvalidArgumentError, match="reason"):
        registry_at(base).promote([Promotion("c")], force=True)
    registry_at(base).promote([Promotion("c")], force=True, reason="the data was wrong, not the model")
    assert production(base) == "c"
    assert last_event(base).forced


def test_a_rollback_passes_over_a_model_that_no_longer_verifies_and_the_event_says_so(base: Path) -> None:
    (base / "b" / "model.onnx").write_bytes(b"damaged")
    assert registry_at(base).rollback([KEY], reason="bad day").transitions[0].model_id == "a"
    assert "model.onnx" in last_event(base).detail["skipped"]["b"]


def test_a_promote_with_a_stale_expectation_changes_nothing(base: Path) -> None:
    for expected in ("a", ""):
        with pytest.raises(StaleExpectationError, match="found c"):
            registry_at(base).promote([Promotion("d", expected)])
    assert production(base) == "c"
    assert registry_at(base).promote([Promotion("d", "c")]).transitions[0].previous_model_id == "c"


def test_a_basket_is_promoted_whole_or_not_at_all(base: Path, template: Path) -> None:
    register_copy(template, base, "eth", symbol="ETHUSDT")
    with pytest.raises(UnknownModelError):
        registry_at(base).promote([Promotion("eth"), Promotion("nobody")])
    with pytest.raises(InvalidArgumentError, match="more than once"):
        registry_at(base).promote([Promotion("d"), Promotion("b")])
    assert production(base, Key("ETHUSDT", "15m")) is None
    committed = registry_at(base).promote([Promotion("eth", ""), Promotion("d", "c")])
    assert committed.revision == last_event(base).revision
    assert {(t.model_id, t.previous_model_id) for t in committed.transitions} == {("eth", ""), ("d", "c")}


def test_a_retry_with_the_same_request_id_gets_the_first_answer(base: Path) -> None:
    first = registry_at(base).promote([Promotion("d")], request_id="r1")
    registry_at(base).rollback([KEY], reason="bad day")
    again = registry_at(base).promote([Promotion("d")], request_id="r1")
    assert (again.revision, again.transitions, again.repeated) == (first.revision, first.transitions, True)
    assert production(base) == "c"
    with pytest.raises(RequestIdReusedError):
        registry_at(base).promote([Promotion("a")], request_id="r1")


def test_a_production_model_is_archived_only_on_an_explicit_word(base: Path) -> None:
    with pytest.raises(InProductionError):
        registry_at(base).archive(["c"])
    with pytest.raises(InvalidArgumentError, match="reason"):
        registry_at(base).archive(["c"], allow_unserved=True)
    registry_at(base).archive(["c"], allow_unserved=True, reason="delisted")
    assert production(base) is None
    registry_at(base).rollback([KEY], reason="listed again")
    assert production(base) == "c"
    assert registry_at(base).rollback([KEY], reason="bad day").transitions[0].model_id == "b"


def test_a_model_whose_row_and_folder_were_deleted_and_put_back_has_its_digest_still(
    base: Path, tmp_path: Path
) -> None:
    index = base / "registry_index.csv"
    (row,) = [line for line in index.read_text().splitlines(keepends=True) if line.startswith("d,")]
    (base / "d").rename(tmp_path / "d")
    index.write_text(index.read_text().replace(row, ""))
    registry_at(base).rollback([KEY], reason="a writer records it")
    assert "d" not in {entry.model_id for entry in list_models(base)}
    (tmp_path / "d").rename(base / "d")
    index.write_text(index.read_text() + row)
    assert registry_at(base).promote([Promotion("d")]).transitions[0].model_id == "d"
    (base / "d" / "model.onnx").write_bytes(b"another")
    with pytest.raises(ArtefactError):
        registry_at(base).artefact("d").verify()


def test_a_promote_of_what_is_in_production_changes_nothing_and_is_in_the_log_where_it_has_an_id(
    base: Path,
) -> None:
    before = last_event(base)
    registry_at(base).promote([Promotion("c")])
    assert last_event(base) == before
    first = registry_at(base).promote([Promotion("c")], request_id="again")
    assert [(change.model_id, change.before, change.after) for change in last_event(base).changes] == [
        ("c", "production", "production")
    ]
    assert registry_at(base).promote([Promotion("c")], request_id="again").revision == first.revision
    assert registry_at(base).rollback([KEY], reason="bad day").transitions[0].model_id == "b"


def test_stages_move_as_the_lifecycle_says(base: Path) -> None:
    assert promote_model("d", "candidate", base, gate=gate_of()).status == "candidate"
    assert promote_model("d", "archived", base, gate=gate_of()).status == "archived"
    with pytest.raises(WrongStatusError, match="force and a reason"):
        promote_model("d", "production", base, gate=gate_of())
    assert promote_model("d", "candidate", base, gate=gate_of()).status == "candidate"
    assert promote_model("d", "production", base, gate=gate_of()).status == "production"
    with pytest.raises(InvalidArgumentError):
        promote_model("d", "staging", base, gate=gate_of())


def test_a_damaged_model_is_not_promoted_with_force_either(base: Path) -> None:
    (base / "d" / "golden.npz").unlink()
    with pytest.raises(ArtefactError, match=r"golden\.npz"):
        registry_at(base).promote([Promotion("d")], force=True, reason="try")
    assert production(base) == "c"


def test_retention_keeps_production_the_rollback_target_and_pins(tmp_path: Path, template: Path) -> None:
    base = tmp_path / "kept"
    for name in ("old", "pinned", "older_production", "production"):
        register_copy(template, base, name)
    registry_at(base).promote([Promotion("older_production")])
    registry_at(base).promote([Promotion("production")])
    for number in range(5):
        register_copy(
            template, base, f"new{number}", created_at=f"2026-02-0{number + 1}", max_models=2, pins=["pinned"]
        )
    assert {entry.model_id for entry in list_models(base)} == {
        "pinned",
        "older_production",
        "production",
        "new3",
        "new4",
    }
    folders = {path.name for path in base.iterdir() if path.is_dir()}
    assert folders == {entry.model_id for entry in list_models(base)}
    assert (
        registry_at(base).rollback([KEY], reason="it is still there").transitions[0].model_id
        == "older_production"
    )


def test_clean_drops_what_has_no_artefacts_and_deletes_only_when_asked(base: Path, template: Path) -> None:
    shutil.rmtree(base / "d")
    shutil.rmtree(base / "c")
    register_copy(template, base, "e")
    register_copy(template, base, "f")
    assert set(registry_at(base).plan_clean().entries) == {"d"}
    newest = Selection(keep=1, statuses=frozenset({"success"}))
    done = registry_at(base).clean(newest)
    assert set(done.entries) == {"d", "e"}
    assert "in production" in done.kept["c"]
    assert (base / "e").is_dir()
    assert "e" not in {entry.model_id for entry in list_models(base)}
    done = registry_at(base).clean(delete_dirs=True)
    assert base / "e" in done.folders
    assert not (base / "e").exists()
    assert (base / "f").is_dir()
    assert verify_log(base).ok


class Lifecycle(RuleBasedStateMachine):
    """Any order of calls, sane or not, keeps the invariants."""

    models = st.sampled_from([f"{symbol}{number}" for symbol in "XY" for number in range(4)])
    symbols = st.sampled_from("XY")

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.base = self.folder / "registry"
        init_registry(self.base)
        self.template = sealed_template(self.folder / "template")
        self.rolled_back_from: set[str] = set()
        self.evaluations = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(model=models)
    def register(self, model: str) -> None:
        if not (self.base / model).exists():
            register_copy(self.template, self.base, model, symbol=model[0])

    @rule(model=models, force=st.booleans())
    def promote(self, model: str, force: bool) -> None:
        was = self.status(model)
        try:
            registry_at(self.base).promote([Promotion(model)], force=force, reason="test")
        except CallerError:
            assert was is None or (not force and (was == "archived" or model in self.rolled_back_from))
        else:
            assert force or was != "archived"
            assert production(self.base, Key(model[0], "15m")) == model
            self.rolled_back_from.discard(model)

    @rule(symbol=symbols)
    def roll_back(self, symbol: str) -> None:
        key = Key(symbol, "15m")
        before = production(self.base, key)
        try:
            result = registry_at(self.base).rollback([key], reason="test")
        except CallerError:
            assert production(self.base, key) == before
        else:
            assert result.transitions[0].model_id not in self.rolled_back_from
            if before:
                self.rolled_back_from.add(before)

    @rule(model=models)
    def archive(self, model: str) -> None:
        try:
            registry_at(self.base).archive([model], reason="test", allow_unserved=True)
        except CallerError:
            assert self.status(model) is None

    @rule(model=models, good=st.booleans())
    def evaluate(self, model: str, good: bool) -> None:
        state = open_store(self.base).view().state
        key, was = Key(model[0], "15m"), self.status(model)
        champion = state.production(key)
        found = Evidence(
            challenger=Measured(
                model, state.digests.get(model, ""), BEFORE, 0.1, 1.0, 0.1, 40, moments=MOMENTS
            ),
            champion=Measured(champion, state.digests[champion], BEFORE, 0.1, 1.0, 0.1, 40, moments=MOMENTS)
            if champion
            else None,
            evaluated_at=datetime.now(UTC).isoformat(),
            window_start="2026-02-01T00:00:00+00:00",
            window_end="2026-03-01T00:00:00+00:00",
            bars=2000,
            probability_better=0.99 if good else 0.1,
            resamples=POLICY.resamples,
            seed=POLICY.seed,
        )
        try:
            decision = registry_at(self.base, policy=POLICY).record_evaluation(*recorded(found))
        except CallerError:
            assert was in (None, "production")
            return
        self.evaluations += 1
        passes = (good or champion is None) and model not in self.rolled_back_from
        assert decision.allowed == passes
        assert self.status(model) == ("candidate" if passes else was)
        # what has passed against this champion may follow it at once
        if passes:
            registry_at(self.base, policy=POLICY).promote([Promotion(model, champion or "")])
            assert production(self.base, key) == model

    @rule(model=models)
    def restore(self, model: str) -> None:
        try:
            registry_at(self.base).make_candidate(model)
        except CallerError:
            assert self.status(model) in (None, "production") or model in self.rolled_back_from

    @rule(model=models, status=st.sampled_from(["archived", "production", "success"]))
    def edit_by_hand(self, model: str, status: str) -> None:
        path = self.base / "registry_index.csv"
        if self.status(model) is None or not path.exists():
            return
        lines = path.read_text().splitlines()
        changed = [
            line.rsplit(",", 1)[0] + "," + status if line.startswith(f"{model},") else line for line in lines
        ]
        path.write_text("\n".join(changed) + "\n")
        # a hand that puts a model back into production takes it out of quarantine
        if status == "production":
            self.rolled_back_from.discard(model)

    def status(self, model: str) -> str | None:
        entry = open_store(self.base).view().state.entries.get(model)
        return entry.status if entry else None

    @invariant()
    def a_fresh_reader_sees_the_same_and_the_chain_is_whole(self) -> None:
        if not (self.base / "registry_events.jsonl").exists():
            return
        state = FolderStore(self.base).view().state
        mine = open_store(self.base).view().state
        assert {m: e.to_row() for m, e in state.entries.items()} == {
            m: e.to_row() for m, e in mine.entries.items()
        }
        for name in ("history", "quarantined", "digests", "evidence", "looks", "put_in_production"):
            assert getattr(state, name) == getattr(mine, name), name
        assert sum(len(looks) for looks in state.looks.values()) == self.evaluations
        for model in state.evidence:
            assert state.entries[model].status != "archived" or model in self.rolled_back_from
        for key, model in state.productions().items():
            assert state.entries[model].status == "production"
            assert model not in state.rollback_targets(key)
        report = verify_log(self.base)
        assert report.ok or all("edited outside" in problem for problem in report.problems)


Lifecycle.TestCase.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLifecycle = Lifecycle.TestCase
