r"""Monotonic maps of one feature, the elements of all flows here: affine and rational-quadratic.

The affine map with parameters :math:`(s, t)` is

.. math:: y = \sigma x + t, \qquad \sigma = \log(1 + e^s) + 10^{-3},

as in nflows (Papamakarios et al., arXiv:1705.07057); the spline is that of :mod:`sbilib.models.spline`.
Values have shape ``(features, batch)`` and parameters ``(features, n_parameters, batch)``.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sbilib.models.spline import MIN_DERIVATIVE, spline_forward, spline_inverse

__all__ = ["Affine", "Elementwise", "Spline"]

_MIN_SCALE = 1e-3


class Elementwise(Protocol):
    """What a map of single features offers."""

    @property
    def identity(self) -> Tensor:
        """Parameters ``(n_parameters,)`` with which it is the identity."""
        ...

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """``y`` and :math:`\\log dy/dx`, each ``(features, batch)``."""
        ...

    def inverse(self, y: Tensor, parameters: Tensor) -> Tensor:
        """``x`` of shape ``(features, batch)``."""
        ...


class Affine:
    """Scale and shift.

    Example:
        >>> affine = Affine()
        >>> parameters = affine.identity.view(1, 2, 1)
        >>> y, log_derivative = affine.forward(torch.tensor([[3.0]]), parameters)
        >>> round(y.item(), 5), round(log_derivative.abs().item(), 5)
        (3.0, 0.0)
    """

    @property
    def identity(self) -> Tensor:
        """Parameters ``(2,)`` of the identity: log scale before the softplus, and shift."""
        return torch.tensor([math.log(math.expm1(1 - _MIN_SCALE)), 0.0])

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """``y`` and the log derivative, each ``(features, batch)``."""
        scale = F.softplus(parameters[:, 0]) + _MIN_SCALE
        return scale * x + parameters[:, 1], scale.log()

    def inverse(self, y: Tensor, parameters: Tensor) -> Tensor:
        """``x`` of shape ``(features, batch)``."""
        return (y - parameters[:, 1]) / (F.softplus(parameters[:, 0]) + _MIN_SCALE)


class Spline:
    """Rational-quadratic spline, the identity beyond a bound.

    Args:
        n_bins: bins ``K``; the map has ``3 K - 1`` parameters.
        bound: half width of the interval.

    Example:
        >>> spline = Spline(8, 5.0)
        >>> x = torch.tensor([[-7.0, 0.3]])
        >>> y, _ = spline.forward(x, spline.identity.view(1, -1, 1).expand(1, -1, 2))
        >>> torch.allclose(y, x, atol=1e-6)
        True
    """

    def __init__(self, n_bins: int, bound: float) -> None:
        self.n_bins, self.bound = n_bins, bound

    @property
    def identity(self) -> Tensor:
        """Parameters ``(3 K - 1,)`` of the identity: equal bins, and slopes of one."""
        slopes = torch.full((self.n_bins - 1,), math.log(math.expm1(1 - MIN_DERIVATIVE)))
        return torch.cat([torch.zeros(2 * self.n_bins), slopes])

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """``y`` and the log derivative, each ``(features, batch)``."""
        return spline_forward(x, parameters, self.bound)

    def inverse(self, y: Tensor, parameters: Tensor) -> Tensor:
        """``x`` of shape ``(features, batch)``."""
        return spline_inverse(y, parameters, self.bound)
