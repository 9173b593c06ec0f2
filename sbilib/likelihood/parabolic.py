r"""Confidence intervals as published: a quartic through the profile, then the parabolic assumption.

A polynomial :math:`q(\theta)` of degree four is fitted to the profile NLL.  With its minimum
:math:`\hat\theta` and the curvature there, the interval is

.. math:: \hat\theta \pm \sigma, \qquad \sigma = q''(\hat\theta)^{-1/2},

which is where :math:`-2\log\lambda` would reach 1 if the profile were a parabola (Sluijter 2024,
section 3.3.2).  It is not, so the edges have a true level that differs from 68.3%, namely
:math:`P(\chi^2_1 < 2[q(\hat\theta \pm \sigma) - q(\hat\theta)])` (appendix B there).

The source does not say which part of the profile is fitted.  The default here is
:math:`\mathrm{NLL} - \min < 4.5`, three standard deviations each way, chosen by trial: with the exact
likelihood of 1000 events the levels are then 65% to 72%, against "between about 65% and 75%" in the
source.  Fitting the whole scanned range is ruled out: in the large-distance case it would displace the
best signal ratio by more than the width of the interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.errors import check_range
from sbilib.likelihood.intervals import Intervals
from sbilib.likelihood.profile import Profile

__all__ = [
    "DEFAULT_WINDOW",
    "ParabolicLevels",
    "QuarticFit",
    "fit_quartic",
    "parabolic_interval",
    "parabolic_levels",
]

DEFAULT_WINDOW = 4.5
_SEARCH_POINTS = 201


class ParabolicLevels(NamedTuple):
    """True confidence level at each edge of a parabolic interval, shape ``()`` or ``(n_sets,)``."""

    lower: Tensor
    """At the lower edge; NaN where there is no interval."""
    upper: Tensor
    """At the upper edge; NaN where there is no interval."""


@dataclass(frozen=True)
class QuarticFit:
    r"""A polynomial of degree four through a profile, in the scaled parameter :math:`t \in [-1, 1]`.

    The parameter is ``center + half_width * t``, and the fit covers exactly :math:`-1 \le t \le 1`.

    Attributes:
        coefficients: of :math:`1, t, \dots, t^4`, shape ``(n_sets, 5)``.
        center: shape ``(n_sets,)``.
        half_width: shape ``(n_sets,)``.
        best: parameter where the polynomial is smallest within the fitted window.
        sigma: inverse root of the curvature there; NaN where it is not positive.
        valid: False where fewer than five points lie in the window or the curvature is not positive.
    """

    coefficients: Tensor
    center: Tensor
    half_width: Tensor
    best: Tensor
    sigma: Tensor
    valid: Tensor

    def nll(self, parameter: Tensor) -> Tensor:
        """The polynomial at ``parameter``, shape ``(n_sets,)`` or ``(n_sets, n_points)``."""
        extra = (slice(None),) + (None,) * (parameter.dim() - 1)
        t = (parameter - self.center[extra]) / self.half_width[extra]
        return _polynomial(self.coefficients, t)


def fit_quartic(profile: Profile, *, window: float | None = DEFAULT_WINDOW) -> QuarticFit:
    """Least-squares fit of a polynomial of degree four to a profile NLL.

    Args:
        profile: a profile, of one set or of many.
        window: fit the points whose NLL is at most this much above the smallest, which must be
            connected to it; None for the whole range.

    Raises:
        ParameterError: if ``window`` is not positive.
    """
    nll = profile.nll.double().reshape(-1, profile.nll.shape[-1])
    values = profile.parameter_values.to(nll).expand_as(nll)
    excess = nll - nll.min(dim=1, keepdim=True).values
    used = _window(excess, window)
    low = torch.where(used, values, torch.inf).min(dim=1).values
    high = torch.where(used, values, -torch.inf).max(dim=1).values
    center, half_width = (low + high) / 2, (high - low) / 2
    enough = used.sum(dim=1) >= 5
    half_width = torch.where(enough, half_width, 1.0)
    t = ((values - center[:, None]) / half_width[:, None]).clamp(-1, 1)
    chebyshev = torch.stack(
        (torch.ones_like(t), t, 2 * t**2 - 1, 4 * t**3 - 3 * t, 8 * t**4 - 8 * t**2 + 1), dim=2
    )
    design = chebyshev * used[:, :, None]
    normal = design.transpose(1, 2) @ design
    identity = torch.eye(5, dtype=normal.dtype, device=normal.device)
    normal = torch.where(enough[:, None, None], normal, identity)
    right = design.transpose(1, 2) @ torch.where(used, excess, 0.0)[:, :, None]
    solution = torch.linalg.solve(normal, right)[:, :, 0]
    to_powers = torch.tensor(
        [[1, 0, -1, 0, 1], [0, 1, 0, -3, 0], [0, 0, 2, 0, -8], [0, 0, 0, 4, 0], [0, 0, 0, 0, 8]],
        dtype=normal.dtype,
        device=normal.device,
    )
    coefficients = solution @ to_powers.T
    t_best, curvature = _polynomial_minimum(coefficients)
    valid = enough & (curvature > 0)
    sigma = torch.where(
        valid, half_width / curvature.clamp(min=torch.finfo(nll.dtype).tiny).sqrt(), torch.nan
    )
    return QuarticFit(coefficients, center, half_width, center + half_width * t_best, sigma, valid)


def parabolic_interval(profile: Profile, *, window: float | None = DEFAULT_WINDOW) -> Intervals:
    r"""The published interval, best fit plus or minus one standard deviation of the parabola.

    Args:
        profile: a profile, of one set or of many.
        window: as in `fit_quartic`.

    Returns:
        Intervals of the shape of the profile without its last axis.  An edge outside the range of the
        profile is open; where the curvature is not positive there is no interval and ``valid`` is False.

    Example:
        >>> x = torch.linspace(-4, 4, 81, dtype=torch.float64)
        >>> interval = parabolic_interval(Profile(x, (x - 0.5) ** 2 / 2))
        >>> round(interval.lower.item(), 6), round(interval.upper.item(), 6)
        (-0.5, 1.5)
    """
    fit = fit_quartic(profile, window=window)
    values = profile.parameter_values.to(fit.best)
    first, last = values[..., 0], values[..., -1]
    lower, upper = fit.best - fit.sigma, fit.best + fit.sigma
    lower_open, upper_open = lower < first, upper > last
    lower = torch.where(lower_open, first, lower)
    upper = torch.where(upper_open, last, upper)
    best = torch.where(fit.valid, fit.best, torch.nan)
    shape = profile.nll.shape[:-1]
    parts = (best, lower, upper, lower_open, upper_open, fit.valid)
    return Intervals(*(part.reshape(shape) for part in parts))


def parabolic_levels(profile: Profile, *, window: float | None = DEFAULT_WINDOW) -> ParabolicLevels:
    r"""True level of each edge of the parabolic interval, from the quartic (appendix B and eq. 2.13).

    Example:
        >>> x = torch.linspace(-4, 4, 81, dtype=torch.float64)
        >>> levels = parabolic_levels(Profile(x, x**2 / 2))
        >>> round(levels.lower.item(), 4), round(levels.upper.item(), 4)
        (0.6827, 0.6827)
    """
    fit = fit_quartic(profile, window=window)
    smallest = fit.nll(fit.best)
    levels = []
    for edge in (fit.best - fit.sigma, fit.best + fit.sigma):
        # P(chi2_1 < 2 d) = erf(sqrt(d)).
        levels.append(
            torch.erf((fit.nll(edge) - smallest).clamp(min=0).sqrt()).reshape(profile.nll.shape[:-1])
        )
    return ParabolicLevels(*levels)


def _window(excess: Tensor, window: float | None) -> Tensor:
    """True for the points to fit: those below the limit that are connected to the smallest one."""
    if window is None:
        return excess.isfinite()
    check_range("window", window, low=0.0, include_low=False)
    below = excess <= window
    place = torch.arange(excess.shape[1], device=excess.device)
    position = excess.argmin(dim=1, keepdim=True)
    barrier_left = torch.where(~below & (place < position), place, -1).max(dim=1, keepdim=True).values
    barrier_right = (
        torch.where(~below & (place > position), place, len(place)).min(dim=1, keepdim=True).values
    )
    return (place > barrier_left) & (place < barrier_right)


def _polynomial(coefficients: Tensor, t: Tensor) -> Tensor:
    """Horner's rule for coefficients (n_sets, 5) at t (n_sets, ...)."""
    shape = (-1,) + (1,) * (t.dim() - 1)
    total = torch.zeros_like(t)
    for k in range(coefficients.shape[1] - 1, -1, -1):
        total = total * t + coefficients[:, k].reshape(shape)
    return total


def _polynomial_minimum(coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Where on [-1, 1] the polynomial is smallest, and its second derivative there."""
    line = torch.linspace(-1, 1, _SEARCH_POINTS, dtype=coefficients.dtype, device=coefficients.device)
    powers = torch.arange(1, 5, device=coefficients.device)
    first = coefficients[:, 1:] * powers
    second = first[:, 1:] * powers[:3]
    t = line[_polynomial(coefficients, line.expand(len(coefficients), -1)).argmin(dim=1)]
    low, high = (t - 0.01).clamp(min=-1), (t + 0.01).clamp(max=1)
    for _ in range(50):
        middle = (low + high) / 2
        rising = _polynomial(first, middle) > 0
        low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
    t = (low + high) / 2
    return t, _polynomial(second, t)
