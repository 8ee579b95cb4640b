"""A person's decisions about challengers, on the store of a toy project."""

from __future__ import annotations

import getpass
import json
from datetime import UTC, datetime

import pandas as pd
import pytest

from components import bundle, home
from components.candidates import Candidate, Candidates
from components.erasures import Erasures
from components.errors import BadInput, Frozen
from components.ledger import Ledger
from components.records import Records
from components.tasks.text_classification import TextClassifier
from pipelines.adopt import adopt
from pipelines.cli import main
from pipelines.history import standings
from pipelines.project_file import load
from pipelines.promotion import promote, reject
from pipelines.replay import publish_champion

TEXTS = ["the film was good", "a very dull story", "awful and bad"]


class World:
    """Two challengers of the toy project that a run left."""

    def __init__(self, config, make_bundle, folder):
        self.config = config
        self.store = home.store()
        self.ledger = Ledger(self.store, config.ledger)
        self.candidates = Candidates(self.store, config.ledger)
        self.digests = {}
        for seed in (1, 2):
            made = make_bundle(seed)
            digest = self.digests[str(seed)] = bundle.publish(self.store, made)
            place = self.store.uri(bundle.key_of(digest))
            home.registry(config.name).register(digest, place, None, {})
            model = TextClassifier.load(made)
            table = pd.DataFrame(
                model.predict(TEXTS), columns=[f"output_{label}" for label in model.labels]
            )
            at = folder / str(seed)
            at.mkdir()
            table.assign(text=TEXTS).to_parquet(at / "predictions.parquet")
            self.keep(str(seed), at)

    def keep(self, version, predictions, verdict="promote", generation=0):
        self.candidates.keep(
            Candidate(
                version=version,
                bundle=self.digests[version],
                verdict=verdict,
                reason="not told apart from champion",
                run="run-1",
                generation=generation,
                at=f"2026-01-12T00:00:0{version}+00:00",
            ),
            predictions,
        )

    def states(self):
        return {each.candidate.version: each.state for each in standings(self.config)}


