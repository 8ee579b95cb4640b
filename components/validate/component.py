"""Kubeflow wrapper of ``validate``."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def validate(
    snapshot: dsl.Input[dsl.Dataset],
    digest: str,
    window: str,
    task: str,
    code: str,
    config: str,
    good: dsl.Output[dsl.Dataset],
    quarantine: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.Artifact],
) -> NamedTuple("Outputs", [("digest", str), ("trainable", bool), ("refusal", str)]):
    """Quarantine bad rows; ``digest`` and ``code`` are there for the cache key."""
    from pathlib import Path

    from components import step
    from components.tasks import TaskConfig
    from components.validate import core

    with step.running("validate") as log:
        result = core.validate(
            Path(snapshot.path),
            window,
            Path(good.path),
            Path(quarantine.path),
            TaskConfig.from_json(task),
            core.ValidateConfig.from_json(config),
        )
        good.metadata.update(rows=result.rows, digest=result.digest)
        quarantine.metadata.update(rows=result.quarantined, **result.reasons)
        log.hand_over(result, report.path)
    return result.digest, result.trainable, result.refusal
