"""Broken challengers, all with a valid manifest: each is stopped by the check that should.

The problem: a word decides a text's label, and 15 % of the labels are wrong. The champion
knows two of the four words; in long texts there are no others, and they come late.
"""

from __future__ import annotations

import json
import pickle
import random
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components import bundle
from components.embeddings import embed
from components.evaluate.core import EvaluateConfig, evaluate
from components.finetune.core import finetune
from components.finetune.history import Silent
from components.prepare.core import PrepareConfig, prepare
from components.tasks.text_classification import TextClassifier

ROWS = 1600
SIGNS = {"good": "positive", "bad": "negative", "dull": "positive", "awful": "negative"}
WINDOW, END = "2026-01-05", "2026-01-12T00:00:00+00:00"
OTHER = {"negative": "positive", "positive": "negative"}


def _rows():
    draw = random.Random(5)
    for number in range(ROWS):
        is_long = draw.random() < 0.3
        words = draw.choices(("the", "a", "film", "story", "was", "very"), k=11 if is_long else 5)
        sign = draw.choice(("good", "bad") if is_long else tuple(SIGNS))
        words.insert(draw.randrange(6 if is_long else 0, len(words)), sign)
        label = SIGNS[sign] if draw.random() > 0.15 else OTHER[SIGNS[sign]]
        text = " ".join(words)
        yield {
            "id": f"r{number}",
            "group": f"g{number}",
            "time": WINDOW,
            "text": text,
            "label": label,
            "window": WINDOW,
        }


@dataclass(frozen=True)
class World:
    """What a gate looks at."""

    home: Path
    prepared: Path
    champion: Path
    sound: Path
    train: object
    seal: object
    task: object


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_base, tiny_task, toy, seal_bundle):
    home = tmp_path_factory.mktemp("broken")
    (home / "good").mkdir()
    pd.DataFrame(_rows()).to_parquet(home / "good" / "rows.parquet", index=False)
    prepare(
        home / "good",
        WINDOW,
        END,
        home / "prepared",
        tiny_task,
        PrepareConfig(),
        lambda texts: embed(texts, tiny_base, tiny_task),
    )

    def train(name, change, **settings):
        """Train on changed rows; what was trained on nobody can tell from the bundle."""
        folder = shutil.copytree(home / "prepared", home / name)
        frame = pd.read_parquet(folder / "rows.parquet")
        change(frame).to_parquet(folder / "rows.parquet", index=False)
        training = toy.training.model_copy(update={"epochs": 4, **settings})
        window = {"window": WINDOW, "window_end": END}
        finetune(
            folder, toy.start, None, home / f"{name}-bundle", tiny_task, training, window, Silent()
        )
        return home / f"{name}-bundle"

    def seal(folder):
        (folder / bundle.MANIFEST).unlink(missing_ok=True)
        seal_bundle(folder, task=tiny_task)
        return folder

    def only_known(frame):
        known = frame["text"].str.contains("good|bad")
        frame.loc[~known & frame["split"].isin(["train", "valid"]), "split"] = "unused"
        return frame

    return World(
        home,
        home / "prepared",
        train("champion", only_known),
        train("sound", lambda frame: frame),
        train,
        seal,
        tiny_task,
    )


@pytest.fixture
def judge(world, tmp_path):
    """Let a challenger stand against the champion."""

    def run(challenger, champion=None, **config):
        return evaluate(
            world.prepared,
            challenger,
            champion or world.champion,
            tmp_path / "out",
            world.task,
            EvaluateConfig.model_validate({"robustness": {"rows": 0}} | config),
        )

    return run


@pytest.fixture
def altered(world, tmp_path):
    """Make a bundle of the sound model, changed in one way, with a manifest of its own."""

    def make(change):
        model = TextClassifier.load(world.sound)
        folder = tmp_path / "altered"
        change(model)
        model.save(folder)
        return world.seal(folder)

    return make


def stopped_by(report, name):
    assert report.verdict != "promote"
    stopping = [each for each in report.checks if each.blocks]
    assert name in {each.check for each in stopping}, [each.reason for each in report.checks]
    return next(each for each in stopping if each.check == name)


def test_a_sound_challenger_is_promoted(judge, world):
    report = judge(world.sound)
    assert report.verdict == "promote", [each.reason for each in report.checks]


# --- broken files


def test_weights_that_are_not_numbers(judge, altered):
    def change(model):
        model.network.head.weight.data[0, 0] = float("nan")

    report = judge(altered(change))
    assert "not finite" in stopped_by(report, "loads").reason
    assert report.verdict == "keep"
    assert [each.verdict for each in report.checks if each.check != "loads"] == [
        "skipped" for each in report.checks if each.check != "loads"
    ]


