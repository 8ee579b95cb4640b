from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save

from components.embeddings import KeptEmbeddings, _digests
from components.plan import Base, Data, Live, WindowData
from components.sources import open_source
from components.sources.files import ColumnNames, FilesConfig
from components.store import LocalStore
from components.tasks.text_classification import TextClassification
from components.tasks.text_regression import TextRegression
from components.trigger.config import ProbeConfig
from components.trigger.probe import Rows, ask, gain
from components.windows import Window

TASK = TextClassification(labels=("bad", "good"), max_tokens=16)
BASE = Base(place="nowhere", digest="b" * 64)
WEEKS = [
    Window(start=f"2026-01-{day:02d}T00:00:00+00:00", end=f"2026-01-{day + 7:02d}T00:00:00+00:00")
    for day in (5, 12, 19)
]


def draw(rows, *, flip=0.0, seed=0, noise=0.6):
    """Return rows that the first component decides; ``flip`` of them the other way round."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(rows, 8)).astype(np.float32)
    side = vectors[:, 0] + noise * generator.normal(size=rows) > 0
    side ^= generator.random(rows) < flip
    labels = np.where(side, "good", "bad").tolist()
    return Rows(vectors, labels, [f"{seed}-{row}" for row in range(rows)])


def test_what_is_like_before_teaches_nothing():
    found = [gain(draw(800, seed=seed), draw(800, seed=seed + 50), TASK) for seed in range(4)]
    assert abs(np.mean([each.mean for each in found])) < 0.01
    assert all(0 < each.error < 0.02 for each in found)


def test_what_turned_round_teaches_much():
    found = gain(draw(400), draw(1600, flip=0.9, seed=1), TASK)
    assert found.mean > 0.3 > 10 * found.error


def test_rows_of_a_group_are_no_independent_evidence():
    old, new = draw(400), draw(400, flip=0.3, seed=1)
    twice = Rows(np.repeat(new.vectors, 4, axis=0), [x for x in new.labels for _ in range(4)], [])
    alone = Rows(twice.vectors, twice.labels, [f"{row}" for row in range(len(twice))])
    grouped = Rows(twice.vectors, twice.labels, [x for x in new.groups for _ in range(4)])
    assert gain(old, grouped, TASK).error > 1.5 * gain(old, alone, TASK).error


def test_numbers_are_probed_by_their_errors():
    generator, task = np.random.default_rng(3), TextRegression(low=-10, high=10)

    def rows(slope, seed):
        vectors = generator.normal(size=(600, 8)).astype(np.float32)
        numbers = slope * vectors[:, 0] + 0.1 * generator.normal(size=600)
        return Rows(vectors, [str(each) for each in numbers], [f"{seed}-{n}" for n in range(600)])

    assert abs(gain(rows(1, 0), rows(1, 1), task).mean) < 0.01
    assert gain(rows(1, 2), rows(-1, 3), task).mean > 0.3


def test_a_single_class_can_be_asked_about():
    old = Rows(draw(100).vectors, ["good"] * 100, [str(n) for n in range(100)])
    assert gain(old, old, TASK).mean == 0


@pytest.fixture
def world(tmp_path, request):
    """Three weeks of rows, in as many groups as asked; kept embeddings of those ``keep`` names."""
    groups = getattr(request, "param", 300)
    lines, vectors = ["id,text,label,day,group"], {}
    for week, flip in enumerate((0.0, 0.0, 0.9)):
        rows = draw(300, flip=flip, seed=week)
        for number, label in enumerate(rows.labels):
            text = f"row {week} {number}"
            vectors[text] = rows.vectors[number]
            day = 5 + 7 * week + number % 7
            at = f"2026-01-{day:02d}T12:00:00+00:00"
            lines.append(f"{week}-{number},{text},{label},{at},{week}-{number % groups}")
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    source = FilesConfig(
        root=str(tmp_path),
        files=[{"path": "rows.csv"}],
        columns=ColumnNames(id="id", text="text", label="label", time="day", group="group"),
    )
    opened, store = open_source(source), LocalStore(tmp_path / "objects")
    read = [opened.read(week) for week in WEEKS]
    planned = [
        WindowData(window=week, fingerprint=rows.fingerprint(), rows=len(rows.frame))
        for week, rows in zip(WEEKS, read, strict=True)
    ]

    def run(new, *, keep=(0, 1, 2), leave_out=0, **policy):
        kept = KeptEmbeddings(store, BASE, TASK, "code")
        for number in keep:
            texts = read[number].frame["text"].tolist()[leave_out:]
            names = np.array([list(bytes.fromhex(each)) for each in _digests(texts)], np.uint8)
            found = np.stack([vectors[text] for text in texts])
            key = f"{kept._at}/{planned[number].fingerprint}.safetensors"
            store.put(key, save({"digests": names, "vectors": found}))
        return ask(
            Data(source=source, windows=planned),
            Live(source=source, current=planned[-1], labelled=[planned[each] for each in new]),
            BASE,
            TASK,
            "code",
            store,
            ProbeConfig(**policy),
        )

    return run


def test_a_retrain_that_could_win_passes(world):
    passes, measured, threshold = world([2])
    assert passes is True
    assert "a head on frozen features gains +" in measured and "(300 rows)" in measured
    assert threshold == "a gain of over 2.0% is possible"


def test_one_that_would_gain_little_is_skipped(world):
    assert world([1], min_gain=0.05)[0] is False


@pytest.mark.parametrize(
    ("new", "more"), [([], {}), ([2], {"min_rows": 301}), ([2], {"keep": (0, 1), "min_rows": 20})]
)
def test_without_rows_that_tell_nothing_is_skipped(world, new, more):
    passes, measured, _ = world(new, **more)
    assert passes is None
    assert "new ones are needed" in measured


@pytest.mark.parametrize("world", [1, 4, 19], indirect=True)
def test_new_rows_of_a_few_groups_tell_nothing(world):
    """Of one group nothing is held out beside others, so that no head could learn from it."""
    passes, measured, _ = world([2])
    assert passes is None
    assert "in 20 groups" in measured


def test_rows_without_a_kept_embedding_are_left_out(world):
    assert "(250 rows)" in world([2], leave_out=50)[1]
