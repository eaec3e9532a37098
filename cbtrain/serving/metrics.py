"""Numbers for Prometheus: ``GET /metrics``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from cbtrain.generation.engine import GenerationEngine
from cbtrain.serving.guards.queue import Queue
from cbtrain.serving.request_log import Record

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counts requests, and shows the state of ``engine`` and ``queue`` where they are in this process. Names begin with
    ``prefix``."""

    def __init__(
        self, engine: GenerationEngine | None = None, queue: Queue | None = None, prefix: str = "cbtrain"
    ) -> None:
        self.registry, self.prefix = CollectorRegistry(), prefix
        self.requests = self._counter("requests", "answered requests", "path", "model", "status")
        self.prompt_tokens = self._counter("prompt_tokens", "tokens of prompts", "model")
        self.cached_tokens = self._counter("cached_prompt_tokens", "of them, those that were not read anew", "model")
        self.drawn_tokens = self._counter("generated_tokens", "tokens of answers", "model")
        self.seconds = self._histogram("request_seconds", "time of a request for an answer", "model")
        self.first_token = self._histogram("first_token_seconds", "time until the first piece of a stream", "model")
        if engine is not None:
            self.registry.register(_EngineState(engine))
        if queue is not None:
            asked = Gauge("cbtrain_answers_asked_for", "answers under way and waiting", registry=self.registry)
            asked.set_function(lambda: queue.now)

    def count(self, record: Record, status: int) -> None:
        self.requests.labels(record.path, record.model, str(status)).inc()
        if record.drawn_tokens or record.prompt_tokens:
            self.prompt_tokens.labels(record.model).inc(record.prompt_tokens)
            self.cached_tokens.labels(record.model).inc(record.cached_tokens)
            self.drawn_tokens.labels(record.model).inc(record.drawn_tokens)
            self.seconds.labels(record.model).observe(time.perf_counter() - record.began)
        if record.first_token_s is not None:
            self.first_token.labels(record.model).observe(record.first_token_s)

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{self.prefix}_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"{self.prefix}_{name}", text, labels, buckets=SECONDS, registry=self.registry)


class _EngineState:
    """Reads the engine when it is asked; from another thread, so numbers may be a step old."""

    def __init__(self, engine: GenerationEngine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        engine = self._engine
        slots = engine.cache.slots
        yield from _gauges(
            (
                ("requests_running", "answers that are being drawn", len(engine.running)),
                ("requests_waiting", "requests that wait for a slot", len(engine.waiting)),
                ("cache_slots", "conversations that the cache can hold", len(slots)),
                ("cache_slots_busy", "of them, those that are being answered", sum(slot.busy for slot in slots)),
                ("cache_tokens", "tokens in the cache", sum(len(slot.tokens) for slot in slots)),
            )
        )


def _gauges(values: Iterable[tuple[str, str, float]]) -> Iterator[Metric]:
    for name, text, value in values:
        yield GaugeMetricFamily(f"cbtrain_{name}", text, value=value)
