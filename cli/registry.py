"""`signalserve registry ...`: what looks after the registry's folder, without a server."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from signalserve.cli.alone import run_alone
from signalserve.cli.exits import FAILED, USAGE, say_error
from signalserve.cli.options import (
    ConfigOption,
    JsonOption,
    ReasonOption,
    RegistryOption,
    existing_registry,
    refuse_file,
)
from signalserve.cli.output import cell, console, print_json, print_table, remark
from signalserve.common.key import Key
from signalserve.config.fields import Duration
from signalserve.config.settings import load_settings
from signalserve.registry import (
    AcceptancePlan,
    CleanPlan,
    Description,
    ModelRegistryEntry,
    Registry,
    Selection,
    Status,
    init_registry,
    open_registry,
    signer_of,
)
from signalserve.registry import verify_log as check_log
from signalserve.registry.errors import RegistryError
from signalserve.registry.events import SHORTEST_HEAD
from signalserve.registry.repair import plan_repair, repair_log
from signalserve.registry.store import Acceptance


def group() -> typer.Typer:
    """Look after the registry's folder, without a server."""
    made = typer.Typer(no_args_is_help=True, help=group.__doc__)
    made.command()(init)
    made.command()(validate)
    made.command()(clean)
    made.command()(adopt)
    made.command("verify-log")(verify_log)
    made.command()(confirm)
    made.command("accept-index")(accept_index)
    made.command()(repair)
    return made


def clean_main() -> None:
    """Run `clean` on its own, as `scripts/run_clean_registry.py` does."""
    run_alone(clean)


def _open(config: Path | None, registry: Path | None, *, writes: bool = True) -> Registry:
    # these commands look after what is there and promote nothing, so no gate is asked; who only looks needs no key
    settings = load_settings(config)
    folder = existing_registry(settings, registry)
    return open_registry(
        folder,
        pins=settings.ml.pinned_ids(),
        signer=signer_of(settings.registry.signing_key, folder) if writes else None,
    )


def init(config: ConfigOption = None, registry: RegistryOption = None) -> None:
    """Make an empty registry, for a server that is to start before the first model is trained.

    Never do so where a disk is away: mount it, and its registry is there.
    """
    folder = registry if registry is not None else load_settings(config).ml.models_dir
    refuse_file(folder, "the registry is a folder")
    found = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
    if not init_registry(folder):
        console.print(f"{folder} holds a registry already; nothing changed", soft_wrap=True, markup=False)
        return
    console.print(f"an empty registry in {folder.resolve()}", soft_wrap=True, markup=False)
    if found:
        shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        remark("note:", f"the folder holds other things, which are no entries of it: {shown}")


def validate(
    config: ConfigOption = None, registry: RegistryOption = None, json_output: JsonOption = False
) -> None:
    """Check every entry's artefacts against the digests in the log. Changes nothing.

    A table with a verdict on each, then all that is to say of them, a line each.
    """
    opened = _open(config, registry, writes=False)
    view = opened.view()
    entries = list(view.state.entries.values())
    described = list(zip(entries, opened.descriptions(view, entries, thorough=True), strict=True))
    unreadable = [str(row) for row in view.unreadable]
    if json_output:
        print_json(
            {
                "entries": [
                    {
                        "model_id": entry.model_id,
                        "status": entry.status,
                        "valid": bool(found),
                        "not_servable": found.not_servable,
                        "problems": found.problems,
                        "warnings": found.warnings,
                    }
                    for entry, found in described
                ],
                "unreadable_rows": unreadable,
            }
        )
    else:
        print_table(
            ("model_id", "status", "verdict"),
            [(entry.model_id, entry.status, _verdict(entry, found)) for entry, found in described],
        )
        for entry, found in described:
            for text in (*found.problems, *found.warnings):
                # a text is of any length, so it stands in no column of the table
                about = "" if entry.model_id in text else f"{entry.model_id}: "
                console.print(f"{about}{text}", soft_wrap=True, markup=False)
        for text in unreadable:
            remark(f"registry_index.csv, {text}", "(kept, skipped)")
    if unreadable or not all(found for _, found in described):
        raise typer.Exit(FAILED)


def _verdict(entry: ModelRegistryEntry, found: Description) -> str:
    """What an entry's files are good for, in a word or two."""
    if not found:
        return "not valid"
    if entry.status == Status.FAILED:
        return "failed run"
    if found.not_servable:
        return "files whole, can't be served"
    return "valid" if found.digest else "files whole, served once adopted"


