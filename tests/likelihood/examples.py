"""Densities and events that the tests of the likelihood share."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from sbilib.components import LogComponents
from sbilib.likelihood import NuisanceTable
from sbilib.problems.gaussian import GaussianToy


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def toy_events(toy: GaussianToy, n_events: int, ratio: float, nuisance: float, seed: int) -> Tensor:
    """Events with a binomial number of signal events."""
    generator = seeded(seed)
    n_signal = int((torch.rand(n_events, generator=generator) < ratio / (1 + ratio)).sum())
    parts = [
        toy.sample(component, torch.full((n,), nuisance, dtype=torch.float64), generator)
        for component, n in (("signal", n_signal), ("background", n_events - n_signal))
        if n > 0
    ]
    return torch.cat(parts)


def toy_table(toy: GaussianToy, events: Tensor, n_nodes: int = 61) -> NuisanceTable:
    return NuisanceTable.build(toy, events, torch.linspace(*toy.scan_range, n_nodes, dtype=torch.float64))


class RoughDensities:
    """The exact densities plus a random ReLU network: piecewise smooth in the nuisance parameter."""

    def __init__(self, toy: GaussianToy, amplitude: float) -> None:
        self.toy, self.scan_range, generator, width = toy, toy.scan_range, seeded(3), 64
        shape = (2, width)
        self.of_x = torch.randn(2, width, 2, generator=generator, dtype=torch.float64)
        self.of_z, self.shift, out = (
            torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)
        )
        self.out = out * amplitude / width**0.5

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        exact = self.toy.log_components(x, nuisance)
        parts = []
        for k, log_prob in enumerate(exact):
            hidden = (x @ self.of_x[k].T + self.shift[k])[:, None] + 3 * nuisance[:, None] * self.of_z[k]
            parts.append(log_prob + hidden.relu() @ self.out[k])
        return LogComponents(*parts)
