"""More forms of a trained model for its bundle: ONNX, and ONNX with weights of eight bits.

A form is kept only if it answers as the model does, which is measured on the validation
rows, through the very code that serves it. One that fails costs its file, not the training.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.errors import ConfigError
from components.finetune.config import ExportConfig, FinetuneConfig
from components.settings import Section
from components.tasks.model import Example, Model
from components.tasks.onnx_runtime import INT8_FILE, ONNX_FILE, OnnxNetwork
from components.tasks.weights import WEIGHTS_FILE

AGREES = 0.01
"""Answers agree if one is wrong by less than this where the other is right, see ``errors``."""

_OPSET = 23
"""The first with attention as one operator, which runs faster than its parts."""
_BLOCK, _INT8_ACTIVATIONS = 128, 4
_CALIBRATION_ROWS = 128
_PACKAGES = ("onnx", "onnxscript")


class Export(Section):
    """One form of the model, and how it compares with the model itself."""

    name: str
    """Its file in the bundle."""
    kept: bool
    bytes: int | None = None
    size_share: float | None = None
    """Of the safetensors file."""
    agreement: float | None = None
    """Share of the validation rows on which it decides as the model does."""
    score_loss: float | None = None
    """What it loses of the primary score; below 0, it gains."""
    reason: str = ""
    """Why it was not kept."""


def require_packages(config: ExportConfig) -> None:
    """Look for the packages that the exports need, before hours of training.

    Raises:
        ConfigError: one is not installed.
    """
    if not (config.onnx or config.int8):
        return
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"finetune.export needs {' and '.join(missing)}; "
            f"install with: pip install {' '.join(missing)}"
        )


def write_exports(
    model: Model, folder: Path, frame: pd.DataFrame, config: FinetuneConfig
) -> list[Export]:
    """Write the forms that the project asks for, and keep those that pass.

    Args:
        model: the trained one.
        folder: where it was saved; gets the forms.
        frame: prepared rows, see ``prepare``. The validation rows judge, training rows
            calibrate.
        config: the section ``finetune``.
    """
    asked = {ONNX_FILE: config.export.onnx, INT8_FILE: config.export.int8}
    names = [name for name, wanted in asked.items() if wanted]
    if not names:
        return []
    valid = frame[frame["split"] == "valid"]
    trial = Trial(model, valid["text"].tolist(), valid["label"].tolist(), folder, config)
    examples = model.encode(frame["text"][frame["split"] == "train"].tolist()[:_CALIBRATION_ROWS])
    with tempfile.TemporaryDirectory() as place:
        plain = Path(place) / ONNX_FILE
        try:
            write_onnx(model, examples, plain)
        except Exception as error:  # exporters fail in many ways; the training must not
            return [_failed(name, error) for name in names]
        writers: dict[str, Callable[[Path], object]] = {
            ONNX_FILE: lambda file: shutil.copyfile(plain, file),
            INT8_FILE: lambda file: write_int8(plain, model, examples, file),
        }
        return [trial.of(name, writers[name]) for name in names]


class Trial:
    """Lets forms of a model answer the validation rows, and judges them."""

    def __init__(
        self,
        model: Model,
        contents: Sequence[str],
        labels: Sequence[str],
        folder: Path,
        config: FinetuneConfig,
    ) -> None:
        """Let the model itself answer ``contents``; it was saved in ``folder``."""
        self._model = model
        self._contents = contents
        self._targets = model.targets(labels)
        self._answers = model.predict(contents)
        self._folder = folder
        self._config = config

    def of(self, name: str, write: Callable[[Path], object]) -> Export:
        """Write a form and judge it; delete it if it fails."""
        file = self._folder / name
        try:
            write(file)
            network = OnnxNetwork(file, self._config.threads)
            answers = type(self._model).load(self._folder, network).predict(self._contents)
        except Exception as error:  # as in ``write_exports``
            file.unlink(missing_ok=True)
            return _failed(name, error)
        export = self._judged(name, file.stat().st_size, answers)
        if not export.kept:
            file.unlink()
        return export

    def _judged(self, name: str, size: int, answers: NDArray[np.float64]) -> Export:
        model, limits = self._model, self._config.export
        share = size / (self._folder / WEIGHTS_FILE).stat().st_size
        if not np.isfinite(answers).all():
            reason = "some of its answers are not finite"
            return Export(name=name, kept=False, bytes=size, size_share=share, reason=reason)
        apart = model.errors(model.decided(self._answers), answers)
        alike = model.abstained(self._answers) == model.abstained(answers)
        agreement = float((alike & (apart < AGREES)).mean())
        whole, own = (
            model.scores(self._targets, each)[model.metric] for each in (self._answers, answers)
        )
        reasons = []
        if agreement < limits.min_agreement:
            reasons.append(
                f"it decides as the model does on {agreement:.1%} of the validation rows, "
                f"finetune.export.min_agreement asks for {limits.min_agreement:.1%}"
            )
        if whole - own > limits.max_loss:
            reasons.append(
                f"it loses {whole - own:.3f} of {model.metric}, "
                f"finetune.export.max_loss allows {limits.max_loss:g}"
            )
        return Export(
            name=name,
            kept=not reasons,
            bytes=size,
            size_share=share,
            agreement=agreement,
            score_loss=whole - own,
            reason="; ".join(reasons),
        )


def _failed(name: str, error: Exception) -> Export:
    # torch hides the error itself behind advice on how to report it.
    lines = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
    return Export(name=name, kept=False, reason=f"it could not be made: {lines[0]}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what exporters tell their own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@_quiet()
def write_onnx(model: Model, examples: Sequence[Example], file: Path) -> None:
    """Write a model's network as ONNX; equal weights give equal bytes.

    Rows may be of any number, and texts of any length that the model reads. The exporter
    is torch's newer one, which follows shapes instead of one example; what it notes on
    the way, places of source files among it, stays out of the file.

    Args:
        model: in float32 on the processor.
        examples: some rows to try the network on.
        file: where to.
    """
    import torch
    from onnxscript import ir

    longest = sorted(examples, key=len)[-2:]
    # One row, or rows of one length only, would be taken for all that there can be.
    inputs = model.collate((longest * 2)[:2])
    names = list(inspect.signature(model.network.forward).parameters)[: len(inputs)]
    axes = {0: "rows", 1: "tokens"} if model.content == "text" else {0: "rows"}
    free = tuple(axes for _ in inputs)
    program = torch.onnx.export(
        model.network.eval(),
        inputs,
        input_names=names,
        output_names=["outputs"],
        dynamic_shapes=free,
        opset_version=_OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    ir.passes.common.ClearMetadataAndDocStringPass()(program.model)
    program.save(file)


@_quiet()
def write_int8(plain: Path, model: Model, examples: Sequence[Example], file: Path) -> None:
    """Write an ONNX model with weights of eight bits, one scale for each output channel.

    Activations become eight bits too: dynamically, by the range that each batch has; with
    convolutions, which are slow that way, by the range that ``examples`` had. Feed-forward
    layers, which lose most, get a scale for every block of a row instead: the whole model
    answers with about two thirds of the error, at about four fifths of the speed.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    whole = onnx.load(plain)
    # The quantizer turns weights around and would trip over the shapes they had.
    whole.graph.ClearField("value_info")
    if all(node.op_type != "Conv" for node in whole.graph.node):
        shapes = {each.name: each.dims for each in whole.graph.initializer}
        attention = [
            node.name
            for node in whole.graph.node
            if node.op_type == "MatMul" and len(set(shapes.get(node.input[1], []))) == 1
        ]
        blocks = MatMulNBitsQuantizer(
            whole,
            bits=8,
            block_size=_BLOCK,
            is_symmetric=True,
            accuracy_level=_INT8_ACTIVATIONS,
            op_types_to_quantize=("MatMul",),
            nodes_to_exclude=attention,
        )
        blocks.process()
        quantization.quantize_dynamic(
            blocks.model.model,
            file,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        return
    names = [each.name for each in whole.graph.input]
    quantization.quantize_static(
        whole,
        file,
        _Calibration(dict(zip(names, model.inputs([each]), strict=True)) for each in examples),
        per_channel=True,
    )


class _Calibration:
    """Feeds batches to a quantizer, as its ``CalibrationDataReader``."""

    def __init__(self, batches: Iterator[dict[str, NDArray[Any]]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next batch, None after the last."""
        return next(self._batches, None)
