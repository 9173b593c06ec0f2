r"""Fitted, invertible maps from physical features to coordinates in which densities are learned.

Both maps act on each feature alone, :math:`u_d = t_d(x_d)`, so that
:math:`\log |\det \partial u / \partial x| = \sum_d \log t_d'(x_d)`.  They are fitted once, to training
events, and saved; nothing refits them on other events (:mod:`sbilib.models.preprocessing_base`).

:class:`QuantileToNormal` makes each feature standard normal (Gauss rank).  Knots are order statistics
:math:`x_{(r)}` of the ``n`` training events, with :math:`u = \Phi^{-1}((r - 1/2) / n)`, at ranks dense in
both tails, :math:`p = \sin^2(\pi j / 2 (K - 1))`, with so few knots that five events lie between the first
two of either end: the slope of a tail is theirs.  Between knots the map is a monotonic rational-quadratic
spline (Gregory and Delbourgo, IMA J. Numer. Anal. 2 (1982) 123) with the slopes of Fritsch and Butland, so
that the density it gives is continuous.  Beyond the last knots, with slope :math:`s` at the knot
:math:`(x_1, u_1)`,

.. math:: u = u_1 + s\,(x - x_1) \quad\text{(no bound)}, \qquad
          u = u_1 + s\,g \log\frac{x - L}{g}, \quad g = x_1 - L \quad\text{(bound } L),

and likewise above: noise of any size comes back inside the bounds.

:class:`LogitStandardize` maps the interval between the bounds to the line,

.. math:: u = \frac{\operatorname{logit}(a + (1 - 2 a)\, v) - m}{w}, \qquad v = \frac{x - L}{H - L}, \quad
          a = 10^{-6},

with mean :math:`m` and width :math:`w` of the training events (Gavranovic and Kersevan 2024, section 2, use
one after the other).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from sbilib.errors import DataError, check_count, check_range
from sbilib.models.files import register_model
from sbilib.models.preprocessing_base import (
    Bound,
    FeatureTransform,
    Floor,
    TransformConfig,
    configured,
    training_columns,
)

__all__ = ["LogitStandardize", "QuantileConfig", "QuantileToNormal"]

NOISE_LIMIT = 10.0
"""Largest standard normal coordinate that is mapped back: one number in 10^23 is larger."""
_EDGE = 1e-6
"""Nearest that a value counts as to a bound, relative to the distance of the nearest training event."""
_SHRINK = 1e-6
"""What the logit keeps from either end of its range."""
_LEAST_EVENTS = 10
_SLACK = 1e-4
"""Rounding of coordinates that is not taken for a value outside the range."""


@dataclass(frozen=True, kw_only=True)
class QuantileConfig(TransformConfig):
    """What is fixed about a :class:`QuantileToNormal` apart from its knots.

    Raises:
        ParameterError: as for :class:`TransformConfig`, or for fewer than two knots.
    """

    n_knots: int = 256
    """Knots of each feature, at most."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("n_knots", self.n_knots, low=2)


