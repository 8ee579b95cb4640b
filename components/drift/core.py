"""Compare production with the champion's profile: has it moved, and does it hurt?

*Moved* says that inputs, embeddings or answers are not distributed as they were. *Hurts*
says that the champion got worse: measured where labels have come, and estimated where they
have not. On big data everything moves; what hurts is worth a retrain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from components.drift.detectors import DETECTORS
from components.drift.detectors.detector import Stream
from components.drift.detectors.page_hinkley import PageHinkley
from components.drift.findings import Choice, Finding, Level, compared, schema_changes
from components.drift.gaps import GAP
from components.drift.performance import (
    Performance,
    Reconciled,
    Score,
    estimated,
    measured,
    of_errors,
    reconciled,
)
from components.profile import DECIDED, PROBABILITY, Answers, Profile, group_numbers
from components.settings import Section

NumberDetector = Literal[
    "kolmogorov-smirnov", "wasserstein", "population-stability", "jensen-shannon"
]
CategoryDetector = Literal["chi-squared", "g-test", "population-stability", "jensen-shannon"]
VectorDetector = Literal["mmd", "domain-classifier"]
StreamDetector = Literal["page-hinkley", "adwin", "ddm"]
Kind = Literal["none", "data", "concept", "data and concept"]
_KINDS: dict[tuple[bool, bool], Kind] = {
    (False, False): "none",
    (True, False): "data",
    (False, True): "concept",
    (True, True): "data and concept",
}


class DriftConfig(Section):
    """Section ``drift``."""

    false_discovery_rate: float = Field(default=0.01, gt=0, lt=1)
    """Share of what is said to have moved that moved by chance, at most, on average."""
    numbers: tuple[NumberDetector, ...] = ("kolmogorov-smirnov",)
    """What looks at columns of numbers and at each component of the embeddings."""
    categories: tuple[CategoryDetector, ...] = ("chi-squared",)
    """What looks at answers, languages and other kinds."""
    vectors: tuple[VectorDetector, ...] = ("domain-classifier",)
    """What looks at the embeddings as a whole."""
    errors: tuple[StreamDetector, ...] = ("page-hinkley",)
    """What looks at the stream of errors, or of confidence where no labels have come."""
    min_effect: dict[
        NumberDetector | CategoryDetector | VectorDetector, Annotated[float, Field(gt=0)]
    ] = {}
    """Effect from which a change counts, by detector, where it is not the detector's own."""
    min_rows: int = Field(default=100, ge=10)
    """Fewer rows are not enough for a verdict."""
    score: Score = "accuracy"
    """What performance is measured by, of a classifier."""
    max_drop: float = Field(default=0.05, gt=0, lt=1)
    """Share of the score that may be lost before it hurts."""
    max_gap: float = Field(default=0.1, gt=0, lt=1)
    """By how much the error rate of a kind of rows, such as a country's, may rise above that of
    all others, more than it did when the champion was trained, before it hurts."""
    evidently: bool = False
    """Write Evidently's report as a second page; it needs the package evidently."""
    error_tolerance: float = Field(default=0.05, ge=0, lt=1)
    """Page-Hinkley's delta: a rise of the error rate that is tolerated."""
    error_threshold: float = Field(default=20.0, gt=0)
    """Page-Hinkley's threshold: more means fewer false alarms and a longer delay."""


