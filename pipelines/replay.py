"""Play a project's windows in order, as production would have seen them.

Window 1 goes through the training graph, each later one through the monitoring graph,
in a ledger of its own that starts empty. The labels of a window reach the stream of
errors one window late; a trigger that fires buys the labels of its window. At the end
the last champion is published to the project's ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pandas as pd

from components import home
from components.errors import SourceError
from components.freeze import Freezes
from components.ledger import Entry, Ledger
from components.page import link, page, paragraph, section, table
from components.resolve.core import windows_with_rows
from components.settings import Section
from components.sources import Source, open_source
from components.tasks import TaskConfig
from components.trigger.config import TriggerConfig
from components.windows import Window
from pipelines.backtest import ALWAYS, ORACLE, Backtest, Point, compare
from pipelines.history import page_of
from pipelines.project import ProjectConfig
from pipelines.runners import Run, Watch, new_run_id, run_project

LABELS_NOTE = (
    "The labels of a window reach the stream of errors one window late. "
    "A retrain buys the labels of its own window."
)


class WindowResult(Section):
    """What became of one window."""

    window: str
    rows: str
    """Names of the files whose rows are in the window, if they have names."""
    drifted: bool | None
    """None for the first window, which nothing is compared with."""
    trigger: str | None
    """``manual``, ``drift``, ``performance``, or None without training."""
    decision: str
    """``promote``, ``keep``, ``inconclusive``, ``quiet`` or ``nothing to train on``."""
    champion: str
    """Version in production afterwards, empty for none."""
    score_before: float | None
    """Accuracy or R² of the champion before, on the window's test rows; None without one."""
    score_after: float | None
    """Of the champion afterwards, on the same rows."""
    device_hours: float
    """What the training cost, also if it was kept from an earlier run; 0 without one."""
    seconds: float
    report: str
    """The page of the run."""


_DECISIONS = {"promoted": "promote", "kept": "keep"}


def replay(
    project: ProjectConfig,
    *,
    windows: int | None,
    publish: bool,
    caching: bool,
    watching: Callable[[str], AbstractContextManager[Watch]],
) -> list[WindowResult]:
    """Play the first ``windows`` windows, all without a number; return what became of each.

    Args:
        project: what to play.
        windows: how many windows.
        publish: whether the last champion goes into the project's own ledger.
        caching: whether steps may be answered from the cache.
        watching: shows a run under a title while it goes on.

    Raises:
        SourceError: there are no rows.
        Frozen: it would publish a champion, and somebody stopped all promotions.
        StepFailed: a step failed; the windows before it stand.
    """
    played = new_run_id()
    ledger = project.replay_ledger(played)
    # The alias follows the project's ledger, not this one.
    quiet = project.deploy.model_copy(
        update={"mirror_alias": False, "rollout": None, "target": "local"}
    )
    rehearsal = project.model_copy(update={"deploy": quiet})
    if publish:
        Freezes(home.store(), project.ledger).refuse("a replay that publishes its champion")
    expected = Ledger(home.store(), project.ledger).generation
    source = open_source(project.source)
    calendar = windows_with_rows(project.resolve, source, datetime.now(UTC))[:windows]
    if not calendar:
        raise SourceError(f"{project.name} has no complete window with rows to play")
    results: list[WindowResult] = []
    for number, window in enumerate(calendar, 1):
        names = names_in(project, window)
        title = f"window {number} of {len(calendar)}: {window.name} {names}".rstrip()
        has_champion = Ledger(home.store(), ledger).head() is not None
        with watching(title) as watch:
            run = run_project(
                rehearsal,
                "monitoring" if has_champion else "training",
                window=window.name,
                cause="manual",
                ledger=ledger,
                caching=caching,
                clock=window.end,
                watch=watch,
            )
        results.append(_result(window, names, run, source, project.task))
    if publish:
        publish_champion(project, Ledger(home.store(), ledger), played, expected)
    return results