def test_truncated_weights(judge, world, tmp_path):
    folder = shutil.copytree(world.sound, tmp_path / "cut")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    report = judge(world.seal(folder))
    assert "does not load" in stopped_by(report, "loads").reason
    assert report.verdict == "keep"


def test_a_tokenizer_that_is_unknown(judge, world, tmp_path):
    folder = shutil.copytree(world.sound, tmp_path / "unknown")
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "Unheard"}}')
    report = judge(world.seal(folder))
    assert "does not load" in stopped_by(report, "loads").reason


def test_a_tokenizer_with_more_words_than_the_model(judge, altered):
    # No test row has such a word; production may.
    report = judge(altered(lambda model: model.tokenizer.add_tokens(["unheard"])))
    assert "contents that it may meet" in stopped_by(report, "loads").reason


def test_a_model_of_another_kind_with_the_same_labels(judge, world, seal_bundle, tmp_path):
    from components.errors import BundleError
    from components.tasks.image_classification import ImageClassification

    folder = shutil.copytree(world.sound, tmp_path / "other")
    (folder / bundle.MANIFEST).unlink()
    seal_bundle(folder, task=ImageClassification(labels=world.task.labels))
    with pytest.raises(BundleError, match="a model for image-classification, the project asks"):
        judge(folder)


class Opened:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


CARRIERS = ["extra.dat", "extra.pkl", "pytorch_model.bin", "modeling.py", "MLmodel"]


@pytest.mark.parametrize("name", CARRIERS)
def test_a_bundle_that_carries_code(judge, world, tmp_path, name):
    trace, folder = tmp_path / "trace", shutil.copytree(world.sound, tmp_path / "code")
    file = folder / name
    if name.startswith("extra"):
        # The oldest protocol looks like text, and has but its name to tell it by.
        file.write_bytes(pickle.dumps(Opened(trace), 0 if name.endswith("pkl") else None))
    elif name == "pytorch_model.bin":
        with zipfile.ZipFile(file, "w") as archive:  # as torch.save writes it
            archive.writestr("archive/data.pkl", pickle.dumps(Opened(trace)))
    elif name == "modeling.py":
        file.write_text(f"open({str(trace)!r}, 'w')")
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {"AutoConfig": "modeling.Config", "AutoModel": "modeling.Model"}
        (folder / "config.json").write_text(json.dumps(config))
    else:
        file.write_text("flavors: {python_function: {loader_module: os, code: code}}")
    report = judge(world.seal(folder))
    assert name in stopped_by(report, "loads").reason
    assert not trace.exists()


