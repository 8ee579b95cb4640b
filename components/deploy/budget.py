"""Infrastructure validation: the exact artifact in a server's process, asked real requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from components.errors import BundleError
from components.serve.challenger import Challenger, Failure, command_of
from components.serve.model import Prediction
from components.settings import Section

START_S = 300.0
ANSWER_S = 30.0


class Cost(Section):
    """What answering cost."""

    schema_version: int = 1
    requests: int
    latency_ms: float
    """95 % of the requests took at most this."""
    memory_mib: int
    """That the process held at most."""


def cost_of(
    store_url: str,
    digest: str,
    contents: Sequence[str],
    form: Prediction,
    max_latency_ms: float | None,
    max_memory_mib: int | None,
) -> Cost:
    """Let a process of its own load a bundle and answer requests, and measure it.

    Args:
        store_url: where the bundle is published.
        digest: which one.
        contents: one request each.
        form: a prediction as it should look.
        max_latency_ms: see ``DeployConfig``.
        max_memory_mib: see ``DeployConfig``.

    Raises:
        BundleError: it does not load, does not answer, or goes over a budget.
    """
    try:
        found = asyncio.run(_measured(store_url, digest, contents, form, max_memory_mib))
    except Failure as failure:
        raise BundleError(f"bundle {digest[:12]} does not do in a server: it {failure}") from None
    if max_latency_ms is not None and found.latency_ms > max_latency_ms:
        raise BundleError(
            f"bundle {digest[:12]} is too slow: 95 % of {found.requests} requests took up to "
            f"{found.latency_ms:.1f} ms, deploy.max_latency_ms is {max_latency_ms:g}"
        )
    return found


async def _measured(
    store_url: str,
    digest: str,
    contents: Sequence[str],
    form: Prediction,
    max_memory_mib: int | None,
) -> Cost:
    process = Challenger(
        command_of(store_url, "fastest", digest),
        form,
        memory_mib=max_memory_mib or 2**20,
        deadline_s=ANSWER_S,
    )
    await process.start(START_S)
    try:
        took_ms = []
        for content in contents:
            begun_s = time.perf_counter()
            await process.ask([content])
            took_ms.append((time.perf_counter() - begun_s) * 1000)
        return Cost(
            requests=len(took_ms),
            latency_ms=float(np.quantile(took_ms, 0.95)),
            memory_mib=process.peak_bytes // 2**20,
        )
    finally:
        await process.stop()
