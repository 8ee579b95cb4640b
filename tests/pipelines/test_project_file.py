"""YAML as people write it, overrides, paths and policies."""

from __future__ import annotations

import re

import pytest

from components.errors import ConfigError
from pipelines.project_file import load, load_policy
from tests.project_files import SOUND, files_of, line_of, problems_of


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name: demo\nx: [1, 2\n", "line 3: expected ',' or ']', but got '<stream end>'"),
        ("name: demo\n\tx: 1\n", r"line 2: found character '\t' that cannot start any token"),
        ("name: demo\n\nx: \x00\n", "line 3: special characters are not allowed"),
        ("name: demo\nx: *nowhere\n", "line 2: found undefined alias 'nowhere'"),
        ("name: demo\n? [a, b]\n: c\n", "line 2: found unhashable key"),
        ("name: demo\n---\nname: demo\n", "line 2: but found another document"),
        (
            "name: demo\nx: !!python/object/apply:os.getcwd []\n",
            "line 2: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object/apply:os.getcwd'",
        ),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_line(project, text, what):
    path = project(text=text)
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert str(refused.value) == f"{path} is not YAML: {what}"


@pytest.mark.parametrize("text", ["", "# a comment\n", "- name: demo\n", "demo\n", "null\n", "3"])
def test_what_is_no_mapping_is_no_project(project, text):
    path = project(text=text)
    with pytest.raises(ConfigError, match="is empty, or no mapping of keys to values"):
        load(path)


@pytest.mark.parametrize(
    "text", ["name: &a [*a]\n", "name: &a {x: *a}\n", "name: " + "[" * 4000 + "]" * 4000]
)
def test_endless_nesting_is_refused(project, text):
    with pytest.raises(ConfigError, match="is nested too deeply, or an anchor holds itself"):
        load(project(text=text))


def test_anchors_that_unfold_to_billions_are_refused(project):
    bomb = "x: &a0 [" + ", ".join("1" * 10) + "]\n"
    for level in range(1, 10):
        bomb += f"x{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    with pytest.raises(ConfigError, match=r"line \d+: it unfolds to more than 100,000 values"):
        load(project(text=SOUND + bomb))


def test_another_encoding_is_refused(tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_bytes(SOUND.replace("two words decide", "naïveté").encode("latin-1"))
    with pytest.raises(ConfigError, match=f"cannot read {re.escape(str(path))}: 'utf-8' codec"):
        load(str(path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path, encoding, newline):
    path = tmp_path / "demo.yaml"
    path.write_bytes(SOUND.replace("\n", newline).replace("two words", "二語").encode(encoding))
    config = load(str(path))
    assert (config.name, config.description) == ("demo", "二語 decide")


# --- words that YAML 1.1 takes for something else


def test_a_date_needs_no_quotes(project):
    path = project(('at: "2026-01-12"', "at: 2026-01-12"), ('"2026-01-05"', "2026-01-05"))
    config = load(path, ["source.files=[{path: c.csv, at: 2026-03-01}]"])
    assert config.resolve.start == "2026-01-05"
    assert files_of(config).files[0].at == "2026-03-01"
    assert files_of(load(path)).files[1].at == "2026-01-12"
    assert load(path, ["resolve.start=2026-02-02"]).resolve.start == "2026-02-02"


@pytest.mark.parametrize("labels", [("no", "yes"), ("off", "on"), ("n", "y"), ("No", "YES")])
def test_labels_that_mean_yes_or_no_need_no_quotes(project, labels):
    path = project(("[bad, good]", f"[{', '.join(labels)}]"))
    assert load(path).task.label_names == labels


def test_the_key_on_is_a_key_and_no_boolean(project):
    path = project(text=SOUND + "trigger:\n  on: [performance]\n")
    assert load(path).trigger.on == ("performance",)
    assert load(path, ["trigger.on=[drift]"]).trigger.on == ("drift",)


def test_files_may_lie_in_several_folders_each_with_columns_of_its_own(tmp_path):
    (tmp_path / "demo.yaml").write_text(
        "name: demo\ntask: {kind: text-classification, labels: [a, b]}\n"
        "source:\n  kind: files\n  root: here\n  files:\n"
        "    - {path: a.csv}\n"
        "    - {path: b.csv, root: there, columns: {text: body}}\n"
        "    - {path: c.csv, root: 'package:data', requirement: package==1}\n"
    )
    source = files_of(load(str(tmp_path / "demo.yaml")))
    assert source.roots == [
        (str(tmp_path / "here"), ""),
        (str(tmp_path / "there"), ""),
        ("package:data", "package==1"),
    ]
    assert source.files[1].columns is not None
    assert source.files[1].columns.text == "body"


def test_bins_may_be_named_by_numbers(project):
    bins = "  label_bins: {0: [null, 0], 1: [0, null]}\n  root: data"
    path = project(("[bad, good]", '["0", "1"]'), ("  root: data", bins))
    assert load(path).source.label_bins == {"0": (None, 0.0), "1": (0.0, None)}


@pytest.mark.parametrize("word", ["true", "True", "TRUE", "false", "False", "FALSE"])
def test_true_and_false_stay_booleans(project, word):
    path = project(("epochs: 2", f"compile: {word}"))
    assert load(path).finetune.compile is (word.lower() == "true")


def test_numbers_may_be_written_as_in_python(project):
    path = project(("epochs: 2", "learning_rate: 1e-4"))
    assert load(path).finetune.learning_rate == 1e-4
    assert load(path, ["finetune.learning_rate=2e-5"]).finetune.learning_rate == 2e-5


# --- anchors


MERGED = """\
    - &first {path: a.csv, name: a, share: [0, 0.5]}
    - {<<: *first, share: [0.5, 1]}
"""
FILES = """\
    - {path: a.csv, name: a}
    - path: b.csv
      at: "2026-01-12"
"""


def test_anchors_and_merge_keys_work(project):
    config = load(project((FILES, MERGED)))
    first, second = files_of(config).files
    assert first.share == (0, 0.5)
    assert second.model_dump() == first.model_dump() | {"share": (0.5, 1)}


def test_a_problem_in_a_merged_mapping_is_told_for_both_places(project):
    path = project((FILES, MERGED), ("name: a", "nmae: a"))
    line = line_of(path, "&first")
    assert problems_of(path) == [
        f"line {line}: source.files.0.nmae: unknown key; did you mean name?",
        f"line {line + 1}: source.files.1.nmae: unknown key; did you mean name?",
    ]


def test_an_override_does_not_reach_through_an_alias(project):
    before = SOUND.split("finetune:")[0]
    path = project(text=f"evaluate: &seeded {{seed: 1}}\n{before}finetune: *seeded\n")
    config = load(path, ["finetune.seed=5"])
    assert (config.finetune.seed, config.evaluate.seed) == (5, 1)


# --- overrides


def test_an_override_replaces_one_value(project):
    path = project()
    config = load(
        path,
        [
            "finetune.epochs=3",
            "drift.max_drop = 0.4",
            "task.labels=[x, y, z]",
            "description=a = b",
            "finetune.epochs=4",
        ],
    )
    assert config.finetune.epochs == 4, "the last one wins"
    assert config.drift.max_drop == 0.4, "of a section that the file does not have"
    assert config.task.label_names == ("x", "y", "z")
    assert config.description == "a = b"
    assert config.finetune.base == load(path).finetune.base


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("finetune.epochs", "write it as key.key=value"),
        ("", "write it as key.key=value"),
        ("=3", "write it as key.key=value"),
        (".epochs=3", "write it as key.key=value"),
        ("finetune.=3", "write it as key.key=value"),
        ("finetune..epochs=3", "write it as key.key=value"),
        ("finetune.epochs=[3", "the value is not YAML; quotes may be missing"),
        ("description=a: b: c", "the value is not YAML; quotes may be missing"),
        ("name.first=x", "name is no section"),
        ("finetune.epochs.often=3", "epochs is no section"),
        ("source.files.0.path=c.csv", "files is no section"),
        ("finetune.epoch=3", "finetune.epoch: unknown key; did you mean epochs?"),
        ("finetune=3", "finetune: should hold keys and values, such as {base: …} (got 3)"),
        ("name=", "name: input should be a valid string; put it in quotes (got None)"),
        ("resolve.start=2026-02-30", "resolve.start: day is out of range for month (got '202"),
    ],
)
def test_a_wrong_override_is_named(project, override, what):
    (problem,) = problems_of(project(), override)
    assert problem.startswith(f"--set {override}: {what}")


def test_a_problem_of_the_file_that_is_overridden_is_gone(project):
    path = project(("epochs: 2", "epochs: two"))
    assert load(path, ["finetune.epochs=2"]).finetune.epochs == 2
    (problem,) = problems_of(path, "finetune.epochs=0")
    assert problem.startswith("--set finetune.epochs=0: finetune.epochs: input should be greater")


def test_an_override_that_is_not_to_be_read_is_cut(project):
    (problem,) = problems_of(project(), f"finetune.epochs={'9' * 5000}")
    assert (
        problem
        == f"--set finetune.epochs={'9' * 63}…: the value is not YAML; quotes may be missing"
    )


# --- finding


def test_an_unknown_project_gets_a_suggestion():
    with pytest.raises(ConfigError, match="no project 'sentimant'; did you mean sentiment"):
        load("sentimant")
    with pytest.raises(ConfigError, match=r"shipped are: .*sentiment.*such as zzz\.yaml"):
        load("zzz")


@pytest.mark.parametrize("name", ["nowhere.yaml", "nowhere.yml", "no/where"])
def test_a_path_to_nothing_is_refused(name):
    with pytest.raises(ConfigError, match=f"there is no project file {re.escape(name)}"):
        load(name)


def test_a_folder_is_no_project_file(tmp_path):
    with pytest.raises(ConfigError, match="there is no project file"):
        load(str(tmp_path))


# --- paths


def base_places(config):
    return [base.place for base in config.finetune.base]


def test_relative_paths_start_at_the_file(project, tmp_path, monkeypatch):
    path = project()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for named in (path, "../demo.yaml"):
        config = load(named)
        assert files_of(config).root == str(tmp_path / "data")
        assert base_places(config) == [str(tmp_path / "models" / "tiny")]
        trusted = f"evaluate.holdout={{path: trusted.csv, sha256: {'a' * 64}}}"
        holdout = load(named, [trusted]).evaluate.holdout
        assert holdout and holdout.path == str(tmp_path / "trusted.csv")


def test_other_paths_stay(project, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    path = project(("root: data", "root: ~/data"), ("models/tiny", "package:folder"))
    config = load(path)
    assert files_of(config).root == str(tmp_path / "me" / "data")
    assert base_places(config) == ["package:folder"]
    assert base_places(load(path, ["finetune.base=/opt/model"])) == ["/opt/model"]
    assert files_of(load(path, ["source.root=.."])).root == str(tmp_path.parent)


def test_what_else_a_training_reads_is_anchored_and_handed_to_resolve(project, tmp_path):
    read = "distill: {teacher: teacher}, augment: {synonyms: words.json}"
    config = load(project(("epochs: 2", read.replace(", a", "\n  a"))))
    teacher, words = str(tmp_path / "teacher"), str(tmp_path / "words.json")
    assert config.finetune.distill.teacher == teacher
    assert config.finetune.augment.synonyms == words
    assert config.bases.others == {teacher: "", words: ""}
    assert load(project()).bases.others == {}


def test_a_policy_is_the_section_trigger_in_a_file_of_its_own(tmp_path):
    path = tmp_path / "calm.yaml"
    path.write_text("on: [performance]\ngovernor: {persistence: [2, 3], cooldown_hours: 72}\n")
    policy = load_policy(path)
    assert (policy.on, policy.governor.persistence) == (("performance",), (2, 3))
    assert policy.governor.cooldown_hours == 72


def test_all_problems_of_a_policy_come_at_once_with_their_lines(tmp_path):
    path = tmp_path / "calm.yaml"
    path.write_text(
        "on: [boredom]\n"
        "volume: 3\n"
        "governor:\n"
        "  persistance: [2, 3]\n"
        "  quiet_hours: [at night]\n"
        "  device_hours_per_week: lots\n"
    )
    with pytest.raises(ConfigError) as refused:
        load_policy(path)
    heading, *problems = str(refused.value).split("\n")
    assert heading == f"{path} has 5 problems:"
    for line, part in (
        (1, "trigger.on.0"),
        (2, "trigger.volume: unknown key; did you mean volume_rows?"),
        (4, "trigger.governor.persistance: unknown key; did you mean persistence?"),
        (5, "write it as 22:00-06:00"),
        (6, "trigger.governor.device_hours_per_week"),
    ):
        assert any(f"line {line}: " in each and part in each for each in problems), (line, problems)
    path.write_text("trigger:\n  on: [manual]\n")
    with pytest.raises(ConfigError, match="a policy is the section trigger itself"):
        load_policy(path)
    with pytest.raises(ConfigError, match="there is no policy file"):
        load_policy(tmp_path / "none.yaml")


def test_times_without_an_offset_are_of_the_windows_clock_unless_the_source_has_one(project):
    windows = ("timezone: UTC", "timezone: Asia/Tokyo")
    assert load(project(windows)).source.timezone == "Asia/Tokyo"
    own = ("  root: data\n", "  root: data\n  timezone: UTC\n")
    assert load(project(windows, own)).source.timezone == "UTC"
