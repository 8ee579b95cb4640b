"""Where state lives: the only place that reads the environment for it.

========================  ==================================================
``TOKIWA_HOME``           folder of everything, ``./.tokiwa`` by default
``TOKIWA_STORE``          objects: a folder or ``s3://bucket/prefix``
``MLFLOW_TRACKING_URI``   MLflow: sqlite in the home folder by default
``TOKIWA_STUDIES``        searches: in the store by default, or a database that
                          SQLAlchemy opens, such as ``postgresql://…``
========================  ==================================================
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from components.registry import Registry
from components.store import Store, open_store

if TYPE_CHECKING:
    from components.studies import Studies


def home() -> Path:
    """Return the home folder as an absolute path; it may not exist yet."""
    return Path(os.environ.get("TOKIWA_HOME", ".tokiwa")).expanduser().resolve()


def store_url() -> str:
    """Return the place of the object store."""
    return os.environ.get("TOKIWA_STORE", str(home() / "objects"))


def store() -> Store:
    """Open the object store."""
    return open_store(store_url())


def tracking_uri() -> str:
    """Return the place of MLflow's tracking and registry database."""
    return os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{home() / 'mlflow.db'}")


def registry(project: str) -> Registry:
    """Open MLflow for a project."""
    home().mkdir(parents=True, exist_ok=True)
    return Registry(tracking_uri(), project, (home() / "mlartifacts").as_uri())


def studies() -> Studies:
    """Open the place of searches."""
    from components.studies import Studies

    return Studies(store(), os.environ.get("TOKIWA_STUDIES", ""))
