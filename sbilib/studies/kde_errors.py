r"""How wrong the gradient of a binned kernel density estimate is, in a problem where all is known.

Events :math:`x_k + \mu` with :math:`x_k` from a mixture of normal distributions; a bin from a to b expects
the fraction :math:`F(b - \mu) - F(a - \mu)` of them, and its derivative is :math:`f(a - \mu) - f(b - \mu)`.
The estimate of the derivative is

.. math:: \hat g = \frac1N \sum_k \left[\varphi_h(a - x_k - \mu) - \varphi_h(b - x_k - \mu)\right],

the difference of two kernel density estimates, one at each edge.  Its bias is that of a mixture widened by h,
and its variance follows from :math:`\varphi_h^2 = \varphi_{h/\sqrt2}/(2 h \sqrt\pi)` (ours; Simpson 2023,
section 7.2.3, measures the error for one normal distribution).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from sbilib.differentiable import binned_kde
from sbilib.errors import DataError, ParameterError, check_count, check_range

__all__ = [
    "NormalMixture",
    "PowerLaw",
    "best_bandwidth",
    "exact_gradient_error",
    "fit_power_law",
    "simulated_gradients",
]

_Bin = tuple[float, float]


@dataclass(frozen=True)
class NormalMixture:
    """A mixture of normal distributions that can be shifted as a whole.

    Args:
        weights: of the components, positive; they add up to one.
        means: of the components.
        widths: standard deviations, positive.

    Raises:
        ParameterError: if the three differ in length, or weights or widths are not as said.

    Example:
        >>> NormalMixture().standard_deviation
        1.0
    """

    weights: tuple[float, ...] = (1.0,)
    means: tuple[float, ...] = (0.0,)
    widths: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not len(self.weights) == len(self.means) == len(self.widths) > 0:
            raise ParameterError(
                f"a mixture needs as many weights, means and widths, got {len(self.weights)}, "
                f"{len(self.means)} and {len(self.widths)}"
            )
        for name, values in (("a weight", self.weights), ("a width", self.widths)):
            for value in values:
                check_range(name, value, low=0.0, include_low=False)
        if not math.isclose(sum(self.weights), 1.0):
            raise ParameterError(f"weights must add up to one, got {sum(self.weights):g}; divide by the sum")

    @property
    def standard_deviation(self) -> float:
        """Of the whole mixture."""
        mean = sum(w * m for w, m in zip(self.weights, self.means, strict=True))
        parts = zip(self.weights, self.means, self.widths, strict=True)
        return math.sqrt(sum(w * (s * s + (m - mean) ** 2) for w, m, s in parts))

    def sample(self, n: int, *, seed: int) -> Tensor:
        """Draw ``n`` events at shift zero, ``(n,)`` in float64."""
        generator = Generator().manual_seed(seed)
        weights, means, widths = (
            torch.tensor(v, dtype=torch.float64) for v in (self.weights, self.means, self.widths)
        )
        which = torch.multinomial(weights, n, replacement=True, generator=generator)
        return means[which] + widths[which] * torch.randn(n, generator=generator, dtype=torch.float64)

    def density(self, x: Tensor, *, smear: float = 0.0) -> Tensor:
        """Density at ``x``, of the mixture smeared with a normal kernel of bandwidth ``smear``."""
        result = torch.zeros_like(x)
        for weight, mean, width in zip(self.weights, self.means, self.widths, strict=True):
            result = result + weight * _normal(x - mean, math.hypot(width, smear))
        return result

    def bin_fraction(self, shift: Tensor, edges: _Bin) -> Tensor:
        """Expected fraction of events between two edges, for each shift."""
        result = torch.zeros_like(shift)
        for weight, mean, width in zip(self.weights, self.means, self.widths, strict=True):
            low, high = (torch.special.ndtr((edge - shift - mean) / width) for edge in edges)
            result = result + weight * (high - low)
        return result

    def bin_gradient(self, shift: Tensor, edges: _Bin, *, smear: float = 0.0) -> Tensor:
        """Its derivative with respect to the shift, :math:`f(a - \\mu) - f(b - \\mu)`."""
        return self.density(edges[0] - shift, smear=smear) - self.density(edges[1] - shift, smear=smear)


def _normal(x: Tensor, width: float) -> Tensor:
    return torch.exp(-0.5 * (x / width).square()) / (width * math.sqrt(2 * math.pi))


def exact_gradient_error(
    mixture: NormalMixture, edges: _Bin, shifts: Tensor, *, bandwidth: float, n_events: int
) -> Tensor:
    r"""Relative error of the gradient of a bin, with no simulation.

    .. math:: r^2 = \frac{\langle (E\hat g - g)^2 + \mathrm{Var}\,\hat g\rangle_\mu}{\langle g^2 \rangle_\mu}

    Args:
        mixture: of the events.
        edges: low and high edge of the bin.
        shifts: values of :math:`\mu` to average over, ``(n_shifts,)``.
        bandwidth: h, positive.
        n_events: N.

    Returns:
        r, a scalar: the root of the mean square error over that of the true gradient.

    Raises:
        ParameterError: if edges are out of order or a number is out of its range.

    Example:
        >>> shifts = torch.linspace(-2, 2, 41, dtype=torch.float64)
        >>> where = NormalMixture(), (-0.5, 0.5), shifts
        >>> [round(float(exact_gradient_error(*where, bandwidth=h, n_events=100)), 2) for h in (0.05, 0.5, 2)]
        [0.94, 0.28, 0.83]
    """
    low, high = _check_bin(edges)
    h = check_range("bandwidth", bandwidth, low=0.0, include_low=False)
    check_count("n_events", n_events, low=1)
    truth = mixture.bin_gradient(shifts, edges)
    mean = mixture.bin_gradient(shifts, edges, smear=h)
    narrow = h / math.sqrt(2)
    squares = mixture.density(low - shifts, smear=narrow) + mixture.density(high - shifts, smear=narrow)
    product = mixture.density(0.5 * (low + high) - shifts, smear=narrow)
    apart = _normal(shifts.new_tensor(high - low), h * math.sqrt(2))
    second_moment = squares / (2 * h * math.sqrt(math.pi)) - 2 * apart * product
    variance = (second_moment - mean.square()) / n_events
    return (((mean - truth).square() + variance).mean() / truth.square().mean()).sqrt()


def simulated_gradients(
    mixture: NormalMixture,
    edges: _Bin,
    shifts: Tensor,
    *,
    bandwidths: Sequence[float],
    n_events: int,
    seeds: Sequence[int],
) -> Tensor:
    """Gradients of a bin of the binned KDE by automatic differentiation, for one sample a seed.

    Args:
        mixture: of the events.
        edges: low and high edge of the bin.
        shifts: of the sample, ``(n_shifts,)``; one sample is moved to all of them.
        bandwidths: of the kernels.
        n_events: of a sample.
        seeds: one for each sample.

    Returns:
        Derivative of the fraction of events in the bin with respect to the shift,
        ``(n_seeds, n_bandwidths, n_shifts)``.

    Raises:
        ParameterError: if edges are out of order or a number is out of its range.
    """
    limits = torch.tensor(_check_bin(edges), dtype=torch.float64)
    check_count("n_events", n_events, low=1)
    results = []
    for seed in seeds:
        sample = mixture.sample(n_events, seed=seed)
        for bandwidth in bandwidths:
            moved = shifts.detach().double().clone().requires_grad_()
            inside = binned_kde(sample + moved.unsqueeze(-1), limits, bandwidth=bandwidth).sum() / n_events
            results.append(torch.autograd.grad(inside, moved)[0])
    return torch.stack(results).view(len(seeds), len(bandwidths), len(shifts))


def best_bandwidth(bandwidths: Sequence[float], errors: Tensor) -> Tensor:
    """Bandwidth of the least error, between the points of a grid.

    Args:
        bandwidths: increasing, at least three, equally spaced in the logarithm.
        errors: ``(*batch, n_bandwidths)``.

    Returns:
        Vertex of the parabola through the lowest point and its neighbors, in the logarithms of both,
        ``(*batch,)``; a point at the end of the grid stays where it is.

    Raises:
        DataError: if there are fewer than three bandwidths or their number differs from that of the errors.
    """
    grid = torch.tensor(bandwidths, dtype=torch.float64).log()
    if len(grid) < 3 or errors.shape[-1] != len(grid):
        raise DataError(
            f"errors need one entry for each of at least three bandwidths, "
            f"got {errors.shape[-1]} and {len(grid)}; pass the grid the errors belong to"
        )
    values = errors.double().log()
    lowest = values.argmin(-1, keepdim=True)
    middle = lowest.clamp(1, len(grid) - 2)
    before, here, after = (values.gather(-1, middle + step).squeeze(-1) for step in (-1, 0, 1))
    offset = 0.5 * (before - after) / (before - 2 * here + after)
    inner = (lowest == middle).squeeze(-1)
    place = grid[middle.squeeze(-1)] + offset * (grid[1] - grid[0])
    return torch.where(inner, place, grid[lowest.squeeze(-1)]).exp()


class PowerLaw(NamedTuple):
    """:math:`h = c\\, N^{-k}`."""

    factor: float
    """c."""
    factor_error: float
    """Its standard error."""
    exponent: float
    """k."""
    exponent_error: float
    """Its standard error."""
    chi2: float
    """Sum of squared deviations over their errors."""
    n_free: int
    """Points minus two."""

    def __call__(self, n_events: float) -> float:
        """The law at N events."""
        return float(self.factor * n_events**-self.exponent)


def fit_power_law(n_events: Sequence[float], bandwidths: Tensor, errors: Tensor) -> PowerLaw:
    """Fit a straight line to logarithms, each point weighted with its error.

    Args:
        n_events: N of each point, at least three.
        bandwidths: h of each point, positive, ``(n_points,)``.
        errors: standard error of each h, positive, ``(n_points,)``.

    Raises:
        DataError: if there are fewer than three points, or bandwidths or errors are not positive.

    Example:
        >>> best = torch.tensor([1.0, 0.1, 0.01])
        >>> law = fit_power_law([10, 100, 1000], best, 0.1 * best)
        >>> round(law.exponent, 6), round(law.factor, 6)
        (1.0, 10.0)
    """
    if len(n_events) < 3 or not bool((bandwidths > 0).all()) or not bool((errors > 0).all()):
        raise DataError(
            "a power law needs at least three points, with positive bandwidths and errors; "
            f"got {len(n_events)} points"
        )
    x, y = np.log(np.asarray(n_events, dtype=float)), np.log(bandwidths.double().numpy())
    weight = bandwidths.double().numpy() / errors.double().numpy()
    design = np.stack([np.ones_like(x), -x], axis=1) * weight[:, None]
    covariance = np.linalg.inv(design.T @ design)
    constant, exponent = covariance @ design.T @ (y * weight)
    residual = design @ np.array([constant, exponent]) - y * weight
    factor = math.exp(constant)
    return PowerLaw(
        factor=factor,
        factor_error=factor * math.sqrt(covariance[0, 0]),
        exponent=float(exponent),
        exponent_error=math.sqrt(covariance[1, 1]),
        chi2=float(residual @ residual),
        n_free=len(x) - 2,
    )


def _check_bin(edges: _Bin) -> _Bin:
    low, high = edges
    if not low < high:
        raise ParameterError(f"edges must increase, got {low:g} and {high:g}; swap them")
    return low, high
