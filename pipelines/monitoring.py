"""The monitoring graph: ``resolve → collect → drift → trigger ─ retrain? ─ body``.

1. ``resolve`` looks at the world once.
2. ``summarize`` reads a part of a large window, side by side with others that read theirs.
3. ``collect`` gathers what production saw, through the champion's eyes.
4. ``drift`` compares it with what the champion was trained on.
5. ``trigger`` decides, and claims the event so that it is handled once.
6. ``body`` retrains in the same run, so that cause and effect stay together.
7. ``notify`` says how it ended, whatever happened.
"""

from kfp import dsl

from components.collect.component import collect
from components.drift.component import drift
from components.notify.component import notify
from components.resolve.component import resolve
from components.summarize.component import summarize
from components.trigger.component import trigger
from pipelines.body import body_of
from pipelines.placement import Placement, place


def monitoring_of(workers: int = 0, partitions: int = 1, placement: Placement | None = None):
    """Return the graph for a project.

    Args:
        workers: of its search; 0 is without search.
        partitions: of a window, that are read side by side; 1 is without ``summarize``.
        placement: of its steps; None is here.
    """
    body = body_of(workers, placement)
    summaries = summaries_of(partitions, placement) if partitions > 1 else None

    @dsl.pipeline(
        name="tokiwa-monitoring",
        description="Watch production; retrain when it drifts.",
        pipeline_config=placement and placement.pipeline_config,
    )
    def monitoring(
        project: str,
        task: str,
        source: str,
        bases: str,
        resolve_config: str,
        collect_config: str,
        drift_config: str,
        trigger_config: str,
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
        request: str = "",
    ):
        """Watch one window, and retrain on it if need be."""
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
                purpose="monitoring",
                run=run,
                job=job,
                ledger=ledger,
                cause=cause,
                clock=clock,
            ).set_caching_options(False)
            collected = collect(
                live=resolved.outputs["live"],
                champion=resolved.outputs["champion"],
                task=task,
                base=resolved.outputs["base"],
                code=resolved.outputs["code"],
                config=collect_config,
            )
            if summaries is not None:
                summarized = summaries(
                    live=resolved.outputs["live"],
                    champion=resolved.outputs["champion"],
                    code=resolved.outputs["code"],
                    settings=collect_config,
                )
                collected.after(summarized)
            drifted = drift(
                collected=collected.outputs["collected"],
                digest=collected.outputs["digest"],
                champion=resolved.outputs["champion"],
                window=resolved.outputs["window"],
                code=resolved.outputs["code"],
                config=drift_config,
            )
            triggered = trigger(
                drift=drifted.outputs["report"],
                data=resolved.outputs["data"],
                live=resolved.outputs["live"],
                task=task,
                base=resolved.outputs["base"],
                champion=resolved.outputs["champion"],
                code=resolved.outputs["code"],
                window=resolved.outputs["window"],
                window_end=resolved.outputs["window_end"],
                now=resolved.outputs["now"],
                request=request,
                run=resolved.outputs["run"],
                ledger=ledger,
                config=trigger_config,
            ).set_caching_options(False)
            with dsl.If(triggered.outputs["Output"] == True):
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
                    cause=triggered.outputs["cause"],
                    ingest_config=ingest_config,
                    validate_config=validate_config,
                    prepare_config=prepare_config,
                    finetune_config=finetune_config,
                    evaluate_config=evaluate_config,
                    register_config=register_config,
                    deploy_config=deploy_config,
                ).set_caching_options(False)
        place(placement)

    return monitoring


def summaries_of(partitions: int, placement: Placement | None = None):
    """Return a graph with a step for each partition of a window.

    A graph of its own: in a loop, kfp's local runner takes the number of the round for
    whatever comes from a step beside the loop.
    """

    @dsl.pipeline(name="summaries")
    def summaries(live: str, champion: str, code: str, settings: str):
        """Leave summaries of a window's parts in the store, where ``collect`` finds them."""
        numbers = [str(number + 1) for number in range(partitions)]
        with dsl.ParallelFor(numbers, parallelism=partitions) as partition:
            summarize(
                live=live, champion=champion, partition=partition, code=code, settings=settings
            )
        place(placement)

    return summaries
