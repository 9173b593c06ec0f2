r"""Overlaps of several likelihoods of a toy with the exact one, on a grid that is made for the toy.

The grid of 600 x 300 points of Sluijter 2024 covers the whole scanned range, most of which holds no
likelihood. Here each toy has a grid of its own: six standard deviations to each side of every best fit, two
and a half points a standard deviation, inside the published range.  Profiles are refined between grid points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from sbilib.components import LogComponents
from sbilib.likelihood import (
    FitResults,
    NLLScan,
    ScanGrid,
    overlap,
    profile_nuisance,
    profile_signal_ratio,
)

__all__ = ["toy_overlaps"]

_SIGMAS = 6.0
_POINTS_PER_SIGMA = 2.5
_LARGEST_LOG_RATIO = 80.0


def toy_overlaps(
    densities: Sequence[LogComponents],
    fits: Sequence[FitResults],
    nodes: Tensor,
    *,
    n_toys: int,
    wanted: int,
    scan_range: tuple[float, float],
) -> Tensor:
    """Overlaps of the likelihoods of toys with that of the first densities (`overlap`).

    Args:
        densities: log densities of the events of all toys, one toy after the other, each component of shape
            ``(n_toys * n_events, n_nodes)``; exact ones first.
        fits: fits of the same toys with the same densities.
        nodes: nuisance values of the densities, shape ``(n_nodes,)``.
        n_toys: number of toys.
        wanted: for how many of them, from the first on, overlaps are computed.
        scan_range: scanned range of the nuisance parameter.

    Returns:
        Overlaps in the signal ratio, the nuisance parameter and both, shape ``(wanted, n_densities, 3)``.
    """
    length = len(densities[0].signal) // n_toys
    found = [torch.empty(0, len(densities), 3, dtype=torch.float64)]
    for toy in range(wanted):
        part = slice(toy * length, (toy + 1) * length)
        grid = _grid(fits, toy, scan_range)
        scan = _scan([LogComponents(d.signal[part], d.background[part]) for d in densities], nodes, grid)
        lines = (profile_signal_ratio(scan, refine=True).nll, profile_nuisance(scan, refine=True).nll)
        parts = [overlap(line, line[:1].expand_as(line)) for line in lines]
        parts.append(overlap(scan.nll, scan.nll[:1].expand_as(scan.nll), n_dims=2))
        found.append(torch.stack(parts, dim=1)[None])
    return torch.cat(found)


def _grid(fits: Sequence[FitResults], toy: int, scan_range: tuple[float, float]) -> ScanGrid:
    """A grid that holds all that matters of every likelihood of a toy, inside the published range."""
    axes = []
    for name, (low, high) in (("ratio_interval", (0.0, 0.5)), ("nuisance_interval", scan_range)):
        lower = torch.stack([getattr(fit, name).lower[toy] for fit in fits])
        upper = torch.stack([getattr(fit, name).upper[toy] for fit in fits])
        best = torch.stack([getattr(fit, name).best[toy] for fit in fits])
        # The longer side of an interval is close to a standard deviation even where the other one is cut.
        sigma = torch.maximum(upper - best, best - lower)
        first = max(low, float((best - _SIGMAS * sigma).min()))
        last = min(high, float((best + _SIGMAS * sigma).max()))
        n_points = math.ceil((last - first) / float(sigma.min()) * _POINTS_PER_SIGMA)
        axes.append(torch.linspace(first, last, min(max(n_points, 8), 200), dtype=torch.float64))
    return ScanGrid(*axes)


def _scan(densities: Sequence[LogComponents], nodes: Tensor, grid: ScanGrid) -> NLLScan:
    """NLL of several likelihoods of one toy on a small grid, logarithms in single precision."""
    spline = CubicSpline(nodes.numpy(), np.eye(len(nodes)), bc_type="not-a-knot")
    to_grid = torch.from_numpy(spline(grid.nuisances.numpy())).T
    fractions = grid.signal_ratios / (1 + grid.signal_ratios)
    nll = torch.empty(len(densities), *grid.shape, dtype=torch.float64)
    for row, components in enumerate(densities):
        log_ratio = (components.signal - components.background) @ to_grid
        ratio = log_ratio.clamp(max=_LARGEST_LOG_RATIO).float().exp()
        background = components.background.sum(dim=0) @ to_grid
        for column, fraction in enumerate(fractions.tolist()):
            mixture = torch.lerp(torch.ones_like(ratio), ratio, fraction)
            nll[row, column] = -background - mixture.log_().sum(dim=0, dtype=torch.float64)
    minimum = nll.flatten(1).min(dim=1).values
    return NLLScan(nll - minimum[:, None, None], minimum, grid)
