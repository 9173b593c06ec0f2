"""A finite sample of events with exact densities, which stands for the Higgs data in tests.

Features are log-normal in the frame and an energy scale multiplies them by powers of itself, as for the
published pair (`tests.problems.scaled`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from sbilib.components import LogComponents
from tests.problems.scaled import EnergyScale, ScaledProblem


class Weighted(NamedTuple):
    events: Tensor
    weights: Tensor


@dataclass(frozen=True)
class SampledProblem:
    """A sample of ``size`` events of each component, drawn once."""

    size: int = 20_000
    seed: int = 1
    name: str = "sampled"
    features: tuple[str, ...] = ("DER_mass_vis", "DER_pt_ratio_lep_had")
    n_features: int = 2
    nuisance_range: tuple[float, float] = (0.8, 1.2)
    scan_range: tuple[float, float] = (0.9, 1.1)
    reference_nuisance: float = 1.0
    test_signal_ratios: tuple[float, ...] = (0.1, 0.2, 0.3)
    test_nuisances: tuple[float, ...] = (0.93, 1.0, 1.07)
    invariances: tuple[()] = ()
    exchange: None = None
    _frames: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @property
    def nuisance_map(self) -> EnergyScale:
        return EnergyScale()

    def frame(self, component: str) -> Tensor:
        if component not in self._frames:
            generator = Generator().manual_seed(2 * self.seed + (component == "signal"))
            z = torch.ones(self.size, dtype=torch.float64)
            self._frames[component] = ScaledProblem().sample(component, z, generator)
        return self._frames[component]

    def sample(self, component: str, nuisance: Tensor, generator: Generator) -> Tensor:
        rows = torch.randint(self.size, (len(nuisance),), generator=generator)
        return self.nuisance_map.from_reference(self.frame(component)[rows].to(nuisance), nuisance)

    def all_events(self, component: str, nuisance: float) -> Weighted:
        u = self.frame(component)
        z = torch.full((len(u),), nuisance, dtype=torch.float64)
        return Weighted(self.nuisance_map.from_reference(u, z), torch.ones(len(u)))

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        return ScaledProblem().log_components(x, nuisance)
