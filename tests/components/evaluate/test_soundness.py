from __future__ import annotations

import numpy as np
import pytest

from components.evaluate.examinee import Examinee
from components.evaluate.soundness import code_in, fault_of
from components.tasks.text_classification import TextClassifier

CONTENTS = ["the film was good", "a very dull story", "bad", "good and good and good"]


@pytest.fixture
def asked(make_bundle, monkeypatch):
    """A model whose answers go through a function of them and of the contents."""

    def make(change=lambda answers, contents: answers):
        model = TextClassifier.load(make_bundle(1))
        plain = model.predict

        def changed(contents, **more):
            return change(plain(contents, **more), contents)

        monkeypatch.setattr(model, "predict", changed)
        return Examinee(model, np.arange(2), all_labels=True)

    return make


def fault(examinee):
    return fault_of(examinee, CONTENTS, examinee.answers(CONTENTS))


def test_a_sound_model_has_no_fault(asked):
    assert fault(asked()) == ""


def test_answers_that_no_number_is_are_a_fault_wherever_they_are_asked_for(asked):
    def broken(answers, contents):
        answers[[not content.strip() for content in contents]] = np.nan
        return answers

    assert fault(asked(broken)) == "gives answers that are not finite numbers to ''"


def test_answers_that_change_from_time_to_time_are_a_fault(asked):
    draw = np.random.default_rng(0)

    def dropout(answers, contents):
        return np.clip(answers + draw.normal(0, 0.1, answers.shape), 0, 1)

    assert fault(asked(dropout)).startswith("answers the same row otherwise another time")


def test_answers_that_go_by_the_batch_are_a_fault(asked):
    def by_batch(answers, contents):
        return answers / len(contents)

    assert "in other company" in fault(asked(by_batch))


def test_a_bundle_is_data_whatever_its_weights_begin_with(make_bundle, tmp_path):
    assert code_in(make_bundle(1)) == ""
    # As many bytes of header as make it look like a pickle.
    (tmp_path / "model.safetensors").write_bytes((640).to_bytes(8, "little") + b" " * 640)
    (tmp_path / "short").write_bytes(b"\x80")
    assert code_in(tmp_path) == ""
    (tmp_path / "long").write_bytes(b"\x80\x04")
    assert code_in(tmp_path) == "long is pickle"
