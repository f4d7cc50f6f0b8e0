"""A retrain from policies to registered, evaluated, reported models; what stops one job stops no other."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from signalserve.common.key import Key
from signalserve.config.settings import ConfigError, Settings
from signalserve.features.synthetic import synthetic_bars
from signalserve.registry import init_registry, list_models, load_registry, verify_log
from signalserve.registry.errors import RegistryMissingError
from signalserve.registry.folder_store import open_store
from signalserve.training import backtest as backtest_module
from signalserve.training.backends import Inbox, Outcome
from signalserve.training.plan import Plan
from signalserve.training.preview import preview
from signalserve.training.retrain import Retrain, RetrainBusyError, choose_policies, exclusive
from signalserve.training.retrain_job import JobResult, JobStatus, run_job
from tests.registries import registry_at

SLOT = datetime(2024, 5, 20, 3, tzinfo=UTC)
PASSES = {
    "min_sharpe": -1e6,
    "min_deflated_sharpe": 0.0,
    "min_walk_forward": None,
    "min_probability": 0.0,
    "min_trades": 0,
    "max_drawdown": 1.0,
    "min_bars": 2,
    "max_data_age": None,
}


@pytest.fixture(autouse=True)
def _gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNALSERVE__PROMOTION__GATE", "evidence")


class Here:
    """Runs jobs in this process: what a job does is the same everywhere."""

    def run(self, jobs: Sequence[Any], work: Callable[[Any], Any], inbox: Inbox) -> Iterator[Any]:
        for job in jobs:
            yield job, Outcome(interrupted=True) if inbox.stopped else Outcome(work(job))


@dataclass
class World:
    """A folder with bar files, a registry and an output folder."""

    folder: Path
    settings: Settings
    plans: list[Plan] = field(default_factory=list)

    @property
    def base(self) -> Path:
        return self.settings.ml.models_dir

    @property
    def output(self) -> Path:
        return self.settings.retrain.output_dir

    def retrain(self, inbox: Inbox | None = None, now: datetime = SLOT, **more: Any) -> Retrain:
        return Retrain(
            self.settings,
            self.settings.retrain.policies,
            inbox or Inbox(),
            on_plan=self.plans.append,
            clock=lambda: now,
            **{"backend": Here(), **more},
        )

    def lines(self) -> list[dict[str, Any]]:
        text = (self.output / "runs.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def events(self) -> list[str]:
        text = (self.base / "registry_events.jsonl").read_text(encoding="utf-8")
        return [json.loads(line)["action"] for line in text.splitlines()]

    def leftovers(self) -> list[Path]:
        known = {entry.model_id for entry in load_registry(self.base)}
        unregistered = [path for path in self.base.iterdir() if path.is_dir() and path.name not in known]
        return unregistered + list((self.output / "running").glob("*"))


def sections(folder: Path, policies: list[dict[str, Any]], **promotion: Any) -> dict[str, Any]:
    return {
        "data": {"ohlcv_path": f"{folder}/bars/{{symbol}}_{{timeframe}}.csv"},
        "ml": {
            "models_dir": str(folder / "models"),
            "model_type": "logreg",
            "label": {"up_threshold": 0.001, "down_threshold": -0.001},
            "walk_forward": {"folds": 2},
        },
        "backtest": {"output_dir": str(folder / "backtests")},
        "promotion": {**PASSES, **promotion},
        "retrain": {"output_dir": str(folder / "retrain"), "policies": policies},
        "logging": {"level": "warning"},
    }


def write_bars(folder: Path, symbol: str, seed: int = 3) -> None:
    (folder / "bars").mkdir(exist_ok=True)
    synthetic_bars(symbol, 1500, seed=seed).to_csv(folder / "bars" / f"{symbol}_15m.csv")


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., World]:
    def build(symbols: list[str], policy: dict[str, Any], **promotion: Any) -> World:
        for symbol in symbols:
            write_bars(tmp_path, symbol)
        init_registry(tmp_path / "models")
        policies = [{"name": "weekly", "symbols": ["*"], **policy}]
        return World(tmp_path, Settings(**sections(tmp_path, policies, **promotion)))

    return build


def by_symbol(results: list[JobResult]) -> dict[str, JobResult]:
    return {result.symbol: result for result in results}


def test_each_symbol_is_trained_evaluated_and_reported_and_a_failure_stops_no_other(
    world: Callable[..., World],
) -> None:
    some = world(["AAA", "BBB"], {"symbols": ["*", "ABSENT", "BROKEN"]})
    (some.folder / "bars" / "BROKEN_15m.csv").write_text("timestamp,open\n", encoding="utf-8")
    shown: list[JobResult] = []
    results = some.retrain(on_result=shown.append, backend=None).once()
    assert shown == results
    found = by_symbol(results)
    assert set(found) == {"AAA", "BBB", "BROKEN", "ABSENT"}
    for symbol in ("AAA", "BBB"):
        result = found[symbol]
        assert result.status == JobStatus.CANDIDATE, result
        assert (Path(result.report or "") / "metrics.json").is_file()
        assert isinstance(result.metrics["sharpe"], float)
        assert result.failed_verdicts == ()
    for symbol, text in (("ABSENT", "no such file"), ("BROKEN", "column")):
        assert found[symbol].status == JobStatus.FAILED
        assert text in (found[symbol].error or "")
    entries = {entry.model_id: entry for entry in load_registry(some.base)}
    assert {entries[result.model_id or ""].status for result in results} == {"candidate", "failed"}
    assert [line["request_id"] for line in some.lines()] == [result.request_id for result in results]
    assert some.lines()[0] == json.loads(json.dumps(results[0].to_dict()))
    assert verify_log(some.base).ok
    assert some.leftovers() == []


def test_a_job_that_is_run_again_takes_over_what_it_did_before(world: Callable[..., World]) -> None:
    some = world(["AAA"], {"symbols": ["AAA", "ABSENT"]})
    first = by_symbol(some.retrain().once())
    before = some.events()
    again = by_symbol(some.retrain().once())
    assert {symbol: result.model_id for symbol, result in first.items()} == {
        symbol: result.model_id for symbol, result in again.items()
    }
    assert again["AAA"].status == first["AAA"].status
    assert again["ABSENT"].status == JobStatus.FAILED
    assert "no such file" in (again["ABSENT"].error or "")
    assert some.events() == before, "nothing is registered or evaluated twice"
    assert "look" not in before, "the evaluation has counted the look of the report"


def test_auto_promote_goes_through_the_gate_and_a_refusal_names_the_numbers(
    world: Callable[..., World],
) -> None:
    some = world(["AAA"], {"auto_promote": True})
    [result] = some.retrain().once()
    assert result.status == JobStatus.PROMOTED
    assert open_store(some.base).view().state.production(Key("AAA", "15m")) == result.model_id
    # the next one must beat it, and an equal model does not
    some.settings = Settings(
        **sections(some.folder, [some.settings.retrain.policies[0]], min_probability=0.9)
    )
    [later] = some.retrain(now=datetime(2024, 5, 27, 3, tzinfo=UTC)).once()
    assert later.status == JobStatus.REFUSED
    assert later.model_id != result.model_id
    assert any(rule.startswith("better: ") and "0.9" in rule for rule in later.failed_verdicts)
    assert open_store(some.base).view().state.production(Key("AAA", "15m")) == result.model_id


def test_a_promote_keeps_its_policys_name_and_is_asked_once(world: Callable[..., World]) -> None:
    some = world(["AAA"], {"auto_promote": True})
    some.retrain().once()
    [again] = some.retrain().once()
    assert again.status == JobStatus.PROMOTED
    assert some.events().count("promote") == 1
    log = (some.base / "registry_events.jsonl").read_text(encoding="utf-8").splitlines()
    [event] = [event for event in map(json.loads, log) if event["action"] == "promote"]
    assert event["reason"] == "retrain policy weekly"


@dataclass
class Ending:
    """Runs a batch's jobs and comes to no promote: it is stopped behind the first job, or crashes behind the last."""

    crashes: bool
    measured: bool = False

    def run(self, jobs: Sequence[Any], work: Callable[[Any], Any], inbox: Inbox) -> Iterator[Any]:
        if self.measured:
            raise KeyboardInterrupt
        for item in Here().run(jobs, work, inbox):
            yield item
            if not self.crashes:
                inbox.stop()
        self.measured = True