def backtest(
    project: ProjectConfig,
    policies: Mapping[str, TriggerConfig],
    *,
    windows: int | None,
    caching: bool,
    watching: Callable[[str], AbstractContextManager[Watch]],
) -> Backtest:
    """Play policies over the same windows, and an oracle that retrains on each; publish nothing.

    What several of them train is trained once: the cache shares it.

    Raises:
        SourceError: there are no rows.
        StepFailed: a step failed.
    """
    points = {}
    for name, policy in {**policies, ORACLE: ALWAYS}.items():
        results = replay(
            project.model_copy(update={"trigger": policy}),
            windows=windows,
            publish=False,
            caching=caching,
            watching=partial(_titled, watching, name),
        )
        points[name] = [
            Point(
                window=each.window,
                # Nobody served in the first window.
                score=each.score_before,
                retrained=bool(each.trigger) and number > 0,
                device_hours=each.device_hours if number else 0.0,
                score_after=each.score_after,
            )
            for number, each in enumerate(results)
        ]
    return compare(points)


def _titled(
    watching: Callable[[str], AbstractContextManager[Watch]], policy: str, title: str
) -> AbstractContextManager[Watch]:
    return watching(f"{policy}, {title}")


def names_in(project: ProjectConfig, window: Window) -> str:
    """Return the names of the files that are played in a window."""
    names = [part.name for part in project.source.parts if part.at == window.name]
    return ", ".join(sorted(set(filter(None, names))))


def publish_champion(
    project: ProjectConfig, played: Ledger, by: str, expected: int
) -> Entry | None:
    """Make a replay's last champion the project's, if it is not so already.

    Raises:
        Frozen: somebody stopped all promotions.
        StalePromotion: the project's champion moved since the replay began.
    """
    Freezes(home.store(), project.ledger).refuse("the publication of a replay")
    last, own = played.head(), Ledger(home.store(), project.ledger)
    if last is None:
        return None
    head = own.head()
    if head is None or head.bundle != last.bundle:
        head = own.append(
            action="publish",
            bundle=last.bundle,
            version=last.version,
            key=f"replay-{by}",
            by=f"replay {by}",
            reason=f"champion at the end of a replay: {last.reason}",
            expected=expected,
        )
    home.registry(project.name).mirror(head.version)
    return head


def _result(window: Window, names: str, run: Run, source: Source, task: TaskConfig) -> WindowResult:
    outcome = run.outcome
    drift, evaluated = run.steps.get("drift"), run.steps.get("evaluate")
    scores = evaluated.content()["scores"] if evaluated else {}
    name = task.score_name
    before: float | None = None
    if "champion" in scores:
        before = scores["champion"]["test"][name]
    elif "collect" in run.steps:
        answers = run.steps["collect"].artifact("collected") / "current.parquet"
        before = score_on_test(answers, source.read(window).frame, task)
    trained = "finetune" in run.steps
    after = scores["challenger"]["test"][name] if outcome["result"] == "promoted" else before
    return WindowResult(
        window=window.name,
        rows=names,
        drifted=drift.content()["drifted"] if drift else None,
        trigger=outcome["cause"] or None,
        decision=_DECISIONS.get(outcome["result"], outcome["result"]),
        champion=outcome["champion_version"],
        score_before=before,
        score_after=after,
        device_hours=run.steps["finetune"].content()["device_hours"] if trained else 0.0,
        seconds=round(run.seconds, 1),
        report=str(page_of(run, "notify", "page")),
    )


def score_on_test(answers: Path, rows: pd.DataFrame, task: TaskConfig) -> float | None:
    """Return the accuracy or R² of the answers that ``collect`` kept, on the test rows.

    The labels are those that production gets later; they are used to report only.
    """
    frame = pd.read_parquet(answers, columns=["id", "is_test", "answer"])
    test = frame[frame["is_test"]].merge(rows[["id", "label"]], on="id")
    test = test[task.known(test["label"])]
    return task.score(test["label"].tolist(), test["answer"].tolist()) if len(test) else None


def to_html(project: ProjectConfig, results: list[WindowResult]) -> str:
    """Return a page about a whole replay."""
    header = ("window", "rows", "drifted", "trained for", "decision", "version", "before", "after")
    return page(
        f"Replay of {project.name}",
        paragraph(LABELS_NOTE),
        table(
            header,
            [
                (
                    result.window,
                    result.rows,
                    {None: "–", True: "drifted", False: "quiet"}[result.drifted],
                    result.trigger or "–",
                    result.decision,
                    result.champion or "–",
                    "–" if result.score_before is None else result.score_before,
                    "–" if result.score_after is None else result.score_after,
                )
                for result in results
            ],
        ),
        paragraph(
            f"Before and after: {project.task.score_title} of the champion on the window's own "
            "test rows."
        ),
        section(
            "Each window",
            *(link(f"{each.window} {each.rows}", Path(each.report).as_uri()) for each in results),
        ),
    )
