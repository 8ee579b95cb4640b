"""How MLflow sees a bundle: an ``MLmodel`` file with signature and input example.

It is written by hand rather than by ``log_model`` because MLflow would stamp the
time and a random id into it, and equal models must give equal bundles. It names no
pickle: ``mlflow.pyfunc.load_model`` comes back to ``_load_pyfunc`` below.
Format: https://mlflow.org/docs/latest/ml/model/#storage-format
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from components.tasks.model import Content, Model

if TYPE_CHECKING:
    import pandas as pd


LOADER = "components.mlmodel"
"""The module that MLflow is to load a bundle with: this one."""


def write(
    folder: Path,
    content: Content,
    answer_names: Sequence[str],
    examples: Sequence[str],
    *,
    abstains: bool = False,
) -> None:
    """Write ``MLmodel`` and ``input_example.json`` into a bundle that is not sealed yet.

    Args:
        folder: the bundle.
        content: names the only input column; images are base64 of image files.
        answer_names: output columns; of several, the label stands before them.
        examples: contents to show.
        abstains: whether rows may be left to a person, and then have no label.
    """
    inputs = [{"type": "string", "name": content, "required": True}]
    outputs = [
        *(
            {"type": "string", "name": name, "required": not abstains}
            for name in _label(answer_names)
        ),
        *({"type": "double", "name": name, "required": True} for name in answer_names),
    ]
    model = {
        "flavors": {"python_function": {"loader_module": LOADER, "env": {}}},
        "signature": {
            "inputs": json.dumps(inputs),
            "outputs": json.dumps(outputs),
            "params": None,
        },
        "saved_input_example_info": {
            "artifact_path": "input_example.json",
            "type": "dataframe",
            "pandas_orient": "split",
        },
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(model, sort_keys=True))
    example = {"columns": [content], "data": [[each] for each in examples]}
    (folder / "input_example.json").write_text(json.dumps(example, ensure_ascii=False))


def _label(answer_names: Sequence[str]) -> list[str]:
    """Return the column that says which of several answers it is; a single one needs none."""
    return ["label"] if len(answer_names) > 1 else []


class _PyFunc:
    """What ``mlflow.pyfunc.load_model`` hands to its caller."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def predict(self, frame: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Return the answers for the column ``text`` or ``image``."""
        import pandas as pd

        answers = self._model.predict(frame[self._model.content].tolist())
        out = pd.DataFrame(answers, columns=list(self._model.answer_names))
        for name in _label(self._model.answer_names):
            labels = pd.Series(self._model.decisions(answers), dtype=object)
            out.insert(0, name, labels.mask(self._model.abstained(answers), None))
        return out


def _load_pyfunc(path: str) -> _PyFunc:
    from components import bundle
    from components.tasks import TASKS

    folder = Path(path)
    description = bundle.verify(folder)
    return _PyFunc(TASKS[description.task.kind].load(folder))