def test_a_batch_lets_in_fewer_than_would_pass_alone_and_goes_on_where_it_ended(
    world: Callable[..., World],
) -> None:
    some = world([], {})
    for symbol, seed in (("S9", 9), ("S1", 1), ("S6", 6)):
        write_bars(some.folder, symbol, seed)
    measured = by_symbol(some.retrain().once())
    state = open_store(some.base).view().state
    found = {symbol: state.evidence[str(result.model_id)] for symbol, result in measured.items()}
    chances = {
        symbol: state.tries(Key(symbol, "15m"), record["window_start"], record["window_end"])
        * (1.0 - record["challenger"]["timing"])
        for symbol, record in found.items()
    }
    # the level lets S1 in alone, and not as the second of three
    level = 1.1 * chances["S1"]
    assert chances["S9"] < level / 3
    assert 2 * level / 3 < chances["S1"] < level < chances["S6"]
    policy = {"name": "weekly", "symbols": ["*"], "auto_promote": True}
    some.settings = Settings(**sections(some.folder, [policy], min_probability=1.0 - level))

    stopped = some.retrain(backend=Ending(crashes=False)).once()
    assert {result.status for result in stopped} == {JobStatus.INTERRUPTED}
    waited: list[JobResult] = []
    with pytest.raises(KeyboardInterrupt):
        some.retrain(backend=Ending(crashes=True), on_measured=waited.append).once()
    assert len(waited) == 3
    assert "promote" not in some.events()

    results = by_symbol(some.retrain().once())
    assert {symbol: str(result.status) for symbol, result in results.items()} == {
        "S9": "promoted",
        "S1": "refused",
        "S6": "refused",
    }
    assert f"p {chances['S1']:.4g}, rank 2 of the 3" in str(results["S1"].error)
    assert f"bound {2 * level / 3:.4g}" in str(results["S1"].error)
    assert results["S1"].failed_verdicts == ()
    assert any(text.startswith("timing: ") for text in results["S6"].failed_verdicts)
    assert {line["symbol"]: line["status"] for line in some.lines()[-3:]} == {
        symbol: str(result.status) for symbol, result in results.items()
    }
    statuses = {entry.symbol: entry.status for entry in load_registry(some.base)}
    assert statuses == {"S9": "production", "S1": "candidate", "S6": "candidate"}
    assert sorted(some.events()) == ["evaluate"] * 3 + ["promote"] + ["register"] * 3


