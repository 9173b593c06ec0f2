r"""Two unit Gaussians whose separation axis turns with the nuisance parameter.

Signal and background events are points in the plane, drawn from

.. math::

    p(x \mid \mathrm{sig}, z) = \mathcal N\bigl(x;\; +r\,(\cos z, \sin z),\; 1\bigr), \qquad
    p(x \mid \mathrm{bkg}, z) = \mathcal N\bigl(x;\; -r\,(\cos z, \sin z),\; 1\bigr).

The radius :math:`r` is 2 in the large-distance case and 0.5 in the small-distance case
(Sluijter 2024, section 3.1.1).  The nuisance parameter :math:`z` is an angle in radians.

Turned back by :math:`z`, the events follow two densities that do not depend on it.  In that frame the mirror
:math:`u_2 \to -u_2` leaves both as they are, and :math:`u \to -u` exchanges them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from sbilib.components import LogComponents
from sbilib.errors import ParameterError, check_choice, check_events, check_range
from sbilib.problems.base import COMPONENTS, FrameSymmetry
from sbilib.problems.maps import Rotation

__all__ = ["GaussianToy"]

_RADII = {"large": 2.0, "small": 0.5}


@dataclass(frozen=True)
class GaussianToy:
    """The Gaussian toy of Sluijter 2024 with exact densities.

    Args:
        radius: distance of each mean from the origin, positive, in units of the width of the Gaussians.
        nuisance_range: range of the angle z in rad that training covers; as published, 0 to pi/2.

    Raises:
        ParameterError: if ``radius`` is not a positive finite number or the range is not increasing.

    Example:
        >>> import torch
        >>> toy = GaussianToy.large_distance()
        >>> z = torch.full((3,), toy.reference_nuisance)
        >>> toy.sample("signal", z, torch.Generator().manual_seed(1)).shape
        torch.Size([3, 2])
    """

    radius: float
    nuisance_range: tuple[float, float] = (0.0, 0.5 * math.pi)

    def __post_init__(self) -> None:
        check_range("radius", self.radius, low=0.0, include_low=False)
        low, high = self.nuisance_range
        check_range("nuisance_range", high, low=low, include_low=False)

    @classmethod
    def large_distance(cls) -> GaussianToy:
        """The published large-distance case, radius 2."""
        return cls(_RADII["large"])

    @classmethod
    def small_distance(cls) -> GaussianToy:
        """The published small-distance case, radius 0.5."""
        return cls(_RADII["small"])

    @classmethod
    def from_name(cls, distance: str) -> GaussianToy:
        """The case called ``distance``: ``"large"`` or ``"small"``.

        Raises:
            ParameterError: for any other name.
        """
        return cls(_RADII[check_choice("distance", distance, _RADII)])

    @property
    def name(self) -> str:
        """Short name, for instance ``gaussian-r2``."""
        return f"gaussian-r{self.radius:g}"

    @property
    def features(self) -> tuple[str, ...]:
        """The two Cartesian coordinates, in units of the width of the Gaussians."""
        return ("x", "y")

    @property
    def n_features(self) -> int:
        """Number of features: 2."""
        return 2

    @property
    def scan_range(self) -> tuple[float, float]:
        """Scanned range of the angle z: 0.1 pi to 0.4 pi rad."""
        return (0.1 * math.pi, 0.4 * math.pi)

    @property
    def reference_nuisance(self) -> float:
        """Reference angle z0 = pi/4 rad."""
        return 0.25 * math.pi

    @property
    def test_signal_ratios(self) -> tuple[float, ...]:
        """Signal ratios of the published test sets."""
        return (0.1, 0.2, 0.3)

    @property
    def test_nuisances(self) -> tuple[float, ...]:
        """Angles of the published test sets, in rad."""
        return (0.15 * math.pi, 0.25 * math.pi, 0.35 * math.pi)

    @property
    def nuisance_map(self) -> Rotation:
        """The rotation by minus z, after which the means lie on the first axis."""
        return Rotation()

    @property
    def invariances(self) -> tuple[FrameSymmetry, ...]:
        """The mirror about the first axis of the frame."""
        return (_mirror,)

    @property
    def exchange(self) -> FrameSymmetry:
        """The reflection of the frame at its origin."""
        return torch.neg

    def mean(self, component: str, nuisance: Tensor) -> Tensor:
        """Mean of a component at each angle in ``nuisance`` (n,); returns ``(n, 2)``."""
        check_choice("component", component, COMPONENTS)
        sign = 1.0 if component == "signal" else -1.0
        return sign * self.radius * torch.stack((nuisance.cos(), nuisance.sin()), dim=-1)

    def sample(self, component: str, nuisance: Tensor, generator: Generator) -> Tensor:
        """Draw one event per angle.

        Args:
            component: ``"signal"`` or ``"background"``.
            nuisance: angles in rad inside the trained range, shape ``(n,)``; its dtype is the result's.
            generator: source of randomness; events are made on its device.

        Returns:
            Events, shape ``(n, 2)``.

        Raises:
            ParameterError: for an unknown component or an angle outside the trained range.
        """
        nuisance = self._check_nuisance(nuisance).to(generator.device)
        mean = self.mean(component, nuisance)
        return mean + torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)

    def log_prob(self, component: str, x: Tensor, nuisance: Tensor) -> Tensor:
        """Exact log density of each event at its own angle.

        Args:
            component: ``"signal"`` or ``"background"``.
            x: events, shape ``(n, 2)``.
            nuisance: angles in rad inside the trained range, shape ``(n,)``.

        Returns:
            Log densities, shape ``(n,)``.
        """
        check_events("x", x, self.n_features)
        offset = x - self.mean(component, self._check_nuisance(nuisance))
        return -0.5 * offset.square().sum(dim=-1) - math.log(2.0 * math.pi)

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        """Exact log densities of every event at every angle, in float64.

        Args:
            x: events, shape ``(n, 2)``.
            nuisance: angles in rad inside the trained range, shape ``(m,)``.

        Returns:
            Signal and background log densities, each ``(n, m)``.
        """
        x = check_events("x", x, self.n_features).double()
        nuisance = self._check_nuisance(nuisance).double()
        axis = torch.stack((nuisance.cos(), nuisance.sin()))
        projection = self.radius * (x @ axis)
        constant = -0.5 * (x.square().sum(dim=1, keepdim=True) + self.radius**2) - math.log(2.0 * math.pi)
        return LogComponents(signal=constant + projection, background=constant - projection)

    def _check_nuisance(self, nuisance: Tensor) -> Tensor:
        low, high = self.nuisance_range
        tolerance = 1e-6
        # One reduction, one host sync: NaN fails both comparisons.
        inside = ((nuisance >= low - tolerance) & (nuisance <= high + tolerance)).all()
        if nuisance.dim() != 1 or not bool(inside):
            raise ParameterError(
                f"nuisance must be a 1-d tensor of angles in [{low:g}, {high:g}] rad, got shape "
                f"{tuple(nuisance.shape)} with range [{nuisance.min().item():g}, "
                f"{nuisance.max().item():g}]; choose angles inside the trained range"
            )
        return nuisance


def _mirror(u: Tensor) -> Tensor:
    return u * u.new_tensor([1.0, -1.0])
