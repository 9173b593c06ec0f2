r"""Learning-rate schedules as pure functions of the step.

With peak rate :math:`\eta`, :math:`N` steps and a warm-up of :math:`W` steps:

* ``constant``: :math:`\eta` throughout, as published by Sluijter 2024;
* ``warmup``: linear from :math:`\eta/25` to :math:`\eta` over the warm-up, then constant;
* ``one_cycle``: the same rise, then a half cosine down to :math:`\eta/10^4` (after Smith and Topin,
  arXiv:1708.07120).
"""

from __future__ import annotations

import math

from sbilib.errors import check_choice

__all__ = ["SCHEDULES", "learning_rate_at"]

SCHEDULES = ("constant", "warmup", "one_cycle")
_START = 1 / 25
_END = 1e-4


def learning_rate_at(step: int, *, n_steps: int, peak: float, schedule: str, warmup: float) -> float:
    """Learning rate at ``step`` (counted from 0).

    Args:
        step: the step about to be made.
        n_steps: length of the training.
        peak: highest learning rate.
        schedule: ``"constant"``, ``"warmup"`` or ``"one_cycle"``.
        warmup: fraction of the training spent rising to the peak.

    Raises:
        ParameterError: for an unknown schedule.

    Example:
        >>> [round(learning_rate_at(s, n_steps=101, peak=1.0, schedule="one_cycle", warmup=0.1), 4)
        ...  for s in (0, 10, 55, 100)]
        [0.04, 1.0, 0.5, 0.0001]
    """
    check_choice("schedule", schedule, SCHEDULES)
    if schedule == "constant":
        return peak
    last = max(1, n_steps - 1)
    rise = warmup * last
    if step < rise:
        return peak * (_START + (1 - _START) * step / rise)
    if schedule == "warmup":
        return peak
    progress = (step - rise) / max(1e-9, last - rise)
    return peak * (_END + (1 - _END) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
