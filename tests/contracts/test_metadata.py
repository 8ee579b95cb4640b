"""Declared columns travel from the source to the gate, and no model reads them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from components.collect.core import CollectConfig, collect
from components.drift.core import DriftConfig, detect
from components.embeddings import embed
from components.evaluate.checks import run_checks
from components.evaluate.core import EvaluateConfig, evaluate, to_html
from components.evaluate.recording import read
from components.finetune.core import finetune
from components.finetune.history import Silent
from components.ingest.core import IngestConfig, ingest
from components.plan import Data, Live, WindowData
from components.prepare.core import PrepareConfig, prepare
from components.sources import open_source
from components.sources.files import ColumnNames, FilesConfig, Part
from components.store import LocalStore
from components.tasks import TaskConfig
from components.validate.core import ValidateConfig, validate
from components.windows import Window

ROWS = 600
METADATA = {"country": "Land", "age": {"kind": "number"}}


def people(week: int, with_metadata: bool):
    """Rows in which a word decides, each of somebody of a country and an age."""
    draw = random.Random(week)
    for number in range(ROWS):
        words = draw.choices(("the", "a", "film", "story", "was", "very", "and"), k=6)
        sign = draw.choice(("good", "bad"))
        words[draw.randrange(6)] = sign
        row = {
            "id": f"w{week}-{number:03d}",
            "time": f"2026-01-{5 + 7 * week + number % 7:02d}",
            "text": " ".join(words),
            "label": "positive" if sign == "good" else "negative",
        }
        further: dict[str, str | None]
        further = {"Land": draw.choice(("jp", "fr")), "age": str(draw.randrange(18, 90))}
        if number % 20 == 0:
            further["age"] = "old" if number % 40 == 0 else None
        yield row | further if with_metadata else row


@dataclass(frozen=True)
class World:
    """A source whose older file knows nothing of the people."""

    folder: Path
    base: Path
    task: TaskConfig

    def source(self, metadata) -> FilesConfig:
        """Declare further columns of the newer file."""
        names = {"id": "id", "time": "time"}
        old = ColumnNames.model_validate(names)
        return FilesConfig(
            root=str(self.folder),
            files=[
                Part(path="old.jsonl", name="old", columns=old),
                Part(path="new.jsonl", name="new"),
            ],
            columns=ColumnNames.model_validate({**names, "metadata": metadata}),
        )

    def week(self, source: FilesConfig, day: int) -> WindowData:
        """Promise the rows of the week that begins on a day of January."""
        window = Window.of_days(date(2026, 1, day), 7, ZoneInfo("UTC"))
        rows = open_source(source).read(window)
        return WindowData(window=window, fingerprint=rows.fingerprint(), rows=len(rows.frame))

    def prepared(self, metadata) -> tuple[Path, list[str]]:
        """Take the rows through the steps; return them and what each step calls its result."""
        at = self.folder / f"{len(list(self.folder.iterdir()))}"
        source = self.source(metadata)
        weeks = [self.week(source, day) for day in (5, 12)]
        ingested = ingest(Data(source=source, windows=weeks), at / "snapshot", IngestConfig())
        now = weeks[1].window
        checked = validate(
            at / "snapshot",
            now.name,
            at / "good",
            at / "quarantine.parquet",
            self.task,
            ValidateConfig(),
        )
        report = prepare(
            at / "good",
            now.name,
            now.end,
            at / "prepared",
            self.task,
            PrepareConfig(),
            lambda texts: embed(texts, self.base, self.task),
        )
        return at / "prepared", [ingested.digest, checked.digest, report.digest]


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_base, tiny_task):
    folder = tmp_path_factory.mktemp("people")
    for week, name in enumerate(("old", "new")):
        rows = people(week, with_metadata=name == "new")
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return World(folder, tiny_base, tiny_task)


@pytest.fixture(scope="module")
def judged_by(world):
    return world.prepared(METADATA)


def test_every_step_hands_declared_columns_on(judged_by):
    frame = pd.read_parquet(judged_by[0] / "rows.parquet")
    now = frame[frame["source"] == "new"]
    assert set(now["country"]) == {"jp", "fr"}
    assert now["age"].dtype == float
    assert 0 < now["age"].isna().mean() < 0.06  # what is no number is in quarantine
    assert now["age"].dropna().between(18, 89).all()
    earlier = frame[frame["split"].isin(["rehearsal", "guard"])]
    assert len(earlier) and set(earlier["source"]) == {"old"}
    assert earlier["country"].isna().all() and earlier["age"].isna().all()


def test_the_same_declaration_gives_the_same_digests_and_another_gives_others(world, judged_by):
    assert world.prepared(dict(reversed(METADATA.items())))[1] == judged_by[1]
    for changed in ({}, {"country": "Land"}, {"country": "Land", "age": {}}):
        digests = world.prepared(changed)[1]
        assert all(one != other for one, other in zip(digests, judged_by[1], strict=True))


def test_no_model_reads_declared_columns(world, judged_by, toy, tmp_path):
    """Other people give the same model; the rows that were quarantined stay away."""
    weights = []
    for name, change in (("as-it-is", lambda frame: frame), ("swapped", swapped)):
        folder = tmp_path / name
        folder.mkdir()
        for file in judged_by[0].iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        change(pd.read_parquet(folder / "rows.parquet")).to_parquet(folder / "rows.parquet")
        training = toy.training.model_copy(update={"epochs": 1})
        window = {"window": "2026-01-12", "window_end": "2026-01-19T00:00:00+00:00"}
        out = folder / "bundle"
        finetune(folder, toy.start, None, out, world.task, training, window, Silent())
        weights.append(
            {
                file.name: file.read_bytes()
                for file in out.iterdir()
                if file.name in ("model.safetensors", "model.json")
            }
        )
    assert weights[0] == weights[1] != {}


def test_drift_watches_declared_columns_and_their_gaps(world, judged_by, toy, tmp_path):
    training = toy.training.model_copy(update={"epochs": 1})
    window = {"window": "2026-01-12", "window_end": "2026-01-19T00:00:00+00:00"}
    champion, collected = tmp_path / "bundle", tmp_path / "collected"
    finetune(judged_by[0], toy.start, None, champion, world.task, training, window, Silent())
    source = world.source(METADATA)
    week = world.week(source, 12)
    live = Live(source=source, current=week, labelled=[week])
    store, config = LocalStore(tmp_path / "objects"), CollectConfig()
    vectors_of = partial(embed, base=world.base, task=world.task)
    collect(live, champion, collected, store, "code", config, vectors_of)

    def gaps_and_moved():
        report = detect(champion, collected, DriftConfig(min_rows=30))
        moved = {each.name for each in report.findings if each.moved}
        return report, {name for name in moved if name.startswith(("column ", "error where"))}

    names = {each.name for each in gaps_and_moved()[0].findings}
    assert {"column country", "column age", "column age (missing)"} <= names
    assert gaps_and_moved()[1] == set()
    errors = pd.read_parquet(collected / "errors.parquet")
    french = errors["column country"] == "fr"
    assert french.mean() == pytest.approx(0.5, abs=0.1)
    errors.assign(error=french * 1.0).to_parquet(collected / "errors.parquet")
    rows = pd.read_parquet(collected / "current.parquet")
    moved = rows.assign(**{"column country": "de", "column age": rows["column age"] + 30})
    moved.to_parquet(collected / "current.parquet")
    report, found = gaps_and_moved()
    assert found == {"column country", "column age", "error where country is fr"}
    assert report.hurts is True
    assert report.level == 3


def swapped(frame):
    return frame.assign(country=frame["country"].map({"jp": "fr", "fr": "jp"}), age=1.0)


def test_the_gate_sees_slices_and_groups_by_declared_columns(
    world, judged_by, make_bundle, toy_champion, tmp_path
):
    settings = {
        "slices": {"columns": ["country", "age"], "min_rows": 10, "search": False},
        "fairness": {"columns": ["country", "age"], "favourable": "positive", "min_rows": 10},
    }
    config = EvaluateConfig.model_validate(settings)
    report = evaluate(
        judged_by[0],
        toy_champion,
        make_bundle(1),
        tmp_path / "out",
        world.task,
        config,
    )
    (slices,) = [check for check in report.checks if check.check == "slices"]
    names = {part.name for part in slices.parts}
    assert {"country = jp", "country = fr", "country is missing", "source = new"} <= names
    assert sum(name.startswith("age ") and "part" in name for name in names) == 4
    # Rows of the old file are those without a country: one slice, not three.
    assert names.isdisjoint({"source = old", "window = 2026-01-05"})
    fair = {check.name: check for check in report.checks if check.check == "fairness"}
    assert set(fair) == {
        f"{question} of {column}"
        for question in ("four-fifths", "equal opportunity")
        for column in ("country", "age")
    }
    assert {part.name for part in fair["four-fifths of country"].parts} == {"fr", "jp"}
    assert len(fair["four-fifths of age"].parts) >= 4
    page = to_html(report)
    assert "country = jp" in page and "four-fifths of country" in page
    # What was kept says the same once more.
    again = run_checks(read(tmp_path / "out"), config)
    assert {check.name: check for check in again} == {check.name: check for check in report.checks}
