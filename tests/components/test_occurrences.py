from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from components import occurrences
from components.occurrences import Occurrences

BATCHES = st.lists(st.lists(st.integers(0, 9) | st.integers(0, 2**64 - 1), max_size=20), max_size=9)


@settings(max_examples=60, deadline=None)
@given(BATCHES, st.sampled_from([1, 4, 1 << 22]))
def test_each_key_is_counted_however_many_come_at_a_time(batches, run_keys):
    before, occurrences.RUN_KEYS = occurrences.RUN_KEYS, run_keys
    try:
        seen, counts = Occurrences(), Counter[int]()
        for batch in batches:
            expected = []
            for key in batch:
                counts[key] += 1
                expected.append(counts[key])
            assert seen.add(np.array(batch, np.uint64)).tolist() == expected
    finally:
        occurrences.RUN_KEYS = before


def test_runs_are_few_and_long_ones_lie_in_files(monkeypatch):
    monkeypatch.setattr(occurrences, "RUN_KEYS", 1000)
    seen, chance = Occurrences(), np.random.default_rng(0)
    for _ in range(300):
        seen.add(chance.integers(0, 2**63, 20).astype(np.uint64))
    filed = [isinstance(keys, np.memmap) for keys, _ in seen._runs]
    assert 2 <= sum(filed) <= 6 and len(filed) - sum(filed) <= 10
