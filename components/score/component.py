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

    with step.running("score") as log:
        store = home.store()
        result = core.score_addresses(
            input_address,
            output_address,
            store,
            Ledger(store, ledger),
            core.ScoreConfig.from_json(config),
            home=home.home(),
            progress=log.progress,
        )
        log.hand_over(result, report.path)