class QuantileToNormal(FeatureTransform):
    """Each feature to a standard normal one, by its quantiles in the training events.

    Any value inside the bounds can be mapped, also beyond the training events, and coordinates up to
    ``NOISE_LIMIT`` come back.  A value nearer to a bound than 10^-6 of the distance of the nearest training
    event counts as if it were there.

    Equal values are one knot, at the middle of their ranks: the map stays strictly increasing, and a share of
    events with one value stays a spike, which a density can only approach. :attr:`largest_ties` tells how
    large it is; dequantize such a feature or model it apart.  If the value is a bound, coordinates below its
    knot (above, for an upper bound) come back as that bound.

    Args:
        config: names, bounds and number of knots. :meth:`fit` makes the knots.

    Example:
        >>> mass = torch.rand(1000, 1, generator=torch.Generator().manual_seed(1)) ** 2 * 100
        >>> transform = QuantileToNormal.fit(mass, names=("m_jj",), bounds={"m_jj": (0, None)}, n_knots=50)
        >>> u, log_det = transform(mass)
        >>> round(u.mean().item(), 2) + 0.0, round(u.std().item(), 2)
        (0.0, 1.0)
        >>> bool((transform.inverse(torch.full((1, 1), -9.0)) >= 0).all())
        True
    """

    kind: ClassVar[str] = "quantile-to-normal"
    config: QuantileConfig
    values: Tensor
    """Values at the knots, ``(features, n_knots)``; infinite beyond the last knot of a feature."""
    normals: Tensor
    """Coordinates at the knots, likewise."""
    slopes: Tensor
    """Derivatives at the knots, likewise."""
    largest_ties: Tensor
    """Largest share of training events with one value, ``(features,)``."""

    def __init__(self, config: QuantileConfig) -> None:
        super().__init__(config)
        for name in ("values", "normals", "slopes"):
            self.register_buffer(name, torch.full((config.features, config.n_knots), math.inf))
        self.register_buffer("largest_ties", torch.zeros(config.features))

    @classmethod
    def fit(
        cls,
        events: Tensor,
        *,
        names: Sequence[str] | None = None,
        bounds: Mapping[str, Bound] | None = None,
        floors: Mapping[str, Floor] | None = None,
        n_knots: int = 256,
    ) -> Self:
        """The map fitted to training events.

        Args:
            events: training events in physical units, shape ``(n, features)``, at least ten.
            names: names of the features; ``feature 0`` and so on if not given.
            bounds: physical bounds by name of the feature, None for an end without one.
            floors: groups of features below a feature, by its name.
            n_knots: knots of each feature, at most.

        Raises:
            DataError: if the events are fewer than ten, not finite, constant in a feature, outside the
                bounds or below a floor.
            ParameterError: for impossible names, bounds, floors or numbers of knots.
        """
        common = configured(events, names, bounds, floors)
        config = QuantileConfig(**vars(common), n_knots=n_knots)
        if len(events) < _LEAST_EVENTS:
            raise DataError(f"a map needs at least {_LEAST_EVENTS} events, got {len(events)}; give more")
        n_knots = min(n_knots, _most_knots(len(events)))
        transform = cls(config)
        for number, column in enumerate(training_columns(events, config)):
            values, normals, tie = _knots(column, n_knots)
            used = slice(len(values))
            transform.values[number, used], transform.normals[number, used] = values, normals
            transform.slopes[number, used] = _knot_slopes(values.double(), normals.double())
            transform.largest_ties[number] = tie
        return transform

    def _coordinate_range(self) -> tuple[Tensor, Tensor]:
        limit = torch.full((self.config.features,), NOISE_LIMIT, dtype=torch.float64)
        return -limit, limit

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        left, right, start, end, d0, d1 = self._bin(x, self.values)
        slope = (end - start) / (right - left)
        theta = ((x - left) / (right - left)).clamp(0, 1)
        product = theta * (1 - theta)
        denominator = slope + (d0 + d1 - 2 * slope) * product
        u = start + (end - start) * (slope * theta.square() + d0 * product) / denominator
        weighted = d1 * theta.square() + 2 * slope * product + d0 * (1 - theta).square()
        log_derivative = 2 * (slope / denominator).log() + weighted.log()
        for sign, value, normal, slope, gap in self._tails():
            beyond = sign * (x - value)
            bounded = gap.isfinite() & (gap > 0)
            gap = torch.where(bounded, gap, 1.0)
            ratio = (1 - beyond / gap).clamp_min(_EDGE)
            tail = normal + sign * slope * torch.where(bounded, -gap * ratio.log(), beyond)
            log_tail = slope.log() - torch.where(bounded, ratio.log(), 0.0)
            u = torch.where(beyond > 0, tail, u)
            log_derivative = torch.where(beyond > 0, log_tail, log_derivative)
        return u, log_derivative

    def _inverse(self, u: Tensor) -> Tensor:
        left, right, start, end, d0, d1 = self._bin(u, self.normals)
        slope = (end - start) / (right - left)
        rise = u.clamp(start, end) - start
        bend = rise * (d0 + d1 - 2 * slope)
        a = bend + (end - start) * (slope - d0)
        b = (end - start) * d0 - bend
        c = -slope * rise
        theta = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0.0).sqrt())
        x = left + theta * (right - left)
        for sign, value, normal, slope, gap in self._tails():
            beyond = (sign * (u - normal)).clamp_min(0.0) / slope
            bounded = torch.where(gap > 0, -gap * torch.expm1(-beyond / gap.clamp_min(1e-300)), 0.0)
            tail = value + sign * torch.where(gap.isfinite(), bounded, beyond)
            x = torch.where(beyond > 0, tail, x)
        return x

    def _bin(self, rows: Tensor, side: Tensor) -> tuple[Tensor, ...]:
        """Ends of the bin of each entry of ``rows`` on both sides, and the derivatives there."""
        last = side.isfinite().sum(dim=1, keepdim=True) - 2
        index = (torch.searchsorted(side.double().contiguous(), rows, right=True) - 1).clamp_min(0)
        index = index.minimum(last)
        tables = (self.values, self.normals, self.slopes)
        return tuple(table.double().gather(1, index + k) for table in tables for k in (0, 1))

    def _tails(self) -> list[tuple[int, Tensor, Tensor, Tensor, Tensor]]:
        """For the lower and the upper tail: sign, value, coordinate, slope and distance to the bound."""
        low, high = (limit.to(self.values.device)[:, None] for limit in self._range())
        last = self.values.isfinite().sum(dim=1, keepdim=True) - 1
        tails = []
        for sign, knot, limit in ((-1, torch.zeros_like(last), low), (1, last, high)):
            value, normal, slope = (
                table.gather(1, knot).double() for table in (self.values, self.normals, self.slopes)
            )
            tails.append((sign, value, normal, slope, sign * (limit - value)))
        return tails


