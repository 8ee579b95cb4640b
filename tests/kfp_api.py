"""A stand-in of the API of Kubeflow Pipelines (v2beta1), on loopback, which keeps state.

It answers the routes that Tokiwa asks through kfp's client, reads and writes them with the
client's own models, and refuses what the real server refuses. It can die between any two
calls, before or after it has done what it was asked; and it can be old, closed or behind a
login page.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml

ROOT = "/apis/v2beta1"
PROXY = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy/"
"""How the API server of Kubernetes leads to it, where it is."""
LOGIN = "<!doctype html><html><form action='/dex/auth/local'>Log in</form></html>"
MAX_CONCURRENCY = 10
START = datetime(2026, 1, 1, tzinfo=UTC)

Json = dict[str, Any]


class Refusal(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Died(Exception):
    """The connection breaks without an answer."""


@dataclass
class _Body:
    data: str


_models = kfp_server_api.ApiClient()


def _read(body: Json, kind: str) -> Json:
    """Read what a client sent by the client's own model, and refuse what that does not know."""
    model = getattr(kfp_server_api, kind)
    if unknown := set(body) - set(model.attribute_map.values()):
        raise Refusal(400, f"unknown field {', '.join(sorted(unknown))}")
    read = _models.deserialize(_Body(json.dumps(body)), kind)
    content: Json = _models.sanitize_for_serialization(read)
    return content


