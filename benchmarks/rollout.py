"""Promotions and rollbacks under load, and a test that may be looked at all the time.

A server in a process of its own answers several clients without a pause while its champion
changes again and again, by promotions and by rollbacks. The model is tiny: what is measured
is the machinery. The sequential test is simulated beside a test of a fixed size at the same
level, looked at after every request as people do; and beside itself with each row as a trial,
where the rows of a request are alike.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.figures import Figure, out, run
from components import bundle
from components.ledger import Ledger
from components.rollout.sequential import is_alarm, share_evidence
from components.store import LocalStore
from components.tasks.text_classification import TextClassification, TextClassifier

CHANGES, REQUESTS, CLIENTS = 20, 5000, 4
QUICK_CHANGES, QUICK_REQUESTS = 6, 500
VISIBLE_S = 2.0
WAIT_S = 120.0
ALPHA, LIMIT, STREAMS, LENGTH = 0.01, 0.01, 2000, 2000
BAD_RATE = 0.05
ROWS, DISAGREEMENT, LARGE_LENGTH = 256, 0.25, 500
WORDS = ("the", "film", "was", "good", "bad")


def measure(quick: bool) -> list[Figure]:
    """Change the champion under load, and simulate the test."""
    changes, requests = (QUICK_CHANGES, QUICK_REQUESTS) if quick else (CHANGES, REQUESTS)
    return [*_under_load(changes, requests), *_alarms(STREAMS // 10 if quick else STREAMS)]


def _under_load(changes: int, requests: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        store = LocalStore(folder / "store")
        digests = [bundle.publish(store, _tiny(folder / str(seed), seed)) for seed in (1, 2)]
        ledger = Ledger(store, "demo")
        _append(ledger, "promote", digests[0])
        with _server(store) as address, _Clients(address) as clients:
            waits: dict[str, list[float]] = {"promote": [], "rollback": []}
            for number in range(changes):
                before = clients.count
                action = "rollback" if number % 2 else "promote"
                entry = _append(ledger, action, digests[(number + 1) % 2])
                changed_s = time.monotonic()
                clients.await_generation(entry.number)
                waits[action].append(time.monotonic() - changed_s)
                clients.await_count(before + requests // changes)
            clients.await_count(requests)
        known = {(entry.version, entry.number) for entry in ledger.entries()}
        outside = sum(count for each, count in clients.answered.items() if each not in known)
    return [
        Figure(
            figure=f"failed of {clients.count} requests, {changes} changes",
            ours=clients.failed,
            peer=0,
            ratio=None,
            goal="none",
            holds=clients.failed == 0 and clients.count >= requests,
        ),
        Figure(
            figure="answered by no version of the ledger",
            ours=outside,
            peer=0,
            ratio=None,
            goal="none",
            holds=outside == 0,
        ),
        Figure(
            figure="rollback visible, slowest, s",
            ours=round(max(waits["rollback"]), 2),
            peer=round(max(waits["promote"]), 2),
            ratio=None,
            goal=f"under {VISIBLE_S:g} s",
            holds=max(waits["rollback"]) < VISIBLE_S,
        ),
    ]


class _Clients:
    """Ask without a pause from several threads, and count what is answered."""

    def __init__(self, address: str) -> None:
        self.count = self.failed = 0
        self.answered: dict[tuple[str, int], int] = {}
        self._address, self._newest = address, 0
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def __enter__(self) -> _Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def await_generation(self, number: int) -> None:
        _await(lambda: self._newest >= number)

    def await_count(self, count: int) -> None:
        _await(lambda: self.count >= count)

    def _ask(self) -> None:
        with httpx.Client(base_url=self._address, timeout=30) as client:
            while not self._stop.is_set():
                content: dict[str, Any] = {}
                try:
                    sent = {"instances": ["the film was good"]}
                    answer = client.post("/v1/models/demo:predict", json=sent)
                    content = answer.json() if answer.status_code == 200 else {}
                except httpx.HTTPError:
                    pass
                with self._lock:
                    self.count += 1
                    if not content:
                        self.failed += 1
                        continue
                    key = (content["model_version"], content["generation"])
                    self.answered[key] = self.answered.get(key, 0) + 1
                    self._newest = max(self._newest, content["generation"])


@contextmanager
def _server(store: LocalStore) -> Iterator[str]:
    """Run the container's entry until its champion answers; give its address."""
    command = [sys.executable, "-m", "components.serve", "--port", "0", "--prefix", "demo"]
    with subprocess.Popen(
        [*command, "--store", str(store.root)], stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        try:
            found = None
            while found is None:
                line = server.stderr.readline()
                if not line:
                    raise RuntimeError("the server ended before it listened")
                found = re.search(r"http://127\.0\.0\.1:\d+", line)
            threading.Thread(target=server.stderr.read, daemon=True).start()
            address = found.group()
            _await(lambda: httpx.get(f"{address}/v2/health/ready").status_code == 200)
            yield address
        finally:
            server.terminate()
            server.wait(30)


def _alarms(streams: int) -> list[Figure]:
    """Look after every request, at challengers that fail as often as allowed, and more often."""
    ours, peer = _alarmed(LIMIT, streams)
    power, _ = _alarmed(BAD_RATE, max(20, streams // 10))
    by_request, by_row = _alarmed_by_rows(streams // 2)
    return [
        _false_alarms(
            f"false alarms, looked at {LENGTH} times",
            ours,
            peer,
            f"a binomial test at {ALPHA:.0%}, looked at as often",
        ),
        Figure(
            figure=f"challengers that fail {BAD_RATE:.0%} found within {LENGTH} requests",
            ours=power,
            peer=0.95,
            ratio=None,
            goal="at least 95 %",
            holds=power >= 0.95,
        ),
        _false_alarms(
            f"false alarms of disagreement, requests of up to {ROWS} alike rows",
            by_request,
            by_row,
            "the same test, each row a trial",
        ),
    ]


def _false_alarms(figure: str, ours: float, peer: float, what_peer_does: str) -> Figure:
    return Figure(
        figure=figure,
        ours=ours,
        peer=peer,
        ratio=round(ours / peer, 3) if peer else None,
        goal=f"at most {ALPHA:.0%}; peer: {what_peer_does}",
        holds=ours <= ALPHA,
    )


def _alarmed(rate: float, streams: int) -> tuple[float, float]:
    """Return the share of streams with an alarm: of the sequential test and of the fixed one."""
    from scipy.stats import binom

    draw = np.random.default_rng(7)
    sequential = fixed = 0
    for _ in range(streams):
        places = np.flatnonzero(draw.random(LENGTH) < rate)
        counts = np.arange(1, len(places) + 1)
        # Evidence grows at failures only, so these are all the looks that can matter.
        sequential += any(
            is_alarm(share_evidence(int(count), int(place) + 1, LIMIT), ALPHA)
            for count, place in zip(counts, places, strict=True)
        )
        fixed += bool((binom.sf(counts - 1, places + 1, LIMIT) <= ALPHA).any())
    return sequential / streams, fixed / streams


def _alarmed_by_rows(streams: int) -> tuple[float, float]:
    """Return the share of streams with an alarm: each request a trial, and each row one.

    In each of ``LARGE_LENGTH`` requests all rows are decided differently, or none, and that as
    often as allowed.
    """
    draw = np.random.default_rng(7)
    by_request = by_row = 0
    for _ in range(streams):
        rows = draw.integers(1, ROWS + 1, LARGE_LENGTH)
        differ = draw.random(LARGE_LENGTH) < DISAGREEMENT
        by_request += _is_alarmed(differ, np.ones_like(rows))
        by_row += _is_alarmed(differ, rows)
    return by_request / streams, by_row / streams


def _is_alarmed(differ: NDArray[np.bool_], weights: NDArray[np.int64]) -> bool:
    events, trials = np.cumsum(weights * differ), np.cumsum(weights)
    return any(
        is_alarm(share_evidence(int(events[place]), int(trials[place]), DISAGREEMENT), ALPHA)
        for place in np.flatnonzero(differ)
    )


def _append(ledger: Ledger, action: Any, digest: str) -> Any:
    expected = ledger.generation
    return ledger.append(
        action=action,
        bundle=digest,
        version=digest[:6],
        key=str(expected),
        by="benchmark",
        reason="",
        expected=expected,
    )


def _await(true: Any) -> None:
    give_up_s = time.monotonic() + WAIT_S
    while not true():
        if time.monotonic() > give_up_s:
            raise RuntimeError("the server does not get there")
        time.sleep(0.005)


def _tiny(folder: Path, seed: int) -> Path:
    """Make the bundle of an untrained tiny BERT."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from components.tasks.networks import MeanPoolNetwork

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    words = {word: number for number, word in enumerate((*special, *WORDS))}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    torch.manual_seed(seed)
    shape = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    task = TextClassification(labels=("negative", "positive"), max_tokens=16)
    network = MeanPoolNetwork(BertModel(shape), len(task.labels), 0.1)
    folder.mkdir()
    TextClassifier(network, fast, task.max_tokens, {"labels": list(task.labels)}).save(folder)
    description = bundle.Description(
        task=task, recipe={"seed": seed}, lineage={}, scores={}, test_share=0.2, examples=["good"]
    )
    bundle.seal(folder, description)
    return folder


def show(figures: Sequence[Figure]) -> None:
    """Print a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("figure", "ours", "peer", "goal", "holds"):
        table.add_column(column, overflow="fold")
    for each in figures:
        holds = "yes" if each.holds else "NO"
        table.add_row(each.figure, f"{each.ours:g}", f"{each.peer:g}", each.goal, holds)
    out.print(table)


if __name__ == "__main__":
    sys.exit(run(measure, show))
