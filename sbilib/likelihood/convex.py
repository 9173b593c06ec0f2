r"""The profile over the signal ratio, a convex problem for every nuisance value.

For fixed :math:`z` the NLL is a sum of :math:`-\log(1 - p + p\, e^{d_i})`, each convex in the signal
fraction :math:`p = \mu/(1 + \mu)`, so there is one minimum and a bracketed Newton iteration on the
derivative cannot miss it, for all sets and nuisance values at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.errors import ParameterError
from sbilib.likelihood.checks import check_interval_range
from sbilib.likelihood.derivatives import nll_in_fraction
from sbilib.likelihood.table import EventSets, spline_weights

__all__ = ["NuisanceProfile", "profile_over_signal_ratio"]

_MAX_ITERATIONS = 60
_BLOCK_ELEMENTS = 2**18


class NuisanceProfile(NamedTuple):
    """NLL minimized over the signal ratio; both fields have shape ``(n_sets, n_nuisances)``."""

    nll: Tensor
    """Smallest NLL at each nuisance value, nothing subtracted."""
    signal_ratio: Tensor
    """Where it is reached, within the scanned range."""


def profile_over_signal_ratio(
    sets: EventSets, nuisances: Tensor, *, ratio_range: tuple[float, float] = (0.0, 0.5)
) -> NuisanceProfile:
    """Minimize the NLL over the signal ratio at given nuisance values, for every set.

    Args:
        sets: the sets, from `EventSets.from_counts` or `EventSets.from_toys`.
        nuisances: shape ``(n_nuisances,)``, between the first and the last node of the table.
        ratio_range: scanned range of the signal ratio.

    Raises:
        ParameterError: for a nuisance value outside the table, or a bad range.

    Example:
        >>> from sbilib.likelihood.table import NuisanceTable
        >>> from sbilib.problems.gaussian import GaussianToy
        >>> nodes = torch.linspace(0.4, 1.2, 21, dtype=torch.float64)
        >>> table = NuisanceTable.build(GaussianToy(2.0), torch.zeros(4, 2), nodes)
        >>> sets = EventSets.from_toys(table, 1)
        >>> profile_over_signal_ratio(sets, nodes[:3]).nll.shape
        torch.Size([1, 3])
    """
    low, high = check_interval_range("ratio_range", ratio_range, low=0.0)
    nodes = sets.table.nodes
    nuisances = nuisances.to(nodes)
    if nuisances.dim() != 1 or bool((nuisances < nodes[0]).any() | (nuisances > nodes[-1]).any()):
        raise ParameterError(
            f"nuisances must be a list of values between {float(nodes[0]):g} and {float(nodes[-1]):g}, the "
            f"ends of the table, got {nuisances.tolist()}; build the table on a wider range"
        )
    rows = torch.arange(sets.n_sets, device=nodes.device).repeat_interleave(len(nuisances))
    at = nuisances.repeat(sets.n_sets)
    step = max(1, _BLOCK_ELEMENTS // sets.length)
    parts = [
        _minimize(
            sets, rows[start : start + step], at[start : start + step], low / (1 + low), high / (1 + high)
        )
        for start in range(0, len(rows), step)
    ]
    nll, fraction = (torch.cat(values).reshape(sets.n_sets, -1) for values in zip(*parts, strict=True))
    return NuisanceProfile(nll, (fraction / (1 - fraction)).clamp(low, high))


def _minimize(sets: EventSets, rows: Tensor, at: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    spline = spline_weights(sets.table.nodes, at)
    value = spline.weights[:, :1]
    d = (value @ sets.log_ratio_columns(rows, spline.cell))[:, 0]
    left, right = torch.full_like(at, low), torch.full_like(at, high)
    p = (left + right) / 2
    active = torch.arange(len(rows), device=rows.device)
    for _ in range(_MAX_ITERATIONS):
        _, first, second = nll_in_fraction(sets, rows[active], p[active], d[active])
        left[active] = torch.where(first < 0, p[active], left[active])
        right[active] = torch.where(first > 0, p[active], right[active])
        new = p[active] - first / second.clamp(min=torch.finfo(p.dtype).tiny)
        # A Newton step out of the bracket is replaced by its end at first, then by its middle.
        end = torch.where(first > 0, low, high)
        inside = (new > left[active]) & (new < right[active])
        untried = (torch.where(first > 0, left[active], right[active]) == end) & (p[active] != end)
        middle = (left[active] + right[active]) / 2
        new = torch.where(inside, new, torch.where(untried, end, middle))
        at_end = (p[active] == end) & ~inside
        new = torch.where(at_end | (first == 0), p[active], new)
        done = (new - p[active]).abs() <= 1e-12
        p[active] = new
        active = active[~done]
        if active.numel() == 0:
            break
    nll, _, _ = nll_in_fraction(sets, rows, p, d)
    nodes = torch.stack((spline.cell, spline.cell + 1), dim=1)
    columns = sets.background[:, nodes, rows[:, None]].transpose(0, 1).reshape(len(rows), 4, 1)
    return nll - (value @ columns)[:, 0, 0], p