@pytest.mark.parametrize("accept_kinds", [["artefact"], ["artefact", "recipe"]])
def test_a_refit_is_promoted_where_recipes_are_accepted_also_by_a_job_that_goes_on_from_its_evaluation(
    world: Callable[..., World], accept_kinds: list[str]
) -> None:
    some = world(["AAA"], {})
    [measured] = some.retrain().once()
    policy = {"name": "weekly", "symbols": ["*"], "refit": True, "auto_promote": True}
    some.settings = Settings(**sections(some.folder, [policy], accept_kinds=accept_kinds))
    [result] = some.retrain().once()
    state = open_store(some.base).view().state
    [(refitted, of)] = state.refits.items()
    assert of == measured.model_id
    wanted = (refitted, of) if "recipe" in accept_kinds else (of, None)
    assert (result.status, result.model_id, result.measured) == (JobStatus.PROMOTED, *wanted)
    assert state.production(Key("AAA", "15m")) == result.model_id
    record = state.evidence[refitted]
    assert (record["kind"], record["measured_by"]) == ("recipe", "trainer")
    assert state.tries(Key("AAA", "15m"), record["window_start"], record["window_end"]) == 1
    assert some.events() == ["register", "evaluate", "register", "evaluate", "promote"]
    assert some.lines()[-1]["measured"] == wanted[1]
    if result.measured is not None:
        registry_at(some.base).archive([refitted], reason="bad night", allow_unserved=True)
        [again] = some.retrain().once()
        assert (again.status, again.model_id) == (JobStatus.TRAINED, refitted)
        assert again.error == f"{refitted} was registered by an earlier attempt, and archived since"


def test_without_auto_promote_a_model_that_the_gate_would_refuse_is_only_trained(
    world: Callable[..., World],
) -> None:
    [result] = world(["AAA"], {}, min_sharpe=1e6).retrain().once()
    assert result.status == JobStatus.TRAINED
    assert any(rule.startswith("sharpe: ") and "1e+06" in rule for rule in result.failed_verdicts)


