from __future__ import annotations

import copy
import functools
import shutil
import subprocess
import sys
from itertools import cycle, islice
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components import bundle
from components.calibration import Temperature
from components.errors import BundleError, ConfigError
from components.finetune import export
from components.finetune.config import ExportConfig, FinetuneConfig
from components.finetune.export import require_packages, write_exports
from components.operating_point import OperatingPoint, OperatingPointConfig, sureness
from components.tasks import TASKS, TaskConfig
from components.tasks.columns import record_of
from components.tasks.image_classification import ImageClassifier, encode_png
from components.tasks.onnx_runtime import INT8_FILE, ONNX_FILE, OnnxNetwork
from components.tasks.text_anomaly import TextAnomaly
from components.tasks.text_classification import TextClassification, TextClassifier
from components.tasks.text_regression import TextRegression
from components.tasks.tokenizer import PlainTokenizer
from components.tasks.weights import WEIGHTS_FILE

TEXT_KINDS: dict[str, TaskConfig] = {
    "text-classification": TextClassification(labels=("negative", "positive"), max_tokens=24),
    "text-regression": TextRegression(low=0, high=10, max_tokens=24),
    "text-anomaly": TextAnomaly(max_tokens=24),
}
LABELS = {
    "text-classification": ("negative", "positive"),
    "text-regression": ("2", "7.5"),
    "text-anomaly": ("normal", "anomaly"),
    "image-classification": ("dark", "bright"),
    "tabular-classification": ("old", "young"),
}
TEXTS = ["", "the film", "a very dull story " * 9, "not good", "unheard of", "awful and bad film"]
# The tiny models know nothing: their answers lie close to the border.
LENIENT = ExportConfig(onnx=True, int8=True, min_agreement=0.5, max_loss=1.0)


def frame_of(kind, contents):
    rows = list(islice(cycle(contents), 24))
    labels = list(islice(cycle(LABELS[kind]), 24))
    return pd.DataFrame({"text": rows, "label": labels, "split": ["train", "train", "valid"] * 8})


def exported(model, folder, frame, settings=LENIENT):
    model.save(folder)
    config = FinetuneConfig(export=settings, threads=1)
    return {each.name: each for each in write_exports(model, folder, frame, config)}


def onnx_model(model, folder, file):
    return type(model).load(folder, OnnxNetwork(folder / file, threads=1))


@pytest.fixture(scope="session")
def text_model(tiny_base):
    def build(kind):
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(1)
            model: Any = TASKS[kind].from_base(tiny_base, TEXT_KINDS[kind], dropout=0.1)
            torch.nn.init.normal_(model.network.head.weight, std=1.0)
        return model

    return build


@pytest.fixture(scope="session")
def exported_text(text_model, tmp_path_factory):
    """A model of a kind, the folder with its forms, and what is said of them."""

    @functools.cache
    def build(kind):
        model, folder = text_model(kind), tmp_path_factory.mktemp(kind)
        return model, folder, exported(model, folder, frame_of(kind, TEXTS))

    return build


@pytest.fixture(scope="session")
def images():
    chance = np.random.default_rng(0)
    bright = chance.integers(100, 255, (3, 32, 32, 3), dtype=np.uint8)
    dark = chance.integers(0, 60, (3, 40, 28), dtype=np.uint8)
    return [encode_png(pixels) for pair in zip(dark, bright, strict=True) for pixels in pair]