class LogitStandardize(FeatureTransform):
    """Each feature by the logit of its place between its ends, then standardized.

    Where a feature has no physical bound, its range ends a margin beyond the training events; a value
    outside, or a coordinate beyond those of the ends, is an error unless it is asked to be clamped.

    Args:
        config: names and bounds. :meth:`fit` takes ends, means and widths from events.

    Example:
        >>> eta = torch.linspace(-2.0, 2.0, 101)[:, None]
        >>> transform = LogitStandardize.fit(eta, names=("eta",), bounds={"eta": (-2.5, 2.5)})
        >>> u, log_det = transform(eta)
        >>> torch.allclose(transform.inverse(u), eta, atol=1e-5)
        True
    """

    kind: ClassVar[str] = "logit-standardize"
    ends: Tensor
    """Ends of the range of features without bounds, ``(2, features)``."""
    shift: Tensor
    """Means of the logits, ``(features,)``."""
    scale: Tensor
    """Widths of the logits, ``(features,)``."""

    def __init__(self, config: TransformConfig) -> None:
        super().__init__(config)
        self.register_buffer("ends", torch.zeros(2, config.features))
        self.register_buffer("shift", torch.zeros(config.features))
        self.register_buffer("scale", torch.ones(config.features))

    @classmethod
    def fit(
        cls,
        events: Tensor,
        *,
        names: Sequence[str] | None = None,
        bounds: Mapping[str, Bound] | None = None,
        floors: Mapping[str, Floor] | None = None,
        margin: float = 0.05,
    ) -> Self:
        """The map fitted to training events.

        Args:
            events: training events in physical units, shape ``(n, features)``.
            names: names of the features; ``feature 0`` and so on if not given.
            bounds: physical bounds by name of the feature, None for an end without one.
            floors: groups of features below a feature, by its name.
            margin: how far beyond the training events a range without bound ends, relative to their spread.

        Raises:
            DataError: if the events are not finite, constant in a feature, outside the bounds or below a
                floor.
            ParameterError: for impossible names, bounds, floors or margins.
        """
        check_range("margin", margin, low=0.0, include_low=False)
        transform = cls(configured(events, names, bounds, floors))
        columns = training_columns(events, transform.config)
        lowest, highest = columns.amin(dim=1), columns.amax(dim=1)
        spread = margin * (highest - lowest)
        transform.ends[0], transform.ends[1] = lowest - spread, highest + spread
        logits, _ = transform._forward(columns.double())
        transform.shift.copy_(logits.mean(dim=1))
        transform.scale.copy_(logits.std(dim=1))
        return transform

    def _range(self) -> tuple[Tensor, Tensor]:
        low, high = (limit.to(self.ends.device) for limit in super()._range())
        ends = self.ends.double()
        return torch.where(low.isfinite(), low, ends[0]), torch.where(high.isfinite(), high, ends[1])

    def _coordinate_range(self) -> tuple[Tensor, Tensor]:
        low, high = (self._forward(end[:, None])[0][:, 0] for end in self._range())
        return low - _SLACK, high + _SLACK

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low, high = (end[:, None] for end in self._range())
        shift, scale = self.shift.double()[:, None], self.scale.double()[:, None]
        share = _SHRINK + (1 - 2 * _SHRINK) * ((x - low) / (high - low)).clamp(0, 1)
        density = (1 - 2 * _SHRINK) / ((high - low) * scale * share * (1 - share))
        return (share.logit() - shift) / scale, density.log()

    def _inverse(self, u: Tensor) -> Tensor:
        low, high = (end[:, None] for end in self._range())
        share = (u * self.scale.double()[:, None] + self.shift.double()[:, None]).sigmoid()
        return low + (high - low) * ((share - _SHRINK) / (1 - 2 * _SHRINK)).clamp(0, 1)


