"""Look at the outside world once, so that every later step is a pure function.

Unchanged data then hits the cache and changed data never does, and a run can be
played again from its plan.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, model_validator

from components import bundle
from components.erasures import Erasures
from components.errors import BundleError, NoChampion, SourceError, UserError
from components.freeze import Freezes
from components.ledger import Entry
from components.packages import locate
from components.plan import Admission, Base, Bases, Data, Live, Plan, Served, WindowData
from components.quarantine import Readmissions
from components.request_log import RequestLog
from components.settings import Section, digest_of
from components.sources import Source, SourceConfig, open_source
from components.store import Store
from components.tasks.weights import BLANK
from components.windows import ALL_TIME, Day, TrainingQuery, Window, ZoneName, consecutive

_NUMERIC = (
    "numpy",
    "pandas",
    "pandera",
    "pillow",
    "pyarrow",
    "safetensors",
    "tokenizers",
    "scikit-learn",
    "scipy",
    "torch",
    "transformers",
)
_PINS = "constraints.txt"
MOVING = ("latest", "now")
"""Names of windows that mean another one as time goes by."""
_WEIGHT_FILES = (".safetensors", ".pth", ".json", ".txt", ".model")


class ResolveConfig(Section):
    """Section ``resolve``: the windows of the project."""

    timezone: ZoneName = "UTC"
    window_days: int | None = Field(default=None, ge=1, le=3660)
    """Length of a window in local calendar days; None takes all rows as one window."""
    start: Day | None = None
    """First day of the first window, YYYY-MM-DD."""
    history_windows: Annotated[int, Field(ge=0, le=520)] | Literal["all"] = 8
    """How many earlier windows a training run sees, for rehearsal and for the guard: the
    last so many (they roll), or ``all`` (they grow)."""
    watermark_hours: int = Field(default=0, ge=0, le=24 * 366)
    """How long after its end a window is waited for, because rows come late."""
    training: TrainingQuery | None = None
    """Which windows a run sees, instead of ``history_windows``, as a sentence:
    ``last 90 days, skip the last 1 day, at least 2,000 rows``."""
    label_delay_windows: int = Field(default=1, ge=0)
    """After how many windows the labels of a window are known."""

    @model_validator(mode="after")
    def _windows_need_a_start(self) -> ResolveConfig:
        if (self.window_days is None) != (self.start is None):
            raise ValueError("window_days and start go together: set both or neither")
        if self.training is not None and self.window_days is None:
            raise ValueError("training counts days: set window_days and start as well")
        return self


class ResolveReport(Section):
    """The plan, and the few words of it that later pages show."""

    schema_version: int = 1
    plan: Plan
    window: str
    champion_version: str
    cause: str
    now: str
    """The clock that the run goes by, in the project's time zone."""

    @property
    def headline(self) -> str:
        """The one thing to see."""
        champion = (
            f"champion version {self.champion_version}" if self.plan.champion else "no champion"
        )
        return f"window {self.window}, {self.plan.live.current.rows:,} rows, {champion}"


def resolve(
    *,
    project: str,
    source: SourceConfig,
    bases: Bases,
    config: ResolveConfig,
    window: str,
    purpose: str,
    head: Entry | None,
    store: Store,
    now: datetime,
    ledger: str = "",
) -> Plan:
    """Return the plan of a run.

    Args:
        project: the project's name.
        source: where rows come from.
        bases: the pretrained models that the project names.
        config: the section ``resolve``.
        window: ``latest`` (the last whole window that has rows), ``now`` (the last
            whole window), or the first day of a window.
        purpose: ``monitoring`` needs a champion, ``training`` and ``tuning`` do not.
        head: the ledger's last entry.
        store: holds the champion's bundle.
        now: the present, with an offset.
        ledger: prefix of the run's ledger; the project's own, or a replay's.

    Raises:
        UserError: there is no such window.
        NoChampion: nothing to monitor yet.
        MissingPackage, ConfigError, SourceError, BundleError: data or weights are not there.
    """
    if purpose == "monitoring" and head is None:
        raise NoChampion(
            f"{project} has no model in production to watch; train one: tokiwa run PROJECT, "
            "with the project's file or name"
        )
    opened = open_source(source, store)
    windows = known_windows(config, now)
    current = _choose(windows, window, opened, project)
    data = _planned(config, windows[: windows.index(current) + 1], opened, project)
    return Plan(
        project=project,
        data=Data(source=source, windows=data),
        live=Live(
            source=source,
            current=data[-1],
            labelled=_labelled(data, config.label_delay_windows, head, store),
        ),
        bases=known(bases),
        admission=_admission(f"projects/{project}", ledger, current, opened, source, store, now),
        champion=head.bundle if head else "",
        champion_version=head.version if head else "",
        generation=head.number if head else 0,
        erasures=Erasures(store, f"projects/{project}").last,
        code=code_version(),
    )


