"""Runs on Kubeflow: started once, waited for, listed with their verdicts; and every refusal."""

from __future__ import annotations

import json
import signal
import socket
from types import SimpleNamespace

import pytest

from components import home, images
from components.errors import (
    BackendError,
    BadInput,
    ConfigError,
    StepFailed,
    StoreError,
    Unauthorised,
)
from components.records import Records
from pipelines import runners, submission
from pipelines.backend import Backend
from pipelines.cli import main
from pipelines.project_file import load

SCHEDULED = ["--set", "schedules.training={cron: 0 0 3 * * MON}"]


@pytest.fixture(scope="module")
def project():
    return load("sentiment")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A home of the test's own."""
    monkeypatch.setenv("TOKIWA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TOKIWA_STORE", raising=False)
    return home.store()


def started(project, packages, graph="training"):
    backend = Backend.connect("")
    return submission.submit(project, backend, graph, packages[graph], "latest")


def conclude(store, project, run, result, reason):
    Records(store, project.ledger, run).write("notify", {"result": result, "reason": reason})


# --- started


def test_a_run_is_named_and_linked(kfp_api, packages, project):
    run, link = started(project, packages)
    (made,) = kfp_api.runs.values()
    assert made["display_name"] == "sentiment training latest manual"
    assert made["runtime_config"]["parameters"] == {"window": "latest", "cause": "manual"}
    assert link == f"{kfp_api.address}/#/runs/details/{run}"
    assert kfp_api.experiments[made["experiment_id"]]["display_name"] == "sentiment"


def test_the_same_graph_is_uploaded_once_and_another_one_is_a_version(kfp_api, packages, project):
    started(project, packages)
    started(project, packages)
    assert len(kfp_api.versions) == 1 and len(kfp_api.runs) == 2
    packages["training"].write_text("pipelineInfo: {name: changed}\n")
    started(project, packages)
    assert len(kfp_api.versions) == 2 and len(kfp_api.pipelines) == 1


def test_a_link_leads_to_the_ui_where_that_has_an_address(kfp_api, packages, project, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kubeflow.example/pipeline/")
    _, link = started(project, packages)
    assert link.startswith("https://kubeflow.example/pipeline/#/runs/details/run-")


def test_a_profile_has_a_namespace_of_its_own(kfp_api, packages, project):
    kfp_api.multi_user = True
    backend = Backend.connect("team-a")
    submission.submit(project, backend, "training", packages["training"], "latest")
    assert {each["namespace"] for each in kfp_api.pipelines.values()} == {"team-a"}
    assert submission.listed(project, backend, 5)


def test_a_profile_that_is_not_named_and_a_namespace_without_profiles_are_refused(kfp_api):
    kfp_api.multi_user = True
    with pytest.raises(BadInput, match=r"say in cluster\.namespace which one is yours"):
        Backend.connect("")
    kfp_api.multi_user = False
    with pytest.raises(BadInput, match=r"leave cluster\.namespace \(team-a\) out"):
        Backend.connect("team-a")


def test_the_kubeconfig_leads_to_kubeflow_whatever_the_profile(
    kfp_api, packages, project, monkeypatch, tmp_path
):
    kfp_api.multi_user = True
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    config = {
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": kfp_api.address}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config")
    )
    backend = Backend.connect("team-a")
    submission.submit(project, backend, "training", packages["training"], "latest")
    assert {each["namespace"] for each in kfp_api.experiments.values()} == {"team-a"}


# --- waited for


@pytest.mark.parametrize("end", ["FAILED", "CANCELED", "SKIPPED"])
def test_a_run_that_does_not_succeed_is_a_failure(kfp_api, packages, project, end):
    kfp_api.states = ["RUNNING", "RUNNING", end]
    run, _ = started(project, packages)
    seen: list[str] = []
    slept: list[float] = []
    with pytest.raises(StepFailed, match=f"ended as {end}.*{run}") as failed:
        submission.wait(Backend.connect(""), run, seen.append, slept.append)
    assert seen == ["RUNNING", end] and slept == [1.0, 2.0]
    assert failed.value.exit_code == 1


def test_a_failed_gate_is_no_failed_run(kfp_api, packages, project, store):
    run, _ = started(project, packages)
    submission.wait(Backend.connect(""), run, lambda state: None, lambda seconds: None)
    conclude(store, project, run, "kept", "the challenger is worse")
    (told,) = submission.verdicts_of(project, [run])
    assert told["verdict"] == "kept"


