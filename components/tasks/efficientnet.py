"""EfficientNet-lite0, small enough for a laptop (Tan & Le 2019, arXiv:1905.11946).

The lite form has no squeeze-and-excitation and clips activations at six, which suits
int8. The layout below is that of the published weights, so that they load by name.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from components.tasks.networks import Inputs, Mix, Staged

# Repeats, kernel, stride of the first, expansion, channels out.
_BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _FEATURES = 32, 1280


class _Conv(nn.Conv2d):
    """A convolution padded as TensorFlow pads: more at the end than at the start."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(
            (rows.shape[-1], rows.shape[-2]),
            (self.kernel_size[1], self.kernel_size[0]),
            (self.stride[1], self.stride[0]),
            strict=True,
        ):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [missing // 2, missing - missing // 2]
        return super().forward(functional.pad(rows, pads))


class _Norm(nn.BatchNorm2d):
    """A batch norm that takes the pretrained statistics, in training too.

    Statistics of a batch depend on how many rows go through the network at once, which
    several processes, or several parts of a step, change; and those of a fine-tuning's few
    and small batches are poor. Its scale and shift learn.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        mean, variance = self.running_mean, self.running_var
        return functional.batch_norm(rows, mean, variance, self.weight, self.bias, eps=self.eps)


class _Block(nn.Module):
    """Mobile inverted bottleneck; names as in the published weights."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = _Conv(before, inner, 1, bias=False)
            self._bn0 = _Norm(inner)
        self._depthwise_conv = _Conv(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = _Norm(inner)
        self._project_conv = _Conv(inner, after, 1, bias=False)
        self._bn2 = _Norm(after)
        self.skips = stride == 1 and before == after

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        out = rows
        if self.expands:
            out = functional.relu6(self._bn0(self._expand_conv(out)))
        out = functional.relu6(self._bn1(self._depthwise_conv(out)))
        projected: torch.Tensor = self._bn2(self._project_conv(out))
        return projected + rows if self.skips else projected


class EfficientNetLite0(Staged):
    """From images ``[n, 3, h, w]`` to outputs ``[n, k]``."""

    def __init__(self, outputs: int, dropout: float, skipped: Sequence[int] = ()) -> None:
        """Build it with random weights, and without some of the blocks."""
        super().__init__()
        self.skipped = tuple(skipped)
        self._recomputes = False
        self.outputs = outputs
        self._conv_stem = _Conv(3, _STEM, 3, 2, bias=False)
        self._bn0 = _Norm(_STEM)
        blocks: list[nn.Module] = []
        before = _STEM
        for repeats, kernel, stride, expansion, after in _BLOCKS:
            for index in range(repeats):
                step = stride if index == 0 else 1
                blocks.append(_Block(before, after, kernel, step, expansion))
                before = after
        for place in self.skipped:
            blocks[place] = nn.Identity()
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _Conv(before, _FEATURES, 1, bias=False)
        self._bn1 = _Norm(_FEATURES)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(_FEATURES, outputs)

    @property
    def depth(self) -> int:
        """Stem, blocks, and the features above them."""
        return len(self._blocks) + 2

    @property
    def layers(self) -> int:
        """The blocks."""
        return len(self._blocks) - len(self.skipped)

    @property
    def dropout_share(self) -> float:
        """The share of what the head reads that is dropped."""
        return self.dropout.p

    def set_dropout(self, share: float) -> None:
        """Drop another share of what the head reads, while training."""
        self.dropout.p = share

    def stage_of(self, name: str) -> int:
        """Return the stage of a parameter."""
        if name.startswith("head."):
            return self.depth
        if name.startswith("_blocks."):
            return 1 + int(name.split(".")[1])
        return 0 if name.startswith(("_conv_stem.", "_bn0.")) else self.depth - 1

    def run(self, rows: torch.Tensor, start: int, end: int) -> torch.Tensor:
        """Return what the stages ``start`` to ``end`` (exclusive) make of their input."""
        for stage in range(start, end):
            if stage == 0:
                rows = functional.relu6(self._bn0(self._conv_stem(rows)))
            elif stage <= len(self._blocks):
                block = self._blocks[stage - 1]
                again = self._recomputes and torch.is_grad_enabled()
                rows = checkpoint(block, rows, use_reentrant=False) if again else block(rows)
            else:
                rows = functional.relu6(self._bn1(self._conv_head(rows))).mean((-2, -1))
        return rows

    def forward(self, rows: torch.Tensor, mix: Mix | None = None) -> torch.Tensor:
        """Return outputs ``[n, k]``; mixup blends the images."""
        return self.upper(rows, 0, mix)

    def upper(self, rows: torch.Tensor, cut: int, mix: Mix | None) -> torch.Tensor:
        """Return outputs ``[n, k]`` for the states of a cut; mixup blends these."""
        if mix is not None:
            rows = mix.blend(rows)
        outputs: torch.Tensor = self.head(self.dropout(self.run(rows, cut, self.depth)))
        return outputs

    def features(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what the head reads, ``[n, 1280]``."""
        return self.run(rows, 0, self.depth)

    def checkpoint_activations(self) -> None:
        """Compute activations again in the backward pass instead of keeping them."""
        self._recomputes = True

    def shrunk(self, layers: int) -> EfficientNetLite0:
        """Return a copy without some of the blocks that have a way around them.

        Only these can be left out: the others change the shape. The last go first.
        """
        around = [i for i, block in enumerate(self._blocks) if getattr(block, "skips", False)]
        leave_out = max(0, min(self.layers - layers, len(around)))
        skipped = sorted((*self.skipped, *around[len(around) - leave_out :]))
        clone = EfficientNetLite0(self.outputs, self.dropout_share, skipped)
        mine = self.state_dict()
        clone.load_state_dict({name: mine[name].clone() for name in clone.state_dict()})
        return clone

    def states(self, cut: int, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Return the feature maps of each row below a cut."""
        return list(self.run(inputs[0], 0, cut))

    def collate(self, cut: int, states: Sequence[torch.Tensor]) -> Inputs:
        """Return stacked feature maps."""
        return (torch.stack(list(states)),)

    def above(self, cut: int) -> nn.Module:
        """Return the part above a cut."""
        return self if cut == 0 else _Above(self, cut)


class _Above(nn.Module):
    """The upper part of an ``EfficientNetLite0``."""

    def __init__(self, network: EfficientNetLite0, cut: int) -> None:
        super().__init__()
        self.network = network
        self.cut = cut

    def forward(self, rows: torch.Tensor, mix: Mix | None = None) -> torch.Tensor:
        return self.network.upper(rows, self.cut, mix)
