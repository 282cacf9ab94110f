"""What an edge server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from megdt.errors import MissingExtraError

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
except ImportError:
    raise MissingExtraError(
        "an edge server needs prometheus-client; pip install 'megdt[serve]'"
    ) from None


class Metrics:
    """Counters of one ES, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "megdt_requests",
            "Requests that ended, by what became of them.",
            ["outcome"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "megdt_request_seconds", "From a request's arrival until its end.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300), registry=self._registry,
        )  # fmt: skip
        self.refused = Counter(
            "megdt_refused",
            "Connections that were refused, by why.",
            ["reason"],
            registry=self._registry,
        )
        self.bits = Counter(
            "megdt_feature_bits",
            "Payload that crossed, by direction.",
            ["direction"],
            registry=self._registry,
        )
        self.states = Counter(
            "megdt_gate_states",
            "What two copies of the gate have made, by whether it is the same.",
            ["same"],
            registry=self._registry,
        )
        self.batch = Histogram(
            "megdt_batch_size", "Requests in one denoising step.",
            buckets=(1, 2, 4, 8, 16, 32), registry=self._registry,
        )  # fmt: skip

    def watch(self, name: str, about: str, value: Callable[[], float]) -> None:
        """A gauge that asks for its value when it is read."""
        Gauge(name, about, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)
