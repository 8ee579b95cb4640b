"""Kubeflow wrapper of ``search``: one worker of a study."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def search(
    prepared: dsl.Input[dsl.Dataset],
    worker: str,
    task: str,
    bases: str,
    champion: str,
    code: str,
    config: str,
    report: dsl.Output[dsl.Artifact],
) -> str:
    """Try hyperparameters until the study has enough trials; return the study's name.

    The digest of the rows comes with them: what another step returns is, inside a loop of
    ``kfp.local``, replaced by the loop's item.
    """
    from pathlib import Path

    from components import bundle, home, step
    from components.plan import Bases
    from components.search import core
    from components.tasks import parse_task

    with step.running("search") as log:
        settings, given = core.FinetuneConfig.from_json(config), Bases.from_json(bases)
        what = parse_task(task)
        result = core.search(
            Path(prepared.path),
            given.models,
            bundle.fetch_champion(home.store(), champion),
            what,
            settings,
            home.studies(),
            core.name_of(prepared.metadata["digest"], given.digest, champion, code, what, settings),
            worker,
            log,
        )
        log.hand_over(result, report.path)
    return result.study
