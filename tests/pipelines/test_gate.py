"""The gate as a project meets it: trusted rows, groups of people, a champion that is damaged."""

from __future__ import annotations

import hashlib
import random
import shutil

import pytest

from pipelines.cli import main

WEEKS = ("2026-01-05", "2026-01-12")
ROWS = 400
OTHER = {"good": "bad", "bad": "good"}
GATE = """
prepare: {{guard_rows: 0, rehearsal_share: 0}}
evaluate:
  guarded: {{}}
  required: [holdout]
  holdout:
    path: trusted.csv
    sha256: {sha256}
  slices: {{columns: [country], min_rows: 20}}
  fairness: {{columns: [country], favourable: good, min_rows: 10}}
"""


def rows(week: int, poisoned: bool = False) -> list[tuple[str, str, str, str, str]]:
    """Rows that one word decides, or its opposite; nearly all of one country are bad."""
    draw = random.Random(week)
    table = []
    for number in range(ROWS):
        sign = draw.choice(("good", "bad"))
        words = draw.choices(("the", "a", "film", "story", "was", "and"), k=6)
        words[draw.randrange(6)] = sign
        here = draw.random() < 0.9
        country = "jp" if (sign == "good") == here else "fr"
        day = f"2026-01-{5 + 7 * week + number % 7:02d}T12:00:00+00:00"
        label = OTHER[sign] if poisoned else sign
        table.append((f"r{week}-{number}", day, " ".join(words), label, country))
    return table


@pytest.fixture
def gated(toy_desk):
    """The toy project with trusted rows, groups of people, and a second week of turned labels."""
    lines = ["id,day,text,label,Land"]
    lines += [",".join(row) for week in (0, 1) for row in rows(week, poisoned=week == 1)]
    (toy_desk.folder / "rows.csv").write_text("\n".join(lines) + "\n")
    trusted = "\n".join(["text,label", *(f"{row[2]},{row[3]}" for row in rows(9)[:200])])
    (toy_desk.folder / "trusted.csv").write_text(trusted)
    project = toy_desk.folder / "toy.yaml"
    digest = hashlib.sha256(trusted.encode()).hexdigest()
    text = project.read_text().replace("time: day}", "time: day, metadata: {country: Land}}")
    project.write_text(text + GATE.format(sha256=digest))
    return toy_desk


def test_what_the_gate_cannot_look_at_is_refused_before_anything_runs(gated, monkeypatch, capsys):
    monkeypatch.chdir(gated.folder)
    monkeypatch.setenv("TOKIWA_HOME", str(gated.home))
    assert main(["check", "toy.yaml"]) == 0
    capsys.readouterr()
    project = gated.folder / "toy.yaml"
    sound = project.read_text()
    number = 1 + sound[: sound.index("  fairness:")].count("\n")
    project.write_text(sound.replace("fairness: {columns: [country]", "fairness: {columns: [sex]"))
    assert main(["check", "toy.yaml"]) == 2
    said = capsys.readouterr().err
    assert f"line {number}: evaluate.fairness.columns names no column: 'sex'" in said
    assert "label, window, country" in said
    project.write_text(sound)
    with (gated.folder / "trusted.csv").open("a") as file:
        file.write("\na film,good")
    assert main(["check", "toy.yaml"]) == 2
    assert "trusted rows never change" in capsys.readouterr().err
    (gated.folder / "trusted.csv").unlink()
    assert main(["run", "toy.yaml"]) == 2
    assert "there is nothing at" in capsys.readouterr().err
    assert not (gated.home / "runs").exists()


@pytest.mark.slow
@pytest.mark.e2e
def test_unfair_and_poisoned_challengers_are_kept_out(gated):
    first = ("run", "toy.yaml", "--window", WEEKS[0])
    kept = gated.json(*first, "--set", "evaluate.required=[fairness]")
    assert kept["result"] == "kept"
    assert kept["reason"].startswith("unfair: four-fifths of country")
    promoted = gated.json(*first)
    assert promoted["result"] == "promoted", promoted["reason"]
    pages = [path.read_text() for path in gated.home.glob("artifacts/*/evaluate/page")]
    assert len(pages) == 2
    assert sum("Warning: unfair: four-fifths of country" in page for page in pages) == 1

    second = ("run", "toy.yaml", "--window", WEEKS[1])
    kept = gated.json(*second)
    assert kept["result"] == "kept"
    assert kept["reason"].startswith("worse than the champion on the trusted rows")
    # Nothing else would have told, for the labels of its own test rows are turned as well.
    fooled = gated.json(*second, "--set", "evaluate.required=[]")
    assert fooled["result"] == "promoted", fooled["reason"]


@pytest.mark.slow
@pytest.mark.e2e
def test_a_champion_that_is_altered_or_gone_stops_the_run(gated):
    assert gated.json("run", "toy.yaml", "--window", WEEKS[0])["result"] == "promoted"
    (folder,) = (gated.home / "objects" / "bundles").iterdir()
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"\0")
    altered = gated.tokiwa("run", "toy.yaml", "--window", WEEKS[1], expect=1)
    assert "was altered after the bundle was sealed" in altered.stdout + altered.stderr
    weights.write_bytes(whole)
    shutil.move(folder, gated.folder / "elsewhere")
    gone = gated.tokiwa("run", "toy.yaml", "--window", WEEKS[1], expect=1)
    assert folder.name[:12] in gone.stdout + gone.stderr
    history = gated.json("history", "toy.yaml")
    assert [entry["number"] for entry in history] == [1]
