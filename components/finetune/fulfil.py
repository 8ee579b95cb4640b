"""Carry an order out: in this process, in several of this machine, or on several machines."""

from __future__ import annotations

from components.errors import WorldError
from components.finetune import core
from components.finetune.history import Watcher
from components.finetune.launch import Order, processes_of, together
from components.finetune.report import FinetuneReport


def fulfil(order: Order, watcher: Watcher) -> FinetuneReport:
    """Fine-tune on as many machines and in as many processes as the order wants.

    Returns:
        The report; the sealed bundle is in the order's folder.

    Raises:
        TokiwaError: as ``core.finetune`` and, for several machines, ``trainjob.run``.
    """
    if order.config.nodes > 1:
        from components.finetune import trainjob

        return trainjob.run(order, watcher)
    count = processes_of(order.config)
    report = _here(order, watcher) if count == 1 else together(order, watcher, count)
    if report is None:
        raise WorldError(f"the {count} processes of the training ended without a result")
    order.clear()
    return report


def _here(order: Order, watcher: Watcher) -> FinetuneReport:
    return core.finetune(
        order.prepared,
        order.start,
        order.champion,
        order.folder,
        order.task,
        order.config,
        order.lineage,
        watcher,
        order.checkpoints,
    )
