"""Does one word, or one column, give the label away?

Such as a label that was written into the text, or a field that is filled in once the answer is
known. The model would learn it and nothing else, and fail where it is not there.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from components.validate.config import ValidateConfig
from components.validate.sample import Sample

ROWS = 5000
"""No more rows are looked at."""
MIN_ROWS = 50
"""Of fewer, some word tells the labels apart by chance."""
BINS = 20
_WORD = re.compile(r"\w+")


def leak(sample: Sample, config: ValidateConfig) -> dict[str, str]:
    """Return what gives the label away in the current window."""
    current = sample.current.head(ROWS)
    labels = current["label"].tolist()
    if not sample.task.label_names or len(set(labels)) < 2 or len(labels) < MIN_ROWS:
        return {}
    if sample.task.content == "image":
        return {}
    if sample.task.content == "text":
        name, score = telling_word(current["text"].tolist(), labels)
        what = f"the word {name!r}"
    else:
        records = pd.DataFrame([json.loads(each) for each in current["text"]])
        name, score = telling_column(records, labels)
        what = f"the column {name}"
    if score < config.max_label_given_away:
        return {}
    return {
        "label-given-away": f"{what} tells the label of window {sample.window} by itself "
        f"(F1 {score:.3f}); is it known before the answer is?"
    }


def telling_word(texts: Sequence[str], labels: Sequence[str]) -> tuple[str, float]:
    """Return the word that is best at telling one label from all others, and its F1.

    Examples:
        >>> telling_word(["good film", "good one", "bad film"], ["x", "x", "y"])
        ('good', 1.0)
    """
    rows_with: Counter[str] = Counter()
    hits: Counter[tuple[str, str]] = Counter()
    for text, label in zip(texts, labels, strict=True):
        words = set(_WORD.findall(text.lower()))
        rows_with.update(words)
        hits.update((word, label) for word in words)
    of_label = Counter(labels)
    scores = {
        (word, label): 2 * found / (rows_with[word] + of_label[label])
        for (word, label), found in hits.items()
        if found >= 2
    }
    if not scores:
        return "", 0.0
    best = max(scores, key=lambda key: (scores[key], key))
    return best[0], scores[best]


def telling_column(columns: Mapping[str, pd.Series], labels: Sequence[str]) -> tuple[str, float]:
    """Return the column that is best at telling the labels, and its macro F1.

    Every row is told by the commonest label of the other rows with its value, or with a number
    in the same twentieth, so that a column of ids tells nothing.
    """
    from sklearn.metrics import f1_score

    scores = {}
    kinds, codes = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    for name in columns:
        values = columns[name]
        numbers = pd.to_numeric(values, errors="coerce")
        if numbers.nunique() > BINS and numbers.notna().mean() > 0.5:
            values = pd.qcut(numbers, BINS, labels=False, duplicates="drop")
        place = pd.factorize(values.astype(str))[0]
        votes = np.zeros((place.max() + 1, len(kinds)))
        np.add.at(votes, (place, codes), 1)
        others = votes[place]
        others[np.arange(len(codes)), codes] -= 1
        told = np.where(others.sum(1) > 0, others.argmax(1), -1)
        scores[name] = float(
            f1_score(codes, told, labels=range(len(kinds)), average="macro", zero_division=0)
        )
    best = max(scores, key=lambda name: scores[name], default="")
    return best, scores.get(best, 0.0)
