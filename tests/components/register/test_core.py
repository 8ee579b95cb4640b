from __future__ import annotations

import json
import shutil

import pytest
from mlflow import MlflowClient

from components import bundle
from components.candidates import Candidates
from components.errors import BundleError
from components.register.core import Evidence, RegisterConfig, register
from components.signature import SigningKey, require
from components.store import LocalStore

SCORES = {"challenger": {"test": {"rows": 60.0, "accuracy": 0.9, "macro_f1": 0.89}}}


def evidence(verdict):
    return Evidence(verdict=verdict, reasons=["better than champion", "guarded"], scores=SCORES)


@pytest.fixture
def challenger(make_bundle, seal_bundle, tmp_path):
    """A sealed bundle with a lineage."""
    folder = shutil.copytree(make_bundle(1), tmp_path / "challenger")
    (folder / bundle.MANIFEST).unlink()
    seal_bundle(folder, lineage={"data": "d" * 64, "window_end": "2026-01-12T00:00:00+00:00"})
    return folder


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "objects")


@pytest.fixture
def enter(store, registry, tmp_path):
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    (predictions / "predictions.parquet").write_bytes(b"rows")

    def run(
        folder,
        *,
        verdict="promote",
        training_run="",
        cause="drift",
        run="run-1",
        signing_key=None,
        **config,
    ):
        return register(
            folder,
            predictions,
            evidence(verdict),
            store=store,
            candidates=Candidates(store, "projects/demo"),
            registry=registry,
            cause=cause,
            run=run,
            training_run=training_run,
            generation=3,
            device_hours=0.5,
            signing_key=signing_key,
            config=RegisterConfig(**config),
        )

    return run


def test_a_version_is_signed_with_the_key_of_the_project(enter, challenger, store, make_key):
    private, public = make_key()
    report = enter(challenger, signing_key=SigningKey(private, "ours"))
    require(store, report.bundle, [public])
    with pytest.raises(BundleError, match="is signed by"):
        require(store, report.bundle, [make_key()[1]])


def test_a_challenger_is_published_and_gets_a_version(enter, store, registry, challenger, tmp_path):
    report = enter(challenger)
    assert report.bundle == bundle.digest_of_folder(challenger)
    bundle.verify(bundle.fetch(store, report.bundle, tmp_path / "cache"), report.bundle)
    assert registry.source_of(report.version) == report.source
    assert report.source == store.uri(f"bundles/{report.bundle}")
    assert (report.reason, report.checks) == (
        "better than champion",
        ["better than champion", "guarded"],
    )
    assert report.scores == SCORES
    assert report.device_hours == 0.5
    assert report.headline == "version 1, verdict promote"


@pytest.mark.parametrize("verdict", ["promote", "keep", "inconclusive"])
def test_every_verdict_is_registered_with_lineage_and_tags(
    enter, tracking_uri, challenger, verdict
):
    report = enter(challenger, verdict=verdict, tags={"team": "demo"})
    tags = MlflowClient(tracking_uri).get_model_version("demo", report.version).tags
    assert tags == {
        "team": "demo",
        "tokiwa.bundle": report.bundle,
        "tokiwa.verdict": verdict,
        "tokiwa.trigger": "drift",
        "tokiwa.run": "run-1",
        "tokiwa.data": "d" * 64,
        "tokiwa.window_end": "2026-01-12T00:00:00+00:00",
    }


def test_doing_it_again_changes_nothing_but_the_tags(enter, store, tracking_uri, challenger):
    first = enter(challenger, verdict="inconclusive")
    kept = store.list()
    again = enter(challenger, verdict="promote", run="run-2")
    assert (again.version, again.bundle) == (first.version, first.bundle)
    assert store.list() == kept
    tags = MlflowClient(tracking_uri).get_model_version("demo", first.version).tags
    assert (tags["tokiwa.verdict"], tags["tokiwa.run"]) == ("promote", "run-2")


def test_another_challenger_is_another_version(enter, make_bundle):
    assert [enter(make_bundle(seed)).version for seed in (1, 2, 1)] == ["1", "2", "1"]


def test_the_version_leads_to_the_run_that_trained_it(enter, registry, tracking_uri, challenger):
    with registry.run("demo", {}) as training:
        pass
    report = enter(challenger, training_run=training.run_id)
    found = MlflowClient(tracking_uri).get_model_version("demo", report.version)
    assert found.run_id == training.run_id


def test_the_version_carries_a_model_card(enter, tracking_uri, challenger):
    report = enter(challenger)
    client = MlflowClient(tracking_uri)
    found = client.get_model_version("demo", report.version).description
    assert found.startswith("# text-classification: promote\n")
    enter(challenger, verdict="keep", run="run-2")
    again = client.get_model_version("demo", report.version).description
    assert again.startswith("# text-classification: keep\n")


def test_an_altered_challenger_is_neither_published_nor_registered(
    enter, store, tracking_uri, challenger
):
    (challenger / "config.json").write_text("{}")
    with pytest.raises(BundleError, match="altered"):
        enter(challenger)
    assert store.list() == []
    assert MlflowClient(tracking_uri).search_registered_models() == []


def test_the_gates_report_is_read_for_what_matters(tmp_path):
    report = {
        "verdict": "keep",
        "checks": [
            {"reason": "worse", "verdict": "failed", "required": True},
            {"reason": "open", "verdict": "undecided", "required": True},
            {"reason": "guarded", "verdict": "passed", "required": True},
            {"reason": "no champion", "verdict": "skipped", "required": True},
            {"reason": "unsure", "verdict": "failed", "required": False},
            {"reason": "fair", "verdict": "passed", "required": False},
        ],
        "power": "little",
        "scores": SCORES,
        "labels": ["a", "b"],
    }
    (tmp_path / "report").write_text(json.dumps(report))
    assert Evidence.read(tmp_path / "report") == Evidence(
        verdict="keep",
        reasons=["worse", "open", "guarded", "warning: unsure"],
        scores=SCORES,
        power="little",
    )