def test_a_server_that_is_away_for_a_minute_is_waited_for(kfp_api, packages, project):
    run, _ = started(project, packages)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        kfp_api.garbles = {run: (503, "upgrading")} if sum(slept) < 60 else {}

    submission.wait(Backend.connect(""), run, lambda state: None, sleep)
    assert sum(slept) >= 60


def test_a_server_that_stays_away_is_given_up(kfp_api, packages, project):
    run, _ = started(project, packages)
    backend = Backend.connect("")
    slept: list[float] = []
    kfp_api.garbles = {run: (503, "upgrading")}
    with pytest.raises(BackendError, match="503 upgrading"):
        submission.wait(backend, run, lambda state: None, slept.append)
    assert submission.AWAY_S <= sum(slept) < 2 * submission.AWAY_S


def test_a_run_that_somebody_deleted_is_not_waited_for(kfp_api, packages, project):
    run, _ = started(project, packages)
    kfp_api.runs.clear()
    with pytest.raises(BackendError, match=r"404 Run .* not found"):
        submission.wait(Backend.connect(""), run, lambda state: None)


# --- listed


def test_runs_are_listed_newest_first_with_their_verdicts(kfp_api, packages, project, store):
    first, _ = started(project, packages)
    second, _ = started(project, packages, "monitoring")
    conclude(store, project, first, "promoted", "better by 3 points")
    kfp_api.runs[second]["recurring_run_id"] = "recurring-run-9"
    rows = submission.listed(project, Backend.connect(""), 10)
    assert [(row["run"], row["by"], row["verdict"]) for row in rows] == [
        (second, "schedule", "–"),
        (first, "hand", "promoted"),
    ]
    assert [row["reason"] for row in rows] == ["", "better by 3 points"]


def test_a_store_that_is_away_is_asked_once(store, project, monkeypatch):
    asked = []

    def away():
        asked.append(1)
        raise StoreError("no such machine")

    monkeypatch.setattr(home, "store", away)
    verdicts = list(submission.verdicts_of(project, ["one", "two", "three"]))
    assert [each["verdict"] for each in verdicts] == ["–"] * 3 and len(asked) == 1


def test_a_project_without_runs_lists_none_and_makes_nothing(kfp_api, project):
    assert submission.listed(project, Backend.connect(""), 10) == []
    assert kfp_api.experiments == {}


# --- who may ask


def test_a_bearer_token_opens_the_api(kfp_api, monkeypatch):
    kfp_api.token = "secret-token"
    monkeypatch.setenv("TOKIWA_KFP_TOKEN", "secret-token")
    assert Backend.connect("").schedules() == []


def test_the_cookie_of_a_session_opens_the_api(kfp_api, monkeypatch):
    kfp_api.cookie = "oauth2_proxy_kubeflow=abc"
    monkeypatch.setenv("TOKIWA_KFP_COOKIE", "oauth2_proxy_kubeflow=abc")
    assert Backend.connect("").schedules() == []


def test_the_token_of_a_service_account_opens_the_api(kfp_api, tmp_path, monkeypatch):
    kfp_api.token = "of-the-account"
    (tmp_path / "token").write_text("of-the-account")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    assert Backend.connect("").schedules() == []


@pytest.mark.parametrize("door", ["token", "cookie"])
def test_who_may_not_ask_is_told_how_to(kfp_api, monkeypatch, door):
    setattr(kfp_api, door, "secret-of-the-server")
    with pytest.raises(Unauthorised) as refused:
        Backend.connect("")
    said = str(refused.value)
    assert "TOKIWA_KFP_TOKEN" in said and "TOKIWA_KFP_COOKIE" in said
    assert refused.value.exit_code == 2 and len(said.splitlines()) == 1


def test_a_wrong_token_is_not_told_to_anybody(kfp_api, monkeypatch):
    kfp_api.token = "right"
    monkeypatch.setenv("TOKIWA_KFP_TOKEN", "wrong-and-secret")
    with pytest.raises(Unauthorised) as refused:
        Backend.connect("")
    assert "wrong-and-secret" not in str(refused.value)


# --- what else goes wrong


def test_an_old_server_is_told_apart(kfp_api):
    kfp_api.old = True
    with pytest.raises(BackendError, match="needs Kubeflow Pipelines 2"):
        Backend.connect("")


