"""A bundle's network as ONNX, run without torch.

::

    model = TASKS[kind].load(folder, OnnxNetwork(folder / INT8_FILE, threads=2))
    model.predict(contents)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.errors import BundleError

ONNX_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
"""The same with weights of eight bits."""

_ERRORS_ONLY = 3


class OnnxNetwork:
    """A network that ONNX Runtime runs on the processor; see ``Network``."""

    def __init__(self, file: Path, threads: int) -> None:
        """Load ``file``.

        Args:
            file: an ONNX model that takes ``Model.inputs`` in their order.
            threads: of one answer; several may be asked for at once.

        Raises:
            BundleError: there is no such file, or it is no ONNX model.
        """
        import onnxruntime

        if not file.is_file():
            raise BundleError(
                f"there is no {file}: finetune.export did not ask for it, or "
                "the form failed its check"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its many errors have no other class in common
            raise BundleError(f"{file} does not load: {error}") from error
        self._names = [each.name for each in self._session.get_inputs()]

    def infer(self, *inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Return outputs ``[n, k]`` for a batch."""
        outputs: NDArray[np.float32]
        (outputs,) = self._session.run(None, dict(zip(self._names, inputs, strict=True)))
        return outputs
