"""Names of the container images of the steps.

=========================  ==================================================
``TOKIWA_IMAGE_REGISTRY``  where they were pushed to, such as
                           ``registry.example.com/team``; none by default
``TOKIWA_IMAGE_TAG``       their tag, by default the version of Tokiwa
=========================  ==================================================

The names carry the word ``python`` because kfp's subprocess runner warns about images that
do not.
"""

import os
import re

_REGISTRY = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
REGISTRY = os.environ.get("TOKIWA_IMAGE_REGISTRY", "").rstrip("/")
TAG = os.environ.get("TOKIWA_IMAGE_TAG", "0.1.0")


def image(kind: str) -> str:
    """Return the name of the image of a kind, such as ``base``."""
    name = f"tokiwa-python-{kind}:{TAG}"
    return f"{REGISTRY}/{name}" if REGISTRY else name


def malformed() -> str:
    """Say which variable makes no name of an image, or nothing."""
    if REGISTRY and not _REGISTRY.fullmatch(REGISTRY):
        return (
            "TOKIWA_IMAGE_REGISTRY is no place of images, such as registry.example.com:5000/team: "
            "without https:// and without credentials"
        )
    if not _TAG.fullmatch(TAG):
        return f"TOKIWA_IMAGE_TAG is no tag of an image, such as 0.1.0 (got {TAG!r})"
    return ""


BASE = image("base")
TRAIN = image("train")
SERVE = image("serve")
