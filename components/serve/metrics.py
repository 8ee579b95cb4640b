"""What Prometheus is told of a server, by version of its model.

Beside KServe's own ``request_predict_seconds``, which its dashboards read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from kserve.metrics import PREDICT_HIST_TIME
from prometheus_client import Counter, Gauge, Histogram

from components.serve.model import Prediction
from components.serving_costs import Spent

_BY_VERSION = ["model_name", "version"]
_LATENCY_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TENTHS = tuple(each / 10 for each in range(1, 11))

_REQUESTS = Counter(
    "tokiwa_requests",
    "Requests by protocol and status",
    ["model_name", "protocol", "status", "version"],
)
_LATENCY = Histogram(
    "tokiwa_request_seconds", "Latency of answered requests", _BY_VERSION, buckets=_LATENCY_S
)
_BATCH = Histogram("tokiwa_batch_rows", "Rows of a batch", _BY_VERSION, buckets=_ROWS)
_QUEUE = Gauge("tokiwa_queue_rows", "Rows that wait for a worker", ["model_name"])
_PREDICTIONS = Counter("tokiwa_predictions", "Rows answered, by label", [*_BY_VERSION, "label"])
_CONFIDENCE = Histogram(
    "tokiwa_confidence", "Confidence of the answers", _BY_VERSION, buckets=_TENTHS
)
_TRUNCATED = Counter("tokiwa_truncated", "Contents too long to be read whole", _BY_VERSION)
_DEVICE = Counter("tokiwa_device_seconds", "Seconds that devices worked", _BY_VERSION)
_DEVICE_SHARE = Gauge(
    "tokiwa_device_seconds_per_1000_predictions", "Seconds that devices worked", _BY_VERSION
)
_COST = Gauge("tokiwa_cost_per_1000_predictions", "At the price of the project", _BY_VERSION)
_LOG_DROPPED = Counter("tokiwa_request_log_dropped", "Rows that could not be kept", ["model_name"])


@dataclass
class _Batches:
    """The batches of one version."""

    of_rows: Histogram
    device: Counter
    rows: int = 0
    seconds: float = 0.0


class Metrics:
    """The figures of one served model."""

    def __init__(self, name: str, price_per_hour: float = 0.0) -> None:
        """Count for the model called ``name``, whose device costs so much an hour."""
        self._name = name
        self._price_per_s = price_per_hour / 3600
        self._batches: dict[str, _Batches] = {}
        # Looking a labelled child up costs more than counting in it.
        self._latency = lru_cache(64)(lambda version: _LATENCY.labels(name, version))
        self._confidence = lru_cache(64)(lambda version: _CONFIDENCE.labels(name, version))
        self._label = lru_cache(1024)(lambda *key: _PREDICTIONS.labels(name, *key))
        self._requests = lru_cache(256)(lambda *key: _REQUESTS.labels(name, *key))
        self._kserve = PREDICT_HIST_TIME.labels(model_name=name)
        self._queue = _QUEUE.labels(name)

    def request(self, protocol: str, status: int, version: str) -> None:
        """Count a request, under the champion's version if it got no answer."""
        self._requests(protocol, str(status), version).inc()

    def answered(
        self, version: str, seconds: float, predictions: Sequence[Prediction], truncated: int
    ) -> None:
        """Count the answers of a request."""
        self._kserve.observe(seconds)
        self._latency(version).observe(seconds)
        confidence = self._confidence(version)
        for prediction in predictions:
            label = "abstained" if prediction.get("abstained") else prediction.get("label", "")
            self._label(version, label).inc()
            if "confidence" in prediction:
                confidence.observe(prediction["confidence"])
        if truncated:
            _TRUNCATED.labels(self._name, version).inc(truncated)

    def batch(self, version: str, rows: int, seconds: float) -> None:
        """Count a batch and what it costs."""
        batches = self._batches.get(version) or self._first_batch(version)
        batches.of_rows.observe(rows)
        batches.device.inc(seconds)
        batches.rows += rows
        batches.seconds += seconds

    @property
    def spent(self) -> dict[str, Spent]:
        """What the answers of each version have cost."""
        return {version: self._spent(batches) for version, batches in self._batches.items()}

    def _first_batch(self, version: str) -> _Batches:
        key = self._name, version
        batches = _Batches(_BATCH.labels(*key), _DEVICE.labels(*key))
        self._batches[version] = batches
        # Shares are worked out when somebody looks.
        _DEVICE_SHARE.labels(*key).set_function(
            lambda: self._spent(batches).device_seconds_per_1000
        )
        _COST.labels(*key).set_function(lambda: self._spent(batches).money_per_1000 or 0.0)
        return batches

    def _spent(self, batches: _Batches) -> Spent:
        return Spent(
            predictions=batches.rows,
            device_seconds=batches.seconds,
            money=batches.seconds * self._price_per_s if self._price_per_s else None,
        )

    def queue(self, rows: int) -> None:
        """Show how many rows wait."""
        self._queue.set(rows)

    def dropped(self, rows: int) -> None:
        """Count rows that the request log could not keep."""
        _LOG_DROPPED.labels(self._name).inc(rows)
