"""`signalserve retrain`: train again what the policies of the configuration say, once or on their schedule."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from signalserve.cli.alone import run_alone
from signalserve.cli.exits import FAILED, INTERRUPTED, USAGE, say_error
from signalserve.cli.figures import figure
from signalserve.cli.options import ConfigOption, JsonOption, time_option
from signalserve.cli.output import console, notes, plain, print_json, print_table
from signalserve.config.logs import configure_logs
from signalserve.config.settings import Settings, load_settings

if TYPE_CHECKING:
    from signalserve.config.evidence import RetrainPolicy
    from signalserve.training.backends import Inbox
    from signalserve.training.plan import Plan
    from signalserve.training.retrain_job import JobResult

_EXAMPLE = """retrain:
  policies:
    - name: weekly
      symbols: ["*USDT"]          # names, or patterns over the bar files of data.ohlcv_path
      timeframes: [15m]
      schedule: "0 3 * * 1"       # cron, UTC
      lookback_days: 180
      auto_promote: false"""


def retrain(
    once: Annotated[bool, typer.Option("--once", help="Run every policy now and end.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be run; train nothing.")
    ] = False,
    refit: Annotated[
        bool | None,
        typer.Option("--refit/--no-refit", help="Fit each on all bars, too; default as each policy says."),
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", "-p", help="Only this policy; may be given again.")
    ] = None,
    symbols: Annotated[
        list[str] | None,
        typer.Option(
            "--symbols", "--symbol", help="Names or patterns, with commas between; may be given again."
        ),
    ] = None,
    timeframes: Annotated[
        list[str] | None,
        typer.Option("--timeframes", "--timeframe", help="As for --symbols: 15m, or 15m,1h."),
    ] = None,
    lookback_days: Annotated[float | None, typer.Option(help="Use the last days of the files only.")] = None,
    train_start: Annotated[datetime | None, time_option("First bar to train on (UTC).")] = None,
    train_end: Annotated[datetime | None, time_option("Last bar that the fit may read (UTC).")] = None,
    test_start: Annotated[datetime | None, time_option("First bar to test on (UTC).")] = None,
    test_end: Annotated[datetime | None, time_option("Last bar to test on (UTC).")] = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Train, evaluate and report on every model of the policies; promote through the gate where they say so.

    Promotes come once all of a policy are measured: of many models some pass by luck, so the more there are, the more
    each must show.

    Without --once it runs until Ctrl-C or SIGTERM, and starts each policy at its slots; of slots that were
    missed the newest is caught up. Each result is a line of runs.jsonl in retrain.output_dir. A promote that
    the gate refuses is no failure. With --json each result is a JSON object a line. Exit code 1: a job failed, or
    another retrain is at work; 7: there is no registry (`signalserve registry init` makes one); 130: interrupted.

    Symbols, timeframes, --lookback-days and spans go before the policies' own, and --symbols needs no policy. A run
    with any of them is no run of the policy's slot, and its policy is listed under a name of its own.

    A TIME is ISO 8601, and UTC unless it names a zone: 2024-06-30 (which is its midnight), 2024-06-30T12:00,
    "2024-06-30 12:00:00+00:00", 2024-06-30T12:00Z.
    """
    settings = load_settings(config)
    from signalserve.training.errors import TrainingRequestError
    from signalserve.training.override import Override

    given = Override(
        symbols=_listed(symbols),
        timeframes=_listed(timeframes),
        lookback_days=lookback_days,
        train_start=train_start,
        train_end=train_end,
        test_start=test_start,
        test_end=test_end,
    )
    if not given.symbols and not settings.retrain.policies:
        say_error("no policy is configured; a policy looks like this, in config/system.yml:")
        notes.print(_EXAMPLE, soft_wrap=True, markup=False)
        raise typer.Exit(USAGE)
    # the table says what the registry's log lines would
    quieter = settings.logging.model_copy(update={"level": "warning"})
    settings = settings.model_copy(update={"logging": quieter})
    configure_logs(quieter)
    # these take seconds to import, and other commands don't need them
    from signalserve.training.backends import BackendError, Inbox
    from signalserve.training.retrain import Retrain, RetrainBusyError, choose_policies
    from signalserve.training.retrain_job import registry_of

    try:
        policies = given.apply(choose_policies(settings, policy or ()))
    except TrainingRequestError as error:
        say_error(str(error))
        raise typer.Exit(USAGE) from None
    if refit is not None:
        policies = [item.model_copy(update={"refit": refit}) for item in policies]
    registry_of(settings).store.check()  # a slip of the pen in ml.models_dir makes no new registry
    if dry_run:
        _show_plan(settings, policies, once=once, json_output=json_output)
        return
    inbox = Inbox()
    with _ending_at_signals(inbox) as received, _Watch(json_output=json_output, many=not once) as watch:
        run = Retrain(
            settings,
            policies,
            inbox,
            on_plan=watch.plan,
            on_measured=watch.measured,
            on_result=watch.result,
            on_batch=watch.batch,
            via="cli",
        )
        try:
            if once:
                results = run.once()
            else:
                watch.say(f"waiting for the slots of {', '.join(item.name for item in policies)}")
                results = run.forever()
        except (BackendError, RetrainBusyError) as error:
            say_error(str(error))
            raise typer.Exit(FAILED) from None
    raise typer.Exit(_exit_code(results, received, once=once))


