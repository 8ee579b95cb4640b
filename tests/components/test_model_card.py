from __future__ import annotations

import pytest

from components.model_card import licence_of


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n# Model\nlicense: mit\n", "apache-2.0"),
        ("# Model\nlicense: mit\n", ""),
        ("---\nlicense: [mit, other]\n---\n", ""),
        ("---\nlicense: {\n---\n", ""),
        ("---\n- a\n---\n", ""),
        ("---\nlicense: mit", "mit"),
        ("", ""),
    ],
)
def test_the_licence_is_what_the_card_says_before_its_text(card, licence, tmp_path):
    (tmp_path / "README.md").write_text(card)
    assert licence_of(tmp_path) == licence


def test_without_a_card_no_licence_is_known(tmp_path):
    assert licence_of(tmp_path) == ""
