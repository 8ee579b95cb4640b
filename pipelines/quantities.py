"""What a pod may ask for, as Kubernetes writes it: cores, bytes and kinds of GPUs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated

from pydantic import AfterValidator

GPU_TYPES = (
    "nvidia.com/gpu",
    "nvidia.com/mig-<n>g.<m>gb",
    "amd.com/gpu",
    "gpu.intel.com/xe",
    "gpu.intel.com/i915",
)
MAX_CORES = 1024
MIN_BYTES, MAX_BYTES = 1 << 20, 1 << 46
"""Less is a number without its unit, and more is in no machine."""
_GPU = re.compile(
    r"nvidia\.com/gpu|nvidia\.com/mig-[0-9]+g\.[0-9]+gb(\.me)?|amd\.com/gpu"
    r"|gpu\.intel\.com/(xe|i915)"
)
_CPU = re.compile(r"[0-9]+m|[0-9]+(\.[0-9]{1,3})?")
_BYTES = re.compile(r"([0-9]+(?:\.[0-9]+)?)(Ei|Pi|Ti|Gi|Mi|Ki|E|P|T|G|M|k|)")
_UNITS: Mapping[str, int] = {
    "": 1,
    # As Kubernetes has it: a small k, and a large one in Ki.
    **{unit: int(1000**power) for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": int(1024**power) for power, unit in enumerate("KMGTPE", 1)},
}


def cores(quantity: str) -> float:
    """Return a quantity of CPU in cores.

    >>> cores("2"), cores("500m")
    (2.0, 0.5)
    """
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def in_bytes(quantity: str) -> int:
    """Return a quantity of memory or disk in bytes.

    >>> in_bytes("1.5Ki"), in_bytes("2M")
    (1536, 2000000)
    """
    found = _BYTES.fullmatch(quantity)
    assert found is not None, quantity
    return int(Fraction(found[1]) * _UNITS[found[2]])


def _cpu(text: str) -> str:
    if not _CPU.fullmatch(text) or cores(text) <= 0:
        raise ValueError('is no quantity of CPU, such as "2" or "500m"')
    if cores(text) > MAX_CORES:
        raise ValueError(f"is more than the {MAX_CORES} cores of the largest machine")
    return text


def _bytes(text: str) -> str:
    if not _BYTES.fullmatch(text):
        raise ValueError('is no quantity of bytes, such as "4Gi" or "512Mi"')
    if not MIN_BYTES <= in_bytes(text) <= MAX_BYTES:
        raise ValueError('should be between 1Mi and 64Ti, such as "4Gi"; is the unit right?')
    return text


def _gpu_type(text: str) -> str:
    if not _GPU.fullmatch(text):
        raise ValueError(f"is no type of GPU that a step can use; there are {', '.join(GPU_TYPES)}")
    return text


Cpu = Annotated[str, AfterValidator(_cpu)]
"""Cores, as Kubernetes writes them: ``2``, ``0.5`` or ``500m``."""
Bytes = Annotated[str, AfterValidator(_bytes)]
"""Bytes, as Kubernetes writes them: ``512Mi`` or ``4Gi``."""
GpuType = Annotated[str, AfterValidator(_gpu_type)]
"""Name of the resource by which a device plugin offers GPUs."""
