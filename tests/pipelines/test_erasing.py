from __future__ import annotations

import pandas as pd
import pytest

from components.erasures import Forgotten, digest_of_name
from components.request_log import digest_of_content
from pipelines.erasing import Traces

HERS = "a content that nobody else writes"


@pytest.fixture
def traces():
    frame = pd.DataFrame(
        {
            "id": ["shop:r1", "shop:r2", None],
            "group": ["ann", "ann", "ann"],
            "source": ["shop", "shop", None],
            "text": [HERS, "ok", None],
        }
    )
    named = Forgotten({"group": frozenset([digest_of_name("ann")])})
    return Traces(named, frame, frozenset(["r3,ann"]))


@pytest.mark.parametrize(
    ("table", "theirs"),
    [
        ({"id": ["a", "b", None], "group": ["ann", "bob", None]}, [True, False, False]),
        # As predictions and the server's log know rows: by ids, with or without their source.
        ({"id": ["shop:r1", "r2", "r22"]}, [True, True, False]),
        # A content tells whose it is, or its digest; one that anybody writes does not.
        ({"text": [HERS, "ok", None]}, [True, False, False]),
        (
            {"digest": [digest_of_content(HERS), digest_of_content("ok"), None]},
            [True, False, False],
        ),
        # A line that was no row, where it is kept and in quarantine.
        ({"raw": ["r3,ann", "r4,bob"]}, [True, False]),
        ({"text": ["r3,ann", "r4,bob"], "source": ["(not read)"] * 2}, [True, False]),
        ({"answer": ["ann"]}, [False]),
    ],
)
def test_somebodys_rows_are_told_in_any_table(traces, table, theirs):
    assert traces.rows(pd.DataFrame(table)).tolist() == theirs
