r"""How much two likelihoods overlap.

A likelihood on a grid is normalized to :math:`p_\mathrm{norm} = e^{-\mathrm{NLL}} / \sum_\mathrm{grid}
e^{-\mathrm{NLL}}`, and the overlap of two is

.. math:: 1 - \tfrac12 \sum_\mathrm{grid} |p_{\mathrm{norm},a} - p_{\mathrm{norm},b}|,

one for equal likelihoods and zero for disjoint ones (Sluijter 2024, eq. 3.2 to 3.4).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.errors import DataError
from sbilib.likelihood.grid import NLLScan
from sbilib.likelihood.profile import profile_nuisance, profile_signal_ratio

__all__ = ["Overlaps", "likelihood_overlaps", "overlap"]


class Overlaps(NamedTuple):
    """Overlaps of two likelihoods, shape ``()`` for one set or ``(n_sets,)`` for many."""

    signal_ratio: Tensor
    """Of the profiles of the signal ratio."""
    nuisance: Tensor
    """Of the profiles of the nuisance parameter."""
    total: Tensor
    """Of the likelihoods of both parameters."""


def overlap(nll_a: Tensor, nll_b: Tensor, *, n_dims: int = 1) -> Tensor:
    """Overlap of two likelihoods on the same grid (eq. 3.2 to 3.4).

    Args:
        nll_a: NLL values, shape ``(..., *grid)``; infinite where the likelihood vanishes.
        nll_b: the other NLL, of the same shape.
        n_dims: how many of the last axes belong to the grid; those before are sets.

    Returns:
        A number between 0 and 1 per set, shape ``(...)``.

    Raises:
        DataError: if the shapes differ, a value is NaN, or a likelihood vanishes everywhere.

    Example:
        >>> overlap(torch.tensor([0.0, 0.0, torch.inf]), torch.tensor([torch.inf, 0.0, 0.0])).item()
        0.5
    """
    if nll_a.shape != nll_b.shape or nll_a.dim() < n_dims or n_dims < 1:
        raise DataError(
            f"overlap needs two NLL arrays of one shape with at least {n_dims} axes, "
            f"got {tuple(nll_a.shape)} and {tuple(nll_b.shape)}; scan both on the same grid"
        )
    likelihoods = []
    for nll in (nll_a, nll_b):
        flat = nll.flatten(-n_dims)
        smallest = flat.min(dim=-1, keepdim=True).values
        if not bool(smallest.isfinite().all()):
            raise DataError(
                "an NLL is NaN, or infinite on its whole grid; check the densities it was made from"
            )
        likelihood = torch.exp(smallest - flat)
        likelihoods.append(likelihood / likelihood.sum(dim=-1, keepdim=True))
    return 1 - (likelihoods[0] - likelihoods[1]).abs().sum(dim=-1) / 2


def likelihood_overlaps(scan_a: NLLScan, scan_b: NLLScan) -> Overlaps:
    """Overlaps of two scanned likelihoods in the signal ratio, the nuisance parameter, and both.

    Raises:
        DataError: if the scans have different grids or numbers of sets.
    """
    if not scan_a.grid.same_as(scan_b.grid):
        raise DataError(
            f"overlap needs both likelihoods on the same grid, got grids of {scan_a.grid.shape} and "
            f"{scan_b.grid.shape} points with different values; scan both with one ScanGrid"
        )
    return Overlaps(
        signal_ratio=overlap(profile_signal_ratio(scan_a).nll, profile_signal_ratio(scan_b).nll),
        nuisance=overlap(profile_nuisance(scan_a).nll, profile_nuisance(scan_b).nll),
        total=overlap(scan_a.nll, scan_b.nll, n_dims=2),
    )
