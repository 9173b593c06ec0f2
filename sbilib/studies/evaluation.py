r"""The metrics of one pair of models on many test sets, in seconds.

The same numbers as `sbilib.studies.metrics.evaluate_densities` gives for one method, but the likelihoods
of the bootstrap sets are splines through a few nodes (`sbilib.likelihood.local`) instead of values on the
whole grid.  A study of a thousand pairs needs that.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Generator, Tensor

from sbilib.components import ComponentDensities
from sbilib.errors import ParameterError, check_range
from sbilib.likelihood import (
    LocalLikelihood,
    Profile,
    ScanGrid,
    crossing_interval,
    fit_quartic,
    local_likelihood,
    local_overlaps,
)
from sbilib.problems import TestSet, bootstrap_counts
from sbilib.studies.metrics import METRICS

__all__ = ["DEFAULT_NODES", "evaluate_pair"]

DEFAULT_NODES = 13
"""Nuisance values at which the densities of a test set's events are evaluated.

Smooth densities need 7.  For published classifiers, which have kinks, means over 45 test sets with 13 values
are within 0.001 (overlaps) and 0.01 (coverages) of those with 121, several times less than their errors; with
9, coverage of z in the small-distance case is off by 0.02.
"""
_FRACTION_NODES = 24


def evaluate_pair(
    densities: ComponentDensities,
    test_sets: Sequence[TestSet],
    *,
    exact: ComponentDensities | None,
    n_bootstrap: int = 100,
    set_size: int = 1000,
    seed: int,
    overlaps: bool = True,
    grid: ScanGrid | None = None,
    n_nodes: int = DEFAULT_NODES,
) -> pd.DataFrame:
    """All metrics of one pair of models on bootstrap sets of each test set.

    Args:
        densities: the pair, or exact densities, whose metrics are those of the true likelihood.
        test_sets: test sets with known parameters.
        exact: the exact densities, for the overlaps; None if there are none.
        n_bootstrap: bootstrap sets of each test set.
        set_size: events in a bootstrap set.
        seed: seed of the bootstrap; the same seed gives all methods the same sets.
        overlaps: whether to compute overlaps, if there are exact densities.
        grid: its ends are the scanned ranges, and overlaps sum over its points; None for the published
            600 x 300 points over the ``scan_range`` of ``exact`` or, failing that, of ``densities``.
        n_nodes: nuisance values at which the densities are evaluated, near the likelihoods of a test set.

    Returns:
        A row per test set with columns ``test_set``, ``mu``, ``z`` and the metrics of
        :func:`~sbilib.studies.metrics.evaluate_densities`, overlaps only if they were computed.

    Raises:
        ParameterError: if there are no test sets, or no grid and no scanned range.
        DataError: for bad events or densities.

    Example:
        >>> from sbilib.problems import GaussianToy, published_test_sets
        >>> toy = GaussianToy.large_distance()
        >>> test_sets = published_test_sets(toy, Generator().manual_seed(1))[:2]
        >>> table = evaluate_pair(toy, test_sets, exact=None, n_bootstrap=20, seed=1)
        >>> len(table), "mu overlap" in table
        (2, False)
    """
    check_range("number of test sets", len(test_sets), low=1)
    grid = grid or _published_grid(exact, densities)
    generator = Generator().manual_seed(seed)
    shared: list[tuple[float, ...]] = []
    profiles: tuple[list[Profile], list[Profile]] = ([], [])
    for test_set in test_sets:
        counts = bootstrap_counts(len(test_set.events), n_bootstrap, set_size, generator)
        local = _likelihoods(densities, test_set, counts, grid, n_nodes)
        for kept, profile in zip(profiles, local.profiles(), strict=True):
            kept.append(profile)
        if overlaps and exact is not None:
            truth = local if exact is densities else _likelihoods(exact, test_set, counts, grid, n_nodes)
            shared.append(tuple(float(value.mean()) for value in local_overlaps(local, truth, grid)))
    columns: dict[str, object] = {
        "test_set": range(len(test_sets)),
        "mu": [test_set.signal_ratio for test_set in test_sets],
        "z": [test_set.nuisance for test_set in test_sets],
    }
    if shared:
        columns |= dict(zip(METRICS[:3], zip(*shared, strict=True), strict=True))
    for name, parts in zip(("mu", "z"), profiles, strict=True):
        truths = torch.tensor([getattr(t, _FIELDS[name]) for t in test_sets], dtype=torch.float64)
        columns |= _interval_metrics(name, parts, truths)
    return pd.DataFrame(columns)


_FIELDS = {"mu": "signal_ratio", "z": "nuisance"}


def _published_grid(*densities: ComponentDensities | None) -> ScanGrid:
    """The published grid over the scanned range of the first densities that have one."""
    for candidate in densities:
        scan_range = getattr(candidate, "scan_range", None)
        if scan_range is not None:
            return ScanGrid.uniform(nuisance_range=scan_range)
    raise ParameterError("the scanned range is not known: pass grid, or exact densities with a scan_range")


def _likelihoods(
    densities: ComponentDensities, test_set: TestSet, counts: Tensor, grid: ScanGrid, n_nodes: int
) -> LocalLikelihood:
    return local_likelihood(
        densities,
        test_set.events,
        counts,
        nuisance_range=(float(grid.nuisances[0]), float(grid.nuisances[-1])),
        ratio_range=(float(grid.signal_ratios[0]), float(grid.signal_ratios[-1])),
        n_nodes=(_FRACTION_NODES, n_nodes),
    )


def _interval_metrics(name: str, profiles: Sequence[Profile], truths: Tensor) -> dict[str, object]:
    """Coverage, mean width and open share of one parameter, one entry per test set."""
    joined = Profile(
        torch.cat([profile.parameter_values for profile in profiles]),
        torch.cat([profile.nll for profile in profiles]),
    )
    quartic, crossing = fit_quartic(joined), crossing_interval(joined)
    n_sets = len(joined.nll) // len(profiles)
    truth = truths.to(joined.nll).repeat_interleave(n_sets)
    above, below = (
        crossing.lower_open | (crossing.lower <= truth),
        crossing.upper_open | (truth <= crossing.upper),
    )

    def mean(values: Tensor) -> list[float]:
        means: list[float] = values.double().reshape(len(profiles), n_sets).nanmean(dim=1).tolist()
        return means

    return {
        # Comparisons with NaN are false: a failed fit covers nothing.
        f"{name} coverage": mean((quartic.best - truth).abs() <= quartic.sigma),
        f"{name} mean width": mean(2 * quartic.sigma),
        f"{name} coverage, crossing": mean(crossing.valid & above & below),
        f"{name} mean width, crossing": mean(crossing.width),
        f"{name} open": mean(crossing.lower_open | crossing.upper_open),
    }
