from __future__ import annotations

import json

import pytest

from components.errors import BadInput
from components.label_files import Asked, Word, read, written

ASKED = Asked("m:17", "2026-01-19", "so so", "text", "good", 0.51234, "b" * 64)


@pytest.fixture
def given(tmp_path):
    """Read what is written into the file of an annotator called ann."""

    def run(text):
        path = tmp_path / "ann.jsonl"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read(path)

    return run


def test_lines_are_flat_objects():
    (line,) = written([ASKED], "lines", numbers=False)
    assert json.loads(line) == {
        "text": "so so",
        "label": [],
        "row": "m:17",
        "window": "2026-01-19",
        "answer": "good",
        "confidence": 0.5123,
    }


def test_label_studio_gets_tasks_with_predictions():
    (line,) = written([ASKED], "label-studio", numbers=False)
    task = json.loads(line)
    assert task["data"]["text"] == "so so" and task["data"]["row"] == "m:17"
    (prediction,) = task["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("b" * 12, 0.5123)
    (result,) = prediction["result"]
    assert (result["type"], result["value"]) == ("choices", {"choices": ["good"]})


def test_numbers_are_numbers_and_have_no_confidence():
    asked = Asked("1", "w", "so so", "text", "2.5", None, "b" * 64)
    (task,) = map(json.loads, written([asked], "label-studio", numbers=True))
    (prediction,) = task["predictions"]
    assert prediction["result"][0]["value"] == {"number": 2.5}
    assert "score" not in prediction


def done_in_label_studio(*chosen, row="7"):
    return {
        "id": 1,
        "data": {"row": row, "text": "so so"},
        "annotations": [
            {
                "completed_by": who,
                "was_cancelled": cancelled,
                "result": [{"type": "choices", "value": {"choices": choices}}],
            }
            for who, choices, cancelled in chosen
        ],
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        # doccano: one file for each annotator, ids of its own
        ({"id": 4, "text": "…", "label": ["good"], "row": "7"}, [("7", "ann", "good")]),
        ({"id": 4, "text": "…", "label": [], "row": "7"}, []),
        ({"row": "7", "label": ["good"], "annotation_approver": "bob"}, [("7", "bob", "good")]),
        ({"row": 7, "label": "good", "annotator": "bob"}, [("7", "bob", "good")]),
        ({"row": "7", "label": 2.5}, [("7", "ann", "2.5")]),
        ({"row": "7"}, []),
        # Prodigy
        (
            {"row": "7", "accept": ["good"], "answer": "accept", "_annotator_id": "set-bob"},
            [("7", "set-bob", "good")],
        ),
        ({"meta": {"row": "7"}, "accept": ["good"], "answer": "ignore"}, []),
        # Label Studio
        (done_in_label_studio((3, ["good"], False)), [("7", "3", "good")]),
        (
            done_in_label_studio(({"email": "b@c"}, ["good"], False), (3, ["bad"], False)),
            [("7", "b@c", "good"), ("7", "3", "bad")],
        ),
        (done_in_label_studio((3, ["good"], True)), []),
        (done_in_label_studio((None, ["good"], False)), [("7", "ann", "good")]),
        (
            {
                "data": {"row": "7"},
                "annotations": [{"result": [{"type": "number", "value": {"number": 2.5}}]}],
            },
            [("7", "ann", "2.5")],
        ),
    ],
)
def test_what_a_tool_wrote_is_told_by_its_form(given, line, words):
    expected = [Word(*each) for each in words]
    assert given(json.dumps(line)) == (expected, 0 if words else 1)
    assert given(json.dumps([line, line])) == (expected * 2, 0 if words else 2)


def test_what_was_written_is_read_back_once_it_is_labelled(given):
    lines = [json.loads(line) for line in written([ASKED] * 2, "lines", numbers=False)]
    lines[0]["label"] = ["bad"]
    text = "\n".join(map(json.dumps, lines)) + "\n\n"
    assert given(b"\xef\xbb\xbf" + text.encode()) == ([Word("m:17", "ann", "bad")], 1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"row": "1", "label": "a"}\n{"row', "line 2: is not JSON"),
        ('{"label": "a"}', "line 1: has no `row`"),
        ("7", "line 1: is no JSON object"),
        ('{"row": "1", "label": ["a", "b"]}', "line 1: has 2 labels, and a row takes one"),
        ("[{]", "the list is not JSON"),
        (b"\xff\xfe", "cannot read"),
        ('{"row": true, "label": "a"}\n' * 30, "and 10 more"),
    ],
)
def test_what_no_tool_writes_is_refused_by_its_line(given, text, problem):
    with pytest.raises(BadInput, match=problem):
        given(text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"cannot read .*none\.jsonl"):
        read(tmp_path / "none.jsonl")


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_a_text_with_odd_ends_of_lines_comes_back_as_it_was_written(given, end):
    asked = Asked("1", "w", f"one{end}two", "text", "good", None, "b" * 64)
    (line,) = written([asked], "lines", numbers=False)
    assert given(line.replace('"label": []', '"label": ["bad"]'))[0] == [Word("1", "ann", "bad")]


@pytest.mark.parametrize(
    "said",
    [
        {"annotations": None},
        {"annotations": ["good"]},
        {"annotations": [{"result": None}]},
        {"annotations": [{"result": [5]}]},
        {"label": {"name": "good"}},
        {"label": [None]},
        {"label": [[0, 5, "good"]]},
        {"label": True},
        {"accept": [""], "answer": "accept"},
    ],
)
def test_what_is_no_label_is_named_with_its_line(given, said):
    with pytest.raises(BadInput, match=r"line 2: .*(list of objects|has the label)"):
        given('{"row": "0", "label": "good"}\n' + json.dumps({"row": "1", **said}))


@pytest.mark.parametrize(
    "said",
    [
        {"annotations": [{"result": [{"type": "choices", "value": None}]}]},
        {"annotations": [{"result": [{"type": "number", "value": {}}]}]},
        {"accept": None, "answer": "accept"},
        {"label": None},
    ],
)
def test_an_annotation_without_a_label_says_nothing(given, said):
    assert given(json.dumps({"row": "1", **said})) == ([], 1)
