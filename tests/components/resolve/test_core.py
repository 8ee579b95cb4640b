from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from components import bundle
from components.errors import (
    BundleError,
    ConfigError,
    Frozen,
    MissingPackage,
    NoChampion,
    UserError,
)
from components.freeze import Freezes
from components.ledger import Ledger
from components.plan import Base, Bases
from components.request_log import COLUMNS, RequestLog, new_file
from components.resolve.core import (
    ResolveConfig,
    allow,
    clock,
    code_version,
    known_windows,
    resolve,
    weights_digest,
    windows_with_rows,
)
from components.sources import open_source
from components.sources.files import ColumnNames, FilesConfig, Part
from components.store import LocalStore
from components.windows import ALL_TIME

WEEKS = ResolveConfig(window_days=7, start="2026-01-05")
NOW = datetime(2026, 2, 20, tzinfo=UTC)  # six whole weeks; the last row came in the third


def bases_at(place, **more):
    return Bases(models=(Base(place=place, **more),))


class World:
    """Three weeks of rows, a base model and a store."""

    def __init__(self, folder, base):
        self.folder, self.base = folder, base
        self.store = LocalStore(folder / "objects")
        self.ledger = Ledger(self.store)
        self.files = 0
        self.write(["2026-01-05", "2026-01-06", "2026-01-12", "2026-01-19"])

    def write(self, days, last_text="a film", label="x"):
        self.files += 1  # another file: within a process each is read once
        lines = [f"text {number},x,{day}" for number, day in enumerate(days)]
        content = "\n".join(["text,label,when", *lines[:-1], f"{last_text},{label},{days[-1]}"])
        name = f"{self.files}.csv"
        (self.folder / name).write_text(content)
        self.source = FilesConfig(
            root=str(self.folder), files=[Part(path=name)], columns=ColumnNames(time="when")
        )

    def plan(self, window="latest", purpose="training", config=WEEKS, now=NOW, **changes):
        arguments: dict[str, Any] = {
            "source": self.source,
            "bases": bases_at(str(self.base)),
        }
        return resolve(
            project="demo",
            config=config,
            window=window,
            purpose=purpose,
            head=self.ledger.head(),
            store=self.store,
            now=now,
            **(arguments | changes),
        )

    def promote(self, folder):
        digest = bundle.publish(self.store, folder)
        generation = self.ledger.generation
        return self.ledger.append(
            action="promote",
            bundle=digest,
            version=f"{generation + 1}",
            key=f"{generation}",
            by="test",
            reason="",
            expected=generation,
        )


@pytest.fixture
def world(tmp_path, tiny_base):
    return World(tmp_path, tiny_base)


@pytest.fixture
def trained_until(make_bundle, seal_bundle, tmp_path):
    """Make a bundle whose training window ended at a time."""

    def make(moment):
        folder = shutil.copytree(make_bundle(1), tmp_path / f"bundle-{moment[:10]}")
        (folder / bundle.MANIFEST).unlink()
        seal_bundle(folder, lineage={"window_end": moment} if moment else {})
        return folder

    return make


def names(windows):
    return [each.window.name for each in windows]


# --- which window ---


def test_latest_is_the_last_whole_window_with_rows_and_now_the_last_whole_one(world):
    assert world.plan("latest").live.current.window.name == "2026-01-19"
    now = world.plan("now").live.current
    assert (now.window.name, now.rows) == ("2026-02-09", 0)
    a_moment_before_its_end = datetime(2026, 1, 26, tzinfo=UTC) - timedelta(microseconds=1)
    plan = world.plan("latest", now=a_moment_before_its_end)
    assert plan.live.current.window.name == "2026-01-12"


def test_a_window_can_be_asked_for_by_its_first_day(world):
    plan = world.plan("2026-01-12")
    assert plan.live.current.window.name == "2026-01-12"
    assert names(plan.data.windows) == ["2026-01-05", "2026-01-12"]
    with pytest.raises(UserError, match=r"no window '2026-01-13'; .* 2026-01-05 … 2026-02-09"):
        world.plan("2026-01-13")
    with pytest.raises(UserError, match=r"no window '2026-01-12'; its only window is all"):
        world.plan("2026-01-12", config=ResolveConfig())


def test_before_the_first_window_is_whole_there_is_nothing_to_do(world):
    with pytest.raises(UserError, match="no window is complete yet"):
        world.plan(now=datetime(2026, 1, 6, tzinfo=UTC))


def test_a_source_without_windows_is_one_window(world):
    plan = world.plan(config=ResolveConfig())
    assert plan.live.current.window == ALL_TIME
    assert plan.live.current.rows == 4


def test_windows_follow_the_time_zone(world):
    config = WEEKS.model_copy(update={"timezone": "Asia/Tokyo"})
    window = world.plan("2026-01-12", config=config).live.current.window
    assert window.start == "2026-01-12T00:00:00+09:00"


