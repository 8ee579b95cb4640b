"""Kubeflow wrapper of ``score``. Uncached: the champion is the one of the moment."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def score(
    input_address: str,
    output_address: str,
    ledger: str,
    config: str,
    report: dsl.Output[dsl.Artifact],
):
    """Answer all rows of a Parquet file with the champion."""
    from components import home, step
    from components.ledger import Ledger
    from components.score import core
    from components.score.addresses import local_files
    from components.serve.model import BundleModel

    with step.running("score") as log:
        store = home.store()
        with local_files(input_address, output_address) as (source, target):
            result = core.score(
                source,
                target,
                Ledger(store, ledger),
                lambda digest: BundleModel.load(store, digest),
                core.ScoreConfig.from_json(config),
                parts=home.home() / "scores" / core.parts_name(input_address, output_address),
                progress=log.progress,
            )
        log.hand_over(result, report.path)
