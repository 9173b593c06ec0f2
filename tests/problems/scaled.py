"""A made-up problem whose nuisance parameter is a scale, as an energy scale of one of two particles would be.

The first feature grows with the root of the scale, the second falls with it: the frame is
``(x1 / sqrt(z), x2 z)``, whose Jacobian is ``sqrt(z)``.  In the frame both features are log-normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from sbilib.components import FramedEvents, LogComponents

_MEANS = {"signal": (0.4, 0.1), "background": (0.0, 0.0)}
_WIDTH = 0.5


@dataclass(frozen=True)
class EnergyScale:
    """``(x1 / sqrt(z), x2 z)``."""

    def to_reference(self, x: Tensor, nuisance: Tensor) -> FramedEvents:
        root = nuisance.sqrt()
        return FramedEvents(torch.stack((x[:, 0] / root, x[:, 1] * nuisance), dim=1), root.log())

    def from_reference(self, u: Tensor, nuisance: Tensor) -> Tensor:
        return torch.stack((u[:, 0] * nuisance.sqrt(), u[:, 1] / nuisance), dim=1)


@dataclass(frozen=True)
class ScaledProblem:
    """Signal and background differ in their log-normal means; no symmetries of the frame."""

    name: str = "scaled"
    features: tuple[str, ...] = ("m", "ratio")
    n_features: int = 2
    nuisance_range: tuple[float, float] = (0.8, 1.2)
    scan_range: tuple[float, float] = (0.85, 1.15)
    reference_nuisance: float = 1.0
    test_signal_ratios: tuple[float, ...] = (0.2,)
    test_nuisances: tuple[float, ...] = (0.95, 1.05)
    nuisance_map: EnergyScale = EnergyScale()
    invariances: tuple[()] = ()
    exchange: None = None

    def sample(self, component: str, nuisance: Tensor, generator: Generator) -> Tensor:
        noise = torch.randn(len(nuisance), 2, generator=generator, dtype=nuisance.dtype)
        u = (_WIDTH * noise + noise.new_tensor(_MEANS[component])).exp()
        return self.nuisance_map.from_reference(u, nuisance)

    def log_prob(self, component: str, x: Tensor, nuisance: Tensor) -> Tensor:
        # Written for x, without the map: log x is normal, with means moved by the log of the scale.
        shift = torch.stack((0.5 * nuisance.log(), -nuisance.log()), dim=1)
        pull = (x.log() - shift - x.new_tensor(_MEANS[component])) / _WIDTH
        return -0.5 * pull.square().sum(dim=1) - x.log().sum(dim=1) - math.log(2 * math.pi * _WIDTH**2)

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        x, m = x.double().repeat_interleave(len(nuisance), dim=0), len(nuisance)
        z = nuisance.double().repeat(len(x) // m)
        return LogComponents(*(self.log_prob(c, x, z).view(-1, m) for c in ("signal", "background")))
