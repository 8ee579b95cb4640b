from __future__ import annotations

import numpy as np
import pytest
import torch

from components.errors import WorldError
from components.finetune.memory import available_bytes, explaining_memory, out_of_memory

MEMINFO = "MemTotal:  9000 kB\nMemFree:  100 kB\nMemAvailable:  8000 kB\n"


@pytest.fixture
def machine(tmp_path):
    """The files of a machine that has 8,000 KiB left, and no limit."""
    (tmp_path / "meminfo").write_text(MEMINFO)
    return tmp_path / "meminfo", tmp_path


def test_memory_is_what_the_machine_has_left(machine):
    assert available_bytes(*machine) == 8000 * 1024


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_has_no_more_than_its_limit_leaves(machine, version):
    meminfo, cgroup = machine
    names = {
        1: ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
        2: ("memory.max", "memory.current", "memory.stat"),
    }[version]
    cache = {1: "total_inactive_file 30", 2: "inactive_file 30"}[version]
    for name, content in zip(names, ("1000", "400", f"anon 370\n{cache}\n"), strict=True):
        (cgroup / name).parent.mkdir(exist_ok=True)
        (cgroup / name).write_text(content)
    assert available_bytes(meminfo, cgroup) == 630, "a cache of files is given up"
    (cgroup / names[0]).write_text("max")
    assert available_bytes(meminfo, cgroup) == 8000 * 1024


def test_what_torch_and_numpy_say_is_understood():
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(2**60)
    assert out_of_memory(torchs.value)
    with pytest.raises(MemoryError) as numpys:
        np.empty(2**58)
    assert out_of_memory(numpys.value)
    assert not out_of_memory(RuntimeError("shapes do not fit"))


def test_memory_that_ran_out_is_explained_and_other_errors_are_let_through():
    said = r"^out of memory in a test: .*\. Try finetune\.method"
    with pytest.raises(WorldError, match=said), explaining_memory(lambda: "in a test"):
        np.empty(2**58)
    with pytest.raises(RuntimeError, match="shapes"), explaining_memory(lambda: ""):
        raise RuntimeError("shapes do not fit")
