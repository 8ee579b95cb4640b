"""The part that both graphs share: from a plan to a promotion, or to a reason why not.

::

    ingest → validate → prepare → finetune → evaluate → register ─ promote? ─ deploy
                      │         └ search × n → choose ┘ if the project has finetune.search
                      └ nothing to train on: decline
"""

from kfp import dsl

from components.choose.component import choose
from components.decline.component import decline
from components.deploy.component import deploy
from components.evaluate.component import evaluate
from components.finetune.component import finetune
from components.ingest.component import ingest
from components.prepare.component import prepare
from components.register.component import register
from components.search.component import search
from components.validate.component import validate
from pipelines.placement import Placement, place


def body_of(workers: int, placement: Placement | None = None):
    """Return the body for a project whose search has so many workers; 0 is without search."""

    @dsl.pipeline(name="body")
    def body(
        project: str,
        task: str,
        data: str,
        base: str,
        bases: str,
        admission: str,
        champion: str,
        generation: int,
        code: str,
        window: str,
        window_end: str,
        fingerprint: str,
        run: str,
        ledger: str,
        cause: str,
        ingest_config: str,
        validate_config: str,
        prepare_config: str,
        finetune_config: str,
        evaluate_config: str,
        register_config: str,
        deploy_config: str,
    ):
        """Train a challenger on a plan and let it win or lose."""
        ingested = ingest(data=data, code=code, config=ingest_config)
        validated = validate(
            snapshot=ingested.outputs["snapshot"],
            digest=ingested.outputs["digest"],
            window=window,
            window_end=window_end,
            admission=admission,
            task=task,
            code=code,
            config=validate_config,
        )
        with dsl.If(validated.outputs["Output"] == False):
            decline(
                refusal=validated.outputs["refusal"], run=run, ledger=ledger
            ).set_caching_options(False)
        with dsl.If(validated.outputs["Output"] == True):
            prepared = prepare(
                good=validated.outputs["good"],
                digest=validated.outputs["good_digest"],
                window=window,
                window_end=window_end,
                fingerprint=fingerprint,
                task=task,
                base=base,
                admission=admission,
                code=code,
                config=prepare_config,
            )
            settings = finetune_config
            if workers:
                settings = searched(
                    workers,
                    prepared=prepared.outputs["prepared"],
                    task=task,
                    bases=bases,
                    champion=champion,
                    code=code,
                    config=finetune_config,
                ).outputs["Output"]
            finetuned = finetune(
                prepared=prepared.outputs["prepared"],
                digest=prepared.outputs["digest"],
                project=project,
                window=window,
                window_end=window_end,
                task=task,
                bases=bases,
                champion=champion,
                code=code,
                config=settings,
            )
            evaluated = evaluate(
                prepared=prepared.outputs["prepared"],
                model=finetuned.outputs["model"],
                digest=prepared.outputs["digest"],
                bundle=finetuned.outputs["bundle"],
                champion=champion,
                task=task,
                code=code,
                config=evaluate_config,
            )
            registered = register(
                model=finetuned.outputs["model"],
                predictions=evaluated.outputs["predictions"],
                evaluation=evaluated.outputs["report"],
                training=finetuned.outputs["report"],
                training_run=finetuned.outputs["training_run"],
                generation=generation,
                project=project,
                run=run,
                ledger=ledger,
                cause=cause,
                config=register_config,
            ).set_caching_options(False)
            with dsl.If(evaluated.outputs["Output"] == "promote"):
                deploy(
                    predictions=evaluated.outputs["predictions"],
                    bundle=finetuned.outputs["bundle"],
                    version=registered.outputs["version"],
                    reason=registered.outputs["reason"],
                    generation=generation,
                    code=code,
                    project=project,
                    run=run,
                    ledger=ledger,
                    config=deploy_config,
                ).set_caching_options(False)
        place(placement)

    return body


def searched(workers: int, *, code: str, config: str, **given):
    """Add a search and the choice of its best trial to a graph; return the task that chooses."""
    if workers == 1:
        # Without a loop, for the backends that stumble over one in an exit handler.
        found = search(worker="1", code=code, config=config, **given)
        return choose(studies=[found.outputs["Output"]], code=code, settings=config)
    numbers = [str(number + 1) for number in range(workers)]
    with dsl.ParallelFor(numbers, parallelism=workers) as worker:
        found = search(worker=worker, code=code, config=config, **given)
    return choose(studies=dsl.Collected(found.outputs["Output"]), code=code, settings=config)
