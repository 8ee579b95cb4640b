"""How much memory there is, and what to say where it does not suffice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from components.errors import WorldError

CGROUPS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
"""Files below ``/sys/fs/cgroup`` of versions 2 and 1: limit, use, and the part of the use that
is a cache of files and would be given up."""


def available_bytes(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int:
    """Return how much memory may still be taken: of the machine, or of the container's limit."""
    try:
        lines = meminfo.read_text().splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        found = [free * 1024]
    except (OSError, StopIteration):  # no Linux
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for limit, use, cache in CGROUPS:
        try:
            most, used = (int((cgroup / name).read_text()) for name in (limit, use))
            stat = (cgroup / use).with_name("memory.stat").read_text().split()
            found.append(most - used + int(stat[stat.index(cache) + 1]))
        except (OSError, ValueError):  # another version, or no limit ("max")
            continue
    return max(0, min(found))


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of torch or NumPy says that memory did not suffice."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


@contextmanager
def explaining_memory(where: Callable[[], str]) -> Iterator[None]:
    """Say what to do where memory does not suffice in a block.

    Args:
        where: says what was being done, as in "out of memory at step 3".

    Raises:
        WorldError: in place of the error of torch or NumPy.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise WorldError(
            f"out of memory {where()}: {reason}. Try "
            "finetune.method=top or lora, a smaller finetune.base, or more memory"
        ) from error
