from __future__ import annotations

import base64
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from sklearn.metrics import r2_score

from components.errors import BundleError, SourceError
from components.tasks import TASKS, parse_task
from components.tasks.image_classification import ImageClassification, decode, encode_png
from components.tasks.text_anomaly import TextAnomaly
from components.tasks.text_classification import TextClassification, TextClassifier
from components.tasks.text_regression import TextRegression

CLASSES = TextClassification(labels=("x", "y"))
RATED = TextRegression(low=-4, high=4)
ODD = TextAnomaly(normal="fine", anomaly="odd")
SEEN = ImageClassification(labels=("x", "y"), pixels=40)
TEXT_KINDS = ("text-classification", "text-regression", "text-anomaly")
GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def content(pixels=GREY, kind="PNG", **options):
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize("task", [CLASSES, RATED, ODD, SEEN], ids=lambda task: task.kind)
def test_a_task_travels_as_json_and_names_what_its_models_answer(task, case_of):
    assert parse_task(task.to_json()) == task
    case = case_of(task.kind)
    model = TASKS[task.kind].from_base(case.base, task, dropout=0.0)
    assert model.answer_names == task.answer_names
    assert model.content == task.content
    assert task.label_names in ((), task.answer_names)


def test_what_changes_an_input_is_its_size():
    assert (CLASSES.input_size, SEEN.input_size) == (128, 40)


def test_labels_that_are_there_and_good_are_known():
    labels = pd.Series(["x", None, "z", "y"], dtype=object)
    assert CLASSES.known(labels).tolist() == [True, False, False, True]
    numbers = pd.Series(["4", None, "4.5", "nan", "word", "-4"], dtype=object)
    assert RATED.known(numbers).tolist() == [True, False, False, False, False, True]
    for rated, said in ((CLASSES, labels), (RATED, numbers)):
        there = said.dropna()
        assert rated.known(there).tolist() == [not rated.label_fault(each) for each in there]
    for task in (CLASSES, RATED, ODD, SEEN):
        assert task.known(pd.Series([], dtype=object)).tolist() == []


def test_labels_are_counted_by_class_or_by_quarter_of_the_range():
    assert CLASSES.label_counts(pd.Series(["y", "x", "y"])) == {"y": 2, "x": 1}
    assert RATED.label_counts(pd.Series(["-4", "-2.1", "0", "4"])) == {
        "-4 to -2": 2,
        "-2 to 0": 0,
        "0 to 2": 1,
        "2 to 4": 1,
    }


def test_decisions_are_scored_as_people_speak_of_them():
    assert CLASSES.score(["x", "y", "x", "x"], ["x", "x", "x", "y"]) == 0.5
    truth, said = ["1", "2", "4"], ["1.5", "2", "3"]
    expected = r2_score([1, 2, 4], [1.5, 2, 3])
    assert RATED.score(truth, said) == pytest.approx(expected)


def test_only_what_can_be_read_is_asked_about():
    texts = pd.Series(["a", " ", ""], dtype=object)
    assert CLASSES.readable(texts).tolist() == [True, False, False]
    images = pd.Series([content(), "a", ""], dtype=object)
    assert SEEN.readable(images).tolist() == [True, False, False]


@pytest.mark.parametrize("task", [RATED, ODD, SEEN], ids=lambda task: task.kind)
def test_models_of_others_are_adopted_for_text_classification_only(task, tmp_path):
    with pytest.raises(BundleError, match=f"no model can be adopted for {task.kind}"):
        TASKS[task.kind].adopt(tmp_path, task)


# --- images ---


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP", "JPEG"])
def test_image_files_of_every_kind_are_read(kind):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    found = np.asarray(decode(content(kind=kind, **options)).convert("L")).astype(int)
    assert np.abs(found - GREY).max() <= 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_images_of_every_mode_are_encoded_and_described(case_of, mode):
    image = Image.fromarray(GREY).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(GREY.astype(np.uint16) * 256)
    model = TASKS["image-classification"].from_base(
        case_of("image-classification").base, SEEN, dropout=0.0
    )
    (pixels,) = model.encode([content(image)])
    assert pixels.shape == (3, 40, 40)
    assert pixels.dtype == np.uint8
    features = model.input_features([content(image)])
    assert (features["width"][0], features["height"][0]) == (8, 8)
    assert 0 < features["brightness"][0] < 1
    if mode not in ("1", "P"):
        assert features["brightness"][0] == pytest.approx(GREY.mean() / 255, abs=0.01)


