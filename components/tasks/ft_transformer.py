"""A transformer over the columns of a table (FT-Transformer).

Every column becomes a token: a number scales a vector of its own, a category picks one. Blocks
of attention let columns look at each other, and an added token gathers what the head reads.

References:
    Gorishniy et al. (2021), Revisiting deep learning models for tabular data,
    https://arxiv.org/abs/2106.11959.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from components.tasks.networks import Inputs, Mix, Staged


class _Attention(nn.Module):
    """Attention of all tokens to all, by linear layers that adapters can sit on."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        rows, count, width = tokens.shape
        shape = (rows, count, self.heads, width // self.heads)
        parts = [
            layer(tokens).view(shape).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        ]
        seen = functional.scaled_dot_product_attention(*parts)
        attended: torch.Tensor = self.out(seen.transpose(1, 2).reshape(rows, count, width))
        return attended


class _Block(nn.Module):
    """Attention and a gated layer, each beside a way around it, normed before."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        inner = width * 4 // 3
        self.norm_attention, self.norm_gate = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.up, self.down = nn.Linear(width, 2 * inner), nn.Linear(inner, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.attention(self.norm_attention(tokens))
        value, gate = self.up(self.norm_gate(tokens)).chunk(2, dim=-1)
        gated: torch.Tensor = tokens + self.down(value * gate.relu())
        return gated


class FTTransformer(Staged):
    """From numbers ``[n, a]``, NaN where one is missing, and places ``[n, b]`` to ``[n, k]``."""

    def __init__(
        self,
        numbers: int,
        categories: int,
        places: int,
        outputs: int,
        dropout: float,
        *,
        width: int,
        layers: int,
        heads: int,
    ) -> None:
        """Build it with random weights.

        Args:
            numbers: columns of numbers, ``a``.
            categories: columns of categories, ``b``.
            places: of each category.
            outputs: ``k``.
            dropout: share of what the head reads that training drops.
            width: of a token; a multiple of the heads.
            layers: blocks.
            heads: of each block's attention.
        """
        super().__init__()
        self.numbers, self.categories, self.places = numbers, categories, places
        self.outputs, self.width, self.heads = outputs, width, heads
        self._recomputes = False
        bound = width**-0.5

        def vectors(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, width).uniform_(-bound, bound))

        self.gathering = vectors(1)
        self.slopes, self.offsets, self.missing = (vectors(numbers) for _ in range(3))
        self.values = vectors(categories * places)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, outputs)

    @property
    def depth(self) -> int:
        """Columns, blocks, and the head above them."""
        return len(self.blocks) + 1

    @property
    def layers(self) -> int:
        """The blocks."""
        return len(self.blocks)

    @property
    def dropout_share(self) -> float:
        """The share of what the head reads that is dropped."""
        return self.dropout.p

    def set_dropout(self, share: float) -> None:
        """Drop another share of what the head reads, while training."""
        self.dropout.p = share

    def stage_of(self, name: str) -> int:
        """Return the stage of a parameter; the closing norm goes with the last block."""
        if name.startswith("head."):
            return self.depth
        if name.startswith("blocks."):
            return 1 + int(name.split(".")[1])
        return self.depth - 1 if name.startswith("norm.") else 0

    def tokens(self, numbers: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Return the tokens of the columns, ``[n, 1 + a + b, width]``."""
        rows = len(numbers)
        lacking = numbers.isnan().unsqueeze(-1)
        scaled = numbers.nan_to_num().unsqueeze(-1) * self.slopes + self.offsets
        counted = torch.where(lacking, self.missing.expand(rows, -1, -1), scaled)
        shifts = torch.arange(self.categories, device=places.device) * self.places
        chosen = functional.embedding(places + shifts, self.values)
        return torch.cat([self.gathering.expand(rows, 1, -1), counted, chosen], dim=1)

    def run(self, inputs: Sequence[torch.Tensor], start: int, end: int) -> torch.Tensor:
        """Return what the stages ``start`` to ``end`` (exclusive) make of their input."""
        rows = inputs[0]
        for stage in range(start, end):
            if stage == 0:
                rows = self.tokens(*inputs)
            else:
                block = self.blocks[stage - 1]
                again = self._recomputes and torch.is_grad_enabled()
                rows = checkpoint(block, rows, use_reentrant=False) if again else block(rows)
        if end == self.depth and start < end:
            rows = self.norm(rows[:, 0])
        return rows

    def forward(
        self, numbers: torch.Tensor, places: torch.Tensor, mix: Mix | None = None
    ) -> torch.Tensor:
        """Return outputs ``[n, k]``; mixup blends what the head reads."""
        return self.upper((numbers, places), 0, mix)

    def upper(self, inputs: Sequence[torch.Tensor], cut: int, mix: Mix | None) -> torch.Tensor:
        """Return outputs ``[n, k]`` for the states of a cut."""
        features = self.run(inputs, cut, self.depth)
        if mix is not None:
            features = mix.blend(features)
        outputs: torch.Tensor = self.head(self.dropout(features))
        return outputs

    def checkpoint_activations(self) -> None:
        """Compute activations again in the backward pass instead of keeping them."""
        self._recomputes = True

    def shrunk(self, layers: int) -> FTTransformer:
        """Return a copy with so many of the blocks, from the first to the last."""
        clone = copy.deepcopy(self)
        kept = [round(place) for place in np.linspace(0, len(self.blocks) - 1, layers)]
        clone.blocks = nn.ModuleList([clone.blocks[place] for place in kept])
        return clone

    def states(self, cut: int, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Return the tokens of each row below a cut; at the head, what it reads."""
        return list(self.run(inputs, 0, cut))

    def collate(self, cut: int, states: Sequence[torch.Tensor]) -> Inputs:
        """Return stacked states."""
        return (torch.stack(list(states)),)

    def above(self, cut: int) -> nn.Module:
        """Return the part above a cut."""
        return self if cut == 0 else _Above(self, cut)


class _Above(nn.Module):
    """The upper part of an ``FTTransformer``."""

    def __init__(self, network: FTTransformer, cut: int) -> None:
        super().__init__()
        self.network = network
        self.cut = cut

    def forward(self, rows: torch.Tensor, mix: Mix | None = None) -> torch.Tensor:
        return self.network.upper((rows,), self.cut, mix)