def _listed(texts: list[str] | None) -> tuple[str, ...]:
    parts = (part.strip() for text in texts or () for part in text.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def main() -> None:
    """Run the command on its own, as `scripts/run_ml_retrain_schedule.py` does."""
    run_alone(retrain)


def _exit_code(results: list[JobResult], received: list[int], *, once: bool) -> int:
    if received and (once or received[0] == signal.SIGINT):
        return INTERRUPTED
    if once and not results:
        say_error("no job: no bar file matches, so nothing was trained")
        return FAILED
    return FAILED if once and any(result.status == "failed" for result in results) else 0


@contextmanager
def _ending_at_signals(inbox: Inbox) -> Iterator[list[int]]:
    """SIGINT and SIGTERM stop the inbox for the length of the block; gives those that came."""
    received: list[int] = []

    def stop(number: int, frame: Any) -> None:
        del frame
        received.append(number)
        inbox.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Watch:
    """Shows batches: a bar on a terminal, a table at each end; with `json_output` an object a line."""

    def __init__(self, *, json_output: bool, many: bool) -> None:
        self._json, self._many = json_output, many
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[last]}"),
        )
        self._progress = Progress(*columns, console=notes, disable=not notes.is_terminal, transient=True)
        self._task: TaskID | None = None
        self._counted: set[str] = set()

    def __enter__(self) -> _Watch:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """A line for a person who waits."""
        notes.print(text, soft_wrap=True, markup=False)

    def plan(self, plan: Plan) -> None:
        """A batch starts."""
        for warning in plan.warnings:
            notes.print(f"note: {warning}", style="yellow", soft_wrap=True, markup=False)
        self._task = self._progress.add_task("retraining", total=len(plan.jobs), last="")

    def measured(self, result: JobResult) -> None:
        """A job is at its promote, which comes after the last one's measuring."""
        self._count(result)

    def result(self, result: JobResult) -> None:
        """A job ended."""
        if self._json:
            print(json.dumps(result.to_dict(), default=plain, ensure_ascii=False), flush=True)
        self._count(result)

    def _count(self, result: JobResult) -> None:
        if self._task is None:
            return
        last = f"{result.symbol}/{result.timeframe} {result.status}"
        self._progress.update(self._task, advance=int(result.request_id not in self._counted), last=last)
        self._counted.add(result.request_id)

    def batch(self, results: list[JobResult]) -> None:
        """A batch ended."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
            self._counted.clear()
        if results and not self._json:
            _summary(results)


def _summary(results: list[JobResult]) -> None:
    print_table(
        ("policy", "key", "status", "cum_return", "sharpe", "seconds", "model_id"),
        [
            (
                item.policy,
                f"{item.symbol}/{item.timeframe}",
                str(item.status),
                figure(item.metrics, "cum_return", "{:+.2%}"),
                figure(item.metrics, "sharpe", "{:.2f}"),
                f"{item.seconds:.1f}",
                item.model_id,
            )
            for item in results
        ],
    )
    for item in results:
        what = [
            ("report", item.report),
            *((("error", item.error),) if not item.failed_verdicts else ()),
            *(("verdict", verdict) for verdict in item.failed_verdicts),
        ]
        for name, text in what:
            if text:
                console.print(f"{item.symbol}/{item.timeframe} {name}: {text}", soft_wrap=True, markup=False)


def _show_plan(settings: Settings, policies: list[RetrainPolicy], *, once: bool, json_output: bool) -> None:
    from signalserve.training.preview import preview

    rows, warnings = preview(settings, policies, once=once)
    if json_output:
        print_json({"jobs": rows, "warnings": warnings})
        return
    for warning in warnings:
        notes.print(f"note: {warning}", style="yellow", soft_wrap=True, markup=False)
    print_table(
        ("policy", "key", "runs", "next due", "bars", "model type", "trains on", "promotes"),
        [
            (
                row.policy,
                row.key,
                "now" if row.now else "at its slot",
                row.next_due,
                row.bars,
                row.model_type,
                row.span,
                row.auto_promote,
            )
            for row in rows
        ],
    )
    for row in rows:
        if row.problem:
            notes.print(
                f"{row.policy} {row.key} would fail: {row.problem}",
                style="yellow",
                soft_wrap=True,
                markup=False,
            )
