from __future__ import annotations

import shutil
from datetime import UTC, datetime

import pandas as pd
import pytest
from mlflow import MlflowClient

from components import bundle
from components.deploy.config import DeployConfig
from components.deploy.core import deploy, parity
from components.errors import BundleError, Frozen, StalePromotion
from components.evaluate.core import EvaluateConfig, evaluate
from components.freeze import Freezes
from components.ledger import Ledger
from components.registry import ALIAS
from components.request_log import COLUMNS, RequestLog, new_file
from components.rollout.record import Rollouts
from components.serve.model import MAX_CHARACTERS, BundleModel
from components.signature import SigningKey
from components.store import LocalStore
from components.tasks.text_classification import TextClassifier

TEXTS = ["the film was good", "a very dull story", "", "awful and bad"] * 5


class World:
    """Two challengers that are registered, and what it takes to deploy them."""

    def __init__(self, folder, registry, make_bundle):
        self.folder = folder
        self.store = LocalStore(folder / "objects")
        self.ledger = Ledger(self.store, "projects/demo")
        self.freezes = Freezes(self.store, "projects/demo")
        self.registry = registry
        self.digests, self.versions = {}, {}
        for seed in (1, 2):
            digest = self.digests[seed] = bundle.publish(self.store, make_bundle(seed))
            self.versions[seed] = registry.register(
                digest, self.store.uri(bundle.key_of(digest)), None, {}
            )
            self.predict(seed, make_bundle(seed))

    def predict(self, seed, made, texts=TEXTS):
        """Write what the evaluation of a bundle leaves behind."""
        classifier = TextClassifier.load(made)
        table = pd.DataFrame(
            classifier.predict(texts),
            columns=[f"output_{label}" for label in classifier.labels],
        )
        (self.folder / str(seed)).mkdir(exist_ok=True)
        table.assign(text=texts).to_parquet(self.folder / str(seed) / "predictions.parquet")

    def deploy(
        self,
        seed,
        *,
        generation,
        run="run-1",
        predictions=None,
        by_hand=False,
        forgotten="",
        **config,
    ):
        return deploy(
            self.digests[seed],
            self.folder / str(predictions or seed),
            version=self.versions[seed],
            generation=generation,
            code="code",
            key=f"{run}/{self.digests[seed]}",
            by=f"run {run}",
            reason="better than champion",
            project="demo",
            store=self.store,
            ledger=self.ledger,
            freezes=self.freezes,
            rollouts=Rollouts(self.store, "projects/demo"),
            requests=RequestLog(self.store, "projects/demo"),
            registry=self.registry,
            config=DeployConfig(**config),
            by_hand=by_hand,
            forgotten=forgotten,
        )


@pytest.fixture
def world(tmp_path, registry, make_bundle):
    return World(tmp_path, registry, make_bundle)


@pytest.fixture
def alias(tracking_uri):
    """The version that MLflow calls champion, None without one."""

    def read():
        model = MlflowClient(tracking_uri).get_registered_model("demo")
        found = model.aliases.get(ALIAS)
        return None if found is None else str(found)

    return read


def test_a_promotion_becomes_the_head_of_the_ledger_and_the_alias_follows(world, alias):
    report = world.deploy(1, generation=0)
    head = world.ledger.head()
    assert (report.number, report.version) == (1, "1")
    assert (head.bundle, head.version, head.action) == (world.digests[1], "1", "promote")
    assert head.reason == "better than champion"
    assert head.by == "run run-1"
    assert alias() == "1"
    assert report.headline == "version 1 serves as generation 1"
    assert world.deploy(2, generation=1, run="run-2").number == 2
    assert alias() == "2"


def test_only_what_a_trusted_key_signed_is_promoted(world, make_key):
    (ours, public), (other, _) = make_key(), make_key()
    with pytest.raises(BundleError, match="is not signed, and the project trusts"):
        world.deploy(1, generation=0, trusted_keys=[public])
    SigningKey(other, "other").sign(world.store, world.digests[1])
    with pytest.raises(BundleError, match="is signed by"):
        world.deploy(1, generation=0, trusted_keys=[public], by_hand=True)
    assert world.ledger.head() is None
    SigningKey(ours, "ours").sign(world.store, world.digests[1])
    assert world.deploy(1, generation=0, trusted_keys=[public]).number == 1


def test_what_was_altered_after_it_was_signed_is_not_promoted(world, make_key):
    private, public = make_key()
    SigningKey(private, "ours").sign(world.store, world.digests[1])
    place = world.store.local_path(f"{bundle.key_of(world.digests[1])}/{bundle.MANIFEST}")
    # A whole other bundle under the name of the one that was signed.
    shutil.rmtree(place.parent)
    shutil.copytree(world.store.local_path(bundle.key_of(world.digests[2])), place.parent)
    with pytest.raises(BundleError, match="holds bundle"):
        world.deploy(1, generation=0, trusted_keys=[public])
    assert world.ledger.head() is None


