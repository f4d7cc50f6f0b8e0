"""The gRPC server as the lab sees it: what it serves, or that it is away. No page ever fails because of it.

1. The calls go out with the token of whoever asks; without one, with none.
2. A page waits once for a server that does not answer. After that it is asked again in the background, every
   `AWAY_SECONDS` that pages are looked at, and found to be there by the next one. Changes always go out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic

from signalserve.client import ServingStatus, SignalClient, SignalServeError
from signalserve.client.tls import TlsLike
from signalserve.client.token import Token, token_source
from signalserve.lab.plain import text_of

SERVING, NOT_READY, DRAINING, AWAY, REFUSED = "serving", "not_ready", "draining", "away", "refused"

AWAY_SECONDS = 1.0
_LOOKS = 8
_AWAY_CODES = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"})

_token: ContextVar[str] = ContextVar("token", default="")
_actor: ContextVar[str] = ContextVar("actor", default="")


@dataclass(frozen=True)
class Serving:
    """One key's model as the server has it loaded. `stale`: older than `ml.max_model_age`, since `stale_time`."""

    symbol: str
    timeframe: str
    model_id: str
    digest: str
    engine: str
    engine_reason: str
    pinned: bool
    stale: bool
    stale_time: datetime | None


@dataclass(frozen=True)
class LoadFailure:
    """A model that the server could not load; its key keeps what it had."""

    symbol: str
    timeframe: str
    model_id: str
    text: str
    revision: int