def clock(given: str, config: ResolveConfig) -> datetime:
    """Return the present in the project's time zone: the only look of a run at the clock.

    Args:
        given: a moment to take for the present, ISO 8601 with an offset; empty for none.
        config: the section ``resolve``.

    Raises:
        UserError: what is given is no such moment.
    """
    try:
        moment = datetime.fromisoformat(given) if given else datetime.now(UTC)
    except ValueError as error:
        raise UserError(f"the clock {given!r} is not ISO 8601") from error
    if moment.tzinfo is None:
        raise UserError(f"the clock {given!r} has no offset from UTC")
    return moment.astimezone(ZoneInfo(config.timezone))


def allow(purpose: str, freezes: Freezes) -> None:
    """Raise ``Frozen`` if the run is to train while the project is frozen.

    Monitoring goes on: its trigger looks at the freeze itself.
    """
    if purpose == "training":
        freezes.refuse("a training")


def known_windows(config: ResolveConfig, now: datetime) -> list[Window]:
    """Return all windows that have ended by now, in order."""
    if config.window_days is None or config.start is None:
        return [ALL_TIME]
    first = date.fromisoformat(config.start)
    zone, late = ZoneInfo(config.timezone), timedelta(hours=config.watermark_hours)
    return consecutive(first, config.window_days, zone, now - late)


def windows_with_rows(config: ResolveConfig, source: Source, now: datetime) -> list[Window]:
    """Return the whole windows that have rows, in order."""
    return [window for window in known_windows(config, now) if source.facts(window).rows]


def window_called(name: str, windows: Sequence[Window], project: str) -> Window:
    """Return the window that begins on a day, or ``all`` where that is the only one.

    Raises:
        UserError: there is none; the message says which there are.
    """
    for window in windows:
        if window.name == name:
            return window
    if not windows:
        raise UserError(f"{project}: no window is complete yet; see resolve.start")
    known = (
        f"its only window is {windows[0].name}"
        if len(windows) == 1
        else f"windows begin on {windows[0].name} … {windows[-1].name}"
    )
    raise UserError(f"{project} has no window {name!r}; {known}")


def _choose(windows: Sequence[Window], wanted: str, source: Source, project: str) -> Window:
    if not windows or wanted not in MOVING:
        return window_called(wanted, windows, project)
    if wanted == "now":
        return windows[-1]
    filled = (window for window in reversed(windows) if source.facts(window).rows)
    return next(filled, windows[-1])


def _planned(
    config: ResolveConfig, windows: Sequence[Window], source: Source, project: str
) -> list[WindowData]:
    """Return what a run reads of the windows up to the current one, the earliest first."""
    if config.training is not None:
        rows = functools.cache(lambda place: source.facts(windows[place]).rows)
        chosen = config.training.choose(windows, rows)
        if not chosen:
            raise UserError(
                f"{project}: resolve.training finds no window for {config.training.written!r}; "
                f"there are {len(windows)}, up to {windows[-1].name}"
            )
        return [_fingerprint(source, each) for each in chosen]
    last = None if config.history_windows == "all" else config.history_windows + 1
    return [_fingerprint(source, each) for each in windows[-last if last else None :]]


