r"""Asimov significance of counts, with and without an uncertainty of the background.

Without, for bins that are independent,

.. math:: Z_A = \sqrt{2 \sum_i \left[(s_i + b_i) \ln\left(1 + \frac{s_i}{b_i}\right) - s_i\right]},

and with an uncertainty :math:`\sigma` of the background in each bin that a Poisson control region measured,

.. math:: Z_A = \sqrt{2 \sum_i \left[(s + b)\ln\frac{(s + b)(b + \sigma^2)}{b^2 + (s + b)\sigma^2}
          - \frac{b^2}{\sigma^2} \ln\left(1 + \frac{\sigma^2 s}{b (b + \sigma^2)}\right)\right]_i} .

Sources: Cowan et al. 2011, arXiv:1007.1727, eq. 97; G. Cowan, "Discovery sensitivity for a counting
experiment with background uncertainty" (2012), eq. 20; Simpson 2023, eq. 7.1.  The second formula knows of
no correlation between bins; a profile likelihood does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbilib.errors import DataError
from sbilib.histfactory.asymptotics import root

__all__ = ["asimov_significance"]

# Below this relative variance of the background the two formulas agree to rounding, and the second loses
# digits.
_SMALL = 1e-9


def asimov_significance(signal: Tensor, background: Tensor, uncertainty: Tensor | None = None) -> Tensor:
    """Expected significance of a signal over a background, in standard deviations.

    Args:
        signal: expected events, ``(*batch, n_bins)``, not negative.
        background: expected events, ``(*batch, n_bins)``, positive.
        uncertainty: standard deviation of the background in each bin, ``(*batch, n_bins)``, or None.

    Returns:
        ``(*batch,)`` in float64; its gradient is zero where there is no signal.

    Raises:
        DataError: if a signal is negative, a background not positive, or a number not finite.

    Source:
        Cowan et al. 2011, eq. 97; Cowan 2012, eq. 20.

    Example:
        >>> z = asimov_significance(torch.tensor([10.0]), torch.tensor([100.0]), torch.tensor([5.0]))
        >>> round(z.item(), 3)
        0.877
    """
    s, b = signal.double(), background.double()
    _check("signal", s, s.detach() >= 0, "not negative")
    _check("background", b, b.detach() > 0, "positive")
    known = (s + b) * torch.log1p(s / b) - s
    if uncertainty is None:
        return root(2.0 * known.sum(-1).clamp_min(0.0))
    variance = uncertainty.double().square()
    _check("uncertainty", variance, variance.detach() >= 0, "a number")
    small = variance.detach() <= _SMALL * b.detach()
    v = torch.where(small, b.detach(), variance)
    first = (s + b) * torch.log1p(s * b / (b * b + (s + b) * v))
    second = b * b / v * torch.log1p(v * s / (b * (b + v)))
    # First order of the exact formula in the variance, so that the gradient is continuous at none.
    near = known - 0.5 * variance * (s / b).square()
    return root(2.0 * torch.where(small, near, first - second).sum(-1).clamp_min(0.0))


def _check(name: str, values: Tensor, good: Tensor, expected: str) -> None:
    fine = good & values.detach().isfinite()
    if not bool(fine.all()):
        index = int((~fine).nonzero()[0, -1])
        raise DataError(
            f"{name} must be {expected} and finite in every bin, got {float(values.detach()[~fine][0]):g} in "
            f"bin {index}; merge or correct that bin"
        )