def test_a_retry_is_the_same_promotion(world, alias):
    first = world.deploy(1, generation=0)
    assert world.deploy(1, generation=0) == first
    assert world.ledger.generation == 1
    assert alias() == "1"


def test_a_retry_after_somebody_elses_promotion_does_not_turn_the_alias_back(world, alias):
    first = world.deploy(1, generation=0)
    world.deploy(2, generation=1, run="run-2")
    assert world.deploy(1, generation=0) == first
    assert world.ledger.head().version == "2"
    assert alias() == "2"


def test_a_retry_repairs_the_alias(world, alias, tracking_uri):
    world.deploy(1, generation=0)
    MlflowClient(tracking_uri).delete_registered_model_alias("demo", ALIAS)
    world.deploy(1, generation=0)
    assert alias() == "1"


def test_a_model_of_rows_that_were_forgotten_meanwhile_changes_nothing(world, alias):
    with pytest.raises(StalePromotion, match="not promoted: rows were forgotten; run again"):
        world.deploy(1, generation=0, forgotten="rows were forgotten")
    assert world.ledger.head() is None
    first = world.deploy(1, generation=0)
    # A retry of what was done before is the same act.
    assert world.deploy(1, generation=0, forgotten="rows were forgotten") == first


def test_a_stale_promotion_changes_nothing(world, alias):
    world.deploy(1, generation=0)
    with pytest.raises(StalePromotion, match="expected generation 0"):
        world.deploy(2, generation=0, run="run-2")
    assert world.ledger.generation == 1
    assert world.ledger.head().version == "1"
    assert alias() == "1"


def test_a_replay_leaves_the_alias_alone(world, alias):
    world.deploy(1, generation=0, mirror_alias=False)
    assert world.ledger.generation == 1
    assert alias() is None


def test_a_bundle_that_answers_otherwise_than_evaluated_is_not_promoted(world):
    with pytest.raises(BundleError, match="answers differently in the server"):
        world.deploy(1, generation=0, predictions=2)
    assert world.ledger.generation == 0


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_one_wrong_output_is_enough(world, value):
    path = world.folder / "1" / "predictions.parquet"
    table = pd.read_parquet(path)
    table.loc[7, "output_positive"] = value
    table.to_parquet(path)
    with pytest.raises(BundleError, match="answers differently"):
        world.deploy(1, generation=0)
    assert world.deploy(1, generation=0, parity_rows=7).parity.rows == 7


def test_a_failed_proof_is_not_taken_for_one_later(world):
    for _ in range(2):
        with pytest.raises(BundleError, match="answers differently"):
            world.deploy(1, generation=0, predictions=2)
    assert world.deploy(1, generation=0).number == 1


def test_the_tolerance_allows_for_rounding_and_no_more(world):
    path = world.folder / "1" / "predictions.parquet"
    table = pd.read_parquet(path)
    table["output_positive"] += 5e-4
    table.to_parquet(path)
    found = parity(world.digests[1], path.parent, world.store, DeployConfig())
    assert found.max_difference == pytest.approx(5e-4, abs=1e-5)
    with pytest.raises(BundleError, match="answers differently"):
        world.deploy(1, generation=0, parity_tolerance=1e-4)


@pytest.mark.parametrize("what", ["altered", "absent"])
def test_a_bundle_that_does_not_load_is_not_promoted(world, what):
    path = world.store.local_path(f"{bundle.key_of(world.digests[1])}/config.json")
    if what == "altered":
        path.write_text("{}")
    else:
        path.unlink()
    with pytest.raises(BundleError):
        world.deploy(1, generation=0)
    assert world.ledger.generation == 0


def test_so_many_rows_are_answered_again(world):
    found = parity(world.digests[1], world.folder / "1", world.store, DeployConfig(parity_rows=3))
    assert found.rows == 3
    assert found.max_difference < 1e-5


def test_texts_that_no_request_may_carry_are_left_out(world, make_bundle):
    world.predict(1, make_bundle(1), ["a " * MAX_CHARACTERS, "good"])
    assert world.deploy(1, generation=0).parity.rows == 1


def test_what_was_proved_once_is_not_proved_again(world, monkeypatch):
    world.deploy(1, generation=0)
    monkeypatch.setattr(BundleModel, "load", lambda *args: pytest.fail("proved again"))
    assert world.deploy(1, generation=0).parity.rows == len(TEXTS)