def _most_knots(n_events: int) -> int:
    r"""Knots so many that five events still lie between the first two of either end.

    The second knot has the rank :math:`n \sin^2(\pi / 2 (K - 1))`.  The slope of a tail is that between its
    last two knots, which neighboring events would make arbitrary.
    """
    return max(4, int(0.5 * math.pi * math.sqrt(n_events / 5)) + 1)


def _knots(column: Tensor, n_knots: int) -> tuple[Tensor, Tensor, float]:
    """Distinct values, their coordinates, and the largest share of equal values, of one feature (n,)."""
    ordered = column.sort().values
    n = len(ordered)
    place = torch.sin(0.5 * math.pi * torch.linspace(0, 1, n_knots, dtype=torch.float64)).square()
    _, counts = torch.unique_consecutive(ordered, return_counts=True)
    values = torch.unique_consecutive(ordered[(place * (n - 1)).round().long()])
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    normals = torch.special.ndtri((below + up_to).double() / (2 * n)).float()
    rising = torch.cat([torch.ones(1, dtype=torch.bool), normals[1:] > normals[:-1]])
    return values[rising], normals[rising], float(counts.max()) / n


def _knot_slopes(values: Tensor, normals: Tensor) -> Tensor:
    """Positive derivatives at the knots: weighted harmonic means of the secants (Fritsch and Butland)."""
    width = values.diff()
    secant = normals.diff() / width
    before, after = width[:-1], width[1:]
    first, second = before + 2 * after, 2 * before + after
    inner = (first + second) / (first / secant[:-1] + second / secant[1:])
    return torch.cat([secant[:1], inner, secant[-1:]])


register_model(QuantileToNormal.kind, QuantileConfig.from_dict, QuantileToNormal)
register_model(LogitStandardize.kind, TransformConfig.from_dict, LogitStandardize)
