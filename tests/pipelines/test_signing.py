"""Keys in a project file: who signs, and whom the project trusts."""

from __future__ import annotations

import textwrap

import pytest

from components.errors import ConfigError
from pipelines.project_file import load

PROJECT = """\
name: demo
task: {{kind: text-classification, labels: [negative, positive]}}
source: {{kind: files, files: [{{path: rows.csv}}], columns: {{text: text}}}}
finetune: {{base: nowhere}}
deploy:
  trusted_keys:
    - |
{key}
"""


@pytest.fixture
def write(tmp_path):
    """Write a project file that trusts a key; return its path."""

    def written(key, more=""):
        path = tmp_path / "demo.yaml"
        path.write_text(PROJECT.format(key=textwrap.indent(key, " " * 6)) + more)
        return str(path)

    return written


def test_whoever_serves_trusts_the_keys_that_deploy_trusts(write, make_key):
    _, public = make_key()
    project = load(write(public))
    trusted = (public.strip(),)
    assert project.deploy.trusted_keys == trusted
    assert (project.serve.trusted_keys, project.score.trusted_keys) == (trusted, trusted)


def test_a_server_may_trust_keys_of_its_own(write, make_key):
    (_, public), (_, own) = make_key(), make_key()
    more = "serve:\n  trusted_keys:\n    - |\n" + textwrap.indent(own, " " * 6)
    project = load(write(public, more))
    assert project.serve.trusted_keys == (own.strip(),)
    assert project.score.trusted_keys == (public.strip(),)


def test_a_private_key_in_a_project_file_is_refused_by_its_line_and_not_shown(write, make_key):
    private, _ = make_key()
    with pytest.raises(ConfigError) as caught:
        load(write(private))
    said = str(caught.value)
    assert "line 7: deploy.trusted_keys.0: is a private key, which belongs into no project" in said
    assert private.splitlines()[1] not in said


def test_the_name_of_the_variable_is_checked_with_its_line(write, make_key):
    with pytest.raises(ConfigError, match=r"line 13: register\.signing_key_env: "):
        load(write(make_key()[1], "register:\n  signing_key_env: signing.pem\n"))
