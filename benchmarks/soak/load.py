"""The load of a soak: engines that ask one by one, in batches and over streams, and someone who promotes.

Each engine takes another connection every few seconds, so that a worker that was started again gets its share.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection
from contextlib import suppress

from benchmarks.soak.field import NAMES, ROWS, TIMEFRAME, Field, rows
from benchmarks.soak.ledger import Ledger
from signalserve.client import PredictionRequest, SignalClient, SignalServeError, Stream
from signalserve.registry import Promotion

DEADLINE_MS = 5_000.0
_CALLS_A_CONNECTION = 400
_STREAM_ITEMS = 600
_IN_STREAM = 8
_WIDEST = 5


class Load:
    """Threads that ask until `stop`; a context manager that waits for them."""

    def __init__(self, target: str, field: Field, ledger: Ledger, *, pause: float, seed: int) -> None:
        """`pause`: seconds between two questions of one engine."""
        self._target = target
        self._field = field
        self._ledger = ledger
        self._pause = pause
        self._seed = seed
        self._rows = rows()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._kept: frozenset[str] = frozenset()
        self._production = {symbol: ids[0] for symbol, ids in field.models.items()}
        self._promoting = threading.Lock()
        self.promoted = self.refused = 0
        self.crashed: list[str] = []

    def keep_off(self, symbols: Collection[str]) -> None:
        """Promote nothing of these keys, which something else is done to."""
        self._kept = frozenset(symbols)
        # one that is on its way is not overtaken
        with self._promoting:
            pass

    def put_back(self, symbol: str) -> None:
        """Put a key's first model into production again, beside the server."""
        model_id = self._field.models[symbol][0]
        self._field.registry().promote([Promotion(model_id)], reason="soak", force=True)
        self._production[symbol] = model_id
        self._kept = frozenset()

    def __enter__(self) -> Load:
        works = [self._one_by_one] * 3 + [self._batches, self._streams, self._streams, self._promotes]
        for number, work in enumerate(works):
            thread = threading.Thread(target=self._run, args=(work, self._seed + number), name=work.__name__)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, work: Callable[[random.Random], None], seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - a load that can be repeated
        try:
            while not self._over.is_set():
                work(dice)
        except Exception as error:  # noqa: BLE001 - an engine that ended would be taken for one that found nothing
            self.crashed.append(f"{work.__name__}: {type(error).__name__}: {error}")

    def _one_by_one(self, dice: random.Random) -> None:
        with SignalClient(self._target, deadline_ms=DEADLINE_MS) as client:
            for _ in range(_CALLS_A_CONNECTION):
                if self._over.wait(self._pause):
                    return
                symbol = dice.choice(self._field.symbols)
                # one in eight is an A/B test, and one in eight asks about many rows
                named = dice.choice(self._field.models[symbol]) if dice.random() < 0.125 else None
                asked = dice.sample(range(ROWS), _WIDEST if dice.random() < 0.125 else 1)
                kind = "one by name" if named else "one"
                floor = self._ledger.floor(symbol)
                try:
                    answer = client.predict(
                        symbol, TIMEFRAME, self._rows[asked], model_id=named, feature_names=NAMES
                    )
                except SignalServeError as error:
                    self._ledger.failed(kind, [symbol], error, named=named)
                else:
                    self._ledger.answered(kind, symbol, asked, answer, floor=floor, named=named)

    def _batches(self, dice: random.Random) -> None:
        symbols = self._field.symbols
        with SignalClient(self._target, deadline_ms=DEADLINE_MS) as client:
            for _ in range(_CALLS_A_CONNECTION // 40):
                if self._over.wait(self._pause * 20):
                    return
                asked = [dice.randrange(ROWS) for _ in symbols]
                floors = [self._ledger.floor(symbol) for symbol in symbols]
                requests = [
                    PredictionRequest(symbol, TIMEFRAME, self._rows[row], feature_names=NAMES)
                    for symbol, row in zip(symbols, asked, strict=True)
                ]
                try:
                    items = client.predict_batch(requests)
                except SignalServeError as error:
                    self._ledger.failed("batch", symbols, error)
                    continue
                for symbol, row, floor, item in zip(symbols, asked, floors, items, strict=True):
                    if item.error is not None:
                        self._ledger.failed("batch item", [symbol], item.error)
                    else:
                        self._ledger.answered("batch item", symbol, [row], item.result(), floor=floor)

    def _streams(self, dice: random.Random) -> None:
        with (
            SignalClient(self._target) as client,
            client.stream(deadline_ms=DEADLINE_MS, reconnect=True) as stream,
        ):
            self._over_one_stream(stream, dice)

    def _over_one_stream(self, stream: Stream, dice: random.Random) -> None:
        for _ in range(_STREAM_ITEMS // _IN_STREAM):
            if self._over.wait(self._pause * _IN_STREAM):
                return
            sent = {}
            try:
                for _ in range(_IN_STREAM):
                    symbol, row = dice.choice(self._field.symbols), dice.randrange(ROWS)
                    floor = self._ledger.floor(symbol)
                    number = stream.send(symbol, TIMEFRAME, self._rows[row], feature_names=NAMES)
                    sent[number] = (symbol, row, floor)
                while sent:
                    item = next(stream)
                    symbol, row, floor = sent.pop(item.sequence)
                    if item.error is not None:
                        self._ledger.failed("stream", [symbol], item.error)
                    else:
                        self._ledger.answered("stream", symbol, [row], item.result(), floor=floor)
            except SignalServeError as error:  # the stream itself broke
                lost = [symbol for symbol, _, _ in sent.values()] or ["a stream"]
                self._ledger.failed("stream", lost, error)
                stream.cancel()
                return

    def _promotes(self, dice: random.Random) -> None:
        with SignalClient(self._target, write_deadline_ms=90_000) as client:
            for _ in range(20):
                if self._over.wait(0.1 + dice.random()):
                    return
                with self._promoting:
                    self._promote(client, dice)

    def _promote(self, client: SignalClient, dice: random.Random) -> None:
        free = [symbol for symbol in self._field.symbols if symbol not in self._kept]
        basket = dice.sample(free, min(len(free), dice.choice([1, 1, 1, 5])))
        wanted = {
            symbol: dice.choice(
                [one for one in self._field.models[symbol] if one != self._production[symbol]]
            )
            for symbol in basket
        }
        try:
            result = client.promote(list(wanted.values()), reason="soak", force=True)
        except SignalServeError as error:
            self.refused += 1
            with suppress(SignalServeError):  # it may have been committed all the same
                self._look(client)
            self._ledger.kinds[f"promote refused: {error.code.name} {error.reason}"] += 1
            return
        self.promoted += len(wanted)
        self._production |= wanted
        if result.served:
            for symbol in wanted:
                self._ledger.served(symbol, result.registry_revision)

    def _look(self, client: SignalClient) -> None:
        for model in client.list_models(statuses="production"):
            self._production[model.symbol] = model.model_id
