"""Kubeflow wrapper of ``resolve``. Uncached: it is the step that looks at the world."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def resolve(
    project: str,
    source: str,
    bases: str,
    config: str,
    window: str,
    purpose: str,
    run: str,
    job: str,
    ledger: str,
    cause: str,
    clock: str,
    report: dsl.Output[dsl.Artifact],
) -> NamedTuple(
    "Outputs",
    [
        ("data", str),
        ("live", str),
        ("base", str),
        ("bases", str),
        ("admission", str),
        ("champion", str),
        ("generation", int),
        ("code", str),
        ("window", str),
        ("window_end", str),
        ("fingerprint", str),
        ("run", str),
        ("now", str),
    ],
):
    """Look at the outside world once; one output per consumer."""
    from components import home, step
    from components.freeze import Freezes
    from components.ledger import Ledger
    from components.plan import Bases
    from components.records import Records
    from components.resolve import core
    from components.sources import parse_source

    with step.running("resolve") as log:
        store, this_run = home.store(), run or job
        core.allow(purpose, Freezes(store, ledger))
        settings = core.ResolveConfig.from_json(config)
        now = core.clock(clock, settings)
        plan = core.resolve(
            project=project,
            source=parse_source(source),
            bases=Bases.from_json(bases),
            config=settings,
            window=window,
            purpose=purpose,
            head=Ledger(store, ledger).head(),
            store=store,
            now=now,
            ledger=ledger,
        )
        current = plan.live.current
        result = core.ResolveReport(
            plan=plan,
            window=current.window.name,
            champion_version=plan.champion_version,
            cause=cause,
            now=now.isoformat(),
        )
        log.hand_over(result, report.path)
        Records(store, ledger, this_run).write("resolve", result.model_dump(mode="json"))
    return (
        plan.data.to_json(),
        plan.live.to_json(),
        plan.bases.models[0].to_json(),
        plan.bases.to_json(),
        plan.admission.to_json(),
        plan.champion,
        plan.generation,
        plan.code,
        current.window.name,
        current.window.end,
        current.kept_as,
        this_run,
        now.isoformat(),
    )
