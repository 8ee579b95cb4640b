"""Kubeflow wrapper of ``evaluate``."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def evaluate(
    prepared: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    digest: str,
    bundle: str,
    champion: str,
    task: str,
    code: str,
    config: str,
    predictions: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    verdict: dsl.Output[dsl.Markdown],
) -> str:
    """Compare with the champion; ``digest``, ``bundle`` and ``code`` are for the cache key."""
    from pathlib import Path

    from components import home, step
    from components.bundle import fetch_champion
    from components.evaluate import core
    from components.tasks import parse_task

    with step.running("evaluate") as log:
        result = core.evaluate(
            Path(prepared.path),
            Path(model.path),
            fetch_champion(home.store(), champion),
            Path(predictions.path),
            parse_task(task),
            core.EvaluateConfig.from_json(config),
        )
        log.hand_over(result, report.path)
        Path(page.path).write_text(core.to_html(result))
        Path(verdict.path).write_text(core.to_markdown(result))
        metrics.metadata.update(core.to_metrics(result))
        Path(metrics.path).write_text(step.as_json(metrics.metadata))
        core.tell_confusion(result, confusion.log_confusion_matrix)
        core.tell_roc(result, confusion.log_roc_curve)
        Path(confusion.path).write_text(step.as_json(confusion.metadata))
    return result.verdict
