from __future__ import annotations

import base64
from functools import partial

import numpy as np
import pandas as pd
import pytest

from components import bundle
from components.collect.core import CURRENT, ERRORS, INPUTS, CollectConfig, collect
from components.drift.core import DriftConfig, detect
from components.embeddings import embed
from components.errors import BundleError, SourceError
from components.plan import Live, WindowData
from components.profile import Profile
from components.sources import open_source
from components.sources.files import ColumnNames, FilesConfig, Part
from components.split import is_test
from components.store import LocalStore
from components.tasks import TASKS
from components.tasks.image_classification import encode_png
from components.tasks.text import text_features
from components.tasks.text_classification import TextClassifier
from components.windows import ALL_TIME, Window


@pytest.fixture
def objects(tmp_path):
    return LocalStore(tmp_path / "objects")


@pytest.fixture
def gather(toy, objects, tmp_path):
    """Collect a week of the toy problem; give report, current rows and errors."""

    def run(champion, week, labelled=(), *, source=None, **config):
        folder = tmp_path / "collected"
        current = toy.weeks[week] if isinstance(week, int) else week
        live = Live(
            source=source or toy.source,
            current=current,
            labelled=[toy.weeks[each] if isinstance(each, int) else each for each in labelled],
        )
        report = collect(
            live,
            champion,
            folder,
            objects,
            "code",
            CollectConfig(**config),
            lambda texts: embed(texts, toy.base, toy.task),
        )
        return report, pd.read_parquet(folder / CURRENT), pd.read_parquet(folder / ERRORS)

    return run


@pytest.fixture
def source(tmp_path):
    """A source of rows without times, and its only window."""

    def make(lines, name="rows.csv"):
        (tmp_path / name).write_text("id,text,label\n" + "\n".join(lines))
        config = FilesConfig(
            root=str(tmp_path), files=[Part(path=name)], columns=ColumnNames(id="id")
        )
        rows = open_source(config).read(ALL_TIME)
        return config, WindowData(
            window=ALL_TIME, fingerprint=rows.fingerprint(), rows=len(rows.frame)
        )

    return make


def rows_of(toy, week):
    """Rows of a week; of equal texts the first."""
    return open_source(toy.source).read(toy.weeks[week].window).frame.drop_duplicates("text")


def test_the_current_rows_come_with_the_champions_answers_and_features(gather, toy, make_bundle):
    report, current, errors = gather(make_bundle(1), 1)
    rows = rows_of(toy, 1)
    assert report.rows == len(current) == len(rows) > 290
    assert current["id"].tolist() == rows["id"].tolist()
    assert current["is_test"].tolist() == is_test(rows["group"]).tolist()
    classifier = TextClassifier.load(make_bundle(1))
    texts = rows["text"].tolist()
    probabilities = classifier.predict(texts)
    np.testing.assert_allclose(current["confidence"], probabilities.max(1))
    answers = np.array(classifier.labels)[probabilities.argmax(1)]
    assert current["answer"].tolist() == answers.tolist()
    for name, values in text_features(texts, classifier.tokenizer).items():
        np.testing.assert_array_equal(current[name], values)
    vectors = embed(texts, toy.base, toy.task)
    np.testing.assert_allclose(current["embedding_031"], vectors[:, 31])
    assert "label" not in current
    assert len(errors) == 0
    assert (report.labelled_rows, report.labelled_windows) == (0, [])


def test_errors_come_in_the_order_of_time_from_the_labelled_windows_only(gather, toy, make_bundle):
    report, _, errors = gather(make_bundle(1), 2, labelled=[0, 1])
    both = pd.concat([rows_of(toy, 0), rows_of(toy, 1)])
    classifier = TextClassifier.load(make_bundle(1))
    answers = np.array(classifier.labels)[classifier.predict(both["text"].tolist()).argmax(1)]
    assert errors["id"].tolist() == both["id"].tolist()
    assert errors["error"].tolist() == (both["label"].to_numpy() != answers).astype(int).tolist()
    assert 0 < errors["error"].mean() < 1
    assert errors["window"].unique().tolist() == ["2026-01-05", "2026-01-12"]
    assert report.labelled_windows == ["2026-01-05", "2026-01-12"]
    assert report.labelled_rows == len(both) > 590


def test_rows_without_a_known_label_are_no_errors_and_rows_without_text_no_rows(
    gather, source, make_bundle
):
    config, window = source(
        ["1,good,positive", "2,bad,", "3,dull,neutral", "4,,positive", "5,Good ,negative"]
    )
    report, current, errors = gather(make_bundle(1), window, [window], source=config)
    assert current["id"].tolist() == ["1", "2", "3"]
    assert errors["id"].tolist() == ["1"]
    assert (report.rows, report.labelled_rows) == (3, 1)


