"""The models that requests named.

1. A model is loaded once for all who wait for it, in a thread of its own kind.
2. At most `most` of them are kept, whose files have at most `most_bytes`; the one that nobody named for longest goes
   first. The one that was loaded last stays, however large.
3. One that was deleted or changed since is forgotten; whoever computes with it ends with it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from signalserve.server.loading import Loading
from signalserve.server.snapshot import ServedModel


class NamedModels:
    """Loaded models by their id; all but `load` is safe to use from several threads."""

    def __init__(
        self,
        loading: Loading,
        open_: Callable[[str], ServedModel],
        most: int,
        most_bytes: int | None = None,
    ) -> None:
        """`open_` blocks; `most_bytes` None: as many as they have."""
        self._loading = loading
        self._open = open_
        self._most = most
        self._most_bytes = most_bytes
        self._models: OrderedDict[str, ServedModel] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Load nothing more."""
        self._loading.close()

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

    async def load(self, model_id: str) -> ServedModel:
        """The model, loaded now if need be.

        Raises:
            UnknownModelError, NothingToServeError, LoadTimeoutError, RegistryError: as the loader says.
        """
        served = self.get(model_id)
        if served is None:
            served = await self._loading.load(model_id, partial(self._open, model_id))
            with self._lock:
                self._models[model_id] = served
                self._bound()
        return served

    def _bound(self) -> None:
        held = sum(served.predictor.file_bytes for served in self._models.values())
        while len(self._models) > self._most or (
            self._most_bytes is not None and held > self._most_bytes and len(self._models) > 1
        ):
            held -= self._models.popitem(last=False)[1].predictor.file_bytes

    def forget(self, keep: Callable[[ServedModel], bool]) -> None:
        """Let go of models that may not be served any more."""
        with self._lock:
            for model_id in [name for name, served in self._models.items() if not keep(served)]:
                del self._models[model_id]
