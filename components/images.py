"""Names of the container images of the steps.

The tag comes from ``TOKIWA_IMAGE_TAG``; the names carry the word ``python``
because kfp's subprocess runner warns about images that do not.
"""

import os

TAG = os.environ.get("TOKIWA_IMAGE_TAG", "0.1.0")
BASE = f"tokiwa-python-base:{TAG}"
TRAIN = f"tokiwa-python-train:{TAG}"
SERVE = f"tokiwa-python-serve:{TAG}"
