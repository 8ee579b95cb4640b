"""Where state lives: the only place that reads the environment for it.

========================  ==================================================
``TOKIWA_HOME``           folder of everything, ``./.tokiwa`` by default
``TOKIWA_STORE``          objects: a folder or ``s3://bucket/prefix``
``MLFLOW_TRACKING_URI``   MLflow: sqlite in the home folder by default
``TOKIWA_STUDIES``        searches: in the store by default, or a database that
                          SQLAlchemy opens, such as ``postgresql://…``
========================  ==================================================

A project that signs names one more in ``register.signing_key_env``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import ConfigError
from components.registry import Registry
from components.signature import SigningKey
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


def signing_key(variable: str) -> SigningKey | None:
    """Return the private key that an environment variable holds, or whose file it names.

    Args:
        variable: its name; empty for a project that does not sign.

    Raises:
        ConfigError: it is not set, or leads to no private key of Ed25519.
    """
    if not variable:
        return None
    value = os.environ.get(variable, "")
    if not value:
        raise ConfigError(
            f"register.signing_key_env names {variable}, which is not set here; it holds a "
            "private key in PEM, or the path of its file"
        )
    if value.lstrip().startswith("-----BEGIN"):
        return SigningKey(value, variable)
    try:
        return SigningKey(Path(value).expanduser().read_text(), f"{variable} ({value})")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{variable} names a file that cannot be read: {error}") from error


def studies() -> Studies:
    """Open the place of searches."""
    from components.studies import Studies

    return Studies(store(), os.environ.get("TOKIWA_STUDIES", ""))
