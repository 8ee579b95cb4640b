"""Kubeflow wrapper of ``finetune``."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def finetune(
    prepared: dsl.Input[dsl.Dataset],
    digest: str,
    project: str,
    window: str,
    window_end: str,
    task: str,
    base: str,
    champion: str,
    code: str,
    config: str,
    model: dsl.Output[dsl.Model],
    report: dsl.Output[dsl.Artifact],
) -> NamedTuple("Outputs", [("bundle", str), ("training_run", str)]):
    """Fine-tune and seal a bundle; metrics go to MLflow while it learns."""
    from pathlib import Path

    from components import bundle, home, step
    from components.finetune import core
    from components.finetune.watcher import LiveWatcher
    from components.plan import Base
    from components.tasks import TaskConfig

    with step.running("finetune") as log:
        settings, start = core.FinetuneConfig.from_json(config), Base.from_json(base)
        with home.registry(project).run(f"{project} {window}", settings.model_dump()) as run:
            result = core.finetune(
                Path(prepared.path),
                start.locate(),
                bundle.fetch_champion(home.store(), champion),
                Path(model.path),
                TaskConfig.from_json(task),
                settings,
                {
                    "data": digest,
                    "base": start.digest,
                    "champion": champion,
                    "code": code,
                    "window": window,
                    "window_end": window_end,
                },
                LiveWatcher(log, run),
            )
        model.metadata.update(bundle=result.bundle, valid_f1=result.valid_f1)
        log.hand_over(result, report.path)
    return result.bundle, run.run_id
