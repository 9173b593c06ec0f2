r"""The fit of one background parameter with the signal strength held, for losses in a training loop.

For bins with expected counts :math:`\lambda_i(\alpha) = \mu s_i + b_i + S_i\,\alpha + D_i\,e(\alpha)`
(histosys code 4p; :math:`S` and :math:`D` are half the difference and the bend of the varied backgrounds)
and an auxiliary measurement :math:`a`, minimize

.. math:: f(\alpha) = \sum_i \left[\lambda_i - n_i \ln \lambda_i\right] + \tfrac12 (\alpha - a)^2,
          \qquad -5 \le \alpha \le 5 .

A network that isolates the signal makes :math:`f` hard for a general solver: background expectations near
zero turn negative within a fraction of a standard deviation, so :math:`f` has walls and may have several
minima.  A grid finds the lowest one, and Newton steps inside a bracket, halved whenever a step would leave
it, finish. Fits of many hypotheses and members of a stack run together.

The arrays are tiny and the steps many, so NumPy is used: its calls cost a fraction of those of PyTorch.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["even_part", "fit_arrays", "fit_shape"]

Array = NDArray[np.float64]

_BOUND = 5.0
_GRID = np.linspace(0.0, _BOUND, 65)
_MOST_STEPS = 60
# A Newton step squares the error, so one this small is the last; halving a bracket must go on much longer.
_LAST_NEWTON, _LAST_HALVING = 1e-5, 1e-10


def fit_shape(
    data: Tensor, signal: Tensor, background: Tensor, up: Tensor, down: Tensor, poi_value: Tensor
) -> Tensor:
    r"""Best value of the background parameter for a held signal strength.

    Args:
        data: counts n, not negative, and the auxiliary measurement a, ``(*batch, n_bins + 1)``.
        signal, background, up, down: templates, ``(*batch, n_bins)``.
        poi_value: held signal strength, ``(*batch,)``; all batch dimensions broadcast.

    Returns:
        The parameter :math:`\hat{\hat\alpha}`, ``(*batch,)``, without gradient.

    Example:
        >>> s, b = torch.tensor([5.0, 0.0]).double(), torch.tensor([50.0, 50.0]).double()
        >>> data = torch.tensor([52.0, 52.0, 0.0]).double()
        >>> round(fit_shape(data, s, b, b + 2, b - 2, torch.tensor(0.0)).item(), 3)
        0.137
    """
    given = (data, signal, background, up, down, poi_value)
    found = fit_arrays(*(np.asarray(each.detach().cpu().numpy(), dtype=np.float64) for each in given))
    return torch.as_tensor(found, device=data.device)


def fit_arrays(
    data: Array, signal: Array, background: Array, up: Array, down: Array, poi_value: Array
) -> Array:
    """What :func:`fit_shape` finds, of arrays in float64."""
    counts, measured = data[..., :-1], data[..., -1]
    slope, bend = 0.5 * (up - down), 0.5 * (up + down) - background
    fixed = poi_value[..., None] * signal + background

    def value(alpha: Array) -> Array:
        at = alpha[..., None]
        rate = fixed + slope * at + bend * even_part(at)[0]
        return _poisson(counts, rate) + 0.5 * np.square(alpha - measured)

    batch = np.broadcast_shapes(fixed.shape[:-1], slope.shape[:-1], data.shape[:-1])
    # A bend makes two minima that differ by little, so both sides of zero are tried.
    side = np.array([-1.0, 1.0]).reshape(2, *(1,) * len(batch))
    start = _GRID[value(_GRID.reshape(-1, *(1,) * (len(batch) + 1)) * side).argmin(0)] * side
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = _polished(start, side, counts, fixed, slope, bend, measured)
    lower = value(found)
    better: Array = np.where(lower[1] < lower[0], found[1], found[0])
    return better


def _polished(
    start: Array, side: Array, counts: Array, fixed: Array, slope: Array, bend: Array, measured: Array
) -> Array:
    """Newton steps from grid points, inside a bracket of their neighbors on the same side of zero."""
    alpha, spacing = start, _GRID[1]
    low = np.maximum(alpha - spacing, np.where(side > 0, 0.0, -_BOUND))
    high = np.minimum(alpha + spacing, np.where(side > 0, _BOUND, 0.0))
    for _ in range(_MOST_STEPS):
        gradient, curvature, inside = _derivatives(counts, fixed, slope, bend, alpha)
        gradient = gradient + alpha - measured
        # Beyond a wall the derivative means nothing, but the minimum is on the side of the grid point.
        beyond = np.where(inside, gradient > 0, alpha > start)
        high, low = np.where(beyond, alpha, high), np.where(beyond, low, alpha)
        newton = np.clip(alpha - gradient / curvature, -_BOUND, _BOUND)
        usable = inside & (curvature > 0) & (newton >= low) & (newton <= high)
        following = np.where(usable, newton, 0.5 * (low + high))
        small = np.abs(following - alpha) < np.where(usable, _LAST_NEWTON, _LAST_HALVING)
        alpha = following
        if small.all():
            break
    return alpha


def even_part(alpha: Array) -> tuple[Array, Array, Array]:
    """``(15 a^2 - 10 a^4 + 3 a^6) / 8``, outside of one ``|a|``, with two derivatives: code 4p."""
    square = alpha * alpha
    outside = square > 1
    value = np.where(outside, np.abs(alpha), square * (15 + square * (3 * square - 10)) / 8)
    first = np.where(outside, np.sign(alpha), alpha * (15 + square * (9 * square - 20)) / 4)
    return value, first, np.where(outside, 0.0, (15 + square * (45 * square - 60)) / 4)


def _poisson(counts: Array, rate: Array) -> Array:
    """Negative log likelihood without constants, infinite for a rate that the data exclude."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(counts > 0, rate - counts * np.log(rate), rate)
    excluded = (rate < 0) | ((rate == 0) & (counts > 0))
    total: Array = np.where(excluded, np.inf, terms).sum(-1)
    return total


def _derivatives(
    counts: Array, fixed: Array, slope: Array, bend: Array, alpha: Array
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """First derivative of the Poisson terms, second of all terms, and whether all rates are allowed."""
    at = alpha[..., None]
    even = even_part(at)
    rate = fixed + slope * at + bend * even[0]
    first, second = slope + bend * even[1], bend * even[2]
    allowed = ((rate > 0) | ((rate == 0) & (counts == 0))).all(-1)
    ratio = np.where(counts > 0, counts / rate, 0.0)
    excess = 1.0 - ratio
    gradient = (excess * first).sum(-1)
    curvature = (excess * second + np.where(counts > 0, ratio / rate, 0.0) * first * first).sum(-1) + 1.0
    return gradient, curvature, allowed
