from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import components
from components.finetune.processes import Processes

SCRIPT = """
import numpy as np, torch
from torch import distributed, nn
from components.finetune.processes import Processes

distributed.init_process_group("gloo")
ours = Processes()
mine = ours.share(np.arange(5))
assert mine.tolist() == [[0, 2, 4], [1, 3]][ours.rank]
assert ours.most(5) == 3 and ours.most(4) == 2 and ours.most(0) == 0
assert ours.any(ours.rank == 1) and not ours.any(False)
assert ours.summed(torch.tensor([1.0, float(ours.rank)])) == [2.0, 1.0]
assert ours.gathered({"rank": ours.rank}) == [{"rank": 0}, {"rank": 1}]

torch.manual_seed(0)
network = nn.Sequential(nn.Linear(3, 5), nn.ModuleList([nn.Linear(5, 5)])[0])
plain = {name: each.detach().clone() for name, each in network.named_parameters()}
ours.sharded(network, torch.device("cpu"))
for name, weight in network.named_parameters():
    assert weight.to_local().numel() < plain[name].numel()
    assert torch.equal(ours.whole(weight.detach()), plain[name])
    again = ours.spread(plain[name], weight)
    assert torch.equal(again.to_local(), weight.detach().to_local())
network(torch.ones(1, 3))
assert all(hasattr(weight, "full_tensor") for weight in network.parameters())

ours.wait()
distributed.destroy_process_group()
print("fine")
"""


@pytest.mark.slow
def test_two_processes_share_gather_and_spread(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env={
            **os.environ,
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(components.__file__).parents[1]),
        },
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["fine", "fine"]


def test_a_single_process_has_everything_and_waits_for_nobody():
    alone = Processes()
    assert (alone.rank, alone.count) == (0, 1)
    rows = np.arange(5)
    assert alone.share(rows).tolist() == rows.tolist()
    assert alone.most(5) == 5
    assert alone.any(True) and not alone.any(False)
    assert alone.summed(torch.tensor([1.0, 2.0])) == [1.0, 2.0]
    assert alone.gathered("value") == ["value"]
    network = nn.Linear(2, 2)
    assert alone.wrapped(network, torch.device("cpu")) is network
    assert alone.whole(network.weight) is network.weight
    assert alone.spread(network.bias, network.weight) is network.bias
    alone.wait()