@pytest.fixture(scope="session")
def image_model(images):
    import torch

    from components.tasks.efficientnet import EfficientNetLite0

    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = EfficientNetLite0(2, 0.1)
        facts = {"labels": list(LABELS["image-classification"]), "pixels": 32}
        model = ImageClassifier(network, facts)
        inputs = model.collate(model.encode(images))
        for _ in range(5):  # its norms must have seen images
            network(*inputs)
    return model


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_text_models_answer_the_same_as_onnx_at_any_length_and_number(exported_text, kind):
    model, folder, forms = exported_text(kind)
    assert [forms[name].kept for name in (ONNX_FILE, INT8_FILE)] == [True, True]
    assert forms[ONNX_FILE].agreement == 1
    assert forms[ONNX_FILE].score_loss == pytest.approx(0)
    assert forms[INT8_FILE].bytes == (folder / INT8_FILE).stat().st_size
    expected = model.predict(TEXTS)
    onnx = onnx_model(model, folder, ONNX_FILE)
    for rows in (1, 2, 5):
        np.testing.assert_allclose(onnx.predict(TEXTS, batch_rows=rows), expected, atol=1e-5)
    int8 = onnx_model(model, folder, INT8_FILE)
    spread = 10 if kind == "text-regression" else 1
    np.testing.assert_allclose(int8.predict(TEXTS) / spread, expected / spread, atol=0.1)
    assert onnx.predict([]).shape == (0, len(model.answer_names))
    features = model.input_features(TEXTS)
    for name, values in onnx.input_features(TEXTS).items():
        np.testing.assert_array_equal(values, features[name])


@pytest.fixture
def ruled(exported_text):
    """A text classifier at temperature 3 with a threshold that leaves half of the texts open."""
    model, folder, _ = exported_text("text-classification")
    answers = model.predict(TEXTS)
    aim = OperatingPointConfig(aim="recall", label="positive", at_least=0.5)
    targets = np.arange(len(TEXTS)) % 2
    rule = model.fitted_rule(targets, answers, aim, calibrate=False)
    rule = rule.model_copy(update={"temperature": Temperature(value=3.0)})
    sure = sureness(rule.calibrated(answers), rule.decided(rule.calibrated(answers)), rule.point)
    point = rule.point.model_copy(update={"min_sureness": float(np.median(sure))})
    changed = copy.copy(model)
    changed.rule = rule.model_copy(update={"point": point})
    return changed, folder


def test_another_form_is_calibrated_and_decides_as_the_model_does(ruled, tmp_path):
    model, folder = ruled
    model.save(tmp_path)
    shutil.copy(folder / ONNX_FILE, tmp_path)
    form, answers = onnx_model(model, tmp_path, ONNX_FILE), model.predict(TEXTS)
    assert form.rule == model.rule
    np.testing.assert_allclose(form.predict(TEXTS), answers, atol=1e-5)
    assert form.decisions(answers) == model.decisions(answers)
    assert form.abstained(answers).tolist() == model.abstained(answers).tolist()
    assert 0 < model.abstained(answers).mean() < 1


def test_a_form_that_leaves_other_rows_to_a_person_does_not_agree(ruled, tmp_path):
    model, folder = ruled
    middle = float(np.median(model.predict(TEXTS).max(1)))
    point = OperatingPoint(labels=model.labels, min_sureness=middle)
    model.rule = model.rule.model_copy(update={"point": point})
    left = model.abstained(model.predict(TEXTS))
    assert 0 < left.mean() < 1
    config = FinetuneConfig(export=ExportConfig(onnx=True, min_agreement=0.9), threads=1)
    labels = list(islice(cycle(model.labels), len(TEXTS)))
    for temperature, agreement in ((3.0, 1.0), (0.01, 1 - left.mean())):
        # As if the form were far surer than the model: its labels are the same.
        surer = copy.copy(model)
        surer.rule = model.rule.model_copy(update={"temperature": Temperature(value=temperature)})
        surer.save(tmp_path)
        trial = export.Trial(model, TEXTS, labels, tmp_path, config)
        found = trial.of(ONNX_FILE, lambda file: shutil.copy(folder / ONNX_FILE, file))
        assert found.agreement == pytest.approx(agreement)
        assert found.kept == (agreement == 1)


def test_images_answer_the_same_as_onnx_and_int8_is_calibrated(image_model, images, tmp_path):
    forms = exported(image_model, tmp_path, frame_of("image-classification", images))
    assert [forms[name].kept for name in (ONNX_FILE, INT8_FILE)] == [True, True]
    assert forms[INT8_FILE].size_share < 0.3
    expected = image_model.predict(images)
    onnx = onnx_model(image_model, tmp_path, ONNX_FILE)
    for rows in (1, 4):
        np.testing.assert_allclose(onnx.predict(images, batch_rows=rows), expected, atol=1e-5)
    int8 = onnx_model(image_model, tmp_path, INT8_FILE)
    np.testing.assert_allclose(int8.predict(images), expected, atol=0.1)


