"""Fine-tune on prepared rows and leave a sealed bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components import bundle, mlmodel
from components.finetune.config import FinetuneConfig
from components.finetune.history import Watcher, macro_f1
from components.profile import Profile, embedding_features, text_features
from components.settings import Section
from components.split import TEST_SHARE
from components.tasks import TASKS, TaskConfig
from components.tasks.text_classification import TextClassifier, usable_tokens

if TYPE_CHECKING:
    from components.finetune.batches import Rows

__all__ = ["FinetuneConfig", "FinetuneReport", "finetune", "start_of"]

EXAMPLES = 3


class FinetuneReport(Section):
    """How training went."""

    schema_version: int = 1
    bundle: str
    method: str
    start: str
    """``base`` or ``champion``."""
    train_rows: int
    valid_f1: float
    valid_accuracy: float
    valid_f1_by_epoch: list[float]
    train_loss_by_epoch: list[float]
    best_epoch: int
    steps: int
    cut_texts: int
    """Training texts longer than the model's limit."""

    @property
    def headline(self) -> str:
        """The one thing to see."""
        return f"valid F1 {self.valid_f1:.3f} from the {self.start}, {self.steps} steps"


def finetune(
    prepared: Path,
    base: Path,
    champion: Path | None,
    folder: Path,
    task: TaskConfig,
    config: FinetuneConfig,
    lineage: dict[str, str],
    watcher: Watcher,
) -> FinetuneReport:
    """Train on the splits ``train`` and ``rehearsal``; write a sealed bundle to ``folder``.

    Args:
        prepared: folder that ``prepare`` wrote.
        base: folder of the pretrained encoder.
        champion: bundle to start from when ``warm_start`` is on, or None.
        folder: where the bundle goes.
        task: what to learn.
        config: the section ``finetune``.
        lineage: digests to write into the bundle.
        watcher: told about loss and scores.

    Raises:
        BundleError: base or champion do not load.
    """
    import torch

    from components.finetune.methods import METHODS

    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(config.seed)
    frame = pd.read_parquet(prepared / "rows.parquet")
    classifier, start = start_of(base, champion, task, config, lineage.get("base", ""))
    train = _rows(frame[frame["split"].isin(["train", "rehearsal"])], classifier)
    valid = _rows(frame[frame["split"] == "valid"], classifier)
    history = METHODS[config.method](classifier, train, valid, config, watcher)
    profile, scores = profile_of(prepared, frame, classifier)
    examples = [text[:200] for text in frame["text"][frame["split"] == "train"].head(EXAMPLES)]
    classifier.save(folder)
    profile.save(folder)
    mlmodel.write(folder, classifier.labels, examples)
    digest = bundle.seal(
        folder,
        bundle.Description(
            task=task,
            recipe=config.model_dump(mode="json"),
            lineage=lineage,
            scores=scores,
            test_share=TEST_SHARE,
            examples=examples,
        ),
    )
    return FinetuneReport(
        bundle=digest,
        method=config.method,
        start=start,
        train_rows=len(train.ids),
        valid_f1=scores["valid_f1"],
        valid_accuracy=scores["valid_accuracy"],
        valid_f1_by_epoch=history.valid_f1,
        train_loss_by_epoch=history.train_loss,
        best_epoch=history.best_epoch,
        steps=history.steps,
        cut_texts=sum(len(ids) >= classifier.max_tokens for ids in train.ids),
    )


def start_of(
    base: Path,
    champion: Path | None,
    task: TaskConfig,
    config: FinetuneConfig,
    base_digest: str,
) -> tuple[TextClassifier, str]:
    """Return the classifier to train, and whether it is the ``champion`` or the ``base``.

    A champion with other labels, or grown from another base, is not continued; nor can
    method ``head`` continue one that keeps the head it was adopted with.
    """
    if champion is not None and config.warm_start:
        loaded = TASKS[task.kind].load(champion)
        grown_from = bundle.describe(champion).lineage.get("base", base_digest)
        fits = config.method != "head" or loaded.head == "mean-pool"
        if set(loaded.labels) == set(task.labels) and fits and grown_from == base_digest:
            loaded.max_tokens = usable_tokens(
                loaded.network.config, task.max_tokens
            )  # the project's word, not the champion's
            return loaded, "champion"
    return TASKS[task.kind].from_base(base, task, dropout=config.dropout), "base"


def _rows(frame: pd.DataFrame, classifier: TextClassifier) -> Rows:
    from components.finetune.batches import Rows

    return Rows(classifier.encode(frame["text"].tolist()), _targets(frame, classifier))


def _targets(frame: pd.DataFrame, classifier: TextClassifier) -> NDArray[np.int64]:
    place = {label: index for index, label in enumerate(classifier.labels)}
    return np.array([place[label] for label in frame["label"]], dtype=np.int64)


def profile_of(
    prepared: Path, frame: pd.DataFrame, classifier: TextClassifier
) -> tuple[Profile, dict[str, float]]:
    """Return the profile of a classifier on prepared rows, and its validation scores.

    Args:
        prepared: folder that ``prepare`` wrote, for the embeddings.
        frame: its rows.
        classifier: the trained model.
    """
    from safetensors.numpy import load_file

    valid = frame[frame["split"] == "valid"]
    expected = _targets(valid, classifier)
    probabilities = classifier.predict(valid["text"].tolist())
    predicted = probabilities.argmax(1)
    scores = {
        "valid_f1": macro_f1(expected, predicted, len(classifier.labels)),
        "valid_accuracy": float((expected == predicted).mean()),
    }
    # The embeddings are those of the current window's rows, which come first.
    vectors = load_file(prepared / "embeddings.safetensors")["vectors"]
    train = (frame["split"] == "train").to_numpy()
    features = {
        **text_features(frame["text"][train].tolist(), classifier.tokenizer),
        **embedding_features(vectors[train[: len(vectors)]]),
        "confidence": probabilities.max(1),
    }
    error_rate = 1 - scores["valid_accuracy"]
    return Profile(features, error_rate, str(frame["window"].iloc[0])), scores
