"""Kubeflow wrapper of ``register``. Uncached, and idempotent by the bundle's digest."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def register(
    model: dsl.Input[dsl.Model],
    predictions: dsl.Input[dsl.Dataset],
    evaluation: dsl.Input[dsl.Artifact],
    training: dsl.Input[dsl.Artifact],
    training_run: str,
    generation: int,
    project: str,
    run: str,
    ledger: str,
    cause: str,
    config: str,
    report: dsl.Output[dsl.Artifact],
) -> NamedTuple("Outputs", [("version", str), ("reason", str)]):
    """Publish the challenger and give it a version, whatever the verdict."""
    from pathlib import Path

    from components import home, step
    from components.candidates import Candidates
    from components.records import Records
    from components.register import core

    with step.running("register") as log:
        store, parsed = home.store(), core.RegisterConfig.from_json(config)
        result = core.register(
            Path(model.path),
            Path(predictions.path),
            core.Evidence.read(Path(evaluation.path)),
            store=store,
            candidates=Candidates(store, ledger),
            registry=home.registry(project),
            cause=cause,
            run=run,
            training_run=training_run,
            generation=generation,
            device_hours=core.device_hours_of(Path(training.path)),
            signing_key=home.signing_key(parsed.signing_key_env),
            config=parsed,
        )
        report.metadata.update(version=result.version, verdict=result.verdict, model=result.source)
        log.hand_over(result, report.path)
        Records(store, ledger, run).write("register", result.model_dump(mode="json"))
    return result.version, result.reason
