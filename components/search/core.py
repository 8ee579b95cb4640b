"""Be one worker of a search: take trials from the shared study until it has enough.

A trial trains as ``finetune`` does and keeps no model: training is deterministic, and
``finetune`` makes the best one again. A worker that dies leaves its trial running; the
others see that it no longer beats, and its values are tried again.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from components.errors import Evicted, StoreError, TokiwaError, WorldError
from components.finetune import core as finetune
from components.finetune.config import HIGHER_IS_BETTER, FinetuneConfig
from components.finetune.core import Start, Trained
from components.finetune.history import Watcher
from components.finetune.memory import out_of_memory
from components.finetune.space import SearchConfig
from components.plan import Base
from components.search.samplers import distributions_of, pruner_of, sampler_of
from components.settings import Section, digest_of
from components.studies import (
    CONFIG,
    GIVEN_BACK,
    REASON,
    Studies,
    Trial,
    counted,
    shown_trial,
    trials_of,
)
from components.tasks import TASKS, TaskConfig

__all__ = ["FinetuneConfig", "SearchConfig", "SearchReport", "name_of", "search"]

ATTEMPT = "attempt"
MOST_ATTEMPTS = 2
"""Values whose workers died so often are not tried again: they may be why."""
BEAT_S = 10.0
DEAD_AFTER_S = 60.0
"""A worker that has not beaten for so long is dead."""
POLL_S = 0.5


class SearchReport(Section):
    """What one worker found and left."""

    schema_version: int = 1
    study: str
    worker: str
    metric: str
    trained: int
    """Trials that this worker finished."""
    trials: int
    """Trials of the study."""
    best: Trial

    @property
    def headline(self) -> str:
        """The one thing to see."""
        return (
            f"{self.trials} trials, {self.trained} of them now; "
            f"best valid {self.metric.replace('_', ' ')} {self.best.score:.3f}"
        )


class Log(Protocol):
    """Is told how the search goes, as ``components.step.Log``."""

    def progress(self, done: int, total: int, what: str) -> None:
        """Take how far it is."""

    def line(self, event: str, **fields: Any) -> None:
        """Take a trial that began or ended."""


def name_of(
    data: str,
    bases: str,
    champion: str,
    code: str,
    task: TaskConfig,
    config: FinetuneConfig,
) -> str:
    """Return the name of a study: the digest of all that its scores depend on.

    How many trials there are to be, and how many at a time, is not part of it, so that
    a search can be carried on.
    """
    settings = config.model_dump(mode="json")
    for key in ("trials", "parallel"):
        settings["search"].pop(key)
    return digest_of([data, bases, champion, code, task.model_dump(mode="json"), settings])


def search(
    prepared: Path,
    bases: Sequence[Base],
    champion: Path | None,
    task: TaskConfig,
    config: FinetuneConfig,
    studies: Studies,
    name: str,
    worker: str,
    log: Log,
    dead_after_s: float = DEAD_AFTER_S,
) -> SearchReport:
    """Train trials of a study until it has all that ``config.search`` wants.

    Args:
        prepared: folder that ``prepare`` wrote.
        bases: the pretrained models that may be taken.
        champion: bundle in production, or None.
        task: what to learn.
        config: the section ``finetune``, with its ``search``.
        studies: where the study is kept.
        name: of the study, see ``name_of``.
        worker: number of this worker, from ``"1"``.
        log: told of trials and progress.
        dead_after_s: a worker that gives no sign for so long is dead.

    Raises:
        BundleError: base or champion do not load, in every trial.
        Evicted: the process was told to stop; another worker may try the values again.
        WorldError: no trial came to an end.
    """
    assert config.search is not None

    starts: dict[str, Start] = {}

    def train(settings: FinetuneConfig, watcher: Watcher) -> Trained:
        # It depends on no other key that a search may vary.
        if settings.start not in starts:
            starts[settings.start] = finetune.choose(
                prepared, bases, champion, task, settings, watcher
            )
        start = starts[settings.start]
        return finetune.train(prepared, start, champion, task, settings, watcher, lambda _: None)

    metric = config.metric or TASKS[task.kind].metric
    study = studies.open(name, metric, higher_is_better=HIGHER_IS_BETTER[metric])
    study.pruner = pruner_of(config.search)
    try:
        trained = _Worker(
            studies, study, config, metric, int(worker), train, log, dead_after_s
        ).work()
        trials = trials_of(study)
    except StorageInternalError as error:
        raise StoreError(f"the studies cannot be reached: {error}") from error
    if trials[0].state != "complete":
        failed = [trial for trial in trials if trial.state == "failed"]
        raise WorldError(
            f"no trial of {len(trials)} came to an end; change finetune.search.space. "
            f"Trial {failed[0].number} of {len(failed)} that failed: {failed[0].reason}"
        )
    return SearchReport(
        study=name,
        worker=worker,
        metric=metric,
        trained=trained,
        trials=len(trials),
        best=trials[0],
    )


class _Worker:
    def __init__(
        self,
        studies: Studies,
        study: optuna.Study,
        config: FinetuneConfig,
        metric: str,
        number: int,
        train: Callable[[FinetuneConfig, Watcher], Trained],
        log: Log,
        dead_after_s: float,
    ) -> None:
        assert config.search is not None
        self._studies = studies
        self._study = study
        self._config = config
        self._search = config.search
        self._space = distributions_of(config, config.search)
        grid = config.search.sampler == "grid"
        self._wanted = config.search.grid_size if grid else config.search.trials
        self._metric = metric
        self._number = number
        self._train = train
        self._log = log
        self._dead_after_s = dead_after_s
        self._seen: dict[int, tuple[int, float]] = {}

    def work(self) -> int:
        """Train trials until there are enough; return how many were trained here."""
        for known in counted(self._study):
            if known.state.is_finished():
                self._tell(known.number)
        trained = 0
        while True:
            self._bury_the_dead()
            trial = self._next()
            if trial is not None:
                trained += self._try(trial)
            elif any(each.state == TrialState.RUNNING for each in counted(self._study)):
                # Whoever trains it may die, and then it is ours.
                time.sleep(POLL_S)
            else:
                return trained

    def _next(self) -> optuna.Trial | None:
        """Begin a trial, None if there are enough."""
        known = counted(self._study)
        waits = any(each.state == TrialState.WAITING for each in known)
        if len(known) >= self._wanted and not waits:
            return None
        begun = len(self._study.get_trials(deepcopy=False))
        seed = [self._config.seed, self._number, begun]
        self._study.sampler = sampler_of(self._search, self._space, seed)
        trial = self._study.ask(self._space)
        before = sum(each.number < trial.number for each in counted(self._study))
        if before >= self._wanted:  # another worker began the last one at the same moment
            self._give_back(self._frozen(trial.number))
            return None
        return trial

    def _try(self, trial: optuna.Trial) -> bool:
        """Train a trial and keep its score; tell whether anything was trained."""
        values = trial.params
        for known in counted(self._study):
            done = known.number < trial.number and known.state.is_finished()
            if done and known.params == values:
                self._repeat(trial, known)
                return False
        self._tell(trial.number)
        try:
            with self._beating(trial):
                self._end(trial, self._score(trial))
        except optuna.TrialPruned:
            self._end(trial, None, TrialState.PRUNED)
        except Evicted:
            self._give_back(self._frozen(trial.number), try_again=True)
            raise
        except UpdateFinishedTrialError:
            pass  # others took us for dead
        except (TokiwaError, ValidationError) as error:
            self._fail(trial, str(error))
        except Exception as error:
            self._fail(trial, f"{type(error).__name__}: {error}")
            if not out_of_memory(error):
                raise
        return True

    def _score(self, trial: optuna.Trial) -> float:
        """Train with a trial's values, and return the score of the model that came of it."""
        config = self._config.with_values(trial.params)
        trial.set_user_attr(CONFIG, config.to_json())
        alone = config.model_copy(update={"processes": 1})
        trained = self._train(alone, _Reporting(trial, self._metric, self._log))
        score = score_of(trained, self._metric)
        if not math.isfinite(score):
            raise WorldError(f"the score is {score}")
        return score

    def _repeat(self, trial: optuna.Trial, known: FrozenTrial) -> None:
        """End a trial as one with the same values ended: training is deterministic."""
        for step, value in known.intermediate_values.items():
            trial.report(value, step)
        for name in (CONFIG, REASON):
            if name in known.user_attrs:
                trial.set_user_attr(name, known.user_attrs[name])
        self._end(trial, known.value if known.state == TrialState.COMPLETE else None, known.state)

    def _fail(self, trial: optuna.Trial, reason: str) -> None:
        trial.set_user_attr(REASON, reason)
        self._end(trial, None, TrialState.FAIL)

    def _end(
        self, trial: optuna.Trial, score: float | None, state: TrialState = TrialState.COMPLETE
    ) -> None:
        # We may have been silent for so long that others took us for dead.
        with suppress(UpdateFinishedTrialError):
            self._study.tell(trial, score, state, skip_if_finished=True)
        self._tell(trial.number)

    def _tell(self, number: int) -> None:
        """Say how a trial stands, and how many are finished."""
        shown = shown_trial(self._frozen(number))
        self._log.line("trial", metric=self._metric, **shown.model_dump(mode="json"))
        finished = sum(each.state.is_finished() for each in counted(self._study))
        self._log.progress(finished, self._wanted, "trials")

    def _frozen(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    # --- those who died ----------------------------------------------------------------

    def _bury_the_dead(self) -> None:
        """Take back the trials whose workers no longer beat.

        Beats are counted and not timed, so that clocks of machines need not agree.
        """
        now_s = time.monotonic()
        for trial in counted(self._study):
            if trial.state != TrialState.RUNNING:
                continue
            beat = self._studies.beats(self._study, trial)
            known, since_s = self._seen.get(trial.number, (-1, now_s))
            if beat != known:
                self._seen[trial.number] = beat, now_s
            elif now_s - since_s > self._dead_after_s:
                attempt = int(trial.user_attrs.get(ATTEMPT, 1))
                if attempt < MOST_ATTEMPTS:
                    self._give_back(trial, try_again=True, attempt=attempt + 1)
                else:
                    self._set(trial, REASON, f"its workers died, {attempt} of {attempt}")
                    self._close(trial)

    @contextmanager
    def _beating(self, trial: optuna.Trial) -> Iterator[None]:
        """Show that this process lives, as long as the block runs."""
        done = threading.Event()

        def beat() -> None:
            beats = 1
            while not done.wait(BEAT_S):
                # A beat that is missed does no harm: the next one may get through.
                with suppress(UpdateFinishedTrialError, StorageInternalError, TokiwaError):
                    self._studies.beat(self._study, trial, beats)
                beats += 1

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _give_back(self, trial: FrozenTrial, *, try_again: bool = False, attempt: int = 1) -> None:
        """End a trial that shall not count; let its values be tried again."""
        self._set(trial, GIVEN_BACK, True)
        # Of all who find the same dead trial, one ends it, and gives its values on.
        if self._close(trial) and try_again and trial.params:
            self._study.enqueue_trial(trial.params, {ATTEMPT: attempt})

    def _set(self, trial: FrozenTrial, name: str, value: Any) -> None:
        # Optuna has no public way to say something of a trial that another process began.
        with suppress(UpdateFinishedTrialError):
            self._study._storage.set_trial_user_attr(trial._trial_id, name, value)

    def _close(self, trial: FrozenTrial) -> bool:
        try:
            self._study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False
        return True


class _Reporting:
    """Hands the score of each epoch to the study, and ends a trial that promises nothing."""

    def __init__(self, trial: optuna.Trial, metric: str, log: Log) -> None:
        self._trial = trial
        self._name = f"valid_{metric}"
        self._log = log
        self._epochs = 0

    def metrics(self, values: dict[str, float], step: int) -> None:
        if self._name in values:
            self._epochs += 1
            self._trial.report(values[self._name], self._epochs)
            if self._trial.should_prune():
                raise optuna.TrialPruned

    def progress(self, done: int, total: int, what: str) -> None:
        self._log.progress(done, total, f"trial {self._trial.number}: {what}")


def score_of(trained: Trained, metric: str) -> float:
    """Return the score of a trained model on the validation rows."""
    model, history = trained.outcome.model, trained.outcome.history
    if history.valid and not model.fits_head:
        return history.best_scores[metric]
    # What the head became after the last epoch, or instead of any, no epoch has scored.
    valid = trained.frame[trained.frame["split"] == "valid"]
    targets = model.targets(valid["label"].tolist())
    return model.scores(targets, model.predict(valid["text"].tolist()))[metric]
