"""The script that proves a real cluster, as far as it can be looked at without one."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from pipelines.project_file import load

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / "manifests" / "smoke.sh").read_text().replace("\\\n", " ")
PROJECT = re.search(r"^project\(\) \{\n.*?^\}\n", SCRIPT, re.S | re.M)
MORE = sorted({found or "''" for found in re.findall(r"^ *project (?:('[^']*') )?", SCRIPT, re.M)})


@pytest.mark.parametrize("more", MORE)
def test_the_project_files_that_it_writes_are_valid(more, tmp_path):
    assert PROJECT is not None
    done = subprocess.run(
        ["bash", "-c", f"NAMESPACE=tokiwa\n{PROJECT[0]}\nproject {more}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    file = tmp_path / "sentiment.yaml"
    file.write_text(done.stdout)
    project = load(str(file))
    assert (project.name, project.cluster.namespace) == ("sentiment", "tokiwa")
    assert bool(project.schedules.by_graph) == ("schedules" in more)
    assert (project.deploy.rollout is not None) == ("rollout" in more)


def test_it_writes_a_plain_file_one_with_a_canary_and_one_with_schedules():
    assert len(MORE) == 3


def test_the_commands_that_it_gives_are_those_of_the_guide():
    guide = (ROOT / "docs" / "cli.md").read_text()
    given = re.findall(r'"\$TOKIWA" (\w+)([^|\n;]*)', SCRIPT)
    assert {command for command, _ in given} == {"submit", "runs", "history", "rollout", "apply"}
    for command, rest in given:
        options = [word for word in shlex.split(rest.partition(">")[0]) if word.startswith("--")]
        (described,) = re.findall(rf"^## tokiwa {command}\n(.*?)(?=^## |\Z)", guide, re.S | re.M)
        for option in options:
            assert f"`{option}`" in described, (command, option)
