"""Full fine-tuning: every weight learns."""

from __future__ import annotations

import copy

import numpy as np
from torch import nn

from components.errors import WorldError
from components.finetune.batches import Rows, predict, shuffled
from components.finetune.config import FinetuneConfig
from components.finetune.history import History, Watcher, macro_f1
from components.finetune.optimization import cosine_schedule, forward_precision, optimizer_of
from components.tasks.text_classification import TextClassifier

_REPORT_EVERY_STEPS = 10


def fit(
    classifier: TextClassifier,
    train: Rows,
    valid: Rows,
    config: FinetuneConfig,
    watcher: Watcher,
) -> History:
    """Train all weights; the best epoch on the validation rows is left in place."""
    network = classifier.network
    generator = np.random.default_rng(config.seed)
    steps = config.epochs * -(-len(train.ids) // config.batch_rows)
    optimizer = optimizer_of(network, config)
    schedule = cosine_schedule(optimizer, steps, config.warmup_share)
    loss_of = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    history, best = History(), copy.deepcopy(network.state_dict())
    for _ in range(config.epochs):
        losses = []
        network.train()
        for ids, mask, targets in shuffled(train, config.batch_rows, generator):
            optimizer.zero_grad(set_to_none=True)
            with forward_precision(config):
                logits = network(ids, mask)
            loss = loss_of(logits.float(), targets)
            if not bool(loss.isfinite()):
                raise WorldError(
                    f"the loss is {float(loss.detach())} at step {history.steps + 1}, "
                    f"learning rate {schedule.get_last_lr()[0]:.2g}; lower "
                    "finetune.learning_rate or finetune.head_learning_rate"
                )
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), config.max_gradient_norm)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            history.steps += 1
            watcher.progress(history.steps, steps, f"loss {losses[-1]:.3f}")
            if history.steps % _REPORT_EVERY_STEPS == 0:
                rate = float(schedule.get_last_lr()[0])
                watcher.metrics({"loss": losses[-1], "learning_rate": rate}, history.steps)
        f1 = macro_f1(valid.targets, predict(classifier, valid.ids), len(classifier.labels))
        watcher.metrics({"valid_f1": f1, "epoch_loss": float(np.mean(losses))}, history.steps)
        if history.keep(f1, float(np.mean(losses))):
            best = copy.deepcopy(network.state_dict())
        if history.exhausted(config.patience_epochs):
            break
    network.load_state_dict(best)
    network.eval()
    return history