def clean(
    older_than: Annotated[
        str | None, typer.Option("--older-than", help="Also drop models older than this: 90d, 36h, 12w.")
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option("--keep", min=0, help="Also drop all but the newest so many a key and model type."),
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", help="Only models of this status (never production); may be repeated."),
    ] = None,
    delete_dirs: Annotated[
        bool, typer.Option("--delete-dirs", help="Also delete the folders of entries that left the registry.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask on a terminal.")] = False,
    reason: ReasonOption = "",
    config: ConfigOption = None,
    registry: RegistryOption = None,
    json_output: JsonOption = False,
) -> None:
    """Drop entries whose artefacts are missing, and those that the options select.

    The conditions are met together: --status failed --older-than 30d drops failed runs of more than a month.
    Production, pinned models and rollback targets always stay. The plan is printed before anything is done,
    and each thing removed has an event in the log.
    """
    opened = _open(config, registry, writes=not dry_run)
    selection = _selection(older_than, keep, status)
    plan = opened.plan_clean(selection, delete_dirs=delete_dirs)
    if not json_output:
        _show_plan(plan)
    idle = not plan.entries and not plan.folders
    if not dry_run and not idle:
        if sys.stdin.isatty() and not yes:
            typer.confirm("Remove these?", abort=True, err=True)
        shown = plan
        plan = opened.clean(selection, delete_dirs=delete_dirs, confirmed=plan, reason=reason, via="cli")
        if not json_output:
            for name, why in plan.kept.items():
                if name not in shown.kept:
                    remark("keep", f"{name}: {why}")
    if json_output:
        print_json(plan)
    elif idle:
        console.print("nothing to clean")
    elif dry_run:
        console.print("dry run: nothing was changed")
    else:
        console.print(f"dropped {len(plan.entries)} entries, deleted {len(plan.folders)} folders")


def _selection(older_than: str | None, keep: int | None, status: list[str] | None) -> Selection:
    try:
        age = None if older_than is None else TypeAdapter(Duration).validate_python(older_than)
    except ValidationError:
        say_error(f"--older-than {older_than!r}: an age is written 90d, 36h or 12w")
        raise typer.Exit(USAGE) from None
    return Selection(age, keep, frozenset(status or ()))


def _show_plan(plan: CleanPlan) -> None:
    for model_id, why in plan.entries.items():
        console.print(f"drop {model_id}: {why}", soft_wrap=True, markup=False)
    for folder in plan.folders:
        console.print(f"delete {folder}", soft_wrap=True, markup=False)
    for model_id, why in plan.kept.items():
        remark("keep", f"{model_id}: {why}")


