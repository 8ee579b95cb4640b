from __future__ import annotations

import pytest
from mlflow import MlflowClient

from components.errors import WorldError
from components.registry import ALIAS, BUNDLE_TAG, Registry

ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture
def client(tracking_uri):
    """What anybody else sees of the registry."""
    return MlflowClient(tracking_uri, tracking_uri)


def test_a_bundle_gets_a_version_that_points_at_it(registry, client):
    version = registry.register(ONE, "s3://bucket/bundles/1", None, {"tokiwa.verdict": "keep"})
    assert version == "1"
    found = client.get_model_version("demo", version)
    assert found.source == registry.source_of(version) == "s3://bucket/bundles/1"
    assert found.tags == {BUNDLE_TAG: ONE, "tokiwa.verdict": "keep"}


def test_registering_a_bundle_again_gives_the_same_version_with_the_new_tags(registry, client):
    first = registry.register(ONE, "file:///one", None, {"verdict": "keep", "run": "a"})
    registry.register(TWO, "file:///two", None, {})
    again = registry.register(ONE, "file:///one", None, {"verdict": "promote"})
    assert again == first
    assert len(client.search_model_versions("name = 'demo'")) == 2
    tags = client.get_model_version("demo", first).tags
    assert tags == {BUNDLE_TAG: ONE, "verdict": "promote", "run": "a"}


def test_of_two_versions_of_one_bundle_the_oldest_counts(registry, client):
    first = registry.register(ONE, "file:///one", None, {})
    for _ in range(9):
        client.create_model_version("demo", "file:///one", tags={BUNDLE_TAG: ONE})
    assert registry.register(ONE, "file:///one", None, {}) == first == "1"


def test_projects_do_not_share_versions(registry, tracking_uri, tmp_path):
    registry.register(ONE, "file:///one", None, {})
    registry.register(TWO, "file:///two", None, {})
    other = Registry(tracking_uri, "other", tmp_path.as_uri())
    assert other.register(TWO, "file:///two", None, {}) == "1"


def test_the_alias_follows_and_is_repaired(registry, client):
    for bundle in (ONE, TWO):
        registry.register(bundle, "file:///x", None, {})
    registry.mirror("1")
    registry.mirror("2")
    assert client.get_model_version_by_alias("demo", ALIAS).version == 2
    client.set_registered_model_alias("demo", ALIAS, "1")
    registry.mirror("2")
    assert client.get_model_version_by_alias("demo", ALIAS).version == 2


def test_an_alias_that_is_right_is_not_written_again(registry, monkeypatch):
    registry.register(ONE, "file:///one", None, {})
    registry.mirror("1")
    monkeypatch.setattr(
        MlflowClient, "set_registered_model_alias", lambda *args: pytest.fail("written")
    )
    registry.mirror("1")


def test_what_mlflow_refuses_is_an_error_of_the_world(registry):
    with pytest.raises(WorldError, match="refused"):
        registry.mirror("1")
    registry.register(ONE, "file:///one", None, {})
    with pytest.raises(WorldError, match="refused"):
        registry.mirror("7")
    with pytest.raises(WorldError, match="refused"):
        registry.source_of("7")


def test_a_run_keeps_parameters_and_metrics_and_is_finished(registry, client):
    with registry.run("demo 2026-01-05", {"epochs": 2, "long": "x" * 7000}) as run:
        run.metrics({"loss": 0.7, "learning_rate": 1e-3}, 10)
        run.metrics({"loss": 0.5}, 20)
    found = client.get_run(run.run_id)
    assert found.info.run_name == "demo 2026-01-05"
    assert found.info.status == "FINISHED"
    assert found.data.params["epochs"] == "2"
    assert len(found.data.params["long"]) == 6000
    history = [
        (metric.step, metric.value) for metric in client.get_metric_history(run.run_id, "loss")
    ]
    assert history == [(10, 0.7), (20, 0.5)]


def test_runs_of_a_project_lie_in_one_experiment_beside_their_artifacts(registry, client, tmp_path):
    for name in ("a", "b"):
        with registry.run(name, {}):
            pass
    experiment = client.get_experiment_by_name("demo")
    assert experiment.artifact_location.startswith((tmp_path / "mlartifacts").as_uri())
    assert len(client.search_runs([experiment.experiment_id])) == 2


@pytest.mark.parametrize("error", [ValueError("diverged"), KeyboardInterrupt()])
def test_a_run_that_breaks_off_is_marked_as_failed(registry, client, error):
    with pytest.raises(type(error)), registry.run("a", {}) as run:
        raise error
    assert client.get_run(run.run_id).info.status == "FAILED"


def test_a_version_knows_the_run_that_trained_it(registry, client):
    with registry.run("a", {}) as run:
        pass
    version = registry.register(ONE, "file:///one", run.run_id, {})
    assert client.get_model_version("demo", version).run_id == run.run_id
