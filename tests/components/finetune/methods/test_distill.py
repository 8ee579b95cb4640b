from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from components.errors import ConfigError
from components.finetune import core
from components.finetune.batches import Examples
from components.finetune.config import DistillConfig, FinetuneConfig
from components.finetune.history import Silent
from components.finetune.job import Job
from components.finetune.methods import distill
from components.tasks.efficientnet import EfficientNetLite0
from components.tasks.networks import MeanPoolNetwork
from components.tasks.text_classification import TextClassifier

TEXTS = ["good film", "a bad story was the very film", "was good", "bad and very bad"] * 4
SIGNS = np.array([1, 0, 1, 0] * 4)


@pytest.fixture
def job(make_classifier):
    """A job to distil a tiny model of two layers; keyword arguments are of ``distill``."""

    def build(*, teacher=None, model=None, watcher=None, rows_of=None, named="champion", **asked):
        config = FinetuneConfig(
            method="distill",
            epochs=1,
            batch_rows=8,
            device="cpu",
            precision="float32",
            threads=1,
            distill=DistillConfig(teacher=named, **asked),
        )
        model = model or make_classifier(0)
        rows = Examples(TEXTS, model.encode(TEXTS), SIGNS)
        fresh = partial(make_classifier, 0)
        watcher = watcher or Silent()
        return Job(model, rows, rows, config, fresh, teacher, watcher, rows_of=rows_of)

    return build


def stretched(model: TextClassifier, layers: int) -> TextClassifier:
    """Return a model with more layers than it was made with."""
    from transformers import BertConfig, BertModel

    config = BertConfig(**{**model.network.config.to_dict(), "num_hidden_layers": layers})
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = MeanPoolNetwork(BertModel(config), len(model.labels), 0.0)
    return TextClassifier(network, model.tokenizer, model.max_tokens, dict(model.facts))


