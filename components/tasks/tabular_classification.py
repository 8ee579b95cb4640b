"""Classification of rows of a table: one label out of two or more.

No pretrained network reads tables of any kind. The base is a blank one: a folder whose
``blank.json`` says how wide and deep the network is, and whose weights are always the same
random ones. What is learnt of the columns is kept in the model's facts.
"""

from __future__ import annotations

import functools
import json
import math
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from components.errors import BundleError, SourceError
from components.settings import Section, digest_of
from components.tasks.classification import Classifier, Labels, LabelTask
from components.tasks.columns import (
    PLACES,
    ColumnState,
    Kind,
    Scaling,
    fields_of,
    number_in,
    record_of,
    spelling,
)
from components.tasks.model import Content, Example, Features, Network, rule_in
from components.tasks.task import Checks
from components.tasks.weights import (
    BLANK,
    MODEL_FILE,
    WEIGHTS_FILE,
    loading,
    refuse_unfinite,
    write_weights,
)

if TYPE_CHECKING:
    import pandas as pd

    from components.tasks.ft_transformer import FTTransformer


class BlankBase(Section):
    """The content of ``blank.json``."""

    architecture: Literal["ft-transformer"]
    width: int = Field(ge=8, le=1024)
    layers: int = Field(ge=1, le=24)
    heads: int = Field(ge=1, le=64)


class TabularClassification(LabelTask):
    """Section ``task`` with ``kind: tabular-classification``."""

    content: ClassVar[Content] = "record"
    # Two people with the same answers may well end up differently.
    exclusive: ClassVar[bool] = False
    kind: Literal["tabular-classification"] = "tabular-classification"
    labels: Labels
    """The classes, in the order of the model's outputs."""
    columns: dict[str, Kind] = Field(min_length=1)
    """What the columns of a record are, ``number`` or ``category``; see
    ``source.columns.record``."""
    scaling: Scaling = "quantile"
    """Of numbers: to a normal distribution by their ranks, or by mean and deviation without
    the outermost ones."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes."""
        return self.labels

    @property
    def input_size(self) -> int:
        """Columns."""
        return len(self.columns)

    @property
    def reading(self) -> str:
        """Which columns there are, and of which kinds."""
        return digest_of([self.columns, self.scaling])[:8]

    def content_checks(self, max_characters: int) -> Checks:
        """Return that a content is a record, and that its numbers are such."""
        names = tuple(self.columns)

        def numbers_are_good(name: str) -> Any:
            def good(content: str) -> bool:
                fields = _fields(content, names)
                value = None if fields is None else fields[name]
                return value is None or number_in(value) == number_in(value)

            return lambda contents: contents.map(good).astype(bool)

        return {
            "not-a-record": lambda contents: contents.map(
                lambda content: _fields(content, names) is not None
            ).astype(bool),
            **{
                f"unreadable-{name}": numbers_are_good(name)
                for name, kind in self.columns.items()
                if kind == "number"
            },
        }

    def readable(self, contents: pd.Series[str]) -> pd.Series[bool]:
        """Tell which contents are records of the task's columns, with numbers where they belong."""
        checks = [check(contents) for check in self.content_checks(0).values()]
        return functools.reduce(operator.and_, checks)


def _fields(content: str, names: Sequence[str]) -> dict[str, str | None] | None:
    try:
        return fields_of(content, names)
    except SourceError:
        return None