@pytest.fixture
def world(toy_desk, make_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(toy_desk.folder)
    monkeypatch.setenv("TOKIWA_HOME", str(toy_desk.home))
    return World(load("toy.yaml"), make_bundle, tmp_path)


def test_without_a_champion_all_name_the_candidate_and_the_command(world, tmp_path, capsys):
    way = "version 2 waits for approval; promote it: tokiwa promote toy.yaml 2 --reason …"
    for command, code in ((["status"], 0), (["history"], 0), (["predict", "a film"], 1)):
        assert main([command[0], "toy.yaml", *command[1:]]) == code
        assert way in "".join(capsys.readouterr())
    world.keep("2", tmp_path / "2", verdict="inconclusive")
    world.candidates.reject("1", "a person", "it is rude")
    assert main(["status", "toy.yaml"]) == 0
    assert (
        "toy has no champion yet; version 2 is inconclusive (not told apart from champion); train "
        "on more rows, or promote it in spite of that: tokiwa promote toy.yaml 2 --force --reason …"
    ) in capsys.readouterr().out
    assert main(["status", "toy.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["candidate"]
    assert (told["version"], told["state"]) == ("2", "inconclusive")


def test_status_names_a_candidate_that_waits_beside_a_champion(world, tmp_path, capsys):
    assert main(["promote", "toy.yaml", "1", "--reason", "it is kind"]) == 0
    assert main(["status", "toy.yaml"]) == 0
    assert "waits for approval" not in capsys.readouterr().out, "it was compared with another"
    world.keep("2", tmp_path / "2", generation=1)
    assert main(["status", "toy.yaml"]) == 0
    assert "version 2 waits for approval: tokiwa promote toy.yaml 2" in capsys.readouterr().out


def test_what_may_have_learnt_from_forgotten_rows_takes_force(world):
    window = {"start": "2026-01-05T00:00:00+00:00", "end": "2026-01-12T00:00:00+00:00"}
    plan = {"erasures": 0, "data": {"windows": [{"window": window}]}}
    Records(world.store, world.config.ledger, "run-1").write("resolve", {"plan": plan})
    erasures = Erasures(world.store, world.config.ledger)
    now = datetime(2026, 2, 1, tzinfo=UTC)
    erasures.add("id", ["r1"], "ann", "asked to", now, windows=["2026-01-12"])
    assert world.candidates.forgotten(world.candidates.find("1")) == ""
    erasures.add("id", ["r2"], "ann", "asked to", now, windows=["2026-01-05"])
    with pytest.raises(BadInput, match=r"were forgotten after its run began \(record 2\).*--force"):
        promote(world.config, "toy.yaml", "1", "looks fine", force=False)
    assert world.ledger.head() is None
    promote(world.config, "toy.yaml", "1", "looks fine", force=True)
    assert "in spite of: rows that it may have learnt" in world.ledger.head().reason


def test_a_waiting_challenger_is_promoted_by_a_person(world):
    assert world.states() == {"1": "waiting", "2": "waiting"}
    report = promote(world.config, "toy.yaml", "1", "looks fine", force=False)
    head = world.ledger.head()
    assert (report.number, head.bundle, head.version) == (1, world.digests["1"], "1")
    assert (head.by, head.reason) == (getpass.getuser(), "looks fine")
    assert report.parity.rows == len(TEXTS)
    assert world.states()["1"] == "champion"
    with pytest.raises(BadInput, match="is the champion already"):
        promote(world.config, "toy.yaml", "1", "again", force=True)


def test_what_was_compared_with_another_champion_takes_force(world):
    promote(world.config, "toy.yaml", "1", "first", force=False)
    with pytest.raises(BadInput, match=r"compared with generation 0, and 1 serves now.*--force"):
        promote(world.config, "toy.yaml", "2", "second", force=False)
    promote(world.config, "toy.yaml", "2", "second", force=True)
    assert world.ledger.head().reason == (
        "second (in spite of: it was compared with generation 0, and 1 serves now)"
    )
    assert world.states() == {"1": "promoted", "2": "champion"}


def test_what_the_gate_kept_back_takes_force(world, tmp_path):
    world.keep("2", tmp_path / "2", verdict="keep")
    assert world.states()["2"] == "kept"
    with pytest.raises(BadInput, match=r"the gate said keep \(not told apart from champion\)"):
        promote(world.config, "toy.yaml", "2", "I know better", force=False)
    assert world.ledger.head() is None
    promote(world.config, "toy.yaml", "2", "I know better", force=True)
    assert "in spite of: the gate said keep" in world.ledger.head().reason


def test_what_was_turned_down_takes_force(world):
    reject(world.config, "1", "it is rude")
    assert world.states()["1"] == "rejected"
    with pytest.raises(BadInput, match=r"turned it down \(it is rude\)"):
        promote(world.config, "toy.yaml", "1", "no, it is not", force=False)
    promote(world.config, "toy.yaml", "1", "no, it is not", force=True)
    with pytest.raises(BadInput, match="is the champion; promote another"):
        reject(world.config, "1", "after all")


def test_a_freeze_needs_a_reason_and_the_first_one_stands(world, capsys):
    for empty in ("", "  "):
        assert main(["freeze", "toy.yaml", "--reason", empty]) == 2
        assert "--reason is empty; say in one sentence why" in capsys.readouterr().err
    assert main(["status", "toy.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frozen"] is None
    assert main(["freeze", "toy.yaml", "--reason", "an incident"]) == 0
    capsys.readouterr()
    assert main(["freeze", "toy.yaml", "--reason", "an audit"]) == 0
    said = capsys.readouterr().out
    assert "toy is already, and nothing was changed: frozen by" in said
    assert "an incident" in said and "an audit" not in said


def test_nobody_is_promoted_while_the_project_is_frozen(world, capsys):
    assert main(["freeze", "toy.yaml", "--reason", "an incident"]) == 0
    assert f"toy is frozen by {getpass.getuser()} at " in capsys.readouterr().out
    assert main(["promote", "toy.yaml", "1", "--reason", "fine", "--force"]) == 1
    assert "a promotion was stopped: frozen by" in capsys.readouterr().err
    with pytest.raises(Frozen, match="an adoption was stopped"):
        adopt(world.config, "toy.yaml", "nowhere", "latest", lambda done, total, what: None)
    with pytest.raises(Frozen, match="the publication of a replay was stopped"):
        publish_champion(world.config, Ledger(world.store, "replays/toy/1"), "1", 0)
    assert main(["status", "toy.yaml"]) == 0
    assert "an incident" in capsys.readouterr().out
    assert world.ledger.head() is None
    assert main(["thaw", "toy.yaml", "--reason", "solved", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frozen"] is False
    promote(world.config, "toy.yaml", "1", "fine", force=False)
    assert world.ledger.head().version == "1"


def test_a_project_that_trusts_keys_promotes_what_was_signed(world, capsys, make_key, monkeypatch):
    private, public = make_key()
    keys = ("--set", f"deploy.trusted_keys={json.dumps([public])}")
    signs = ("--set", "register.signing_key_env=TOKIWA_SIGNING_KEY")
    promoted = ["promote", "toy.yaml", "1", "--reason", "fine", *keys]
    assert main(promoted) == 1
    assert "is not signed, and the project trusts" in capsys.readouterr().err
    assert main(["sign", "toy.yaml", "1"]) == 2
    assert "toy has no register.signing_key_env" in capsys.readouterr().err
    assert main(["sign", "toy.yaml", "1", *signs]) == 2
    assert "names TOKIWA_SIGNING_KEY, which is not set here" in capsys.readouterr().err
    monkeypatch.setenv("TOKIWA_SIGNING_KEY", private)
    assert main(["sign", "toy.yaml", "9", *signs]) == 2
    assert "no candidate with version 9" in capsys.readouterr().err
    assert main(["sign", "toy.yaml", "1", *signs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle"] == world.digests["1"]
    assert main(promoted) == 0
    assert world.ledger.head().version == "1"


def test_the_commands_say_what_they_did(world, capsys):
    assert main(["candidates", "toy.yaml", "--json"]) == 0
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == ["waiting"] * 2
    assert main(["reject", "toy.yaml", "2", "--reason", "it is rude"]) == 0
    assert "version 2 is turned down by" in capsys.readouterr().out
    assert main(["promote", "toy.yaml", "1", "--reason", "fine"]) == 0
    assert "version 1 is the champion, generation 1" in capsys.readouterr().out
    assert main(["promote", "toy.yaml", "9", "--reason", "fine"]) == 2
    assert "there is no candidate with version 9; there are 1, 2" in capsys.readouterr().err
    assert main(["promote", "toy.yaml", "2"]) == 2