def test_a_palette_with_transparency_warns_nobody():
    image = Image.fromarray(GREY).convert("P")
    assert decode(content(image, transparency=bytes(range(256)))).mode == "RGBA"


@pytest.mark.parametrize(
    "wrong", ["", "a", "=", "é", "\ud800", "aGVsbG8=", content()[:40], content(kind="TIFF")]
)
def test_what_is_no_image_is_one_kind_of_error(wrong, case_of):
    with pytest.raises(SourceError, match="not an image"):
        decode(wrong)
    model = TASKS["image-classification"].from_base(
        case_of("image-classification").base, SEEN, dropout=0.0
    )
    with pytest.raises(SourceError, match="image 1: not an image"):
        model.encode([content(), wrong])


def test_no_bytes_whatsoever_break_the_decoder():
    draw = np.random.default_rng(0)
    whole = {kind: base64.b64decode(content(kind=kind)) for kind in ("PNG", "GIF", "BMP", "WEBP")}
    broken = 0
    for raw in whole.values():
        for _ in range(150):
            spoilt = bytearray(raw)
            for place in draw.integers(0, len(raw), 3):
                spoilt[place] = draw.integers(0, 256)
            try:
                decode(base64.b64encode(spoilt).decode())
            except SourceError:
                broken += 1
    assert broken > 50


def test_pixels_survive_as_png():
    np.testing.assert_array_equal(np.asarray(decode(encode_png(GREY))), GREY)


def test_one_row_suffices_to_train_a_network_on(case_of):
    """A batch norm cannot tell a variance from one value."""
    import torch

    case = case_of("image-classification")
    task = case.task.model_copy(update={"pixels": 32})
    network = TASKS[case.task.kind].from_base(case.base, task, dropout=0.0).network.train()
    outputs = network(torch.randn(1, 3, 32, 32))
    outputs.sum().backward()
    assert torch.isfinite(outputs).all()


# --- what does not load ---


def weights_in(folder):
    return min(folder.glob("*.safetensors"))  # model before profile


def rewritten(folder, change):
    """Change the weights in a folder by name."""
    file = weights_in(folder)
    weights = load_file(file)
    save_file(change(weights), file, {"format": "pt"})


def first(weights, change):
    name = next(name for name in sorted(weights) if weights[name].ndim > 1)
    return {**weights, name: change(weights[name])}


WRONG_WEIGHTS = {
    "cut": lambda folder: cut_short(weights_in(folder)),
    "shape": lambda folder: rewritten(folder, lambda w: first(w, lambda x: x[:, :-1].copy())),
    "nan": lambda folder: rewritten(folder, lambda w: first(w, lambda x: x * np.nan)),
    "prefix": lambda folder: rewritten(folder, lambda w: {f"my.{k}": v for k, v in w.items()}),
    "layers": lambda folder: rewritten(
        folder, lambda w: {k: v for k, v in w.items() if ".1." not in k}
    ),
}


def cut_short(file):
    file.write_bytes(file.read_bytes()[:100])


@pytest.mark.parametrize("kind", ["text-classification", "image-classification"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("cut", "does not load: SafetensorError"),
        ("shape", "does not load: RuntimeError"),
        ("nan", "weights that are not finite"),
        ("prefix", r"lacks \d+ of the weights of a BertModel|is no EfficientNet-lite0"),
        ("layers", r"lacks 16 of the .* encoder\.layer\.1\.|is no EfficientNet-lite0"),
    ],
)
def test_a_base_that_is_not_whole_is_refused(case_of, kind, wrong, message, tmp_path, capfd):
    case = case_of(kind)
    base = shutil.copytree(case.base, tmp_path / "base")
    WRONG_WEIGHTS[wrong](base)
    with pytest.raises(BundleError, match=message) as caught:
        TASKS[kind].from_base(base, case.task, dropout=0.0)
    assert str(base) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_tokenizer_that_is_not_whole_is_refused(case_of, tmp_path):
    case = case_of("text-classification")
    base = shutil.copytree(case.base, tmp_path / "base")
    cut_short(base / "tokenizer.json")
    with pytest.raises(BundleError, match=rf"the base model in {base} does not load: \w+"):
        TASKS["text-classification"].from_base(base, case.task, dropout=0.0)


