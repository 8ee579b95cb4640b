from __future__ import annotations

import json
import os
import random
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.project_files import SOUND

TOKIWA = Path(sysconfig.get_path("scripts")) / "tokiwa"
LIMIT_S = 600

TOY = """\
# tokiwa replay toy.yaml
name: toy
task: {{kind: text-classification, labels: [bad, good], max_tokens: 16}}
source:
  kind: files
  files: [{{path: rows.csv}}]
  columns: {{id: id, text: text, label: label, time: day}}
resolve: {{timezone: UTC, window_days: 7, start: "2026-01-05"}}
finetune:
  base: {base}
  epochs: 6
  learning_rate: 0.002
  head_learning_rate: 0.02
  dropout: 0.0
  threads: 1
"""


@dataclass(frozen=True)
class Desk:
    """A folder with a home of its own, in which commands are typed."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / ".tokiwa"

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "TOKIWA_HOME"}
        return kept | {"COLUMNS": "200", "HF_HUB_OFFLINE": "1"}

    def tokiwa(
        self, *words: str, expect: int = 0, limit_s: float = LIMIT_S
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(TOKIWA), *words],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=limit_s,
        )
        assert done.returncode == expect, f"{done.returncode}: {done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self.tokiwa(*words, "--json").stdout)

    def trained(self) -> int:
        """Count how often a model was really trained in this home."""
        return len(list(self.home.glob("runs/*/finetune.jsonl")))

    def executed(self) -> dict[str, set[str]]:
        """Return the steps that each run really executed, oldest run first."""
        runs = sorted((self.home / "runs").iterdir())
        return {run.name: {log.stem for log in run.glob("*.jsonl")} for run in runs}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty folder to work in."""
    return Desk(tmp_path)


def toy_rows(weeks: int = 3, rows: int = 400) -> list[dict[str, str]]:
    """Return rows that one word decides; from the third week on other words decide."""
    draw = random.Random(7)
    table = []
    for number in range(weeks * rows):
        week = number // rows
        good = draw.random() < 0.5
        words = draw.choices(("the", "a", "film", "story", "was", "and"), k=6)
        if week < 2:
            words[draw.randrange(6)] = "good" if good else "bad"
        else:
            # The words that were noise now decide, and the texts have grown.
            words += ["very"] * 5 + (["dull", "awful"] if good else ["not", "not"])
        day = 5 + 7 * week + number % 7
        table.append(
            {
                "id": f"r{number:05d}",
                "day": f"2026-01-{day:02d}T12:00:00+00:00",
                "text": " ".join(words),
                "label": "good" if good else "bad",
            }
        )
    return table


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def toy_desk(desk: Desk, tiny_base: Path) -> Desk:
    """A folder with the toy project in it: three weeks, the third unlike the others."""
    write_rows(desk.folder / "rows.csv", toy_rows())
    (desk.folder / "toy.yaml").write_text(TOY.format(base=tiny_base))
    return desk


Edit = Callable[[str], str]


@pytest.fixture
def kfp_api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Kubeflow Pipelines of the test's own, which kfp's client is led to."""
    for name in ("TOKIWA_KFP_TOKEN", "TOKIWA_KFP_COOKIE", "KF_PIPELINES_UI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    from tests.kfp_api import KfpApi

    with KfpApi() as api:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", api.address)
        yield api


@pytest.fixture
def packages(tmp_path: Path) -> dict[str, Path]:
    """Compiled graphs, as far as the API looks into them."""
    made = {}
    for graph in ("training", "monitoring"):
        made[graph] = tmp_path / f"{graph}.yaml"
        made[graph].write_text(f"pipelineInfo: {{name: {graph}}}\n")
    return made


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., str]:
    """Write a project file, a sound one with some of its text exchanged; return its path."""

    def write(*exchanges: tuple[str, str], text: str = SOUND) -> str:
        for old, new in exchanges:
            assert text.count(old) == 1, f"{old!r} must be there once"
            text = text.replace(old, new)
        path = tmp_path / "demo.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write
