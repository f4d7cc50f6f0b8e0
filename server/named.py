"""The models that requests named.

1. A model is loaded once for all who wait for it, in the thread of the first.
2. At most `most` of them are kept; the one that nobody named for longest goes first.
3. One that was deleted or changed since is forgotten; whoever computes with it ends with it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from signalserve.server.snapshot import ServedModel


class NamedModels:
    """Loaded models by their id; safe to use from several threads."""

    def __init__(self, load: Callable[[str], ServedModel], most: int) -> None:
        self._load = load
        self._most = most
        self._models: OrderedDict[str, ServedModel] = OrderedDict()
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}

    def loaded(self) -> dict[str, ServedModel]:
        """Those that are loaded now, the one that was named last at the end."""
        with self._lock:
            return dict(self._models)

    def get(self, model_id: str) -> ServedModel | None:
        """The model, if it is loaded; never waits for one that is not."""
        with self._lock:
            served = self._models.get(model_id)
            if served is not None:
                self._models.move_to_end(model_id)
            return served

    def load(self, model_id: str) -> ServedModel:
        """The model, loaded now if need be; blocks meanwhile.

        Raises:
            UnknownModelError, NothingToServeError, RegistryError: as the loader says.
        """
        with self._lock:
            turn = self._turns.setdefault(model_id, threading.Lock())
        try:
            with turn:
                served = self.get(model_id)
                if served is None:
                    served = self._load(model_id)
                    with self._lock:
                        self._models[model_id] = served
                        while len(self._models) > self._most:
                            self._models.popitem(last=False)
                return served
        finally:
            with self._lock:
                self._turns.pop(model_id, None)

    def forget(self, keep: Callable[[ServedModel], bool]) -> None:
        """Let go of models that may not be served any more."""
        with self._lock:
            for model_id in [name for name, served in self._models.items() if not keep(served)]:
                del self._models[model_id]
