"""What is asked of Prometheus, answered by Prometheus itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from components.deploy.prometheus import arm_of, queries

LABELS = 'model_name="demo",version="2"'
NEW, OLD = 'pod="new",namespace="prod"', 'pod="old"'
MINUTES = 30


@pytest.fixture
def count(tmp_path):
    """Return what the queries count, of counters that are looked at each minute."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; Debian's package prometheus brings one")

    def asked(values, minutes, expected):
        both = queries('errors_total{namespace=~"|prod"}', "status", minutes * 60)
        text = " + ".join(f"(sum({query}) or vector(0))" for query in both)
        series = {f'errors_total{{status="500",{pod}}}': each for pod, each in values.items()}
        series['errors_total{status="500",pod="new",namespace="other"}'] = "_x20 9 9x9"
        content = {
            "evaluation_interval": "1m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [
                        {"series": name, "values": each} for name, each in series.items()
                    ],
                    "promql_expr_test": [
                        {
                            "expr": f"round({text})",
                            "eval_time": f"{MINUTES}m",
                            "exp_samples": [{"labels": "{}", "value": expected}],
                        }
                    ],
                }
            ],
        }
        (tmp_path / "test.yaml").write_text(yaml.safe_dump(content))
        done = subprocess.run(
            [promtool, "test", "rules", "test.yaml"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return asked


@pytest.mark.parametrize(
    ("values", "minutes", "expected"),
    [
        ({NEW: "_x24 4 4x5"}, 10, 4),
        ({NEW: "_x29 4"}, 10, 4),
        ({NEW: "0x25 4x5"}, 28, 4),
        ({OLD: "7x30"}, 10, 0),
        ({OLD: "7x30", NEW: "_x24 4 4x5"}, 10, 4),
        ({OLD: "7x19 _x2 7x8"}, 10, 0),
        ({NEW: "_x30"}, 10, 0),
    ],
    ids=["new pod", "seen once", "begun at 0", "old", "both", "a gap", "none"],
)
def test_the_first_errors_of_a_new_pod_count_and_old_ones_do_not(count, values, minutes, expected):
    count(values, minutes, expected)


def test_what_counters_grew_and_began_with_is_one_observation():
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            query = parse_qs(urlsplit(self.path).query)["query"][0]
            asked.append(query)
            value = "3" if "increase" in query else "2"
            rows = [{"metric": {"status": "500"}, "value": [0, value]}]
            if "bucket" in query:
                rows = [{"metric": {"le": le}, "value": [0, value]} for le in ("0.01", "+Inf")]
            data = json.dumps({"data": {"result": rows}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        arm = arm_of(f"http://127.0.0.1:{server.server_port}", "prod", "demo", "2", 60.0, 5.0)
        server.shutdown()
    assert (arm.failures, arm.requests) == ({"status 500": 5}, 10)
    assert len(asked) == 4
    assert all(f'{{namespace=~"|prod",{LABELS}' in query for query in asked)
