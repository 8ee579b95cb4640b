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

if TYPE_CHECKING:
    import pandas as pd


def write(folder: Path, labels: Sequence[str], examples: Sequence[str]) -> None:
    """Write ``MLmodel`` and ``input_example.json`` into a bundle that is not sealed yet."""
    inputs = [{"type": "string", "name": "text", "required": True}]
    outputs = [
        {"type": "string", "name": "label", "required": True},
        *({"type": "double", "name": label, "required": True} for label in labels),
    ]
    model = {
        "flavors": {"python_function": {"loader_module": "components.mlmodel", "env": {}}},
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
    example = {"columns": ["text"], "data": [[text] for text in examples]}
    (folder / "input_example.json").write_text(json.dumps(example, ensure_ascii=False))


class _PyFunc:
    """What ``mlflow.pyfunc.load_model`` hands to its caller."""

    def __init__(self, classifier: Any) -> None:
        self._classifier = classifier

    def predict(self, frame: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Return label and probabilities for the column ``text``."""
        import pandas as pd

        labels = self._classifier.labels
        probabilities = self._classifier.predict(frame["text"].tolist())
        out = pd.DataFrame(probabilities, columns=list(labels))
        out.insert(0, "label", [labels[best] for best in probabilities.argmax(1)])
        return out


def _load_pyfunc(path: str) -> _PyFunc:
    from components import bundle
    from components.tasks import TASKS

    folder = Path(path)
    description = bundle.verify(folder)
    return _PyFunc(TASKS[description.task.kind].load(folder))
