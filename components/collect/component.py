"""Kubeflow wrapper of ``collect``."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def collect(
    live: str,
    champion: str,
    task: str,
    base: str,
    code: str,
    config: str,
    collected: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.Artifact],
) -> NamedTuple("Outputs", [("digest", str)]):
    """Gather what production saw; ``code`` is there for the cache key."""
    from pathlib import Path

    from components import bundle, home, step
    from components.collect import core
    from components.embeddings import KeptEmbeddings
    from components.plan import Base, Live
    from components.tasks import parse_task

    with step.running("collect") as log:
        store, seen = home.store(), Live.from_json(live)
        embeddings = KeptEmbeddings(store, Base.from_json(base), parse_task(task), code)
        result = core.collect(
            seen,
            bundle.fetch(store, champion),
            Path(collected.path),
            store,
            code,
            core.CollectConfig.from_json(config),
            lambda contents: embeddings.vectors(seen.current.kept_as, contents, log.progress),
        )
        collected.metadata.update(rows=result.rows, digest=result.digest)
        log.hand_over(result, report.path)
    return (result.digest,)