def _fingerprint(source: Source, window: Window) -> WindowData:
    return WindowData(window=window, **source.facts(window).model_dump())


def _admission(
    project: str,
    ledger: str,
    current: Window,
    opened: Source,
    source: SourceConfig,
    store: Store,
    now: datetime,
) -> Admission:
    # A window of time is over when a run reads it, so that none of its rows is of later.
    span = opened.span() if current == ALL_TIME else None
    is_past = span is None or datetime.fromisoformat(span[1]) <= now
    keeps = ledger == project
    return Admission(
        project=project,
        readmissions=Readmissions(store, project).last,
        keeps=keeps,
        horizon="" if is_past else now.isoformat(),
        served=_served(project, current, store) if keeps and source.kind != "requests" else None,
    )


def _served(project: str, window: Window, store: Store) -> Served | None:
    files = RequestLog(store, project).files(window.begins, window.ends)
    return Served(window=window, files=digest_of(files)) if files else None


def _labelled(
    data: Sequence[WindowData], delay_windows: int, head: Entry | None, store: Store
) -> list[WindowData]:
    if head is None:
        return []
    raw = store.get(f"{bundle.key_of(head.bundle)}/{bundle.DESCRIPTION}")
    trained_until = bundle.Description.from_json(raw.decode()).lineage.get("window_end", "")
    come = data[: max(0, len(data) - delay_windows)]
    return [
        each
        for each in come
        if trained_until and each.window.begins >= datetime.fromisoformat(trained_until)
    ]


def known(bases: Bases) -> Bases:
    """Return what a training reads with the digests of its files, see ``known_base``."""
    return Bases(
        models=tuple(map(known_base, bases.models)),
        others={place: _file_digest(locate(place)) for place in sorted(bases.others)},
    )


def _file_digest(path: Path) -> str:
    """Return the digest of a file, or of a folder of weights."""
    if path.is_dir():
        return weights_digest(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_base(base: Base) -> Base:
    """Return a pretrained model with the digest of its files.

    Raises:
        MissingPackage, ConfigError: there is nothing at its place.
        BundleError: it holds no weights that may be loaded, or others than the project names.
    """
    folder = base.locate()
    digest = weights_digest(folder)
    if base.digest not in ("", digest):
        raise BundleError(
            f"the weights in {folder} have digest {digest}, "
            f"and finetune.base asks for {base.digest}"
        )
    return base.model_copy(update={"digest": digest})


@cache
def weights_digest(folder: Path) -> str:
    """Return the digest of a pretrained model's weights, configuration and tokenizer.

    Raises:
        BundleError: the folder holds neither safetensors nor a .pth file, of which only
            tensors are ever loaded, nor is it a base that has none.
    """
    forms = ("*.safetensors", "*.pth", BLANK)
    if not any(path for kind in forms for path in folder.glob(kind)):
        pickled = [path.name for pattern in ("*.bin", "*.pt") for path in folder.glob(pattern)]
        held = f"; {', '.join(pickled)} is pickle, which is never loaded" if pickled else ""
        raise BundleError(f"{folder} holds no safetensors weights{held}")
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in _WEIGHT_FILES and path.is_file():
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


@cache
def code_version() -> str:
    """Return the digest of the steps' source and of the libraries that decide numbers.

    A package that was edited or upgraded must not be answered from the cache.
    """
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    for name in _NUMERIC:
        digest.update(f"{name}=={_version(name, root.parent / _PINS)}".encode())
    return digest.hexdigest()[:16]


def _version(library: str, pins: Path) -> str:
    """Return the version of a library, also of one that only the image of training has."""
    try:
        version = metadata.version(library)
    except metadata.PackageNotFoundError as error:
        # The images lay down what they were built with; a checkout has the same file there.
        pinned = pins.read_text().splitlines() if pins.is_file() else []
        version = next((pin for pin in pinned if pin.startswith(f"{library}==")), "")
        if not version:
            raise SourceError(f"{library} is not installed beside Tokiwa") from error
        version = version.partition("==")[2]
    # `+cpu` and `+cu130` are builds of the same release.
    return version.partition("+")[0]
