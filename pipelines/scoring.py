"""The graph of ``tokiwa score``: one step, which answers all rows of a file."""

from kfp import dsl

from components.score.component import score
from pipelines.placement import Placement, place


def scoring_of(placement: Placement | None = None):
    """Return the graph; without a placement for here."""

    @dsl.pipeline(name="tokiwa-scoring", description="Answer all rows of a Parquet file.")
    def scoring(input_address: str, output_address: str, score_config: str, ledger: str = ""):
        """Answer with the champion of the moment."""
        score(
            input_address=input_address,
            output_address=output_address,
            ledger=ledger,
            config=score_config,
        ).set_caching_options(False)
        place(placement)

    return scoring
