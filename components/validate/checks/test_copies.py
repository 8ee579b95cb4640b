"""Does a row that is learnt from hold the same as a test row of another group?"""

from __future__ import annotations

import pandas as pd

from components.split import content_digest, is_test
from components.validate.config import ValidateConfig
from components.validate.sample import Mask, Sample


def test_copies(sample: Sample, config: ValidateConfig) -> dict[str, Mask]:
    """Return the rows outside of the test set whose content is that of a test row.

    Rows without a group are their own by their content, so that copies of them stay together.
    """
    frame = sample.frame
    if frame.empty:
        return {}
    tests = is_test(frame["group"].fillna(""))
    contents = pd.Series([content_digest(content or "") for content in frame["text"]])
    held = frame["text"].notna().to_numpy(bool)
    return {"copy-of-test-row": ~tests & held & contents.isin(contents[tests & held]).to_numpy()}
