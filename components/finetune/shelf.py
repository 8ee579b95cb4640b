"""Tensors that every epoch reads: in memory, and what is too much for it in a file."""

from __future__ import annotations

import mmap
import tempfile
from contextlib import suppress
from typing import IO

import torch

from components.errors import WorldError


class Shelf:
    """Takes tensors on the CPU one by one, and gives them back as they were, bit for bit.

    What goes over the limit is written to a file without a name, in the folder for temporary
    files, and mapped into memory: the system reads a part of it when it is asked for, and
    drops it again when memory is needed. The file is gone with the last tensor.
    """

    def __init__(self, count: int, limit_bytes: int) -> None:
        """Make room for ``count`` tensors, of which ``limit_bytes`` are held in memory."""
        self._held: list[torch.Tensor] = [torch.empty(0)] * count
        self._left_bytes = limit_bytes
        self._file: IO[bytes] | None = None
        self._filed: list[tuple[int, int, torch.Size, torch.dtype]] = []

    def put(self, place: int, tensor: torch.Tensor) -> None:
        """Take the tensor of a place.

        Raises:
            WorldError: there is no room on the disk.
        """
        self._left_bytes -= tensor.nbytes
        if self._left_bytes >= 0 or not tensor.nbytes:
            self._held[place] = tensor
            return
        data = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it outlives this function
            self._filed.append((place, self._file.tell(), tensor.shape, tensor.dtype))
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            if self._file is not None:
                with suppress(OSError):  # what could not be written is not tried again
                    self._file.close()
            raise WorldError(
                "what the frozen layers make of the rows does not fit into memory, and writing "
                f"it to {tempfile.gettempdir()} failed: {error.strerror}. Point TMPDIR to a "
                "larger disk, or use finetune.method=full"
            ) from error

    def close(self) -> list[torch.Tensor]:
        """Return all tensors by place; nothing can be put any more."""
        if self._file is None:
            return self._held
        with self._file:
            # A private copy: torch asks for memory that could be written to.
            mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        for place, offset, shape, dtype in self._filed:
            flat = torch.frombuffer(mapped, dtype=dtype, count=shape.numel(), offset=offset)
            self._held[place] = flat.view(shape)
        return self._held
