from __future__ import annotations

import pytest

from components.candidates import Candidate, Candidates
from components.errors import BadInput
from components.store import LocalStore


@pytest.fixture
def candidates(tmp_path):
    return Candidates(LocalStore(tmp_path / "objects"), "projects/demo")


@pytest.fixture
def keep(candidates, tmp_path):
    """Keep a candidate."""
    folder = tmp_path / "predictions"
    folder.mkdir()
    (folder / "predictions.parquet").write_bytes(b"rows")

    def run(version, at="2026-01-12T00:00:00+00:00"):
        made = Candidate(
            version=version,
            bundle=version * 64,
            verdict="promote",
            reason="better",
            run="run-1",
            generation=1,
            at=at,
        )
        candidates.keep(made, folder)
        return made

    return run


def test_candidates_are_kept_with_their_predictions(candidates, keep, tmp_path):
    later = keep("1", "2026-01-19T00:00:00+00:00")
    earlier = keep("2")
    assert candidates.all() == [earlier, later]
    assert candidates.find("1") == later
    fetched = candidates.predictions("1", tmp_path / "fetched")
    assert (fetched / "predictions.parquet").read_bytes() == b"rows"


def test_a_version_that_is_no_candidate_is_told_with_those_that_are(candidates, keep):
    with pytest.raises(BadInput, match="version 7; no run has left one yet"):
        candidates.find("7")
    keep("2")
    keep("10")
    with pytest.raises(BadInput, match="version 7; there are 2, 10"):
        candidates.find("7")


def test_the_first_rejection_stands(candidates, keep):
    keep("1")
    assert candidates.rejection("1") is None
    first = candidates.reject("1", "ada", "it is rude")
    assert candidates.reject("1", "bob", "me too") == first
    assert candidates.rejection("1") == first
