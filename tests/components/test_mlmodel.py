from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from components import bundle, mlmodel
from components.errors import BundleError
from components.store import LocalStore
from components.tasks import TASKS
from components.tasks.text_classification import TextClassifier

# MLflow, on the first use of its models.
pytestmark = pytest.mark.filterwarnings("ignore:.*is inferred as AnyType:UserWarning")

TEXTS = ["the film was good", "a very dull story", ""]


@pytest.fixture
def folder(make_bundle, seal_bundle, tmp_path):
    """A sealed bundle that MLflow can read."""
    folder = shutil.copytree(make_bundle(1), tmp_path / "bundle")
    (folder / bundle.MANIFEST).unlink()
    mlmodel.write(folder, "text", ["negative", "positive"], TEXTS[:2])
    seal_bundle(folder)
    return folder


def frame(texts):
    import pandas as pd

    return pd.DataFrame({"text": texts})


def test_mlflow_loads_a_bundle_and_answers_as_the_bundle_does(folder):
    import mlflow.pyfunc

    answers = mlflow.pyfunc.load_model(str(folder)).predict(frame(TEXTS))
    expected = TextClassifier.load(folder).predict(TEXTS)
    assert list(answers) == ["label", "negative", "positive"]
    np.testing.assert_allclose(answers[["negative", "positive"]].to_numpy(), expected)
    assert answers["label"].tolist() == [("negative", "positive")[i] for i in expected.argmax(1)]


def test_mlflow_knows_signature_and_flavor(folder):
    from mlflow.models import get_model_info

    info = get_model_info(str(folder))
    assert list(info.flavors) == ["python_function"]
    assert info.signature.inputs.input_names() == ["text"]
    assert info.signature.outputs.input_names() == ["label", "negative", "positive"]


def test_mlflow_finds_an_input_example_that_the_model_answers(folder):
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(str(folder))
    assert model.input_example["text"].tolist() == TEXTS[:2]
    assert len(model.predict(model.input_example)) == 2


def test_mlflow_refuses_what_the_signature_does_not_allow(folder):
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    model = mlflow.pyfunc.load_model(str(folder))
    for wrong in (frame([1, 2]), frame(TEXTS).rename(columns={"text": "texts"})):
        with pytest.raises(MlflowException, match="schema"):
            model.predict(wrong)


def test_mlflow_does_not_load_an_altered_bundle(folder):
    import mlflow.pyfunc

    (folder / "config.json").write_text("{}")
    with pytest.raises(BundleError, match="altered"):
        mlflow.pyfunc.load_model(str(folder))


def test_loading_the_champion_by_its_alias_leaves_the_bundle_as_it_was(
    folder, registry, tracking_uri, tmp_path, monkeypatch
):
    import mlflow.pyfunc

    store = LocalStore(tmp_path / "objects")
    digest = bundle.publish(store, folder)
    registry.mirror(registry.register(digest, store.uri(bundle.key_of(digest)), None, {}))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    model = mlflow.pyfunc.load_model("models:/demo@champion")
    assert len(model.predict(frame(TEXTS))) == 3
    bundle.verify(bundle.fetch(store, digest), digest)


def test_equal_models_are_described_by_equal_files(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        mlmodel.write(tmp_path / name, "text", ["a", "b"], ["テキスト"])
    for name in ("MLmodel", "input_example.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    example = json.loads((tmp_path / "one" / "input_example.json").read_text())
    assert example == {"columns": ["text"], "data": [["テキスト"]]}


def test_describing_a_model_needs_neither_mlflow_nor_torch():
    code = (
        "import sys, components.mlmodel as m; "
        "sys.exit(bool({'mlflow', 'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_mlflow_answers_for_every_kind_of_task(learnt, case_of, kind, tmp_path):
    import mlflow.pyfunc
    import pandas as pd

    folder, case = shutil.copytree(learnt(kind), tmp_path / "bundle"), case_of(kind)
    model = TASKS[kind].load(folder)
    contents = pd.read_parquet(case.prepared / "rows.parquet")["text"].tolist()[:3]
    loaded = mlflow.pyfunc.load_model(str(folder))
    found = loaded.predict(pd.DataFrame({model.content: contents}))
    expected = model.predict(contents)
    np.testing.assert_allclose(found[list(model.answer_names)].to_numpy(), expected, atol=1e-6)
    labels = found.get("label")
    if model.answer_names == ("value",):
        assert labels is None
    else:
        assert labels.tolist() == model.decisions(expected)
    assert list(loaded.input_example) == [model.content]
    assert len(loaded.predict(loaded.input_example)) == 3