class DriftReport(Section):
    """Whether the inputs moved, and whether it hurts: two findings, not one."""

    schema_version: int = 2
    window: str
    """The window that the champion was trained on, with which this one is compared."""
    rows: int
    needed_rows: int
    """Fewer rows are not enough for a verdict."""
    enough: bool
    """Whether there were rows enough for a verdict on the inputs."""
    moved: bool
    """At least one feature of inputs, embeddings or answers moved."""
    hurts: bool | None
    """Whether the champion got worse by more than is tolerated; None: it cannot be told."""
    kind: Kind
    """Data drift: what comes in moved. Concept drift: errors rose more than that explains."""
    drifted: bool
    """Inputs moved or it hurts: something speaks for a retrain."""
    alerts: dict[str, Level]
    """What a person should know: the highest level of what moved, by what is watched, and 3 for
    a performance that is hurt; see ``components.alerts``."""
    level: Level
    """The highest of all alerts, 0 for none."""
    moved_features: int
    watched_features: int
    findings: list[Finding]
    """All that is watched, the largest effect first."""
    behind: str = ""
    """Which kinds of rows fell behind the others, in words; empty for none."""
    rose: str = ""
    """From where on errors rose, in words; empty if no detector of streams says so, or if what
    was measured since says that it does not hurt."""
    schema_changes: list[str]
    """How the columns differ from those of the profile, in words."""
    measured: Performance | None
    """Of the newest window of whose labels enough have come."""
    estimated: Performance | None
    """Of this window, whose labels have not come."""
    reconciled: list[Reconciled]
    """Estimates of earlier windows beside what was measured, in the order of time."""
    labelled_rows: int
    error_rate_before: float
    """On the validation rows, when the champion was trained."""
    error_rate: float | None
    """On the labelled rows since; None without any."""
    error_alarm_row: int | None
    """Where in the labelled rows a detector first raised an alarm that still counts."""

    @property
    def harms(self) -> list[str]:
        """What says that it hurts, or did, and of which rows, in words."""
        said = [each for each in (self.measured, self.estimated) if each and each.hurts]
        fell = [
            f"{each.source} {each.score.replace('_', ' ')} fell from {each.before:.3f} to "
            f"{each.now:.3f} in {f'window {each.window}' if each.window else 'this window'}"
            for each in said
        ]
        return [*fell, *filter(None, (self.rose, self.behind))]

    @property
    def _weakness(self) -> str:
        """Why nothing says that it does not hurt: there was nothing to be lost."""
        for each in (self.measured, self.estimated):
            if each and each.hurts is None and each.is_guessing:
                return (
                    f"; it was not shown to be better than guessing when it was trained "
                    f"({each.score.replace('_', ' ')} {each.before:.3f}, the commonest class "
                    f"alone {each.guessing:.3f})"
                )
        return ""

    @property
    def headline(self) -> str:
        """The one thing to see."""
        harm = {True: "hurts", False: "does not hurt", None: "harm unknown"}[self.hurts]
        past = "as it was estimated to, and no more: " if self.hurts is False else ""
        why = "".join(f"; {past}{each}" for each in self.harms) + self._weakness
        if not self.enough:
            return f"not enough data: {self.rows} rows, {self.needed_rows} are needed; {harm}{why}"
        worst = next((each for each in self.findings if each.p_value is not None), None)
        state = "moved" if self.moved else "quiet"
        most = f", most {worst.name} by {worst.effect:.2f}" if worst else ""
        share = f"{self.moved_features} of {self.watched_features} features moved"
        return f"{state}, {harm}: {share}{most}{why}"


def detect(profile: Path, current: Path, config: DriftConfig) -> DriftReport:
    """Compare a window with a profile.

    Args:
        profile: the champion's bundle.
        current: folder that ``collect`` wrote.
        config: the section ``drift``.

    Raises:
        BundleError: the bundle has no readable profile.
        ConfigError: a detector needs a package that is not installed.
    """
    reference = Profile.load(profile)
    frame = pd.read_parquet(current / "current.parquet")
    more = current / "inputs.parquet"
    inputs = pd.read_parquet(more) if more.exists() else None
    labelled = pd.read_parquet(current / "errors.parquet")
    errors = labelled["error"].to_numpy(np.float64)
    enough = len(frame) >= config.min_rows
    findings = compared(reference, frame, labelled, choice_of(config), inputs) if enough else []
    moved = sorted({each.name for each in findings if each.moved and each.detector != GAP})
    behind = ", ".join(
        f"{each.name} rose by {each.effect:.2f} beside all others"
        for each in findings
        if each.moved and each.detector == GAP
    )
    begins = _newest(labelled, config.min_rows)
    seen = _measured(reference, labelled[begins:], config) if begins is not None else None
    guessed = _estimated(reference, frame, config) if enough else None
    checked = _reconciled(reference, labelled, config)
    passed = _has_passed(seen, guessed, checked, config.max_drop)
    # Alarms of rows that are older than what says that it does not hurt are past as well.
    unhurt_from = len(errors) if passed else begins if seen and seen.hurts is False else 0
    streams, alarm = _streams(reference, frame, errors, config, unhurt_from or 0)
    hurting = None if passed else seen
    hurts = _hurts(bool(moved), alarm is not None or bool(behind), hurting, guessed)
    changes = schema_changes(reference, frame) if enough else []
    alerts = _alerts([*findings, *streams], hurts, changes)
    worse = alarm is not None or bool(hurting and hurting.hurts)
    # Errors that the answers did not foresee: the same inputs mean something else now.
    surprised = bool(checked) and checked[-1].measured < checked[-1].low
    watched = {each.name for each in findings if each.detector != GAP}
    return DriftReport(
        window=reference.window,
        rows=len(frame),
        needed_rows=config.min_rows,
        enough=enough,
        moved=bool(moved),
        hurts=hurts,
        kind=_KINDS[bool(moved), worse and (surprised or not moved)],
        drifted=bool(moved) or bool(hurts),
        alerts=alerts,
        level=max(alerts.values(), default=0),
        moved_features=len(moved),
        watched_features=len(watched),
        findings=[*findings, *streams],
        behind=behind,
        rose="" if alarm is None else _alarm_in_words(alarm, labelled),
        schema_changes=changes,
        measured=seen,
        estimated=guessed,
        reconciled=checked,
        labelled_rows=len(errors),
        error_rate_before=reference.error_rate,
        error_rate=float(errors.mean()) if len(errors) else None,
        error_alarm_row=alarm,
    )


