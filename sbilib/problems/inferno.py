r"""The synthetic benchmark of INFERNO: a mixture in three dimensions with known densities.

Signal and background events :math:`x = (x_0, x_1, x_2)` have the densities

.. math::

    f_s(x) &= \mathcal N\bigl((x_0, x_1);\, m,\, 1\bigr)\; 2 e^{-2 x_2},\\
    f_b(x \mid r, \lambda) &= \mathcal N\Bigl((x_0, x_1);\, (2 + r, 0),\,
        \begin{pmatrix} 5 & 0 \\ 0 & 9 \end{pmatrix}\Bigr)\; \lambda e^{-\lambda x_2},

with :math:`s = 50` and :math:`b = 1000` expected events, and :math:`r = 0`, :math:`\lambda = 3` nominally
(de Castro and Dorigo 2019, arXiv:1806.04743, section 5.1).  The parameter of interest is :math:`s`.

The text of that paper puts the signal at :math:`m = (1, 1)`, its public code at :math:`(0, 0)`.  The limits
of its Table 2 follow from :math:`(0, 0)` (14.70 for the first case, published 14.71) and not from
:math:`(1, 1)` (16.15), so :meth:`InfernoBenchmark.published` has the former.

**Reparametrization.**  A background event is a fixed noise vector moved by the parameters,

.. math:: x = \bigl(2 + r + \sqrt 5\,\epsilon_0,\; 3\,\epsilon_1,\; \epsilon_2 / \lambda\bigr),

so derivatives with respect to :math:`r` and :math:`\lambda` flow through the events.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from sbilib.errors import ParameterError, check_choice, check_count, check_events, check_range
from sbilib.problems.base import COMPONENTS
from sbilib.problems.quadrature import exponential_rule, normal_rule

__all__ = [
    "INFERNO_CASES",
    "INFERNO_PARAMETERS",
    "InfernoBenchmark",
    "InfernoCase",
    "InfernoNoise",
    "sigma_of_signal",
]

INFERNO_PARAMETERS = ("s", "r", "lambda", "b")
"""The parameters of the benchmark, in the order of every information matrix."""

_BACKGROUND_VARIANCE = (5.0, 9.0)
_BACKGROUND_MEAN = 2.0
_SIGNAL_RATE = 2.0


@dataclass(frozen=True)
class InfernoCase:
    """Which parameters are free, and which of them are constrained by auxiliary measurements.

    Args:
        name: short name.
        free: names of the free parameters, of :data:`INFERNO_PARAMETERS`; ``"s"`` comes first.
        constraints: standard deviations of normal constraints, as pairs of name and width.

    Raises:
        ParameterError: if a name is unknown or ``"s"`` is not free, or a width is not positive.

    Example:
        >>> INFERNO_CASES["B3"].prior_precision()
        tensor([0.0000, 6.2500, 1.0000], dtype=torch.float64)
    """

    name: str
    free: tuple[str, ...]
    constraints: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        for parameter in self.free:
            check_choice("a free parameter", parameter, INFERNO_PARAMETERS)
        if not self.free or self.free[0] != "s":
            raise ParameterError(f"the first free parameter must be 's', got {self.free}; put it first")
        for parameter, width in self.constraints:
            check_choice("a constrained parameter", parameter, self.free)
            check_range(f"the constraint of {parameter}", width, low=0.0, include_low=False)

    @property
    def indices(self) -> tuple[int, ...]:
        """Places of the free parameters in :data:`INFERNO_PARAMETERS`."""
        return tuple(INFERNO_PARAMETERS.index(parameter) for parameter in self.free)

    def prior_precision(self) -> Tensor:
        """Inverse variances of the constraints of the free parameters, 0 where there is none, in float64."""
        widths = dict(self.constraints)
        return torch.tensor(
            [1.0 / widths[name] ** 2 if name in widths else 0.0 for name in self.free], dtype=torch.float64
        )


_SHAPES = (("r", 0.4), ("lambda", 1.0))
INFERNO_CASES = {
    case.name: case
    for case in (
        InfernoCase("B0", ("s",)),
        InfernoCase("B1", ("s", "r")),
        InfernoCase("B2", ("s", "r", "lambda")),
        InfernoCase("B3", ("s", "r", "lambda"), _SHAPES),
        InfernoCase("B4", ("s", "r", "lambda", "b"), (*_SHAPES, ("b", 100.0))),
    )
}
"""The five cases of Table 2 by name: s; r free; lambda free; both constrained; b free and constrained."""


class InfernoNoise(NamedTuple):
    """Noise of events: two normal coordinates ``(n, 2)`` and an exponential one ``(n,)``."""

    normal: Tensor
    exponential: Tensor


@dataclass(frozen=True)
class InfernoBenchmark:
    """The benchmark with its expected yields and the place of the signal.

    Args:
        signal_mean: mean of the first two coordinates of the signal.
        signal_yield: expected signal events s, positive.
        background_yield: expected background events b, positive.
        rate: nominal rate of the third coordinate of the background, positive.

    Raises:
        ParameterError: if a number is out of its range.

    Example:
        >>> benchmark = InfernoBenchmark.published()
        >>> round(sigma_of_signal(benchmark.information(), INFERNO_CASES["B0"]).item(), 2)
        14.7
    """

    signal_mean: tuple[float, float] = (0.0, 0.0)
    signal_yield: float = 50.0
    background_yield: float = 1000.0
    rate: float = 3.0

    def __post_init__(self) -> None:
        for coordinate in self.signal_mean:
            check_range("signal_mean", coordinate)
        for name in ("signal_yield", "background_yield", "rate"):
            check_range(name, getattr(self, name), low=0.0, include_low=False)

    @classmethod
    def published(cls) -> InfernoBenchmark:
        """The benchmark behind the published table: signal at (0, 0), as in the authors' public code."""
        return cls()

    @classmethod
    def as_written(cls) -> InfernoBenchmark:
        """The benchmark as the text of the paper has it: signal at (1, 1)."""
        return cls(signal_mean=(1.0, 1.0))

    def noise(self, n: int, generator: Generator, *, dtype: torch.dtype = torch.float32) -> InfernoNoise:
        """Draw the noise of ``n`` events.

        Raises:
            ParameterError: if ``n`` is not a positive integer.
        """
        check_count("n", n, low=1)
        device = generator.device
        normal = torch.randn(n, 2, generator=generator, dtype=dtype, device=device)
        exponential = torch.empty(n, dtype=dtype, device=device).exponential_(generator=generator)
        return InfernoNoise(normal, exponential)

    def signal(self, noise: InfernoNoise) -> Tensor:
        """Signal events ``(n, 3)`` made of noise; they depend on no parameter."""
        plane = noise.normal + noise.normal.new_tensor(self.signal_mean)
        return torch.cat([plane, noise.exponential.unsqueeze(-1) / _SIGNAL_RATE], dim=-1)

    def background(
        self, noise: InfernoNoise, *, r: Tensor | float = 0.0, rate: Tensor | float | None = None
    ) -> Tensor:
        """Background events ``(n, 3)`` made of noise, differentiable in both parameters.

        Args:
            noise: of :meth:`noise`.
            r: shift of the first coordinate.
            rate: rate lambda of the third coordinate, positive; nominal if None.

        Raises:
            ParameterError: if the rate is not positive.
        """
        like = noise.normal
        moved = torch.as_tensor(r, dtype=like.dtype, device=like.device)
        scale = torch.as_tensor(self.rate if rate is None else rate, dtype=like.dtype, device=like.device)
        if not bool((scale.detach() > 0).all()):
            raise ParameterError(f"rate must be positive, got {scale.tolist()}; pass a positive rate")
        widths = like.new_tensor(_BACKGROUND_VARIANCE).sqrt()
        first = _BACKGROUND_MEAN + moved + widths[0] * like[:, 0]
        return torch.stack([first, widths[1] * like[:, 1], noise.exponential / scale], dim=-1)

    def log_prob(
        self, component: str, x: Tensor, *, r: Tensor | float = 0.0, rate: Tensor | float | None = None
    ) -> Tensor:
        """Exact log density of events ``x`` (n, 3), minus infinity where ``x_2`` is negative; ``(n,)``.

        Args:
            component: ``"signal"`` or ``"background"``.
            x: events.
            r: shift of the background, ignored for the signal.
            rate: rate of the background, nominal if None, ignored for the signal.

        Raises:
            ParameterError: for any other component.
            DataError: if events are empty, of the wrong shape, or not finite.
        """
        check_events("x", x, 3)
        if check_choice("component", component, COMPONENTS) == "signal":
            mean, variance = torch.as_tensor(self.signal_mean).to(x), torch.ones(2).to(x)
            decay = torch.as_tensor(_SIGNAL_RATE).to(x)
        else:
            first = torch.as_tensor(_BACKGROUND_MEAN + r).to(x)
            mean, variance = torch.stack([first, torch.zeros_like(first)]), x.new_tensor(_BACKGROUND_VARIANCE)
            decay = torch.as_tensor(self.rate if rate is None else rate).to(x)
        plane = -0.5 * ((x[:, :2] - mean).square() / variance + variance.log()).sum(-1) - math.log(
            2 * math.pi
        )
        tail = torch.where(x[:, 2] >= 0, decay.log() - decay * x[:, 2], -math.inf)
        return plane + tail

    def background_score(self, x: Tensor) -> Tensor:
        r"""Derivatives of :math:`\ln f_b` with respect to r and lambda at their nominal values.

        Their mean over background events, weighted by any function of the events, is the derivative of the
        mean of that function; it needs no derivative of the function.

        Args:
            x: events, ``(n, 3)``.

        Returns:
            ``(2, n)``.

        Raises:
            DataError: if events are empty, of the wrong shape, or not finite.
        """
        check_events("x", x, 3)
        return torch.stack(
            [(x[:, 0] - _BACKGROUND_MEAN) / _BACKGROUND_VARIANCE[0], 1.0 / self.rate - x[:, 2]]
        )

    def information(self) -> Tensor:
        r"""Fisher information of all parameters for the events themselves, without constraints.

        .. math:: I_{ij} = \int \frac{\partial_i \nu\; \partial_j \nu}{\nu}\, dx, \qquad
                  \nu(x) = s f_s(x) + b f_b(x \mid r, \lambda),

        at the nominal parameters, by product quadrature.  No summary of the events has more.

        Returns:
            ``(4, 4)`` in float64, in the order of :data:`INFERNO_PARAMETERS`; relative accuracy about 1e-8.
        """
        deviations = [math.sqrt(variance) for variance in _BACKGROUND_VARIANCE]
        x0, w0 = normal_rule(_BACKGROUND_MEAN, deviations[0])
        x1, w1 = normal_rule(0.0, deviations[1])
        x2, w2 = exponential_rule(min(self.rate, _SIGNAL_RATE))
        s, b, m = self.signal_yield, self.background_yield, self.signal_mean
        plane = _normal(x0, m[0], 1.0)[:, None] * _normal(x1, m[1], 1.0)
        signal = plane[:, :, None] * (_SIGNAL_RATE * torch.exp(-_SIGNAL_RATE * x2))
        plane = _normal(x0, _BACKGROUND_MEAN, deviations[0])[:, None] * _normal(x1, 0.0, deviations[1])
        background = plane[:, :, None] * (self.rate * torch.exp(-self.rate * x2))
        shift = ((x0 - _BACKGROUND_MEAN) / _BACKGROUND_VARIANCE[0])[:, None, None]
        slopes = torch.stack(
            [signal, b * background * shift, b * background * (1 / self.rate - x2), background]
        )
        volume = w0[:, None, None] * w1[:, None] * w2
        weight = volume / (s * signal + b * background)
        flat = slopes.flatten(1)
        return (flat * weight.flatten()) @ flat.T


def sigma_of_signal(information: Tensor, case: InfernoCase) -> Tensor:
    r"""Standard deviation of s, :math:`\sqrt{[(I + C)^{-1}]_{ss}}`, with the constraints C of a case.

    Args:
        information: ``(..., 4, 4)`` in the order of :data:`INFERNO_PARAMETERS`.
        case: free parameters and constraints.

    Returns:
        ``(...)``, in events.

    Example:
        >>> round(sigma_of_signal(torch.eye(4).double(), INFERNO_CASES["B4"]).item(), 3)
        1.0
    """
    places = list(case.indices)
    chosen = information[..., places, :][..., places]
    precision = case.prior_precision().to(information)
    covariance: Tensor = torch.linalg.inv(chosen + torch.diag_embed(precision))
    return covariance[..., 0, 0].sqrt()


def _normal(x: Tensor, mean: float, deviation: float) -> Tensor:
    return torch.exp(-0.5 * ((x - mean) / deviation).square()) / (deviation * math.sqrt(2 * math.pi))