def test_a_training_run_sees_so_many_earlier_windows_the_current_one_last(world):
    config = WEEKS.model_copy(update={"history_windows": 1})
    assert names(world.plan(config=config).data.windows) == ["2026-01-12", "2026-01-19"]
    alone = WEEKS.model_copy(update={"history_windows": 0})
    assert names(world.plan(config=alone).data.windows) == ["2026-01-19"]


def test_windows_with_rows_are_listed_in_order(world):
    source = open_source(world.source)
    assert len(known_windows(WEEKS, NOW)) == 6
    assert [window.name for window in windows_with_rows(WEEKS, source, NOW)] == [
        "2026-01-05",
        "2026-01-12",
        "2026-01-19",
    ]


# --- what each step is told ---


def test_the_same_world_gives_the_same_plan(world):
    assert world.plan() == world.plan(now=NOW + timedelta(hours=5))


def test_only_the_window_whose_rows_changed_gets_another_fingerprint(world):
    before = world.plan()
    world.write(["2026-01-05", "2026-01-06", "2026-01-12", "2026-01-19"], "another film")
    after = world.plan()
    changed = [
        earlier.fingerprint != later.fingerprint
        for earlier, later in zip(before.data.windows, after.data.windows, strict=True)
    ]
    assert changed == [False, False, True]
    assert [each.rows for each in after.data.windows] == [2, 1, 1]


def test_labels_that_come_change_the_fingerprint_and_not_what_is_kept_of_the_contents(world):
    before = world.plan().live.current
    world.write(["2026-01-05", "2026-01-06", "2026-01-12", "2026-01-19"], label="y")
    after = world.plan().live.current
    assert before.fingerprint != after.fingerprint
    assert before.kept_as == after.kept_as != ""


def test_a_plan_knows_what_the_server_was_asked_in_its_window(world):
    own = {"ledger": "projects/demo"}
    before = world.plan(**own)
    assert before.admission.served is None
    log = RequestLog(world.store, "projects/demo")
    for day in (7, 20):  # long before, and in the window
        at = datetime(2026, 1, day, tzinfo=UTC)
        log.write(new_file(at), [dict.fromkeys(COLUMNS) | {"id": "r", "time": at.isoformat()}])
    after = world.plan(**own)
    assert after.admission.served is not None
    assert after.admission.served.window == after.live.current.window
    assert after == world.plan(**own)
    assert after.model_copy(update={"admission": before.admission}) == before
    # A replay is not asked by anybody.
    assert world.plan(ledger="replays/demo/1").admission.served is None


def test_a_promotion_changes_champion_and_generation_only(world, make_bundle):
    before = world.plan()
    assert (before.champion, before.champion_version, before.generation) == ("", "", 0)
    entry = world.promote(make_bundle(1))
    after = world.plan()
    assert (after.champion, after.champion_version, after.generation) == (entry.bundle, "1", 1)
    assert (after.data, after.bases, after.code) == (before.data, before.bases, before.code)


def test_monitoring_needs_a_champion_and_says_how_to_get_one(world, make_bundle):
    with pytest.raises(NoChampion, match=r"demo has no model .*: tokiwa run PROJECT, with the"):
        world.plan(purpose="monitoring")
    world.promote(make_bundle(1))
    assert world.plan(purpose="monitoring").live.current.window.name == "2026-01-19"


@pytest.mark.parametrize(
    ("delay", "expected"),
    [
        (0, ["2026-01-12", "2026-01-19"]),
        (1, ["2026-01-12"]),
        (2, []),
        (3, []),
        (4, []),
        (5, []),
        (6, []),
    ],
)
def test_labels_are_known_after_the_delay_and_only_those_after_training_count(
    world, trained_until, delay, expected
):
    world.promote(trained_until("2026-01-12T00:00:00+00:00"))
    config = WEEKS.model_copy(update={"label_delay_windows": delay})
    assert names(world.plan(config=config).live.labelled) == expected


def test_without_a_champion_or_its_training_window_no_labels_count(world, trained_until):
    assert world.plan().live.labelled == []
    world.promote(trained_until(""))
    assert world.plan().live.labelled == []


# --- what can be wrong ---


def test_missing_data_and_weights_are_errors_that_say_so(world, tmp_path):
    with pytest.raises(MissingPackage, match="no-such==1"):
        world.plan(bases=bases_at("no_such:model", requirement="no-such==1"))
    with pytest.raises(ConfigError, match="there is nothing at"):
        world.plan(bases=bases_at(str(tmp_path / "nope")))
    nowhere = world.source.model_copy(update={"root": str(tmp_path / "nope")})
    with pytest.raises(ConfigError, match="there is nothing at"):
        world.plan(source=nowhere)


def test_every_base_gets_the_digest_of_its_files(world, tiny_base, tmp_path):
    other = shutil.copytree(tiny_base, tmp_path / "other")
    (other / "config.json").write_text("{}")
    both = Bases(models=tuple(Base(place=str(folder)) for folder in (tiny_base, other)))
    digests = [base.digest for base in world.plan(bases=both).bases.models]
    assert digests == [weights_digest(tiny_base), weights_digest(other)]
    assert digests[0] != digests[1]


