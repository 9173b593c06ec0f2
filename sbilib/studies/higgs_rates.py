r"""What the number of events adds to a measurement: the same toys with and without it, z fixed or profiled.

The extended likelihood factorizes into that of the number of events n and that of their shapes,

.. math:: \mathrm{NLL}(\mu, z) = \underbrace{\nu - n \log \nu}_{\text{rate}}
          \; \underbrace{- \sum_i \log\bigl[f\, p_s(x_i \mid z) + (1 - f)\, p_b(x_i \mid z)\bigr]
          }_{\text{shape}}, \qquad f = \frac{\nu_s}{\nu_s + \nu_b} = \frac{\mu'}{1 + \mu'}, \quad
          \mu' = \mu\, \frac{\varepsilon_s(z)}{\varepsilon_b(z)} .

The sums over events are those of the shape, as surfaces in :math:`(\mu', z)`; the rest is arithmetic, so both
likelihoods come from one pass over the events.
"""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sbilib.errors import DataError, check_count, check_range
from sbilib.likelihood import Intervals, NuisanceTable, crossing_interval
from sbilib.likelihood.extended import ExpectedYields, extended_surfaces
from sbilib.likelihood.grid import NLLScan, ScanGrid
from sbilib.likelihood.profile import Profile, profile_nuisance, profile_signal_ratio

__all__ = ["LIKELIHOODS", "RateFits", "fit_rates"]

LIKELIHOODS = ("shape", "extended")
"""Without and with the number of events."""

_RATIOS = (0.0, 0.5)


class RateFits(NamedTuple):
    """Fits of the same toys with one of the two likelihoods."""

    ratio: Intervals
    """Of the signal ratio, the nuisance parameter profiled."""
    ratio_fixed: Intervals
    """Of the signal ratio where the nuisance parameter is known."""
    nuisance: Intervals
    """Of the nuisance parameter, the signal ratio profiled."""

    def rows(self) -> pd.DataFrame:
        """A row per toy: ``mu_hat``, ``mu_lower``, ``mu_upper``, and likewise ``fixed_...`` and ``z_...``."""
        columns: dict[str, np.ndarray] = {}
        for name, found in zip(("mu", "fixed", "z"), self, strict=True):
            columns[f"{name}_hat"] = found.best.numpy()
            columns[f"{name}_lower"] = torch.where(found.lower_open, -torch.inf, found.lower).numpy()
            columns[f"{name}_upper"] = torch.where(found.upper_open, torch.inf, found.upper).numpy()
        return pd.DataFrame(columns)


def fit_rates(
    table: NuisanceTable,
    index: Tensor,
    sizes: Tensor,
    yields: ExpectedYields,
    *,
    nuisance: float,
    n_grid: tuple[int, int] = (126, 181),
) -> dict[str, RateFits]:
    """Fit toys with both likelihoods, the nuisance parameter profiled and known.

    Args:
        table: log densities of the events that pass, over the scanned range.
        index: events of all toys, toy after toy, shape ``(n,)``.
        sizes: number of events of each toy, shape ``(n_toys,)``.
        yields: expected numbers of events.
        nuisance: its true value, for the fits where it is known.
        n_grid: points of the signal ratio, from 0 to 0.5, and of the nuisance parameter.

    Returns:
        Fits by the names of `LIKELIHOODS`.

    Raises:
        DataError: if the sizes do not add up to the number of events, or a toy is empty.
        ParameterError: for too few points, or a nuisance value outside the table.

    Example:
        >>> from sbilib.problems import GaussianToy, make_test_set
        >>> toy, generator = GaussianToy(2.0), torch.Generator().manual_seed(2)
        >>> data = make_test_set(toy, signal_ratio=0.25, nuisance=0.8, generator=generator, n_events=1000)
        >>> table = NuisanceTable.build(toy, data.events, torch.linspace(*toy.scan_range, 31))
        >>> yields = ExpectedYields.constant(800.0, toy.scan_range)
        >>> fits = fit_rates(table, torch.arange(1000), torch.tensor([1000]), yields, nuisance=0.8)
        >>> bool(fits["extended"].ratio.width < fits["shape"].ratio.width)
        True
    """
    for number in n_grid:
        check_count("n_grid", number, low=20)
    low, high = float(table.nodes[0]), float(table.nodes[-1])
    check_range("nuisance", nuisance, low=low, high=high)
    if int(sizes.sum()) != len(index):
        raise DataError(f"the toys have {int(sizes.sum())} events, index names {len(index)}")
    mu = torch.linspace(*_RATIOS, n_grid[0], dtype=torch.float64)
    z = torch.linspace(low, high, n_grid[1], dtype=torch.float64)
    lines = torch.cat((z, torch.tensor([nuisance], dtype=torch.float64)))
    signal, background = yields.log_efficiencies(lines)
    relative = (signal - background).exp()
    # Room for the ratio among the events that pass, which may exceed that at the reference value.
    reach = (_RATIOS[0], _RATIOS[1] * max(1.0, float(relative.max())))
    surfaces = extended_surfaces(table, index, sizes.cumsum(0) - sizes, None, ratio_range=reach)
    # One spline for all ratios of all columns: each column has its own.
    left, right = surfaces.weights((mu[:, None] * relative).flatten(), lines)
    left = left.reshape(len(mu), len(lines), -1)
    shape = torch.einsum("ijk,tkj->tij", left, surfaces.nll @ right.T)
    expected = yields.background * (mu[:, None] * signal.exp() + background.exp())
    rate = expected - sizes[:, None, None] * expected.log()
    return _fits(torch.cat((shape, shape + rate)), ScanGrid(mu, z))


def _fits(nll: Tensor, grid: ScanGrid) -> dict[str, RateFits]:
    """Intervals from the NLL ``(2 n_toys, n_ratios, n_nuisances + 1)``; the last column is at the truth."""
    known, nll = nll[:, :, -1], nll[:, :, :-1]
    minimum = nll.flatten(1).min(dim=1).values
    scan = NLLScan(nll - minimum[:, None, None], minimum, grid)
    fixed = Profile(grid.signal_ratios, known - known.min(dim=1, keepdim=True).values)
    found = (
        crossing_interval(profile_signal_ratio(scan, refine=True)),
        crossing_interval(fixed),
        crossing_interval(profile_nuisance(scan, refine=True)),
    )
    half = len(nll) // 2
    parts = (slice(None, half), slice(half, None))
    return {
        name: RateFits(*(Intervals(*(getattr(each, f.name)[part] for f in fields(each))) for each in found))
        for name, part in zip(LIKELIHOODS, parts, strict=True)
    }
