"""Read the planned windows into one snapshot, named by the digest of its content."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from components.errors import SourceError
from components.plan import Data
from components.settings import Section, digest_of
from components.sources import open_source
from components.sources.rows import fingerprint, snapshot_schema
from components.split import content_digest

ROWS = "rows.parquet"
MANIFEST = "manifest.json"


class IngestConfig(Section):
    """Section ``ingest``."""

    drop_duplicates: bool = True
    """Keep the first of rows whose text (case and spaces folded) and label are equal."""


class IngestReport(Section):
    """Where every row went: ``read = rows + duplicates``."""

    schema_version: int = 1
    digest: str
    rows: int
    rows_by_window: dict[str, int]
    read: int
    duplicates: int
    left_out: dict[str, int]
    """Rows that the source's configuration leaves out, by reason."""

    @property
    def headline(self) -> str:
        """The one thing to see."""
        return f"{self.rows:,} rows, {self.duplicates} duplicates dropped"


def ingest(data: Data, folder: Path, config: IngestConfig) -> IngestReport:
    """Write ``rows.parquet`` and a manifest into ``folder``.

    The columns are those of every source, the further ones that this one declares, and
    ``window``. Order is that of the windows, then of the source, so that equal content gives
    equal bytes.

    Raises:
        SourceError: a window no longer has the fingerprint of the plan.
    """
    source = open_source(data.source)
    frames, left_out = [], dict[str, int]()
    for planned in data.windows:
        rows = source.read(planned.window)
        if rows.fingerprint() != planned.fingerprint:
            raise SourceError(
                f"the rows of window {planned.window.name} changed after the run began; run again"
            )
        frames.append(rows.frame.assign(window=planned.window.name))
        for reason, count in rows.left_out.items():
            left_out[reason] = left_out.get(reason, 0) + count
    frame = pd.concat(frames, ignore_index=True)
    read = len(frame)
    if config.drop_duplicates and read:
        content = pd.DataFrame(
            {
                "text": [content_digest(text or "") for text in frame["text"]],
                "label": frame["label"],
            }
        )
        frame = frame[~content.duplicated()].reset_index(drop=True)
    folder.mkdir(parents=True, exist_ok=True)
    schema = snapshot_schema(data.source.metadata)
    frame.astype(object).to_parquet(folder / ROWS, index=False, schema=schema)
    declared = {name: [each.kind, each.required] for name, each in data.source.metadata.items()}
    report = IngestReport(
        digest=digest_of([fingerprint(frame, list(frame)), declared]),
        rows=len(frame),
        rows_by_window={
            each.window.name: int((frame["window"] == each.window.name).sum())
            for each in data.windows
        },
        read=read,
        duplicates=read - len(frame),
        left_out=left_out,
    )
    (folder / MANIFEST).write_text(report.to_json())
    return report
