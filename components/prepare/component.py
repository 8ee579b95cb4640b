"""Kubeflow wrapper of ``prepare``."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def prepare(
    good: dsl.Input[dsl.Dataset],
    digest: str,
    window: str,
    window_end: str,
    fingerprint: str,
    task: str,
    base: str,
    admission: str,
    code: str,
    config: str,
    prepared: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.Artifact],
) -> NamedTuple("Outputs", [("digest", str)]):
    """Split and embed; ``digest`` and ``code`` are there for the cache key."""
    from pathlib import Path

    from components import home, step
    from components.embeddings import KeptEmbeddings
    from components.plan import Admission, Base
    from components.prepare import core
    from components.quarantine import keeper, taken_in
    from components.tasks import parse_task

    with step.running("prepare") as log:
        learnt = parse_task(task)
        embeddings = KeptEmbeddings(home.store(), Base.from_json(base), learnt, code)
        result = core.prepare(
            Path(good.path),
            window,
            window_end,
            Path(prepared.path),
            learnt,
            core.PrepareConfig.from_json(config),
            lambda contents: embeddings.vectors(fingerprint, contents, log.progress),
            confirmed=taken_in(home.store(), Admission.from_json(admission)),
            keep=keeper(home.store(), Admission.from_json(admission)),
        )
        prepared.metadata.update(digest=result.digest, **result.rows_by_split)
        log.hand_over(result, report.path)
    return (result.digest,)