def adopt(
    model_ids: Annotated[list[str] | None, typer.Argument(help="Models to adopt.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every model without a digest.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    reason: ReasonOption = "",
    config: ConfigOption = None,
    registry: RegistryOption = None,
) -> None:
    """Take digests of legacy folders, compile them and write golden rows.

    This opens model.joblib, which can run any code that is in it: adopt only what you trust.
    """
    opened = _open(config, registry)
    known = opened.state
    if everything:
        model_ids = [
            entry.model_id
            for entry in known.entries.values()
            if entry.status != "failed" and not known.digests.get(entry.model_id)
        ]
        if not model_ids:
            console.print("every model has a digest already")
            return
    if not model_ids:
        say_error("name the models to adopt, or say --all")
        raise typer.Exit(USAGE)
    for model_id in model_ids:
        opened.entry(model_id)  # before anyone is asked to trust what is not there
    if not yes:
        remark(
            f"model.joblib of {len(model_ids)} model(s) will be opened; it can run any code that is in it:"
        )
        for model_id in model_ids:
            remark("", f" {model_id}")
        typer.confirm("Do you trust where they come from?", abort=True, err=True)
    failed = 0
    for model_id in model_ids:
        try:
            digest = opened.adopt(model_id, reason=reason, via="cli")
        except RegistryError as error:
            say_error(str(error))
            failed += 1
        else:
            console.print(f"{model_id} {digest}", soft_wrap=True, markup=False)
    if failed:
        raise typer.Exit(FAILED)


def verify_log(
    expect: Annotated[
        str | None,
        typer.Option("--expect", metavar="HASH", help="A head that was noted before: the log must hold it."),
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            "--key",
            metavar="PUBLIC.pem",
            help="Public key of registry.signing_key: each event must be signed, from the first one that is. May be "
            "repeated.",
        ),
    ] = None,
    config: ConfigOption = None,
    registry: RegistryOption = None,
    json_output: JsonOption = False,
) -> None:
    """Prove that the event log is a whole chain and that the index is what it says.

    That nothing was cut off its end and that it was not written anew, only its head as somebody noted it can show.
    """
    report = check_log(existing_registry(load_settings(config), registry), _head(expect), key or ())
    if json_output:
        print_json(
            {
                "ok": report.ok,
                "events": report.events,
                "signed": report.signed if key else None,
                "head": report.head,
                "problems": report.problems,
                "notes": report.notes,
            }
        )
    else:
        for problem in report.problems:
            say_error(problem)
        for note in report.notes:
            remark("note:", note)
        if report.ok and not report.events:
            console.print("no events: there is nothing to prove")
        elif report.ok:
            console.print(f"ok: {report.events} events, the chain is whole and the index is what it says")
        if key:
            console.print(f"signed: {report.signed} of {report.events} events")
        if report.head:
            console.print(f"head: {report.head}")
    if not report.ok:
        raise typer.Exit(FAILED)


def confirm(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]...", help="As BTCUSDT/15m; default all that wait.")
    ] = None,
    reason: ReasonOption = "",
    config: ConfigOption = None,
    registry: RegistryOption = None,
) -> None:
    """Decide that what the index was edited to by hand is in production.

    With promotion.hand_edits: hold nothing else serves such an edit. It goes on being marked as made without evidence,
    and clears no quarantine. A key that was left with nothing is served nothing then.
    """
    opened = _open(config, registry)
    try:
        chosen = [Key.parse(key) for key in keys or ()]
    except ValueError as error:
        say_error(str(error))
        raise typer.Exit(USAGE) from None
    done = opened.confirm(chosen, reason=reason, via="cli")
    if done is None:
        console.print("nothing waits to be confirmed")
        return
    for item in done.transitions:
        now = item.model_id or "nothing, so nothing will be served"
        console.print(
            f"{item.symbol}/{item.timeframe}: {now}; what was decided before is {item.previous_model_id or 'nothing'}",
            soft_wrap=True,
            markup=False,
        )
    quarantined = opened.state.quarantined
    for item in done.transitions:
        if item.model_id in quarantined:
            console.print(
                f"{item.model_id} stays quarantined, as a rollback left it behind, until a promote with force",
                soft_wrap=True,
                markup=False,
            )
    _print_head(done.revision, done.head)


