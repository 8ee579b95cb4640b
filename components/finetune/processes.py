"""What several processes that train together share; a single one has nothing to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


class Processes:
    """The processes of one training, as torchrun started them.

    Attributes:
        rank: number of this one, from 0.
        count: of all.
        here: of those on this machine.
    """

    def __init__(self) -> None:
        """Ask torch, which knows nothing of others unless they were joined."""
        joined = distributed.is_available() and distributed.is_initialized()
        self.rank = distributed.get_rank() if joined else 0
        self.count = distributed.get_world_size() if joined else 1
        self.here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if joined else 1

    def share(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this process's rows; neighbours go to different ones, so lengths are alike."""
        return rows[self.rank :: self.count]

    def any(self, flag: bool) -> bool:
        """Tell whether any process raises its flag; all must ask."""
        return bool(self.summed(torch.tensor([float(flag)]))[0]) if self.count > 1 else flag

    def summed(self, values: torch.Tensor) -> list[float]:
        """Return the sums of values ``[n]`` over the processes."""
        if self.count > 1:
            values = values.clone()
            if distributed.get_backend() == "nccl":
                values = values.cuda()
            distributed.all_reduce(values)
        return [float(value) for value in values]

    def gathered(self, value: Any) -> list[Any]:
        """Return every process's value, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def most(self, rows: int) -> int:
        """Return how many of so many rows a process gets at most."""
        return -(-rows // self.count)

    def wait(self) -> None:
        """Wait until all are here."""
        if self.count > 1:
            distributed.barrier()

    def wrapped(self, above: nn.Module, device: torch.device) -> nn.Module:
        """Return a module whose gradients are averaged over the processes."""
        if self.count == 1 or not any(weight.requires_grad for weight in above.parameters()):
            return above
        ids = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(above, device_ids=ids, forward_sync_buffers=False)

    def sharded(self, above: nn.Module, device: torch.device) -> nn.Module:
        """Return a module whose weights and gradients are spread over the processes (FSDP2).

        Each layer is gathered when it is needed (Zhao et al. 2023,
        https://arxiv.org/abs/2304.11277). The weights become ``DTensor``, in place.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device.type, (self.count,))
        for module in reversed(list(above.modules())):  # inner ones first
            if isinstance(module, nn.ModuleList):
                for layer in module:
                    fully_shard(layer, mesh=mesh)
        # The rest, too, must not stay gathered: a pass that only scores has no backward.
        fully_shard(above, mesh=mesh, reshard_after_forward=True)
        return above

    @contextmanager
    def syncing(self, above: nn.Module, *, last: bool) -> Iterator[None]:
        """Average gradients in the backward pass of the last part of a step only."""
        if last or not isinstance(above, DistributedDataParallel):
            yield
            return
        with above.no_sync():
            yield

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor that may be spread over the processes in one piece."""
        gather = getattr(tensor, "full_tensor", None)
        return gather() if gather is not None else tensor

    def spread(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return a tensor that is spread over the processes as another one is, if it is."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(like, DTensor) or isinstance(tensor, DTensor):
            return tensor
        # Every process has all of it already: nothing needs to be sent.
        return distribute_tensor(
            tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
        )
