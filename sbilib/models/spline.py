r"""Monotonic rational-quadratic splines with linear tails, without masked indexing.

Inside :math:`[-B, B]` the spline joins ``K`` bins of width :math:`w_k` and height :math:`h_k`. With
:math:`\theta = (x - x_k) / w_k`, slope :math:`s = h_k / w_k` and knot derivatives
:math:`\delta_k, \delta_{k+1}` the map in bin ``k`` is

.. math::

    y = y_k + \frac{h_k [s \theta^2 + \delta_k \theta (1 - \theta)]}
                   {s + (\delta_{k+1} + \delta_k - 2 s) \theta (1 - \theta)},

outside it is the identity (Durkan et al., arXiv:1906.04032, eqs. 4-8). Every element goes through the
same arithmetic: a value in the tails is clamped to the edge, and its result is replaced by the identity at
the end, so there is no boolean indexing to break vectorisation and every gradient stays finite.

Tensors are laid out ``(features, batch)`` and parameters ``(features, 3 K - 1, batch)``, so that the bins of
one event are summed across vectors rather than within them, which is the fast order on a CPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["MIN_BIN_SIZE", "MIN_DERIVATIVE", "spline_forward", "spline_inverse"]

MIN_BIN_SIZE = 1e-3
"""Smallest width and height of a bin, as a fraction of the interval."""
MIN_DERIVATIVE = 1e-3
"""Smallest derivative at a knot."""


def _knots(parameters: Tensor, bound: float) -> tuple[Tensor, Tensor, Tensor]:
    """Horizontal knots, vertical knots and knot derivatives, each ``(features, K + 1, batch)``."""
    features, size, batch = parameters.shape
    n_bins = (size + 1) // 3
    fractions = parameters[:, : 2 * n_bins].reshape(features, 2, n_bins, batch).softmax(dim=2)
    sizes = MIN_BIN_SIZE + (1 - MIN_BIN_SIZE * n_bins) * fractions
    inner = 2 * bound * sizes[:, :, :-1].cumsum(dim=2) - bound
    knots = F.pad(F.pad(inner, (0, 0, 1, 0), value=-bound), (0, 0, 0, 1), value=bound)
    slopes = MIN_DERIVATIVE + F.softplus(parameters[:, 2 * n_bins :])
    return knots[:, 0], knots[:, 1], F.pad(slopes, (0, 0, 1, 1), value=1.0)


def _select(knots: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The knots on the left and the right of bin ``index`` (features, 1, batch)."""
    return knots.gather(1, index).squeeze(1), knots.gather(1, index + 1).squeeze(1)


def _bin_index(knots: Tensor, value: Tensor) -> Tensor:
    """Index (features, 1, batch) of the bin that holds ``value``; the edges belong to the outer bins."""
    return (value.unsqueeze(1) >= knots[:, 1:-1]).sum(dim=1, keepdim=True)


def spline_forward(x: Tensor, parameters: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    r"""Spline and the logarithm of its derivative.

    Args:
        x: values, shape ``(features, batch)``.
        parameters: unconstrained widths (K), heights (K) and inner derivatives (K - 1) along the second
            dimension, shape ``(features, 3 K - 1, batch)``.
        bound: half width :math:`B` of the interval; beyond it the spline is the identity.

    Returns:
        ``y`` and :math:`\log dy/dx`, each of shape ``(features, batch)``.

    Example:
        >>> x = torch.tensor([[-9.0, 0.5, 7.0]])
        >>> y, log_derivative = spline_forward(x, torch.zeros(1, 29, 3), 7.0)
        >>> y[0, 0].item(), y[0, 2].item()
        (-9.0, 7.0)
    """
    inside = x.abs() <= bound
    clamped = x.clamp(-bound, bound)
    knots_x, knots_y, slopes = _knots(parameters, bound)
    index = _bin_index(knots_x, clamped)
    left, right = _select(knots_x, index)
    bottom, top = _select(knots_y, index)
    slope_left, slope_right = _select(slopes, index)

    width, height = right - left, top - bottom
    slope = height / width
    theta = (clamped - left) / width
    product = theta * (1 - theta)
    denominator = slope + (slope_left + slope_right - 2 * slope) * product
    y = bottom + height * (slope * theta.square() + slope_left * product) / denominator
    numerator = slope_right * theta.square() + 2 * slope * product + slope_left * (1 - theta).square()
    log_derivative = 2 * (slope.log() - denominator.log()) + numerator.log()
    return torch.where(inside, y, x), torch.where(inside, log_derivative, 0.0)


def spline_inverse(y: Tensor, parameters: Tensor, bound: float) -> Tensor:
    """Value ``x`` whose spline is ``y``; arguments and shapes as in :func:`spline_forward`.

    The quadratic in theta is solved in the form that does not cancel (arXiv:1906.04032, eq. 29).

    Example:
        >>> parameters = torch.linspace(-1, 1, 29).reshape(1, 29, 1)
        >>> y, _ = spline_forward(torch.tensor([[0.5]]), parameters, 7.0)
        >>> round(spline_inverse(y, parameters, 7.0).item(), 5)
        0.5
    """
    inside = y.abs() <= bound
    clamped = y.clamp(-bound, bound)
    knots_x, knots_y, slopes = _knots(parameters, bound)
    index = _bin_index(knots_y, clamped)
    left, right = _select(knots_x, index)
    bottom, top = _select(knots_y, index)
    slope_left, slope_right = _select(slopes, index)

    width, height = right - left, top - bottom
    slope = height / width
    rise = clamped - bottom
    bend = rise * (slope_left + slope_right - 2 * slope)
    a = bend + height * (slope - slope_left)
    b = height * slope_left - bend
    c = -slope * rise
    discriminant = (b.square() - 4 * a * c).clamp_min(0.0)
    theta = 2 * c / (-b - discriminant.sqrt())
    return torch.where(inside, left + theta * width, y)
