"""The studies of hyperparameter searches: every trial is kept, so that a search can go on.

A study is a journal in the object store, whose entry n+1 is created if it does not exist:
the act that also makes the ledger safe lets any number of workers on any machines share
it without a database. It can be kept in a database instead, where dashboards of Optuna
look for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from components.errors import ConfigError, StoreError
from components.settings import Section
from components.store import ObjectMissing, Store

optuna.logging.set_verbosity(optuna.logging.WARNING)

METRIC = "metric"
CONFIG = "config"
REASON = "reason"
GIVEN_BACK = "given_back"
BEATS = "beats"
"""Attributes of a study and its trials: the score's name; the settings a trial was made
with; why it failed; that its worker is gone and another trial stands for it; how often its
worker has shown that it lives, where that is not kept beside the journal."""


class Trial(Section):
    """One training of a search, as people see it."""

    number: int
    """Counted from 0."""
    state: Literal["complete", "pruned", "failed", "running"]
    values: dict[str, bool | int | float | str | None]
    score: float | None
    """On the validation rows; of a pruned trial, at its last epoch."""
    seconds: float | None
    reason: str = ""
    """Why it failed."""


class StoreJournal(BaseJournalBackend):
    """Optuna's journal as objects, one for each entry."""

    def __init__(self, store: Store, prefix: str) -> None:
        """Keep the entries at ``{prefix}/00000000.json`` and on."""
        self._store = store
        self._prefix = prefix
        self._count = 0

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return the entries from a number on."""
        entries: list[dict[str, Any]] = []
        while True:
            number = log_number_from + len(entries)
            try:
                entries.append(json.loads(self._store.get(self._key(number))))
            except ObjectMissing:
                self._count = max(self._count, number)
                return entries

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries behind whatever others have added meanwhile."""
        for entry in logs:
            data = json.dumps(entry).encode()
            while not self._store.create_if_absent(self._key(self._count), data):
                self._count += 1
            self._count += 1

    def _key(self, number: int) -> str:
        return f"{self._prefix}/{number:08d}.json"


@dataclass(frozen=True)
class Studies:
    """The place of all studies.

    Attributes:
        store: keeps their journals, at ``studies/<name>/``, and signs of life beside them.
        url: of a database to keep them in instead.
    """

    store: Store
    url: str = ""

    def open(self, name: str, metric: str, *, higher_is_better: bool) -> optuna.Study:
        """Return a study, which is new if nobody has begun it.

        Args:
            name: digest of all that its scores depend on.
            metric: name of the score.
            higher_is_better: which way the score is good.

        Raises:
            ConfigError: the database's address is of no kind that is installed.
            StoreError: the place cannot be reached.
        """
        study = optuna.create_study(
            storage=self._storage(name),
            study_name=name,
            direction="maximize" if higher_is_better else "minimize",
            load_if_exists=True,
        )
        if METRIC not in study.user_attrs:
            study.set_user_attr(METRIC, metric)
        return study

    def load(self, name: str) -> optuna.Study:
        """Return a study that was begun.

        Raises:
            StoreError: it is not there.
        """
        try:
            return optuna.load_study(study_name=name, storage=self._storage(name))
        except KeyError as error:
            raise StoreError(
                f"there is no study {name}; all steps of a run must see the same TOKIWA_STORE, "
                "or the same TOKIWA_STUDIES"
            ) from error

    def beat(self, study: optuna.Study, trial: optuna.Trial, beats: int) -> None:
        """Show that the worker of a trial lives, by a number that grows.

        It is written over the one before: a journal would keep each for ever.
        """
        if self.url:
            study._storage.set_trial_user_attr(trial._trial_id, BEATS, beats)
        else:
            self.store.put(self._beats_key(study, trial.number), str(beats).encode())

    def beats(self, study: optuna.Study, trial: FrozenTrial) -> int:
        """Return the number that the worker of a trial has shown last, 0 before the first."""
        if self.url:
            return int(trial.user_attrs.get(BEATS, 0))
        try:
            return int(self.store.get(self._beats_key(study, trial.number)))
        except ObjectMissing:
            return 0

    @staticmethod
    def _beats_key(study: optuna.Study, number: int) -> str:
        return f"studies/{study.study_name}/beats/{number:08d}"

    def _storage(self, name: str) -> BaseStorage:
        if not self.url:
            return JournalStorage(StoreJournal(self.store, f"studies/{name}"))
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

        try:
            shown = make_url(self.url).render_as_string(hide_password=True)
            return optuna.storages.RDBStorage(self.url, engine_kwargs={"pool_pre_ping": True})
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise ConfigError(
                "TOKIWA_STUDIES should be the address of a database whose driver is installed, "
                f"such as postgresql+psycopg2://host/studies: {error}"
            ) from error
        except SQLAlchemyError as error:
            raise StoreError(f"cannot open the studies at {shown}: {error}") from error


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials in order, without those that another trial stands for."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if GIVEN_BACK not in trial.user_attrs]


def trials_of(study: optuna.Study) -> list[Trial]:
    """Return the trials that were begun: the best first, the failed and running ones last."""
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    order = ("complete", "pruned", "failed", "running")
    shown = [shown_trial(each) for each in counted(study) if each.state != TrialState.WAITING]
    return sorted(
        shown, key=lambda each: (order.index(each.state), sign * (each.score or 0.0), each.number)
    )


def shown_trial(trial: FrozenTrial) -> Trial:
    """Return a trial as people see it."""
    states: dict[TrialState, Literal["complete", "pruned", "failed"]] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    reports = trial.intermediate_values
    score = trial.value if trial.state == TrialState.COMPLETE else None
    if trial.state == TrialState.PRUNED and reports:
        score = reports[max(reports)]
    return Trial(
        number=trial.number,
        state=states.get(trial.state, "running"),
        values=trial.params,
        score=score,
        seconds=trial.duration.total_seconds() if trial.duration else None,
        reason=trial.user_attrs.get(REASON, ""),
    )
