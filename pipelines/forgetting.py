"""A person's rows forgotten: left out of all that is read later, and taken out of what is kept.

What no erasure reaches is said: models that learnt from the rows, their examples, and the
artifacts that a cluster keeps in a bucket of its own.
"""

from __future__ import annotations

import getpass
import hashlib
import html
import io
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components import bundle, home
from components.erasures import By, Erasures, Forgotten, digest_of_name
from components.errors import BadInput
from components.ledger import Ledger
from components.online.kept import KeptHead, digests_of
from components.quarantine import Quarantine
from components.resolve.core import known_windows
from components.settings import Section
from components.sources import open_source
from components.split import is_test
from components.store import ObjectMissing, Store
from pipelines.online import BELOW
from pipelines.project import ProjectConfig

TELLING_CHARACTERS = 12
"""A shorter content says nothing of who wrote it, and is found in any file."""
MAX_BYTES = 200_000_000
"""Files of text that are larger are none of ours."""


class Learnt(Section):
    """A model that may have learnt from the rows."""

    version: str
    bundle: str
    run: str
    windows: list[str]
    """Of the rows, among those that it was trained with."""
    shows: bool
    """Whether one of the rows is among the examples that the bundle carries."""


class Taught(Section):
    """An online head that learnt from the rows."""

    champion: str
    """Bundle that it is over."""
    rows: int
    """It learnt from, among those that are to be forgotten."""
    versions: list[str]
    """In which the head was published."""


class ForgetReport(Section):
    """What was forgotten, and what remains."""

    rows: int
    """Found in the source and in quarantine."""
    windows: list[str]
    unknown: list[str]
    """Names that no row has now; later rows with them will be left out, too."""
    recorded: int
    """Number of the record; 0 if nothing was done."""
    kept_rows: int
    """Taken out of tables in the store and among local artifacts."""
    embeddings: int
    deleted: list[str]
    """Local files that showed one of the rows."""
    learnt: list[Learnt]
    heads: list[Taught]


def forget(
    project: ProjectConfig, column: By, names: Sequence[str], reason: str, *, dry_run: bool = False
) -> ForgetReport:
    """Forget the rows of some ids or groups.

    Args:
        project: whose rows.
        column: what the names are of.
        names: ids or groups, as the rows have them.
        reason: for the record.
        dry_run: only say what would be done.

    Raises:
        BadInput: the rows of the project have no groups.
    """
    source = project.source
    if column == "group" and not (source.group_pattern or any(each.group for each in source.forms)):
        raise BadInput(
            f"{project.name} names no column of groups, so that no row has one; name it in "
            "source.columns.group, or forget rows by --id"
        )
    store = home.store()
    wanted = frozenset(map(digest_of_name, names))
    gone = Forgotten({column: wanted})
    frame = _rows(project, store, gone)
    windows = sorted(set(frame["window"]))
    contents = {each for each in frame["text"] if each}
    report = ForgetReport(
        rows=len(frame),
        windows=windows,
        unknown=sorted(set(names) - set(frame[column])),
        recorded=0,
        kept_rows=0,
        embeddings=0,
        deleted=[],
        learnt=list(_learnt(project, store, frame, contents)),
        heads=list(_heads(project, store, frame, names if column == "id" else ())),
    )
    if dry_run:
        return report
    made = Erasures(store, project.ledger).add(
        column, names, getpass.getuser(), reason, datetime.now(UTC)
    )
    for head in report.heads:
        KeptHead(store, project.ledger, head.champion).begin_anew()
    tables, files = _clean_artifacts(home.home(), gone, contents)
    return report.model_copy(
        update={
            "recorded": made.number,
            "kept_rows": _clean_tables(store, project, gone, contents) + tables,
            "embeddings": _clean_embeddings(store, contents),
            "deleted": files,
        }
    )


def _rows(project: ProjectConfig, store: Store, gone: Forgotten) -> pd.DataFrame:
    """Return what is to be forgotten, as the source and the quarantine hold it."""
    source = open_source(project.source.model_copy(update={"labels_of": ""}))
    parts = [
        source.read(window).frame.assign(window=window.name)
        for window in known_windows(project.resolve, datetime.now(UTC))
    ]
    parts.append(Quarantine(store, project.ledger).rows())
    every = pd.concat(parts, ignore_index=True)
    found = every[gone.rows(every)]
    return found.drop_duplicates(["id", "group", "text", "window"])


