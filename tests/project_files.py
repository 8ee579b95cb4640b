"""A sound project file to spoil, and what is told of a spoilt one."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.errors import ConfigError
from components.sources.files import FilesConfig
from pipelines.project import ProjectConfig
from pipelines.project_file import load

SOUND = """\
name: demo
description: two words decide
task:
  kind: text-classification
  labels: [bad, good]
source:
  kind: files
  root: data
  files:
    - {path: a.csv, name: a}
    - path: b.csv
      at: "2026-01-12"
resolve:
  timezone: UTC
  window_days: 7
  start: "2026-01-05"
finetune:
  base: models/tiny
  epochs: 2
"""


def files_of(config: ProjectConfig) -> FilesConfig:
    assert isinstance(config.source, FilesConfig)
    return config.source


def problems_of(path: str, *overrides: str) -> list[str]:
    """Return the problems of a file, without the heading that counts them."""
    with pytest.raises(ConfigError) as refused:
        load(path, overrides)
    heading, *problems = str(refused.value).split("\n")
    count = len(problems)
    assert heading == f"{path} has {count} problem{'s' * (count > 1)}:"
    return [problem.removeprefix("  ") for problem in problems]


def line_of(path: str, text: str) -> int:
    """Return the number of the only line that holds a text."""
    (number,) = [n for n, line in enumerate(Path(path).read_text().splitlines(), 1) if text in line]
    return number
