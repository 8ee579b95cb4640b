"""Make an existing model the first champion: ``tokiwa adopt``.

It gets a bundle like any other, with a profile of the window it is said to know, so
that monitoring can begin at once.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from components import bundle, home, mlmodel, signature
from components.errors import BadInput, BundleError
from components.finetune.core import EXAMPLES, profile_of
from components.freeze import Freezes
from components.ledger import Entry, Ledger
from components.prepare import core as prepare
from components.split import TEST_SHARE
from components.tasks import TASKS
from pipelines.project import ProjectConfig
from pipelines.rows import prepared_rows


def adopt(
    project: ProjectConfig,
    typed: str,
    model: str,
    window: str,
    progress: Callable[[int, int, str], None],
) -> Entry:
    """Seal, register and promote an existing model; return its ledger entry.

    Args:
        project: whose first champion it becomes.
        typed: how the user names the project, for messages.
        model: a transformers folder, or ``models:/name/version`` of MLflow.
        window: the window that its profile describes, see ``resolve``.
        progress: told how many rows are embedded, out of how many.

    Raises:
        BadInput: the project has a champion already, its window no usable rows, or the
            folder no model.
        Frozen: somebody stopped all promotions.
        BundleError: the model does not load, has other labels, no model can be adopted for
            the project's task, or the project trusts other keys than the one it signs with.
        ConfigError: the project signs, and its private key is not here.
    """
    store = home.store()
    ledger = Ledger(store, project.ledger)
    Freezes(store, project.ledger).refuse("an adoption")
    if ledger.head() is not None:
        raise BadInput(
            f"{project.name} has a champion already; "
            f"a new model must win: tokiwa run {shlex.quote(typed)}"
        )
    key = home.signing_key(project.register_.signing_key_env)
    adopted = TASKS[project.task.kind].adopt(folder_of(project, model), project.task)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        plan, prepared = prepared_rows(project, window, None, place, progress)
        current = plan.live.current
        frame = pd.read_parquet(place / "prepared" / prepare.ROWS)
        valid = frame[frame["split"] == "valid"]
        answers = adopted.predict(valid["text"].tolist())
        profile, scores = profile_of(place / "prepared", frame, adopted, answers)
        folder = place / "bundle"
        adopted.save(folder)
        profile.save(folder)
        examples = [text[:200] for text in frame["text"].head(EXAMPLES)]
        mlmodel.write(folder, adopted.content, adopted.answer_names, examples)
        digest = bundle.seal(
            folder,
            bundle.Description(
                task=project.task,
                recipe={},
                lineage={
                    "adopted": model,
                    "data": prepared.digest,
                    "window": current.window.name,
                    "window_end": current.window.end,
                },
                scores=scores,
                test_share=TEST_SHARE,
                examples=examples,
            ),
        )
        bundle.publish(store, folder)
        if key is not None:
            key.sign(store, digest)
        signature.require(store, digest, project.deploy.trusted_keys)
    registry = home.registry(project.name)
    version = registry.register(
        digest, store.uri(bundle.key_of(digest)), None, {"tokiwa.adopted": model}
    )
    entry = ledger.append(
        action="adopt",
        bundle=digest,
        version=version,
        key=f"adopt-{digest}",
        by="tokiwa adopt",
        reason=f"adopted from {model}",
        expected=0,
    )
    registry.mirror(version)
    return entry


def folder_of(project: ProjectConfig, model: str) -> Path:
    """Return the local folder of a model that a person named.

    Raises:
        BadInput: the folder holds none.
        BundleError: MLflow has none of this name.
    """
    if model.startswith("models:/"):
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        try:
            folder = Path(download_artifacts(model, tracking_uri=home.tracking_uri()))
        except (MlflowException, OSError) as error:
            raise BundleError(f"MLflow has no model {model}: {error}") from error
        # MLflow's transformers flavour keeps the model in a folder below.
        return folder / "model" if (folder / "model" / "config.json").exists() else folder
    folder = Path(model).expanduser()
    if not (folder / "config.json").is_file():
        raise BadInput(f"{model} is no transformers model: it has no config.json")
    return folder
