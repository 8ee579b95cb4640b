"""What a person wants to see besides the verdict: curves, rows, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components import calibration
from components.attributions import weights
from components.evaluate.check import shortened
from components.evaluate.comparison import mcnemar
from components.evaluate.exam import Exam, Rows
from components.evaluate.examinee import Examinee
from components.evaluate.metrics import score
from components.settings import Section

_POINTS = 100
_CLASSES = 10
"""Curves of more classes cannot be told apart."""
_DISAGREEMENTS, _ERRORS = 16, 5
_CHARACTERS = 300
_THUMBNAIL = 96


class Roc(Section):
    """Rates of one class against all others, from the highest threshold to the lowest."""

    model: str
    label: str
    false_positive_rate: list[float]
    true_positive_rate: list[float]
    thresholds: list[float]


class Point(Section):
    """Answers that are about as sure."""

    confidence: float
    accuracy: float
    rows: int


class Shown(Section):
    """A row to look at; a long text is cut, an image is made small."""

    id: str
    content: str
    label: str
    champion: str = ""
    challenger: str
    sureness: float | None = None
    """The challenger's answer to what it said."""
    words: list[tuple[str, float]] = []
    """What the answer loses without each word; a long one is cut."""
    tiles: list[list[float]] = []
    """What it loses without each part of an image."""


class ByLabel(Section):
    """How each label fares on the test rows."""

    label: str
    rows: int
    precision: dict[str, float]
    """By model; 0 of a model that never gives a label that is there."""
    recall: dict[str, float]
    f1: dict[str, float]


class Duel(Section):
    """Test rows that one model alone gets right, and whether that is chance (McNemar)."""

    only_champion: int
    only_challenger: int
    p_value: float
    """Two-sided."""
    exact: bool
    """Of a binomial; else, where rows share groups, of permutations."""


class Evidence(Section):
    """What the report shows below the checks."""

    duel: Duel | None = None
    """None without a champion, and where answers are numbers."""

    by_label: list[ByLabel] = []
    roc: list[Roc] = []
    reliability: dict[str, list[Point]] = {}
    """By model."""
    disagreements: list[Shown] = []
    disagreeing: int = 0
    """Test rows on which challenger and champion say different things."""
    errors: list[Shown] = []
    """Rows that the challenger is surest of, or farthest from, and wrong."""
    milliseconds: dict[str, list[float]] = {}
    """By model, per row of each batch; the models took turns."""
    size_bytes: dict[str, int] = {}
    memory_bytes: dict[str, int] = {}


def gather(
    exam: Exam, examinees: dict[str, Examinee], batches: dict[str, Any], *, seed: int
) -> Evidence:
    """Return what there is to see.

    Args:
        exam: all answers.
        examinees: to ask why.
        batches: milliseconds per row of each batch, by model.
        seed: of permutations.
    """
    test = exam.of("test")
    measured = Evidence(
        milliseconds={who: [round(each, 4) for each in times] for who, times in batches.items()},
        size_bytes=exam.size_bytes,
        memory_bytes=exam.memory_bytes,
    )
    if exam.broken:
        return measured
    return measured.model_copy(
        update={
            "duel": _duel(exam, test, seed),
            "by_label": _by_label(exam, test),
            "roc": _rocs(exam, test),
            "reliability": _reliability(exam, test),
            "disagreements": _disagreements(exam, test),
            "disagreeing": int(_differ(exam, test).sum()) if exam.has_champion else 0,
            "errors": _worst(exam, test, examinees["challenger"]),
        }
    )


def scores_of(exam: Exam, examinees: dict[str, Examinee]) -> dict[str, dict[str, Any]]:
    """Return scores by model, set and metric; what the rows give no value is left out."""
    out: dict[str, dict[str, Any]] = {}
    for who, answers in exam.answers.items():
        out[who] = {}
        for split in ("test", "guard", "holdout"):
            rows = exam.of(split)
            if not rows.any() or np.isnan(answers[rows]).any():
                continue
            scored = exam.scored(who, rows)
            speaker = examinees.get(who) or next(iter(examinees.values()))
            # What depends on decisions is the exam's: a baseline decides by a rule of its own.
            values = speaker.scores(exam.targets[rows], answers[rows])
            values |= {name: float(score(name, scored)[0]) for name in exam.metrics}
            finite = {name: value for name, value in values.items() if np.isfinite(value)}
            out[who][split] = {"rows": int(rows.sum()), **finite}
    return out


def confusion(exam: Exam) -> list[list[int]]:
    """Return test rows by true and answered label; empty where answers are no labels."""
    if exam.broken or not exam.classes:
        return []
    test, count = exam.of("test"), len(exam.labels)
    cells = exam.targets[test] * count + exam.decided["challenger"][test]
    counts = np.bincount(cells, minlength=count**2).reshape(count, count)
    return [[int(each) for each in row] for row in counts]


def _models(exam: Exam) -> list[str]:
    return [who for who in ("champion", "challenger") if who in exam.answers]


def _duel(exam: Exam, test: Rows, seed: int) -> Duel | None:
    if not exam.has_champion or not exam.classes:
        return None
    champion, challenger = (exam.errors[who][test] == 0 for who in ("champion", "challenger"))
    found = mcnemar(champion, challenger, exam.groups(test), seed=seed)
    return Duel(
        only_champion=found.only_champion,
        only_challenger=found.only_challenger,
        p_value=found.p_value,
        exact=found.exact,
    )


