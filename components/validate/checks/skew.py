"""Are the rows to learn from like what the server was asked in the same window?

Where they are not, such as cut, folded to lower case or in another language, the model learns
what nobody will ask it: training-serving skew. Windows compared with each other do not show
that, for all of them come the same way.

References:
    Breck et al. (2019), Data validation for machine learning, section 4.3.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.distribution import effective_category_rows, effective_rows
from components.languages import language
from components.tasks.columns import number_in
from components.validate.checks.balance import moved
from components.validate.config import ValidateConfig
from components.validate.sample import Sample

ROWS = 5000
"""No more contents of either side are looked at."""

Numbers = NDArray[np.float64]
Described = dict[str, Numbers | list[str]]
"""By name, numbers ``[n]`` or kinds ``[n]``."""


def skew(sample: Sample, config: ValidateConfig) -> dict[str, str]:
    """Return in what the current window differs most from what the server was asked."""
    task, settings = sample.task, config.skew
    rows = sample.current.drop_duplicates("text").head(ROWS)
    asked = pd.Series(sample.served[:ROWS], dtype=object)
    asked = asked[task.readable(asked).to_numpy(bool)] if len(asked) else asked
    if min(len(rows), len(asked)) < settings.min_rows:
        return {}
    groups = np.unique(rows["group"].fillna("").to_numpy(str), return_inverse=True)[1]
    learnt, served = (_described(each.tolist(), sample) for each in (rows["text"], asked))
    found = {
        name: _difference(learnt[name], served[name], groups)
        for name in sorted({*learnt} & {*served})
    }
    # So many are compared that some differ by chance (Bonferroni).
    apart = {
        name: change
        for name, (change, p_value) in found.items()
        if change >= settings.min_change and p_value < settings.max_p_value / len(found)
    }
    if not apart:
        return {}
    said = ", ".join(
        f"{name} ({apart[name]:.0%} apart)" for name in sorted(apart, key=lambda name: -apart[name])
    )
    return {
        "training-serving-skew": f"the rows of window {sample.window} are not like the "
        f"{len(asked):,} contents that the server was asked then: {said}; what is learnt is not "
        "what is asked"
    }


def _described(contents: Sequence[str], sample: Sample) -> Described:
    """Return what can be said of contents without a model."""
    return _DESCRIBED[sample.task.content](contents)


def _texts(contents: Sequence[str]) -> Described:
    def share(holds: Callable[[str], bool]) -> Numbers:
        return np.array([sum(map(holds, text)) / max(1, len(text)) for text in contents])

    return {
        "characters": np.array([len(text) for text in contents], np.float64),
        "words": np.array([len(text.split()) for text in contents], np.float64),
        "share of capitals": share(str.isupper),
        "share of digits": share(str.isdigit),
        "share of punctuation": share(lambda sign: unicodedata.category(sign)[0] == "P"),
        "language": [language(text) for text in contents],
    }


def _images(contents: Sequence[str]) -> Described:
    from components.tasks.image_classification import decode

    images = [decode(content) for content in contents]
    grey = [np.asarray(image.convert("L"), np.float64) / 255 for image in images]
    return {
        "width": np.array([image.width for image in images], np.float64),
        "height": np.array([image.height for image in images], np.float64),
        "brightness": np.array([each.mean() for each in grey]),
        "contrast": np.array([each.std() for each in grey]),
    }


def _records(contents: Sequence[str]) -> Described:
    """Return the columns: numbers where most are some, and what is missing as a kind."""
    import json

    frame = pd.DataFrame([json.loads(content) for content in contents], dtype=object)
    described: Described = {}
    for name in frame:
        values = [None if value is None or value != value else str(value) for value in frame[name]]
        numbers = np.array([number_in(value) for value in values])
        if np.isfinite(numbers).mean() > 0.5:
            described[f"column {name}"] = numbers
        else:
            described[f"column {name}"] = [value or "missing" for value in values]
    return described


_DESCRIBED: dict[str, Callable[[Sequence[str]], Described]] = {
    "text": _texts,
    "image": _images,
    "record": _records,
}


def _difference(
    learnt: Numbers | list[str], served: Numbers | list[str], groups: NDArray[np.int64]
) -> tuple[float, float]:
    """Return how far two sides are apart, 0 to 1, and how likely that is by chance.

    Rows of one group are alike, and so may be what one client asks: what rows are worth is
    measured on the side that says its groups, and taken for both.
    """
    if isinstance(learnt, list) or isinstance(served, list):
        one, other = list(map(str, learnt)), list(map(str, served))
        worth = effective_category_rows(one, groups) / len(one)
        kinds = sorted({*one, *other})
        counts = np.array([[side.count(kind) for kind in kinds] for side in (one, other)], float)
        return moved(counts, np.array([worth, worth]))
    from scipy.stats import ks_2samp, kstwobign

    known = np.isfinite(learnt)
    if not known.any() or not np.isfinite(served).any():
        return 0.0, 1.0
    both = (learnt[known], served[np.isfinite(served)])
    distance = float(ks_2samp(*both, method="asymp").statistic)
    worth = effective_rows(learnt[known], groups[known]) / known.sum()
    rows = worth * known.sum() * np.isfinite(served).sum()
    rows /= known.sum() + np.isfinite(served).sum()
    return distance, float(kstwobign.sf(distance * math.sqrt(rows)))