def test_of_a_large_window_a_sample_is_looked_at_that_other_rows_do_not_change(
    gather, source, make_bundle
):
    lines = [f"{number:03d},text {number},positive" for number in range(250)]
    config, window = source(lines)
    report, current, errors = gather(make_bundle(1), window, [window], source=config, max_rows=100)
    assert report.rows == report.labelled_rows == 100
    assert current["id"].tolist() == errors["id"].tolist() == sorted(current["id"])
    config, window = source(lines[:-1], "fewer.csv")
    _, fewer, _ = gather(make_bundle(1), window, source=config, max_rows=100)
    assert len(set(current["id"]) & set(fewer["id"])) >= 99


def test_answers_are_computed_once_and_used_again_when_labels_have_come(
    gather, toy, make_bundle, monkeypatch
):
    asked = []
    predict = TextClassifier.predict

    def count(self, texts):
        asked.append(len(texts))
        return predict(self, texts)

    monkeypatch.setattr(TextClassifier, "predict", count)
    gather(make_bundle(1), 0)
    gather(make_bundle(1), 1, labelled=[0])
    assert asked == [len(rows_of(toy, 0)), len(rows_of(toy, 1))]
    gather(make_bundle(2), 1, labelled=[0])  # another champion answers for itself
    assert asked[2:] == [asked[0], asked[1]] or asked[2:] == [asked[1], asked[0]]


def test_a_window_without_rows_is_collected_too(gather, toy, make_bundle):
    empty = open_source(toy.source).read(
        Window(start="2027-01-04T00:00:00Z", end="2027-01-11T00:00:00Z")
    )
    window = WindowData(
        window=Window(start="2027-01-04T00:00:00Z", end="2027-01-11T00:00:00Z"),
        fingerprint=empty.fingerprint(),
        rows=0,
    )
    report, current, errors = gather(make_bundle(1), window, labelled=[window, 0])
    assert report.rows == len(current) == 0
    assert "embedding_000" in current
    assert len(errors) == len(rows_of(toy, 0))


def test_the_digest_names_champion_windows_and_settings(gather, make_bundle):
    digests = [
        gather(make_bundle(1), 1)[0].digest,
        gather(make_bundle(2), 1)[0].digest,
        gather(make_bundle(1), 0)[0].digest,
        gather(make_bundle(1), 1, labelled=[0])[0].digest,
        gather(make_bundle(1), 1, max_rows=100)[0].digest,
    ]
    assert len(set(digests)) == 5
    assert gather(make_bundle(1), 1)[0].digest == digests[0]


def test_rows_that_changed_since_the_plan_stop_the_run(gather, toy, make_bundle, objects):
    stale = toy.weeks[1].model_copy(update={"fingerprint": "0" * 64})
    for week, labelled in [(stale, []), (2, [stale])]:
        with pytest.raises(SourceError, match="2026-01-12 changed after the run began"):
            gather(make_bundle(1), week, labelled)
    assert not objects.list(f"answers/{bundle.digest_of_folder(make_bundle(1))}-5000/0000")


def test_an_altered_champion_does_not_answer(gather, make_bundle, tmp_path):
    import shutil

    altered = shutil.copytree(make_bundle(1), tmp_path / "altered")
    (altered / "config.json").write_text("{}")
    with pytest.raises(BundleError, match="altered"):
        gather(altered, 1)


def test_drift_is_quiet_on_a_week_like_the_one_that_was_learned_and_not_on_another(
    gather, toy_champion, tmp_path
):
    """The profile that fine-tuning leaves and what is collected fit together."""
    gather(toy_champion, 1, labelled=[1])
    same = detect(toy_champion, tmp_path / "collected", DriftConfig())
    assert not same.drifted
    # Confidence, embedding, answer, language and errors, beside texts and components.
    assert len(same.findings) == 6 + 32 + 5
    assert same.error_rate == pytest.approx(0, abs=0.05)
    gather(toy_champion, 2, labelled=[1])
    other = detect(toy_champion, tmp_path / "collected", DriftConfig())
    assert other.moved
    moved = {feature.name for feature in other.findings if feature.moved}
    assert {"characters", "upper_share", "digit_share", "unknown_share"} <= moved


def test_a_text_that_production_sees_again_and_again_is_looked_at_once(gather, source, make_bundle):
    lines = [f"{number:03d},text {number % 40},positive" for number in range(200)]
    config, window = source(lines)
    _, current, _ = gather(make_bundle(1), window, source=config)
    assert current["id"].tolist() == [f"{number:03d}" for number in range(40)]


@pytest.mark.parametrize("partitions", [2, 7, 60])
def test_a_window_in_parts_is_what_it_is_as_a_whole(gather, toy, make_bundle, partitions):
    """Also of parts that have no rows, and of those that share no row with the next."""
    whole, current, errors = gather(make_bundle(1), 1, labelled=[0], max_rows=100)
    report, same, alike = gather(
        make_bundle(1), 1, labelled=[0], max_rows=100, partitions=partitions
    )
    assert report == whole
    assert (report.window_rows, report.rows) == (300, 100)
    pd.testing.assert_frame_equal(same, current)
    pd.testing.assert_frame_equal(alike, errors)


