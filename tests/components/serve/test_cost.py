"""What answers cost, kept in the store."""

from __future__ import annotations

import asyncio

import pytest

from components.errors import StoreError
from components.serve.config import CostConfig, ServeConfig
from components.serve.cost import CostKeeper
from components.serve.metrics import Metrics
from components.serving_costs import ServingCosts, Spent
from components.store import LocalStore


class Flaky(LocalStore):
    """A store that can go away."""

    away = False

    def put(self, key, data):
        if self.away:
            raise StoreError("gone")
        super().put(key, data)


def test_servers_add_up_what_a_version_cost(tmp_path):
    costs = ServingCosts(LocalStore(tmp_path), "p")
    for price in (3600.0, 0.0):  # of which the second server was told none
        metrics = Metrics("test", price)
        metrics.batch("7", 100, 0.5)
        metrics.batch("7", 300, 1.5)
        metrics.batch("8", 10, 1.0)
        asyncio.run(CostKeeper(costs, metrics).flush())
    found = costs.by_version()
    assert found["7"] == Spent(predictions=800, device_seconds=4.0, money=2.0)
    assert found["7"].device_seconds_per_1000 == 5.0
    assert found["7"].money_per_1000 == 2.5
    assert found["8"].predictions == 20


def test_costs_are_written_again_when_the_store_is_back(tmp_path, caplog):
    store = Flaky(tmp_path)
    costs, metrics = ServingCosts(store, "p"), Metrics("test")
    keeper = CostKeeper(costs, metrics)
    store.away = True
    metrics.batch("7", 1, 0.5)
    asyncio.run(keeper.flush())
    asyncio.run(keeper.flush())
    assert caplog.text.count("costs cannot be kept: gone") == 1
    store.away = False
    asyncio.run(keeper.flush())
    assert costs.by_version() == {"7": Spent(predictions=1, device_seconds=0.5)}
    assert costs.by_version()["7"].money_per_1000 is None


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b'{"versions": {"7": 3}}'])
def test_a_damaged_file_hides_no_other(tmp_path, content):
    store = LocalStore(tmp_path)
    costs = ServingCosts(store, "p")
    costs.keep("one", {"7": Spent(predictions=2, device_seconds=1.0)})
    store.put("p/costs/two.json", content)
    assert costs.by_version() == {"7": Spent(predictions=2, device_seconds=1.0)}


@pytest.mark.slow
def test_a_server_leaves_its_costs_when_it_ends(world, until, running):
    world.promote(world.publish(1), version="7")
    config = ServeConfig(cost=CostConfig(price_per_hour=36.0))
    with running(world, config=config) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        client.post("/v1/models/demo:predict", json={"instances": ["good", "bad"]})
    spent = ServingCosts(world.store, world.prefix).by_version()["7"]
    assert spent.predictions == 2
    assert spent.money == pytest.approx(spent.device_seconds / 100)
