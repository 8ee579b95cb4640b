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
    bases: str,
    champion: str,
    code: str,
    config: str,
    model: dsl.Output[dsl.Model],
    curves: dsl.Output[dsl.HTML],
    report: dsl.Output[dsl.Artifact],
) -> NamedTuple("Outputs", [("bundle", str), ("training_run", str)]):
    """Fine-tune and seal a bundle; metrics go to MLflow while it learns."""
    from pathlib import Path

    from components import bundle, home, step
    from components.finetune import core, launch
    from components.finetune.fulfil import fulfil
    from components.finetune.report import to_html, to_metrics
    from components.finetune.watcher import LiveWatcher
    from components.plan import Bases
    from components.tasks import parse_task

    with step.running("finetune") as log:
        settings, learnt = core.FinetuneConfig.from_json(config), parse_task(task)
        rows, given = Path(prepared.path), Bases.from_json(bases)
        best = bundle.fetch_champion(home.store(), champion)
        with home.registry(project).run(f"{project} {window}", settings.model_dump()) as run:
            watcher = LiveWatcher(log, run)
            order = launch.Order(
                prepared=rows,
                start=core.choose(rows, given.models, best, learnt, settings, watcher),
                champion=best,
                folder=Path(model.path),
                task=learnt,
                config=settings,
                lineage={
                    "data": digest,
                    "champion": champion,
                    "code": code,
                    "window": window,
                    "window_end": window_end,
                    **given.lineage,
                },
                store=home.store_url(),
            )
            result = fulfil(order, watcher)
        made = {"bundle": result.bundle, "training_run": run.run_id}
        model.metadata.update(made, **to_metrics(result))
        Path(curves.path).write_text(to_html(result), encoding="utf-8")
        log.hand_over(result, report.path)
    return result.bundle, run.run_id