class KfpApi:
    """The API server; a context manager that leaves nothing running.

    Attributes:
        experiments, pipelines, versions, schedules, runs: what there is, by id.
        multi_user: whether every request must name a profile's namespace.
        token: that requests must carry as a bearer's, if any.
        cookie: that requests must carry, if any; without it they get the login page.
        page_rows: most rows of a page, whatever is asked for.
        forgets: fields that an older server does not know.
        old: without v2beta1.
        lives: requests that it still answers, None for ever; then it is dead.
        last_words: whether it does what the last request asks before it dies.
        garbles: of each path that ends so, the status and the text it answers with instead.
        states: that a run goes through, a look at a time; the last one stays.
        asked: method and path of every request.
        changed: told of every change of what there is.
    """

    def __init__(self) -> None:
        self.experiments: dict[str, Json] = {}
        self.pipelines: dict[str, Json] = {}
        self.versions: dict[str, Json] = {}
        self.schedules: dict[str, Json] = {}
        self.runs: dict[str, Json] = {}
        self.multi_user = False
        self.token = ""
        self.cookie = ""
        self.page_rows = 50
        self.forgets: set[str] = set()
        self.old = False
        self.lives: int | None = None
        self.last_words = False
        self.garbles: dict[str, tuple[int, str]] = {}
        self.states = ["PENDING", "RUNNING", "SUCCEEDED"]
        self.asked: list[tuple[str, str]] = []
        self.changed: Callable[[], None] = lambda: None
        self._made = 0
        self._looks: dict[str, int] = {}
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )

    def __enter__(self) -> KfpApi:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    # --- what a person does in the UI ----------------------------------------------------

    def switch(self, schedule: str, on: bool) -> None:
        """Enable or disable a recurring run, all that the UI can edit of one."""
        self.schedules[schedule] |= _mode(on)
        self.changed()

    def clone(self, schedule: str, **differences: Any) -> str:
        """Make another recurring run like one that there is; what the UI calls clone."""
        body = {
            key: value
            for key, value in self.schedules[schedule].items()
            if key not in ("recurring_run_id", "created_at", "updated_at", "status")
        }
        return str(self._schedule(body | differences)["recurring_run_id"])

    # --- what the server does ------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        with self._lock:
            for pattern, verb, does in self._routes():
                found = re.fullmatch(pattern, path)
                if found and verb == method:
                    done = does(*found.groups(), query=query, body=body)
                    if method != "GET":
                        self.changed()
                    return done
        raise Refusal(404, "404 page not found")

    def _routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        item = r"/([\w-]+)"
        return [
            ("/healthz", "GET", lambda **_: {"multi_user": self.multi_user}),
            ("/experiments", "GET", self._listing(self.experiments, "experiments")),
            ("/experiments", "POST", self._make_experiment),
            ("/pipelines", "GET", self._listing(self.pipelines, "pipelines")),
            ("/pipelines", "POST", self._make_pipeline),
            ("/pipelines/upload_version", "POST", self._upload),
            (f"/pipelines{item}/versions", "GET", self._list_versions),
            ("/recurringruns", "GET", self._listing(self.schedules, "recurringRuns")),
            ("/recurringruns", "POST", lambda body, **_: self._schedule(body)),
            (f"/recurringruns{item}", "DELETE", self._unschedule),
            ("/runs", "GET", self._listing(self.runs, "runs")),
            ("/runs", "POST", self._start),
            (f"/runs{item}", "GET", self._look),
        ]

    def _listing(self, rows: dict[str, Json], field: str) -> Callable[..., Json]:
        def listing(query: dict[str, str], **_: Any) -> Json:
            if "experiment_id" not in query:  # which is of one namespace
                self._check_namespace(query.get("namespace", ""))
            found = list(rows.values())
            for each in json.loads(query.get("filter") or "{}").get("predicates", []):
                assert each["operation"] in ("EQUALS", 1)  # by name or by number
                found = [row for row in found if row[each["key"]] == each["stringValue"]]
            if experiment := query.get("experiment_id"):
                found = [row for row in found if row["experiment_id"] == experiment]
            return self._page(found, field, query)

        return listing

    def _page(self, rows: list[Json], field: str, query: dict[str, str]) -> Json:
        if query.get("sort_by") == "created_at desc":
            rows = rows[::-1]
        begin = int(query.get("page_token") or 0)
        end = begin + min(int(query.get("page_size") or 10), self.page_rows)
        token = str(end) if end < len(rows) else ""
        return {field: rows[begin:end], "next_page_token": token, "total_size": len(rows)}

    def _list_versions(self, pipeline: str, query: dict[str, str], **_: Any) -> Json:
        found = [each for each in self.versions.values() if each["pipeline_id"] == pipeline]
        return self._page(found, "pipeline_versions", query)

    def _make_experiment(self, body: Json, **_: Any) -> Json:
        read = _read(body, "V2beta1Experiment")
        self._check_namespace(read.get("namespace", ""))
        self._check_new(self.experiments, read, "namespace")
        return self._keep(self.experiments, "experiment_id", read)

    def _make_pipeline(self, body: Json, **_: Any) -> Json:
        read = _read(body, "V2beta1Pipeline")
        self._check_namespace(read.get("namespace", ""))
        self._check_new(self.pipelines, read, "namespace")
        return self._keep(self.pipelines, "pipeline_id", read)

    def _upload(self, query: dict[str, str], body: str, **_: Any) -> Json:
        pipeline = query["pipelineid"]
        if pipeline not in self.pipelines:
            raise Refusal(404, f"Pipeline {pipeline} not found")
        first, *_platform = yaml.safe_load_all(body)
        if "pipelineInfo" not in first:
            raise Refusal(400, "Failed to parse the pipeline spec")
        version = {
            "pipeline_id": pipeline,
            "display_name": query["name"],
            "description": query.get("description", ""),
        }
        self._check_new(self.versions, version, "pipeline_id")
        return self._keep(
            self.versions, "pipeline_version_id", _read(version, "V2beta1PipelineVersion")
        )

    def _schedule(self, body: Json) -> Json:
        read = _read(body, "V2beta1RecurringRun")
        self._check_reference(read)
        concurrency = int(read.get("max_concurrency") or 0)
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise Refusal(400, "The max concurrency of a recurring run must be in range [1, 10]")
        cron = read.get("trigger", {}).get("cron_schedule", {}).get("cron", "")
        if len(cron.split()) not in (5, 6):
            raise Refusal(400, f"Schedule cron is not supported: {cron!r}")
        read = {key: value for key, value in read.items() if key not in self.forgets}
        read.setdefault("service_account", "pipeline-runner")
        return self._keep(
            self.schedules,
            "recurring_run_id",
            # As the server's JSON has it: a number of 64 bits is a text.
            read | _mode(read.get("mode") == "ENABLE") | {"max_concurrency": str(concurrency)},
        )

    def _unschedule(self, schedule: str, **_: Any) -> Json:
        if self.schedules.pop(schedule, None) is None:
            raise Refusal(404, f"Recurring run {schedule} not found")
        return {}

    def _start(self, body: Json, **_: Any) -> Json:
        read = _read(body, "V2beta1Run")
        self._check_reference(read)
        return self._keep(self.runs, "run_id", read | {"state": self.states[0]})

    def _look(self, run: str, **_: Any) -> Json:
        if run not in self.runs:
            raise Refusal(404, f"Run {run} not found")
        looks = self._looks.get(run, 0)
        self._looks[run] = looks + 1
        self.runs[run]["state"] = self.states[min(looks, len(self.states) - 1)]
        return self.runs[run]

    def _check_reference(self, body: Json) -> None:
        reference = body.get("pipeline_version_reference", {})
        version = self.versions.get(reference.get("pipeline_version_id", ""))
        if version is None or version["pipeline_id"] != reference.get("pipeline_id"):
            raise Refusal(404, f"Pipeline version {reference} not found")
        if body.get("experiment_id") not in self.experiments:
            raise Refusal(404, f"Experiment {body.get('experiment_id')} not found")

    def _check_new(self, rows: dict[str, Json], body: Json, within: str) -> None:
        def named(each: Json) -> tuple[Any, Any]:
            return each["display_name"], each.get(within)

        if named(body) in map(named, rows.values()):
            raise Refusal(409, f"Already exist error: {body['display_name']}")

    def _check_namespace(self, namespace: str) -> None:
        if self.multi_user and not namespace:
            raise Refusal(400, "In multi-user mode, namespace must be specified")
        if namespace and not self.multi_user:
            raise Refusal(400, "In single-user mode, namespace must be empty")

    def _keep(self, rows: dict[str, Json], field: str, body: Json) -> Json:
        self._made += 1
        identity = f"{field.removesuffix('_id').replace('_', '-')}-{self._made}"
        made = (START + timedelta(seconds=self._made)).isoformat()
        rows[identity] = body | {field: identity, "created_at": made}
        return rows[identity]


