from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from components.errors import SourceError
from components.prepare.core import ROWS, VECTORS, PrepareConfig, assign, prepare
from components.prepare.label_errors import likely_label_errors, out_of_fold, table_vectors
from components.quarantine import keys_of
from components.tasks.tabular_classification import TabularClassification
from components.tasks.text_anomaly import TextAnomaly
from components.tasks.text_classification import TextClassification
from components.tasks.text_regression import TextRegression

TASK = TextClassification(labels=("x", "y"))
WINDOWS = ("w0", "w1", "w2")
USES_TEST = {"test", "guard"}
USES_TRAIN = {"train", "valid", "rehearsal"}


@st.composite
def frames(draw):
    """Rows in three windows, several of a group, the groups spread over the windows."""
    count = draw(st.integers(0, 40))
    groups = draw(st.lists(st.integers(0, 15), min_size=count, max_size=count))
    windows = draw(st.lists(st.sampled_from(WINDOWS), min_size=count, max_size=count))
    salt = draw(st.integers(0, 10**6))
    return pd.DataFrame(
        {
            "id": [f"{salt}-{number}" for number in range(count)],
            "group": [f"{salt}-{group}" for group in groups],
            "window": windows,
        }
    )


CONFIGS = st.builds(
    PrepareConfig,
    valid_share=st.floats(0.01, 0.69),
    rehearsal_share=st.floats(0, 10),
    guard_rows=st.integers(0, 30),
)


def splits(frame, window, config):
    return pd.Series(assign(frame, window, config), index=frame["id"])


@given(frames(), CONFIGS)
def test_no_group_is_in_two_of_train_valid_and_test(frame, config):
    for window in WINDOWS:
        used = frame.assign(split=assign(frame, window, config))
        current = used[used["window"] == window]
        assert set(current["split"]) <= {"train", "valid", "test"}
        assert (current.groupby("group")["split"].nunique() <= 1).all()
        earlier = used[used["window"] != window]
        assert set(earlier["split"]) <= {"rehearsal", "guard", ""}


@given(frames(), CONFIGS)
def test_a_group_that_tests_in_one_window_is_learned_from_in_none(frame, config):
    learned, tested, validated = set(), set(), set()
    for window in WINDOWS:
        split = assign(frame, window, config)
        learned |= set(frame["group"][np.isin(split, ["train", "rehearsal"])])
        validated |= set(frame["group"][split == "valid"])
        tested |= set(frame["group"][np.isin(split, list(USES_TEST))])
    assert not learned & tested
    assert not validated & (learned | tested)


@given(frames(), st.data())
def test_a_row_keeps_its_split_whatever_other_rows_come_or_go(frame, data):
    config = PrepareConfig()
    some = data.draw(st.lists(st.booleans(), min_size=len(frame), max_size=len(frame)))
    fewer = frame[np.array(some, dtype=bool)]
    whole, part = splits(frame, "w1", config), splits(fewer, "w1", config)
    for row, window in zip(fewer["id"], fewer["window"], strict=True):
        if window == "w1":
            assert whole[row] == part[row]
        else:  # sampled or not, but never on the other side
            used = {whole[row], part[row]} - {""}
            assert used <= USES_TEST or used <= USES_TRAIN


@given(frames(), CONFIGS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_decides_nothing(frame, config, random):
    order = list(range(len(frame)))
    random.shuffle(order)
    there = splits(frame, "w1", config)
    pd.testing.assert_series_equal(
        splits(frame.iloc[order], "w1", config).sort_index(), there.sort_index()
    )


@given(frames(), CONFIGS)
def test_rehearsal_and_guard_take_as_many_as_wanted_and_there_are(frame, config):
    split = assign(frame, "w1", config)
    wanted = round(config.rehearsal_share * (split == "train").sum())
    earlier = (frame["window"] != "w1").to_numpy()
    assert (split == "rehearsal").sum() <= wanted
    assert (split == "guard").sum() <= config.guard_rows
    unused = frame[(split == "") & earlier]
    again = assign(
        frame, "w1", config.model_copy(update={"rehearsal_share": 1e6, "guard_rows": 99})
    )
    could = pd.Series(again, index=frame["id"])[unused["id"]]
    assert (could == "rehearsal").sum() == 0 or (split == "rehearsal").sum() == wanted
    assert (could == "guard").sum() == 0 or (split == "guard").sum() == config.guard_rows


def test_the_shares_come_out_as_configured():
    frame = pd.DataFrame({"id": map(str, range(10_000)), "window": "w1"})
    frame["group"] = frame["id"]
    shares = splits(frame, "w1", PrepareConfig(valid_share=0.3)).value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.2, abs=0.02)
    assert shares["valid"] == pytest.approx(0.3, abs=0.02)
    assert shares["train"] == pytest.approx(0.5, abs=0.02)


# --- the step ---


def vector(text):
    return [byte / 255 for byte in hashlib.sha256(text.encode()).digest()[:4]]


