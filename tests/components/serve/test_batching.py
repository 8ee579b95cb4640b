from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from components.serve.batching import Batcher
from components.serve.config import BatchingConfig, LimitsConfig
from components.serve.metrics import Metrics
from components.serve.model import Predicted
from components.serve.refusal import Refused


class Echo:
    """Answers with what it was asked; holds its workers until told to go on."""

    def __init__(self, threads=1):
        self.threads = threads
        self.batches = []
        self.go_on = threading.Event()
        self.go_on.set()

    def respond(self, contents):
        assert self.go_on.wait(20)
        self.batches.append(list(contents))
        if bad := [place for place, text in enumerate(contents) if text == "bad"]:
            raise ValueError(f"text {bad[0]} is bad")
        truncated = [place for place, text in enumerate(contents) if text.startswith("long")]
        return Predicted([{"label": text} for text in contents], truncated)


def served(model, version="1"):
    return SimpleNamespace(model=model, version=version)


def batcher(threads=1, limits=None, **batching):
    # How long a machine takes must not decide how large a batch is here.
    config = BatchingConfig(max_batch_ms=10_000, **batching)
    return Batcher(config, limits or LimitsConfig(queue_ms=60_000), Metrics("test"), threads)


async def held(model, queue, *requests):
    """Send requests while the worker is busy with one, then let it go on."""
    model.go_on.clear()
    first = asyncio.create_task(queue.respond(served(model), ["first"]))
    await asyncio.sleep(0)
    one = served(model)
    tasks = [asyncio.create_task(queue.respond(one, texts)) for texts in requests]
    await asyncio.sleep(0.01)
    model.go_on.set()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True)


def said(predicted):
    return [each["label"] for each in predicted.predictions]


def test_requests_that_wait_share_a_batch_and_get_their_own_answers():
    model = Echo()
    answers = asyncio.run(held(model, batcher(), ["a", "long b"], ["c"], ["long d"]))
    assert [said(each) for each in answers] == [["a", "long b"], ["c"], ["long d"]]
    assert [each.truncated for each in answers] == [[1], [], [0]]
    assert model.batches == [["first"], ["a", "long b", "c", "long d"]]


def test_a_large_request_lets_small_ones_pass():
    model = Echo()
    large = [f"long {number}" for number in range(10)]
    answers = asyncio.run(held(model, batcher(max_rows=4), large, ["small"]))
    assert said(answers[0]) == large
    assert answers[0].truncated == list(range(10))
    assert said(answers[1]) == ["small"]
    assert [len(batch) for batch in model.batches] == [1, 4, 4, 3]
    assert "small" in model.batches[2]


def test_one_bad_request_does_not_hurt_the_others():
    model = Echo()
    answers = asyncio.run(held(model, batcher(), ["a"], ["b", "bad"], ["c"]))
    assert [said(answers[place]) for place in (0, 2)] == [["a"], ["c"]]
    assert str(answers[1]) == "text 1 is bad", "it is told of its own texts"


def test_a_bad_text_at_the_end_of_a_large_request_is_told_by_its_place():
    answers = asyncio.run(held(Echo(), batcher(max_rows=2), ["a", "b", "c", "d", "bad"], ["e"]))
    assert str(answers[0]) == "text 4 is bad"
    assert said(answers[1]) == ["e"]


def test_rows_of_a_request_that_failed_wait_no_more():
    async def ask():
        model, queue = Echo(), batcher(max_rows=2)
        answers = await held(model, queue, ["bad", *"abcdef"], ["g"], ["h", "i", "bad"])
        return model, queue, answers

    model, queue, answers = asyncio.run(ask())
    assert [str(answers[place]) for place in (0, 2)] == ["text 0 is bad", "text 2 is bad"]
    assert said(answers[1]) == ["g"]
    assert queue.wait_s == 0.0, "a leak here would refuse everybody some day"
    assert [] not in model.batches


