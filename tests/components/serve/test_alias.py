"""MLflow's alias follows promotions that servers make, and holds nobody up."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from components import bundle
from components.registry import ALIAS
from components.serve import alias
from components.serve.alias import AliasKeeper, command_of


def served(number, version="v"):
    return SimpleNamespace(entry=SimpleNamespace(number=number, version=version))


class Champion:
    """Who serves now, by the number of the ledger's entry."""

    now = None

    def __call__(self):
        return self.now


@pytest.fixture
def champion(monkeypatch):
    monkeypatch.setattr(alias, "LOOK_S", 0.01)
    monkeypatch.setattr(alias, "FIRST_REST_S", 0.01)
    return Champion()


def noting(path, code=0):
    """Return a command that adds a character to a file, and ends with a code."""
    script = f"import sys; open({str(path)!r}, 'a').write('x'); print('away', file=sys.stderr)"
    return [sys.executable, "-c", f"{script}; sys.exit({code})"]


@pytest.mark.slow
def test_the_alias_follows_the_ledger(world, champion, until, registry, tracking_uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    digests = [world.publish(seed) for seed in (1, 2)]
    for digest in digests:
        source = world.store.uri(bundle.key_of(digest))
        version = registry.register(digest, source, None, {})
        world.promote(digest, version=version)
    registry.mirror("1")
    client = MlflowClient(tracking_uri)

    def said():
        return str(client.get_registered_model("demo").aliases.get(ALIAS))

    champion.now = served(1, "1")
    keeper = AliasKeeper(champion, command_of(str(world.store.root), world.prefix, "demo"))
    with keeper.following():
        time.sleep(0.1)
        champion.now = served(2, "2")
        until(lambda: said() == "2", "the alias")


def test_only_a_change_is_told(champion, until, tmp_path):
    path = tmp_path / "told"
    champion.now = served(3)
    with AliasKeeper(champion, noting(path)).following():
        time.sleep(0.1)
        assert not path.exists(), "it was champion before"
        champion.now = served(4, version="")
        time.sleep(0.1)
        assert not path.exists(), "it has no version"
        champion.now = served(5)
        until(path.exists, "the change")
        time.sleep(0.2)
    assert path.read_text() == "x"


def test_what_fails_is_tried_again_and_told_once(champion, until, tmp_path, caplog):
    path = tmp_path / "told"
    champion.now = served(1)
    with AliasKeeper(champion, noting(path, code=1)).following():
        time.sleep(0.1)
        champion.now = served(2)
        until(lambda: path.exists() and len(path.read_text()) >= 3, "three attempts")
    assert caplog.text.count("MLflow's alias cannot follow yet: away") == 1


@pytest.mark.slow
def test_an_mlflow_that_is_away_holds_nobody_up(world, champion, until, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    world.promote(world.publish(1), version="1")
    champion.now = served(1)
    keeper = AliasKeeper(champion, command_of(str(world.store.root), world.prefix, "demo"))
    with keeper.following():
        time.sleep(0.1)
        champion.now = served(2)
        until(lambda: "MLflow's alias cannot follow yet" in caplog.text, "a word of it")
