"""Exit codes that tell, and one line on stderr for every error that is no bug of ours."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from signalserve.access.errors import AccessSetupError
    from signalserve.client import SignalServeError
    from signalserve.config.settings import ConfigError
    from signalserve.registry.errors import RegistryError

OK, FAILED, USAGE, SERVER_AWAY, NOT_FOUND, REFUSED, DENIED, STORAGE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 7, 130

EPILOG = (
    "Exit codes: 0 done, 1 failed or found wrong, 2 wrong usage or configuration (--registry leads to no registry, "
    "say), 3 server away, 4 not found, 5 refused by the registry's rules, 6 not allowed, 7 the registry can't be read "
    "or written (a full disk, a lock that is held, a broken log; `serve` and `retrain`: there is none), "
    "130 interrupted."
)

_errors = Console(stderr=True, highlight=False)
# messages that programs get too, in the words of the Python interface
_ARGUMENTS = re.compile(r"(?<![\w-])(allow_(in_sample|unserved)\b|unrecorded(?= shows))")
_ERRNO = re.compile(r"\[Errno \d+\] ")


def say_error(text: str) -> None:
    """Print an error for a person, in one place, one form, and the command's own words."""
    text = _ARGUMENTS.sub(lambda found: "--" + found[0].replace("_", "-"), _ERRNO.sub("", text))
    _errors.print(f"[bold red]error:[/] {_escape(text)}", soft_wrap=True)


@contextmanager
def telling_exits() -> Iterator[None]:
    """Turn the errors that a command may meet into a line and an exit code."""
    try:
        yield
    except _config_errors() as error:
        for line in str(error).splitlines():
            say_error(line)
        sys.exit(USAGE)
    except _server_errors() as error:
        say_error(_server_text(error))
        sys.exit(_server_code(error))
    except _setup_errors() as error:
        say_error(str(error))
        sys.exit(USAGE)
    except _registry_errors() as error:
        say_error(str(error))
        sys.exit(_registry_code(error))
    except KeyboardInterrupt:
        _errors.print("interrupted")
        sys.exit(INTERRUPTED)
    except SystemExit as ended:  # typer's answer to Ctrl-C, or a command's own
        if ended.code == INTERRUPTED:
            _errors.print("interrupted")
        raise


# what was never imported was never raised: the errors are looked up where they are loaded, so that a command
# waits for no more than it needs


def _config_errors() -> tuple[type[ConfigError], ...]:
    return _loaded("signalserve.config.settings", "ConfigError")


def _server_errors() -> tuple[type[SignalServeError], ...]:
    return _loaded("signalserve.client.errors", "SignalServeError")


def _setup_errors() -> tuple[type[AccessSetupError], ...]:
    return _loaded("signalserve.access.errors", "AccessSetupError")


def _registry_errors() -> tuple[type[RegistryError], ...]:
    return _loaded("signalserve.registry.errors", "RegistryError")


def _loaded(module: str, name: str) -> tuple[Any, ...]:
    found = getattr(
        sys.modules.get(module), name, None
    )  # an import that was interrupted leaves half a module
    return () if found is None else (found,)


def _server_text(error: SignalServeError) -> str:
    from signalserve.client.errors import DeadlineExceeded, Unavailable

    text = str(error)
    if not isinstance(error, Unavailable | DeadlineExceeded) or error.reason:
        return text
    return _with_way(text)


def _with_way(text: str) -> str:
    """What kept a call from its server, and what to try."""
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"{text}; the server's certificate is of no authority that is trusted here: --tls-ca names one"
    if "WRONG_VERSION_NUMBER" in text:
        return f"{text}; the server does not speak TLS, or another program has the port"
    if "Socket closed" in text:
        return (
            f"{text}; does the server speak TLS (--tls-ca or --tls), or ask for a certificate of yours (--tls-cert and "
            "--tls-key)?"
        )
    return f"{text}; is `signalserve serve` running there? --target names another address"


def _server_code(error: SignalServeError) -> int:
    from signalserve.client.errors import (
        Aborted,
        DeadlineExceeded,
        FailedPrecondition,
        InvalidArgument,
        NotFound,
        PermissionDenied,
        Unauthenticated,
        Unavailable,
    )

    if error.reason in _storage_reasons():
        return STORAGE
    if isinstance(error, Unavailable | DeadlineExceeded):
        return SERVER_AWAY
    if isinstance(error, NotFound):
        return NOT_FOUND
    if isinstance(error, FailedPrecondition | Aborted):
        return REFUSED
    if isinstance(error, InvalidArgument):
        return USAGE
    if isinstance(error, Unauthenticated | PermissionDenied):
        return DENIED
    return FAILED


def _storage_reasons() -> set[str]:
    """The reasons of the errors that are the registry's own, as a server says them."""
    from signalserve.registry.errors import StorageError

    kinds: list[type[StorageError]] = [StorageError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return {kind.reason for kind in kinds}


def _registry_code(error: RegistryError) -> int:
    from signalserve.registry.errors import (
        InvalidArgumentError,
        NotFoundError,
        PreconditionError,
        StaleExpectationError,
        StorageError,
    )

    if isinstance(error, StorageError):
        return STORAGE
    if isinstance(error, NotFoundError):
        return NOT_FOUND
    if isinstance(error, PreconditionError | StaleExpectationError):
        return REFUSED
    if isinstance(error, InvalidArgumentError):
        return USAGE
    return FAILED


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