def choice_of(config: DriftConfig) -> Choice:
    """Return which detectors the section chooses, and from where a change counts."""
    return Choice(
        numbers=config.numbers,
        categories=config.categories,
        vectors=config.vectors,
        min_effect={str(name): effect for name, effect in config.min_effect.items()},
        max_gap=config.max_gap,
        rate=config.false_discovery_rate,
    )


def _alerts(findings: list[Finding], hurts: bool | None, changes: list[str]) -> dict[str, Level]:
    found: dict[str, Level] = {}
    for each in findings:
        if each.level:
            found[each.watched] = max(each.level, found.get(each.watched, 0))
    if changes:
        found["columns"] = 2
    if hurts:
        found["performance"] = 3
    return found


def _hurts(
    moved: bool, alarm: bool, seen: Performance | None, guessed: Performance | None
) -> bool | None:
    """Tell whether it hurts, from what was measured of earlier rows and estimated of these."""
    said = [each.hurts for each in (seen, guessed) if each is not None]
    if alarm or True in said:
        return True
    if guessed is not None:
        return guessed.hurts
    # What was measured says nothing of rows that are not like those.
    return False if said == [False] and not moved else None


def to_metrics(report: DriftReport) -> dict[str, float]:
    """Return the findings as flat numbers for Kubeflow's metrics view."""
    metrics = {
        "moved": float(report.moved),
        "moved_features": float(report.moved_features),
        "level": float(report.level),
    }
    for each in report.findings:
        name = f"largest_{each.detector.replace('-', '_')}"
        metrics[name] = max(each.effect, metrics.get(name, each.effect))
    for performance in (report.measured, report.estimated):
        if performance is not None:
            score = performance.score.replace(" ", "_").replace("_-_", "_minus_")
            metrics[f"{performance.source}_{score}"] = performance.now
    if report.hurts is not None:
        metrics["hurts"] = float(report.hurts)
    if report.error_rate is not None:
        metrics["error_rate"] = report.error_rate
    return metrics


def stream_of(name: StreamDetector, config: DriftConfig, before: float, rows: int) -> Stream:
    """Return a detector for a stream from 0 to 1 whose mean was ``before`` in ``rows`` rows."""
    if name == "page-hinkley":
        return PageHinkley(
            delta=config.error_tolerance,
            threshold=config.error_threshold,
            prior_mean=before,
            prior_count=rows,
        )
    return DETECTORS[name].stream()


def _has_passed(
    seen: Performance | None,
    guessed: Performance | None,
    checked: list[Reconciled],
    max_drop: float,
) -> bool:
    """Tell whether harm that was measured is over: it was foreseen then, and is not seen now.

    An estimate that was right about the harm is believed when it says that there is none. Where
    the labels were a surprise, concepts changed, and no estimate sees whether they still differ.
    """
    if not (seen and seen.hurts and guessed and guessed.hurts is False and checked):
        return False
    then = checked[-1]
    fell = (seen.before - then.estimated) / seen.before
    return then.window == seen.window and then.held and fell >= max_drop


