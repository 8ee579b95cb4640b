"""MLflow: training runs, model versions, and the alias ``champion``.

Versions point at bundles in the store by their digest, so that registering the same
bundle twice yields the same version. The alias mirrors the ledger and decides
nothing: MLflow has no compare-and-set for aliases.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from components.errors import WorldError

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALIAS = "champion"
BUNDLE_TAG = "tokiwa.bundle"


def without_password(text: str) -> str:
    """Return a text in which no address shows its user and password."""
    return re.sub(r"://[^/@\s]*@", "://***@", text)


class RunLogger:
    """Logs the live metrics of one training run."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        """Log into the MLflow run ``run_id``."""
        self._client = client
        self.run_id = run_id

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record metrics at a step, all in one request."""
        import time

        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, value, now_ms, step) for name, value in values.items()]
        try:
            self._client.log_batch(self.run_id, metrics)
        except MlflowException as error:
            # A plot with a gap is better than a training that was lost.
            logging.getLogger(__name__).warning("%s", without_password(str(error)))


class Registry:
    """The runs and versions of one project in MLflow."""

    def __init__(self, tracking_uri: str, project: str, artifact_root: str) -> None:
        """Name the database; it is opened at the first use.

        Args:
            tracking_uri: ``sqlite:///…`` or a server's address.
            project: name of the experiment and of the registered model.
            artifact_root: where a new experiment keeps its artifacts when the
                tracking database is embedded.
        """
        self._uri = tracking_uri
        self._project = project
        self._artifact_root = artifact_root
        self._client: MlflowClient | None = None

    @contextmanager
    def run(self, name: str, parameters: Mapping[str, Any]) -> Iterator[RunLogger]:
        """Open a training run, close it as finished or failed."""
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        client = self._open()
        params = [Param(key, str(value)[:6000]) for key, value in parameters.items()]
        try:
            run_id = client.create_run(self._experiment(client), run_name=name).info.run_id
            client.log_batch(run_id, params=params)
        except MlflowException as error:
            raise self._refused(error) from error
        try:
            yield RunLogger(client, run_id)
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id, "FINISHED")

    def register(
        self,
        bundle: str,
        source: str,
        run_id: str | None,
        tags: Mapping[str, str],
        card: str = "",
    ) -> str:
        """Return the version of a bundle, created if it has none yet; update its tags.

        Args:
            bundle: the bundle's digest.
            source: the address of the bundle in the store.
            run_id: the MLflow run that trained it, if known.
            tags: lineage and verdict.
            card: what people should know of the model, in Markdown; MLflow shows it with
                the version and keeps at most 5,000 characters.
        """
        from mlflow.exceptions import MlflowException

        client = self._open()
        try:
            client.create_registered_model(self._project)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise self._refused(error) from error
        try:
            found = self._find(client, bundle)
            if found is None:
                version = client.create_model_version(
                    self._project, source, run_id=run_id, tags={BUNDLE_TAG: bundle, **tags}
                ).version
            else:
                version = found
                for key, value in tags.items():
                    client.set_model_version_tag(self._project, version, key, value)
            if card:
                client.update_model_version(self._project, version, card)
        except MlflowException as error:
            raise self._refused(error) from error
        return str(version)

    def mirror(self, version: str) -> None:
        """Point the alias ``champion`` at a version if it points elsewhere."""
        from mlflow.exceptions import MlflowException

        client = self._open()
        try:
            model = client.get_registered_model(self._project)
            if str(model.aliases.get(ALIAS)) != version:
                client.set_registered_model_alias(self._project, ALIAS, version)
        except MlflowException as error:
            raise self._refused(error) from error

    def source_of(self, version: str) -> str:
        """Return the address of a version's model."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self._open().get_model_version(self._project, version).source)
        except MlflowException as error:
            raise self._refused(error) from error

    @property
    def _embedded(self) -> bool:
        return self._uri.startswith("sqlite:")

    def _open(self) -> MlflowClient:
        if self._client is None:
            # Nothing of ours is ever unpickled, nor may MLflow do so on our behalf.
            os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
            for noisy in ("alembic", "mlflow.store.db.utils"):
                logging.getLogger(noisy).setLevel(logging.WARNING)
            from mlflow import MlflowClient

            self._client = MlflowClient(self._uri, self._uri)
        return self._client

    def _experiment(self, client: MlflowClient) -> str:
        """Return the id of the project's experiment, created by whoever comes first."""
        from mlflow.exceptions import MlflowException

        location = self._artifact_root if self._embedded else None
        found = client.get_experiment_by_name(self._project)
        if found is None:
            try:
                return str(client.create_experiment(self._project, artifact_location=location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = client.get_experiment_by_name(self._project)
        return str(found.experiment_id)

    def _find(self, client: MlflowClient, bundle: str) -> str | None:
        query = f"name = '{self._project}' and tags.`{BUNDLE_TAG}` = '{bundle}'"
        versions = client.search_model_versions(query)
        # The oldest, should two writers have raced: versions are only ever added.
        return min((version.version for version in versions), key=int, default=None)

    def _refused(self, error: Exception) -> WorldError:
        return WorldError(without_password(f"MLflow at {self._uri} refused: {error}"))
