"""A project: one model to keep fresh, as the sections of one YAML file say it.

Each section is the configuration of one step and travels to it as one JSON string.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from components.collect.core import CollectConfig
from components.deploy.config import DeployConfig
from components.drift.core import DriftConfig
from components.evaluate.config import kind_of
from components.evaluate.core import EvaluateConfig
from components.finetune.config import CHAMPION, LOSS, FinetuneConfig
from components.ingest.core import IngestConfig
from components.notify.core import NotifyConfig
from components.online.core import OnlineConfig
from components.plan import Bases
from components.prepare.core import PrepareConfig
from components.register.core import RegisterConfig
from components.resolve.core import ResolveConfig
from components.score.core import ScoreConfig
from components.serve.config import ServeConfig
from components.settings import Section
from components.sources import SourceConfig
from components.sources.files import FilesConfig
from components.sources.rows import COLUMNS, WINDOW
from components.tasks import TASKS, TaskConfig
from components.tasks.tabular_classification import TabularClassification
from components.trigger.core import TriggerConfig
from components.validate.core import ValidateConfig
from pipelines.cluster import ClusterConfig
from pipelines.cron import SchedulesConfig, unsayable


class ProjectConfig(Section):
    """A project file: what to learn, from which rows, and how each step does its work."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")]
    """Names the ledger, the registered model, the served model and, as a label, the pods."""
    description: str = ""
    task: TaskConfig
    source: SourceConfig
    resolve: ResolveConfig = ResolveConfig()
    ingest: IngestConfig = IngestConfig()
    validate_: ValidateConfig = Field(default=ValidateConfig(), alias="validate")
    prepare: PrepareConfig = PrepareConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    register_: RegisterConfig = Field(default=RegisterConfig(), alias="register")
    deploy: DeployConfig = DeployConfig()
    collect: CollectConfig = CollectConfig()
    drift: DriftConfig = DriftConfig()
    trigger: TriggerConfig = TriggerConfig()
    notify: NotifyConfig = NotifyConfig()
    score: ScoreConfig = ScoreConfig()
    online: OnlineConfig = OnlineConfig()
    serve: ServeConfig = ServeConfig()
    cluster: ClusterConfig = ClusterConfig()
    schedules: SchedulesConfig = SchedulesConfig()

    @model_validator(mode="after")
    def _sections_suit_each_other(self) -> ProjectConfig:
        columns = (*COLUMNS, WINDOW, *self.source.metadata)
        problems = [
            *self._source_beside_the_task(),
            *self._validation_beside_the_rows(),
            *self.evaluate.unknown(self.task, columns),
            *self._finetuning_beside_the_task(),
            *self._gate_beside_what_it_judges(),
            *self._partitions_beside_the_windows(),
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _source_beside_the_task(self) -> Iterator[str]:
        bins, labels = self.source.label_bins, self.task.label_names
        if bins is not None and not labels:
            yield f"source.label_bins makes labels, but {self.task.kind} takes numbers"
        elif bins is not None and set(bins) != set(labels):
            yield (
                f"source.label_bins makes {', '.join(bins)}, "
                f"but task.labels has {', '.join(labels)}"
            )
        if self.source.contents != {self.task.content}:
            yield (
                f"source.columns must name {self.task.content}s, which {self.task.kind} reads; "
                "see the keys text, image, pixels and record"
            )
        elif isinstance(self.task, TabularClassification):
            named = {name for columns in self.source.forms for name in columns.record or ()}
            if odd := sorted(named ^ set(self.task.columns)):
                yield (
                    f"task.columns and source.columns.record must name the same columns; "
                    f"{', '.join(odd)} is in one of them only"
                )

    def _validation_beside_the_rows(self) -> Iterator[str]:
        known = [*COLUMNS, *self.source.metadata, *getattr(self.task, "columns", ())]
        for name in self.validate_.columns:
            if name not in known:
                yield (
                    f"validate.columns.{name}: rows have no such column; "
                    f"{closest(name, list(dict.fromkeys(known)))}"
                )
        if self.validate_.max_age_days is not None and self.resolve.window_days is None:
            yield (
                "validate.max_age_days counts from the end of a window, and all rows are one; "
                "see resolve.window_days"
            )
        if self.prepare.valid_split == "stratified" and not self.task.label_names:
            yield (
                f"prepare.valid_split stratified takes so many rows of each class, and task "
                f"{self.task.kind} has none; split by hash or time"
            )
        if self.prepare.label_errors != "off" and not self.task.label_names:
            yield (
                f"prepare.label_errors looks for wrong labels among classes, and task "
                f"{self.task.kind} has none; leave it out"
            )

    def _finetuning_beside_the_task(self) -> Iterator[str]:
        task, finetune = self.task, self.finetune
        known = (*TASKS[task.kind].score_names, LOSS)
        if finetune.metric not in ("", *known):
            yield (
                f"finetune.metric {finetune.metric} is no score of {task.kind}; "
                f"there are {', '.join(known)}"
            )
        if finetune.balance != "none" and not task.label_names:
            yield f"finetune.balance makes up for rare classes, and {task.kind} has none"
        if finetune.batch_tokens is not None and task.content != "text":
            yield (
                f"finetune.batch_tokens counts tokens, and {task.kind} reads none; "
                "use finetune.batch_rows"
            )
        point = finetune.operating_point
        try:
            point.refuse_unknown_labels(task.label_names)
        except ValueError as error:
            yield str(error)
        if point.aim == "cost" and kind_of(task) == "anomaly":
            yield (
                f"finetune.operating_point.aim cost needs probabilities, and {task.kind} gives "
                "scores; ask for a recall or a precision"
            )

    def _gate_beside_what_it_judges(self) -> Iterator[str]:
        point, gate, guards = self.finetune.operating_point, self.evaluate, self.prepare.guard_rows
        asks = point.aim in ("recall", "precision") or point.answered_accuracy is not None
        if "operating_point" in gate.required and not asks:
            yield (
                "evaluate.required names operating_point, but finetune.operating_point asks for "
                "no recall, precision or answered_accuracy"
            )
        if 0 < guards < gate.min_groups:
            yield (
                f"prepare.guard_rows {guards} can guard nothing: evaluate.min_groups asks for "
                f"{gate.min_groups} groups of rows; 0 does without a guard"
            )

    def _partitions_beside_the_windows(self) -> Iterator[str]:
        if self.collect.partitions == 1:
            return
        if self.resolve.window_days is None:
            yield (
                "collect.partitions cuts a window of time into parts, and all rows are one "
                "window; set resolve.window_days and resolve.start, or leave partitions out"
            )
        if self.source.max_rows_per_window is not None:
            yield (
                "collect.partitions reads parts of a window apart, and "
                "source.max_rows_per_window looks at a whole one; leave out one of the two"
            )

    @model_validator(mode="after")
    def _a_machine_can_hold_each_step(self) -> ProjectConfig:
        if wrong := self.cluster.impossible():
            raise ValueError(wrong)
        return self

    @model_validator(mode="after")
    def _schedules_fit_the_clusters_clock(self) -> ProjectConfig:
        for graph, schedule in self.schedules.by_graph.items():
            if wrong := unsayable(schedule, self.timezone, self.schedules.cluster_timezone):
                raise ValueError(f"schedules.{graph}.cron {wrong}")
        return self

    @property
    def timezone(self) -> str:
        """By whose wall clock the schedules are written."""
        return self.schedules.timezone or self.resolve.timezone

    @property
    def bases(self) -> Bases:
        """The pretrained models that a training may start from, and what else it reads."""
        teacher, synonyms = self.finetune.distill.teacher, self.finetune.augment.synonyms
        read = [place for place in (teacher, synonyms) if place not in ("", CHAMPION)]
        return Bases(models=self.finetune.base, others=dict.fromkeys(read, ""))

    @property
    def places_here(self) -> list[str]:
        """Files and folders of this machine that the steps read."""
        files = self.source.roots if isinstance(self.source, FilesConfig) else []
        roots = [root for root, _ in files]
        places = [*roots, *(each.place for each in self.bases.models), *self.bases.others]
        return [each for each in dict.fromkeys(places) if each.startswith("/")]

    @property
    def ledger(self) -> str:
        """Prefix of the project's ledger in the store."""
        return f"projects/{self.name}"

    def replay_ledger(self, played: str) -> str:
        """Prefix of a replay's own ledger in the store; of all of them for an empty id."""
        return f"replays/{self.name}/{played}"

    def arguments(self, parameters: Iterable[str]) -> dict[str, str]:
        """Return the arguments of a graph that come from the project.

        Args:
            parameters: names of the graph's parameters; only those are returned.
        """
        arguments = {
            "project": self.name,
            "task": self.task.to_json(),
            "source": self.source.to_json(),
            "bases": self.bases.to_json(),
            "ledger": self.ledger,
        }
        for name in type(self).model_fields:
            section = getattr(self, name)
            if isinstance(section, Section):
                arguments[f"{name.rstrip('_')}_config"] = section.to_json()
        return {name: arguments[name] for name in parameters if name in arguments}


def closest(given: str, known: list[str]) -> str:
    """Return the known word that was likely meant, or all of them, in words."""
    close = difflib.get_close_matches(given, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
