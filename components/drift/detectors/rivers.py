"""river's drift detectors, which an extra installs."""

from __future__ import annotations

from typing import Any

from components.errors import ConfigError


def river_drift() -> Any:
    """Return the module ``river.drift``.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        import river.drift
        import river.drift.binary
    except ImportError as error:
        raise ConfigError(
            "drift.errors: adwin and ddm need the package river; install it with "
            "pip install 'tokiwa[drift]', or leave page-hinkley alone"
        ) from error
    return river.drift
