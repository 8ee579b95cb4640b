"""Feature extraction: the encoder is frozen, its features computed once, the head learns.

A linear head on fixed features is a logistic regression; mini-batches of the shared
optimizer find it in seconds. https://arxiv.org/abs/1403.6382
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from components.finetune.batches import Rows
from components.finetune.config import FinetuneConfig
from components.finetune.history import History, Watcher, macro_f1
from components.finetune.optimization import cosine_schedule, optimizer_of
from components.tasks.networks import MeanPoolClassifier, mean_pool
from components.tasks.text_classification import TextClassifier, length_sorted


def fit(
    classifier: TextClassifier,
    train: Rows,
    valid: Rows,
    config: FinetuneConfig,
    watcher: Watcher,
) -> History:
    """Train the head on frozen features; the best epoch is left in place.

    Raises:
        ValueError: the classifier keeps the head it was adopted with.
    """
    network = classifier.network
    if not isinstance(network, MeanPoolClassifier):
        raise ValueError("method 'head' needs a mean-pool head; an adopted model keeps its own")
    features, valid_features = _features(network, train.ids), _features(network, valid.ids)
    targets = torch.from_numpy(train.targets)
    generator = np.random.default_rng(config.seed)
    steps = config.head_epochs * -(-len(targets) // config.batch_rows)
    network.backbone.requires_grad_(False)
    optimizer = optimizer_of(network, config)
    schedule = cosine_schedule(optimizer, steps, config.warmup_share)
    loss_of = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    history, best = History(), copy.deepcopy(network.head.state_dict())
    for _ in range(config.head_epochs):
        losses = []
        network.dropout.train()
        order = generator.permutation(len(targets))
        for start in range(0, len(order), config.batch_rows):
            batch = torch.from_numpy(order[start : start + config.batch_rows])
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(network.head(network.dropout(features[batch])), targets[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            history.steps += 1
        with torch.inference_mode():
            predicted = network.head(valid_features).argmax(-1).numpy()
        f1 = macro_f1(valid.targets, predicted, len(classifier.labels))
        watcher.progress(history.steps, steps, f"loss {np.mean(losses):.3f}")
        watcher.metrics({"valid_f1": f1, "epoch_loss": float(np.mean(losses))}, history.steps)
        if history.keep(f1, float(np.mean(losses))):
            best = copy.deepcopy(network.head.state_dict())
    network.head.load_state_dict(best)
    network.backbone.requires_grad_(True)
    network.eval()
    return history


def _features(network: MeanPoolClassifier, ids: list[list[int]]) -> torch.Tensor:
    """Return the pooled features of encoded rows, ``[n, d]``."""
    out = torch.zeros(len(ids), network.config.hidden_size)
    network.eval()
    with torch.no_grad():
        for rows, padded, mask in length_sorted(ids):
            tokens = network.backbone(input_ids=padded, attention_mask=mask).last_hidden_state
            out[torch.from_numpy(rows)] = mean_pool(tokens, mask)
    return out
