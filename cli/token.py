"""`signalserve token create | list | revoke`: who may call the server, and as what."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from signalserve.cli.exits import FAILED, USAGE, say_error
from signalserve.cli.options import ConfigOption, JsonOption
from signalserve.cli.output import console, print_json, print_table, remark

if TYPE_CHECKING:
    from signalserve.access.tokens import Entry

DEFAULT_FILE = Path("config/tokens.json")

FileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help=f"The server's token file; the default is security.token_file, else {DEFAULT_FILE}.",
        show_default=False,
    ),
]


def group() -> typer.Typer:
    """Say who may call the server: create, list and revoke tokens."""
    app = typer.Typer(help=group.__doc__, no_args_is_help=True)
    app.command("create")(create)
    app.command("list")(list_tokens)
    app.command("revoke")(revoke)
    return app


def create(
    roles: Annotated[list[str], typer.Option("--role", help="predict, read, ops or admin; may be repeated.")],
    name: Annotated[str, typer.Option("--name", help="Who it is for; the audit log names them by it.")],
    expires: Annotated[
        str | None, typer.Option(help="It ends after so long: 12h, 90d.", show_default=False)
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(help="Admit the client certificate in this PEM file, instead of making a token."),
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="Admit client certificates of this subject: CN=engine-1,O=desk.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the token into this new file, for its owner alone to read.")
    ] = None,
    token_file: FileOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a token and print it, this once; a running server takes it at once.

    With `--certificate` or `--subject` no token is made: who shows such a certificate has the role.
    """
    from signalserve.access.token_file import TokenFile

    path, is_configured = _path(config, token_file)
    file = TokenFile(path)
    ends = _ends(expires)
    if certificate is not None or subject is not None:
        if out is not None or (certificate is not None and subject is not None):
            say_error("give one of --certificate and --subject, and no --out: there is no token to write")
            raise typer.Exit(USAGE)
        entry = file.admit_certificate(
            name,
            roles,
            _subject_in(certificate) if certificate is not None else subject or "",
            expires_at=ends,
        )
        console.print(
            f"certificates of {entry.subject} are {_described(entry)}", soft_wrap=True, markup=False
        )
    else:
        _refuse_existing(out)
        entry, token = file.create(name, roles, expires_at=ends)
        if out is None:
            print(token)
            remark("note:", f"{_described(entry)}; the token is shown this once, {path} has only its hash")
        else:
            _write(out, token)
            remark("note:", f"{_described(entry)}; the token is in {out}, {path} has only its hash")
    if not is_configured:
        remark(
            "note:",
            f"the server asks for tokens once security.token_file is {path}, or serve --token-file is",
        )


def list_tokens(
    token_file: FileOption = None, config: ConfigOption = None, json_output: JsonOption = False
) -> None:
    """List who may call the server; secrets are nowhere to be read."""
    from signalserve.access.token_file import read_tokens
    from signalserve.common.moments import utc_now

    path, _ = _path(config, token_file)
    now = utc_now()
    entries = read_tokens(path).entries
    if json_output:
        print_json([{**entry.public(), "state": entry.state(now)} for entry in entries])
    elif entries:
        print_table(
            ("id", "name", "roles", "kind", "state", "created_at", "expires_at", "subject"),
            [
                (
                    entry.id,
                    entry.name,
                    ", ".join(entry.roles),
                    entry.kind,
                    entry.state(now),
                    entry.created_at,
                    entry.expires_at,
                    entry.subject,
                )
                for entry in entries
            ],
        )
    else:
        remark(f"{path} holds no token;", "`signalserve token create` makes one")


def revoke(
    which: Annotated[str, typer.Argument(help="An id of `token list`, or a name for all that it has.")],
    token_file: FileOption = None,
    config: ConfigOption = None,
) -> None:
    """Revoke a token or certificate; a running server refuses it at once, and ends its streams."""
    from signalserve.access.token_file import TokenFile

    path, _ = _path(config, token_file)
    revoked = TokenFile(path).revoke(which)
    for entry in revoked:
        console.print(f"revoked {_described(entry)}", soft_wrap=True, markup=False)
    if not revoked:
        remark(f"{which} was revoked before;", "nothing changed")


def _path(config: Path | None, token_file: Path | None) -> tuple[Path, bool]:
    """The token file, and whether the server's configuration names it."""
    from signalserve.config.settings import load_settings

    configured = load_settings(config).security.token_file
    path = token_file or configured or DEFAULT_FILE
    return path, configured is not None and path.absolute() == configured.absolute()


def _ends(expires: str | None) -> datetime | None:
    from signalserve.common.moments import utc_now
    from signalserve.config.fields import parse_duration

    if expires is None:
        return None
    try:
        return utc_now() + parse_duration(expires)
    except (ValueError, OverflowError):
        say_error(f"--expires {expires}: give an amount and its unit, such as 12h or 90d")
        raise typer.Exit(USAGE) from None


def _subject_in(certificate: Path) -> str:
    from signalserve.access.tokens import shown_by

    try:
        return shown_by(certificate.read_bytes())[0].rfc4514_string()
    except OSError as error:
        say_error(f"{certificate} can't be read: {error.strerror}")
    except ValueError:
        say_error(f"{certificate} is no PEM certificate")
    raise typer.Exit(USAGE)


def _refuse_existing(out: Path | None) -> None:
    if out is not None and (os.path.lexists(out) or not out.parent.is_dir()):
        say_error(f"{out} is there already" if os.path.lexists(out) else f"{out.parent} is no folder")
        raise typer.Exit(USAGE)


def _write(out: Path, token: str) -> None:
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(token + "\n")
    except OSError as error:
        say_error(f"{out} can't be written: {error.strerror}; revoke the token and make another")
        raise typer.Exit(FAILED) from None


def _described(entry: Entry) -> str:
    ends = f", until {entry.expires_at:%Y-%m-%d %H:%M}Z" if entry.expires_at is not None else ""
    return f"{entry.id}: {entry.name}, with the role {', '.join(entry.roles)}{ends}"
