"""Gather production's rows with the champion's answers, and labels where they have come.

Labels of the current window are not used: in production they are not there yet. The
windows whose labels have come give the stream of errors, in the order of time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from components.collect.answers import KeptAnswers
from components.collect.production import Production
from components.collect.summary import OWN, Size
from components.declared_columns import COLUMN
from components.plan import Live, WindowData
from components.profile import DECIDED, PROBABILITY, as_frame, embedding_features
from components.settings import Section, digest_of
from components.split import is_test
from components.store import Store
from components.tasks.model import Model
from components.windows import Window

CURRENT = "current.parquet"
INPUTS = "inputs.parquet"
ERRORS = "errors.parquet"


class CollectConfig(Section):
    """Section ``collect``."""

    max_rows: int = Field(default=5000, ge=100)
    """Ask the model about no more rows of a window; of a larger one, a sample."""
    max_input_rows: int = Field(default=100_000, ge=100)
    """Look at no more rows of a window for what can be said of them without a model."""
    partitions: int = Field(default=1, ge=1, le=1000)
    """Read a window in so many parts of its time, side by side; what is found stays the same."""

    @property
    def size(self) -> Size:
        """How much is kept of a window."""
        return Size(self.max_rows, max(self.max_rows, self.max_input_rows))

    def parts(self, window: Window) -> list[Window]:
        """Return the parts of a window that are read apart, in order."""
        return [window] if self.partitions == 1 else window.slices(self.partitions)


class CollectReport(Section):
    """What was gathered."""

    schema_version: int = 1
    digest: str
    window: str
    window_rows: int
    """Rows of the current window, without labels."""
    rows: int
    """Of these, different ones that the champion was asked about."""
    input_rows: int
    """Different ones of which the inputs were looked at."""
    labelled_windows: list[str]
    labelled_rows: int

    @property
    def headline(self) -> str:
        """The one thing to see."""
        of_all = f" of {self.window_rows:,}" if self.rows < self.window_rows else ""
        return (
            f"{self.rows:,}{of_all} rows, their labels not looked at yet, and "
            f"{self.labelled_rows:,} earlier ones with labels"
        )


def collect(
    live: Live,
    champion: Path,
    folder: Path,
    store: Store,
    code: str,
    config: CollectConfig,
    vectors_of: Callable[[Sequence[str]], NDArray[np.float32]],
) -> CollectReport:
    """Write ``current.parquet`` and ``errors.parquet``, and of a large window ``inputs.parquet``.

    ``current.parquet`` has ``id``, ``group``, ``is_test``, ``answer`` and a column per
    feature of content, embedding and answer and per declared column for each row of the
    current window; of a row that is left to a person, ``answer`` is what the model leans to.
    ``inputs.parquet`` has ``group`` and the features that need no model, of more rows.
    ``errors.parquet`` has ``id``, ``group``, ``window`` and ``error`` (0 to 1) for each labelled
    row. Where answers are probabilities, both have them as ``probability_0`` and so on, with the
    index of the decision as ``decided``, and errors that of the label as ``target``, and the
    declared columns of texts.

    Rows are as ``ingest`` and ``validate`` would leave them, each content once. The profile was
    made of such rows: left in, a text that production sees again and again would look like
    drift, and no retrain could cure it.

    Args:
        live: the plan's part for production.
        champion: bundle in production.
        folder: where to write.
        store: keeps the champion's answers for the day their labels come, and perhaps holds
            summaries of the window's parts, which are read here where it does not.
        code: version of the code that answers.
        config: the section ``collect``.
        vectors_of: embeds the current window's contents with the base model.

    Raises:
        BundleError: the champion's bundle is altered or does not load.
        SourceError: a window no longer has the fingerprint of the plan.
    """
    seen = Production.of(live, champion, store, code, config.size)
    kept = KeptAnswers(store, f"{seen.champion}-{code}-{config.max_rows}", seen.model)
    model, (first, *others) = seen.model, config.parts(live.current.window)
    summary = seen.summary(first)
    for part in others:
        summary = summary.merged(seen.summary(part), seen.size)
    rows = summary.sample(config.max_rows)
    contents = rows["text"].tolist()
    answers = kept.of(live.current.fingerprint, contents)
    features = {
        **embedding_features(vectors_of(contents)),
        **model.answer_features(answers),
        **_probabilities(model, answers),
    }
    current = pd.concat(
        [
            rows[["id", "group"]],
            pd.DataFrame(
                {
                    "is_test": is_test(rows["group"]),
                    "answer": model.decisions(answers),
                    **model.answer_categories(answers),
                }
            ),
            rows.drop(columns=list(OWN)),
            as_frame(features),
        ],
        axis=1,
    )
    folder.mkdir(parents=True, exist_ok=True)
    current.to_parquet(folder / CURRENT, index=False)
    (folder / INPUTS).unlink(missing_ok=True)
    if len(summary.frame) > len(current):
        inputs = summary.frame.drop(columns=[each for each in OWN if each != "group"])
        inputs.to_parquet(folder / INPUTS, index=False)
    errors = [_errors(kept, seen, each) for each in live.labelled]
    stream = pd.concat(errors) if errors else _no_errors()
    stream.to_parquet(folder / ERRORS, index=False)
    return CollectReport(
        digest=digest_of([seen.champion, live.to_json(), seen.size.rows, seen.size.described]),
        window=live.current.window.name,
        window_rows=summary.rows,
        rows=len(current),
        input_rows=len(summary.frame),
        labelled_windows=[each.window.name for each in live.labelled],
        labelled_rows=len(stream),
    )


def _errors(kept: KeptAnswers, seen: Production, planned: WindowData) -> pd.DataFrame:
    """Return how wrong the champion was in each labelled row, 0 to 1."""
    rows = seen.labelled(planned).sample(seen.size.rows)
    answers = kept.of(planned.fingerprint, rows["text"].tolist())
    labelled = seen.task.known(rows["label"])
    rows, answers = rows[labelled], answers[labelled]
    targets = seen.model.targets(rows["label"].tolist())
    kinds = [COLUMN + name for name, each in seen.metadata.items() if each.kind == "text"]
    return pd.DataFrame(
        {
            "id": rows["id"],
            "group": rows["group"],
            "window": planned.window.name,
            **{name: rows[name] for name in kinds},
            "error": seen.model.errors(targets, answers),
            **_probabilities(seen.model, answers),
            **({"target": targets} if seen.model.answers_are_probabilities else {}),
        }
    )


def _no_errors() -> pd.DataFrame:
    return pd.DataFrame({"id": [], "group": [], "window": [], "error": []})


def _probabilities(model: Model, answers: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Return what the champion's performance is estimated from, if it can be."""
    if not model.answers_are_probabilities:
        return {}
    columns = {f"{PROBABILITY}{index}": answers[:, index] for index in range(answers.shape[1])}
    return {**columns, DECIDED: model.decided(answers)}
