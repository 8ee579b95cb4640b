"""Batch scoring: a Parquet file in, the same rows with a model's answers out.

The file is read and answered part by part; a part is written whole or not at all, into a
folder beside the output, and the last act makes the output of the parts. So memory stays
bounded whatever the size, and a run that was killed carries on behind its last whole part,
with the model that it began with, even if another one has been promoted meanwhile. Two runs
do not write one output at the same time.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import BadInput, NoChampion, SourceError
from components.ledger import Ledger, Name
from components.score.addresses import local_files
from components.score.lock import only_writer
from components.score.plan import PLAN, Plan, begin, begun, require_no_loss, require_writable, whole
from components.serve.model import MAX_CONTENTS, BundleModel, Prediction, TooMuch
from components.settings import Section, canonical_json
from components.signature import PublicKey
from components.store import Store

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PART_ROWS = 4096
"""Rows of one part: as much as a killed run has to do again."""
PREFIX = "answer_"
ERROR = f"{PREFIX}error"


class ScoreConfig(Section):
    """What is asked of which rows."""

    column: Name = "text"
    """Column of the texts, or of images as base64."""
    trusted_keys: tuple[PublicKey, ...] = ()
    """Public keys (Ed25519, PEM) of which one must have signed the model; by default those of
    ``deploy``. All bundles are good where none is named."""


class ScoreReport(Section):
    """What came of it."""

    schema_version: int = 1
    rows: int
    unanswered: int
    """Rows that the model could not be asked about; their ``answer_error`` says why."""
    resumed_rows: int
    """Of the rows, found done by an earlier run; all of them if it had finished."""
    version: str
    generation: int
    bundle: str

    @property
    def headline(self) -> str:
        """The one thing to see."""
        left = f", {self.unanswered} of them without an answer" if self.unanswered else ""
        broken = 0 < self.resumed_rows < self.rows
        resumed = f", resumed at row {self.resumed_rows} of {self.rows}" if broken else ""
        return f"{self.rows} rows scored by version {self.version}{resumed}{left}"


def score(
    input_file: Path,
    output_file: Path,
    ledger: Ledger,
    load: Callable[[str], BundleModel],
    config: ScoreConfig,
    *,
    force: bool = False,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    say: Callable[[str], None] = lambda words: None,
) -> ScoreReport:
    """Answer all rows of a file; unfinished work lies beside the output.

    An output that the same model made of the same column of the same input is left as it is.

    Args:
        input_file: Parquet with the column ``config.column``.
        output_file: Parquet; all columns of the input, then ``answer_label`` and the like,
            and ``answer_error``. Its metadata has ``tokiwa.version``, ``tokiwa.generation``,
            ``tokiwa.bundle``, ``tokiwa.column`` and ``tokiwa.input_sha256``. An old file stays
            until the new one is whole.
        ledger: whose champion is to answer; an unfinished run keeps the one that it had.
        load: makes a model of the digest of a bundle.
        config: which column.
        force: replace an output, and unfinished work, of whatever input and model.
        progress: told of rows done, of how many, and what they are.
        say: told of what else people want to know, in a few words.

    Raises:
        BadInput: the input is no Parquet file, or lacks the column, or has answers already, or
            is the output; or the output, or unfinished work, is not of this input and model.
        NoChampion: nobody could answer.
        WorldError: another run writes this output.
    """
    require_writable(str(input_file), str(output_file))
    parts = output_file.with_name(f"{output_file.name}.parts")
    with only_writer(_lock_beside(output_file), str(output_file)):
        report = _scored(
            input_file, output_file, ledger, load, config, parts, progress, say, force=force
        )
        if (parts / PLAN).exists():  # not where the output was found finished
            shutil.rmtree(parts)
    return report


def _scored(
    input_file: Path,
    output_file: Path,
    ledger: Ledger,
    load: Callable[[str], BundleModel],
    config: ScoreConfig,
    parts: Path,
    progress: Callable[[int, int, str], None],
    say: Callable[[str], None],
    *,
    force: bool,
) -> ScoreReport:
    """Answer all rows of a file, and leave the parts where they are."""
    source = _opened(input_file, config.column)
    champion = ledger.head()
    if champion is None:
        raise NoChampion(
            "there is no model in production yet that could answer; train one: tokiwa run PROJECT"
        )
    plan, resumes = begun(parts, input_file, champion, config.column)
    if not force and require_no_loss(parts, output_file, plan, resumes=resumes):
        say(f"{output_file} is finished already; --force would answer all rows again")
        return _report(plan, *_counted(output_file), resumed=source.metadata.num_rows)
    if not resumes:
        begin(parts, plan)
    say(f"loading version {plan.version}")
    model = load(plan.bundle)
    schema = _schema(source.schema_arrow, model.sample, plan)
    total, done, resumed = source.metadata.num_rows, 0, 0
    if there := min(PART_ROWS * len(list(parts.glob("[!.]*.parquet"))), total):
        say(f"resumed at row {there} of {total}")
    for number, batch in enumerate(_parts_of(source)):
        path = parts / f"{number:08d}.parquet"
        if path.exists():
            resumed += batch.num_rows
        else:
            _write_part(path, batch, schema, model, config.column)
        done += batch.num_rows
        progress(done, total, "rows")
    rows, unanswered = _joined(parts, output_file, schema)
    if rows != total:
        raise BadInput(f"{input_file} changed while it was read: it had {total} rows, then {rows}")
    return _report(plan, rows, unanswered, resumed=resumed)


def _report(plan: Plan, rows: int, unanswered: int, *, resumed: int) -> ScoreReport:
    return ScoreReport(
        rows=rows,
        unanswered=unanswered,
        resumed_rows=resumed,
        version=plan.version,
        generation=plan.generation,
        bundle=plan.bundle,
    )


def score_addresses(
    input_address: str,
    output_address: str,
    store: Store,
    ledger: Ledger,
    config: ScoreConfig,
    *,
    home: Path,
    progress: Callable[[int, int, str], None],
) -> ScoreReport:
    """Answer all rows of a file that lies on a disk or in a bucket, see ``score``.

    An output that is there is replaced: a graph may be run again, on newer rows.

    Args:
        input_address: a path, or ``s3://bucket/key``.
        output_address: likewise.
        store: holds the champion's bundle.
        ledger: whose champion is to answer.
        config: which column.
        home: Tokiwa's folder on this machine; keeps what a killed run leaves, by both addresses.
        progress: told of rows done, of how many, and what they are.

    Raises:
        BadInput: as of ``score``.
        WorldError: another run of this machine writes this output. Of those of other machines
            each sends a whole file to a bucket, and the last one counts.
    """
    require_writable(input_address, output_address)
    kept = home / "scores"
    parts = kept / _digest(canonical_json([input_address, output_address]))
    load = partial(BundleModel.load, store, trusted=config.trusted_keys)
    if output_address.startswith("s3://"):
        lock = kept / f"{_digest(output_address)}.lock"
    else:
        lock = _lock_beside(Path(output_address))
    with only_writer(lock, output_address):
        with local_files(input_address, output_address) as (source, target):
            report = _scored(
                source, target, ledger, load, config, parts, progress, _unsaid, force=True
            )
        # Only now has the output arrived, and the work need not be done again.
        shutil.rmtree(parts)
    return report


def _unsaid(words: str) -> None:
    """Say nothing: a step tells its progress alone."""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _lock_beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def first_column(path: Path, wanted: Sequence[str]) -> str:
    """Return the first of some names that a file has a column of, or the first of all.

    Args:
        path: Parquet.
        wanted: one name at least.

    Raises:
        BadInput: it is no Parquet file.
    """
    names = column_names(path)
    return next((name for name in wanted if name in names), wanted[0])


def column_names(path: Path) -> list[str]:
    """Return the columns of a Parquet file.

    Raises:
        BadInput: it is none.
    """
    names: list[str] = _read(path).schema_arrow.names
    return names


def _read(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise BadInput(f"there is no file {path}") from error
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            f"score reads Parquet only; {path} is no Parquet file that can be read ({error}). "
            'Convert a CSV with python: pandas.read_csv("x.csv").to_parquet("x.parquet")'
        ) from error


def _opened(path: Path, column: str) -> pq.ParquetFile:
    import pyarrow as pa

    source = _read(path)
    names = source.schema_arrow.names
    if column not in names:
        raise BadInput(
            f"{path} has no column {column!r}, only {', '.join(names) or 'none at all'}; "
            "name the one to be answered with --column"
        )
    if names.count(column) > 1:
        raise BadInput(f"{path} has {names.count(column)} columns {column!r}; leave one only")
    kind = source.schema_arrow.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_null)
    # A table without rows often has lost its types.
    if source.metadata.num_rows and not any(fits(kind) for fits in texts):
        raise BadInput(f"the column {column!r} of {path} holds {kind} and no strings")
    if taken := [name for name in names if name.startswith(PREFIX)]:
        raise BadInput(
            f"{path} has a column {taken[0]} already; leave it out, or name it otherwise"
        )
    return source


def _schema(source: pa.Schema, sample: Prediction, plan: Plan) -> pa.Schema:
    import pyarrow as pa

    fields = list(source)
    for key, value in sample.items():
        if isinstance(value, dict):
            fields += [pa.field(f"{PREFIX}{key}_{name}", pa.float64()) for name in value]
        else:
            kind = {bool: pa.bool_(), float: pa.float64()}.get(type(value), pa.string())
            fields.append(pa.field(f"{PREFIX}{key}", kind))
    answered = [*fields, pa.field(ERROR, pa.string())]
    return pa.schema(answered, metadata=dict(plan.metadata))


def _parts_of(source: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file in parts of exactly ``PART_ROWS``, but the last."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in source.iter_batches(batch_size=PART_ROWS):
        while count + batch.num_rows >= PART_ROWS:
            taken = PART_ROWS - count
            yield _merged([*waiting, batch.slice(0, taken)])
            waiting, count, batch = [], 0, batch.slice(taken)
        if batch.num_rows:
            waiting.append(batch)
            count += batch.num_rows
    if waiting:
        yield _merged(waiting)


def _merged(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    import pyarrow as pa

    table = pa.Table.from_batches(batches).combine_chunks()
    return table.to_batches(max_chunksize=PART_ROWS)[0]


def _write_part(
    path: Path, batch: pa.RecordBatch, schema: pa.Schema, model: BundleModel, column: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    contents = batch.column(column).to_pylist()
    answers: list[tuple[Prediction | None, str | None]] = []
    for start in range(0, len(contents), MAX_CONTENTS):
        answers += _answered(model, contents[start : start + MAX_CONTENTS])
    columns = list(batch.columns)
    for field in list(schema)[len(columns) :]:
        values = [_cell(field.name, prediction, error) for prediction, error in answers]
        columns.append(pa.array(values, field.type))
    table = pa.Table.from_arrays(columns, schema=schema)
    whole(path, lambda draft: pq.write_table(table, draft))


def _cell(name: str, prediction: Prediction | None, error: str | None) -> Any:
    if name == ERROR:
        return error
    if prediction is None:
        return None
    key = name.removeprefix(PREFIX)
    if key in prediction:
        return prediction[key]
    return next(
        values[key.removeprefix(f"{outer}_")]
        for outer, values in prediction.items()
        if isinstance(values, dict) and key.startswith(f"{outer}_")
    )


def _answered(
    model: BundleModel, contents: Sequence[object]
) -> list[tuple[Prediction | None, str | None]]:
    """Return for each content its prediction, or why there is none."""
    good: list[str] = []
    answers: list[tuple[Prediction | None, str | None]] = []
    places: list[int] = []
    for content in contents:
        try:
            good += model.checked([content])
            places.append(len(answers))
            answers.append((None, None))
        except (TooMuch, ValueError) as error:
            answers.append((None, str(error)))
    try:
        predictions: list[Prediction] = model.predict(good) if good else []
    except SourceError as error:
        if len(contents) == 1:
            return [(None, str(error))]
        return [each for content in contents for each in _answered(model, [content])]
    for place, prediction in zip(places, predictions, strict=True):
        answers[place] = (prediction, None)
    return answers


def _counted(output_file: Path) -> tuple[int, int]:
    """Return the rows of an output, and those without an answer."""
    import pyarrow.parquet as pq

    errors = pq.read_table(output_file, columns=[ERROR]).column(ERROR)
    return len(errors), len(errors) - errors.null_count


def _joined(parts: Path, output_file: Path, schema: pa.Schema) -> tuple[int, int]:
    """Make the output of all parts; return its rows, and those without an answer."""
    import pyarrow.parquet as pq

    rows = unanswered = 0

    def write(draft: Path) -> None:
        nonlocal rows, unanswered
        with pq.ParquetWriter(draft, schema) as writer:
            for path in sorted(parts.glob("*.parquet")):
                table = pq.read_table(path)
                writer.write_table(table.cast(schema))
                rows += table.num_rows
                unanswered += table.num_rows - table.column(ERROR).null_count

    whole(output_file, write)
    return rows, unanswered
