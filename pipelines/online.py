"""Online learning: ``tokiwa online``.

A head that serves is a bundle like any other, the champion's with another last layer, so that
servers, monitoring, history and rollback need know nothing of how it was made.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components import bundle, home
from components.errors import BundleError, ConfigError, NoChampion, StalePromotion
from components.freeze import Freezes
from components.ledger import Entry, Ledger
from components.online.core import Records, follow
from components.online.evidence import Evidence
from components.online.head import Floats, Head
from components.online.kept import KeptHead, Step, digests_of
from components.registry import Registry
from components.resolve.core import known_windows
from components.serve.model import BundleModel
from components.settings import Section
from components.sources import open_source
from components.split import is_test
from components.store import Store
from components.tasks import TASKS
from components.tasks.model import Model, length_order
from pipelines.project import ProjectConfig

BELOW = "online_of"
"""What lineage calls the champion that a head is over."""
BATCH_ROWS = 64
PARITY = 1e-3
"""By so much the answers of a published head may differ from those that were tested."""


class OnlineReport(Section):
    """What a look at new labels led to."""

    new_rows: int
    """Labelled records that were not seen before."""
    rows: int
    """Labelled records since the champion was trained."""
    champion_error: float | None
    """Mean over all of them; None without any."""
    served_error: float | None
    """Of what was, or would have been, answered."""
    p_value: float | None
    """That the head is no better than the champion; None while it serves."""
    serves: bool
    version: str
    """Of the model that serves now."""
    act: str
    """What was changed, in words; empty for nothing."""
    held_back: str
    """Why a head that has won does not serve yet, in words; empty if nothing holds it."""

    @property
    def lines(self) -> list[str]:
        """What a person is told."""
        if not self.rows:
            return ["no labels have come since the champion was trained"]
        head = f"{self.new_rows:,} new labels, {self.rows:,} since the champion was trained"
        errors = (
            f"error rate of the champion {self.champion_error:.3f}, served {self.served_error:.3f}"
        )
        standing = (
            "the head serves"
            if self.serves and not self.held_back
            else f"the head has won and waits: {self.held_back}"
            if self.serves
            else f"the champion serves; that the head is no better has p = {self.p_value:.3g}"
        )
        return [head, errors, self.act or standing]


@dataclass(frozen=True)
class FrozenChampion:
    """The champion below its head.

    Attributes:
        model: as it is loaded.
        folder: its bundle.
        head: its last layer.
    """

    model: Model
    folder: Path
    head: Head

    @classmethod
    def of(cls, folder: Path) -> FrozenChampion:
        """Load a champion's bundle.

        Raises:
            ConfigError: its last layer is no linear one over classes.
        """
        model = TASKS[bundle.describe(folder).task.kind].load(folder)
        head: Any = getattr(model.network, "head", None)
        if not model.answers_are_probabilities or not hasattr(head, "in_features"):
            raise ConfigError(
                "online learning needs a classifier whose last layer is linear; this champion "
                "is none"
            )
        weights, bias = (each.detach().double().numpy() for each in (head.weight, head.bias))
        return cls(model, folder, Head.copy_of(weights, bias))

    def features(self, contents: list[str], progress: Callable[[int, int, str], None]) -> Floats:
        """Return what the head reads ``[n, d]``."""
        import torch

        network: Any = self.model.network
        network.eval()
        examples = self.model.encode(contents)
        order = length_order(examples)
        out = np.zeros((len(examples), self.head.weights.shape[1]))
        with torch.inference_mode():
            for start in range(0, len(order), BATCH_ROWS):
                rows = order[start : start + BATCH_ROWS]
                inputs = self.model.collate([examples[row] for row in rows])
                out[rows] = torch.stack(network.states(network.depth, *inputs)).double().numpy()
                progress(start + len(rows), len(order), "reading new labels")
        return out

    def errors(self, targets: NDArray[np.int64], outputs: Floats) -> Floats:
        """Return how wrong outputs are, as the champion would decide on them ``[n]``."""
        answers = self.model.answers(outputs.astype(np.float32))
        return np.asarray(self.model.decided(answers) != targets, dtype=np.float64)


def learn(
    project: ProjectConfig,
    typed: str,
    progress: Callable[[int, int, str], None],
) -> OnlineReport:
    """Answer and learn the labelled records that have come, and let the better one serve.

    Args:
        project: whose records, from the end of the window that its champion was trained on.
        typed: how the user names the project, for messages.
        progress: told how many records are read, out of how many.

    Raises:
        NoChampion: there is nothing to begin with.
        ConfigError: the champion is no classifier with a linear last layer.
        StalePromotion: somebody else followed, or promoted, at the same moment.
    """
    store, config = home.store(), project.online
    ledger = Ledger(store, project.ledger)
    entry = ledger.head()
    if entry is None:
        raise NoChampion(
            f"{project.name} has no model in production yet, over which a head could learn; "
            f"train one: tokiwa run {shlex.quote(typed)}"
        )
    served = bundle.describe(bundle.fetch(store, entry.bundle))
    below = served.lineage.get(BELOW, entry.bundle)
    frozen = FrozenChampion.of(bundle.fetch(store, below))
    kept = KeptHead(store, project.ledger, below)
    step = _as_it_serves(kept.last(frozen.head), entry.bundle, below)
    since = bundle.describe(frozen.folder).lineage.get("window_end", "")
    frame = _new_records(project, since, step.seen)
    report = step.progress
    if len(frame):
        records = Records(
            frozen.features(frame["text"].tolist(), progress),
            np.asarray(frozen.model.targets(frame["label"].tolist()), dtype=np.int64),
            ~np.asarray(is_test(frame["group"]), dtype=bool),
        )
        report = follow(step.head, frozen.head, report, records, frozen.errors, config)
        step = replace(
            step,
            progress=report,
            seen=np.union1d(step.seen, frame["digest"].to_numpy(np.uint64)),
        )
    held_back = _held_back(project, store) if report.serves else ""
    step, now, act = _let_the_better_serve(
        project, ledger, entry, frozen, step, _last_moment(frame), held_back
    )
    if (len(frame) or act) and not kept.keep(replace(step, number=step.number + 1)):
        raise StalePromotion(
            "somebody else followed the same labels at the same moment; nothing was learnt twice, "
            "run again"
        )
    return OnlineReport(
        new_rows=len(frame),
        rows=report.rows,
        champion_error=report.champion_error / report.rows if report.rows else None,
        served_error=report.served_error / report.rows if report.rows else None,
        p_value=None if report.serves else report.evidence.p_value,
        serves=report.serves,
        version=now.version,
        act=act,
        held_back=held_back,
    )


def _as_it_serves(step: Step, served: str, below: str) -> Step:
    """Return a step that knows of what a person has done since, such as a rollback."""
    if step.progress.serves and step.published and served == below:
        again = step.progress.model_copy(update={"serves": False, "evidence": Evidence()})
        return replace(step, progress=again, published="")
    return replace(step, published="" if served == below else served)


def _new_records(project: ProjectConfig, since: str, seen: NDArray[np.uint64]) -> pd.DataFrame:
    """Return the labelled rows that were not seen yet, oldest first, with their digests."""
    # The store keeps what was read: a look every minute reads what is new.
    source, task = open_source(project.source, home.store()), project.task
    begin = datetime.fromisoformat(since) if since else None
    frames = []
    for window in known_windows(project.resolve, datetime.now(UTC)):
        if begin is None or window.begins >= begin:
            frame = source.read(window).frame
            frame = frame[task.known(frame["label"]) & frame["text"].notna().to_numpy(bool)]
            frame = frame[task.readable(frame["text"])]
            frames.append(frame.sort_values(["time", "id"], kind="stable"))
    if not frames:
        return pd.DataFrame(columns=["text", "digest"])
    every = pd.concat(frames, ignore_index=True)
    every["digest"] = digests_of(every["id"].tolist(), every["label"].tolist())
    return every[~every["digest"].isin(seen)].reset_index(drop=True)


def _last_moment(frame: pd.DataFrame) -> str:
    """Return when the last of the records happened, ISO 8601 in UTC; empty without any time."""
    moments = pd.to_datetime(frame.get("time", pd.Series(dtype=str)), utc=True, format="ISO8601")
    return "" if moments.dropna().empty else moments.max().isoformat()


def _held_back(project: ProjectConfig, store: Store) -> str:
    """Return why a head must not be promoted, in words."""
    held = Freezes(store, project.ledger).state()
    if held is not None:
        return f"{project.name} is {held.words}"
    if project.deploy.approval == "required":
        return "deploy.approval asks for a person, and heads come by themselves"
    return ""


def _let_the_better_serve(
    project: ProjectConfig,
    ledger: Ledger,
    entry: Entry,
    frozen: FrozenChampion,
    step: Step,
    learnt_until: str,
    held_back: str,
) -> tuple[Step, Entry, str]:
    """Promote the head, or the champion again; return the step, what serves, and the act."""
    store, progress = home.store(), step.progress
    below = bundle.digest_of_folder(frozen.folder)
    due = not step.published or progress.rows - step.published_rows >= project.online.publish_rows
    if progress.serves and due and not held_back:
        digest = _publish(store, frozen, below, step, learnt_until)
        if (key := home.signing_key(project.register_.signing_key_env)) is not None:
            key.sign(store, digest)
        fewer = progress.champion_error - progress.served_error
        reason = (
            f"a head over {below[:12]} that learnt {progress.learnt:,} labels errs less; "
            f"{fewer:.0f} fewer errors in {progress.rows:,} records since it began"
        )
        if digest != entry.bundle:
            source = store.uri(bundle.key_of(digest))
            registry = home.registry(project.name)
            version = registry.register(digest, source, None, {"tokiwa.online": below})
            entry = _append(ledger, registry, entry, "promote", digest, version, reason)
        step = replace(step, published=digest, published_rows=progress.rows)
        return step, entry, f"version {entry.version} serves: {reason}"
    if not progress.serves and step.published:
        before = next(each for each in reversed(ledger.entries()) if each.bundle == below)
        reason = f"the head over {below[:12]} errs more than the champion; it begins anew"
        registry = home.registry(project.name)
        entry = _append(ledger, registry, entry, "rollback", below, before.version, reason)
        return replace(step, published=""), entry, f"version {entry.version} serves again: {reason}"
    return step, entry, ""


def _append(
    ledger: Ledger,
    registry: Registry,
    head: Entry,
    action: Literal["promote", "rollback"],
    digest: str,
    version: str,
    reason: str,
) -> Entry:
    entry = ledger.append(
        action=action,
        bundle=digest,
        version=version,
        key=f"online/{digest}/{head.number}",
        by="tokiwa online",
        reason=reason,
        expected=head.number,
    )
    registry.mirror(version)
    return entry


def _publish(
    store: Store, frozen: FrozenChampion, below: str, step: Step, learnt_until: str
) -> str:
    """Seal and publish the champion with the head as its last layer; return the digest.

    Raises:
        BundleError: it answers otherwise than the head that was tested.
    """
    import torch

    description = bundle.describe(frozen.folder)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        left_out = (bundle.MANIFEST, bundle.DESCRIPTION, *description.exports)
        shutil.copytree(frozen.folder, folder, ignore=lambda _, names: {*names} & {*left_out})
        model = TASKS[description.task.kind].load(frozen.folder)
        layer: Any = model.network
        with torch.no_grad():
            layer.head.weight.copy_(torch.from_numpy(step.head.weights))
            layer.head.bias.copy_(torch.from_numpy(step.head.bias))
        model.save(folder)
        lineage = {
            **description.lineage,
            BELOW: below,
            "window_end": _later(description.lineage.get("window_end", ""), learnt_until),
        }
        # Other forms of the champion answer as the champion does.
        changed = {"exports": [], "lineage": lineage}
        digest = bundle.seal(folder, description.model_copy(update=changed))
        bundle.publish(store, folder)
    _prove(BundleModel.load(store, digest), frozen, step, description.examples)
    return digest


def _later(first: str, second: str) -> str:
    """Return the later of two moments in ISO 8601, whatever their zones; empty is never."""
    known = filter(None, (first, second))
    return max(known, key=datetime.fromisoformat, default="")


def _prove(
    published: BundleModel, frozen: FrozenChampion, step: Step, examples: Sequence[str]
) -> None:
    """Refuse a bundle that does not answer as the head that was tested."""
    read = frozen.features(list(examples), lambda done, of, what: None)
    tested = frozen.model.answers(step.head.outputs(read).astype(np.float32))
    difference = np.abs(published.answers(list(examples)) - tested).max()
    if not difference <= PARITY:
        raise BundleError(
            f"the published head answers otherwise than it did when it was tested, by up to "
            f"{difference:.4f}"
        )
