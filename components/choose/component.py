"""Kubeflow wrapper of ``choose``."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def choose(
    studies: list,
    code: str,
    settings: str,
    trials: dsl.Output[dsl.HTML],
    report: dsl.Output[dsl.Artifact],
) -> str:
    """Return the best trial's settings; ``code`` and ``settings`` are there for the cache key."""
    from pathlib import Path

    from components import home, step
    from components.choose import core

    with step.running("choose") as log:
        result = core.choose(home.studies().load(studies[0]))
        Path(trials.path).write_text(core.to_html(result), encoding="utf-8")
        log.hand_over(result, report.path)
    return result.config
