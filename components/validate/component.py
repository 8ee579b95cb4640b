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
    window_end: str,
    admission: str,
    task: str,
    code: str,
    config: str,
    good: dsl.Output[dsl.Dataset],
    quarantine: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    evidently: dsl.Output[dsl.HTML],
    good_digest: dsl.OutputPath(str),
    refusal: dsl.OutputPath(str),
) -> bool:
    """Quarantine bad rows; tell whether the rest suffices to train on."""
    from pathlib import Path

    from components import home, step
    from components.plan import Admission
    from components.quarantine import keeper, taken_in
    from components.tasks import parse_task
    from components.validate import core
    from components.validate.evidently_report import evidently_html
    from components.validate.report import to_html
    from components.validate.served import contents_asked

    with step.running("validate") as log:
        settings, learnt = core.ValidateConfig.from_json(config), parse_task(task)
        decided = Admission.from_json(admission)
        result = core.validate(
            Path(snapshot.path),
            window,
            Path(good.path),
            Path(quarantine.path),
            learnt,
            settings,
            window_end=window_end,
            horizon=decided.horizon,
            served=contents_asked(home.store(), decided),
            readmitted=taken_in(home.store(), decided),
            keep=keeper(home.store(), decided),
        )
        good.metadata.update(rows=result.rows, digest=result.digest)
        quarantine.metadata.update(rows=result.quarantined, **result.reasons)
        log.hand_over(result, report.path)
        Path(page.path).write_text(to_html(result))
        Path(evidently.path).write_text(
            evidently_html(Path(good.path), window, learnt, settings.evidently)
        )
        Path(good_digest).write_text(result.digest)
        Path(refusal).write_text(result.refusal_with(quarantine.uri))
    return result.trainable
