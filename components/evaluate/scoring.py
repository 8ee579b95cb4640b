"""Let every model answer every row once, and keep what it said.

Both models answer the same batches in turns, so that their times can be compared. A
challenger that does not load, or does not answer with finite numbers, is a finding; a
champion that does not is an error of the world, which nothing can be decided in.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components import bundle
from components.errors import BundleError, ConfigError, SourceError
from components.evaluate.config import EvaluateConfig, kind_of
from components.evaluate.exam import Exam, Perturbed
from components.evaluate.examinee import MAX_BATCH_ROWS, Examinee
from components.evaluate.memory import peak_bytes
from components.evaluate.perturbations import PERTURBATIONS, perturbed
from components.evaluate.soundness import code_in, fault_of
from components.evaluate.trusted import trusted_rows
from components.split import TEST_SHARE, unit_interval
from components.tasks import TASKS, TaskConfig
from components.tasks.model import Labelled, Model

_BATCHES = 24
"""So many batches at least, as long as there are rows: each is one measurement of time."""
_REPEATS, _SOON_S = 3, 0.02
"""A batch that is answered sooner is easily disturbed: it is answered again, and the least
time counts."""


def sit(
    prepared: Path,
    challenger: Path,
    champion: Path | None,
    task: TaskConfig,
    config: EvaluateConfig,
) -> tuple[Exam, dict[str, Examinee]]:
    """Return all answers, and the models that gave them.

    Args:
        prepared: folder that ``prepare`` wrote.
        challenger: sealed bundle of the new model.
        champion: bundle in production, or None for a first champion.
        task: says what models answer with.
        config: the section ``evaluate``.

    Raises:
        BundleError: a bundle is altered, the champion does not load or answer, or a model
            does not answer what the task asks for.
        ConfigError: the hold-out file is not the pinned one, a metric is unknown, or the
            config names a label that only one model knows.
        SourceError: there are no test rows, or for a first champion no training rows.
    """
    rival = _load(champion, task, "champion") if champion else None
    model, broken = _try_to_load(challenger, task)
    names = _common(task, model, rival, config)
    if strange := list(config.strange(task, names)):
        raise ConfigError("; ".join(strange))
    asked = _rows(prepared, task, champion is not None, config)
    frame = _with_known_labels(asked, names, task)
    models = {
        who: each for who, each in (("challenger", model), ("champion", rival)) if each is not None
    }
    # A rule that was fitted to all labels is of no use to some; nor is it fair to one model alone.
    of_all = all(len(each.answer_names) == len(names) for each in models.values())
    examinees = {
        who: Examinee(
            each, np.array([each.answer_names.index(name) for name in names]), all_labels=of_all
        )
        for who, each in models.items()
    }
    if not broken:
        answers, milliseconds, batch, broken = _ask_all(frame, examinees)
    if not broken:
        broken = _unsound(frame, answers["challenger"], examinees["challenger"])
    if broken:
        examinees.pop("challenger", None)
        answers, milliseconds, batch, _ = _ask_all(frame, examinees)
    on_test = (frame["split"] == "test").to_numpy()
    contents = frame["text"][on_test].tolist()
    opponents: dict[str, str] = {}
    deciding = dict(examinees)
    if model is not None and not broken and rival is None:
        opponents = {"naive": model.naive, "probe": model.probe}
        given, deciding["probe"] = _baselines(prepared, frame, examinees["challenger"])
        answers |= given
    speaker = examinees.get("challenger") or examinees.get("champion")
    targets = _targets(frame["label"].tolist(), names, task, speaker)
    decided = {who: _decided(given, deciding.get(who), task) for who, given in answers.items()}
    folders = {"challenger": challenger} | ({"champion": champion} if champion else {})
    weighed = folders if config.serving.asks_for_memory and not broken else {}
    exam = Exam(
        kind=kind_of(task),
        content=task.content,
        metric=config.primary or TASKS[task.kind].gate_metric,
        labels=tuple(names),
        rows=frame,
        targets=targets,
        answers=answers,
        decided=decided,
        errors={
            who: _errors(decided[who], targets, given, task, speaker)
            for who, given in answers.items()
        },
        milliseconds=milliseconds,
        batch=batch,
        size_bytes={who: served_bytes(folder) for who, folder in folders.items()},
        memory_bytes={
            who: peak_bytes(folder, contents[:MAX_BATCH_ROWS]) for who, folder in weighed.items()
        },
        abstained={
            who: _abstained(answers[who], each)
            for who, each in examinees.items()
            if who in answers
            and each.all_labels
            and each.model.rule is not None
            and each.model.rule.abstains
        },
        rules={
            who: each.model.rule
            for who, each in examinees.items()
            if each.all_labels and each.model.rule is not None
        },
        perturbed=_perturbed(frame[on_test], examinees, task, config) if not broken else {},
        features=speaker.model.input_features(contents) if speaker else {},
        vectors=_test_vectors(prepared, frame),
        opponents=opponents,
        broken=broken,
        left_out=len(asked) - len(frame),
    )
    return exam, examinees


def served_bytes(folder: Path) -> int:
    """Return the size of a bundle, without its other forms and what only drift reads."""
    # A form is ONNX: nothing else gets lighter by a word in the description.
    exports = [each for each in bundle.describe(folder).exports if each.endswith(".onnx")]
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
        and path.relative_to(folder).as_posix() not in exports
        and not path.name.startswith("profile.")
    )


def _load(folder: Path, task: TaskConfig, who: str) -> Model:
    """Return the model of a bundle, if it can be asked about the test rows."""
    return TASKS[_verified(folder, task, who).task.kind].load(folder)


def _try_to_load(folder: Path, task: TaskConfig) -> tuple[Model | None, str]:
    """Return a challenger, or why it does not load."""
    description = _verified(folder, task, "challenger")
    if code := code_in(folder):
        return None, f"the challenger carries what could run as code: {code}"
    try:
        return TASKS[description.task.kind].load(folder), ""
    except Exception as error:  # whatever a broken model breaks, it is the model's fault
        return None, f"the challenger does not load: {_in_a_line(error)}"


def _unsound(frame: pd.DataFrame, answers: NDArray[np.float64], challenger: Examinee) -> str:
    """Return what is wrong with a challenger that has answered all rows."""
    try:
        fault = fault_of(challenger, frame["text"].tolist(), answers)
    except Exception as error:  # as when loading
        fault = f"does not answer contents that it may meet: {_in_a_line(error)}"
    return f"the challenger {fault}" if fault else ""


def _verified(folder: Path, task: TaskConfig, who: str) -> bundle.Description:
    description = bundle.verify(folder)
    if description.task.kind != task.kind:
        raise BundleError(
            f"the {who} is a model for {description.task.kind}, the project asks for "
            f"{task.kind}; they cannot be compared"
        )
    if description.test_share != TEST_SHARE:
        raise BundleError(
            f"the model in {folder} was trained with a test share of {description.test_share}, "
            f"now {TEST_SHARE}: it may have seen the test rows"
        )
    return description


def _common(
    task: TaskConfig, model: Model | None, rival: Model | None, config: EvaluateConfig
) -> list[str]:
    """Return the names of the answers to compare, in the order of the task.

    Raises:
        BundleError: the models do not answer in the same terms.
    """
    asked = list(task.answer_names)
    if model is not None and set(model.answer_names) != set(asked):
        raise BundleError(
            f"the challenger answers {', '.join(model.answer_names)}, "
            f"the project asks for {', '.join(asked)}; they cannot be compared"
        )
    if rival is None or set(rival.answer_names) == set(asked):
        return asked
    common = [name for name in asked if name in rival.answer_names]
    if config.labels == "intersection" and len(common) > 1:
        return common
    hint = "set evaluate.labels: intersection to compare on those that both know"
    if len(common) < 2:
        hint = "they have no two labels in common"
    raise BundleError(
        f"the champion answers {', '.join(rival.answer_names)}, "
        f"the project asks for {', '.join(asked)}; they cannot be compared ({hint})"
    )


def _rows(
    prepared: Path, task: TaskConfig, has_champion: bool, config: EvaluateConfig
) -> pd.DataFrame:
    """Return the rows to answer: test, guard, valid, some of train, and the hold-out."""
    frame = pd.read_parquet(prepared / "rows.parquet")
    # Nothing guards a first champion: there is no earlier promise to break.
    wanted = ["test", "guard", "valid"] if has_champion else ["test", "valid"]
    parts = [frame[frame["split"] == split] for split in wanted]
    train = frame[frame["split"] == "train"]
    order = np.argsort(unit_interval(train["id"].astype(str), "overfitting"), kind="stable")
    parts.append(train.iloc[np.sort(order[: config.overfitting.rows])])
    if config.holdout is not None:
        parts.append(trusted_rows(config.holdout, task))
    return pd.concat(parts, ignore_index=True)


def _with_known_labels(frame: pd.DataFrame, names: Sequence[str], task: TaskConfig) -> pd.DataFrame:
    """Return the rows whose labels both models know."""
    if task.label_names:
        strange = sorted(set(frame["label"].astype(str)) - set(task.label_names))
        if strange:
            raise SourceError(f"labels outside of the task's: {', '.join(strange[:5])}")
        frame = frame[frame["label"].isin(names)].reset_index(drop=True)
    if not (frame["split"] == "test").any():
        raise SourceError("no test rows: there is nothing to compare models on")
    return frame


def _ask_all(
    frame: pd.DataFrame, examinees: dict[str, Examinee]
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]], NDArray[np.int64], str]:
    """Return answers and times by model, the number of each row's batch, and what broke.

    The champion is not asked about rows that only say something of the challenger.
    """
    contents = frame["text"].tolist()
    shared = frame["split"].isin(("test", "guard", "holdout")).to_numpy()
    answers: dict[str, NDArray[np.float64]] = {}
    times = {who: np.full(len(frame), np.nan) for who in examinees}
    batch = np.zeros(len(frame), dtype=np.int64)
    for asked, members in (
        (shared, list(examinees)),
        (~shared, [who for who in examinees if who == "challenger"]),
    ):
        for number, rows in enumerate(_batches(contents, asked), int(batch.max()) + 1):
            batch[rows] = number
            some = [contents[row] for row in rows.tolist()]
            # Who goes first finds caches colder.
            turns = members if number % 2 else members[::-1]
            for who in turns:
                examinee = examinees[who]
                try:
                    if who not in answers:
                        width = len(examinee.order)
                        answers[who] = np.full((len(frame), width), np.nan)
                        examinee.answers(some)  # the first time is slower than all others
                    given, took = _timed(examinee, some)
                except Exception as error:  # as when loading
                    what = f"does not answer: {_in_a_line(error)}"
                    if who == "champion":
                        raise BundleError(f"the champion {what}") from error
                    return {}, {}, batch, f"the challenger {what}"
                if not np.isfinite(given).all():
                    what = "gives answers that are not finite numbers"
                    if who == "champion":
                        raise BundleError(f"the champion {what}")
                    return {}, {}, batch, f"the challenger {what}"
                answers[who][rows] = given
                times[who][rows] = 1000 * took / len(rows)
    return answers, times, batch, ""


def _timed(examinee: Examinee, contents: Sequence[str]) -> tuple[NDArray[np.float64], float]:
    """Return answers, and the least time that they took in seconds."""
    took: list[float] = []
    while not took or (len(took) < _REPEATS and sum(took) < _SOON_S):
        start = time.perf_counter()
        answers = examinee.answers(contents)
        took.append(time.perf_counter() - start)
    return answers, min(took)


def _batches(contents: Sequence[str], asked: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Return the rows of each batch; those of like length sit together, which saves padding."""
    rows = np.flatnonzero(asked)
    lengths = [len(contents[row]) for row in rows.tolist()]
    order = rows[np.argsort(lengths, kind="stable")]
    size = int(np.clip(len(rows) // _BATCHES, 1, MAX_BATCH_ROWS))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _targets(
    labels: Sequence[str], names: Sequence[str], task: TaskConfig, speaker: Examinee | None
) -> NDArray[Any]:
    if task.label_names:
        place = {name: number for number, name in enumerate(names)}
        return np.array([place[label] for label in labels], dtype=np.int64)
    if speaker is None:
        return np.array([float(label) for label in labels])  # reads what ``ingest`` does
    return speaker.model.targets(labels)


def _decided(
    answers: NDArray[np.float64], examinee: Examinee | None, task: TaskConfig
) -> NDArray[Any]:
    """Return decisions ``[n]``; where nothing was asked -1, or NaN.

    Without an examinee, the most probable label.
    """
    if not task.label_names:
        return answers[:, 0]
    asked = ~np.isnan(answers).any(1)
    out = np.full(len(answers), -1, dtype=np.int64)
    out[asked] = examinee.decided(answers[asked]) if examinee else answers[asked].argmax(1)
    return out


def _abstained(answers: NDArray[np.float64], examinee: Examinee) -> NDArray[np.bool_]:
    """Return which rows are left to a person ``[n]``, of those that were asked."""
    asked = ~np.isnan(answers).any(1)
    out = np.zeros(len(answers), dtype=bool)
    out[asked] = examinee.abstained(answers[asked])
    return out


def _errors(
    decided: NDArray[Any],
    targets: NDArray[Any],
    answers: NDArray[np.float64],
    task: TaskConfig,
    speaker: Examinee | None,
) -> NDArray[np.float64]:
    """Return how wrong each answer is, 0 to 1 ``[n]``; NaN where nothing was asked."""
    wrong = np.asarray(decided != targets, dtype=np.float64)
    if not task.label_names and speaker is not None:
        wrong = speaker.model.errors(targets, answers)
    wrong[np.isnan(answers).any(1)] = np.nan
    return wrong


def _baselines(
    prepared: Path, frame: pd.DataFrame, examinee: Examinee
) -> tuple[dict[str, NDArray[np.float64]], Examinee]:
    """Return what needs no network to answer, on the test rows ``[n, k]``, and the probe.

    The probe is calibrated and decides for the same aim as the challenger, on the same
    validation rows: else a model could lose to it by what the project asked for.
    """
    from safetensors.numpy import load_file

    model = examinee.model
    vectors = load_file(prepared / "embeddings.safetensors")["vectors"]
    current = pd.read_parquet(prepared / "rows.parquet").iloc[: len(vectors)]
    rows = {name: (current["split"] == name).to_numpy() for name in ("train", "valid", "test")}
    lacking = [name for name, some in rows.items() if not some.any()]
    if lacking:
        raise SourceError(f"no {lacking[0]} rows: a first champion has no baseline to beat")
    train, valid = (
        Labelled(vectors[rows[name]], model.targets(current["label"][rows[name]].tolist()))
        for name in ("train", "valid")
    )
    asked = np.concatenate([valid.vectors, vectors[rows["test"]]])
    probed = model.probe_answers(train, valid, asked)
    probe = copy.copy(model)
    if model.rule is not None:
        known, calibrate = probed[: len(valid.targets)], model.rule.calibrate
        probe.rule = model.fitted_rule(valid.targets, known, model.rule.aim, calibrate=calibrate)
    if probe.rule is not None:
        probed = probe.rule.calibrated(probed)
    given = {
        "naive": model.naive_answers(train.targets, int(rows["test"].sum())),
        "probe": probed[len(valid.targets) :],
    }
    on_test = (frame["split"] == "test").to_numpy()
    out = {}
    for name, answers in given.items():
        out[name] = np.full((len(frame), answers.shape[1]), np.nan)
        out[name][on_test] = answers[:, examinee.order]
    return out, replace(examinee, model=probe)


def _test_vectors(prepared: Path, frame: pd.DataFrame) -> NDArray[np.float32] | None:
    """Return the embeddings of the test rows ``[m, d]``."""
    from safetensors.numpy import load_file

    vectors = load_file(prepared / "embeddings.safetensors")["vectors"]
    current = pd.read_parquet(prepared / "rows.parquet", columns=["id", "split"])
    current = current.iloc[: len(vectors)]
    test = (current["split"] == "test").to_numpy()
    # Rows whose label a model does not know are left out, see ``Exam.left_out``.
    still = current["id"][test].isin(frame["id"][frame["split"] == "test"]).to_numpy()
    return np.asarray(vectors[test][still])


def _perturbed(
    test: pd.DataFrame,
    examinees: dict[str, Examinee],
    task: TaskConfig,
    config: EvaluateConfig,
) -> dict[str, Perturbed]:
    """Return which answers to some test rows stay when these are changed."""
    settings = config.robustness
    order = np.argsort(unit_interval(test["id"].astype(str), "robustness"), kind="stable")
    some = test.iloc[np.sort(order[: settings.rows])]
    contents = some["text"].tolist()
    if not contents:
        return {}
    before = {who: each.answers(contents) for who, each in examinees.items()}
    out = {}
    for name in settings.perturbations or PERTURBATIONS[task.content]:
        changed = perturbed(contents, task.content, name, seed=config.seed)
        rows = np.array([a != b for a, b in zip(contents, changed, strict=True)])
        moved = [each for each, differs in zip(changed, rows, strict=True) if differs]
        kept = {
            who: _stays(before[who][rows], moved, each, settings.tolerance)
            for who, each in examinees.items()
        }
        out[name] = Perturbed(some["group"].to_numpy(object)[rows], kept)
    return out


def _stays(
    before: NDArray[np.float64],
    contents: Sequence[str],
    examinee: Examinee,
    tolerance: float,
) -> NDArray[np.bool_]:
    """Return whether each answer stays ``[m]``; none does if a model cannot give any."""
    try:
        after = examinee.answers(contents)
    except Exception:  # as when loading; an answer that is not there did not stay
        return np.zeros(len(contents), dtype=bool)
    if after.shape[1] == 1:
        moved = np.abs(before - after)[:, 0] / examinee.model.answer_range
        return np.asarray(moved < tolerance)
    left = examinee.abstained(before) == examinee.abstained(after)
    return np.asarray(left & (examinee.decided(before) == examinee.decided(after)))


def _in_a_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