def _alarm_in_words(row: int, labelled: pd.DataFrame) -> str:
    return f"errors rose, alarm at labelled row {row:,} in window {labelled['window'].iloc[row]}"


def _streams(
    profile: Profile,
    frame: pd.DataFrame,
    errors: NDArray[np.float64],
    config: DriftConfig,
    unhurt_from: int,
) -> tuple[list[Finding], int | None]:
    """Return what the detectors of streams say, and the row of the first alarm of errors.

    Alarms of errors before the row ``unhurt_from`` are past.

    Without labels they look at how unsure the champion is instead, which raises no alarm of
    errors, but counts as a finding.
    """
    stream, before, rows, what = errors, profile.error_rate, profile.error_rows, "error"
    if not len(errors):
        confidence = profile.numbers.get("confidence")
        if confidence is None or not confidence.rows or "confidence" not in frame:
            return [], None
        unsure = 1 - frame["confidence"].to_numpy(np.float64)
        stream, what = unsure[np.isfinite(unsure)], "confidence"
        before, rows = 1 - float(confidence.values.mean()), confidence.rows
    findings, first = [], []
    for name in config.errors:
        if len(stream) < DETECTORS[name].min_rows:
            continue
        alarms = stream_of(name, config, float(before), rows).update(stream)
        if what == "error":
            alarms = [alarm for alarm in alarms if alarm >= unhurt_from]
        first += alarms[:1]
        rise = float(stream.mean() - before)
        findings.append(
            Finding(
                name=f"{what} over time",
                watched="error" if what == "error" else "answer",
                detector=name,
                statistic=float(len(alarms)),
                effect=rise,
                threshold=config.error_tolerance,
                p_value=None,
                moved=bool(alarms),
                level=0 if not alarms else 3 if what == "error" else 1,
            )
        )
    return findings, min(first) if first and what == "error" else None


def _newest(labelled: pd.DataFrame, min_rows: int) -> int | None:
    """Return where the newest windows begin that have labels enough together; None without."""
    windows = labelled["window"].to_numpy(object)
    for window in reversed(list(dict.fromkeys(windows))):
        begins = int(np.argmax(windows == window))
        if len(windows) - begins >= min_rows:
            return begins
    return None


def _answers(frame: pd.DataFrame) -> Answers | None:
    """Return a classifier's answers, None of another kind of model."""
    if DECIDED not in frame or not len(frame):
        return None
    names = [name for name in frame if str(name).startswith(PROBABILITY)]
    return Answers(
        frame[names].to_numpy(np.float64),
        frame[DECIDED].to_numpy(np.int64),
        frame["target"].to_numpy(np.int64) if "target" in frame else None,
        group_numbers(frame["group"]),
    )


def _measured(profile: Profile, rows: pd.DataFrame, config: DriftConfig) -> Performance:
    window = " to ".join(dict.fromkeys((rows["window"].iloc[0], rows["window"].iloc[-1])))
    now = _answers(rows)
    if profile.answers is not None and now is not None and now.targets is not None:
        found = measured(profile.answers, now, config.score, config.max_drop)
    else:
        groups = group_numbers(rows["group"])
        errors = rows["error"].to_numpy(np.float64)
        found = of_errors(profile.error_rate, profile.error_rows, errors, groups, config.max_drop)
    return found.model_copy(update={"window": window})


def _estimated(profile: Profile, frame: pd.DataFrame, config: DriftConfig) -> Performance | None:
    now = _answers(frame)
    if profile.answers is None or now is None:
        return None
    return estimated(profile.answers, now, config.score, config.max_drop)


def _reconciled(profile: Profile, labelled: pd.DataFrame, config: DriftConfig) -> list[Reconciled]:
    found = []
    for window in labelled["window"].unique().tolist():
        rows = labelled[labelled["window"] == window]
        now = _answers(rows)
        if profile.answers is not None and now is not None and len(rows) >= config.min_rows:
            found.append(reconciled(str(window), profile.answers, now, config.score))
    return found
