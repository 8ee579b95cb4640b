"""Kubeflow wrapper of ``summarize``: one partition of a window."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def summarize(
    live: str,
    champion: str,
    partition: str,
    code: str,
    settings: str,
    report: dsl.Output[dsl.Artifact],
):
    """Leave in the store what production saw in a part of the window, in little."""
    from components import bundle, home, step
    from components.plan import Live
    from components.summarize import core

    with step.running("summarize") as log:
        store = home.store()
        result = core.summarize(
            Live.from_json(live),
            bundle.fetch(store, champion),
            store,
            code,
            core.CollectConfig.from_json(settings),
            int(partition),
        )
        log.hand_over(result, report.path)
