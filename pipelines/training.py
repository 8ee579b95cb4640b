"""The training graph: ``resolve → body``, with ``notify`` at the end.

1. ``resolve`` looks at the world once.
2. ``body`` trains a challenger and promotes it if it wins.
3. ``notify`` says how it ended, whatever happened.
"""

from kfp import dsl

from components.notify.component import notify
from components.resolve.component import resolve
from pipelines.body import body_of
from pipelines.placement import Placement, place


def training_of(workers: int = 0, placement: Placement | None = None):
    """Return the graph for a project whose search has so many workers; 0 is without search."""
    body = body_of(workers, placement)

    @dsl.pipeline(
        name="tokiwa-training",
        description="Train a challenger; promote it if it wins.",
        pipeline_config=placement and placement.pipeline_config,
    )
    def training(
        project: str,
        task: str,
        source: str,
        bases: str,
        resolve_config: str,
        ingest_config: str,
        validate_config: str,
        prepare_config: str,
        finetune_config: str,
        evaluate_config: str,
        register_config: str,
        deploy_config: str,
        notify_config: str,
        window: str = "now",
        cause: str = "schedule",
        ledger: str = "",
        run: str = "",
        clock: str = "",
    ):
        """Train on one window and the ones before it."""
        job = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        notified = notify(
            project=project, run=run, job=job, ledger=ledger, cause=cause, config=notify_config
        ).set_caching_options(False)
        with dsl.ExitHandler(notified):
            resolved = resolve(
                project=project,
                source=source,
                bases=bases,
                config=resolve_config,
                window=window,
                purpose="training",
                run=run,
                job=job,
                ledger=ledger,
                cause=cause,
                clock=clock,
            ).set_caching_options(False)
            body(
                project=project,
                task=task,
                data=resolved.outputs["data"],
                base=resolved.outputs["base"],
                bases=resolved.outputs["bases"],
                admission=resolved.outputs["admission"],
                champion=resolved.outputs["champion"],
                generation=resolved.outputs["generation"],
                code=resolved.outputs["code"],
                window=resolved.outputs["window"],
                window_end=resolved.outputs["window_end"],
                fingerprint=resolved.outputs["fingerprint"],
                run=resolved.outputs["run"],
                ledger=ledger,
                cause=cause,
                ingest_config=ingest_config,
                validate_config=validate_config,
                prepare_config=prepare_config,
                finetune_config=finetune_config,
                evaluate_config=evaluate_config,
                register_config=register_config,
                deploy_config=deploy_config,
            ).set_caching_options(False)
        place(placement)

    return training
