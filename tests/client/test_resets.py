"""A worker that is killed resets its connections, and those that its port had not taken up yet."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from signalserve.client import AsyncSignalClient, SignalClient

LONG = 60_000


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)


@contextmanager
def resetting(target: str) -> Iterator[str]:
    """An address that resets its first connection, and hands the next one on; gives it."""
    host, _, port = target.removeprefix("ipv4:").partition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sockets: list[socket.socket] = []

        def accept() -> None:
            taken, _ = listener.accept()
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            taken.close()
            taken, _ = listener.accept()
            onward = socket.create_connection((host, int(port)))
            sockets.extend((taken, onward))
            threads.append(threading.Thread(target=pump, args=(onward, taken)))
            threads[-1].start()
            pump(taken, onward)

        def accept_until_closed() -> None:
            with suppress(OSError):
                accept()

        threads = [threading.Thread(target=accept_until_closed)]
        threads[0].start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for each in (listener, *sockets):
                with suppress(OSError):  # it may be closed already
                    each.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
            for each in sockets:
                each.close()


def test_a_prediction_outlives_a_connection_that_is_reset(server) -> None:
    with resetting(server.target) as target, SignalClient(target, deadline_ms=LONG) as client:
        assert client.predict("X", "15m", {"a": 1.5}).score == 1.5


async def test_the_async_client_likewise(server) -> None:
    with resetting(server.target) as target:
        async with AsyncSignalClient(target, deadline_ms=LONG) as client:
            assert (await client.predict("X", "15m", {"a": 1.5})).score == 1.5
