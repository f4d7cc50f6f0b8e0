"""`signalserve evaluate`: a challenger beside its champion, and what the promote gate says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalserve.cli.exits import FAILED, REFUSED, USAGE, say_error
from signalserve.cli.figures import MeasuredSpan, figure, metric_rows, span_rows
from signalserve.cli.options import ConfigOption, JsonOption, RegistryOption, existing_registry, repeated
from signalserve.cli.output import console, print_json, print_table
from signalserve.common.moments import parse_moment
from signalserve.config.logs import configure_logs
from signalserve.config.settings import load_settings

if TYPE_CHECKING:
    from signalserve.judging import Evidence, Folds, Measured
    from signalserve.training.evaluation import Evaluation
    from signalserve.training.recipe import Carried

_COMPARED = (
    ("cum_return", "{:+.2%}"),
    ("sharpe", "{:.2f}"),
    ("max_drawdown", "{:.2%}"),
    ("trades", "{:d}"),
    ("auc", "{:.3f}"),
    ("timing", "{:.3f}"),
    ("rank_ic", "{:.3f}"),
)


def evaluate(
    model_id: Annotated[str, typer.Argument(help="The challenger.")],
    ohlcv: Annotated[Path | None, typer.Option(help="Bar file; default data.ohlcv_path.")] = None,
    registry: RegistryOption = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Compare a model with its key's champion on bars that neither has seen, and keep the evidence.

    A model of status success that passes becomes a candidate. Its refits (`train --refit`) carry the evidence on.
    Exit code 5: it does not pass the promote gate.
    Asking again on the same bars counts as another try and makes the gate stricter.
    """
    settings = load_settings(config)
    # these take seconds to import, and other commands don't need them
    from signalserve.training.errors import TrainingError, TrainingRequestError
    from signalserve.training.evaluation import evaluate as run_evaluation
    from signalserve.training.progress import steps

    configure_logs(settings.logging.model_copy(update={"level": "warning"}))
    try:
        with steps() as report:
            result = run_evaluation(
                settings,
                model_id,
                ohlcv=ohlcv,
                base_dir=existing_registry(settings, registry),
                report=report,
                via="cli",
            )
    except TrainingRequestError as error:
        say_error(str(error))
        raise typer.Exit(USAGE) from error
    except TrainingError as error:
        say_error(str(error))
        raise typer.Exit(FAILED) from error
    if json_output:
        print_json(_as_json(result))
    else:
        _print(result, repeated(config=config))
    if not result.passed:
        raise typer.Exit(REFUSED)


def _as_json(result: Evaluation) -> dict[str, Any]:
    refits = [
        {
            "model_id": item.model_id,
            "passed": item.decision.allowed,
            "status": item.status,
            "failed_verdicts": list(item.failed_verdicts),
        }
        for item in result.refits
    ]
    return {"passed": result.passed, "status": result.status, "refits": refits, **result.record}


def _print(result: Evaluation, again: str) -> None:
    evidence = result.evidence
    champion = evidence.champion
    columns = (_figures(evidence.challenger), _figures(champion))
    rows = [
        *span_rows([_span(evidence), _span(evidence) if champion else None]),
        *metric_rows(_COMPARED, columns),
    ]
    print_table(("out of sample", "challenger", "champion"), rows)
    print_table(
        ("asked", "verdict", "found", "bound"),
        [
            (item.name, "ok" if item.passed else "FAILED", _brief(item.found), _brief(item.bound))
            for item in result.verdicts
        ],
    )
    for name, text in (
        ("challenger", evidence.challenger.model_id),
        ("champion", champion.model_id if champion else "none"),
        (
            "bars of",
            f"{evidence.data['file']}{'' if evidence.data['configured'] else ', which is not data.ohlcv_path'}",
        ),
        *((("warning", result.warning),) if result.warning else ()),
        ("looks", f"{result.tries} at these bars"),
        ("measured", f"by {evidence.measured_by}; the training span is {result.vouched}"),
        *((("folds", _folds_text(evidence.folds)),) if evidence.folds else ()),
        *(("failed", text) for text in result.failed_verdicts),
        *(("refitted", _refit_text(item)) for item in result.refits),
        (
            ("next", f"signalserve promote {evidence.challenger.model_id}{again}")
            if result.passed
            else ("verdict", "the promote gate would refuse it")
        ),
    ):
        console.print(f"{name:<10} {text}", soft_wrap=True, markup=False)


def _refit_text(item: Carried) -> str:
    against = "; ".join(item.failed_verdicts)
    said = f"the promote gate would refuse it: {against}" if against else "the promote gate would let it in"
    return f"{item.model_id} carries this evidence; {said}"


def _folds_text(folds: Folds) -> str:
    if folds.missing:
        return folds.missing
    error = folds.moments and folds.moments.annualised_error(folds.sharpe)
    sharpe = figure({"sharpe": folds.sharpe, "sharpe_se": error}, "sharpe", "{:.2f}")
    return (
        f"{folds.window_start} to {folds.window_end}, {folds.bars:,} bars: return {folds.cum_return:+.2%}, "
        f"Sharpe {sharpe}, the best of {folds.trials} parameter set(s)"
    )


def _figures(measured: Measured | None) -> dict[str, Any]:
    """What was measured, by the names of the metrics."""
    if measured is None:
        return {}
    values = {name: value for name, _ in _COMPARED if (value := getattr(measured, name)) is not None}
    moments = measured.moments
    return {**values, "sharpe_se": moments and moments.annualised_error(measured.sharpe)}


def _span(evidence: Evidence) -> MeasuredSpan:
    first, last = map(parse_moment, (evidence.window_start, evidence.window_end))
    return MeasuredSpan(first, last, evidence.bars, f"{round(evidence.bar_minutes * 60)}s")


def _brief(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items()) or "as they were"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