def accept_index(
    file: Annotated[
        Path | None, typer.Argument(help="Default: the one that is asked about, or was kept aside last.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be changed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    reason: ReasonOption = "",
    config: ConfigOption = None,
    registry: RegistryOption = None,
) -> None:
    """Take a registry_index.csv that is not followed, as it may be an old copy, for what shall be.

    Which file it is and what it would change is printed first. A row that is missing from it deletes nothing while the
    model's folder stands; a model whose folder is not there goes into production by none.
    """
    opened = _open(config, registry, writes=not dry_run)
    if file is not None and not file.is_file():
        say_error(f"{file}: no such file")
        raise typer.Exit(USAGE)
    plan = opened.plan_acceptance(file)
    _show_acceptance(plan, hold=load_settings(config).promotion.hand_edits == "hold")
    if dry_run:
        console.print("dry run: nothing was changed")
        return
    if plan.effect.changes and not yes:
        if not sys.stdin.isatty():
            say_error("there is no terminal to ask at: --yes takes it as it is shown")
            raise typer.Exit(USAGE)
        typer.confirm("Take it?", abort=True, err=True)
    known = opened.state.revision
    event = opened.accept_index(confirmed=plan, reason=reason, via="cli")
    if event is not None:
        _print_head(event.revision, event.hash)
    elif (recorded := opened.state.revision) > known:
        console.print(
            f"it is what the registry says; what was edited by hand is recorded, as revision {recorded}"
        )
    else:
        console.print("it is what the registry says already; nothing changed")


def _show_acceptance(plan: AcceptancePlan, *, hold: bool) -> None:
    name, effect = plan.index.path.name, plan.effect
    lines = [f"{plan.index.path}, of {cell(plan.index.moment)}", *_decisions(effect, hold=hold)]
    lines += [
        f"{change.model_id}: {change.before or 'new'} -> {change.after or 'gone'}"
        for change in effect.recorded.changes
    ]
    if effect.respelt:
        lines.append(f"other cells than the status: {_some(effect.respelt)}")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)
    if effect.stays:
        remark("keep", f"{_some(effect.stays)}: it has no row of them, and their folders are there")
    if effect.left_out:
        remark("left out", f"{_some(effect.left_out)}: new here, and their folders are not there")
    for row in effect.unreadable:
        remark(f"{name}, {row}", "(kept, skipped)")


def _decisions(effect: Acceptance, *, hold: bool) -> Iterator[str]:
    """What an index does to each key that it decides on."""
    for key in sorted({*effect.productions, *effect.confirmed}):
        now, then = effect.productions.get(key) or effect.confirmed[key]
        if hold and key not in effect.confirmed:
            yield f"{key}: {then or 'nothing'} is served and stays; the edit to {now or 'nothing'} is not taken"
        elif hold:
            served, then = effect.confirmed[key]
            yield f"{key}: {then or 'nothing'} is taken; {served or 'nothing'} is served until then"
        elif key in effect.productions:
            yield f"{key}: {now or 'nothing'} is in production, then {then or 'nothing'}"
        else:
            yield f"{key}: {then or 'nothing'} is in production by hand, and confirmed"


def _some(model_ids: Sequence[str]) -> str:
    """The first of many, and how many there are."""
    if len(model_ids) <= 5:
        return ", ".join(model_ids)
    return f"{', '.join(model_ids[:5])} and {len(model_ids) - 5} more"


def repair(
    expect: Annotated[
        str | None,
        typer.Option(
            "--expect",
            metavar="HASH",
            help="A head that was noted before: it proves the lines behind the break.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask on a terminal.")] = False,
    reason: ReasonOption = "",
    config: ConfigOption = None,
    registry: RegistryOption = None,
) -> None:
    """Mend a log that is no whole chain: keep what can be proven, list what not, and keep the old log aside.

    A backup of the log is better, if there is one. The index stays, and what it says is taken as a decision of yours.
    """
    settings = load_settings(config)
    folder = existing_registry(settings, registry)
    plan = plan_repair(folder, _head(expect))
    if not plan.needed:
        console.print(f"nothing to repair: {plan.kept} events, the chain is whole")
        if expect and not plan.anchored:
            say_error(
                f"no event has the hash {expect}: the log was cut off, or rewritten, which no repair brings back; put "
                "a backup of it back"
            )
            raise typer.Exit(FAILED)
        return
    console.print(f"{plan.kept} events before the break can be proven and stay as they are")
    for line in plan.unproven:
        console.print(
            f"line {line.number} is not kept, {line.why}: {line.says}", soft_wrap=True, markup=False
        )
    for line in plan.proven:
        console.print(f"line {line.number} is proven by the head: {line.says}", soft_wrap=True, markup=False)
    if plan.proven:
        remark(
            "note:",
            "of lines that the head proves, digests, evidence, looks at bars and quarantines are kept, in events of "
            "yours; statuses are what the index says",
        )
    elif expect:
        remark(
            "note:",
            "no line behind the break leads to the head that is expected, so it proves nothing of them",
        )
    if dry_run:
        console.print("dry run: nothing was changed")
        return
    if sys.stdin.isatty() and not yes:
        typer.confirm("Repair the log, and take the index as it lies?", abort=True, err=True)
    signer = signer_of(settings.registry.signing_key, folder)
    done = repair_log(folder, _head(expect), reason=reason, via="cli", signer=signer)
    console.print(f"the old log is {done.aside}", soft_wrap=True, markup=False)
    console.print(f"head {done.head}", soft_wrap=True, markup=False)
    for model_id in done.adopt:
        remark(
            "adopt it again:", f"{model_id} has no digest any more; `signalserve registry adopt` takes one"
        )


def _head(expect: str | None) -> str:
    """A noted head as it is compared; empty for none."""
    if expect is None:
        return ""
    head = expect.strip().lower()
    if len(head) < SHORTEST_HEAD:
        say_error(f"--expect {expect!r}: a head is given by its first {SHORTEST_HEAD} characters or more")
        raise typer.Exit(USAGE)
    return head


def _print_head(revision: int, head: str) -> None:
    console.print(f"revision {revision}, head {head}", soft_wrap=True, markup=False)
