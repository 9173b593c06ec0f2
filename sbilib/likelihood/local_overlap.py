r"""Overlaps of the likelihoods of two methods, from surfaces that are known where they matter.

For likelihoods with sum one on a grid, :math:`1 - \tfrac12 \sum |p_a - p_b| = \sum \min(p_a, p_b)`
(see `sbilib.likelihood.overlap` for the definitions), so grid points where either is negligible count
for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.errors import DataError
from sbilib.likelihood.grid import ScanGrid
from sbilib.likelihood.local import NEGLIGIBLE_NLL, LocalLikelihood, positions_within
from sbilib.likelihood.overlap import Overlaps

__all__ = ["local_overlaps"]


def local_overlaps(a: LocalLikelihood, b: LocalLikelihood, grid: ScanGrid) -> Overlaps:
    """Overlaps of two methods' likelihoods of the same sets on a grid, as in `likelihood_overlaps`.

    Args:
        a: surfaces of one method.
        b: surfaces of the other, of the same sets.
        grid: the grid on which the likelihoods are normalized.

    Returns:
        Overlaps of shape ``(n_sets,)``.

    Raises:
        DataError: if the numbers of sets differ.

    Example:
        >>> from sbilib.likelihood.local import local_likelihood
        >>> from sbilib.problems import GaussianToy, make_test_set
        >>> toy, generator = GaussianToy(2.0), torch.Generator().manual_seed(1)
        >>> data = make_test_set(toy, signal_ratio=0.2, nuisance=0.8, generator=generator)
        >>> local = local_likelihood(toy, data.events, torch.ones(1, 9000), nuisance_range=toy.scan_range)
        >>> grid = ScanGrid.uniform(nuisance_range=toy.scan_range)
        >>> round(local_overlaps(local, local, grid).total.item(), 9)
        1.0
    """
    if a.n_sets != b.n_sets:
        raise DataError(
            f"overlap needs the likelihoods of the same sets, got {a.n_sets} and {b.n_sets} sets; "
            "make both from the same counts"
        )
    pieces = zip(_normalized(a, grid), _normalized(b, grid), strict=True)
    overlaps = [_shared(x, y) for x, y in pieces]
    return Overlaps(*torch.tensor(overlaps, dtype=torch.float64).T)


class _Piece(NamedTuple):
    """Normalized likelihoods of one set on the part of a grid where they are not negligible."""

    rows: slice
    columns: slice
    ratio: Tensor
    nuisance: Tensor
    total: Tensor


def _normalized(local: LocalLikelihood, grid: ScanGrid) -> Iterator[_Piece]:
    """The likelihood of each set and of its profiles, each with sum one."""
    ratios, nuisances = grid.signal_ratios.to(local.nll), grid.nuisances.to(local.nll)
    # Differences of NLL within a few units need no more than single precision, which halves the time.
    left, right = (weights.float() for weights in local.weights(ratios, nuisances))
    surfaces = local.nll.float()
    (ratio_low, ratio_high), (low, high) = (
        tuple(ends.tolist() for ends in parameter) for parameter in local.reach(NEGLIGIBLE_NLL)
    )
    for number in range(local.n_sets):
        rows = positions_within(grid.signal_ratios, ratio_low[number], ratio_high[number])
        columns = positions_within(grid.nuisances, low[number], high[number])
        nll = left[rows] @ (surfaces[number] @ right[columns].T)
        likelihood = nll.sub_(nll.min()).neg_().exp_()
        ratio, nuisance = (part / part.sum() for part in (likelihood.amax(dim=1), likelihood.amax(dim=0)))
        yield _Piece(rows, columns, ratio, nuisance, likelihood.div_(likelihood.sum()))


def _shared(a: _Piece, b: _Piece) -> tuple[float, float, float]:
    """Sums of the smaller of two normalized likelihoods: of the ratio, of the nuisance, of both."""
    rows_a, rows_b = _common(a.rows, b.rows)
    columns_a, columns_b = _common(a.columns, b.columns)
    return (
        float(torch.minimum(a.ratio[rows_a], b.ratio[rows_b]).sum()),
        float(torch.minimum(a.nuisance[columns_a], b.nuisance[columns_b]).sum()),
        float(torch.minimum(a.total[rows_a, columns_a], b.total[rows_b, columns_b]).sum()),
    )


def _common(a: slice, b: slice) -> tuple[slice, slice]:
    """Where in each of two runs of grid points the points lie that both hold, perhaps none."""
    first, last = max(a.start, b.start), min(a.stop, b.stop)
    last = max(first, last)
    return slice(first - a.start, last - a.start), slice(first - b.start, last - b.start)
