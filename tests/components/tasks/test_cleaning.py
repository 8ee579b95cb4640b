from __future__ import annotations

import json

import pytest

from components.serve.model import BundleModel
from components.store import LocalStore
from components.tasks.cleaning import CLEANING, cleaned
from components.tasks.text_classification import TextClassification, TextClassifier

ALL = tuple(CLEANING)


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("unicode", "Ｇｏｏｄ ﬁlm", "Good film"),
        ("html", "<p class='x'>a &lt;b&gt; &amp; c</p><script>x()</script>", " a <b> & c  "),
        ("html", "a < b and c > d, I <3 you", "a < b and c > d, I <3 you"),
        ("control", "a\x00b\u202ec\u200bd\ne", "abcd\ne"),
        ("whitespace", "  a \n\t b\u3000c ", "a b c"),
        ("case", "A GOOD Film", "a good film"),
    ],
)
def test_a_rule_does_what_it_says(rule, text, expected):
    assert cleaned(text, [rule]) == expected


@pytest.mark.parametrize("text", ["<b>Ｇｏｏｄ</b>&nbsp; FILM\x00", "", "\ud83d", "<", "&#0;"])
def test_cleaning_twice_changes_nothing_more_and_the_order_of_a_project_nothing_at_all(text):
    once = cleaned(text, ALL)
    assert cleaned(text, ALL[::-1]) == once
    assert cleaned(once, [rule for rule in ALL if rule != "html"]) == once


def test_a_served_text_is_cleaned_as_in_training(tiny_base, seal_bundle, tmp_path):
    task = TextClassification(labels=("n", "p"), max_tokens=16, clean=("html", "unicode"))
    model = TextClassifier.from_base(tiny_base, task, dropout=0.0)
    store = LocalStore(tmp_path / "store")
    folder = tmp_path / "store" / "bundles" / "made"
    model.save(folder)
    digest = seal_bundle(folder, task=task)
    folder.rename(folder.with_name(digest))
    served = BundleModel.load(store, digest)
    raw, plain = "<p>the ｇｏｏｄ film</p>", "the good film"
    assert [each.tolist() for each in model.encode([raw])] == [
        each.tolist() for each in model.encode([plain])
    ]
    assert served.answers([raw]).tolist() == served.answers([plain]).tolist()
    assert served.answers([raw])[0] == pytest.approx(model.predict([raw])[0])


def test_a_champion_is_cleaned_as_the_project_now_says_and_old_bundles_not_at_all(
    tiny_base, tmp_path
):
    task = TextClassification(labels=("n", "p"), max_tokens=16, clean=("case",))
    model = TextClassifier.from_base(tiny_base, task, dropout=0.0)
    model.save(tmp_path / "new")
    assert TextClassifier.load(tmp_path / "new").clean == ("case",)
    saved = json.loads((tmp_path / "new" / "model.json").read_text())
    del saved["clean"]
    (tmp_path / "new" / "model.json").write_text(json.dumps(saved))
    old = TextClassifier.load(tmp_path / "new")
    assert not old.clean
    old.configure(task, dropout=0.0)
    assert old.clean == ("case",)
