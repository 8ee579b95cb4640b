from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from components.evaluate.exam import Exam

LABELS = ("negative", "positive")


@pytest.fixture
def make_exam():
    """Build the exam of two classifiers that are right with given probabilities.

    Rows are independent of each other. Numbers of rows are by split; ``right`` gives each
    model's share of right answers, by split if it differs.
    """

    def make(
        right,
        *,
        rows=None,
        sure=0.8,
        columns=None,
        milliseconds=None,
        size_bytes=None,
        seed=0,
        **more,
    ):
        rows = rows or {"test": 400, "guard": 200, "valid": 400, "train": 300}
        draw = np.random.default_rng(seed)
        split = np.repeat(list(rows), list(rows.values()))
        count = len(split)
        targets = draw.integers(0, 2, count)
        answers, decided, errors = {}, {}, {}
        for model, share in right.items():
            shares = share if isinstance(share, dict) else dict.fromkeys(rows, share)
            hit = draw.random(count) < np.array([shares[each] for each in split])
            decided[model] = np.where(hit, targets, 1 - targets)
            answers[model] = np.full((count, 2), 1 - sure)
            answers[model][np.arange(count), decided[model]] = sure
            errors[model] = (~hit).astype(np.float64)
        frame = pd.DataFrame(
            {
                "id": [f"r{number}" for number in range(count)],
                "group": [f"g{number}" for number in range(count)],
                "window": "2026-01-05",
                "split": split,
                "text": [f"text {number}" for number in range(count)],
                "label": [LABELS[each] for each in targets],
                **(columns(count) if columns else {}),
            }
        )
        times = milliseconds or dict.fromkeys(right, 1.0)
        return Exam(
            kind="classification",
            content="text",
            metric="macro_f1",
            labels=LABELS,
            rows=frame,
            targets=targets,
            answers=answers,
            decided=decided,
            errors=errors,
            milliseconds={
                who: time * (1 + 0.05 * draw.random(count)) for who, time in times.items()
            },
            batch=np.arange(count) // 10,
            size_bytes=size_bytes or dict.fromkeys(right, 1_000_000),
            opponents={"naive": "majority class", "probe": "linear probe"},
            **more,
        )

    return make