def test_what_else_is_read_gets_a_digest_that_changes_with_it(world, tiny_base, tmp_path):
    words, teacher = tmp_path / "words.json", shutil.copytree(tiny_base, tmp_path / "teacher")
    words.write_text('{"good": ["fine"]}')
    given = bases_at(str(tiny_base)).model_copy(
        update={"others": {str(words): "", str(teacher): ""}}
    )
    before = world.plan(bases=given).bases
    assert before.others[str(teacher)] == weights_digest(tiny_base)
    words.write_text('{"good": ["bad"]}')
    after = world.plan(bases=given).bases
    assert after.digest != before.digest
    assert after.lineage != before.lineage
    assert world.plan().bases.lineage == {}


def test_weights_that_are_not_those_of_the_project_are_refused(world, tiny_base):
    digest = weights_digest(tiny_base)
    world.plan(bases=bases_at(str(tiny_base), digest=digest))
    with pytest.raises(BundleError, match=rf"have digest {digest}, and .* asks for 0000"):
        world.plan(bases=bases_at(str(tiny_base), digest="0" * 64))


def test_a_base_that_is_pickled_is_refused_by_name(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BundleError, match=r"pytorch_model\.bin is pickle"):
        weights_digest(tmp_path)


def test_a_base_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BundleError, match=r"holds no safetensors weights$"):
        weights_digest(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_another_base_has_another_digest(tiny_base, tmp_path, name):
    same = shutil.copytree(tiny_base, tmp_path / "same")
    (same / "README.md").write_text("not part of the model")
    other = shutil.copytree(tiny_base, tmp_path / "other")
    (other / name).write_bytes((other / name).read_bytes() + b" ")
    assert weights_digest(same) == weights_digest(tiny_base)
    assert weights_digest(other) != weights_digest(tiny_base)


def test_the_clock_is_read_in_the_projects_time_zone_or_given():
    tokyo = ResolveConfig(timezone="Asia/Tokyo")
    given = clock("2026-01-12T00:30:00+00:00", tokyo)
    assert given.isoformat() == "2026-01-12T09:30:00+09:00"
    now = clock("", tokyo)
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=5)
    assert now.utcoffset() == timedelta(hours=9)
    for wrong in ("noon", "2026-01-12T00:30:00"):
        with pytest.raises(UserError, match="clock"):
            clock(wrong, tokyo)


def test_a_frozen_project_is_watched_and_not_trained(world):
    freezes = Freezes(world.store)
    for purpose in ("training", "tuning", "monitoring"):
        allow(purpose, freezes)
    freezes.set(frozen=True, by="eve", reason="an incident", at=NOW)
    allow("monitoring", freezes)
    allow("tuning", freezes)
    with pytest.raises(Frozen, match="a training was stopped: frozen by eve"):
        allow("training", freezes)


def test_the_code_has_a_version():
    assert len(code_version()) == 16
    assert int(code_version(), 16) >= 0


@pytest.mark.parametrize(
    "section",
    [
        {"timezone": "Mars/Olympus"},
        {"window_days": 7},
        {"start": "2026-01-05"},
        {"window_days": 0, "start": "2026-01-05"},
        {"window_days": 7, "start": "5 January"},
    ],
)
def test_a_section_that_makes_no_sense_is_refused(section):
    with pytest.raises(ValidationError):
        ResolveConfig(**section)


# --- which windows a run sees ---


def planned(world, now=NOW, **config):
    return names(
        world.plan(config=ResolveConfig(**(WEEKS.model_dump() | config)), now=now).data.windows
    )


def test_history_rolls_or_grows_or_is_asked_for_in_a_sentence(world):
    assert planned(world, history_windows=1) == ["2026-01-12", "2026-01-19"]
    assert planned(world, history_windows=0) == ["2026-01-19"]
    assert planned(world, history_windows="all") == ["2026-01-05", "2026-01-12", "2026-01-19"]
    assert planned(world, training="last 7 days") == ["2026-01-19"]
    assert planned(world, training="last 1 window, skip the last 1") == ["2026-01-12"]
    assert planned(world, training="last 7 days, at least 4 rows") == planned(
        world, history_windows="all"
    )
    with pytest.raises(UserError, match=r"resolve\.training finds no window for 'last 7 days"):
        planned(world, training="last 7 days, at least 5 rows")


def test_a_window_is_waited_for_until_its_watermark(world):
    ended = datetime(2026, 1, 26, tzinfo=UTC)
    assert planned(world, now=ended, history_windows=0) == ["2026-01-19"]
    assert planned(world, now=ended, history_windows=0, watermark_hours=1) == ["2026-01-12"]
    later = ended + timedelta(hours=1)
    assert planned(world, now=later, history_windows=0, watermark_hours=1) == ["2026-01-19"]
