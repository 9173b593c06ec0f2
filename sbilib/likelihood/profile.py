r"""Profiles of a scanned likelihood, and its best fit.

The profile of a parameter is the NLL minimized over the other one,
:math:`\mathrm{NLL}(\mu) = \min_z \mathrm{NLL}(\mu, z)` and likewise for :math:`z`
(Sluijter 2024, eq. 2.12 and section 3.3.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sbilib.errors import DataError
from sbilib.likelihood.grid import NLLScan

__all__ = ["BestFit", "Profile", "best_fit", "profile_nuisance", "profile_signal_ratio"]


@dataclass(frozen=True)
class Profile:
    r"""The profile NLL of one parameter, of one set or of many.

    Attributes:
        parameter_values: where it is known, shape ``(n_points,)`` or, if each set has its own points,
            ``(n_sets, n_points)``; strictly increasing.
        nll: shape ``(n_points,)`` or ``(n_sets, n_points)``; infinite where the likelihood was left out.

    Raises:
        DataError: if the shapes do not match, there are fewer than two points, or a value is NaN.
    """

    parameter_values: Tensor
    nll: Tensor

    def __post_init__(self) -> None:
        if self.nll.dim() not in (1, 2) or self.nll.shape[-1] < 2:
            raise DataError(
                f"a profile needs shape (n_points,) or (n_sets, n_points) with at least two points, "
                f"got {tuple(self.nll.shape)}"
            )
        if self.parameter_values.shape not in (self.nll.shape, self.nll.shape[-1:]):
            raise DataError(
                f"parameter_values {tuple(self.parameter_values.shape)} do not match "
                f"the profile {tuple(self.nll.shape)}; give one value per point"
            )
        if bool(self.nll.isnan().any()):
            raise DataError("the profile has NaN values; check the densities it was made from")


@dataclass(frozen=True)
class BestFit:
    """The grid point with the smallest NLL, of one set (shape ``()``) or of many (``(n_sets,)``).

    Attributes:
        signal_ratio: best signal ratio.
        nuisance: best nuisance value.
        nll_min: the NLL there, before subtraction.
        ratio_at_edge: True where the best signal ratio is the first or last of the grid.
        nuisance_at_edge: True where the best nuisance value is the first or last of the grid.
    """

    signal_ratio: Tensor
    nuisance: Tensor
    nll_min: Tensor
    ratio_at_edge: Tensor
    nuisance_at_edge: Tensor


def profile_signal_ratio(scan: NLLScan, *, refine: bool = False) -> Profile:
    """Profile NLL of the signal ratio: the smallest NLL over the nuisance values.

    Args:
        scan: a scanned likelihood.
        refine: put a parabola through the smallest value and its neighbors instead of taking the
            smallest grid value, which overestimates the profile by up to one eighth of the
            curvature times the squared spacing.  False is as published.

    Example:
        >>> from sbilib.likelihood.grid import ScanGrid
        >>> nll = torch.tensor([[2.0, 1.0, 2.0], [1.0, 0.0, 3.0]])
        >>> grid = ScanGrid(torch.tensor([0.0, 0.5]), torch.tensor([0.0, 1.0, 2.0]))
        >>> profile_signal_ratio(NLLScan(nll, torch.tensor(0.0), grid)).nll.tolist()
        [1.0, 0.0]
    """
    return Profile(
        scan.grid.signal_ratios.to(scan.nll.device), _minimum(scan.nll, scan.grid.nuisances, refine)
    )


def profile_nuisance(scan: NLLScan, *, refine: bool = False) -> Profile:
    """Profile NLL of the nuisance parameter: the smallest NLL over the signal ratios.

    See `profile_signal_ratio` for the arguments.
    """
    swapped = scan.nll.transpose(-1, -2)
    return Profile(
        scan.grid.nuisances.to(scan.nll.device), _minimum(swapped, scan.grid.signal_ratios, refine)
    )


def best_fit(scan: NLLScan) -> BestFit:
    """The grid point with the smallest NLL."""
    n_ratios, n_nuisances = scan.grid.shape
    position = scan.nll.flatten(-2).argmin(dim=-1)
    row, column = position // n_nuisances, position % n_nuisances
    device = scan.nll.device
    return BestFit(
        signal_ratio=scan.grid.signal_ratios.to(device)[row],
        nuisance=scan.grid.nuisances.to(device)[column],
        nll_min=scan.minimum,
        ratio_at_edge=(row == 0) | (row == n_ratios - 1),
        nuisance_at_edge=(column == 0) | (column == n_nuisances - 1),
    )


def _minimum(nll: Tensor, values: Tensor, refine: bool) -> Tensor:
    """Minimum over the last axis, whose points are ``values``; optionally that of the local parabola."""
    smallest, position = nll.min(dim=-1)
    if not refine or values.shape[0] < 3:
        return smallest
    values = values.to(nll.device)
    middle = position.clamp(1, values.shape[0] - 2)
    y0, y1, y2 = (nll.gather(-1, (middle + k)[..., None])[..., 0] for k in (-1, 0, 1))
    left, right = values[middle] - values[middle - 1], values[middle + 1] - values[middle]
    slope_left, slope_right = (y1 - y0) / left, (y2 - y1) / right
    curvature = (slope_right - slope_left) / (left + right)
    slope = (slope_left * right + slope_right * left) / (left + right)
    vertex = y1 - slope**2 / (4 * curvature)
    shift = -slope / (2 * curvature)
    inside = (curvature > 0) & (shift > -left) & (shift < right) & vertex.isfinite()
    return torch.where(inside, torch.minimum(vertex, smallest), smallest)