def vectors_of(texts):
    return np.array([vector(text) for text in texts], dtype=np.float32).reshape(-1, 4)


@pytest.fixture
def good(tmp_path):
    """Folder of validated rows: fifty in each of two windows, the current one first."""
    rows = [
        {
            "id": f"{window}-{number}",
            "group": f"{window}-{number}",
            "time": None,
            "text": f"text {window} {number}",
            "label": ("x", "y")[number % 2],
            "window": window,
        }
        for window in ("w1", "w0")
        for number in range(50)
    ]
    (tmp_path / "good").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "good" / "rows.parquet")
    return tmp_path / "good"


def test_the_current_rows_come_first_each_with_its_vector(good, tmp_path):
    report = prepare(good, "w1", "2026-01-19", tmp_path / "out", TASK, PrepareConfig(), vectors_of)
    frame = pd.read_parquet(tmp_path / "out" / ROWS)
    vectors = load_file(tmp_path / "out" / VECTORS)["vectors"]
    assert (frame["window"] == "w1").tolist() == [True] * 50 + [False] * (len(frame) - 50)
    np.testing.assert_array_equal(vectors, vectors_of(frame["text"][:50]))
    assert report.rows_by_split == frame["split"].value_counts().to_dict()
    assert list(report.rows_by_split) == ["train", "rehearsal", "valid", "test", "guard"]
    assert {
        split: sum(labels.values()) for split, labels in report.labels_by_split.items()
    } == report.rows_by_split
    assert report.headline.startswith(f"{report.rows_by_split['train']} train, ")


def test_the_digest_is_that_of_the_rows_and_their_splits(good, tmp_path):
    def digest(name, window="w1", **config):
        return prepare(
            good, window, "", tmp_path / name, TASK, PrepareConfig(**config), vectors_of
        ).digest

    assert digest("a") == digest("b")
    assert len({digest("a"), digest("c", window="w0"), digest("d", guard_rows=3)}) == 3


def test_without_earlier_rows_there_is_neither_rehearsal_nor_guard(good, tmp_path):
    frame = pd.read_parquet(good / "rows.parquet")
    frame[frame["window"] == "w1"].to_parquet(good / "rows.parquet")
    report = prepare(good, "w1", "", tmp_path / "out", TASK, PrepareConfig(), vectors_of)
    assert set(report.rows_by_split) == {"train", "valid", "test"}


def test_the_toy_problem_keeps_its_groups_apart_between_weeks(toy):
    first, second = (pd.read_parquet(folder / ROWS) for folder in (toy.first, toy.second))
    learned = set(first["group"][first["split"] == "train"])
    tested = set(second["group"][second["split"].isin(USES_TEST)])
    assert learned and tested and not learned & tested
    assert (second["split"] == "guard").sum() == (first["split"] == "test").sum()


def test_every_kind_of_task_is_split_and_its_labels_are_counted(case_of, kind):
    case = case_of(kind)
    frame = pd.read_parquet(case.prepared / ROWS)
    assert set(frame["split"]) == {"train", "valid", "test"}
    for split, rows in frame.groupby("split"):
        counts = case.task.label_counts(rows["label"])
        assert sum(counts.values()) == len(rows) > 10, split


@pytest.mark.parametrize(
    ("task", "labels", "lacks"),
    [
        (TASK, ("x",), "a single class"),
        (TextRegression(low=0, high=2), ("1",), "a single value"),
        (TextAnomaly(), ("anomaly",), "no rows with the label 'normal'"),
    ],
)
def test_what_cannot_be_learnt_stops_before_training(good, tmp_path, task, labels, lacks):
    frame = pd.read_parquet(good / "rows.parquet")
    frame["label"] = [labels[number % len(labels)] for number in range(len(frame))]
    frame.to_parquet(good / "rows.parquet")
    with pytest.raises(SourceError, match=f"train has {lacks}"):
        prepare(good, "w1", "", tmp_path / "out", task, PrepareConfig(), vectors_of)


# --- other ways to choose validation rows ---


@st.composite
def dated_frames(draw):
    """Frames with labels and times, some of which are missing."""
    frame = draw(frames())
    days = draw(st.lists(st.integers(1, 28), min_size=len(frame), max_size=len(frame)))
    frame["time"] = [f"2026-01-{day:02d}T00:00:00+00:00" for day in days]
    frame.loc[frame.index[1::7], "time"] = None
    frame["label"] = [("x", "y", "z")[day % 3] for day in days]
    return frame