def test_a_base_without_a_pooler_is_whole(case_of, tmp_path):
    case = case_of("text-classification")
    base = shutil.copytree(case.base, tmp_path / "base")
    rewritten(base, lambda w: {k: v for k, v in w.items() if "pooler" not in k})
    TASKS["text-classification"].from_base(base, case.task, dropout=0.0)


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x02K\x05."])
def test_a_pth_file_that_holds_no_weights_is_refused(case_of, content, tmp_path):
    (tmp_path / "base.pth").write_bytes(content)
    task = case_of("image-classification").task
    with pytest.raises(BundleError, match=r"base\.pth"):
        TASKS["image-classification"].from_base(tmp_path, task, dropout=0.0)


def test_a_classifier_to_adopt_must_be_whole(case_of, tmp_path):
    case = case_of("text-classification")
    with pytest.raises(BundleError, match=r"lacks 2 of the .*, classifier\.bias, classifier\.w"):
        TextClassifier.adopt(case.base, case.task)
    base = shutil.copytree(case.base, tmp_path / "base")
    rewritten(base, lambda w: {k: v for k, v in w.items() if "pooler" not in k})
    with pytest.raises(BundleError, match=r"lacks 4 of the .* bert\.pooler"):
        TextClassifier.adopt(base, case.task)  # whose head reads it
    WRONG_WEIGHTS["cut"](base)
    with pytest.raises(BundleError, match="does not load: SafetensorError"):
        TextClassifier.adopt(base, case.task)


@pytest.mark.parametrize("wrong", ["cut", "shape", "nan", "prefix"])
def test_a_bundle_that_is_not_whole_is_refused(learnt, kind, wrong, tmp_path):
    folder = shutil.copytree(learnt(kind), tmp_path / "bundle")
    WRONG_WEIGHTS[wrong](folder)
    with pytest.raises(BundleError, match=str(folder)):
        TASKS[kind].load(folder)


# --- going on from a model ---


@pytest.mark.parametrize("kind", TEXT_KINDS)
@pytest.mark.parametrize("other", TEXT_KINDS)
def test_a_model_goes_on_with_tasks_of_its_own_kind_only(case_of, learnt, kind, other):
    task = case_of(kind).task
    if other == "text-anomaly" and kind == "text-classification":  # of one kind by labels alone
        task = task.model_copy(update={"labels": ("normal", "anomaly")})
    if kind == "text-anomaly" and other == "text-classification":
        task = task.model_copy(update={"normal": "negative", "anomaly": "positive"})
    assert TASKS[kind].load(learnt(other)).can_continue(task) == (kind == other)


def test_what_the_project_says_goes_before_what_a_model_was_told(case_of, learnt, kind, tmp_path):
    task, model = case_of(kind).task, TASKS[kind].load(learnt(kind))
    # What a table has no size of: its columns are what the network is made of.
    size = {"image": "pixels", "text": "max_tokens"}.get(model.content)
    wider = {size: task.input_size + 1} if size else {}
    model.configure(task.model_copy(update=wider), dropout=0.625)
    model.save(tmp_path)
    saved = json.loads((tmp_path / "model.json").read_text())
    assert saved["dropout"] == 0.625
    assert wider.items() <= {**saved, **saved["facts"]}.items()
    assert TASKS[kind].load(tmp_path).network.get_submodule("dropout").p == 0.625


def test_of_one_class_a_probe_learns_to_answer_it_always(make_classifier):
    model, vectors = make_classifier(0), np.eye(4, dtype=np.float32)
    weights, bias = model.probe_head(vectors, np.array([1, 1, 1, 1]))
    answers = model.answers((vectors @ weights.T + bias).astype(np.float32))
    assert answers.argmax(1).tolist() == [1] * 4