@dataclass(frozen=True)
class ServerState:
    """What the server at `target` says of itself.

    `state`: `serving`, `not_ready` (some production model is not loaded yet), `draining`, `away` (no answer in time)
    or `refused` (it answers, but not to this user); `text` says so in words, and what to do. `revision` is what it
    serves, `seen_revision` what it has seen of the registry; both None where it did not answer.
    """

    target: str
    state: str
    text: str
    revision: int | None = None
    seen_revision: int | None = None
    version: str = ""
    process_id: int | None = None
    started: datetime | None = None
    models: tuple[Serving, ...] = ()
    failures: tuple[LoadFailure, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def answers(self) -> bool:
        """Whether it said what it serves."""
        return self.revision is not None

    def serves(self, model_id: str) -> bool | None:
        """Whether a model answers for its key now; None where nobody knows."""
        return any(item.model_id == model_id for item in self.models) if self.answers else None

    @property
    def served(self) -> frozenset[str] | None:
        """The model_ids that answer for their keys; None where nobody knows."""
        return frozenset(item.model_id for item in self.models) if self.answers else None


class ServerLink:
    """The way to one server; close it.

    Args:
        target: its address, as the client takes it.
        deadline_ms: how long a page waits for the status.
        tls: as the client takes it.
        own_token: a file with the lab's own token, by which it asks for the status where nobody is logged in.
        insecure: as the client takes it.
    """

    def __init__(
        self,
        target: str,
        *,
        deadline_ms: float = 500.0,
        tls: TlsLike = None,
        own_token: Path | None = None,
        insecure: bool = False,
    ) -> None:
        self.target = target
        self._deadline_ms = deadline_ms
        self._tls = tls
        self._own_token = own_token
        self._read_token: Callable[[], str] | None = None
        self._insecure = insecure
        self._client: SignalClient | None = None
        self._lock = threading.Lock()
        self._away: tuple[float, ServerState] | None = None
        self._looking = threading.Lock()

    def status(self, token: str = "") -> ServerState:
        """What it serves now, asked with a user's token; blocks at most for the deadline, once, and raises nothing."""
        away = self._away
        if away is None:
            return self._asked(token)
        if monotonic() >= away[0] and self._looking.acquire(blocking=False):
            threading.Thread(target=self._look_again, args=(token,), name="server-look", daemon=True).start()
        return away[1]

    def _look_again(self, token: str) -> None:
        try:
            if self._asked(token).state != AWAY:
                self._away = None
        finally:
            self._looking.release()

    def _asked(self, token: str) -> ServerState:
        try:
            with self.client(token or self._own()) as client:
                found = client.status(deadline_ms=self._deadline_ms)
        except SignalServeError as error:
            return self._no_status(error)
        except (OSError, ValueError) as error:  # the address is none, or a file can't be used
            return ServerState(
                self.target, AWAY, f"the section client of the configuration: {text_of(error)}"
            )
        return _state_of(self.target, found)

    def processes(self, token: str = "") -> tuple[ServerState, ...]:
        """What each process says that answers behind the target; one state, without a process, where none does.

        Each connection goes to a process that the machine chooses, so a few are opened: of two workers one is missed
        once in some hundred looks, of many more often.
        """
        first = self.status(token)
        if not first.answers:
            return (first,)
        known = token or self._own()
        with ThreadPoolExecutor(_LOOKS) as looks:
            found = [first, *looks.map(lambda _: self._another(known), range(_LOOKS))]
        states = {(state.process_id, state.started): state for state in found if state is not None}
        return tuple(sorted(states.values(), key=lambda state: state.process_id or 0))

    def _another(self, token: str) -> ServerState | None:
        try:
            with self._open(token) as client:
                return _state_of(self.target, client.status(deadline_ms=self._deadline_ms))
        except (SignalServeError, OSError, ValueError):
            return None

    def _open(self, token: Token) -> SignalClient:
        return SignalClient(
            self.target, token=token, tls=self._tls, insecure=self._insecure, via="lab", actor=_actor.get
        )

    @contextmanager
    def client(self, token: str = "", actor: str = "") -> Iterator[SignalClient]:
        """The client, whose calls inside the block carry this token, and for a server that knows none this name.

        Raises:
            ValueError: the address is none.
        """
        with self._lock:
            if self._client is None:  # not before the first call: worker processes may be forked
                self._client = self._open(_token.get)
            client = self._client
        resets = _token.set(token), _actor.set(actor)
        try:
            yield client
        finally:
            _token.reset(resets[0])
            _actor.reset(resets[1])

    def _own(self) -> str:
        if self._own_token is None:
            return ""
        with self._lock:
            if self._read_token is None:
                self._read_token = token_source(self._own_token)
        return self._read_token() if self._read_token is not None else ""

    def close(self) -> None:
        """End the connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _no_status(self, error: SignalServeError) -> ServerState:
        if error.code.name in _AWAY_CODES:
            hint = "start it with `signalserve serve`, or set client.target to where it is"
            if "CERTIFICATE_VERIFY_FAILED" in error.message:
                hint = "its certificate is of no authority that is trusted here: client.tls_ca names one"
            elif "Socket closed" in error.message:
                hint = "does it speak TLS (client.tls_ca), or ask for a certificate (client.tls_cert, client.tls_key)?"
            text = (
                f"no answer from {self.target} ({text_of(error.message)}); {hint}. What is shown comes from the "
                "registry's files"
            )
            state = ServerState(self.target, AWAY, text)
            self._away = (monotonic() + AWAY_SECONDS, state)
            return state
        return ServerState(self.target, REFUSED, f"{self.target} does not tell: {text_of(error)}")


def _state_of(target: str, found: ServingStatus) -> ServerState:
    state = DRAINING if found.draining else SERVING if found.ready else NOT_READY
    texts = {
        SERVING: f"serves {len(found.models)} model(s) of registry revision {found.registry_revision}",
        NOT_READY: "is up, but not every production model is loaded yet; see its load errors",
        DRAINING: "is about to stop: it finishes what it has and takes no new calls",
    }
    return ServerState(
        target=target,
        state=state,
        text=texts[state],
        revision=found.registry_revision,
        seen_revision=found.seen_revision,
        version=found.version,
        process_id=found.process_id,
        started=found.start_time,
        models=tuple(
            Serving(
                item.symbol,
                item.timeframe,
                item.model_id,
                item.model_digest,
                item.engine,
                item.engine_reason,
                item.pinned,
                item.stale,
                item.stale_time,
            )
            for item in found.models
        ),
        failures=tuple(
            LoadFailure(item.symbol, item.timeframe, item.model_id, item.message, item.registry_revision)
            for item in found.load_errors
        ),
        warnings=(*((found.registry_error,) if found.registry_error else ()), *found.warnings),
    )
