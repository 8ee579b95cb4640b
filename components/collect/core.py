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

from components import bundle
from components.collect.answers import KeptAnswers
from components.declared_columns import numbers_in, watched_kinds, watched_numbers
from components.errors import SourceError
from components.plan import Live, WindowData
from components.profile import DECIDED, PROBABILITY, as_frame, embedding_features
from components.settings import Section, digest_of
from components.sources import Source, open_source
from components.sources.rows import Metadata
from components.split import content_digest, is_test, unit_interval
from components.store import Store
from components.tasks import TASKS, TaskConfig
from components.tasks.model import Model

CURRENT = "current.parquet"
ERRORS = "errors.parquet"


class CollectConfig(Section):
    """Section ``collect``."""

    max_rows: int = Field(default=5000, ge=100)
    """Look at no more rows of a window; of a larger one, a sample by the hash of ids."""


class CollectReport(Section):
    """What was gathered."""

    schema_version: int = 1
    digest: str
    window: str
    rows: int
    """Rows of the current window, without labels."""
    labelled_windows: list[str]
    labelled_rows: int

    @property
    def headline(self) -> str:
        """The one thing to see."""
        return f"{self.rows:,} rows without labels, {self.labelled_rows:,} earlier ones with"


def collect(
    live: Live,
    champion: Path,
    folder: Path,
    store: Store,
    code: str,
    config: CollectConfig,
    vectors_of: Callable[[Sequence[str]], NDArray[np.float32]],
) -> CollectReport:
    """Write ``current.parquet`` and ``errors.parquet``.

    ``current.parquet`` has ``id``, ``group``, ``is_test``, ``answer`` and a column per
    feature of content, embedding and answer and per declared column for each row of the
    current window; of a row that is left to a person, ``answer`` is what the model leans to.
    ``errors.parquet`` has ``id``,
    ``group``, ``window`` and ``error`` (0 to 1) for each labelled row. Where answers are
    probabilities, both have them as ``probability_0`` and so on, with the index of the decision
    as ``decided``, and errors that of the label as ``target``, and the declared columns of texts.

    Args:
        live: the plan's part for production.
        champion: bundle in production.
        folder: where to write.
        store: keeps the champion's answers for the day their labels come.
        code: version of the code that answers.
        config: the section ``collect``.
        vectors_of: embeds the current window's contents with the base model.

    Raises:
        BundleError: the champion's bundle is altered or does not load.
        SourceError: a window no longer has the fingerprint of the plan.
    """
    description = bundle.verify(champion)
    task, model = description.task, TASKS[description.task.kind].load(champion)
    digest = bundle.digest_of_folder(champion)
    kept = KeptAnswers(store, f"{digest}-{code}-{config.max_rows}", model)
    source = open_source(live.source, store)
    metadata = live.source.metadata
    rows = _sample(source, live.current, task, metadata, config)
    contents = rows["text"].tolist()
    answers = kept.of(live.current.fingerprint, contents)
    features = {
        **model.input_features(contents),
        **embedding_features(vectors_of(contents)),
        **model.answer_features(answers),
        **_probabilities(model, answers),
        **watched_numbers(rows, metadata),
    }
    current = pd.concat(
        [
            pd.DataFrame(
                {
                    "id": rows["id"].to_numpy(),
                    "group": rows["group"].to_numpy(),
                    "is_test": is_test(rows["group"]),
                    "answer": model.decisions(answers),
                    **model.input_categories(contents),
                    **model.answer_categories(answers),
                    **watched_kinds(rows, metadata),
                }
            ),
            as_frame(features),
        ],
        axis=1,
    )
    folder.mkdir(parents=True, exist_ok=True)
    current.to_parquet(folder / CURRENT, index=False)
    errors = [_errors(kept, source, each, task, metadata, config) for each in live.labelled]
    stream = pd.concat(errors) if errors else _no_errors()
    stream.to_parquet(folder / ERRORS, index=False)
    windows = [each.window.name for each in live.labelled]
    return CollectReport(
        digest=digest_of([digest, live.to_json(), config.to_json()]),
        window=live.current.window.name,
        rows=len(current),
        labelled_windows=windows,
        labelled_rows=len(stream),
    )


def _sample(
    source: Source,
    planned: WindowData,
    task: TaskConfig,
    metadata: Metadata,
    config: CollectConfig,
) -> pd.DataFrame:
    """Return a window's rows as ``ingest`` and ``validate`` would leave them, in order of time.

    The profile was made of such rows: left in, a text that production sees again and
    again would look like drift, and no retrain could cure it.
    """
    rows = source.read(planned.window)
    if rows.fingerprint() != planned.fingerprint:
        raise SourceError(
            f"the rows of window {planned.window.name} changed after the run began; run again"
        )
    frame = rows.frame[rows.frame["text"].notna()]
    frame = frame[task.readable(frame["text"])]
    content = pd.Series([content_digest(each) for each in frame["text"]], index=frame.index)
    frame = frame[~content.duplicated()].copy()
    for name in metadata:
        if metadata[name].kind == "number":
            frame[name] = numbers_in(frame[name])
    if len(frame) > config.max_rows:
        place = unit_interval(frame["id"], "collect")
        chosen = np.sort(np.argsort(place, kind="stable")[: config.max_rows])
        frame = frame.iloc[chosen]
    return frame.reset_index(drop=True)


def _errors(
    kept: KeptAnswers,
    source: Source,
    planned: WindowData,
    task: TaskConfig,
    metadata: Metadata,
    config: CollectConfig,
) -> pd.DataFrame:
    """Return how wrong the champion was in each labelled row, 0 to 1."""
    rows = _sample(source, planned, task, metadata, config)
    answers = kept.of(planned.fingerprint, rows["text"].tolist())
    labelled = task.known(rows["label"])
    rows, answers = rows[labelled], answers[labelled]
    targets = kept.model.targets(rows["label"].tolist())
    return pd.DataFrame(
        {
            "id": rows["id"],
            "group": rows["group"],
            "window": planned.window.name,
            **watched_kinds(rows, metadata),
            "error": kept.model.errors(targets, answers),
            **_probabilities(kept.model, answers),
            **({"target": targets} if kept.model.answers_are_probabilities else {}),
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
