"""Signed events: proof that a process which has the key committed them, whoever else can write the registry's folder.

1. A signature is Ed25519 over the event's canonical body without `signature` and `hash`. It covers `prev_hash`, and so
   all that was before; `hash` covers the signature.
2. From the first signed event on each one must be signed. What was cut off the end only a noted head shows.
3. The private key stands in a PEM file that its owner alone can read, outside the registry's folder.
"""

from __future__ import annotations

import os
import stat
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from signalserve.common.files import open_regular, read_regular
from signalserve.registry.errors import InvalidArgumentError
from signalserve.registry.events import Event, signed_part

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# a key takes some hundred bytes
_LARGEST = 64 * 1024
_NAMED = 20

Signer = Callable[[bytes], str]
"""Gives the signature of an event's body, in base64."""


@dataclass(frozen=True)
class Signatures:
    """How many events are signed by one of the keys, and what is wrong with others from the first of these on."""

    signed: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def signer_of(path: Path | None, base_dir: Path | None = None) -> Signer | None:
    """What signs with the private key of a PEM file (`~` is the user's home); None for no file.

    `base_dir` is the folder of the registry whose events it shall sign.

    Raises:
        InvalidArgumentError: it is missing, others can read it, it lies in `base_dir`, or it is no Ed25519 key without
            a password.
    """
    if path is None:
        return None
    path = Path(os.path.expanduser(path))  # noqa: PTH111 - a Path's own fails where there is no such user
    if base_dir is not None and path.resolve().is_relative_to(base_dir.resolve()):
        raise _unusable(
            path, f"it lies in the registry's folder {base_dir}, and signs nothing there; move it away"
        )
    # costs 50 ms, which only those pay who sign
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read_private(path), None)
    except (TypeError, ValueError) as error:
        raise _unusable(path, f"is no private key without a password: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(path, "is no Ed25519 key")
    return lambda content: b64encode(key.sign(content)).decode()


def public_keys(paths: Iterable[Path]) -> tuple[Ed25519PublicKey, ...]:
    """The public keys of PEM files.

    Raises:
        InvalidArgumentError: one is missing, or is no Ed25519 public key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    found = []
    for path in paths:
        try:
            key = load_pem_public_key(read_regular(path, largest=_LARGEST))
        except OSError as error:
            raise _unusable(path, error.strerror or str(error)) from error
        except ValueError as error:
            raise _unusable(path, f"is no public key: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise _unusable(path, "is no Ed25519 key")
        found.append(key)
    return tuple(found)


def check_signatures(events: Sequence[Event], log: bytes, keys: Sequence[Ed25519PublicKey]) -> Signatures:
    """Check the signatures of a whole chain; without a key, none.

    `log` are the bytes of the events' lines, which have fields of later versions too.
    """
    if not keys:
        return Signatures(0, ())
    lines = [line for line in log.splitlines(keepends=True) if line.strip()]  # an editor may leave empty ones
    good = [_is_signed(line, keys) for line in lines[: len(events)]]
    if not any(good):
        return Signatures(0, ("no event is signed with the key",))
    first = good.index(True)
    # an earlier one that claims a signature is no less wrong
    wrong = [
        _problem(event)
        for number, (event, is_good) in enumerate(zip(events, good, strict=False))
        if not is_good and (number > first or event.signature)
    ]
    more = len(wrong) - _NAMED
    problems = (*wrong[:_NAMED], *((f"and {more} more of this kind",) if more > 0 else ()))
    notes = (f"signed from revision {first + 1} on, which proves those before it",) if first else ()
    return Signatures(sum(good), problems, notes)


def _is_signed(line: bytes, keys: Sequence[Ed25519PublicKey]) -> bool:
    from cryptography.exceptions import InvalidSignature

    text, content = signed_part(line)
    for key in keys if text else ():
        try:
            key.verify(b64decode(text, validate=True), content)
        except (InvalidSignature, ValueError):
            continue
        return True
    return False


def _problem(event: Event) -> str:
    what = "its signature is not of the key" if event.signature else "it is not signed"
    return f"revision {event.revision}, {event.action} by {event.actor} via {event.via}: {what}"


def _read_private(path: Path) -> bytes:
    try:
        with open_regular(path) as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            content = stream.read(_LARGEST)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if mode & 0o077:
        raise _unusable(path, f"others may read it (mode {mode:03o}); `chmod 600` makes it yours alone")
    return content


def _unusable(path: Path, why: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"the key {path} can't be used: {why}", reason="INVALID_KEY")
