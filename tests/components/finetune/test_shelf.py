from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch

from components.errors import WorldError
from components.finetune.shelf import Shelf


def tensors():
    chance = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (0, 4), (1,), (5, 2, 2), (7,)]
    whole = [torch.randn(shape, generator=chance) for shape in shapes]
    return [each.bfloat16() if index % 2 else each for index, each in enumerate(whole)]


@pytest.mark.parametrize("limit_bytes", [0, 50, 10**6])
def test_what_is_put_comes_back_bit_for_bit(limit_bytes):
    given = tensors()
    shelf = Shelf(len(given), limit_bytes)
    for place in (2, 0, 4, 1, 3):
        shelf.put(place, given[place])
    for found, expected in zip(shelf.close(), given, strict=True):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
        found.add_(1)  # as any other tensor


def test_no_file_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shelf = Shelf(1, 0)
    shelf.put(0, torch.ones(1000))
    (found,) = shelf.close()
    assert list(tmp_path.iterdir()) == []
    assert found.sum() == 1000


def test_a_full_disk_is_explained(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(Path("/dev/full").open, "wb"))
    shelf = Shelf(1, 0)
    with pytest.raises(WorldError, match=r"No space left on device\. Point TMPDIR"):
        shelf.put(0, torch.ones(1000))