@pytest.mark.slow
def test_records_answer_the_same_as_onnx_and_int8(learnt, tmp_path):
    kind = "tabular-classification"
    model = TASKS[kind].load(learnt(kind))
    # Also ages that are missing or far away, and a job that nobody had.
    ages = ("13", "27.5", "61", "88", None, "1e6")
    records = [record_of({"age": age, "job": job}) for age in ages for job in ("a", "c", "z", None)]
    forms = exported(model, tmp_path, frame_of(kind, records))
    assert [forms[name].kept for name in (ONNX_FILE, INT8_FILE)] == [True, True]
    expected = model.predict(records)
    assert np.ptp(expected[:, 0]) > 0.05
    onnx = onnx_model(model, tmp_path, ONNX_FILE)
    for rows in (1, 5):
        np.testing.assert_allclose(onnx.predict(records, batch_rows=rows), expected, atol=1e-5)
    int8 = onnx_model(model, tmp_path, INT8_FILE)
    np.testing.assert_allclose(int8.predict(records), expected, atol=0.1)


@pytest.mark.parametrize(
    "architecture",
    [
        "bert",
        "mpnet",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("distilbert", "roberta")),
    ],
)
def test_a_model_with_its_own_head_is_exported(tiny_base, tmp_path, architecture):
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    config = AutoConfig.for_model(
        architecture,
        vocab_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dim=64,
        max_position_embeddings=40,
        pad_token_id=0,
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "own")
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path / "own")
    task = TextClassification(labels=("negative", "positive"))
    model = TextClassifier.adopt(tmp_path / "own", task)
    folder = tmp_path / "bundle"
    only = LENIENT.model_copy(update={"int8": False})
    forms = exported(model, folder, frame_of("text-classification", TEXTS), only)
    assert [(name, form.kept) for name, form in forms.items()] == [(ONNX_FILE, True)]
    assert not (folder / INT8_FILE).exists()
    onnx = onnx_model(model, folder, ONNX_FILE)
    np.testing.assert_allclose(onnx.predict(TEXTS, batch_rows=2), model.predict(TEXTS), atol=1e-5)


def test_equal_weights_give_equal_bytes_wherever_they_are_written(
    exported_text, text_model, tmp_path
):
    kind = "text-classification"
    _, folder, _ = exported_text(kind)
    exported(text_model(kind), tmp_path, frame_of(kind, TEXTS))
    for name in (ONNX_FILE, INT8_FILE):
        content = (folder / name).read_bytes()
        assert content == (tmp_path / name).read_bytes()
        assert b"components.tasks" not in content
        assert b".py" not in content


def test_nothing_is_written_that_was_not_asked_for(text_model, tmp_path):
    model, frame = text_model("text-classification"), frame_of("text-classification", TEXTS)
    assert exported(model, tmp_path, frame, ExportConfig()) == {}
    assert not list(tmp_path.glob("*.onnx"))


def test_a_form_that_decides_otherwise_is_deleted_and_says_why(text_model, tmp_path):
    kind = "text-classification"
    model, frame = text_model(kind), frame_of(kind, TEXTS)
    model.save(tmp_path)
    other = text_model(kind)
    other.network.head.weight.data.neg_()
    other.network.head.bias.data.neg_()
    config = FinetuneConfig(export=ExportConfig(onnx=True), threads=1)
    valid = frame[frame["split"] == "valid"]
    trial = export.Trial(model, valid["text"].tolist(), valid["label"].tolist(), tmp_path, config)
    examples = model.encode(TEXTS)
    refused = trial.of(ONNX_FILE, lambda file: export.write_onnx(other, examples, file))
    assert not refused.kept
    assert refused.agreement == 0
    assert "min_agreement asks for 99.0%" in refused.reason
    assert not (tmp_path / ONNX_FILE).exists()


