r"""Monotonic rational-quadratic splines with linear tails, without masked indexing.

Inside :math:`[-B, B]` the spline joins ``K`` bins of width :math:`w_k` and height :math:`h_k`. With
:math:`\theta = (x - x_k) / w_k`, slope :math:`s = h_k / w_k` and knot derivatives
:math:`\delta_k, \delta_{k+1}` the map in bin ``k`` is

.. math::

    y = y_k + h_k \frac{A}{D}, \quad A = s \theta^2 + \delta_k \theta (1 - \theta), \quad
    D = s + (\delta_k + \delta_{k+1} - 2 s) \theta (1 - \theta), \\
    \frac{dy}{dx} = \frac{s^2 N}{D^2}, \quad
    N = \delta_{k+1} \theta^2 + 2 s \theta (1 - \theta) + \delta_k (1 - \theta)^2,

outside it is the identity (Durkan et al., arXiv:1906.04032, eqs. 4-8). Every element goes through the
same arithmetic: a value in the tails is clamped to the edge, and its result is replaced by the identity at
the end, so there is no boolean indexing to break vectorisation and every gradient stays finite. The
gradient is written out by hand (:class:`_Spline`), which takes a third of the operations of autograd.

Tensors are laid out ``(features, batch)`` and parameters ``(features, 3 K - 1, batch)``, so that the bins of
one event are summed across vectors rather than within them, which is the fast order on a CPU.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["MIN_BIN_SIZE", "MIN_DERIVATIVE", "spline_forward", "spline_inverse"]

MIN_BIN_SIZE = 1e-3
"""Smallest width and height of a bin, as a fraction of the interval."""
MIN_DERIVATIVE = 1e-3
"""Smallest derivative at a knot."""
_EDGE_PARAMETER = math.log(math.expm1(1 - MIN_DERIVATIVE))
"""Unconstrained derivative at the edges, where it must equal that of the identity."""


class _Bins(NamedTuple):
    """The bin that each value falls in; ``(features, batch)`` unless said otherwise."""

    number: Tensor
    """Number of the bin, ``(features, 1, batch)``."""
    fractions: Tensor
    """Softmax of the widths and heights of all bins, ``(features, 2, K, batch)``."""
    edge_parameters: Tensor
    """Unconstrained derivatives at the two knots, ``(features, 2, batch)``."""
    left: Tensor
    bottom: Tensor
    width: Tensor
    height: Tensor
    slope_left: Tensor
    slope_right: Tensor


def _bins_of(value: Tensor, parameters: Tensor, bound: float, axis: int) -> _Bins:
    """Bins that hold ``value``, which lies on the horizontal (``axis`` 0) or vertical (1) side."""
    find = _scan_bins if torch.compiler.is_compiling() else _search_bins
    return find(value, parameters, bound, axis)


def _search_bins(value: Tensor, parameters: Tensor, bound: float, axis: int) -> _Bins:
    """Bins found by comparing with all knots at once, in few operations."""
    features, size, batch = parameters.shape
    n_bins = (size + 1) // 3
    fractions = parameters[:, : 2 * n_bins].reshape(features, 2, n_bins, batch).softmax(dim=2)
    steps = torch.arange(1, n_bins, dtype=value.dtype, device=value.device)[:, None]
    scale = 2 * bound * (1 - MIN_BIN_SIZE * n_bins)
    inner = torch.add(
        2 * bound * MIN_BIN_SIZE * steps - bound, fractions[:, :, :-1].cumsum(dim=2), alpha=scale
    )
    knots = F.pad(F.pad(inner, (0, 0, 1, 0), value=-bound), (0, 0, 0, 1), value=bound)
    index = (value.unsqueeze(1) >= inner[:, axis]).sum(dim=1, keepdim=True)

    pair = torch.cat([index, index + 1], dim=1)
    edges = knots.gather(2, pair.unsqueeze(1).expand(features, 2, 2, batch))
    starts = edges[:, :, 0]
    sizes = edges[:, :, 1] - starts
    edge_parameters = F.pad(parameters[:, 2 * n_bins :], (0, 0, 1, 1), value=_EDGE_PARAMETER).gather(1, pair)
    slopes = MIN_DERIVATIVE + F.softplus(edge_parameters)
    return _Bins(
        index, fractions, edge_parameters,
        starts[:, 0], starts[:, 1], sizes[:, 0], sizes[:, 1], slopes[:, 0], slopes[:, 1],
    )  # fmt: skip


def _scan_bins(value: Tensor, parameters: Tensor, bound: float, axis: int) -> _Bins:
    """Bins found by passing one knot after the other: many operations, which compile to one fused loop."""
    features, size, batch = parameters.shape
    n_bins = (size + 1) // 3
    fractions = parameters[:, : 2 * n_bins].reshape(features, 2, n_bins, batch).softmax(dim=2)
    widths, heights = fractions[:, 0].unbind(1), fractions[:, 1].unbind(1)
    edges = [torch.full_like(value, _EDGE_PARAMETER)]
    edges = [*edges, *parameters[:, 2 * n_bins :].unbind(1), *edges]
    scale = 2 * bound * (1 - MIN_BIN_SIZE * n_bins)

    def knot(k: int, cumulative: Tensor) -> Tensor:
        if k == n_bins:
            return torch.full_like(value, bound)
        return 2 * bound * MIN_BIN_SIZE * k - bound + scale * cumulative

    number = torch.zeros_like(value, dtype=torch.long)
    left = bottom = torch.full_like(value, -bound)
    sum_x, sum_y = widths[0], heights[0]
    next_x, next_y = knot(1, sum_x), knot(1, sum_y)
    right, top, edge_left, edge_right = next_x, next_y, edges[0], edges[1]
    for k in range(1, n_bins):
        sum_x, sum_y = sum_x + widths[k], sum_y + heights[k]
        knot_x, knot_y, next_x, next_y = next_x, next_y, knot(k + 1, sum_x), knot(k + 1, sum_y)
        passed = value >= (knot_y if axis else knot_x)
        number = number + passed
        left, right = torch.where(passed, knot_x, left), torch.where(passed, next_x, right)
        bottom, top = torch.where(passed, knot_y, bottom), torch.where(passed, next_y, top)
        edge_left = torch.where(passed, edges[k], edge_left)
        edge_right = torch.where(passed, edges[k + 1], edge_right)
    edge_parameters = torch.stack([edge_left, edge_right], dim=1)
    slope_left, slope_right = (MIN_DERIVATIVE + F.softplus(edge) for edge in (edge_left, edge_right))
    return _Bins(
        number.unsqueeze(1), fractions, edge_parameters,
        left, bottom, right - left, top - bottom, slope_left, slope_right,
    )  # fmt: skip


class _Spline(torch.autograd.Function):
    """The forward spline with its gradient by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameters: Tensor, bound: float) -> tuple[Tensor, Tensor]:
        inside = x.abs() <= bound
        clamped = x.clamp(-bound, bound)
        bins = _bins_of(clamped, parameters, bound, axis=0)
        slope = bins.height / bins.width
        theta = (clamped - bins.left) / bins.width
        rest = 1 - theta
        product = theta * rest
        numerator = slope * theta.square() + bins.slope_left * product
        denominator = slope + (bins.slope_left + bins.slope_right - 2 * slope) * product
        rise = numerator / denominator
        y = bins.bottom + bins.height * rise
        weighted = bins.slope_right * theta.square() + 2 * slope * product + bins.slope_left * rest.square()
        derivative = (slope / denominator).square() * weighted
        ctx.save_for_backward(
            inside, bins.number, bins.fractions, bins.edge_parameters, bins.width, bins.height,
            bins.slope_left, bins.slope_right, slope, theta, rise, denominator, weighted, derivative,
        )  # fmt: skip
        ctx.bound = bound
        return torch.where(inside, y, x), torch.where(inside, derivative.log(), 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_log: Tensor) -> tuple[Tensor, Tensor, None]:
        (
            inside, index, fractions, edge_parameters, width, height,
            slope_left, slope_right, slope, theta, rise, denominator, weighted, derivative,
        ) = ctx.saved_tensors  # fmt: skip
        down = torch.where(inside, grad_y, 0.0)
        log = torch.where(inside, grad_log, 0.0)
        rest = 1 - theta
        product = theta * rest
        log_n, log_d = log / weighted, 2 * log / denominator
        down_d = down * height / denominator

        # Gradients with respect to theta, the slope and the two derivatives, each with the others fixed.
        bend = slope_left + slope_right - 2 * slope
        to_theta = down * derivative * width - log_d * bend * (rest - theta)
        to_theta = to_theta + 2 * log_n * (slope_right * theta + slope * (rest - theta) - slope_left * rest)
        to_slope = (
            down_d * (theta.square() - rise * (1 - 2 * product))
            + 2 * log / slope
            - log_d * (1 - 2 * product)
            + 2 * log_n * product
        )
        common = down_d * rise + log_d
        to_left = product * (down_d - common) + log_n * rest.square()
        to_right = log_n * theta.square() - product * common

        to_x = to_theta / width
        to_width = -(to_slope * slope + to_theta * theta) / width
        to_height = down * rise + to_slope / width
        n_bins = fractions.shape[2]
        # A bin that lies before the one in use moves its start, the one in use changes its size.
        starts = torch.stack([-to_x, down], dim=1).unsqueeze(2)
        sizes = torch.stack([to_width, to_height], dim=1).unsqueeze(2)
        steps = torch.arange(n_bins, device=index.device)[:, None]
        chosen = index.unsqueeze(1)
        grad_fractions = torch.where(steps < chosen, starts, torch.where(steps == chosen, sizes, 0.0))
        grad_fractions = grad_fractions * (2 * ctx.bound * (1 - MIN_BIN_SIZE * n_bins)) * fractions
        grad_sizes = grad_fractions - fractions * grad_fractions.sum(dim=2, keepdim=True)

        grad_edges = torch.stack([to_left, to_right], dim=1) * edge_parameters.sigmoid()
        inner = steps[1:]
        grad_slopes = torch.where(inner == index, grad_edges[:, :1], 0.0)
        grad_slopes = grad_slopes + torch.where(inner == index + 1, grad_edges[:, 1:], 0.0)
        grad_parameters = torch.cat([grad_sizes.flatten(1, 2), grad_slopes], dim=1)
        return torch.where(inside, to_x, grad_y), grad_parameters, None


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
    y, log_derivative = _Spline.apply(x, parameters, bound)  # type: ignore[no-untyped-call]
    return y, log_derivative


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
    bins = _bins_of(clamped, parameters, bound, axis=1)
    slope = bins.height / bins.width
    rise = clamped - bins.bottom
    bend = rise * (bins.slope_left + bins.slope_right - 2 * slope)
    a = bend + bins.height * (slope - bins.slope_left)
    b = bins.height * bins.slope_left - bend
    c = -slope * rise
    discriminant = (b.square() - 4 * a * c).clamp_min(0.0)
    theta = 2 * c / (-b - discriminant.sqrt())
    return torch.where(inside, bins.left + theta * bins.width, y)