@pytest.mark.parametrize("kind", ["stratified", "time"])
@settings(deadline=None, max_examples=10)
@given(frame=dated_frames(), share=st.floats(0.01, 0.69))
def test_however_validation_rows_are_chosen_groups_stay_whole_and_tests_the_same(
    kind, frame, share
):
    config = PrepareConfig(valid_share=share, valid_split=kind)
    for window in WINDOWS:
        split = assign(frame, window, config)
        hashed = assign(frame, window, PrepareConfig(valid_share=share))
        assert ((split == "test") == (hashed == "test")).all()
        current = frame.assign(split=split, time=frame["time"].fillna(""))
        current = current[frame["window"] == window]
        assert set(current["split"]) <= {"train", "valid", "test"}
        assert (current.groupby("group")["split"].nunique() <= 1).all()
        if kind == "time":
            last = current.groupby("group").agg(time=("time", "max"), split=("split", "first"))
            train, valid = (last["time"][last["split"] == name] for name in ("train", "valid"))
            assert train.empty or valid.empty or train.max() <= valid.min()


def test_stratified_validation_rows_have_every_label_by_its_share():
    labels = ["x"] * 900 + ["y"] * 100
    frame = pd.DataFrame({"id": map(str, range(1000)), "window": "w1", "label": labels})
    frame["group"], frame["time"] = frame["id"], None
    split = assign(frame, "w1", PrepareConfig(valid_split="stratified"))
    for label, rows in frame.assign(split=split).groupby("label"):
        rest = rows[rows["split"] != "test"]
        assert (rest["split"] == "valid").mean() == pytest.approx(0.25, abs=0.01), label


def test_rows_without_times_cannot_be_split_by_time(good, tmp_path):
    with pytest.raises(SourceError, match=r"set source\.columns\.time, or split by hash"):
        prepare(
            good, "w1", "", tmp_path / "out", TASK, PrepareConfig(valid_split="time"), vectors_of
        )


# --- likely label errors ---


def separable(texts):
    return np.array([[1.0, 0.1] if " x " in text else [0.1, 1.0] for text in texts], np.float32)


@pytest.fixture
def mislabelled(tmp_path):
    """Two hundred rows of a window, of which some of every split carry the other label."""
    rows = []
    for number in range(200):
        label = ("x", "y")[number % 2]
        rows.append(
            {
                "id": f"r{number}",
                "group": f"g{number}",
                "time": None,
                "text": f"text {label} {number}",
                "label": label if number % 20 else "y",
                "window": "w1",
            }
        )
    (tmp_path / "good").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "good" / "rows.parquet")
    return tmp_path / "good"


@pytest.mark.parametrize("what", ["off", "warn", "quarantine"])
def test_likely_label_errors_are_listed_or_left_out_of_training(mislabelled, tmp_path, what):
    config = PrepareConfig(label_errors=what)
    kept: list[pd.DataFrame] = []
    report = prepare(
        mislabelled, "w1", "", tmp_path / "out", TASK, config, separable, keep=kept.append
    )
    frame = pd.read_parquet(tmp_path / "out" / ROWS)
    whole = prepare(mislabelled, "w1", "", tmp_path / "all", TASK, PrepareConfig(), separable)
    every = pd.read_parquet(tmp_path / "all" / ROWS)
    wrong = every[
        (every["split"] == "train") & every["id"].isin([f"r{n}" for n in range(0, 200, 20)])
    ]
    assert set(report.suspected) <= set(wrong["id"])
    assert bool(report.suspected) == (what != "off")
    if what != "off":
        assert len(report.suspected) >= 0.7 * len(wrong)
    assert len(wrong) > 4
    if what == "quarantine":
        (left,) = kept
        assert left["id"].tolist() == report.suspected
        assert set(left["reasons"]) == {"likely-label-error"}
        assert len(frame) + len(left) == len(every)
        vectors = load_file(tmp_path / "out" / VECTORS)["vectors"]
        np.testing.assert_array_equal(vectors, separable(frame["text"]))
        assert report.digest != whole.digest
        assert "likely wrong" in report.headline
    else:
        assert kept == []
        assert report.digest == whole.digest


def test_turned_labels_are_found_in_every_task_of_classes(case_of, kind):
    case = case_of(kind)
    if not case.task.label_names:
        return  # a regression, which the project refuses
    frame = pd.read_parquet(case.prepared / ROWS)
    vectors = load_file(case.prepared / VECTORS)["vectors"]
    if isinstance(case.task, TabularClassification):
        vectors = table_vectors(frame["text"].tolist(), case.task.columns)
    targets = np.unique(frame["label"], return_inverse=True)[1]
    turned = np.arange(len(frame)) % 15 == 0
    labels = np.where(turned, 1 - targets, targets)
    answers = out_of_fold(vectors, labels, np.arange(len(frame)))
    found = likely_label_errors(answers, labels)
    assert turned[found].sum() >= 0.5 * turned.sum()
    assert turned[found].mean() >= 3 * turned.mean()


def test_a_label_that_a_person_confirmed_is_suspected_no_more(mislabelled, tmp_path):
    config = PrepareConfig(label_errors="quarantine")
    every = pd.read_parquet(mislabelled / "rows.parquet")
    report = prepare(
        mislabelled,
        "w1",
        "",
        tmp_path / "out",
        TASK,
        config,
        separable,
        confirmed=set(keys_of(every)),
    )
    assert report.suspected == []