def test_a_server_that_is_not_there_is_one_line(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(BackendError, match="Connection refused; set KF_PIPELINES_ENDPOINT") as lost:
        Backend.connect("")
    assert "port-forward" in str(lost.value) and lost.value.exit_code == 1


def test_without_any_server_the_way_to_one_is_told(monkeypatch, tmp_path):
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "/none")
    with pytest.raises(BackendError, match="no Kubeflow Pipelines is known here"):
        Backend.connect("")


def test_a_server_that_dies_meanwhile_is_one_line(kfp_api, packages, project):
    backend = Backend.connect("")
    kfp_api.lives = 2
    with pytest.raises(BackendError, match="cannot reach"):
        submission.submit(project, backend, "training", packages["training"], "latest")
    kfp_api.lives = None
    submission.submit(project, backend, "training", packages["training"], "latest")
    assert len(kfp_api.pipelines) == len(kfp_api.versions) == len(kfp_api.runs) == 1


def test_a_refusal_says_what_the_server_said(kfp_api, packages, project):
    backend = Backend.connect("")
    kfp_api.multi_user = True
    with pytest.raises(BackendError, match="namespace must be specified") as refused:
        submission.submit(project, backend, "training", packages["training"], "latest")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("garbled", "error", "said"),
    [
        ("<html>Log in</html>", Unauthorised, "a page for browsers"),
        ('{"pipelines": [{"pipeline_id"', BackendError, "it broke off"),
        ("null", BackendError, "holds no V2beta1ListPipelinesResponse"),
        ("[]", BackendError, "holds no V2beta1ListPipelinesResponse"),
    ],
)
def test_an_answer_that_is_none_is_not_taken_for_nothing(
    kfp_api, packages, project, garbled, error, said
):
    backend = Backend.connect("")
    kfp_api.garbles = {"/pipelines": (200, garbled)}
    with pytest.raises(error, match=said) as refused:
        submission.submit(project, backend, "training", packages["training"], "latest")
    assert kfp_api.pipelines == {} and len(str(refused.value).splitlines()) == 1


def test_a_server_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr("pipelines.backend.PATIENCE_S", (0.05, 0.05))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", f"http://127.0.0.1:{port}")
        with pytest.raises(BackendError, match="timed out"):
            Backend.connect("")


@pytest.mark.parametrize("made", ["experiment", "pipeline", "version"])
def test_what_somebody_else_makes_meanwhile_is_taken(kfp_api, packages, project, monkeypatch, made):
    method = {"experiment": "experiment", "pipeline": "pipeline", "version": "versions"}[made]
    backend, look = Backend.connect(""), getattr(Backend, method)

    def before_another(self, *given, **named):
        seen = look(self, *given, **named)
        if not seen and not kfp_api.runs:
            monkeypatch.setattr(Backend, method, look)
            started(project, packages)
        return seen

    monkeypatch.setattr(Backend, method, before_another)
    submission.submit(project, backend, "training", packages["training"], "latest")
    assert len(kfp_api.runs) == 2
    assert len(kfp_api.pipelines) == len(kfp_api.versions) == len(kfp_api.experiments) == 1


def test_a_password_in_the_address_is_not_told(kfp_api, packages, project, monkeypatch):
    secret = kfp_api.address.replace("//", "//canary:word@")
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", secret)
    _, link = started(project, packages)
    kfp_api.old = True
    with pytest.raises(BackendError) as refused:
        Backend.connect("")
    assert "canary" not in link + str(refused.value) and kfp_api.address in link


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TOKIWA_KFP_TOKEN", "canary\ncanary"),
        ("TOKIWA_KFP_COOKIE", "canary=…"),
        ("KF_PIPELINES_ENDPOINT", "canary:8888"),
        ("KF_PIPELINES_ENDPOINT", "http://"),
    ],
)
def test_what_cannot_be_sent_is_the_users_mistake(kfp_api, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadInput, match=variable) as refused:
        Backend.connect("")
    assert "canary" not in str(refused.value)


def test_a_token_may_end_with_a_line(kfp_api, monkeypatch):
    kfp_api.token = "from-a-file"
    monkeypatch.setenv("TOKIWA_KFP_TOKEN", "from-a-file\n")
    assert Backend.connect("").schedules() == []


# --- as commands


