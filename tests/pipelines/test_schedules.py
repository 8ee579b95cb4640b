"""Recurring runs follow the project's file: nothing lost, nothing twice, nobody else's touched."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest

from components.errors import BackendError, BadInput, EditedByHand
from pipelines import schedules
from pipelines.backend import Backend
from pipelines.cron import SchedulesConfig
from pipelines.project_file import load

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
GRAPHS = ("training", "monitoring")
CRONS = ("0 0 3 * * 1", "0 30 4 * * 2", "0 0 6 * * *")
WEEKLY = {"training": {"cron": CRONS[0]}, "monitoring": {"cron": CRONS[2]}}
WEEKLY_REST = {"monitoring": WEEKLY["monitoring"]}


@cache
def shipped():
    return load("sentiment")


def project_with(account="", name="sentiment", **written):
    """Return a project whose file has these schedules."""
    section = SchedulesConfig.model_validate({"timezone": "UTC", **written})
    cluster = shipped().cluster.model_copy(update={"service_account": account})
    changed = {"schedules": section, "cluster": cluster, "name": name}
    return shipped().model_copy(update=changed)


def applied(project, packages, **options):
    """Apply a project as the command does, through a client of its own."""
    backend = Backend.connect(project.cluster.namespace)
    wanted = schedules.wanted_of(project, packages, NOW)
    return schedules.apply(project, backend, wanted, **options)


def shown(project, packages, **options):
    backend = Backend.connect(project.cluster.namespace)
    wanted = schedules.wanted_of(project, packages, NOW)
    changes = schedules.difference(project, backend, wanted, **options)
    return changes, "\n".join(schedules.explained(project, wanted, changes))


def crons(api):
    return {
        each["display_name"].split()[1]: each["trigger"]["cron_schedule"]["cron"]
        for each in api.schedules.values()
    }


def of_training(api):
    """Return the id of the one schedule of training."""
    (found,) = [key for key, each in api.schedules.items() if "training" in each["display_name"]]
    return found


def mutations(api):
    return [asked for asked in api.asked if asked[0] != "GET"]


# --- what is made


def test_a_schedule_is_made_as_it_should_be(kfp_api, packages):
    applied(project_with(account="trainer", **WEEKLY), packages)
    by_name = {each["display_name"]: each for each in kfp_api.schedules.values()}
    assert set(by_name) == {"sentiment training now schedule", "sentiment monitoring now schedule"}
    made = by_name["sentiment training now schedule"]
    assert made["no_catchup"] is True and made["max_concurrency"] == "1"
    assert made["status"] == "ENABLED" and made["service_account"] == "trainer"
    assert made["runtime_config"]["parameters"] == {"window": "now", "cause": "schedule"}
    assert made["trigger"] == {"cron_schedule": {"cron": CRONS[0]}}
    version = kfp_api.versions[made["pipeline_version_reference"]["pipeline_version_id"]]
    assert kfp_api.pipelines[version["pipeline_id"]]["display_name"] == "sentiment-training"
    assert kfp_api.experiments[made["experiment_id"]]["display_name"] == "sentiment"


def test_applying_again_changes_nothing(kfp_api, packages):
    project = project_with(**WEEKLY)
    applied(project, packages)
    before = len(mutations(kfp_api))
    changes, said = shown(project, packages)
    assert applied(project, packages) == []
    assert [change.action for change in changes] == ["keep", "keep"]
    assert len(mutations(kfp_api)) == before
    assert "= training" in said


def test_a_dry_run_changes_nothing(kfp_api, packages):
    changes, said = shown(project_with(**WEEKLY), packages)
    assert [change.action for change in changes] == ["create", "create"]
    assert mutations(kfp_api) == [] and "+ training is new" in said


def test_the_difference_names_what_changes(kfp_api, packages):
    applied(project_with(**WEEKLY), packages)
    other = project_with(training={"cron": CRONS[1], "enabled": False}, **WEEKLY_REST)
    changes, said = shown(other, packages)
    assert [(each.action, each.graph) for each in changes] == [
        ("keep", "monitoring"),
        ("create", "training"),
        ("delete", "training"),
    ]
    assert f"cron: {CRONS[0]} → {CRONS[1]}" in said and "enabled: true → false" in said


def test_a_change_creates_before_it_deletes(kfp_api, packages):
    applied(project_with(**WEEKLY), packages)
    kfp_api.asked.clear()
    applied(project_with(training={"cron": CRONS[1]}, **WEEKLY_REST), packages)
    changed = [asked for asked in mutations(kfp_api) if "recurringruns" in asked[1]]
    assert [method for method, _ in changed] == ["POST", "DELETE"]
    assert crons(kfp_api) == {"training": CRONS[1], "monitoring": CRONS[2]}


def test_a_changed_project_replaces_its_schedule_by_one_of_the_new_version(kfp_api, packages):
    project = project_with(**WEEKLY)
    applied(project, packages)
    packages["training"].write_text("pipelineInfo: {name: changed}\n")
    applied(project, packages)
    names = Counter(each["display_name"] for each in kfp_api.schedules.values())
    assert set(names.values()) == {1} and len(kfp_api.versions) == 3


def test_an_account_that_left_the_file_leaves_its_schedule(kfp_api, packages):
    applied(project_with(account="trainer", **WEEKLY), packages)
    changes, _ = shown(project_with(**WEEKLY), packages)
    assert applied(project_with(**WEEKLY), packages) == []
    assert [change.action for change in changes] == ["create", "create", "delete", "delete"]
    accounts = {each["service_account"] for each in kfp_api.schedules.values()}
    assert accounts == {"pipeline-runner"}, "Kubeflow's own"
    before = len(mutations(kfp_api))
    assert applied(project_with(**WEEKLY), packages) == []
    assert len(mutations(kfp_api)) == before


def test_what_left_the_file_goes_with_prune_only(kfp_api, packages):
    applied(project_with(**WEEKLY), packages)
    rest = project_with(**WEEKLY_REST)
    (left,) = applied(rest, packages)
    assert left.action == "orphan" and "--prune" in left.why and len(kfp_api.schedules) == 2
    assert applied(rest, packages, prune=True) == []
    assert crons(kfp_api) == {"monitoring": CRONS[2]}


def test_projects_do_not_touch_each_other(kfp_api, packages):
    applied(project_with(name="sentiment-2", **WEEKLY), packages)
    before = dict(kfp_api.schedules)
    applied(project_with(**WEEKLY), packages, prune=True, force=True)
    applied(project_with(), packages, prune=True, force=True)
    assert kfp_api.schedules == before


def test_schedules_on_later_pages_are_found(kfp_api, packages):
    project = project_with(**WEEKLY)
    applied(project, packages)
    kfp_api.page_rows = 1
    assert applied(project, packages) == [] and len(kfp_api.schedules) == 2


# --- what others did


def test_what_was_edited_by_hand_is_shown_and_stays(kfp_api, packages):
    project = project_with(**WEEKLY)
    applied(project, packages)
    mine = of_training(kfp_api)
    kfp_api.switch(mine, on=False)
    changes, said = shown(project, packages)
    left = applied(project, packages)
    assert [each.action for each in left] == ["drift"] and len(kfp_api.schedules) == 2
    assert "! training" in said and "enabled: false → true" in said and "--force" in said
    with pytest.raises(EditedByHand, match=rf"training \({mine}\)"):
        schedules.refuse_drift(changes)
    assert applied(project, packages, force=True) == []
    assert mine not in kfp_api.schedules and len(kfp_api.schedules) == 2


def test_an_edit_that_the_file_catches_up_with_is_no_drift(kfp_api, packages):
    applied(project_with(**WEEKLY), packages)
    mine = of_training(kfp_api)
    kfp_api.switch(mine, on=False)
    followed = project_with(training=WEEKLY["training"] | {"enabled": False}, **WEEKLY_REST)
    assert applied(followed, packages) == [] and mine in kfp_api.schedules


def test_what_was_edited_by_hand_is_not_pruned_without_force(kfp_api, packages):
    applied(project_with(**WEEKLY), packages)
    kfp_api.switch(next(iter(kfp_api.schedules)), on=False)
    (left,) = applied(project_with(), packages, prune=True)
    assert left.action == "drift" and len(kfp_api.schedules) == 1
    assert applied(project_with(), packages, prune=True, force=True) == []
    assert kfp_api.schedules == {}


def test_a_schedule_of_the_same_name_that_somebody_made_is_not_touched(kfp_api, packages):
    project = project_with(**WEEKLY)
    applied(project, packages)
    mine = of_training(kfp_api)
    theirs = kfp_api.clone(mine, description="mine")
    del kfp_api.schedules[mine]
    with pytest.raises(BadInput, match=theirs):
        applied(project, packages, force=True)
    assert theirs in kfp_api.schedules


def test_a_pipeline_of_the_same_name_that_somebody_made_is_not_touched(kfp_api, packages):
    project = project_with(**WEEKLY)
    applied(project, packages)
    for each in kfp_api.pipelines.values():
        each["description"] = "mine"
    with pytest.raises(BadInput, match="sentiment-training that Tokiwa did not upload"):
        applied(project, packages)


def test_a_server_that_forgets_a_field_is_refused_and_nothing_stays(kfp_api, packages):
    project = project_with(**WEEKLY)
    applied(project, packages)
    before = dict(kfp_api.schedules)
    kfp_api.forgets = {"no_catchup"}
    with pytest.raises(BackendError, match="did not keep catches up"):
        applied(project_with(training={"cron": CRONS[1]}, **WEEKLY_REST), packages)
    assert kfp_api.schedules == before


def test_a_server_that_does_not_show_what_was_made_gets_it_once(kfp_api, packages, monkeypatch):
    monkeypatch.setattr(Backend, "schedules", lambda self: [])
    with pytest.raises(BackendError, match="keep changing"):
        applied(project_with(**WEEKLY), packages)
    assert len(kfp_api.schedules) == 2


def test_two_who_apply_at_once_end_with_one_schedule(kfp_api, packages, monkeypatch):
    project, create = project_with(training=WEEKLY["training"]), Backend.schedule

    def after_another(backend, **given):
        monkeypatch.setattr(Backend, "schedule", create)
        applied(project, packages)
        return create(backend, **given)

    monkeypatch.setattr(Backend, "schedule", after_another)
    assert applied(project, packages) == []
    assert list(crons(kfp_api)) == ["training"] and len(kfp_api.schedules) == 1
    posts = [asked for asked in mutations(kfp_api) if asked[1].endswith("/recurringruns")]
    assert len(posts) == 2, "both made one"


# --- any sequence of edits, on a server that dies between any two calls


class Story:
    """A random sequence of edits of the file, of edits in the UI and of applies."""

    def __init__(self, api, packages, seed):
        self.api, self.packages, self.draw = api, packages, random.Random(seed)
        self.written: dict[str, dict[str, Any]] = {
            graph: dict(WEEKLY[graph]) for graph in GRAPHS if self.draw.random() < 0.8
        }
        self.account = ""
        self.versions = dict.fromkeys(GRAPHS, 0)
        self.names = {graph: f"sentiment {graph} now schedule" for graph in GRAPHS}

    def edit_file(self):
        graph = self.draw.choice(GRAPHS)
        match self.draw.randrange(5):
            case 0:
                self.written.pop(graph, None)
            case 1 | 2:
                enabled = self.draw.random() < 0.8
                self.written[graph] = {"cron": self.draw.choice(CRONS), "enabled": enabled}
            case 3:
                self.versions[graph] = self.draw.randrange(3)
            case 4:
                self.account = self.draw.choice(("", "trainer"))

    def edit_in_the_ui(self):
        if not self.api.schedules:
            return
        one = self.draw.choice(sorted(self.api.schedules))
        match self.draw.randrange(3):
            case 0:
                self.api.switch(one, on=self.draw.random() < 0.5)
            case 1:
                del self.api.schedules[one]
            case 2:
                trigger = {"cron_schedule": {"cron": self.draw.choice(CRONS)}}
                self.api.clone(one, trigger=trigger)

    def count(self):
        found = Counter(each["display_name"] for each in self.api.schedules.values())
        return {graph: found[name] for graph, name in self.names.items()}

    def apply(self, *, dies, **options):
        """Apply, watching that no step of it leaves a project without or with too many."""
        for graph, number in self.versions.items():
            self.packages[graph].write_text(f"pipelineInfo: {{name: {graph}-{number}}}\n")
        project = project_with(account=self.account, **self.written)
        before = self.count()
        kept = [graph for graph in GRAPHS if before[graph] and graph in self.written]
        wrong = []

        def watch():
            # Only noted: raised in the server's thread, it would pass for one more death.
            now = self.count()
            if any(now[graph] < 1 for graph in kept):
                wrong.append("a project lost its schedule")
            if any(now[graph] > before[graph] + 1 for graph in GRAPHS):
                wrong.append("one was doubled")

        self.api.changed = watch
        self.api.lives = self.draw.randrange(1, 30) if dies else None
        self.api.last_words = self.draw.random() < 0.5
        try:
            left = applied(project, self.packages, **options)
        except BackendError:
            assert dies, "a server that lives refused"
            left = None
        finally:
            self.api.lives, self.api.changed = None, lambda: None
        assert not wrong, wrong[0]
        return left

    def tell(self):
        for _ in range(self.draw.randrange(2, 5)):
            for _ in range(self.draw.randrange(1, 3)):
                self.edit_file()
            if self.draw.random() < 0.4:
                self.edit_in_the_ui()
            dies = self.draw.random() < 0.5
            prune, force = self.draw.random() < 0.5, self.draw.random() < 0.5
            left = self.apply(dies=dies, prune=prune, force=force)
            if left == []:
                assert {graph: n for graph, n in self.count().items() if n} == dict.fromkeys(
                    self.written, 1
                )
        assert self.apply(dies=False, prune=True, force=True) == []
        made = self.api.schedules.values()
        found = {
            each["display_name"]: (
                each["trigger"]["cron_schedule"]["cron"],
                each["status"] == "ENABLED",
            )
            for each in made
        }
        assert len(made) == len(self.written)
        assert found == {
            self.names[graph]: (each["cron"], each.get("enabled", True))
            for graph, each in self.written.items()
        }
        before = len(mutations(self.api))
        assert self.apply(dies=False, prune=True, force=True) == []
        assert len(mutations(self.api)) == before, "applying twice is not applying once"


def tell(api, packages, seed):
    for rows in (api.experiments, api.pipelines, api.versions, api.schedules):
        rows.clear()
    api.asked.clear()
    try:
        Story(api, packages, seed).tell()
    except AssertionError as error:
        raise AssertionError(f"in the story of seed {seed}: {error}") from error


def test_random_edits_converge(kfp_api, packages):
    for seed in range(3):
        tell(kfp_api, packages, seed)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(20))
def test_a_thousand_random_sequences_of_edits_converge(kfp_api, packages, batch):
    for seed in range(50 * batch, 50 * batch + 50):
        tell(kfp_api, packages, seed)
