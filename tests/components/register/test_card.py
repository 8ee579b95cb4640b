from __future__ import annotations

import pytest

from components.bundle import Description
from components.register.card import MAX_CHARACTERS, model_card
from components.tasks.text_classification import TextClassification


@pytest.fixture
def describe():
    def make(**more):
        return Description.model_validate(
            {
                "task": TextClassification(labels=("bad", "good")),
                "recipe": {"method": "full", "epochs": 3, "seed": 0, "threads": 1},
                "lineage": {"data": "d" * 64, "champion": ""},
                "scores": {"valid_macro_f1": 0.9},
                "test_share": 0.2,
                "examples": ["a good\nfilm", "x" * 500],
            }
            | more
        )

    return make


def card(description, **more):
    given = {
        "bundle": "b" * 64,
        "verdict": "promote",
        "reasons": ["better than champion", "guarded"],
        "scores": {
            "challenger": {"test": {"rows": 60.0, "accuracy": 0.91}, "guard": {"rows": 3.0}},
            "champion": {"test": {"rows": 60.0, "accuracy": 0.8, "brier": 0.1}},
        },
        "power": "Power: little.",
    }
    return model_card(description, **(given | more))


def test_the_card_says_what_it_is_how_good_and_from_what(describe):
    text = card(describe())
    assert text.startswith("# text-classification: promote\n")
    assert "answers bad, good. Bundle `bbbbbbbbbbbb`." in text
    assert "- better than champion\n- guarded" in text
    assert "| | challenger | champion |" in text
    assert "| accuracy | 0.910 | 0.800 |" in text
    assert "| brier | – | 0.100 |" in text
    assert "| rows | 60 | 60 |" in text
    assert "- method: full\n- epochs: 3\n- seed: 0\n- data: `dddddddddddd`" in text
    assert "champion: `" not in text
    assert "> a good film\n" in text
    assert "Power: little." in text


def test_an_adopted_model_has_no_training_to_tell_of(describe):
    assert "## Training\n\n- adopted" in card(describe(recipe={}, lineage={}))


def test_a_model_that_was_not_scored_says_so(describe):
    assert "None: it was not scored." in card(describe(), scores={})


def test_the_card_fits_where_mlflow_keeps_it(describe):
    text = card(describe(), reasons=["a long reason " * 20] * 50)
    assert len(text) == MAX_CHARACTERS
    assert text.endswith("…")


def test_the_card_says_how_the_model_decides(describe):
    text = card(describe(), rule=["It answers 'good' from 0.2 on.", "It is calibrated."])
    assert "It answers 'good' from 0.2 on. It is calibrated.\n\n## Gate" in text
    assert "\n\n\n" not in card(describe())
