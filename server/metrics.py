"""What the server counts, for Prometheus.

| metric                               | kind      | meaning                                                      |
|--------------------------------------|-----------|--------------------------------------------------------------|
| signalserve_answers_total{rpc}       | counter   | answers, by RPC: of PredictBatch and the streams each item   |
| signalserve_refusals_total{rpc,code} | counter   | errors that went out, by RPC and status code; items likewise |
| signalserve_predict_seconds          | histogram | from a read request to its answer, waiting for a thread too  |
| signalserve_model_swaps_total        | counter   | keys whose model was replaced                                |
| signalserve_registry_revision        | gauge     | the revision that is served                                  |
| signalserve_registry_seen_revision   | gauge     | the newest revision that was seen                            |
| signalserve_models{engine}           | gauge     | keys that are served, by engine                              |
| signalserve_stale_models             | gauge     | keys whose model is older than `ml.max_model_age`            |
| signalserve_load_failures            | gauge     | models that should be served and could not be loaded         |
| signalserve_registry_readable        | gauge     | 0 while the registry can't be read or has gone               |
| signalserve_registry_lock_wait       | gauge     | seconds for which a change has been waiting for the lock     |
| signalserve_calls_in_flight          | gauge     | calls, stream items and parts of batches being worked on     |
| signalserve_open_streams             | gauge     | streams                                                      |
| signalserve_loading                  | gauge     | models that are being loaded                                 |
| signalserve_ready                    | gauge     | 1 once every first load has ended and some model is served   |

`rpc` is the method's name: `Predict`, `PredictBatch`, `ListModels`. `server.guard` alone counts answers and refusals.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from signalserve.server.snapshot import ServingSnapshot

# an inline answer takes some 50 microseconds, a big matrix seconds
_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


@dataclass(frozen=True)
class Gauges:
    """What is read at each scrape."""

    snapshot: ServingSnapshot
    seen_revision: int
    in_flight: int
    open_streams: int
    registry_readable: bool = True
    index_followed: bool = True
    log_whole: bool = True
    lock_wait: float = 0.0


class RpcCounts:
    """What one RPC counts; each label is looked up once."""

    __slots__ = ("_by_code", "_of_code", "answered")

    def __init__(self, answers: Counter, of_code: Callable[[str], Counter]) -> None:
        self.answered: Callable[[], None] = answers.inc
        self._of_code = of_code
        self._by_code: dict[str, Callable[[], None]] = {}

    def refused(self, code: str) -> None:
        """Count an error by the name of its status code."""
        count = self._by_code.get(code)
        if count is None:  # two threads may both look it up, and find the same
            count = self._by_code[code] = self._of_code(code).inc
        count()


class ServerMetrics:
    """The counters of one server process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answers = Counter("signalserve_answers", "Answers, by RPC.", ["rpc"], registry=self.registry)
        self._refusals = Counter(
            "signalserve_refusals",
            "Errors that went out, by RPC and status code.",
            ["rpc", "code"],
            registry=self.registry,
        )
        self.swaps = Counter(
            "signalserve_model_swaps", "Keys whose model was replaced.", registry=self.registry
        )
        self.seconds = Histogram(
            "signalserve_predict_seconds",
            "From a read request to its answer.",
            buckets=_BUCKETS,
            registry=self.registry,
        )

    def counts(self, rpc: str) -> RpcCounts:
        """The counters of one RPC."""
        return RpcCounts(self._answers.labels(rpc), lambda code: self._refusals.labels(rpc, code))

    def follow(self, read: Callable[[], Gauges]) -> None:
        """Add the gauges; `read` is called at each scrape."""
        self.registry.register(_GaugeCollector(read))


class _GaugeCollector(Collector):  # type: ignore[misc]  # the library is untyped
    def __init__(self, read: Callable[[], Gauges]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        now = self._read()
        snapshot = now.snapshot
        for name, text, value in (
            ("registry_revision", "The revision that is served.", max(snapshot.revision, 0)),
            ("registry_seen_revision", "The newest revision that was seen.", now.seen_revision),
            (
                "stale_models",
                "Keys whose model is older than ml.max_model_age.",
                sum(served.is_stale(time.time()) for served in snapshot.by_key.values()),
            ),
            ("load_failures", "Models that could not be loaded.", len(snapshot.failures)),
            ("loading", "Models that are being loaded.", len(snapshot.pending)),
            ("registry_readable", "0 while the registry can't be read.", int(now.registry_readable)),
            (
                "registry_index_followed",
                "0 while the index is asked about and not followed.",
                int(now.index_followed),
            ),
            (
                "registry_log_whole",
                "0 once the log no longer holds what was read from it.",
                int(now.log_whole),
            ),
            (
                "registry_lock_wait",
                "Seconds for which a change has been waiting for the lock.",
                now.lock_wait,
            ),
            (
                "calls_in_flight",
                "Calls, stream items and parts of batches that are being worked on.",
                now.in_flight,
            ),
            ("open_streams", "Open streams.", now.open_streams),
            ("ready", "1 once every first load has ended and some model is served.", int(snapshot.ready)),
        ):
            yield GaugeMetricFamily(f"signalserve_{name}", text, value=value)
        models = GaugeMetricFamily("signalserve_models", "Keys that are served.", labels=["engine"])
        for engine, count in Tally(served.predictor.engine for served in snapshot.by_key.values()).items():
            models.add_metric([engine], count)
        yield models


@contextmanager
def metrics_endpoint(metrics: ServerMetrics, host: str, port: int) -> Iterator[int]:
    """Answer `GET /metrics` for the length of the block; gives the port.

    Raises:
        OSError: the address can't be bound.
    """
    server, thread = start_http_server(port, host, registry=metrics.registry)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