def _mode(on: bool) -> Json:
    return {"mode": "ENABLE" if on else "DISABLE", "status": "ENABLED" if on else "DISABLED"}


def _uploaded(content_type: str, body: bytes) -> str:
    """Return the one file of a form."""
    boundary = content_type.partition("boundary=")[2].encode()
    _before, part, _after = body.split(b"--" + boundary)
    return part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n").decode()


def _handler(api: KfpApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Else an answer waits for the acknowledgement of its head.
        disable_nagle_algorithm = True

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._answer()

        do_POST = do_DELETE = do_GET

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            api.asked.append((self.command, parts.path))
            try:
                if api.lives is not None and api.lives <= 0:
                    raise Died
                if api.lives is not None:
                    api.lives -= 1
                status, answer = self._done(parts.path, parts.query, body)
                if api.lives == 0 and api.last_words:
                    raise Died
            except Died:
                self.close_connection = True
                return
            self._send(status, answer)

        def _done(self, path: str, query: str, body: bytes) -> tuple[int, Any]:
            if api.lives == 0 and not api.last_words:
                raise Died
            if api.cookie and api.cookie not in (self.headers.get("Cookie") or ""):
                return 200, LOGIN
            if api.token and self.headers.get("authorization") != f"Bearer {api.token}":
                return 401, "Jwt is missing"
            path = path.removeprefix(PROXY)
            for end, garbled in api.garbles.items():
                if path.endswith(end):
                    return garbled
            if api.old or not path.startswith(ROOT):
                return 404, "404 page not found"
            kind = self.headers.get("Content-Type") or ""
            content: Any = None
            if body:
                content = _uploaded(kind, body) if "multipart" in kind else json.loads(body)
            asked = {key: value[0] for key, value in parse_qs(query).items()}
            try:
                return 200, api.answer(self.command, path.removeprefix(ROOT), asked, content)
            except Refusal as refusal:
                said = {"error": str(refusal), "code": 0, "message": str(refusal)}
                return refusal.status, said

        def _send(self, status: int, answer: Any) -> None:
            text = isinstance(answer, str)
            data = (answer if text else json.dumps(answer)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if text else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler
