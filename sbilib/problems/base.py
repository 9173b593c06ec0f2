"""What every problem offers to the rest of the library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Generator, Tensor

from sbilib.components import LogComponents, NuisanceMap

__all__ = ["COMPONENTS", "ExactProblem", "FrameSymmetry", "MappedProblem", "Problem"]

FrameSymmetry = Callable[[Tensor], Tensor]
"""A map of events ``(n, d)`` of a reference frame to others that keeps volumes: its Jacobian is 1 or -1."""

COMPONENTS = ("signal", "background")
"""The names of the two components of every mixture."""


class Problem(Protocol):
    """A simulator of signal and background events with one nuisance parameter."""

    @property
    def name(self) -> str:
        """Short name, used in tables and file names."""
        ...

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features of an event."""
        ...

    @property
    def n_features(self) -> int:
        """Number of features of an event."""
        ...

    @property
    def nuisance_range(self) -> tuple[float, float]:
        """Range of the nuisance parameter that training covers."""
        ...

    @property
    def scan_range(self) -> tuple[float, float]:
        """Range of the nuisance parameter that likelihood scans cover, inside the trained range."""
        ...

    @property
    def reference_nuisance(self) -> float:
        """The reference value z0 of the nuisance parameter."""
        ...

    @property
    def test_signal_ratios(self) -> tuple[float, ...]:
        """Signal ratios of the test sets."""
        ...

    @property
    def test_nuisances(self) -> tuple[float, ...]:
        """Nuisance values of the test sets."""
        ...

    def sample(self, component: str, nuisance: Tensor, generator: Generator) -> Tensor:
        """Draw one event per entry of ``nuisance`` (n,); returns ``(n, n_features)``."""
        ...


class ExactProblem(Problem, Protocol):
    """A problem whose densities are known in closed form."""

    def log_prob(self, component: str, x: Tensor, nuisance: Tensor) -> Tensor:
        """Log density of events ``x`` (n, d), each at its own ``nuisance`` (n,); returns ``(n,)``."""
        ...

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        """Log densities of events ``x`` (n, d) at every value of ``nuisance`` (m,); each ``(n, m)``."""
        ...


class MappedProblem(Problem, Protocol):
    """A problem whose nuisance parameter acts as a known invertible map, the same for both components.

    It may have further exact symmetries in the reference frame of that map.
    """

    @property
    def nuisance_map(self) -> NuisanceMap:
        """The map to the reference frame, in which the densities do not depend on the nuisance parameter."""
        ...

    @property
    def invariances(self) -> tuple[FrameSymmetry, ...]:
        """Maps of the frame that leave each density as it is: a finite group without its identity."""
        ...

    @property
    def exchange(self) -> FrameSymmetry | None:
        """Map of the frame that turns the density of signal into that of background and back, or None."""
        ...


def uniform_nuisance(problem: Problem, n: int, generator: Generator, dtype: torch.dtype) -> Tensor:
    """Draw ``n`` nuisance values uniformly over the trained range of ``problem``; shape ``(n,)``."""
    low, high = problem.nuisance_range
    unit = torch.rand(n, generator=generator, dtype=dtype, device=generator.device)
    return low + (high - low) * unit