def _learnt(
    project: ProjectConfig, store: Store, frame: pd.DataFrame, contents: set[str]
) -> Iterator[Learnt]:
    """Yield the models of which a run says that it read windows with the rows.

    Test rows were never learnt from.
    """
    taught = frame[~is_test(frame["group"].fillna(""))] if len(frame) else frame
    windows = set(taught["window"])
    folder = f"{project.ledger}/runs/"
    runs = {key.removeprefix(folder).split("/")[0] for key in store.list(folder)}
    for run in sorted(runs):
        try:
            made = json.loads(store.get(f"{folder}{run}/register.json"))
            plan = json.loads(store.get(f"{folder}{run}/resolve.json"))["plan"]
        except ObjectMissing:
            continue
        seen = [_name_of(each["window"]) for each in plan["data"]["windows"]]
        common = [each for each in seen if each in windows]
        if common:
            yield Learnt(
                version=made["version"],
                bundle=made["bundle"],
                run=run,
                windows=common,
                shows=_shows(store, made["bundle"], contents),
            )


def _heads(
    project: ProjectConfig, store: Store, frame: pd.DataFrame, names: Sequence[str]
) -> Iterator[Taught]:
    """Yield the online heads that have seen one of the rows, whatever its label was then.

    Args:
        project: whose heads.
        store: where they are kept.
        frame: the rows that are to be forgotten, as the source has them now.
        names: ids that are to be forgotten, of rows that the source may have no more.
    """
    tested = frame[is_test(frame["group"].fillna(""))] if len(frame) else frame
    rows = sorted({*frame["id"].dropna(), *names} - set(tested["id"]))
    labels = project.task.label_names
    digests = digests_of(np.repeat(rows, len(labels)).tolist(), [*labels] * len(rows))
    folder = f"{project.ledger}/online/"
    champions = {key.removeprefix(folder).split("/")[0] for key in store.list(folder)}
    for champion in sorted(champions):
        seen = np.isin(digests, KeptHead(store, project.ledger, champion).seen())
        if seen.any():
            yield Taught(
                champion=champion,
                rows=int(seen.reshape(len(rows), -1).any(1).sum()),
                versions=[
                    entry.version
                    for entry in Ledger(store, project.ledger).entries()
                    if entry.bundle != champion and _is_over(store, entry.bundle, champion)
                ],
            )


def _is_over(store: Store, digest: str, champion: str) -> bool:
    found = _description(store, digest)
    return found is not None and found.lineage.get(BELOW) == champion


def _name_of(window: dict[str, Any]) -> str:
    from components.windows import Window

    return Window.model_validate(window).name


def _shows(store: Store, digest: str, contents: set[str]) -> bool:
    found = _description(store, digest)
    shown = found.examples if found is not None else []
    return any(content.startswith(each) for each in shown if each for content in contents)


def _description(store: Store, digest: str) -> bundle.Description | None:
    try:
        raw = store.get(f"{bundle.key_of(digest)}/{bundle.DESCRIPTION}")
    except ObjectMissing:
        return None
    return bundle.Description.from_json(raw.decode())


def _clean_tables(store: Store, project: ProjectConfig, gone: Forgotten, contents: set[str]) -> int:
    """Take the rows out of the tables that the store keeps; return how many they were."""
    erased = 0
    for folder in (f"{project.ledger}/", project.replay_ledger(""), "sources/", "summaries/"):
        for key in store.list(folder):
            if key.endswith(".parquet"):
                raw = store.get(key)
                frame, hit = _table(io.BytesIO(raw), gone, contents)
                if hit.any():
                    erased += int(hit.sum())
                    buffer = io.BytesIO()
                    frame[~hit].to_parquet(buffer, index=False)
                    store.put(key, buffer.getvalue())
                    if folder == "sources/":  # what is no manifest has the table read again
                        store.put(f"{key.removesuffix('.parquet')}.json", b"{}")
    return erased


