r"""Soft cuts: a threshold as a smooth weight.

.. math:: w(x) = \frac{1}{1 + e^{-k (x - c)}}

The slope :math:`k` sets how closely the weight follows the step at the threshold :math:`c`; the steeper, the
noisier its gradient (Simpson 2023, section 7.2.1, Fig. 7.5).  Optimize with the soft cut and report what the
hard one gives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbilib.differentiable._checks import check_values, positive
from sbilib.errors import check_choice

__all__ = ["hard_cut", "soft_cut"]

_SIDES = ("above", "below")


def soft_cut(
    values: Tensor, threshold: float | Tensor, *, slope: float | Tensor, keep: str = "above"
) -> Tensor:
    r"""Weight of each event after a soft cut, :math:`\sigma(\pm k (x - c))`.

    Args:
        values: the observable that is cut on, ``(*batch, n_events)``.
        threshold: the cut c, a number or a tensor that broadcasts against ``values``, same units.
        slope: steepness k, positive, in inverse units of ``values``.
        keep: ``"above"`` or ``"below"`` the threshold.

    Returns:
        Weights in [0, 1], ``(*batch, n_events)``, in float64.

    Raises:
        ParameterError: if the slope is not positive or ``keep`` is neither of the two.
        DataError: if there are no events, or they are not finite.

    Source:
        Simpson 2023, section 7.2.1.

    Example:
        >>> soft_cut(torch.tensor([0.0, 1.0, 2.0]), 1.0, slope=100.0).round(decimals=3).tolist()
        [0.0, 0.5, 1.0]
    """
    values = check_values("values", values)
    sign = 1.0 if check_choice("keep", keep, _SIDES) == "above" else -1.0
    return torch.sigmoid(sign * positive("slope", slope, values) * (values - threshold))


def hard_cut(values: Tensor, threshold: float | Tensor, *, keep: str = "above") -> Tensor:
    """Weight of each event after an ordinary cut: one on the side that is kept, and zero.

    Args:
        values: the observable that is cut on, ``(*batch, n_events)``.
        threshold: a number or a tensor that broadcasts against ``values``, same units.
        keep: ``"above"`` (larger than the threshold) or ``"below"``.

    Returns:
        Weights 0 or 1, ``(*batch, n_events)``, in float64; they have no gradient.

    Raises:
        ParameterError: if ``keep`` is neither of the two.
        DataError: if there are no events, or they are not finite.

    Example:
        >>> hard_cut(torch.tensor([0.0, 1.0, 2.0]), 0.5).tolist()
        [0.0, 1.0, 1.0]
    """
    values = check_values("values", values)
    kept = values > threshold if check_choice("keep", keep, _SIDES) == "above" else values < threshold
    return kept.double()