def test_a_network_that_cannot_be_exported_costs_its_forms_only(text_model, tmp_path):
    import torch

    model = text_model("text-classification")

    class Deciding(torch.nn.Linear):
        def forward(self, rows):
            # The exporter cannot follow a branch on what the rows hold.
            return super().forward(rows if rows.sum() > 0 else -rows)

    head = Deciding(32, 2)
    head.load_state_dict(model.network.head.state_dict())
    model.network.head = head
    forms = exported(model, tmp_path, frame_of("text-classification", TEXTS))
    assert [each.kept for each in forms.values()] == [False, False]
    assert all(each.reason.startswith("it could not be made: ") for each in forms.values())
    assert not list(tmp_path.glob("*.onnx"))


def test_answers_that_are_not_finite_are_refused(text_model, tmp_path):
    model = text_model("text-regression")
    model.network.head.bias.data.fill_(float("nan"))
    forms = exported(model, tmp_path, frame_of("text-regression", TEXTS))
    assert {each.reason for each in forms.values()} == {"some of its answers are not finite"}
    assert not list(tmp_path.glob("*.onnx"))


def test_the_bundle_names_the_forms_that_it_carries(finetuned, tmp_path):
    report = finetuned(epochs=1, export=LENIENT.model_copy(update={"onnx": False}))
    (form,) = report.exports
    assert (form.name, form.kept) == (INT8_FILE, True)
    assert bundle.verify(tmp_path / "bundle").exports == [INT8_FILE]
    size = (tmp_path / "bundle" / WEIGHTS_FILE).stat().st_size
    assert form.size_share == form.bytes / size
    assert not (tmp_path / "bundle" / ONNX_FILE).exists()


def test_a_form_is_loaded_without_torch_and_transformers(exported_text):
    _, folder, _ = exported_text("text-classification")
    program = (
        "import sys; from pathlib import Path; from components.tasks import TASKS; "
        "from components.tasks.onnx_runtime import OnnxNetwork; "
        "folder = Path(sys.argv[1]); "
        f"network = OnnxNetwork(folder / {INT8_FILE!r}, threads=1); "
        "model = TASKS['text-classification'].load(folder, network); "
        "print(model.predict(['good film']).shape, {'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(1, 2) set()"


def test_a_missing_or_damaged_form_is_a_bundle_error(tmp_path):
    with pytest.raises(BundleError, match="there is no"):
        OnnxNetwork(tmp_path / ONNX_FILE, threads=1)
    (tmp_path / ONNX_FILE).write_bytes(b"nothing of the kind")
    with pytest.raises(BundleError, match="does not load"):
        OnnxNetwork(tmp_path / ONNX_FILE, threads=1)


def test_the_plain_tokenizer_gives_the_ids_of_transformers(tiny_base, tmp_path):
    from transformers import AutoTokenizer

    whole = AutoTokenizer.from_pretrained(tiny_base)
    whole.backend_tokenizer.enable_padding(length=20)  # as many bases are published
    whole.save_pretrained(tmp_path)
    plain = PlainTokenizer.load(tmp_path)
    assert (plain.pad_token_id, plain.unk_token_id) == (whole.pad_token_id, whole.unk_token_id)
    for settings in ({}, {"truncation": True, "max_length": 5}, {"add_special_tokens": False}):
        assert plain(TEXTS, **settings)["input_ids"] == whole(TEXTS, **settings)["input_ids"]


def test_a_tokenizer_that_needs_transformers_is_a_bundle_error(tiny_base, tmp_path):
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match="needs transformers"):
        PlainTokenizer.load(folder)


def test_missing_packages_are_told_of_before_the_training(monkeypatch):
    monkeypatch.setattr(export, "_PACKAGES", ("onnx", "not_installed_anywhere"))
    require_packages(ExportConfig())
    with pytest.raises(ConfigError, match="pip install not_installed_anywhere"):
        require_packages(ExportConfig(int8=True))