def test_batches_never_mix_models():
    one, two = Echo(), Echo()

    async def ask():
        queue = batcher()
        one.go_on.clear()
        serving = served(one), served(two, "2")
        tasks = [
            asyncio.create_task(queue.respond(serving[number % 2], [str(number)]))
            for number in range(6)
        ]
        await asyncio.sleep(0.01)
        one.go_on.set()
        return await asyncio.gather(*tasks)

    assert [said(each) for each in asyncio.run(ask())] == [[str(n)] for n in range(6)]
    assert {text for batch in one.batches for text in batch} == {"0", "2", "4"}
    assert {text for batch in two.batches for text in batch} == {"1", "3", "5"}


def test_who_would_wait_too_long_is_refused_at_once():
    model = Echo()
    limits = LimitsConfig(queue_rows=3, queue_ms=60_000)
    answers = asyncio.run(held(model, batcher(limits=limits), ["a", "b"], ["c"], ["d"]))
    assert said(answers[1]) == ["c"]
    assert isinstance(answers[2], Refused)
    assert answers[2].status == 429
    assert answers[2].headers == {"retry-after": "1"}


def test_a_model_that_hangs_is_given_up_and_its_queue_with_it():
    model = Echo()
    limits = LimitsConfig(timeout_s=0.05, queue_ms=60_000)

    async def ask():
        queue = batcher(limits=limits)
        model.go_on.clear()
        one = served(model)
        lost = await asyncio.gather(
            *(queue.respond(one, [text]) for text in "ab"), return_exceptions=True
        )
        model.go_on.set()
        await asyncio.sleep(0.05)
        return lost, await queue.respond(one, ["c"])

    lost, after = asyncio.run(ask())
    assert [each.status for each in lost] == [504, 504]
    assert said(after) == ["c"]
    assert ["b"] not in model.batches, "nobody waited for it any more"


def test_an_idle_worker_may_wait_for_company():
    model = Echo()

    async def ask():
        queue = batcher(max_wait_ms=100, max_rows=2)
        one = served(model)
        return await asyncio.gather(*(queue.respond(one, [text]) for text in "abc"))

    assert [said(each) for each in asyncio.run(ask())] == [["a"], ["b"], ["c"]]
    assert model.batches == [["a", "b"], ["c"]]


@pytest.mark.parametrize("threads", [1, 2])
def test_as_many_batches_run_at_once_as_the_model_gains_from(threads):
    together = threading.Barrier(threads, timeout=10)

    class Meeting(Echo):
        def respond(self, contents):
            together.wait()
            return super().respond(contents)

    model = Meeting(threads=threads)

    async def ask():
        queue, one = batcher(threads=2), served(model)
        await asyncio.gather(*(queue.respond(one, ["a"]) for _ in range(threads)))

    asyncio.run(ask())


def test_who_fits_into_the_next_batch_is_not_refused_for_its_slowness():
    model = Echo()
    queue = Batcher(BatchingConfig(max_batch_ms=50), LimitsConfig(), Metrics("test"), 1)
    for _ in range(8):
        queue._pace.learn(10, 2.0)  # a batch is mostly waiting for a core
        queue._pace.learn(10, 0.1)
    answers = asyncio.run(held(model, queue, ["a", "b", "c"], ["d", "e"], ["f"]))
    assert [said(answers[place]) for place in (0, 1)] == [["a", "b", "c"], ["d", "e"]]
    assert answers[2].status == 429, "five rows fill the next batch"


def test_how_long_rows_take_bounds_the_batch_and_the_wait():
    model = Echo()
    queue = Batcher(BatchingConfig(max_batch_ms=50), LimitsConfig(), Metrics("test"), 1)
    for _ in range(8):
        queue._pace.learn(1, 0.02)
    answers = asyncio.run(held(model, queue, ["a", "b", "c"], ["d", "e", "f"], ["g"]))
    assert max(map(len, model.batches)) == 2
    assert answers[2].status == 429, "six rows before it take 120 ms, and 100 may be waited"
