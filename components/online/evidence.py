"""Whether one model errs less than another, to be asked after every record.

A test at a fixed number of rows is wrong more and more often the more often it is looked at.
This one may be looked at always: a gambler bets on the next record that the one model is
better, at odds that are fair if it is not. Without a difference his capital grows twentyfold
with a probability of a twentieth at most, over all time (Ville 1939).
"""

from __future__ import annotations

import math

from components.settings import Section

_MAX_BET = 0.5
"""Share of the capital that a record may cost, so that it is never lost."""


class Evidence(Section):
    """What speaks for a mean gain above zero, of gains between -1 and 1.

    The bet is approximately the one by which capital grows fastest, of the records before
    (Waudby-Smith & Ramdas 2024, https://doi.org/10.1093/jrsssb/qkad009, section B.2).
    """

    rows: int = 0
    total: float = 0.0
    squares: float = 0.0
    log_capital: float = 0.0
    highest: float = 0.0
    """The highest logarithm of the capital so far."""

    def after(self, gain: float, *, restarts: bool = False) -> Evidence:
        """Return the evidence after one more record.

        Args:
            gain: of this record, -1 to 1.
            restarts: whether the gambler begins anew whenever he has lost, or sees no gain any
                more. So a gain that begins late shows as fast as one that was always there;
                without any, his capital grows a thousandfold no more often than once in a
                thousand records, on average (e-detectors; Shin, Ramdas & Rinaldo 2024,
                https://arxiv.org/abs/2203.03532).
        """
        mean = self.total / (self.rows + 1)
        spread = (self.squares + 1) / (self.rows + 1)
        bet = min(max(mean / spread, 0.0), _MAX_BET)
        capital = self.log_capital + math.log1p(bet * gain)
        if restarts and (capital < 0 or self.total + gain <= 0):
            return Evidence()
        return Evidence(
            rows=self.rows + 1,
            total=self.total + gain,
            squares=self.squares + gain * gain,
            log_capital=capital,
            highest=max(self.highest, capital),
        )

    @property
    def p_value(self) -> float:
        """How probable so much is without a gain, however often one looks; not of restarts."""
        return math.exp(-self.highest)
