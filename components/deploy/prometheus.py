"""What Prometheus knows of one version: requests, failures, and latencies by bucket."""

from __future__ import annotations

import json
import math
from http.client import HTTPException
from urllib.parse import urlencode
from urllib.request import urlopen

from components.errors import BackendError
from components.rollout.observations import Arm, answered

TIMEOUT_S = 10.0


def arm_of(
    address: str, namespace: str, model: str, version: str, seconds: float, slack_ms: float
) -> Arm:
    """Return what a version did with its requests in the last ``seconds``.

    Latencies are those of the histogram ``tokiwa_request_seconds``: each request counts as
    one in the geometric middle of its bucket, alike for both versions.

    Args:
        address: of Prometheus.
        namespace: of the pods; figures without the label ``namespace`` count as well.
        model: name of the served model.
        version: whose requests.
        seconds: since the stage began.
        slack_ms: added before logarithms are taken, see ``RolloutConfig``.

    Raises:
        BackendError: Prometheus does not answer, or not what was asked.
    """
    where = f'namespace=~"|{namespace}"'
    labels = f"{where},model_name={json.dumps(model)},version={json.dumps(version)}"
    # A store that takes no labels is no fault of the model.
    failed = f'{labels},protocol!="feedback",status=~"5.."'
    failures = _counted(address, f"tokiwa_requests_total{{{failed}}}", "status", seconds)
    buckets = _counted(address, f"tokiwa_request_seconds_bucket{{{labels}}}", "le", seconds)
    arm = Arm()
    for status, count in failures.items():
        if rounded := round(count):
            arm += Arm(requests=rounded, failures={f"status {status}": rounded})
    below, last_s = 0, 0.0
    for le_s, total in sorted((float(le), round(count)) for le, count in buckets.items()):
        middle_s = math.sqrt(max(last_s, le_s / 4) * le_s) if math.isfinite(le_s) else last_s * 2
        if total > below:
            arm += _times(answered(middle_s * 1000, slack_ms), total - below)
            below = total
        last_s = le_s
    return arm


def _times(one: Arm, count: int) -> Arm:
    return Arm(
        requests=count,
        log_total=one.log_total * count,
        log_squares=one.log_squares * count,
        latencies=[each * count for each in one.latencies],
    )


def _counted(address: str, series: str, by: str, seconds: float) -> dict[str, float]:
    """Return by how much counters grew, by one of their labels."""
    counts: dict[str, float] = {}
    for query in queries(series, by, seconds):
        for labels, count in _query(address, query):
            counts[labels[by]] = counts.get(labels[by], 0.0) + count
    return counts


def queries(series: str, by: str, seconds: float) -> tuple[str, str]:
    """Return two queries whose sum is by how much counters grew in the last ``seconds``.

    ``increase`` begins with the first value that Prometheus has seen. What a counter of a new
    pod, or of a new kind of error, had counted by then is in the second query: the first
    values of those that were not there in the hour before.
    """
    window = f"{max(1, math.ceil(seconds))}s"
    begun = f"min_over_time({series}[{window}]) unless max_over_time({series}[1h] offset {window})"
    return f"sum(increase({series}[{window}])) by ({by})", f"sum({begun}) by ({by})"


def _query(address: str, query: str) -> list[tuple[dict[str, str], float]]:
    url = f"{address.rstrip('/')}/api/v1/query?{urlencode({'query': query})}"
    if not url.startswith(("http://", "https://")):
        raise BackendError(f"deploy.kserve.prometheus {address!r} is no http address")
    try:
        with urlopen(url, timeout=TIMEOUT_S) as response:
            content = json.load(response)
        found = [(each["metric"], float(each["value"][1])) for each in content["data"]["result"]]
    except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
        raise BackendError(f"Prometheus at {address} cannot be asked: {error}") from error
    return [(labels, value) for labels, value in found if math.isfinite(value)]
