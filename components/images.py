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

REGISTRY = os.environ.get("TOKIWA_IMAGE_REGISTRY", "").rstrip("/")
TAG = os.environ.get("TOKIWA_IMAGE_TAG", "0.1.0")


def image(kind: str) -> str:
    """Return the name of the image of a kind, such as ``base``."""
    name = f"tokiwa-python-{kind}:{TAG}"
    return f"{REGISTRY}/{name}" if REGISTRY else name


BASE = image("base")
TRAIN = image("train")
SERVE = image("serve")
