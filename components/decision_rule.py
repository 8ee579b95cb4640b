"""How a classifier's probabilities become what it says: calibrated, then decided for an aim.

The rule is fitted once, on validation rows, when a model is trained; it lies in the bundle
beside the weights, so that whoever loads the model (gate, server, monitoring) decides alike.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from components.calibration import Temperature, fit_temperature, scaled
from components.operating_point import (
    ABSTAIN,
    OperatingPoint,
    OperatingPointConfig,
    Share,
    decide,
    decide_all,
)
from components.settings import Section
from components.threshold import choose_point


class DecisionRule(Section):
    """A temperature, and the operating point that was chosen on answers scaled by it."""

    calibrate: bool
    """Whether a temperature was sought."""
    aim: OperatingPointConfig
    """What the project asked for."""
    temperature: Temperature
    point: OperatingPoint

    @classmethod
    def fit(
        cls,
        answers: NDArray[np.float64],
        targets: NDArray[Any],
        labels: tuple[str, ...],
        aim: OperatingPointConfig,
        *,
        calibrate: bool,
    ) -> Self:
        """Return the rule that fits validation rows best.

        Args:
            answers: probabilities ``[n, k]`` as the network gives them, of rows that its
                weights were not trained on.
            targets: index of each row's label ``[n]``.
            labels: names of the columns.
            aim: what is asked of the decisions.
            calibrate: seek a temperature; otherwise it is 1.

        Raises:
            ValueError: the aim names an unknown label, or answers are no probabilities.
        """
        temperature = fit_temperature(answers, targets) if calibrate else Temperature()
        calibrated = scaled(answers, temperature.value)
        point = choose_point(calibrated, targets, labels, aim)
        return cls(calibrate=calibrate, aim=aim, temperature=temperature, point=point)

    def calibrated(self, answers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a network's probabilities ``[n, k]`` at the temperature."""
        return scaled(answers, self.temperature.value)

    def uncalibrated(self, answers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what ``calibrated`` was given ``[n, k]``, but for rounding."""
        return scaled(answers, 1 / self.temperature.value)

    def decided(self, answers: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the label ``[n]`` of calibrated answers, also of those left to a person."""
        return decide_all(answers, self.point)

    def abstained(self, answers: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which calibrated answers are left to a person ``[n]``."""
        return np.asarray(decide(answers, self.point) == ABSTAIN)

    @property
    def abstains(self) -> bool:
        """Whether any row may be left to a person."""
        return self.point.min_sureness > 0

    @property
    def misses_its_aim(self) -> bool:
        """Whether no operating point gave validation rows what was asked for."""
        asked = self.aim.aim != "most-probable" or self.aim.answered_accuracy is not None
        return asked and not self.point.reached

    @property
    def sentences(self) -> list[str]:
        """How it decides and how well that went on validation rows, for people."""
        point, temperature = self.point, self.temperature
        raw = "Its probabilities are as the network gives them"
        said = [_WAYS[point.aim](self)]
        if self.aim.answered_accuracy is not None:
            said.append(_leaving_some(self))
        if self.misses_its_aim:
            said.append(f"The aim was not reached: {point.reason}.")
        if not self.calibrate:
            said.append(f"{raw}.")
        elif temperature.reason:
            said.append(f"{raw}: {temperature.reason}.")
        else:
            said.append(
                f"Its probabilities are scaled at temperature {temperature.value:.3g}, which "
                f"takes the log loss of {temperature.rows:,} validation rows from "
                f"{temperature.log_loss_before:.3f} to {temperature.log_loss_after:.3f}."
            )
        return said


def _shown(rule: DecisionRule, what: str, share: Share | None) -> str:
    if share is None:
        return f"no {what}"
    bound = f"lower {rule.aim.confidence:.0%} bound {share.low:.3f}"
    return f"{what} {share.measured:.3f} ({bound})"


def _most_probable(rule: DecisionRule) -> str:
    said = "It answers with the most probable label"
    if rule.point.accuracy is None or rule.aim.answered_accuracy is not None:
        return f"{said}."
    accuracy = _shown(rule, "accuracy", rule.point.accuracy)
    return f"{said}: {accuracy} on {rule.point.rows:,} validation rows."


def _from_a_threshold_on(rule: DecisionRule) -> str:
    point, aim = rule.point, rule.aim
    if point.threshold is None:  # there were no rows to choose one by
        return _most_probable(rule)
    best = "precision" if aim.aim == "recall" else "recall"
    recall = _shown(rule, "recall", point.recall)
    precision = _shown(rule, "precision", point.precision)
    return (
        f"It answers {point.label!r} from a probability of {point.threshold:.4g} on, for the "
        f"best {best} at a {aim.aim} of {aim.at_least:g}: {recall}, {precision} on "
        f"{point.rows:,} validation rows."
    )


def _at_the_least_cost(rule: DecisionRule) -> str:
    cost, said = rule.point.cost, "It answers with the label of the least expected cost"
    if cost is None:
        return f"{said}."
    return f"{said}: {cost:.4g} a row on {rule.point.rows:,} validation rows."


def _leaving_some(rule: DecisionRule) -> str:
    point, wanted = rule.point, rule.aim.answered_accuracy
    accuracy = _shown(rule, "accuracy", point.accuracy)
    if not rule.abstains:
        return f"It leaves no row to a person, for an accuracy of {wanted:g}: {accuracy}."
    if point.band is None:
        which = f"rows whose label has a probability below {point.min_sureness:.4g}"
    else:
        low, high = point.band
        which = f"rows with a probability of {point.label!r} from {low:.4g} to {high:.4g}"
    return (
        f"It leaves {which} to a person, {point.abstained:.1%} of the validation rows, for an "
        f"accuracy of {wanted:g} on the others: {accuracy}."
    )


_WAYS = {
    "most-probable": _most_probable,
    "recall": _from_a_threshold_on,
    "precision": _from_a_threshold_on,
    "cost": _at_the_least_cost,
}
