"""Kubeflow wrapper of ``trigger``. Uncached, and idempotent by the event's key."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def trigger(
    drift: dsl.Input[dsl.Artifact],
    data: str,
    live: str,
    task: str,
    base: str,
    champion: str,
    code: str,
    window: str,
    window_end: str,
    now: str,
    request: str,
    run: str,
    ledger: str,
    config: str,
    report: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    cause: dsl.OutputPath(str),
) -> bool:
    """Decide on a retrain and claim its event; the clock comes from ``resolve``."""
    from datetime import datetime
    from pathlib import Path

    from components import home, step
    from components.plan import Base, Data, Live
    from components.records import Records
    from components.tasks import parse_task
    from components.trigger import core, probe
    from components.trigger.report import page_of

    with step.running("trigger") as log:
        store = home.store()
        result = core.decide(
            core.Finding.read(Path(drift.path)),
            champion=champion,
            window=window,
            run=run,
            now=datetime.fromisoformat(now),
            request=request,
            store=store,
            ledger=ledger,
            config=core.TriggerConfig.from_json(config),
            learnt_until=core.end_of_training(champion, store),
            seen_until=datetime.fromisoformat(window_end),
            probe=lambda policy: probe.ask(
                Data.from_json(data),
                Live.from_json(live),
                Base.from_json(base),
                parse_task(task),
                code,
                store,
                policy,
            ),
        )
        log.hand_over(result, report.path)
        Path(page.path).write_text(page_of(result, store, ledger))
        Records(store, ledger, run).write("trigger", result.model_dump(mode="json"))
        Path(cause).write_text(result.cause)
    return result.retrain
