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


def arm_of(address: str, model: str, version: str, seconds: float, slack_ms: float) -> Arm:
    """Return what a version did with its requests in the last ``seconds``.

    Latencies are those of the histogram ``tokiwa_request_seconds``: each request counts as
    one in the geometric middle of its bucket, alike for both versions.

    Args:
        address: of Prometheus.
        model: name of the served model.
        version: whose requests.
        seconds: since the stage began.
        slack_ms: added before logarithms are taken, see ``RolloutConfig``.

    Raises:
        BackendError: Prometheus does not answer, or not what was asked.
    """
    labels = f"model_name={json.dumps(model)},version={json.dumps(version)}"
    # A store that takes no labels is no fault of the model.
    failed = f'{labels},protocol!="feedback",status=~"5.."'
    window = f"[{max(1, math.ceil(seconds))}s]"
    failures = _query(
        address, f"sum(increase(tokiwa_requests_total{{{failed}}}{window})) by (status)"
    )
    buckets = _query(
        address, f"sum(increase(tokiwa_request_seconds_bucket{{{labels}}}{window})) by (le)"
    )
    arm = Arm()
    for status, count in failures:
        if rounded := round(count):
            arm += Arm(requests=rounded, failures={f"status {status['status']}": rounded})
    below, last_s = 0, 0.0
    for le_s, total in sorted((float(each["le"]), round(count)) for each, count in buckets):
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