def _by_label(exam: Exam, test: Rows) -> list[ByLabel]:
    scored = {who: exam.scored(who, test) for who in _models(exam)}

    def values(metric: str, label: str) -> dict[str, float]:
        found = {
            who: float(score(f"{metric}:{label}", each, labels=exam.classes)[0])
            for who, each in scored.items()
        }
        return {who: value for who, value in found.items() if np.isfinite(value)}

    return [
        ByLabel(
            label=label,
            rows=int((exam.targets[test] == place).sum()),
            precision=values("precision", label),
            recall=values("recall", label),
            f1=values("f1", label),
        )
        for place, label in enumerate(exam.classes)
    ]


def _rocs(exam: Exam, test: Rows) -> list[Roc]:
    from sklearn.metrics import roc_curve

    if not exam.classes or len(exam.classes) > _CLASSES:
        return []
    # Of two classes one curve is the other's mirror image.
    places = [1] if len(exam.classes) == 2 else range(len(exam.classes))
    curves = []
    for place in places:
        positive = exam.targets[test] == place
        if not positive.any() or positive.all():
            continue
        for who in _models(exam):
            rates = roc_curve(positive, exam.answers[who][test][:, place])
            kept = _thinned(len(rates[0]))
            false, true, thresholds = (each[kept].clip(0, 1).round(5).tolist() for each in rates)
            curves.append(
                Roc(
                    model=who,
                    label=exam.labels[place],
                    false_positive_rate=false,
                    true_positive_rate=true,
                    thresholds=thresholds,
                )
            )
    return curves


def _thinned(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, _POINTS)).round().astype(np.int64))


def _reliability(exam: Exam, test: Rows) -> dict[str, list[Point]]:
    if exam.kind != "classification":
        return {}
    out = {}
    for who in _models(exam):
        sure, right = calibration.confidences(exam.answers[who][test], exam.targets[test])
        # Fewer than a dozen rows in a point make it jump.
        bins = int(np.clip(len(sure) // 12, 3, 15))
        points = calibration.reliability(sure, right, bins=bins)
        out[who] = [
            Point(confidence=each.confidence, accuracy=each.accuracy, rows=each.rows)
            for each in points
        ]
    return out


def _differ(exam: Exam, rows: Rows) -> NDArray[np.bool_]:
    a, b = (exam.decided[who][rows] for who in ("champion", "challenger"))
    return np.asarray(a != b)


def _disagreements(exam: Exam, test: Rows) -> list[Shown]:
    """Return rows on which the models differ: as many won as lost, the clearest first."""
    if not exam.has_champion:
        return []
    places = np.flatnonzero(test)[_differ(exam, test)]
    won = exam.errors["champion"][places] - exam.errors["challenger"][places]
    if exam.classes:
        apart = np.abs(exam.answers["challenger"] - exam.answers["champion"]).max(1)[places]
    else:
        apart = np.abs(won)
    chosen: list[int] = []
    for sign in (1, -1, 0):
        some = np.flatnonzero(np.sign(won) == sign)
        best = some[np.argsort(-apart[some], kind="stable")]
        chosen += places[best][: _DISAGREEMENTS // 2 if sign else _DISAGREEMENTS // 4].tolist()
    return [_shown(exam, place) for place in chosen]


def _worst(exam: Exam, test: Rows, examinee: Examinee) -> list[Shown]:
    places = np.flatnonzero(test)
    wrong = exam.errors["challenger"][places]
    by = wrong
    if exam.classes:
        by = np.where(wrong > 0, exam.answers["challenger"][places].max(1), 0.0)
    order = places[np.argsort(-by, kind="stable")]
    found = []
    for place in order[:_ERRORS].tolist():
        if not exam.errors["challenger"][place] > 0:
            break
        column = int(exam.decided["challenger"][place]) if exam.classes else 0
        words, tiles = weights(
            exam.rows["text"].iloc[place], exam.content, examinee.answers, column
        )
        cut = [(shortened(word), weight) for word, weight in words]
        shown = _shown(exam, place)
        found.append(shown.model_copy(update={"words": cut, "tiles": tiles}))
    return found


def _shown(exam: Exam, place: int) -> Shown:
    row = exam.rows.iloc[place]

    def said(who: str) -> str:
        if who not in exam.decided:
            return ""
        value = exam.decided[who][place]
        if not exam.classes:
            return f"{value:.3g}"
        left = who in exam.abstained and exam.abstained[who][place]
        return f"left to a person, leaning to {exam.labels[value]}" if left else exam.labels[value]

    decided = exam.decided["challenger"][place]
    sure = exam.answers["challenger"][place][decided] if exam.classes else None
    return Shown(
        id=str(row["id"]),
        content=_content(row["text"], exam),
        label=str(row["label"]),
        champion=said("champion"),
        challenger=said("challenger"),
        sureness=None if sure is None else float(sure),
    )


def _content(content: str, exam: Exam) -> str:
    if exam.content != "image":
        return content if len(content) <= _CHARACTERS else content[: _CHARACTERS - 1] + "…"
    from components.tasks.image_classification import decode, encode_png

    image = decode(content).convert("RGB")
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return encode_png(np.asarray(image))
