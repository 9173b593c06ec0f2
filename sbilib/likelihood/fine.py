"""The slow and sure fit of one set: a coarse scan, then a fine one where the likelihood is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.components import LogComponents
from sbilib.likelihood.grid import NLLScan, ScanGrid, scan_nll
from sbilib.likelihood.intervals import Intervals, crossing_interval
from sbilib.likelihood.profile import profile_nuisance, profile_signal_ratio
from sbilib.likelihood.table import EventSets, spline_weights

__all__ = ["FineFit", "fine_fit", "scan_event_set"]

_COARSE_POINTS = (61, 121)
_FINE_POINTS = (241, 241)


class FineFit(NamedTuple):
    """The fit of one set, with the meaning of `FitResults` but of shape ``()``."""

    signal_ratio: Tensor
    nuisance: Tensor
    nll_min: Tensor
    ratio_at_bound: Tensor
    nuisance_at_bound: Tensor
    ratio_interval: Intervals
    nuisance_interval: Intervals


def scan_event_set(sets: EventSets, grid: ScanGrid) -> NLLScan:
    """NLL of a single set on a grid, from the splines of its table (``sets`` holds one set)."""
    nuisances = grid.nuisances.to(sets.size.device)
    spline = spline_weights(sets.table.nodes, nuisances)
    rows = torch.zeros_like(spline.cell)
    value = spline.weights[:, :1]
    log_ratio = (value @ sets.log_ratio_columns(rows, spline.cell))[:, 0].T
    scan = scan_nll(LogComponents(log_ratio, torch.zeros_like(log_ratio)), None, grid, counts=sets.weight)
    nodes = torch.stack((spline.cell, spline.cell + 1), dim=1)
    background = (value @ sets.background[:, nodes, 0].transpose(0, 1).reshape(len(rows), 4, 1))[:, 0, 0]
    nll = scan.nll.reshape(grid.shape) + scan.minimum.reshape(()) - background
    minimum = nll.min()
    return NLLScan(nll - minimum, minimum, grid)


def fine_fit(sets: EventSets, *, ratio_range: tuple[float, float], level: float) -> FineFit:
    """Fit one set by two scans; every minimum wider than the first scan's spacing is seen."""
    nodes = sets.table.nodes
    full = (float(nodes[0]), float(nodes[-1]))
    n_ratios, n_nuisances = _COARSE_POINTS
    grid = ScanGrid.uniform(
        nuisance_range=full, ratio_range=ratio_range, n_ratios=n_ratios, n_nuisances=n_nuisances
    )
    # The coarse minimum may lie above the true one, so the limit leaves room for both.
    near = scan_event_set(sets, grid).nll < 2 * level + 8
    ratios, nuisances = _reach(grid.signal_ratios, near.any(dim=1)), _reach(grid.nuisances, near.any(dim=0))
    n_ratios, n_nuisances = _FINE_POINTS
    grid = ScanGrid.uniform(
        nuisance_range=nuisances, ratio_range=ratios, n_ratios=n_ratios, n_nuisances=n_nuisances
    )
    scan = scan_event_set(sets, grid)
    ratio = crossing_interval(profile_signal_ratio(scan, refine=True), level=level)
    nuisance = crossing_interval(profile_nuisance(scan, refine=True), level=level)
    return FineFit(
        ratio.best,
        nuisance.best,
        scan.minimum,
        _at_bound(ratio.best, ratio_range),
        _at_bound(nuisance.best, full),
        ratio,
        nuisance,
    )


def _reach(values: Tensor, near: Tensor) -> tuple[float, float]:
    """The range of the values that are near the minimum, one more on each side."""
    hit = near.cpu().nonzero()[:, 0]
    return float(values[max(int(hit[0]) - 1, 0)]), float(values[min(int(hit[-1]) + 1, len(values) - 1)])


def _at_bound(value: Tensor, limits: tuple[float, float]) -> Tensor:
    return (value <= limits[0]) | (value >= limits[1])