# --- every kind of task ---


@pytest.fixture
def evaluated(case_of, learnt, tmp_path):
    """Publish a model of a kind of task, and evaluate it; give store, digest and predictions."""

    def run(kind):
        case, store = case_of(kind), LocalStore(tmp_path / "others")
        digest = bundle.publish(store, learnt(kind))
        folder = tmp_path / f"evaluated-{kind}"
        evaluate(case.prepared, learnt(kind), None, folder, case.task, EvaluateConfig())
        return store, digest, folder

    return run


def test_models_of_every_kind_answer_in_the_server_as_they_were_evaluated(evaluated, kind):
    store, digest, folder = evaluated(kind)
    found = parity(digest, folder, store, DeployConfig(parity_rows=256))
    assert found.rows == len(pd.read_parquet(folder / "predictions.parquet")) > 20
    assert found.max_difference < 1e-5


def test_answers_are_compared_as_a_share_of_their_range(evaluated):
    store, digest, folder = evaluated("text-regression")  # from -2 to 2
    table = pd.read_parquet(folder / "predictions.parquet")
    table["output_value"] += 0.004
    table.to_parquet(folder / "predictions.parquet")
    found = parity(digest, folder, store, DeployConfig(parity_tolerance=2e-3))
    assert found.max_difference == pytest.approx(1e-3, abs=1e-5)
    with pytest.raises(BundleError, match="answers differently"):
        parity(digest, folder, store, DeployConfig(parity_tolerance=5e-4))


def test_in_a_frozen_project_a_proved_challenger_waits_and_a_person_is_stopped(world):
    world.freezes.set(frozen=True, by="eve", reason="an incident", at=datetime.now(UTC))
    report = world.deploy(1, generation=0)
    assert (report.waits, report.number) == (True, 0)
    assert "frozen by eve" in report.frozen
    with pytest.raises(Frozen, match=r"a promotion was stopped: .*tokiwa thaw"):
        world.deploy(1, generation=0, by_hand=True)
    assert world.ledger.head() is None
    world.freezes.set(frozen=False, by="eve", reason="solved", at=datetime.now(UTC))
    assert world.deploy(1, generation=0).number == 1


def test_where_approval_is_required_a_proved_challenger_waits(world):
    report = world.deploy(1, generation=0, approval="required")
    assert (report.waits, report.number, report.parity.rows) == (True, 0, len(TEXTS))
    assert world.ledger.head() is None
    assert report.headline == "version 1 is proved, and waits for a person to promote it"


ROLLOUT = {"stages": [{"kind": "canary", "share": 0.1, "requests": 10}]}


def test_beside_a_live_server_a_challenger_is_tried_first(world):
    world.deploy(1, generation=0)
    Rollouts(world.store, "projects/demo").beat("server", datetime.now(UTC))
    report = world.deploy(2, generation=1, run="run-2", rollout=ROLLOUT)
    assert (report.number, report.rollout) == (0, "canary 10%")
    assert report.headline == "version 2 is in rollout: canary 10%, begun: better than champion"
    assert world.ledger.generation == 1
    # A retry is the same rollout.
    assert world.deploy(2, generation=1, run="run-2", rollout=ROLLOUT) == report
    assert len(Rollouts(world.store, "projects/demo").all()) == 1


def test_without_a_live_server_or_by_hand_it_is_promoted_at_once(world):
    assert world.deploy(1, generation=0, rollout=ROLLOUT).number == 1
    Rollouts(world.store, "projects/demo").beat("server", datetime.now(UTC))
    assert world.deploy(2, generation=1, rollout=ROLLOUT, by_hand=True).number == 2


@pytest.mark.slow
def test_what_servers_were_asked_is_asked_again(world):
    now = datetime.now(UTC).isoformat()
    row = dict.fromkeys(COLUMNS) | {"id": "1", "time": now, "text": "the film was good"}
    RequestLog(world.store, "projects/demo").write(new_file(datetime.now(UTC)), [row] * 3)
    assert world.deploy(1, generation=0, max_latency_ms=60_000).parity.cost.requests == 3


@pytest.mark.slow
def test_a_bundle_over_its_budget_is_not_promoted(world):
    assert world.deploy(1, generation=0, max_memory_mib=20_000).parity.cost.memory_mib > 50
    for budget, says in (
        ({"max_latency_ms": 1e-3}, "is too slow: 95 %"),
        ({"max_memory_mib": 20}, "too much memory"),
    ):
        with pytest.raises(BundleError, match=says):
            world.deploy(2, generation=1, run="run-2", **budget)
    assert world.ledger.generation == 1
