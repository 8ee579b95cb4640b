"""Kubeflow wrapper of ``trigger``. Uncached, and idempotent by the event's key."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def trigger(
    drift: dsl.Input[dsl.Artifact],
    champion: str,
    window: str,
    run: str,
    ledger: str,
    config: str,
    report: dsl.Output[dsl.Artifact],
    cause: dsl.OutputPath(str),
) -> bool:
    """Decide on a retrain and claim its event."""
    from pathlib import Path

    from components import home, step
    from components.ledger import Events
    from components.records import Records
    from components.trigger import core

    with step.running("trigger") as log:
        store = home.store()
        result = core.decide(
            core.Finding.read(Path(drift.path)),
            champion=champion,
            window=window,
            run=run,
            events=Events(store, ledger),
            config=core.TriggerConfig.from_json(config),
        )
        log.hand_over(result, report.path)
        Records(store, ledger, run).write("trigger", result.model_dump(mode="json"))
        Path(cause).write_text(result.cause)
    return result.retrain
