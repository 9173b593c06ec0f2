r"""Confidence intervals from the exact crossings of a profile likelihood.

With :math:`-2\log\lambda(\theta) = 2\,[\mathrm{NLL}(\theta) - \mathrm{NLL}(\hat\theta)]` the interval is
the connected region around :math:`\hat\theta` where it stays below a threshold, 1 for 68.3% by Wilks'
theorem (Sluijter 2024, eq. 2.12, 2.13 and section 3.3.2).  Between grid points the profile is the
cubic through the four nearest points, and its minimum that of the quartic through the five nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sbilib.errors import check_range
from sbilib.likelihood.profile import Profile

__all__ = ["Intervals", "crossing_interval"]

_BISECTIONS = 50


@dataclass(frozen=True)
class Intervals:
    """Confidence intervals of one parameter, of one set (shape ``()``) or of many (``(n_sets,)``).

    An edge outside the scanned range is not known: it is set to the end of the range and flagged as open.

    Attributes:
        best: best fit.
        lower: lower edge.
        upper: upper edge.
        lower_open: True where the lower edge lies below the scanned range.
        upper_open: True where the upper edge lies above the scanned range.
        valid: False where no interval could be built; its edges are then NaN.

    Example:
        >>> yes, no = torch.tensor(True), torch.tensor(False)
        >>> interval = Intervals(torch.tensor(0.1), torch.tensor(0.0), torch.tensor(0.25), yes, no, yes)
        >>> interval.width.item(), interval.contains(0.3).item()
        (0.25, False)
    """

    best: Tensor
    lower: Tensor
    upper: Tensor
    lower_open: Tensor
    upper_open: Tensor
    valid: Tensor

    @property
    def width(self) -> Tensor:
        """Upper minus lower edge, within the scanned range."""
        return self.upper - self.lower

    @classmethod
    def join(cls, parts: Sequence[Intervals]) -> Intervals:
        """Intervals of several groups of sets, one after the other."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def contains(self, truth: float | Tensor) -> Tensor:
        """True where the interval holds ``truth``; an open edge holds everything on its side."""
        above = self.lower_open | (self.lower <= truth)
        below = self.upper_open | (self.upper >= truth)
        return self.valid & above & below


def crossing_interval(profile: Profile, *, level: float = 1.0) -> Intervals:
    r"""The interval on which :math:`-2\log\lambda` stays below ``level``, by interpolation of the profile.

    Args:
        profile: a profile, of one set or of many.
        level: threshold on :math:`-2\log\lambda`; 1 for 68.3%, 4 for 95.4%.

    Returns:
        Intervals of the shape of the profile without its last axis.  If the profile has several dips
        the interval is the one around the deepest; crossings beyond the range leave an edge open.

    Raises:
        ParameterError: if ``level`` is not positive.

    Example:
        >>> x = torch.linspace(-3, 3, 61, dtype=torch.float64)
        >>> interval = crossing_interval(Profile(x, (x - 0.33) ** 2 / 2))
        >>> round(interval.lower.item(), 6), round(interval.upper.item(), 6)
        (-0.67, 1.33)
    """
    check_range("level", level, low=0.0, include_low=False)
    nll = profile.nll.double().reshape(-1, profile.nll.shape[-1])
    values = profile.parameter_values.to(nll).expand_as(nll)
    best, smallest, position = _refined_minimum(values, nll)
    excess = nll - smallest[:, None] - level / 2
    lower, lower_open = _crossing(values.flip(1).neg(), excess.flip(1), -best, nll.shape[1] - 1 - position)
    upper, upper_open = _crossing(values, excess, best, position)
    shape = profile.nll.shape[:-1]
    valid = torch.ones_like(lower_open)
    parts = (best, -lower, upper, lower_open, upper_open, valid)
    return Intervals(*(part.reshape(shape) for part in parts))


def _refined_minimum(values: Tensor, nll: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Place and value of the minimum between grid points, and the grid position nearest to it."""
    n_points = nll.shape[1]
    smallest, position = nll.min(dim=1)
    best = values.gather(1, position[:, None])[:, 0]
    order = min(5, n_points)
    first = (position - order // 2).clamp(0, n_points - order)
    index = first[:, None] + torch.arange(order, device=nll.device)
    x, y = values.gather(1, index), nll.gather(1, index)
    # Search between the neighbors of the smallest value, on a line that shrinks twenty-fold a pass.
    low = values.gather(1, (position - 1).clamp(min=0)[:, None])
    high = values.gather(1, (position + 1).clamp(max=n_points - 1)[:, None])
    usable = y.isfinite().all(dim=1)
    y = torch.where(usable[:, None], y, 0.0)
    fractions = torch.linspace(0, 1, 41, dtype=nll.dtype, device=nll.device)
    for _ in range(7):
        line = low + (high - low) * fractions
        at = _lagrange(x, y, line).argmin(dim=1, keepdim=True)
        low, high = line.gather(1, (at - 1).clamp(min=0)), line.gather(1, (at + 1).clamp(max=40))
    refined = (low + high) / 2
    value = _lagrange(x, y, refined)[:, 0]
    better = usable & (value <= smallest)
    return torch.where(better, refined[:, 0], best), torch.where(better, value, smallest), position


def _crossing(values: Tensor, excess: Tensor, best: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """First zero of ``excess`` above ``best``, and True where there is none up to the last value."""
    n_points = values.shape[1]
    place = torch.arange(n_points, device=values.device)
    above = (place > position[:, None]) & (excess >= 0)
    found = above.any(dim=1)
    right = torch.where(found, above.int().argmax(dim=1), n_points - 1).clamp(min=1)
    order = min(4, n_points)
    first = (right - order // 2).clamp(0, n_points - order)
    index = first[:, None] + torch.arange(order, device=values.device)
    x, y = values.gather(1, index), excess.gather(1, index)
    low, high = values.gather(1, right[:, None] - 1), values.gather(1, right[:, None])
    ends = excess.gather(1, torch.stack((right - 1, right), dim=1))
    # A cubic through an infinite value is no use: fall back to the straight line, or to the inner end.
    smooth = y.isfinite().all(dim=1)
    y = torch.where(smooth[:, None], y, 0.0)
    line = torch.where(ends.isfinite().all(dim=1), -ends[:, 0] / (ends[:, 1] - ends[:, 0]), 0.0)
    straight = low[:, 0] + (high - low)[:, 0] * line
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        beyond = _lagrange(x, y, middle) >= 0
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    crossing = torch.where(smooth, ((low + high) / 2)[:, 0], straight)
    crossing = torch.maximum(crossing, best)
    return torch.where(found, crossing, values[:, -1]), ~found


def _lagrange(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """The polynomial through points ``x``, ``y`` (rows, k), at places ``at`` (rows, m)."""
    total = torch.zeros_like(at)
    for i in range(x.shape[1]):
        term = y[:, i : i + 1].expand_as(at)
        for j in range(x.shape[1]):
            if j != i:
                term = term * (at - x[:, j : j + 1]) / (x[:, i : i + 1] - x[:, j : j + 1])
        total = total + term
    return total
