"""Somebody's rows taken out of all that is kept: tables, embeddings, labels, pages.

A row is told by its id or its group. Where neither is, as in the server's log of another
source's rows, it is told by its content, if that is long enough to be nobody else's.
"""

from __future__ import annotations

import hashlib
import html
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.erasures import LINE, Forgotten, digest_of_name
from components.errors import StoreError
from components.quarantine import Readmissions, keys_of
from components.request_log import RequestLog, digest_of_content
from components.store import Store
from pipelines.project import ProjectConfig

TELLING_CHARACTERS = 12
"""A shorter content says nothing of who wrote it, and others write it, too."""
MAX_BYTES = 200_000_000
"""Files of text that are larger are none of ours."""
_VECTORS = "embeddings.safetensors"


@dataclass(frozen=True)
class Traces:
    """What somebody's rows are told by, wherever they lie.

    Attributes:
        named: digests of the ids or groups that are to be forgotten.
        frame: their rows, as the source and the quarantine hold them.
        lines: that name them, and could not be read as rows.
    """

    named: Forgotten
    frame: pd.DataFrame
    lines: frozenset[str]

    @cached_property
    def contents(self) -> frozenset[str]:
        """Contents that tell whose they are."""
        whole = {each for each in self.frame["text"] if each and len(each) >= TELLING_CHARACTERS}
        return frozenset(whole | self.lines)

    @cached_property
    def _gone(self) -> Forgotten:
        # The server's log and predictions know a row by its id alone, and without the name that
        # its source puts before it.
        ids = set(self.frame["id"].dropna())
        plain = {
            id_.removeprefix(f"{source}:")
            for id_, source in zip(self.frame["id"], self.frame["source"], strict=True)
            if id_ and source
        }
        return Forgotten(
            {
                **self.named.digests,
                "id": self.named.digests.get("id", frozenset())
                | frozenset(map(digest_of_name, ids | plain)),
                LINE: frozenset(map(digest_of_name, self.lines)),
            }
        )

    @cached_property
    def _digests(self) -> frozenset[str]:
        return frozenset(map(digest_of_content, self.contents))

    def rows(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """Tell which rows of a table that is kept are theirs ``[n]``."""
        hit = self._gone.rows(frame)
        for column, known in (("text", self.contents), ("digest", self._digests)):
            if column in frame:
                hit |= frame[column].isin(known).to_numpy()
        return hit


@dataclass
class Cleaned:
    """What was taken out of what is kept."""

    rows: int
    """Of tables in the store and among local artifacts."""
    embeddings: int
    labels: int
    """That came back for rows of the server's log."""
    deleted: list[str]
    """Local files that showed one of the rows."""


def erase(store: Store, project: ProjectConfig, traces: Traces, home: Path) -> Cleaned:
    """Take somebody's rows out of a store, and out of the artifacts of local runs.

    Args:
        store: keeps what is to be cleaned.
        project: whose rows.
        traces: what the rows are told by.
        home: folder of everything on this machine.
    """
    # What says whose rows they are goes last: whoever is stopped on the way begins again, and
    # of a row that the source has no more only the quarantine still knows the content.
    Readmissions(store, project.ledger).forget(frozenset(keys_of(traces.frame)))
    embeddings = _clean_embeddings(store, traces)
    tables, deleted = _clean_artifacts(home, traces)
    rows, labels = _clean_tables(store, project, traces)
    return Cleaned(rows=rows + tables, embeddings=embeddings, labels=labels, deleted=deleted)


def _clean_tables(store: Store, project: ProjectConfig, traces: Traces) -> tuple[int, int]:
    """Clean the tables in a store; return rows taken out, and labels of the server's log."""
    erased = labels = 0
    own, waiting = f"{project.ledger}/", f"{project.ledger}/quarantine/"
    for folder in (project.replay_ledger(""), "sources/", "summaries/", "trainjobs/", own, waiting):
        for key in store.list(folder):
            if not key.endswith(".parquet") or (folder == own and key.startswith(waiting)):
                continue
            # An empty object is what is left of a training that is through.
            if not (raw := store.get(key)):
                continue
            try:
                frame = pd.read_parquet(io.BytesIO(raw))
            except pa.ArrowException as error:
                raise StoreError(
                    f"{store.uri(key)} is damaged, so that nobody can tell whose rows it holds: "
                    "delete it, and give the command again"
                ) from error
            hit = traces.rows(frame)
            if not hit.any():
                continue
            erased += int(hit.sum())
            if key.startswith(f"{own}requests/"):
                labels += RequestLog(store, project.ledger).withdraw(set(frame["id"][hit]))
            vectors = f"{key.rpartition('/')[0]}/{_VECTORS}"
            if folder == "trainjobs/" and store.exists(vectors):
                store.put(vectors, _left(store.get(vectors), hit))
            if folder == "sources/":  # what is no manifest has the table read again
                part = key.removesuffix(".parquet").removesuffix(".unreadable")
                store.put(f"{part}.json", b"{}")
            store.put(key, _as_parquet(frame[~hit]))
    return erased, labels


def _clean_embeddings(store: Store, traces: Traces) -> int:
    """Take the embeddings of contents out of those that are kept; return how many they were.

    Those of short ones go, too: whoever needs them computes them again.
    """
    from safetensors.numpy import load, save

    digests = {
        hashlib.sha256(each.encode("utf-8", "surrogatepass")).digest()
        for each in traces.frame["text"]
        if each
    }
    erased = 0
    for key in store.list("embeddings/"):
        kept = load(store.get(key))
        stays = np.array([bytes(row) not in digests for row in kept["digests"]], dtype=bool)
        if not stays.all():
            erased += int((~stays).sum())
            left = {name: np.ascontiguousarray(values[stays]) for name, values in kept.items()}
            store.put(key, save(left))
    return erased


def _clean_artifacts(home: Path, traces: Traces) -> tuple[int, list[str]]:
    """Clean what the steps of local runs left; return rows taken out, and files deleted.

    Such files are never read again by a run: without the rows every step has other inputs.
    """
    forms = [each for content in traces.contents for each in _forms(content)]
    erased, deleted = 0, []
    for part in ("artifacts", "runs", "reports"):
        for path in sorted((home / part).rglob("*")):
            if not path.is_file():
                continue
            if _is_table(path):
                try:
                    erased += _clean_table(path, traces)
                except pa.ArrowException:  # a step that was killed left half of it
                    path.unlink()
                    deleted.append(str(path))
            elif path.stat().st_size <= MAX_BYTES and _shows(path, forms):
                path.unlink()
                deleted.append(str(path))
    return erased, deleted


def _is_table(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _shows(path: Path, forms: Sequence[bytes]) -> bool:
    raw = path.read_bytes()
    return any(form in raw for form in forms)


def _clean_table(path: Path, traces: Traces) -> int:
    """Take rows out of a file of Parquet, however large, and out of the embeddings beside it."""
    with pq.ParquetFile(path) as file:
        hits = [traces.rows(each.to_pandas()) for each in file.iter_batches()]
        hit = np.concatenate([np.zeros(0, bool), *hits])
        if not hit.any():
            return 0
        draft = path.with_name(f".{path.name}.part")
        with pq.ParquetWriter(draft, file.schema_arrow) as left:
            for each, theirs in zip(file.iter_batches(), hits, strict=True):
                left.write_batch(each.filter(pa.array(~theirs)))
    vectors = path.with_name(_VECTORS)
    if vectors.is_file():
        vectors.write_bytes(_left(vectors.read_bytes(), hit))
    draft.replace(path)
    return int(hit.sum())


def _as_parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _left(vectors: bytes, hit: NDArray[np.bool_]) -> bytes:
    """Return the embeddings beside a table, which are of its first rows, without some."""
    from safetensors.numpy import load, save

    found = load(vectors)["vectors"]
    return save({"vectors": np.ascontiguousarray(found[~hit[: len(found)]])})


def _forms(content: str) -> Iterator[bytes]:
    """Yield a content as files of text may show it: plain, in HTML and in JSON."""
    ways: tuple[Callable[[str], str], ...] = (
        lambda text: text,
        html.escape,
        lambda text: json.dumps(text)[1:-1],
        lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    )
    for way in ways:
        yield way(content).encode("utf-8", "surrogatepass")
