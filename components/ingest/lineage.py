"""What a snapshot was made of, as an event of OpenLineage, which catalogues of data read.

https://openlineage.io/spec/2-0-2/OpenLineage.json
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from components.plan import Data

PRODUCER = "https://github.com/tokiwa"
SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json"
_FACETS = "https://openlineage.io/spec/facets"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, PRODUCER)


def complete_event(
    data: Data,
    tables: Sequence[tuple[str, str]],
    digest: str,
    rows: int,
    columns: Sequence[str],
    at: datetime,
) -> dict[str, Any]:
    """Return the ``COMPLETE`` event of an ingest.

    Args:
        data: what was planned.
        tables: name and version of each table that was read.
        digest: of the snapshot.
        rows: in it.
        columns: of it.
        at: when it was written.
    """
    return {
        "eventType": "COMPLETE",
        "eventTime": at.isoformat(),
        "producer": PRODUCER,
        "schemaURL": f"{SCHEMA}#/$defs/RunEvent",
        "run": {"runId": str(uuid.uuid5(_NAMESPACE, f"{digest} {at.isoformat()}"))},
        "job": {"namespace": "tokiwa", "name": "ingest"},
        "inputs": [
            {
                **_dataset(name, data.source.kind),
                "facets": {
                    "version": _facet(
                        "1-0-1/DatasetVersionDatasetFacet.json", datasetVersion=version
                    )
                },
            }
            for name, version in tables
        ],
        "outputs": [
            {
                "namespace": "tokiwa",
                "name": f"snapshot/{digest}",
                "facets": {
                    "schema": _facet(
                        "1-1-1/SchemaDatasetFacet.json",
                        fields=[{"name": name, "type": "string"} for name in columns],
                    ),
                    "version": _facet(
                        "1-0-1/DatasetVersionDatasetFacet.json", datasetVersion=digest
                    ),
                },
                "outputFacets": {
                    "outputStatistics": _facet(
                        "1-0-2/OutputStatisticsOutputDatasetFacet.json", rowCount=rows
                    )
                },
            }
        ],
    }


def _dataset(name: str, kind: str) -> dict[str, str]:
    """Return namespace and name as the specification wants them: ``s3://bucket`` and the key."""
    parts = urlsplit(name)
    if parts.scheme and parts.netloc:
        return {"namespace": f"{parts.scheme}://{parts.netloc}", "name": parts.path.lstrip("/")}
    return {"namespace": "file" if kind == "files" else kind, "name": name}


def _facet(schema: str, **fields: Any) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": f"{_FACETS}/{schema}", **fields}
