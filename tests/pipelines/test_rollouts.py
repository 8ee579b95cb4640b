from __future__ import annotations

import json
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from components import bundle, home
from components.candidates import Candidate, Candidates
from components.deploy import targets
from components.errors import BackendError, BundleError, NoChampion, Unauthorised
from components.ledger import Ledger
from components.rollout.config import RolloutConfig, Stage
from components.rollout.observations import Observations, answered, failed
from components.rollout.record import Rollouts
from components.score import core
from components.serve.model import BundleModel
from components.serving_costs import ServingCosts, Spent
from components.signature import SigningKey
from pipelines import rollouts
from pipelines.cli import main
from pipelines.project_file import load
from pipelines.promotion import decided

CONFIG = RolloutConfig(stages=[Stage(kind="shadow", requests=10), Stage(kind="canary", share=0.1)])
PROJECT = """\
name: demo
task: {{kind: text-classification, labels: [negative, positive], max_tokens: 16}}
source: {{kind: files, files: [{{path: rows.csv}}], columns: {{text: text}}}}
resolve: {{timezone: Asia/Tokyo}}
finetune: {{base: {base}}}
deploy:
  rollout:
    stages: [{{kind: shadow, requests: 10}}]
"""


@pytest.fixture
def project(tmp_path, monkeypatch, tiny_base, make_bundle, _mlflow_database):
    """A project whose versions 1, 2 and 3 have been champions, a day each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKIWA_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mlflow.db").write_bytes(_mlflow_database.read_bytes())
    (tmp_path / "demo.yaml").write_text(PROJECT.format(base=tiny_base))
    config = load("demo.yaml")
    for number in (1, 2, 3):
        Ledger(home.store(), config.ledger).append(
            action="promote",
            bundle=bundle.publish(home.store(), make_bundle(number)),
            version=str(number),
            key=str(number),
            by="test",
            reason="better",
            expected=number - 1,
            at=datetime(2026, 11, number, 3, tzinfo=UTC),
        )
    return config


@pytest.fixture
def ledger(project):
    return Ledger(home.store(), project.ledger)


@pytest.fixture
def record(project):
    return Rollouts(home.store(), project.ledger)


def begin(record, key="run/4"):
    return record.begin(
        rollout=key,
        bundle="b" * 64,
        version="4",
        generation=3,
        config=CONFIG,
        by="run",
        why="better",
    )


def test_previous_is_the_champion_before(project, ledger):
    entry = rollouts.roll_back(project, "previous", "it was better").entry
    assert (entry.action, entry.version, entry.number) == ("rollback", "2", 4)
    assert entry.reason == "it was better"


def test_a_rollback_given_again_never_leads_back_to_what_was_left(project, ledger, capsys):
    command = ["rollback", "demo.yaml", "--reason", "it is rude"]
    assert [main(command), main(command)] == [0, 0]
    assert [each.version for each in ledger.entries()[3:]] == ["2", "1"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert f"version 2 was rolled back at {ledger.head().at} because 'it is rude'" in said
    assert "name it to serve it again" in said
    assert ledger.generation == 5
    assert main(["rollback", "demo.yaml", "3", "--reason", "it was right"]) == 0
    assert ledger.head().version == "3"


def test_a_version_is_named_as_the_registry_does(project, ledger):
    assert main(["rollback", "demo.yaml", "1", "--reason", "known good"]) == 0
    head = ledger.head()
    assert (head.version, head.action, head.bundle) == ("1", "rollback", ledger.entries()[0].bundle)


@pytest.mark.parametrize(
    ("version", "says"),
    [("9", "has never been champion; there were 1, 2, 3"), ("3", "is the champion already")],
)
def test_what_cannot_be_gone_back_to_is_refused(project, ledger, version, says, capsys):
    assert main(["rollback", "demo.yaml", version, "--reason", "x"]) == 2
    assert says in capsys.readouterr().err
    assert ledger.generation == 3


def test_the_history_tells_what_answers_cost_where_it_is_known(project, capsys):
    costs = ServingCosts(home.store(), project.ledger)
    costs.keep("one", {"2": Spent(predictions=4000, device_seconds=10.0, money=0.02)})
    costs.keep("two", {"3": Spent(predictions=500, device_seconds=1.0)})
    assert main(["history", "demo.yaml", "--json"]) == 0
    first, second, third = json.loads(capsys.readouterr().out)
    assert "cost" not in first
    assert second["cost"] == {
        "predictions": 4000,
        "device_seconds_per_1000": 2.5,
        "money_per_1000": 0.005,
    }
    assert third["cost"]["money_per_1000"] is None
    assert main(["history", "demo.yaml"]) == 0
    said = capsys.readouterr().out
    assert "2.5 device-seconds, at a price of 0.005, per 1,000 of 4,000 predictions" in said
    assert "    2 device-seconds per 1,000 of 500 predictions" in said


def test_a_version_that_served_twice_is_told_its_cost_once(project, ledger, capsys):
    rollouts.roll_back(project, "2", "it was better")
    costs = ServingCosts(home.store(), project.ledger)
    costs.keep("one", {"2": Spent(predictions=4000, device_seconds=10.0)})
    assert main(["history", "demo.yaml"]) == 0
    told = capsys.readouterr().out
    assert told.count("4,000 predictions") == 1
    assert told.index("4   ") < told.index("4,000 predictions"), "at the last time"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_stopped_says_what_remains(number, project, record, monkeypatch, capsys):
    begin(record)
    # The command waits for the next look, and is told to stop meanwhile.
    stop = "pipelines.commands.rolling.time.sleep"
    monkeypatch.setattr(stop, lambda seconds: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    assert main(["rollout", "demo.yaml", "--watch"]) == 130
    assert capsys.readouterr().err == (
        "stopped; a rollout that began goes on: tokiwa rollout PROJECT shows it, --stop ends it\n"
    )
    assert signal.getsignal(number) == before
    assert record.live() is not None


def test_a_table_to_score_wants_a_column_of_records(project, capsys):
    task = "{kind: tabular-classification, labels: [a, b], columns: {load: number}}"
    source = "{files: [{path: rows.csv}], columns: {record: [load]}}"
    base = "finetune: {base: components:tasks/blank_small}"
    Path("table.yaml").write_text(f"name: demo\ntask: {task}\nsource: {source}\n{base}\n")
    pd.DataFrame({"load": [1.0]}).to_parquet("x.parquet")
    assert main(["score", "table.yaml", "--input", "x.parquet", "--output", "y.parquet"]) == 2
    assert "x.parquet has no column 'text' of records, which are JSON" in capsys.readouterr().err


def test_a_bundle_that_is_altered_is_not_gone_back_to(project, ledger, capsys):
    digest = ledger.entries()[1].bundle
    path = home.store().local_path(f"{bundle.key_of(digest)}/bundle.json")
    assert path is not None
    path.write_text("{}")
    assert main(["rollback", "demo.yaml", "--reason", "x"]) == 1
    assert "altered" in capsys.readouterr().err
    assert ledger.generation == 3


def test_only_a_signed_champion_is_gone_back_to(project, ledger, make_key):
    private, public = make_key()
    deploy = project.deploy.model_copy(update={"trusted_keys": (public,)})
    trusting = project.model_copy(update={"deploy": deploy})
    with pytest.raises(BundleError, match="is not signed"):
        rollouts.roll_back(trusting, "previous", "it was better")
    assert ledger.generation == 3
    SigningKey(private, "ours").sign(home.store(), ledger.entries()[1].bundle)
    assert rollouts.roll_back(trusting, "previous", "it was better").entry.version == "2"


def test_a_rollback_holds_though_what_follows_it_cannot(project, ledger, monkeypatch, capsys):
    class Away:
        def settle(self):
            raise BackendError("the Kubernetes API answers 503")

    monkeypatch.setitem(targets.TARGETS, "local", lambda site: Away())
    # An error would make people give the command again, which goes back to where they came from.
    assert main(["rollback", "demo.yaml", "--reason", "x"]) == 0
    assert "could not follow: the Kubernetes API answers 503" in capsys.readouterr().out
    assert (ledger.head().version, ledger.generation) == ("2", 4)


def test_a_rollback_ends_the_rollout_that_goes_on(project, record):
    begin(record)
    rollouts.roll_back(project, "1", "an incident")
    assert (record.last().state, record.last().reason) == ("stopped", "rollback to version 1")


def test_a_rollout_is_shown_watched_and_stopped(project, record, capsys):
    assert main(["rollout", "demo.yaml"]) == 2
    assert "has had no rollout yet" in capsys.readouterr().err
    begin(record)
    assert main(["rollout", "demo.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "version 4 beside generation 3: shadow 100%" in shown
    assert "0 of 10 copies" in shown
    assert "begun: better" in shown
    assert "no server follows" in shown
    assert main(["rollout", "demo.yaml", "--stop", "--reason", "an incident"]) == 0
    assert main(["rollout", "demo.yaml", "--watch"]) == 0
    assert "an incident" in capsys.readouterr().out
    assert main(["rollout", "demo.yaml", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["state"], len(content["moves"])) == ("stopped", 2)
    assert rollouts.stop(project, "again") == record.last()
    assert len(record.all()) == 2


def test_a_rollout_is_stopped_though_what_serves_cannot_follow(
    project, record, monkeypatch, capsys
):
    settled = []

    class Place:
        away = True

        def settle(self):
            if self.away:
                raise Unauthorised("the Kubernetes API does not let this account")
            settled.append(record.last().state)

    monkeypatch.setitem(targets.TARGETS, "local", lambda site: Place())
    words = ["rollout", "demo.yaml", "--stop", "--reason", "an incident"]
    assert main(words) == 2
    assert "has no rollout that goes on" in capsys.readouterr().err
    begin(record)
    for _ in range(2):
        assert main(words) == 1
        said = capsys.readouterr().err
        assert "done: the rollout of version 4 is stopped in the record. Not done" in said
        assert "the Kubernetes API does not let this account" in said
        assert "give the same command again" in said
    assert (record.last().state, len(record.all())) == ("stopped", 2)
    monkeypatch.setattr(Place, "away", False)
    assert main(words) == 0
    assert (settled, len(record.all())) == (["stopped"], 2)
    record.move(begin(record, "run/5"), "promoted", "serves as generation 4", by="server")
    assert main(words) == 2
    assert "goes on; the last one is promoted" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["4"], ["--stop"]])
def test_what_changes_a_rollout_asks_for_a_reason(project, words, capsys):
    assert main(["rollout", "demo.yaml", *words]) == 2
    assert "--reason" in capsys.readouterr().err


def test_history_says_who_served_at_a_moment_and_on_a_day(project, capsys):
    def served(at):
        return [each.version for each in rollouts.served_at(project, at)]

    assert served("2026-11-02T11:59+09:00") == ["1"]
    assert served("2026-11-02T12:00") == ["2"]  # of Tokyo
    assert served("2026-11-02") == ["1", "2"]
    assert served("2026-10-31") == []
    assert served("2026-11-01") == ["1"]
    assert served("2027-01-01") == ["3"]
    assert main(["history", "demo.yaml", "--at", "2026-11-02T03:00Z", "--json"]) == 0
    assert [each["version"] for each in json.loads(capsys.readouterr().out)] == ["2"]
    for wrong in ("yesterday", "9999-12-31"):
        assert main(["history", "demo.yaml", "--at", wrong]) == 2
    capsys.readouterr()
    assert main(["history", "demo.yaml", "--at", "2020-01-01"]) == 0
    assert capsys.readouterr().out == (
        "nobody served at 2020-01-01: the first champion serves since 2026-11-01T03:00:00Z\n"
    )
    assert main(["history", "demo.yaml", "--at", "9000-01-01"]) == 0
    said, warned = capsys.readouterr()
    assert warned == "warning: 9000-01-01 has not come yet; this is who serves now\n"
    assert said.startswith("3   2026-11-03T03:00:00Z")


def keep_candidate(project, tmp_path, verdict="promote"):
    (tmp_path / "predictions").mkdir(exist_ok=True)
    Candidates(home.store(), project.ledger).keep(
        Candidate(
            version="4",
            bundle="b" * 64,
            verdict=verdict,
            reason="better",
            run="r",
            generation=3,
            at="2026-11-04T00:00:00+00:00",
        ),
        tmp_path / "predictions",
    )


def test_an_ab_test_ends_with_what_was_measured_and_the_next_step(project, record, capsys):
    live = record.begin(
        rollout="run/4",
        bundle="b" * 64,
        version="4",
        generation=3,
        config=RolloutConfig(stages=[Stage(kind="ab", share=0.5, requests=2)]),
        by="run",
        why="better",
    )
    seen = Observations(
        champion=answered(10.0, 1.0),
        challenger=answered(20.0, 1.0) + failed("timeout"),
        compared=4,
        disagreeing=1.0,
    )
    record.move(live, "reported", "2 of 2 requests, nothing wrong", by="server", seen=seen)
    assert main(["rollout", "demo.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "1 of 2 (50.0%)" in shown and "25.0% of a request's rows" in shown
    assert "times the champion's" in shown and "95 % ms" in shown
    assert "next: tokiwa promote demo.yaml 4 --reason" in shown
    assert "no server follows" not in shown
    rollouts.roll_back(project, "2", "an incident")
    assert main(["rollout", "demo.yaml"]) == 0
    assert "next:" not in capsys.readouterr().out


def test_a_stopped_rollout_keeps_what_servers_saw(project, record, capsys):
    live = begin(record)
    record.keep(live, "one", Observations(challenger=failed("timeout")))
    assert main(["rollout", "demo.yaml", "--stop", "--reason", "x", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["state"] == "stopped"
    assert content["seen"]["challenger"]["failures"] == {"timeout": 1}


def test_nobody_can_be_tried_where_nobody_serves(project, tmp_path):
    keep_candidate(project, tmp_path)
    with pytest.raises(NoChampion, match="start one with tokiwa serve"):
        rollouts.start(project, "demo.yaml", "4", "try it", force=False)


def test_what_the_gate_kept_back_is_tried_by_force_and_the_reason_says_so(
    project, tmp_path, capsys
):
    keep_candidate(project, tmp_path, verdict="inconclusive")
    command = ["rollout", "demo.yaml", "4", "--reason", "try it"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "the gate said inconclusive (better)" in said
    assert "tokiwa rollout demo.yaml 4 --force --reason" in said
    # Nobody serves here: that is said only once the force is taken.
    assert main([*command, "--force"]) == 1
    assert "start one with tokiwa serve" in capsys.readouterr().err
    candidates = Candidates(home.store(), project.ledger)
    _, reason = decided(candidates, None, "4", "try it", True, "tokiwa rollout demo.yaml 4")
    assert reason.startswith("try it (in spite of: the gate said inconclusive (better)")


def test_a_rollout_that_goes_on_is_not_begun_again_by_hand(project, record, tmp_path, capsys):
    keep_candidate(project, tmp_path)
    live = begin(record)
    assert main(["rollout", "demo.yaml", "4", "--reason", "try it", "--force"]) == 2
    said = capsys.readouterr().err
    assert f"version 4 is in rollout: shadow 100% since {live.at}, begun by run" in said
    assert "stop it first: tokiwa rollout demo.yaml --stop --reason" in said
    assert record.last() == live


def test_a_file_is_scored_by_the_champion(project, capsys):
    pd.DataFrame({"text": ["the film was good", "dull"]}).to_parquet("x.parquet")
    words = ["score", "demo.yaml", "--input", "x.parquet", "--output", "y.parquet"]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["version"], report["generation"]) == (2, "3", 3)
    assert pd.read_parquet("y.parquet")["answer_label"].notna().all()
    assert main([*words, "--column", "body"]) == 2
    assert "has no column 'body'" in capsys.readouterr().err


def test_a_score_asks_the_column_of_the_source_where_the_file_has_no_other(project, capsys):
    pd.DataFrame({"said": ["the film was good", "dull"]}).to_parquet("x.parquet")
    words = ["score", "demo.yaml", "--input", "x.parquet", "--output", "y.parquet", "--json"]
    assert main([*words, "--set", "source.columns.text=said"]) == 0
    assert json.loads(capsys.readouterr().out)["unanswered"] == 0
    assert main(words) == 2
    assert "no column 'text', only said" in capsys.readouterr().err


def test_a_score_without_a_champion_says_what_to_run(project, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TOKIWA_HOME", str(tmp_path / "nobody"))
    assert main(["score", "demo.yaml", "--input", "x.parquet", "--output", "y.parquet"]) == 1
    assert "train one: tokiwa run demo.yaml" in capsys.readouterr().err


def test_a_score_that_is_told_to_stop_says_so_and_carries_on(project, capsys, monkeypatch):
    monkeypatch.setattr(core, "PART_ROWS", 2)
    pd.DataFrame({"text": ["the film was good", "dull", "bad"]}).to_parquet("x.parquet")
    words = ["score", "demo.yaml", "--input", "x.parquet", "--output", "y.parquet"]
    answer = BundleModel.predict

    def told_to_stop(model, contents):
        if len(contents) == 1:  # of the second part
            os.kill(os.getpid(), signal.SIGTERM)
        return answer(model, contents)

    with monkeypatch.context() as patch:
        patch.setattr(BundleModel, "predict", told_to_stop)
        assert main(words) == 130
    said = capsys.readouterr().err
    assert "loading version 3" in said
    assert "stopped; what had ended is kept: run it again, and it goes on" in said
    assert main(words) == 0
    assert "resumed at row 2 of 3" in capsys.readouterr().err
    assert len(pd.read_parquet("y.parquet")) == 3