def backwards(model: TextClassifier) -> TextClassifier:
    """Return a model that answers the same, but whose tokenizer numbers words the other way."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    plain = model.tokenizer.backend_tokenizer
    words = sorted(plain.get_vocab(), key=plain.get_vocab().__getitem__)
    turned = [*words[:4], *reversed(words[4:])]
    tree: dict[str, Any] = json.loads(plain.to_str())
    tree["model"]["vocab"] = {word: place for place, word in enumerate(turned)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(tree)), pad_token="[PAD]", unk_token="[UNK]"
    )
    table = model.network.get_parameter("encoder.embeddings.word_embeddings.weight")
    with torch.no_grad():
        table.copy_(torch.cat([table[:4], table[4:].flip(0)]))
    return TextClassifier(model.network, tokenizer, model.max_tokens, dict(model.facts))


def test_a_teacher_reads_with_its_own_tokenizer(job, make_classifier):
    work = job()
    plain = distill.teacher_outputs(make_classifier(3), work)
    turned = distill.teacher_outputs(backwards(make_classifier(3)), work)
    torch.testing.assert_close(turned, plain)


def test_a_teacher_reads_no_more_than_it_can(job, make_classifier):
    short = make_classifier(3)
    short.max_tokens = 3
    work = job()
    expected = short.network.infer(*short.inputs(short.encode(work.train.contents)))
    found = distill.teacher_outputs(short, work)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_a_teacher_answers_in_the_students_order(job, make_classifier):
    one = distill.teacher_outputs(make_classifier(3), job())
    other = make_classifier(3)
    other.facts["labels"] = other.facts["labels"][::-1]
    assert torch.equal(distill.teacher_outputs(other, job()), one.flip(1))


def test_a_student_has_the_layers_that_are_asked_for(job, make_classifier):
    assert distill.fit(job()).model.network.layers == 1
    assert distill.fit(job(layers=2)).model.network.layers == 2
    given = stretched(make_classifier(0), 4)
    outcome = distill.fit(job(teacher=given, layers=2))
    assert outcome.note == "learned from the given teacher"
    assert outcome.model.network.layers == 2


def test_a_small_champion_gives_way_where_more_layers_are_asked_for(job, make_classifier):
    small = make_classifier(5)
    small.network = small.network.shrunk(1)
    outcome = distill.fit(job(model=small, layers=2))
    assert outcome.model.network.layers == 2
    assert outcome.note.startswith("the base has no more layers than the student")


def test_a_base_whose_labels_are_in_another_order_teaches_the_right_ones(job, make_classifier):
    champion = make_classifier(5)
    champion.network = champion.network.shrunk(1)
    champion.facts["labels"] = champion.facts["labels"][::-1]
    seen = []

    def rows_of(model: TextClassifier) -> tuple[Examples, Examples]:
        seen.append(model.labels)
        rows = Examples(TEXTS, model.encode(TEXTS), SIGNS)
        return rows, rows

    distill.fit(job(model=champion, layers=1, rows_of=rows_of))
    assert seen == [make_classifier(0).labels], "the rows of the teacher, which is the base"


def test_more_layers_than_there_are_are_refused(job):
    with pytest.raises(ConfigError, match=r"distill\.layers is 3, .* 2 layers and has no more"):
        distill.fit(job(layers=3))


def test_fewer_layers_than_a_network_can_do_without_are_refused(job):
    source = job().model
    source.network = EfficientNetLite0(2, 0.0)
    assert distill._cut(source, 7).network.layers == 7
    with pytest.raises(ConfigError, match=r"layers is 6, .* cannot be cut down to fewer than 7"):
        distill._cut(source, 6)


@pytest.mark.parametrize(
    ("layers", "labels", "reason"),
    [
        (1, ("negative", "positive"), "has 1 layers, and the student 1"),
        (4, ("negative", "neutral", "positive"), "has outputs of width 3, and the student of 2"),
    ],
)
def test_a_named_teacher_that_cannot_teach_is_refused_and_a_champion_is_left(
    job, make_classifier, layers, labels, reason
):
    def given():
        model = make_classifier(1, labels)
        return stretched(model, layers)

    with pytest.raises(ConfigError, match=rf"distill\.teacher: some/where {reason}"):
        distill.fit(job(teacher=given(), named="some/where"))
    outcome = distill.fit(job(teacher=given()))
    assert outcome.note == "learned from a teacher trained for it"


def test_a_named_teacher_of_another_task_is_refused(learnt, case_of):
    case = case_of("text-classification")
    for kind in ("text-regression", "text-anomaly"):
        folder = learnt(kind)
        config = FinetuneConfig(method="distill", distill=DistillConfig(teacher=str(folder)))
        with pytest.raises(ConfigError, match=f"is for {kind}, and answers in other terms"):
            core._teacher(None, case.task, config)
        left = FinetuneConfig(method="distill")
        assert core._teacher(folder, case.task, left) is None, "as a champion it is left"


def test_a_teacher_is_told_of_under_its_own_names_and_its_rows_count(job):
    told: list[tuple[int, str]] = []

    class Told(Silent):
        def metrics(self, values, step):
            told.extend((step, name) for name in values)

        def progress(self, done, total, what):
            told.append((done, what.split(" loss")[0]))

    outcome = distill.fit(job(watcher=Told()))
    assert {(2, "teacher_valid_macro_f1"), (2, "valid_macro_f1"), (1, "teacher:")} <= set(told)
    once = [each for each in told if each[1] in ("teacher_train_loss", "train_loss")]
    assert once == [(2, "teacher_train_loss"), (2, "train_loss")]
    assert (outcome.history.rows, outcome.history.steps) == (32, 2)


def test_the_base_is_made_once(job, make_classifier):
    made = []

    def fresh():
        made.append(1)
        return make_classifier(0)

    distill.fit(replace(job(), fresh=fresh))
    assert len(made) == 1