def test_a_part_may_hold_all_rows_of_a_window(gather, toy, make_bundle, tmp_path):
    lines = [f"{number},text {number},good" for number in range(150)]
    (tmp_path / "undated.csv").write_text("\n".join(["id,text,label", *lines]))
    source = FilesConfig(
        root=str(tmp_path),
        files=[Part(path="undated.csv", at="2026-01-07")],
        columns=ColumnNames(id="id"),
    )
    window = toy.weeks[0].window
    planned = WindowData(window=window, **open_source(source).facts(window).model_dump())
    found = [
        gather(make_bundle(1), planned, source=source, max_rows=100, partitions=partitions)[1]
        for partitions in (1, 7)
    ]
    assert len(found[0]) == 100
    pd.testing.assert_frame_equal(*found)


def test_of_a_large_window_more_inputs_are_looked_at_than_answers(
    gather, source, make_bundle, tmp_path
):
    inputs = tmp_path / "collected" / INPUTS
    config, window = source([f"{number:03d},text {number},positive" for number in range(250)])
    report, _, _ = gather(make_bundle(1), window, source=config, max_rows=100)
    more = pd.read_parquet(inputs)
    assert (report.rows, report.input_rows, len(more)) == (100, 250, 250)
    assert set(more) == {
        "group",
        "language",
        *text_features([], TextClassifier.load(make_bundle(1)).tokenizer),
    }
    report, _, _ = gather(make_bundle(1), window, source=config, max_rows=100, max_input_rows=200)
    assert (report.input_rows, len(pd.read_parquet(inputs))) == (200, 200)
    gather(make_bundle(1), window, source=config)
    assert not inputs.exists()


def test_every_kind_of_task_is_collected_and_compared_with_its_profile(
    case_of, learnt, kind, objects, tmp_path
):
    case, champion = case_of(kind), learnt(kind)
    folder = tmp_path / "collected"
    live = Live(source=case.source, current=case.window, labelled=[case.window])
    report = collect(
        live,
        champion,
        folder,
        objects,
        "code",
        CollectConfig(),
        lambda contents: embed(contents, case.base, case.task),
    )
    current, errors = pd.read_parquet(folder / CURRENT), pd.read_parquet(folder / ERRORS)
    frame = open_source(case.source).read(ALL_TIME).frame.drop_duplicates("text")
    model = TASKS[kind].load(champion)
    answers = model.predict(frame["text"].tolist())
    assert report.rows == report.labelled_rows == len(frame)
    # Written as text, a value that lies between two roundings may differ in its last digit.
    said = [model.targets([answer])[0] for answer in current["answer"]]
    np.testing.assert_allclose(said, model.decided(answers), rtol=1e-4)
    for name, values in model.answer_features(answers).items():
        np.testing.assert_allclose(current[name], values, atol=1e-5)
    expected = model.errors(model.targets(frame["label"].tolist()), answers)
    np.testing.assert_allclose(errors["error"], expected, atol=1e-5)
    assert errors["error"].between(0, 1).all()
    found = detect(champion, folder, DriftConfig())
    profile = Profile.load(champion)
    watched = {each.name for each in found.findings if each.watched != "error"}
    width = profile.vectors.shape[1]
    assert watched == {
        *profile.numbers,
        *(f"{name} (missing)" for name, each in profile.numbers.items() if each.missing),
        *profile.categories,
        *(f"embedding_{index:03d}" for index in range(width)),
        *(["embedding"] if len(current) >= 50 else []),
    }
    assert found.schema_changes == []
    assert (found.estimated is not None) == model.answers_are_probabilities
    assert found.error_rate == pytest.approx(expected.mean(), abs=1e-5)


def test_what_is_no_image_is_left_out_and_a_rating_out_of_range_is_no_error(
    case_of, learnt, objects, tmp_path
):
    png = (tmp_path / "good.png", tmp_path / "cut.png")
    whole = encode_png(np.zeros((8, 8), np.uint8))
    png[0].write_bytes(base64.b64decode(whole))
    png[1].write_bytes(base64.b64decode(whole)[:-30])
    (tmp_path / "images.csv").write_text(
        "image,label\ngood.png,dark\ncut.png,dark\nabsent.png,dark\n"
    )
    (tmp_path / "texts.csv").write_text("text,label\ngood,1\nbad,7\ndull,many\n")
    for kind, columns, name in (
        ("image-classification", ColumnNames(image="image"), "images.csv"),
        ("text-regression", ColumnNames(), "texts.csv"),
    ):
        source = FilesConfig(root=str(tmp_path), files=[Part(path=name)], columns=columns)
        found = open_source(source).read(ALL_TIME)
        window = WindowData(window=ALL_TIME, fingerprint=found.fingerprint(), rows=3)
        case = case_of(kind)
        report = collect(
            Live(source=source, current=window, labelled=[window]),
            learnt(kind),
            tmp_path / "collected",
            objects,
            "code",
            CollectConfig(),
            partial(embed, base=case.base, task=case.task),
        )
        assert report.labelled_rows == 1
        assert report.rows == (1 if name == "images.csv" else 3)