def test_a_policys_choices_reach_its_training(world: Callable[..., World]) -> None:
    some = world(["AAA"], {"lookback_days": 12, "model_type": "rf", "preset": "extended"})
    some.settings.ml.models["rf"].update({"n_estimators": 5})
    [result] = some.retrain().once()
    [entry] = list_models(some.base)
    meta = json.loads((some.base / entry.model_id / "meta.json").read_text(encoding="utf-8"))
    assert result.model_id == entry.model_id
    assert (entry.model_type, meta["feature_preset"]) == ("rf", "extended")
    assert meta["train_start"] > "2024-01-04", "1,500 bars are 15.6 days, of which the last 12 count"


class Sleepless(Inbox):
    """Stops instead of sleeping, and keeps how long it would have slept."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.stop()


def test_missed_slots_are_caught_up_once_and_then_it_sleeps(world: Callable[..., World]) -> None:
    some = world(["AAA"], {"schedule": "0 3 * * 1"})
    first = Sleepless()
    some.retrain(first, now=datetime(2024, 1, 3, tzinfo=UTC)).forever()
    assert some.plans == [], "a policy that is new has missed nothing"
    assert first.slept == [60.0]
    back = datetime(2024, 3, 6, 8, 0, tzinfo=UTC)
    for _ in range(2):
        some.retrain(Sleepless(), now=back).forever()
    [plan] = some.plans
    assert [job.slot for job in plan.jobs] == [datetime(2024, 3, 4, 3, tzinfo=UTC)]
    assert [line["slot"] for line in some.lines()] == ["2024-03-04T03:00:00Z"]


def test_a_second_retrain_of_a_folder_is_turned_away(world: Callable[..., World]) -> None:
    some = world(["AAA"], {})
    with exclusive(some.output), pytest.raises(RetrainBusyError, match="another retrain"):
        some.retrain().once()
    assert [item.name for item in some.base.iterdir()] == ["registry_events.jsonl"]


def test_a_registry_that_is_not_there_is_refused_and_not_made(world: Callable[..., World]) -> None:
    some = world(["AAA"], {})
    shutil.rmtree(some.base)
    for run in (some.retrain().once, some.retrain().forever):
        with pytest.raises(RegistryMissingError, match="has gone"):
            run()
    assert sorted(item.name for item in some.folder.iterdir()) == ["bars"]


def test_a_registry_that_goes_in_mid_run_fails_the_jobs_and_is_not_made_anew(
    world: Callable[..., World],
) -> None:
    some = world(["AAA"], {"symbols": ["AAA", "ABSENT"]})

    class Unmounting(Here):
        def run(self, jobs: Sequence[Any], work: Callable[[Any], Any], inbox: Inbox) -> Iterator[Any]:
            shutil.rmtree(some.base)
            return super().run(jobs, work, inbox)

    results = some.retrain(backend=Unmounting()).once()
    assert [result.status for result in results] == [JobStatus.FAILED, JobStatus.FAILED]
    assert all("has gone from" in (result.error or "") for result in results)
    assert not some.base.exists()


def test_a_policy_that_nobody_configured_is_named(world: Callable[..., World]) -> None:
    some = world([], {})
    assert [policy.name for policy in choose_policies(some.settings, ["weekly"])] == ["weekly"]
    with pytest.raises(ConfigError, match=r"there is no daily; there are weekly"):
        choose_policies(some.settings, ["daily"])


def test_a_worker_that_is_killed_in_mid_training_is_replaced_and_swept_up(
    world: Callable[..., World],
) -> None:
    some = world(["AAA"], {})
    real = some.folder / "bars" / "AAA_15m.csv"
    kept = some.folder / "AAA.csv"
    shutil.move(real, kept)
    os.mkfifo(real)
    killed: list[int] = []
    lost: list[str] = []

    def kill_in_mid_run() -> None:
        held = os.open(real, os.O_WRONLY)  # opens when the job has opened it too
        markers = [json.loads(path.read_text()) for path in (some.output / "running").glob("*.json")]
        [marker] = [marker for marker in markers if marker["key"] == "AAA/15m"]
        pid = marker["pid"]
        [run] = marker["runs"]
        lost.append(f".building-{run['model_id']}")
        (some.base / f"{lost[0]}_2").mkdir()  # another program's
        shutil.copy(kept, some.folder / "aside.csv")
        (some.folder / "aside.csv").replace(real)
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)
        os.close(held)

    watcher = threading.Thread(target=kill_in_mid_run, daemon=True)
    watcher.start()
    results = some.retrain(backend=None).once()
    watcher.join()
    assert killed
    assert [result.status for result in results] == [JobStatus.CANDIDATE]
    assert len(load_registry(some.base)) == 1
    assert some.leftovers() == [some.base / f"{lost[0]}_2"]


@dataclass
class Dying:
    """A backend whose workers die before they can do anything, or after the job is done."""

    late: bool = False

    def run(self, jobs: Sequence[Any], work: Callable[[Any], Any], inbox: Inbox) -> Iterator[Any]:
        del inbox
        for job in jobs:
            if self.late:
                work(job)
            yield job, Outcome(error="its worker died 2 times")


def test_a_job_whose_workers_die_leaves_a_failed_entry(world: Callable[..., World]) -> None:
    some = world(["AAA"], {})
    [result] = some.retrain(backend=Dying()).once()
    assert (result.status, result.error) == (JobStatus.FAILED, "its worker died 2 times")
    [entry] = load_registry(some.base)
    assert (entry.model_id, entry.status) == (result.model_id, "failed")
    assert some.leftovers() == []


def test_a_worker_that_dies_after_it_has_registered_its_model_leaves_no_second_entry(
    world: Callable[..., World],
) -> None:
    some = world(["AAA"], {})
    [result] = some.retrain(backend=Dying(late=True)).once()
    [entry] = load_registry(some.base)
    assert (result.status, result.model_id) == (JobStatus.FAILED, entry.model_id)
    assert entry.status == "candidate"


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ({"model_type": "oracle"}, "oracle"),
        ({"preset": "everything"}, "everything"),
        ({"model_type": "gb", "grid": True}, "there is no grid for gb"),
    ],
)
def test_a_policy_that_asks_for_what_there_is_not_leaves_a_failed_entry_and_says_so_beforehand(
    world: Callable[..., World], policy: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNALSERVE__ML__GRIDS", '{"gb": {}}')
    some = world(["AAA"], policy)
    [row], _ = preview(some.settings, some.settings.retrain.policies, once=True)
    assert text in row.problem
    [result] = some.retrain().once()
    assert text in (result.error or "")
    [entry] = load_registry(some.base)
    assert (entry.model_id, entry.status) == (result.model_id, "failed")


def test_a_policy_with_a_grid_trains_the_best_of_it(world: Callable[..., World]) -> None:
    some = world(["AAA"], {"grid": True})
    [result] = some.retrain().once()
    meta = json.loads((some.base / str(result.model_id) / "meta.json").read_text(encoding="utf-8"))
    assert meta["trials"]["count"] == 3
    assert (some.base / meta["trials"]["file"]).is_file()


def test_a_job_that_is_run_again_after_its_model_was_archived_says_so(world: Callable[..., World]) -> None:
    some = world(["AAA"], {"auto_promote": True})
    [first] = some.retrain().once()
    registry_at(some.base).archive([str(first.model_id)], reason="bad night", allow_unserved=True)
    before = some.events()
    [again] = some.retrain().once()
    assert (again.status, again.model_id) == (JobStatus.TRAINED, first.model_id)
    assert again.error == f"{first.model_id} was registered by an earlier attempt, and archived since"
    assert some.events() == before


def test_a_champion_that_changes_between_evaluation_and_promote_stops_it(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = world(["AAA"], {"auto_promote": True})
    [first] = some.retrain().once()
    real = backtest_module.backtest

    def meddling(*given: Any, **more: Any) -> Any:
        registry_at(some.base).archive([str(first.model_id)], reason="bad night", allow_unserved=True)
        return real(*given, **more)

    monkeypatch.setattr(backtest_module, "backtest", meddling)
    [later] = some.retrain(now=datetime(2024, 5, 27, 3, tzinfo=UTC)).once()
    assert later.status == JobStatus.REFUSED
    assert f"expected {first.model_id} in production, found nothing" in (later.error or "")
    assert open_store(some.base).view().state.production(Key("AAA", "15m")) is None


def test_a_bug_in_a_step_fails_its_job_with_the_steps_name(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = world(["AAA"], {})
    some.retrain(Sleepless()).forever()

    def broken(*given: object, **more: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("signalserve.training.backtest.backtest", broken)
    from signalserve.training.plan import plan_jobs

    [job] = plan_jobs(some.settings, [(some.settings.retrain.policies[0], SLOT)]).jobs
    result = run_job(some.settings, "", "python", job)
    assert result.status == JobStatus.FAILED
    assert result.error == "backtest: ZeroDivisionError: by zero"
    assert result.model_id == list_models(some.base)[0].model_id
