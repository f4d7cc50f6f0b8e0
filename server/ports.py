"""Ports: whether one is free, and how workers come to share one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


class PortTakenError(Exception):
    """The address can't be bound; the text says which and what to do."""

    def __init__(self, host: str, port: int, setting: str = "server.port") -> None:
        super().__init__(
            f"{host}:{port} can't be bound: another program has the port, or the address is not this machine's; "
            f"stop it, or set {setting} (0 takes a free one)"
        )


def check_free(host: str, port: int, setting: str = "server.port") -> None:
    """Bind the port and let go of it; `setting` is where the port is set.

    Raises:
        PortTakenError: the address can't be bound.
    """
    _bound(host, port, socket.SO_REUSEADDR, setting).close()


@contextmanager
def reserved_port(host: str, port: int) -> Iterator[int]:
    """Hold a port without listening for the length of the block, for workers that share it; gives its number.

    Raises:
        PortTakenError: the address can't be bound.
    """
    # SO_REUSEPORT alone would let a second server take half of the first one's connections in silence
    check_free(host, port)
    with _bound(host, port, socket.SO_REUSEPORT) as holder:
        yield holder.getsockname()[1]


def _bound(host: str, port: int, option: int, setting: str = "server.port") -> socket.socket:
    holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        holder.setsockopt(socket.SOL_SOCKET, option, 1)
        holder.bind((host, port))
    except OSError as error:
        holder.close()
        raise PortTakenError(host, port, setting) from error
    return holder
