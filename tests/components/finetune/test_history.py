from __future__ import annotations

import json
import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.finetune.history import Clock, History, overfitting_remark


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(1, 5))
def test_the_first_of_the_best_epochs_is_kept(scores, patience):
    history = History("macro_f1")
    kept = [history.keep({"macro_f1": score}, 0.0) for score in scores]
    assert history.best_epoch == int(np.argmax(scores)) + 1
    assert kept == [all(score > before for before in scores[:i]) for i, score in enumerate(scores)]
    assert history.exhausted(patience) == (len(scores) - history.best_epoch >= patience)


@given(st.lists(st.floats(0, 9), min_size=1, max_size=20))
def test_of_an_error_the_lowest_is_best(scores):
    history = History("mae")
    for score in scores:
        history.keep({"mae": score}, 0.0)
    assert history.best_epoch == int(np.argmin(scores)) + 1


def test_a_history_survives_json():
    history = History("macro_f1", steps=7)
    history.keep({"macro_f1": 0.5, "loss": 1.0}, 2.0)
    assert History(**json.loads(json.dumps(history.to_dict()))) == history


def test_overfitting_is_remarked_where_the_curves_show_it():
    train = [1.0, 0.5, 0.2, 0.1]

    def remark(valid):
        return overfitting_remark(train[: len(valid)], [{"loss": loss} for loss in valid])

    assert remark([0.9, 0.6, 0.7, 0.9]) == (
        "Overfitting after epoch 2: the validation loss rose from 0.600 to 0.900 while the "
        "training loss fell to 0.100."
    )
    assert remark([0.9, 0.6, 0.61, 0.62]) == "", "not by much"
    assert remark([0.9, 0.6, 0.5, 0.4]) == ""
    assert remark([0.9]) == ""
    assert overfitting_remark([1.0, 1.2], [{"loss": 0.5}, {"loss": 0.9}]) == "", "not learnt either"


def test_the_start_is_kept_where_no_epoch_is_better():
    history = History("macro_f1", start={"macro_f1": 0.8})
    assert not history.keep({"macro_f1": 0.8}, 0.0)
    assert not history.keep({"macro_f1": 0.7}, 0.0)
    assert history.best_epoch == 0
    assert history.best_scores == {"macro_f1": 0.8}, "and not those of the last epoch"
    assert history.keep({"macro_f1": 0.9}, 0.0)
    assert history.best_epoch == 3
    history.keep({"macro_f1": 0.1}, 0.0)
    assert history.best_scores == {"macro_f1": 0.9}


def test_patience_compares_epochs_with_each_other_and_not_with_the_start():
    """A training may have to leave a start that scores by chance before it comes out above it."""
    history = History("macro_f1", start={"macro_f1": 0.37})
    assert not history.exhausted(2)
    for score, ends in ((0.30, False), (0.30, False), (0.95, False), (0.9, False), (0.9, True)):
        history.keep({"macro_f1": score}, 0.0)
        assert history.exhausted(2) == ends
    assert history.best_epoch == 3


def test_a_clock_goes_on_from_the_latest_checkpoint():
    clock = Clock(started_s=time.perf_counter() - 50)
    clock.go_on(1000.0)  # of the teacher
    clock.go_on(400.0)
    assert 1050 <= clock.seconds < 1100
