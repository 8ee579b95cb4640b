"""Kubeflow wrapper of ``deploy``. Uncached, and idempotent by run and bundle."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def deploy(
    predictions: dsl.Input[dsl.Dataset],
    bundle: str,
    version: str,
    reason: str,
    generation: int,
    code: str,
    project: str,
    run: str,
    ledger: str,
    config: str,
    report: dsl.Output[dsl.Artifact],
):
    """Prove the bundle in the server's own code, then append it to the ledger."""
    from pathlib import Path

    from components import home, step
    from components.deploy import core
    from components.deploy.config import DeployConfig
    from components.erasures import forgotten_since
    from components.freeze import Freezes
    from components.ledger import Ledger
    from components.records import Records
    from components.request_log import RequestLog
    from components.rollout.record import Rollouts

    with step.running("deploy") as log:
        store = home.store()
        result = core.deploy(
            bundle,
            Path(predictions.path),
            version=version,
            generation=generation,
            code=code,
            key=f"{run}/{bundle}",
            by=f"run {run}",
            reason=reason,
            project=project,
            store=store,
            ledger=Ledger(store, ledger),
            freezes=Freezes(store, ledger),
            rollouts=Rollouts(store, ledger),
            requests=RequestLog(store, ledger),
            registry=home.registry(project),
            config=DeployConfig.from_json(config),
            forgotten=forgotten_since(store, ledger, run),
        )
        report.metadata.update(version=result.version, generation=result.number)
        log.hand_over(result, report.path)
        Records(store, ledger, run).write("deploy", result.model_dump(mode="json"))