@pytest.mark.parametrize("command", ["submit", "apply"])
def test_a_mistake_of_the_file_needs_no_server_to_be_told(command, monkeypatch, capsys):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:9")
    assert main([command, "sentiment", "--set", "cluster.default.cpu=two"]) == 2
    assert "is no quantity of CPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REGISTRY", "https://registry.example.com"),
        ("REGISTRY", "canary:word@registry.example.com"),
        ("REGISTRY", "registry.example.com/Team A"),
        ("TAG", ""),
        ("TAG", "sha256:0123"),
    ],
)
def test_a_name_that_no_image_can_have_is_refused(project, monkeypatch, tmp_path, variable, value):
    monkeypatch.setattr(images, variable, value)
    with pytest.raises(ConfigError, match=f"TOKIWA_IMAGE_{variable}") as refused:
        runners.packages_of(project, tmp_path)
    assert "canary" not in str(refused.value)


def test_an_image_may_come_from_any_registry(monkeypatch):
    for place in ("", "localhost:5000", "registry.example.com:5000/team/ml_ops"):
        monkeypatch.setattr(images, "REGISTRY", place)
        assert images.malformed() == ""


def test_a_window_that_is_not_there_starts_nothing(kfp_api, store, capsys):
    assert main(["submit", "sentiment", "--window", "last week"]) == 2
    assert "has no window 'last week'" in capsys.readouterr().err and kfp_api.runs == {}


def test_who_stops_waiting_is_told_that_the_run_goes_on(
    kfp_api, store, packages, capsys, monkeypatch
):
    monkeypatch.setattr(runners, "packages_of", lambda project, folder: packages)

    def interrupted(*given):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(submission, "wait", interrupted)
    assert main(["submit", "sentiment", "--wait", "--json"]) == 130
    told = capsys.readouterr()
    (run,) = kfp_api.runs
    assert json.loads(told.out)["run"] == run and "goes on at Kubeflow" in told.err


def test_a_run_that_failed_is_named_to_programs_too(kfp_api, store, packages, capsys, monkeypatch):
    monkeypatch.setattr(runners, "packages_of", lambda project, folder: packages)
    kfp_api.states = ["FAILED"]
    assert main(["submit", "sentiment", "--wait", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["run"] in kfp_api.runs


def test_the_commands_submit_and_list(kfp_api, store, capsys):
    assert main(["submit", "sentiment", "--wait", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["link"].startswith(kfp_api.address) and shown["verdict"] == "–"
    assert main(["runs", "sentiment", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["run"]) == ("sentiment training latest manual", shown["run"])
    assert main(["runs", "sentiment"]) == 0
    assert shown["run"] in capsys.readouterr().out


def test_the_command_applies_and_tells_drift_by_its_code(
    kfp_api, store, capsys, monkeypatch, packages
):
    # What compiling makes is looked at elsewhere, and takes most of the time.
    monkeypatch.setattr(runners, "packages_of", lambda project, folder: packages)
    assert main(["apply", "sentiment", "--dry-run", *SCHEDULED]) == 0
    assert "+ training is new" in capsys.readouterr().out and kfp_api.schedules == {}
    assert main(["apply", "sentiment", *SCHEDULED]) == 0
    (mine,) = [key for key, each in kfp_api.schedules.items() if "training" in str(each)]
    kfp_api.switch(mine, on=False)
    capsys.readouterr()
    assert main(["apply", "sentiment", *SCHEDULED]) == 1
    told = capsys.readouterr()
    assert "! training" in told.out and "--force" in told.err
    assert main(["apply", "sentiment", "--force", *SCHEDULED]) == 0


def test_an_id_that_the_server_leaves_out_is_no_success(kfp_api, monkeypatch, packages, project):
    backend = Backend.connect("")
    empty = SimpleNamespace(run_id=None)
    monkeypatch.setattr(backend._client, "run_pipeline", lambda *given, **named: empty)
    with pytest.raises(BackendError, match="without an id"):
        submission.submit(project, backend, "training", packages["training"], "latest")


def test_files_that_pods_may_not_see_are_told_of(tmp_path, capsys):
    rows = tmp_path / "rows"
    rows.mkdir()
    out = str(tmp_path / "out")
    assert main(["compile", "sentiment", "--out", out]) == 0
    assert capsys.readouterr().err == ""
    assert main(["compile", "sentiment", "--out", out, "--set", f"source.root={rows}"]) == 0
    assert f"{rows} lies on this machine: a pod sees it only where" in capsys.readouterr().err
