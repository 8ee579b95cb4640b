"""Kubeflow wrapper of ``drift``."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def drift(
    collected: dsl.Input[dsl.Dataset],
    digest: str,
    champion: str,
    window: str,
    code: str,
    config: str,
    report: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    verdict: dsl.Output[dsl.Markdown],
    evidently: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
):
    """Compare with the champion's profile; ``digest`` and ``code`` are for the cache key."""
    from pathlib import Path

    from components import bundle, home, step
    from components.drift import core
    from components.drift.evidently_report import evidently_html
    from components.drift.report import to_html, to_markdown

    with step.running("drift") as log:
        settings = core.DriftConfig.from_json(config)
        profile, rows = bundle.fetch(home.store(), champion), Path(collected.path)
        result = core.detect(profile, rows, settings)
        log.hand_over(result, report.path)
        Path(page.path).write_text(to_html(result, profile, rows, window, settings))
        Path(verdict.path).write_text(to_markdown(result, window))
        Path(evidently.path).write_text(evidently_html(profile, rows, settings.evidently))
        metrics.metadata.update(core.to_metrics(result))
        Path(metrics.path).write_text(step.as_json(metrics.metadata))
