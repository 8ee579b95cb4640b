"""The graph of ``tokiwa tune``: ``resolve → ingest → validate → prepare → search → choose``.

It trains no challenger and promotes nothing. Its steps are those of ``training``, given
the same: what is tuned first is found again, in the cache and in the study, by a run.
"""

from kfp import dsl

from components.decline.component import decline
from components.ingest.component import ingest
from components.prepare.component import prepare
from components.resolve.component import resolve
from components.validate.component import validate
from pipelines.body import searched


def tuning_of(workers: int = 1):
    """Return the graph for a project whose search has so many workers."""

    @dsl.pipeline(name="tokiwa-tuning", description="Search for good hyperparameters.")
    def tuning(
        project: str,
        task: str,
        source: str,
        bases: str,
        resolve_config: str,
        ingest_config: str,
        validate_config: str,
        prepare_config: str,
        finetune_config: str,
        window: str = "now",
        cause: str = "manual",
        ledger: str = "",
        run: str = "",
    ):
        """Search on one window and the ones before it."""
        resolved = resolve(
            project=project,
            source=source,
            bases=bases,
            config=resolve_config,
            window=window,
            purpose="tuning",
            run=run,
            job=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            ledger=ledger,
            cause=cause,
            clock="",
        ).set_caching_options(False)
        code = resolved.outputs["code"]
        ingested = ingest(data=resolved.outputs["data"], code=code, config=ingest_config)
        validated = validate(
            snapshot=ingested.outputs["snapshot"],
            digest=ingested.outputs["digest"],
            window=resolved.outputs["window"],
            window_end=resolved.outputs["window_end"],
            admission=resolved.outputs["admission"],
            task=task,
            code=code,
            config=validate_config,
        )
        with dsl.If(validated.outputs["Output"] == False):
            decline(
                refusal=validated.outputs["refusal"], run=resolved.outputs["run"], ledger=ledger
            ).set_caching_options(False)
        with dsl.If(validated.outputs["Output"] == True):
            prepared = prepare(
                good=validated.outputs["good"],
                digest=validated.outputs["good_digest"],
                window=resolved.outputs["window"],
                window_end=resolved.outputs["window_end"],
                fingerprint=resolved.outputs["fingerprint"],
                task=task,
                base=resolved.outputs["base"],
                admission=resolved.outputs["admission"],
                code=code,
                config=prepare_config,
            )
            searched(
                workers,
                prepared=prepared.outputs["prepared"],
                task=task,
                bases=resolved.outputs["bases"],
                champion=resolved.outputs["champion"],
                code=code,
                config=finetune_config,
            )

    return tuning
