from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import bundle
from components.errors import BadInput, BundleError, NoChampion, WorldError
from components.ledger import Ledger
from components.score import core
from components.score.core import ERROR, ScoreConfig, score
from components.score.lock import only_writer
from components.serve.model import BundleModel
from components.signature import SigningKey
from components.store import LocalStore

TEXTS = ["the film was good", "a very dull story", "awful and bad", ""]
SCRIPT = """
import os, signal, sys
from pathlib import Path
from components.ledger import Ledger
from components.score import core
from components.serve.model import BundleModel
from components.store import LocalStore
core.PART_ROWS = 10
store = LocalStore(Path(sys.argv[1]))
def progress(done, total, what):
    if done >= 30:
        os.kill(os.getpid(), signal.SIGKILL)
core.score(Path(sys.argv[2]), Path(sys.argv[3]), Ledger(store, "demo"),
           lambda digest: BundleModel.load(store, digest), core.ScoreConfig(), progress=progress)
"""

LOCKED = """
import os, signal, sys
from pathlib import Path
from components.score.lock import only_writer
with only_writer(Path(sys.argv[1]), "y.parquet"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Desk:
    """A champion, and a file of rows."""

    def __init__(self, folder: Path, make_bundle):
        self.store, self.make = LocalStore(folder / "store"), make_bundle
        self.ledger = Ledger(self.store, "demo")
        self.source, self.target = folder / "x.parquet", folder / "y.parquet"
        self.promote(1)

    def promote(self, seed):
        expected = self.ledger.generation
        self.ledger.append(
            action="promote",
            bundle=bundle.publish(self.store, self.make(seed)),
            version=f"v{seed}",
            key=str(expected),
            by="t",
            reason="",
            expected=expected,
        )

    def rows(self, count, **more):
        texts = [TEXTS[number % len(TEXTS)] for number in range(count)]
        frame = pd.DataFrame({"id": range(count), "text": texts, **more})
        frame["text"] = frame["text"].astype(object)
        frame.to_parquet(self.source, row_group_size=7)
        return frame

    def load(self, digest):
        return BundleModel.load(self.store, digest)

    def score(self, *, force=False, say=lambda words: None, **config):
        asked = ScoreConfig(**config)
        return score(self.source, self.target, self.ledger, self.load, asked, force=force, say=say)

    @property
    def answered(self):
        return pd.read_parquet(self.target)

    def score_addresses(self, folder, **config):
        return core.score_addresses(
            str(self.source),
            str(self.target),
            self.store,
            self.ledger,
            ScoreConfig(**config),
            home=folder,
            progress=lambda done, total, what: None,
        )


@pytest.fixture
def desk(tmp_path, make_bundle, monkeypatch):
    monkeypatch.setattr(core, "PART_ROWS", 10)
    return Desk(tmp_path, make_bundle)


def test_each_row_gets_one_answer_in_order(desk):
    rows = desk.rows(43)
    report = desk.score()
    assert (report.rows, report.unanswered, report.resumed_rows) == (43, 0, 0)
    answered = desk.answered
    pd.testing.assert_frame_equal(answered[["id", "text"]], rows)
    model = desk.load(desk.ledger.head().bundle)
    expected = model.predict(rows["text"].tolist())
    assert answered["answer_label"].tolist() == [each["label"] for each in expected]
    shares = [each["probabilities"]["positive"] for each in expected]
    assert answered["answer_probabilities_positive"].tolist() == pytest.approx(shares, abs=1e-5)
    assert answered[ERROR].isna().all()
    assert not list(desk.target.parent.glob("*.parts"))


def test_the_file_says_which_version_answered(desk):
    desk.rows(3)
    desk.score()
    about = pq.read_schema(desk.target).metadata
    assert (about[b"tokiwa.version"], about[b"tokiwa.generation"]) == (b"v1", b"1")
    assert about[b"tokiwa.bundle"].decode() == desk.ledger.head().bundle


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20])
def test_any_number_of_rows_comes_out_whole(desk, count):
    desk.rows(count)
    assert desk.score().rows == count
    assert desk.answered["id"].tolist() == list(range(count))


@pytest.mark.parametrize("kind", ["float64", "int64", "object"])
def test_no_rows_of_any_type_come_out_as_none(desk, kind):
    pd.DataFrame({"text": pd.Series([], dtype=kind)}).to_parquet(desk.source)
    assert desk.score().rows == 0
    assert {"text", "answer_label", ERROR} <= set(desk.answered.columns)


def test_rows_that_cannot_be_answered_say_why_and_keep_their_place(desk):
    frame = desk.rows(6)
    frame.loc[1, "text"] = None
    frame.loc[4, "text"] = "a " * 20_000
    frame.to_parquet(desk.source)
    report = desk.score()
    assert (report.rows, report.unanswered) == (6, 2)
    answered = desk.answered
    assert answered[ERROR].notna().tolist() == [False, True, False, False, True, False]
    assert "null" in answered[ERROR][1]
    assert "40000 characters" in answered[ERROR][4]
    assert answered["answer_label"].notna().tolist() == [True, False, True, True, False, True]


@pytest.mark.slow
def test_a_killed_run_carries_on_with_the_model_that_it_began_with(desk):
    rows = desk.rows(95)
    desk.score()
    whole = desk.answered
    desk.target.unlink()
    command = [sys.executable, "-c", SCRIPT, desk.store.root, desk.source, desk.target]
    killed = subprocess.run(list(map(str, command)), env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert killed.returncode == -signal.SIGKILL
    assert not desk.target.exists()
    desk.promote(2)
    report = desk.score()
    assert (report.resumed_rows, report.version, report.rows) == (30, "v1", len(rows))
    pd.testing.assert_frame_equal(desk.answered, whole)
    # The next run is a new one.
    assert desk.score(force=True).version == "v2"


def break_off(desk, rows):
    """Leave what a run leaves that ended after some rows."""

    def breaks(done, total, what):
        if done >= rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(desk.source, desk.target, desk.ledger, desk.load, ScoreConfig(), progress=breaks)


def test_unfinished_work_on_another_file_is_thrown_away_by_force_only(desk):
    desk.rows(25)
    break_off(desk, 10)
    desk.rows(26)
    with pytest.raises(BadInput, match=r"y\.parquet\.parts holds unfinished work .*--force"):
        desk.score()
    assert desk.score(force=True).resumed_rows == 0
    assert len(desk.answered) == 26


def test_a_run_that_carries_on_says_where(desk):
    desk.rows(25)
    break_off(desk, 20)
    said: list[str] = []
    report = desk.score(say=said.append)
    assert said == ["loading version v1", "resumed at row 20 of 25"]
    assert report.headline == "25 rows scored by version v1, resumed at row 20 of 25"


def test_an_output_of_other_work_is_replaced_by_force_only(desk):
    desk.rows(12)
    for other in ("somebody's notes", None):
        if other:
            desk.target.write_text(other)
        else:
            desk.rows(12, more=1)
            desk.score(force=True)
            desk.promote(2)
        before = desk.target.read_bytes()
        with pytest.raises(BadInput, match=r"is there already, .*--force"):
            desk.score()
        assert desk.target.read_bytes() == before
    assert desk.score(force=True).version == "v2"


def test_a_finished_output_is_left_as_it_is(desk):
    desk.rows(12)
    first = desk.score()
    before = desk.target.stat()
    said: list[str] = []
    again = desk.score(say=said.append)
    assert again == first.model_copy(update={"resumed_rows": 12})
    assert desk.target.stat().st_ino == before.st_ino
    assert said == [f"{desk.target} is finished already; --force would answer all rows again"]
    assert desk.score(force=True).resumed_rows == 0


@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
def test_the_input_is_never_the_output(desk, tmp_path, link):
    desk.rows(3)
    before = desk.source.read_bytes()
    if link:
        getattr(desk.target, link)(desk.source)
    else:
        desk.target = desk.source
    for act in (partial(desk.score, force=True), partial(desk.score_addresses, tmp_path / "home")):
        with pytest.raises(BadInput, match="is the input itself"):
            act()
    assert desk.source.read_bytes() == before


def test_memory_is_bounded_by_parts_and_not_by_the_file(desk):
    desk.rows(200)
    sizes = []

    class Counting(BundleModel):
        def predict(self, contents):
            sizes.append(len(contents))
            return super().predict(contents)

    def load(digest):
        return Counting.load(desk.store, digest)

    score(desk.source, desk.target, desk.ledger, load, ScoreConfig())
    assert max(sizes) <= core.PART_ROWS
    assert sum(sizes) == 200


def test_another_column_and_a_column_of_categories(desk):
    frame = desk.rows(12).rename(columns={"text": "review"})
    frame["review"] = frame["review"].astype("category")
    frame.to_parquet(desk.source)
    assert desk.score(column="review").unanswered == 0


def test_an_input_that_cannot_be_scored_says_why(desk, tmp_path):
    with pytest.raises(BadInput, match="there is no file"):
        desk.score()
    desk.source.write_text("id,text\n")
    with pytest.raises(BadInput, match=r"score reads Parquet only; .* pandas\.read_csv"):
        desk.score()
    desk.rows(3)
    with pytest.raises(BadInput, match=r"no column 'body', only id, text; .*--column"):
        desk.score(column="body")
    with pytest.raises(BadInput, match="holds int64 and no strings"):
        desk.score(column="id")
    twice = pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"])
    pq.write_table(twice, desk.source)
    with pytest.raises(BadInput, match="has 2 columns 'text'"):
        desk.score()
    desk.rows(3, answer_label="good")
    with pytest.raises(BadInput, match="a column answer_label already"):
        desk.score()
    desk.rows(3)
    desk.target = tmp_path / "nowhere" / "y.parquet"
    with pytest.raises(BadInput, match="in a folder that is not there"):
        desk.score()
    desk.ledger = Ledger(desk.store, "another")
    desk.target = tmp_path / "y.parquet"
    with pytest.raises(NoChampion, match="tokiwa run"):
        desk.score()


def test_an_old_output_stays_until_the_new_one_is_whole(desk, monkeypatch):
    desk.rows(25)
    desk.score()
    before = desk.target.read_bytes()
    desk.rows(15)

    def broken(*given):
        raise OSError("no space left")

    monkeypatch.setattr(pq, "write_table", broken)
    with pytest.raises(OSError, match="no space"):
        desk.score(force=True)
    assert desk.target.read_bytes() == before


def test_two_runs_do_not_write_one_output(desk, tmp_path):
    desk.rows(25)
    other = tmp_path / "other.parquet"
    other.write_bytes(desk.source.read_bytes())
    refused = []

    def while_another(digest):
        second = (
            desk.score,
            lambda: desk.score_addresses(tmp_path / "home"),
            lambda: score(other, desk.target, desk.ledger, desk.load, ScoreConfig()),
        )
        for each in second:
            with pytest.raises(WorldError, match=f"process {os.getpid()} on .* is writing"):
                each()
            refused.append(each)
        return desk.load(digest)

    report = score(desk.source, desk.target, desk.ledger, while_another, ScoreConfig())
    assert (report.rows, len(refused)) == (25, 3)
    assert len(desk.answered) == 25
    assert desk.score().rows == 25
    assert not list(tmp_path.glob(".y.parquet*"))


def test_a_killed_run_locks_nobody_out(desk, tmp_path):
    lock = tmp_path / ".y.parquet.lock"
    command = [sys.executable, "-c", LOCKED, lock]
    assert subprocess.run(list(map(str, command))).returncode == -signal.SIGKILL
    assert "process" in lock.read_text()
    desk.rows(3)
    assert desk.score().rows == 3
    assert not lock.exists()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    says = r"cannot lock .*: No locks available; .*output on another"
    with pytest.raises(WorldError, match=says), only_writer(tmp_path / ".y.lock", "y.parquet"):
        pass


def test_only_a_signed_model_scores(desk, make_key, tmp_path):
    private, public = make_key()
    desk.rows(3)
    with pytest.raises(BundleError, match="is not signed"):
        desk.score_addresses(tmp_path / "home", trusted_keys=[public])
    assert not desk.target.exists()
    SigningKey(private, "ours").sign(desk.store, desk.ledger.head().bundle)
    assert desk.score_addresses(tmp_path / "home", trusted_keys=[public]).rows == 3