def _table(
    file: Path | io.BytesIO, gone: Forgotten, contents: set[str]
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Return a table, and which of its rows are to go."""
    frame = pd.read_parquet(file)
    hit = gone.rows(frame)
    if "text" in frame:
        hit |= frame["text"].isin(contents).to_numpy()
    return frame, hit


def _clean_embeddings(store: Store, contents: set[str]) -> int:
    """Take the embeddings of contents out of those that are kept; return how many they were."""
    from safetensors.numpy import load, save

    digests = {hashlib.sha256(each.encode("utf-8", "surrogatepass")).digest() for each in contents}
    erased = 0
    for key in store.list("embeddings/"):
        kept = load(store.get(key))
        stays = np.array([bytes(row) not in digests for row in kept["digests"]], dtype=bool)
        if not stays.all():
            erased += int((~stays).sum())
            left = {name: np.ascontiguousarray(values[stays]) for name, values in kept.items()}
            store.put(key, save(left))
    return erased


def _clean_artifacts(folder: Path, gone: Forgotten, contents: set[str]) -> tuple[int, list[str]]:
    """Clean what the steps of local runs left; return rows taken out, and files deleted.

    Such files are never read again by a run: without the rows every step has other inputs.
    """
    forms = [each for content in contents for each in _forms(content)]
    erased, deleted = 0, []
    for part in ("artifacts", "runs", "reports"):
        for path in sorted((folder / part).rglob("*")):
            if not path.is_file() or path.stat().st_size > MAX_BYTES:
                continue
            raw = path.read_bytes()
            if raw[:4] == b"PAR1":
                frame, hit = _table(path, gone, contents)
                if hit.any():
                    erased += int(hit.sum())
                    frame[~hit].to_parquet(path, index=False)
                    _clean_vectors(path.with_name("embeddings.safetensors"), hit)
            elif any(form in raw for form in forms):
                path.unlink()
                deleted.append(str(path))
    return erased, deleted


def _clean_vectors(path: Path, hit: NDArray[np.bool_]) -> None:
    """Take rows out of the embeddings beside a table, which are of its first rows."""
    from safetensors.numpy import load_file, save_file

    if path.is_file():
        vectors = load_file(path)["vectors"]
        stays = ~hit[: len(vectors)]
        save_file({"vectors": np.ascontiguousarray(vectors[stays])}, path)


def _forms(content: str) -> Iterator[bytes]:
    """Yield a content as files of text may show it: plain, in HTML and in JSON."""
    if len(content) < TELLING_CHARACTERS:
        return
    ways: tuple[Callable[[str], str], ...] = (
        lambda text: text,
        html.escape,
        lambda text: json.dumps(text)[1:-1],
        lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    )
    for way in ways:
        yield way(content).encode("utf-8", "surrogatepass")


def summary(report: ForgetReport) -> Iterator[str]:
    """Yield what was done and what remains, in sentences."""
    where = f" in windows {', '.join(report.windows)}" if report.windows else ""
    yield f"{report.rows} rows are to be forgotten{where}"
    if report.unknown:
        yield (f"no row has the name {', '.join(report.unknown)} now; later ones will be left out")
    if report.recorded:
        yield (
            f"record {report.recorded}: no later run reads them; taken out of what is kept: "
            f"{report.kept_rows} rows of tables, {report.embeddings} embeddings, "
            f"{len(report.deleted)} files"
        )
    else:
        yield "nothing was done yet"
    for each in report.learnt:
        shows = "; its examples show one of the rows" if each.shows else ""
        yield (
            f"remains: version {each.version} (bundle {each.bundle[:12]}) may have learnt from "
            f"window {', '.join(each.windows)}{shows}"
        )
    for head in report.heads:
        versions = f"; version {', '.join(head.versions)} carries it" if head.versions else ""
        begins = "begins anew" if report.recorded else "would begin anew"
        yield (
            f"the online head over bundle {head.champion[:12]} learnt from {head.rows} of the "
            f"rows{versions}: it {begins}, and the next tokiwa online learns all others again"
        )
    if report.learnt or any(head.versions for head in report.heads):
        yield "retrain, and delete these versions, if nothing of the rows may remain in a model"
    yield (
        "not reached: the source's own files, imported labels (which name rows by id), and the "
        "artifacts that Kubeflow keeps in its bucket; give that a lifecycle rule"
    )
