"""Kubeflow wrapper of ``ingest``."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def ingest(
    data: str,
    code: str,
    config: str,
    snapshot: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.Artifact],
) -> NamedTuple("Outputs", [("digest", str)]):
    """Read the planned windows into a snapshot."""
    from datetime import UTC, datetime
    from pathlib import Path

    from components import home, step
    from components.ingest import core
    from components.plan import Data

    with step.running("ingest") as log:
        result = core.ingest(
            Data.from_json(data),
            Path(snapshot.path),
            core.IngestConfig.from_json(config),
            store=home.store(),
            code=code,
            at=datetime.now(UTC),
        )
        snapshot.metadata.update(rows=result.rows, digest=result.digest)
        log.hand_over(result, report.path)
    return (result.digest,)