def test_a_configuration_that_names_remote_code_runs_none(judge, world, tmp_path):
    folder = shutil.copytree(world.sound, tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "somebody/else--modeling.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    # Models of the Hub that transformers knows by now keep such a line: it is no fault.
    assert judge(world.seal(folder)).verdict == "promote"


def test_a_model_that_breaks_on_texts_longer_than_any_row(judge, altered):
    def change(model):
        model.max_tokens = 512  # and the network has 32 positions

    assert "contents that it may meet" in stopped_by(judge(altered(change)), "loads").reason


def test_a_model_whose_answers_to_long_texts_are_no_numbers(judge, altered):
    def change(model):
        # The place of the last token, which none of the rows reaches.
        positions = model.network.encoder.embeddings.position_embeddings.weight.data
        positions[model.max_tokens - 1] = 3e38

    assert "not finite" in stopped_by(judge(altered(change)), "loads").reason


# --- broken answers


def test_one_class_only(judge, altered):
    def change(model):
        model.network.head.bias.data[1] += 100

    assert stopped_by(judge(altered(change)), "primary").verdict == "failed"


def test_labels_in_the_wrong_order(judge, altered):
    def change(model):
        head = model.network.head
        head.weight.data, head.bias.data = head.weight.data.flip(0), head.bias.data.flip(0)

    assert stopped_by(judge(altered(change)), "primary").verdict == "failed"


def test_another_models_tokenizer(judge, altered):
    def change(model):
        import json

        content = json.loads(model.tokenizer.backend_tokenizer.to_str())
        words = content["model"]["vocab"]
        first = [word for word in words if word.startswith("[")]
        turned = [*first, *(word for word in reversed(words) if word not in first)]
        content["model"]["vocab"] = {word: number for number, word in enumerate(turned)}
        model.tokenizer = type(model.tokenizer)(
            tokenizer_object=type(model.tokenizer.backend_tokenizer).from_str(json.dumps(content)),
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
        )

    assert stopped_by(judge(altered(change)), "primary").verdict == "failed"


def test_a_coin_for_a_model(judge, altered):
    def change(model):
        for parameter in model.network.head.parameters():
            parameter.data.zero_()

    assert stopped_by(judge(altered(change)), "primary").verdict == "failed"


def test_embeddings_of_nothing(judge, altered):
    def change(model):
        model.network.encoder.embeddings.word_embeddings.weight.data.zero_()

    assert stopped_by(judge(altered(change)), "primary").verdict == "failed"


def test_a_model_that_goes_by_the_length_of_a_text(judge, world):
    def by_length(frame):
        is_long = frame["text"].str.len() > 40
        return frame.assign(label=is_long.map({True: "positive", False: "negative"}))

    assert stopped_by(judge(world.train("length", by_length)), "primary").verdict == "failed"


def test_a_shifted_bias(judge, altered):
    def change(model):
        model.network.head.bias.data[1] += 1.5

    assert judge(altered(change)).verdict != "promote"


def test_an_underconfident_model(judge, altered):
    def change(model):
        for parameter in model.network.head.parameters():
            parameter.data *= 0.02

    report = judge(altered(change))
    assert stopped_by(report, "guarded").name == "test log loss against champion"
    assert [each.verdict for each in report.checks if each.check == "primary"] == ["passed"]


def test_an_overconfident_model(judge, altered):
    def change(model):
        for parameter in model.network.head.parameters():
            parameter.data *= 30

    report = judge(altered(change))
    assert stopped_by(report, "guarded").name == "test log loss against champion"
    assert [each.verdict for each in report.checks if each.check == "primary"] == ["passed"]
    assert [each.verdict for each in report.checks if each.check == "calibration"] == ["failed"]


def test_a_model_that_leaves_nearly_everything_to_a_person(judge, altered):
    def change(model):
        point = model.rule.point.model_copy(update={"min_sureness": 0.99999})
        model.rule = model.rule.model_copy(update={"point": point})

    report = judge(altered(change))
    assert stopped_by(report, "floors").name == "test coverage of at least 0.5"
    assert [each.verdict for each in report.checks if each.check == "primary"] == ["passed"]


def test_a_model_that_collapses_on_long_texts(judge, altered):
    def change(model):
        model.max_tokens = 8  # all of a short text, half of a long one

    found = stopped_by(judge(altered(change)), "slices")
    assert found.verdict == "failed"
    assert "collapses on characters" in found.reason


# --- broken budgets


def test_an_oversized_model(judge, altered):
    def change(model):
        import torch

        config, embeddings = model.network.config, model.network.encoder.embeddings
        table = torch.zeros(20_000, config.hidden_size)
        table[: config.vocab_size] = embeddings.word_embeddings.weight.data
        embeddings.word_embeddings = torch.nn.Embedding.from_pretrained(table)
        config.vocab_size = len(table)

    found = stopped_by(judge(altered(change)), "serving")
    assert found.name == "size against champion"
    assert found.measured > 5


def test_a_slow_model(judge, altered):
    def change(model):
        import torch
        from transformers.models.bert.modeling_bert import BertLayer

        encoder, config = model.network.encoder, model.network.config
        extra = []
        for _ in range(10):
            layer = BertLayer(config)
            for dense in (layer.attention.output.dense, layer.output.dense):
                torch.nn.init.zeros_(dense.weight)
                torch.nn.init.zeros_(dense.bias)
            extra.append(layer)
        encoder.encoder.layer.extend(extra)
        config.num_hidden_layers += len(extra)

    report = judge(altered(change), serving={"max_size_ratio": 100})
    found = stopped_by(report, "serving")
    assert (found.name, found.verdict) == ("latency against champion", "failed")
    assert found.low > 1.5


# --- broken training


def test_shuffled_labels(judge, world):
    def shuffled(frame):
        order = np.random.default_rng(0).permutation(len(frame))
        return frame.assign(label=frame["label"].to_numpy()[order])

    challenger = world.train("shuffled", shuffled)
    assert stopped_by(judge(challenger), "primary").verdict == "failed"


def test_a_fifth_of_the_labels_turned_round(judge, world):
    def turned(frame):
        some = np.random.default_rng(0).random(len(frame)) < 0.2
        return frame.assign(label=frame["label"].where(~some, frame["label"].map(OTHER)))

    # Noise at random leaves the most probable label what it is; so the model is no better.
    challenger = world.train("turned", turned)
    stopped_by(judge(challenger, champion=world.sound), "primary")


@pytest.mark.slow
def test_a_model_that_was_trained_on_the_test_rows(judge, world):
    def leaked(frame):
        test = frame[frame["split"] == "test"]
        frame["split"] = frame["split"].replace({"train": "unused", "valid": "unused"})
        frame["split"] = frame["split"].replace({"test": "train"})
        # The best epoch is chosen on them as well.
        return pd.concat([frame, test.assign(split="valid"), test.assign(split="test")])

    settings = {"epochs": 40, "learning_rate": 5e-3, "patience_epochs": 40}
    found = stopped_by(judge(world.train("leaked", leaked, **settings)), "leak")
    assert found.verdict == "failed"
    assert found.measured > 0.05
