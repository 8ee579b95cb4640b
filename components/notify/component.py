"""Kubeflow wrapper of ``notify``, the exit handler of both graphs. Uncached."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def notify(
    status: dsl.PipelineTaskFinalStatus,
    project: str,
    run: str,
    job: str,
    ledger: str,
    cause: str,
    config: str,
    outcome: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
):
    """Say how the run ended, as JSON and as a page, and close the event it worked on."""
    from pathlib import Path

    from components import home, step
    from components.ledger import Events
    from components.notify import core
    from components.records import Records

    with step.running("notify") as log:
        store, this_run = home.store(), run or job
        records = Records(store, ledger, this_run)
        result = core.conclude(
            project=project,
            run=this_run,
            cause=cause,
            state=status.state,
            error=status.error_message,
            records=records.read(),
        )
        core.close_event(result, Events(store, ledger))
        log.hand_over(result, outcome.path)
        records.write("notify", result.model_dump(mode="json"))
        Path(page.path).write_text(core.to_html(result, core.NotifyConfig.from_json(config)))