class TabularClassifier(Classifier):
    """A transformer over columns with a classification head."""

    content: ClassVar[Content] = "record"
    network: FTTransformer

    def __init__(self, network: FTTransformer, facts: dict[str, Any]) -> None:
        """Put the parts together; see ``from_base`` and ``load``."""
        self.network = network
        self.facts = facts

    @staticmethod
    def facts_of(task: Any) -> dict[str, Any]:
        """Return labels, and columns of which nothing was learnt yet."""
        states = {
            name: ColumnState(kind=kind).model_dump() for name, kind in sorted(task.columns.items())
        }
        return {"labels": list(task.labels), "scaling": task.scaling, "columns": states}

    @property
    def columns(self) -> dict[str, ColumnState]:
        """What is known of each column, by name in the order of the network's inputs."""
        return {
            name: ColumnState.model_validate(state) for name, state in self.facts["columns"].items()
        }

    def can_continue(self, task: Any) -> bool:
        """Tell whether labels and columns are the same."""
        kinds = {name: state.kind for name, state in self.columns.items()}
        same = kinds == dict(sorted(task.columns.items()))
        return same and self.facts["scaling"] == task.scaling and super().can_continue(task)

    @classmethod
    def from_base(cls, base: Path, task: TabularClassification, *, dropout: float) -> Self:
        """Return a new head on the blank network in ``base``."""
        import torch

        what = f"the base model in {base}"
        with loading(what):
            blank = BlankBase.from_json((base / BLANK).read_text())
        if blank.width % blank.heads:
            raise BundleError(f"{what} has a width that its heads cannot share")
        facts = cls.facts_of(task)
        head = torch.nn.Linear(blank.width, cls.outputs_of(task))
        # All but the head is the same for ever: it makes the embeddings that are compared.
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            network = _network(facts, len(task.labels), dropout, blank)
        network.head = head
        return cls(network.eval(), facts)

    def fit_inputs(self, contents: Sequence[str]) -> None:
        """Learn median, quantiles and commonest values of the columns from training rows."""
        names = tuple(self.facts["columns"])
        rows = [fields_of(content, names) for content in contents]
        self.facts["columns"] = {
            name: ColumnState.of(state.kind, [row[name] for row in rows]).model_dump()
            for name, state in self.columns.items()
        }

    @classmethod
    def load(cls, folder: Path, network: Network | None = None) -> Self:
        """Return the model of a bundle."""
        loaded: Any = network
        with loading(f"the model in {folder}"):
            saved = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
            model = cls(loaded or _load_network(folder, saved), saved["facts"])
            model.rule = rule_in(saved)
            return model

    def save(self, folder: Path) -> None:
        """Write weights and ``model.json``, with all that was learnt of the columns."""
        write_weights(self.network, folder)
        blank = BlankBase(
            architecture="ft-transformer",
            width=self.network.width,
            layers=self.network.layers,
            heads=self.network.heads,
        )
        saved = {
            "blank": blank.model_dump(),
            "dropout": self.network.dropout_share,
            "facts": self.facts,
            "rule": self.rule and self.rule.model_dump(mode="json"),
        }
        text = json.dumps(saved, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / MODEL_FILE).write_text(text, encoding="utf-8")

    def configure(self, task: Any, *, dropout: float) -> None:
        """Keep what is known of the columns: the weights were learnt on them."""
        self.rule = None
        self.network.set_dropout(dropout)

    def encode(self, contents: Sequence[str]) -> list[Example]:
        """Return numbers and places of each record, ``float32 [1, columns]``.

        Raises:
            SourceError: one is no record, see ``fields_of``; the message says which.
        """
        columns = self.columns
        rows = []
        for number, content in enumerate(contents):
            try:
                row = fields_of(content, tuple(columns))
            except SourceError as error:
                raise SourceError(f"record {number}: {error}") from error
            for name, state in columns.items():
                value = row[name]
                if state.kind == "number" and value is not None and math.isnan(number_in(value)):
                    raise SourceError(f"record {number}: the value of {name!r} is no number")
            rows.append(row)
        out = np.zeros((len(rows), 1, len(columns)), dtype=np.float32)
        for place, (name, state) in enumerate(columns.items()):
            values = [row[name] for row in rows]
            if state.kind == "category":
                out[:, 0, place] = [state.place(value) for value in values]
            else:
                numbers = np.array([number_in(value) for value in values], dtype=np.float64)
                out[:, 0, place] = state.scaled(numbers, self.facts["scaling"])
        return list(out)

    def inputs(self, examples: Sequence[Example]) -> tuple[NDArray[Any], ...]:
        """Return numbers ``float32 [n, a]`` and places ``int64 [n, b]``."""
        rows = np.concatenate(examples)
        numbers = np.array([state.kind == "number" for state in self.columns.values()], dtype=bool)
        return np.ascontiguousarray(rows[:, numbers]), rows[:, ~numbers].astype(np.int64)

    def edge_contents(self) -> list[str]:
        """Return a record of nothing, and one of values that nobody has seen."""
        strange = {
            name: "1e30" if state.kind == "number" else "\u3042"
            for name, state in self.columns.items()
        }
        return ["{}", record_of(strange)]

    def input_features(self, contents: Sequence[str]) -> Features:
        """Return the columns of numbers, NaN where there is none."""
        return {
            name: np.array([number_in(value) for value in values], dtype=np.float64)
            for name, values in self._values(contents, "number").items()
        }

    def input_categories(self, contents: Sequence[str]) -> dict[str, list[str]]:
        """Return the columns of categories."""
        return {
            name: ["missing" if value is None else spelling(value) for value in values]
            for name, values in self._values(contents, "category").items()
        }

    def _values(self, contents: Sequence[str], kind: Kind) -> dict[str, list[str | None]]:
        columns = self.columns
        rows = [fields_of(content, tuple(columns)) for content in contents]
        wanted = [name for name, state in columns.items() if state.kind == kind]
        return {name: [row[name] for row in rows] for name in wanted}


def _network(
    facts: dict[str, Any], outputs: int, dropout: float, blank: BlankBase
) -> FTTransformer:
    from components.tasks.ft_transformer import FTTransformer

    kinds = [state["kind"] for state in facts["columns"].values()]
    return FTTransformer(
        kinds.count("number"),
        kinds.count("category"),
        PLACES,
        outputs,
        dropout,
        width=blank.width,
        layers=blank.layers,
        heads=blank.heads,
    )


def _load_network(folder: Path, saved: dict[str, Any]) -> FTTransformer:
    """Return the network of a bundle with its weights."""
    from safetensors.torch import load_file

    blank = BlankBase.model_validate(saved["blank"])
    network = _network(saved["facts"], len(saved["facts"]["labels"]), saved["dropout"], blank)
    weights = load_file(folder / WEIGHTS_FILE)
    network.load_state_dict(weights)
    refuse_unfinite(weights, folder)
    return network.eval()
