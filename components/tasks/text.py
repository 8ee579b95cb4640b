"""What all tasks over text share: encoding, padding, and a model in a folder.

torch and transformers are imported where they are used: naming a task must cost
nothing.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from components.errors import BundleError
from components.languages import language
from components.tasks.cleaning import Rule, cleaned
from components.tasks.model import Content, Example, Features, Model, Network, rule_in
from components.tasks.task import Checks, Task
from components.tasks.tokenizer import PlainTokenizer
from components.tasks.weights import (
    MODEL_FILE,
    WEIGHTS_FILE,
    loading,
    refuse_unfinite,
    write_weights,
)

if TYPE_CHECKING:
    import pandas as pd

    from components.tasks.networks import TextNetwork

Head = Literal["mean-pool", "native"]

_POSITIONS_AFTER_PADDING = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta"})
_PUNCTUATION = frozenset(string.punctuation)
_EDGE_WORDS = 4000
"""More words than any of the models reads."""


class TextTask(Task):
    """Keys that every task over text has."""

    content: ClassVar[Content] = "text"
    max_tokens: int = Field(default=128, ge=8, le=8192)
    """Longer texts are cut, and counted."""
    clean: tuple[Rule, ...] = ()
    """What is done to texts before they are read, here and in service; see ``cleaning``."""

    @property
    def input_size(self) -> int:
        """Tokens."""
        return self.max_tokens

    @property
    def reading(self) -> str:
        """The rules of cleaning."""
        return "-".join(sorted(self.clean))

    def content_checks(self, max_characters: int) -> Checks:
        """Return that a text is neither empty nor too long nor without a letter or digit."""
        return {
            "empty-text": lambda texts: texts.str.strip() != "",
            "text-too-long": lambda texts: texts.str.len() <= max_characters,
            "no-letter-or-digit": lambda texts: texts.str.contains(r"\w"),
        }

    def readable(self, contents: pd.Series[str]) -> pd.Series[bool]:
        """Tell which texts are not empty."""
        return contents.str.strip() != ""


class TextModel(Model):
    """A transformers encoder with a head, and its tokenizer.

    Attributes:
        network: from token ids and mask ``[n, t]`` to outputs ``[n, k]``.
        tokenizer: of transformers.
        max_tokens: longer texts are cut.
        facts: what the model remembers of its task, see ``Model.facts_of``.
        head: ``mean-pool`` for ours, ``native`` for an adopted model's own.
        clean: what is done to texts before they are read.
    """

    content: ClassVar[Content] = "text"
    network: TextNetwork

    def __init__(
        self,
        network: TextNetwork,
        tokenizer: Any,
        max_tokens: int,
        facts: dict[str, Any],
        head: Head = "mean-pool",
        clean: Sequence[Rule] = (),
    ) -> None:
        """Put the parts together; see ``from_base`` and ``load``."""
        self.network = network
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.facts = facts
        self.head = head
        self.clean = tuple(clean)

    @classmethod
    def from_base(cls, base: Path, task: Any, *, dropout: float) -> Self:
        """Return a new head on the pretrained encoder in ``base``.

        It reads the mean of the token vectors, for which sentence encoders such as
        MiniLM were trained.
        """
        from components.tasks.networks import MeanPoolNetwork

        encoder, tokenizer = load_encoder(base)
        network = MeanPoolNetwork(encoder, cls.outputs_of(task), dropout)
        limit = usable_tokens(encoder.config, task.max_tokens)
        return cls(network, tokenizer, limit, cls.facts_of(task), clean=task.clean)

    @classmethod
    def load(cls, folder: Path, network: Network | None = None) -> Self:
        """Return the model of a bundle."""
        loaded: Any = network
        with loading(f"the model in {folder}"):
            saved = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
            if loaded is None:
                loaded, tokenizer = _load_network(folder, saved), load_tokenizer(folder)
            else:
                tokenizer = PlainTokenizer.load(folder)
            limit, facts, head = (saved[name] for name in ("max_tokens", "facts", "head"))
            # Bundles of old have no rules.
            model = cls(loaded, tokenizer, limit, facts, head, saved.get("clean", ()))
            model.rule = rule_in(saved)
            return model

    def save(self, folder: Path) -> None:
        """Write weights, ``model.json``, configuration and tokenizer into ``folder``."""
        write_weights(self.network, folder)
        self.network.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        saved = {
            "head": self.head,
            "outputs": self.network.outputs,
            "dropout": getattr(self.network, "dropout_share", 0.0),
            "max_tokens": self.max_tokens,
            "clean": self.clean,
            "facts": self.facts,
            "rule": self.rule and self.rule.model_dump(mode="json"),
        }
        text = json.dumps(saved, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / MODEL_FILE).write_text(text, encoding="utf-8")

    def configure(self, task: Any, *, dropout: float) -> None:
        """Read as many tokens as the project says, and cleaned so, not as the champion was told."""
        self.rule = None
        self.clean = task.clean
        self.max_tokens = usable_tokens(self.network.config, task.max_tokens)
        self.network.set_dropout(dropout)

    def encode(self, contents: Sequence[str]) -> list[Example]:
        """Return the token ids of each text, cleaned and cut at ``max_tokens``."""
        if self.clean:
            contents = [cleaned(content, self.clean) for content in contents]
        return encode(self.tokenizer, contents, self.max_tokens)

    def inputs(self, examples: Sequence[Example]) -> tuple[NDArray[Any], ...]:
        """Return padded token ids and the mask."""
        return pad(examples, self.tokenizer.pad_token_id or 0)

    def input_features(self, contents: Sequence[str]) -> Features:
        """Return lengths, and the shares of kinds of characters and unknown tokens."""
        return text_features(contents, self.tokenizer)

    def edge_contents(self) -> list[str]:
        """Return texts of nothing, of many words, and of the last word that the tokenizer knows."""
        last = max(self.tokenizer.get_vocab().items(), key=lambda entry: entry[1])[0]
        return ["", " ", "\u3042\U0001f600", f"{last} " * _EDGE_WORDS]

    def input_categories(self, contents: Sequence[str]) -> dict[str, list[str]]:
        """Return the guessed language of each text."""
        return {"language": [language(content) for content in contents]}

    def cut_contents(self, examples: Sequence[Example]) -> int:
        """Return how many texts reach the limit."""
        return sum(len(ids) >= self.max_tokens for ids in examples)

    def truncated(self, contents: Sequence[str], examples: Sequence[Example]) -> list[int]:
        """Return the places of texts that have more tokens than the model reads."""
        full = [place for place, ids in enumerate(examples) if len(ids) >= self.max_tokens]
        longer = encode(self.tokenizer, [contents[place] for place in full], self.max_tokens + 1)
        return [
            place for place, ids in zip(full, longer, strict=True) if len(ids) > self.max_tokens
        ]


def _load_network(folder: Path, saved: dict[str, Any]) -> TextNetwork:
    """Return the network of a bundle with its weights."""
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    from components.tasks.networks import MeanPoolNetwork, NativeNetwork

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    network: TextNetwork
    if saved["head"] == "native":
        network = NativeNetwork(AutoModelForSequenceClassification.from_config(config))
    else:
        encoder = AutoModel.from_config(config)
        network = MeanPoolNetwork(encoder, saved["outputs"], saved["dropout"])
    weights = load_file(folder / WEIGHTS_FILE)
    network.load_state_dict(weights)
    refuse_unfinite(weights, folder)
    return network.eval()


def load_encoder(base: Path) -> tuple[Any, Any]:
    """Return the pretrained encoder in a folder and its tokenizer.

    Raises:
        BundleError: no safetensors weights, weights that are missing or not finite, remote
            code needed, or unreadable.
    """
    from transformers import AutoModel

    what = f"the base model in {base}"
    with loading(what):
        # Sentence encoders come without a pooler, and none is used.
        encoder = load_pretrained(AutoModel, base, what, optional="pooler")
        tokenizer = load_tokenizer(base)
    return encoder, tokenizer


def load_pretrained(kind: Any, folder: Path, what: str, optional: str = "") -> Any:
    """Return the transformers model in a folder, all of it.

    Args:
        kind: one of transformers' ``Auto`` classes.
        folder: with its configuration and weights.
        what: the model, for messages.
        optional: name of a module whose weights may be missing.

    Raises:
        BundleError: weights are missing, in whose place transformers puts random ones, or
            not finite.
    """
    with _quiet():
        model, found = kind.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    missing = sorted(name for name in found["missing_keys"] if optional not in name.split("."))
    if missing:
        raise BundleError(
            f"{what} lacks {len(missing)} of the weights of a {type(model).__name__}, "
            f"{', '.join(missing[:3])} among them; "
            "is it of another architecture, or are its weights named otherwise?"
        )
    refuse_unfinite(dict(model.named_parameters()), folder)
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and its report of a load off the terminal."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer in a folder, without running code from there."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def usable_tokens(config: Any, wanted: int) -> int:
    """Return how many tokens a model can read of the ``wanted`` ones.

    Models of RoBERTa's family count positions from behind the padding's id.
    """
    positions = getattr(config, "max_position_embeddings", None) or wanted
    if config.model_type in _POSITIONS_AFTER_PADDING:
        positions -= (config.pad_token_id or 0) + 1
    return int(min(wanted, positions))


def encode(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[NDArray[np.int64]]:
    """Return the token ids of each text, cut at ``max_tokens``."""
    if not texts:
        return []
    ids = tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
    return [np.asarray(row, dtype=np.int64) for row in ids]


def pad(
    ids: Sequence[NDArray[np.int64]], pad_id: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return token ids padded to the longest, and the mask, both ``[n, width]``."""
    width = max(1, *(len(row) for row in ids))
    padded = np.full((len(ids), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(ids), width), dtype=np.int64)
    for index, row in enumerate(ids):
        padded[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return padded, mask


def text_features(texts: Sequence[str], tokenizer: Any) -> dict[str, NDArray[np.float64]]:
    """Return what can be said of texts without a model, an array ``[n]`` per feature."""
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    unknown = tokenizer.unk_token_id
    columns: dict[str, list[float]] = {
        "characters": [len(text) for text in texts],
        "tokens": [len(row) for row in ids],
        "unknown_share": [_share(row.count(unknown), len(row)) for row in ids],
        "upper_share": [_share(sum(map(str.isupper, text)), len(text)) for text in texts],
        "digit_share": [_share(sum(map(str.isdigit, text)), len(text)) for text in texts],
        "punctuation_share": [
            _share(sum(character in _PUNCTUATION for character in text), len(text))
            for text in texts
        ],
    }
    return {name: np.array(values, dtype=np.float64) for name, values in columns.items()}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
