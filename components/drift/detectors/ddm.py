"""DDM: does the error rate rise above its best so far?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from components.drift.detectors.detector import Numbers, Stream
from components.drift.detectors.rivers import river_drift


@dataclass
class Ddm(Stream):
    """river's drift detection method, for a stream of errors.

    The least error rate is that of a lucky start as well: with the 3 standard deviations and
    30 values of the paper two of five steady streams of 2,000 values raise an alarm, with the
    defaults here one of twenty.

    Parameters
    ----------
    drift_threshold
        Standard deviations above the least error rate that raise the alarm.
    min_values
        No alarm before so many values.

    Examples:
    --------
    >>> generator = np.random.default_rng(0)
    >>> Ddm().update((generator.random(1000) < np.repeat([0.2, 0.6], 500)).astype(float))
    [612]

    References:
    ----------
    Gama et al. (2004), Learning with drift detection, Brazilian Symposium on Artificial
    Intelligence.
    """

    drift_threshold: float = 4.0
    min_values: int = 100

    def __post_init__(self) -> None:
        self._test = river_drift().binary.DDM(
            warm_start=self.min_values, drift_threshold=self.drift_threshold
        )

    def update(self, values: Numbers) -> list[int]:
        """Look at further errors ``[n]``, of which 0.5 and more count as one."""
        alarms = []
        for index, wrong in enumerate((np.asarray(values) >= 0.5).tolist()):
            self._test.update(wrong)
            if self._test.drift_detected:
                alarms.append(index)
        return alarms
