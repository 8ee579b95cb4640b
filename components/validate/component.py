"""Kubeflow wrapper of ``validate``.

kfp.local evaluates a condition only on a component's plain return value, so what the
graph branches on is returned and everything else is written to an output path.
"""

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
    good_digest: dsl.OutputPath(str),
    refusal: dsl.OutputPath(str),
) -> bool:
    """Quarantine bad rows; tell whether the rest suffices to train on."""
    from pathlib import Path

    from components import step
    from components.tasks import parse_task
    from components.validate import core

    with step.running("validate") as log:
        result = core.validate(
            Path(snapshot.path),
            window,
            Path(good.path),
            Path(quarantine.path),
            parse_task(task),
            core.ValidateConfig.from_json(config),
        )
        good.metadata.update(rows=result.rows, digest=result.digest)
        quarantine.metadata.update(rows=result.quarantined, **result.reasons)
        log.hand_over(result, report.path)
        Path(good_digest).write_text(result.digest)
        Path(refusal).write_text(result.refusal_with(quarantine.uri))
    return result.trainable
