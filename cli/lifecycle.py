"""`signalserve models | promote | rollback | archive | events | status`: ops, through a server."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from signalserve.cli.connection import Connection, reaches_server
from signalserve.cli.exits import FAILED, USAGE, say_error
from signalserve.cli.options import JsonOption, ReasonOption
from signalserve.cli.output import console, print_json, print_table, remark

if TYPE_CHECKING:
    from signalserve.client import AuditEvent, ModelDetails, ModelInfo, ModelList, PromoteResult, ServedModel

SymbolFilter = Annotated[str | None, typer.Option("--symbol", "-s", help="Only this symbol.")]
TimeframeFilter = Annotated[str | None, typer.Option("--timeframe", help="Only this timeframe.")]


@reaches_server
def models(
    connection: Connection,
    model_id: Annotated[str | None, typer.Argument(help="Show this one whole.")] = None,
    symbol: SymbolFilter = None,
    timeframe: TimeframeFilter = None,
    model_type: Annotated[str | None, typer.Option("--model-type", help="Only this type.")] = None,
    state: Annotated[
        list[str] | None, typer.Option("--status", help="Only this status; may be repeated.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """List the registry's models, or show one."""
    with connection.open() as client:
        if model_id is not None:
            details = client.get_model(model_id)
            if json_output:
                print_json(details)
            else:
                _show_model(details)
            return
        try:
            found = client.list_models(symbol, timeframe, model_type, state or ())
        except ValueError as error:
            say_error(str(error))
            raise typer.Exit(USAGE) from None
    if json_output:
        print_json({"models": list(found), "unreadable_rows": found.unreadable_rows})
        return
    if found:
        _list(found)
    elif asked := _asked(
        symbol=symbol, timeframe=timeframe, model_type=model_type, status=", ".join(state or ())
    ):
        remark(f"no model of {asked};", "`signalserve models` lists all")
    else:
        remark("no models;", "`signalserve train` makes one")
    for row in found.unreadable_rows:
        remark(f"registry_index.csv, {row}", "(kept, skipped)")


def _list(found: ModelList) -> None:
    print_table(
        ("model_id", "key", "type", "status", "loaded", "engine", "cum_return", "sharpe", "created_at"),
        [
            (
                item.model_id,
                f"{item.symbol}/{item.timeframe}",
                item.model_type,
                _status(item),
                item.served,
                item.engine,
                item.cum_return,
                item.sharpe,
                item.created_at,
            )
            for item in found
        ],
    )
    _say_bases(found)
    for item in found:
        for problem in item.problems:
            remark(f"{item.model_id}:", problem)


def _status(item: ModelInfo) -> str:
    remarks = [*(["by hand, without evidence"] * item.by_hand), *(["quarantined"] * item.quarantined)]
    remarks += [f"refitted, on the evidence of {item.refit_of}"] * bool(item.refit_of)
    return item.status + (f" ({', '.join(remarks)})" if remarks else "")


def _say_bases(found: Sequence[ModelInfo] | Sequence[ServedModel]) -> None:
    """What each was let in on, a line each: a text of this length stands in no column."""
    for item in found:
        if item.basis is not None:
            console.print(f"{item.model_id}: {item.basis.text}", soft_wrap=True, markup=False)


def _asked(**filters: str | None) -> str:
    """The filters that were given, as a person reads them; "" for none."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in filters.items() if value)


def _show_model(details: ModelDetails) -> None:
    model = details.model
    facts = [
        ("model_id", model.model_id),
        ("key", f"{model.symbol}/{model.timeframe}"),
        ("type", model.model_type),
        ("status", model.status),
        ("quarantined", model.quarantined),
        ("by hand, without evidence", model.by_hand),
        ("basis", model.basis.text if model.basis else None),
        *((("refitted, on the evidence of", model.refit_of),) if model.refit_of else ()),
        ("loaded", model.served),
        ("engine", model.engine),
        ("engine reason", model.engine_reason),
        ("digest", model.digest),
        ("schema hash", details.schema_hash),
        ("features", len(details.feature_names)),
        ("created", model.created_at),
        ("cum_return", model.cum_return),
        ("sharpe", model.sharpe),
    ]
    error = details.metadata.get("error")
    if error:
        facts.append(("error", error))
    print_table(("", ""), facts)
    metrics = details.metadata.get("metrics") or {}
    if metrics:
        print_table(("metric", "value"), sorted(metrics.items()), title="\nmetrics")
    top = sorted(details.importances, key=lambda item: -item[1])[:10]
    if top:
        print_table(("feature", "importance"), top, title="\nten most important features")
    for problem in model.problems:
        remark(problem)


@reaches_server
def promote(
    connection: Connection,
    model_ids: Annotated[list[str], typer.Argument(help="Models, at most one a key: all or none.")],
    expected: Annotated[
        str | None,
        typer.Option(
            "--expected",
            help="Only if this model is in production now ('' for none); with one model.",
            show_default=False,
        ),
    ] = None,
    reason: ReasonOption = "",
    force: Annotated[bool, typer.Option("--force", help="Go past the gate; needs --reason.")] = False,
    request_id: Annotated[str | None, typer.Option(help="A repeat with the same id changes nothing.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Put models into production and wait until the server serves them."""
    from signalserve.client import Promotion

    if expected is not None and len(model_ids) != 1:
        say_error("--expected goes with one model")
        raise typer.Exit(USAGE)
    with connection.open() as client:
        result = client.promote(
            [Promotion(model_id, expected) for model_id in model_ids],
            reason=reason,
            force=force,
            request_id=request_id,
        )
    _show_result(result, "in production", "before", json_output)


