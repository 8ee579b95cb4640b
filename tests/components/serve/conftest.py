from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from components import bundle
from components.ledger import Entry, Ledger
from components.store import LocalStore
from components.tasks.text_classification import TextClassification, TextClassifier

WORDS = ("the", "a", "film", "story", "was", "not", "very", "good", "bad", "awful", "dull", "and")
LABELS = ("negative", "positive")
TASK = TextClassification(labels=LABELS, max_tokens=16)
EXAMPLES = ["the film was good", "a very dull story"]
PATIENCE_S = 20.0


@dataclass
class World:
    """A store of its own, and bundles to promote in it."""

    store: LocalStore
    make: Callable[[int], Path]
    prefix: str = "demo"

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, self.prefix)

    def publish(self, seed: int) -> str:
        return bundle.publish(self.store, self.make(seed))

    def promote(self, digest: str, version: str | None = None) -> Entry:
        expected = self.ledger.generation
        return self.ledger.append(
            action="promote",
            bundle=digest,
            key=f"act-{expected}",
            by="test",
            reason="",
            expected=expected,
            version=f"v{expected + 1}" if version is None else version,
        )

    def file(self, digest: str, name: str) -> Path:
        return self.store.local_path(f"{bundle.key_of(digest)}/{name}")


def until(true: Callable[[], object], what: str) -> None:
    """Wait until something is true, and fail if it never is."""
    give_up = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < give_up, f"waited in vain: {what}"
        time.sleep(0.01)


@contextmanager
def running(world: World, poll_s: float = 0.02) -> Iterator[httpx.Client]:
    """Run a server in this process on a free loopback port."""
    from components.serve.follow import Follower
    from components.serve.server import ChampionModel, ChampionServer

    follower = Follower(world.store, world.prefix, poll_s)
    with ChampionServer(follower, "127.0.0.1", 0) as server, follower.following():
        thread = threading.Thread(target=server.start, args=([ChampionModel("demo", follower)],))
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=20) as client:
                until(lambda: _answers(client), "a server that listens")
                yield client
        finally:
            server.stop()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/").status_code == 200
    except httpx.ConnectError:
        return False


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Build the sealed bundle of a tiny but real BERT; another seed, another model."""
    made: dict[int, Path] = {}

    def build(seed: int) -> Path:
        if seed not in made:
            folder = tmp_path_factory.mktemp(f"bundle-{seed}")
            _tiny_classifier(seed).save(folder)
            description = bundle.Description(
                task=TASK,
                recipe={"seed": seed},
                lineage={},
                scores={},
                test_share=0.2,
                examples=EXAMPLES,
            )
            bundle.seal(folder, description)
            made[seed] = folder
        return made[seed]

    return build


def _tiny_classifier(seed: int) -> TextClassifier:
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from components.tasks.networks import MeanPoolClassifier

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    vocabulary = {word: number for number, word in enumerate((*special, *WORDS))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
        )
        network = MeanPoolClassifier(BertModel(config), len(LABELS), 0.1)
        # Far apart from each other, so that an answer tells which model gave it.
        torch.nn.init.normal_(network.head.weight, std=1.0)
    return TextClassifier(network, fast, LABELS, TASK.max_tokens)


@pytest.fixture
def world(make: Callable[[int], Path], tmp_path: Path) -> World:
    return World(LocalStore(tmp_path / "objects"), make)


@pytest.fixture(name="until", scope="session")
def until_fixture() -> Callable[[Callable[[], object], str], None]:
    return until


@pytest.fixture(name="running", scope="session")
def running_fixture() -> Callable[..., AbstractContextManager[httpx.Client]]:
    return running


@pytest.fixture(scope="module")
def served(
    make: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A server with champion 1, for tests that change nothing."""
    world = World(LocalStore(tmp_path_factory.mktemp("objects")), make)
    world.promote(world.publish(1), version="7")
    with running(world) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        yield client
