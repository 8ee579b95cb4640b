"""Kubeflow wrapper of ``decline``. Uncached: every run says it anew."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def decline(refusal: str, run: str, ledger: str, report: dsl.Output[dsl.Artifact]):
    """Record why this run trains nothing."""
    from components import home, step
    from components.decline import core
    from components.records import Records

    with step.running("decline") as log:
        result = core.decline(refusal)
        log.hand_over(result, report.path)
        Records(home.store(), ledger, run).write("decline", result.model_dump(mode="json"))