@reaches_server
def rollback(
    connection: Connection,
    keys: Annotated[
        list[str], typer.Argument(help="Keys as SYMBOL/TIMEFRAME: all or none.", metavar="KEY...")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept in the audit log.")],
    expected: Annotated[
        str | None,
        typer.Option(
            "--expected", help="Only if this model is in production now; with one key.", show_default=False
        ),
    ] = None,
    request_id: Annotated[str | None, typer.Option(help="A repeat with the same id changes nothing.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Take keys back to the model they had before; the one left behind is quarantined."""
    if expected is not None and len(keys) != 1:
        say_error("--expected goes with one key")
        raise typer.Exit(USAGE)
    for key in keys:
        if not all(key.rpartition("/")):
            say_error(f"{key!r}: a key is written SYMBOL/TIMEFRAME, as in BTCUSDT/15m")
            raise typer.Exit(USAGE)
    with connection.open() as client:
        result = client.rollback(keys, reason, request_id, expected)
    _show_result(result, "in production", "left behind", json_output)


@reaches_server
def archive(
    connection: Connection,
    model_ids: Annotated[list[str], typer.Argument(help="Models: all or none.")],
    reason: ReasonOption = "",
    request_id: Annotated[str | None, typer.Option(help="A repeat with the same id changes nothing.")] = None,
    allow_unserved: Annotated[
        bool, typer.Option("--allow-unserved", help="Leave a key with nothing in production; needs --reason.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Retire models; they stay on disk."""
    with connection.open() as client:
        result = client.archive(model_ids, reason, allow_unserved, request_id)
    archived = {item.model_id for item in result.transitions}
    _show_result(result, "archived", "in production", json_output, but=archived)
    for item in result.transitions:
        if item.model_id == item.previous_model_id and not json_output:
            remark(f"{item.symbol}/{item.timeframe} has nothing in production now; a rollback brings it back")


def _show_result(
    result: PromoteResult, now: str, before: str, json_output: bool, but: Collection[str] = ()
) -> None:
    """The answer as a table; of what was in production before, `but` are those that are no more."""
    if json_output:
        print_json(result)
    else:
        print_table(
            ("key", now, before),
            [
                (
                    f"{item.symbol}/{item.timeframe}",
                    item.model_id,
                    item.previous_model_id if item.previous_model_id not in but else "",
                )
                for item in result.transitions
            ],
        )
        console.print(
            f"registry revision {result.registry_revision}, served revision {result.served_revision}"
        )
        if result.log_head:
            console.print(f"head {result.log_head}")
    for item in result.lagging:
        say_error(f"worker {item.worker} (process {item.process_id}) does not serve it yet: {item.why}")
    if result.served:
        return
    if result.served_revision < result.registry_revision:
        say_error(
            "committed, but the server does not serve it yet; `signalserve status` shows what it could not load"
        )
    else:
        say_error(
            "committed, and served by the worker that answered; those above will follow. The same command with"
            f" --request-id {result.request_id} changes nothing and waits for them again; `signalserve status` is one"
            " worker's view, and says whose"
        )
    raise typer.Exit(FAILED)


@reaches_server
def events(
    connection: Connection,
    symbol: SymbolFilter = None,
    timeframe: TimeframeFilter = None,
    model_id: Annotated[str | None, typer.Option(help="Only events of this model.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")] = 20,
    json_output: JsonOption = False,
) -> None:
    """Show who changed what, newest first."""
    with connection.open() as client:
        found = list(client.events(symbol, timeframe, model_id, limit=limit))
    if json_output:
        print_json(found)
        return
    if not found:
        asked = _asked(symbol=symbol, timeframe=timeframe, model_id=model_id)
        remark(
            f"no event of {asked};" if asked else "no events yet;", "`signalserve events` lists the newest"
        )
        return
    print_table(
        ("revision", "time", "action", "what", "actor", "via", "forced", "reason"),
        [
            (
                item.revision,
                item.time,
                item.action,
                _changes(item),
                item.actor,
                item.via,
                item.forced,
                item.reason,
            )
            for item in found
        ],
    )


def _changes(event: AuditEvent) -> str:
    bases = _bases(event)
    texts = [
        (
            f"{change.model_id}: stays {change.to_status}"
            if change.from_status == change.to_status
            else f"{change.model_id}: {change.from_status or 'new'} > {change.to_status or 'deleted'}"
        )
        + (f" ({bases[change.model_id]})" if change.model_id in bases else "")
        for change in event.changes
    ]
    if event.action == "look":
        seen = event.evidence
        texts = [f"{seen.get('model_id')}: backtest over {seen.get('first')} to {seen.get('last')}"]
    if event.action == "evaluate":
        failed = _failed(event)
        verdict = f"refused by {', '.join(failed)}" if failed else "passed"
        texts = texts or [str(event.evidence.get("challenger", ""))]
        recipe = (event.evidence.get("evidence") or {}).get("recipe_of")
        carried = f", on the evidence of {recipe['model_id']}, whose refit it is" if recipe else ""
        texts[-1] += f" ({verdict}{carried})"
    return "; ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")


def _failed(event: AuditEvent) -> Sequence[str]:
    # logs keep what was written: the name before was failed_rules
    found: Sequence[str] = event.evidence.get("failed_verdicts", event.evidence.get("failed_rules", ()))
    return found


def _bases(event: AuditEvent) -> dict[str, str]:
    """What each model was let in on that the event let in, in words."""
    let_in = {change.model_id for change in event.changes if change.to_status in ("candidate", "production")}
    if not (let_in and event.evidence):
        return {}
    # the registry's own words; its import takes a while, which a log without decisions need not wait for
    from signalserve.registry.basis import bases_of

    found = bases_of(event.evidence, forced=event.forced)
    return {model_id: basis.text for model_id, basis in found.items() if model_id in let_in}


@reaches_server
def status(
    connection: Connection,
    json_output: JsonOption = False,
) -> None:
    """Show what the server serves and what it could not load; of several workers, the one that answers."""
    with connection.open() as client:
        found = client.status()
    if json_output:
        print_json(found)
    else:
        ready = "draining" if found.draining else "ready" if found.ready else "NOT READY"
        console.print(
            f"{ready}, registry revision {found.registry_revision}, signalserve {found.version}, "
            f"worker {found.worker} of this port, process {found.process_id}, "
            f"up since {found.start_time:%Y-%m-%d %H:%M:%S}Z"
            if found.start_time
            else ready,
            soft_wrap=True,
        )
        print_table(
            ("key", "model_id", "engine", "digest", "pinned"),
            [
                (
                    f"{item.symbol}/{item.timeframe}",
                    item.model_id,
                    item.engine,
                    item.model_digest[:12],
                    item.pinned,
                )
                for item in found.models
            ],
        )
        _say_bases(found.models)
        for item in found.models:
            if item.stale:
                remark(
                    "stale:",
                    f"{item.model_id} is older than ml.max_model_age since "
                    f"{item.stale_time:%Y-%m-%d %H:%M}Z; train and promote a newer one",
                )
            if item.engine_reason:
                remark("native:", f"{item.model_id} is served natively: {item.engine_reason}")
            if item.wanted_model_id:
                remark(
                    "not current:",
                    f"{item.model_id} answers where {item.wanted_model_id} could not be loaded",
                )
        for loading in found.loading:
            remark("loading:", f"{loading.symbol}/{loading.timeframe} {loading.model_id}")
        if found.registry_error:
            say_error(f"the registry can't be followed, what is served goes on: {found.registry_error}")
        for warning in found.warnings:
            remark("warning:", warning)
        for failure in found.load_errors:
            say_error(f"{failure.symbol}/{failure.timeframe} {failure.model_id}: {failure.message}")
    if not found.ready:
        raise typer.Exit(FAILED)
