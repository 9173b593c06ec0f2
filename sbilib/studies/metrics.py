r"""The metrics of Sluijter 2024, section 3.3: coverage, mean width, and overlap with the exact likelihood.

Each test set is resampled into bootstrap sets.  Coverage is the fraction of their intervals that hold the
true parameter, mean width the mean of their widths, and overlap the mean overlap of their likelihood with
the exact one.  Intervals are built twice: ``published`` from a quartic fit with the parabolic assumption,
``crossing`` from the exact crossings of :math:`-2\log\lambda = 1`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from torch import Generator, Tensor
from tqdm import tqdm

from sbilib.components import ComponentDensities, LogComponents
from sbilib.errors import check_choice, check_range
from sbilib.likelihood import (
    Intervals,
    NLLScan,
    QuarticFit,
    ScanGrid,
    crossing_interval,
    fit_quartic,
    likelihood_overlaps,
    profile_nuisance,
    profile_signal_ratio,
    scan_nll,
)
from sbilib.problems import TestSet, bootstrap_counts

__all__ = ["METRICS", "Evaluation", "evaluate_densities", "summarize_metrics"]

METRICS = (
    "mu overlap",
    "z overlap",
    "total overlap",
    "mu coverage",
    "z coverage",
    "mu mean width",
    "z mean width",
)
"""The metrics of Table 4.2, in its order."""


class _Scanned(NamedTuple):
    """NLL of all bootstrap sets of one test set, and what its profiles give for each parameter."""

    scan: NLLScan
    quartics: dict[str, QuarticFit]
    crossings: dict[str, Intervals]


class Evaluation(NamedTuple):
    """How several methods do on the same test sets."""

    table: pd.DataFrame
    """A row per method and test set, see :func:`evaluate_densities`."""
    scans: dict[str, list[NLLScan]]
    """NLL of each whole test set by each method, for contours."""


def evaluate_densities(
    densities: Mapping[str, ComponentDensities],
    test_sets: Sequence[TestSet],
    grid: ScanGrid,
    *,
    exact: str | None,
    n_bootstrap: int = 100,
    set_size: int = 1000,
    seed: int,
    progress: bool = False,
) -> Evaluation:
    """All metrics of several methods on the same bootstrap sets.

    Args:
        densities: methods by name.
        test_sets: test sets with known parameters.
        grid: where the likelihood is scanned.
        exact: name of the method whose likelihood is exact, for the overlaps; None if there is none.
        n_bootstrap: bootstrap sets of each test set.
        set_size: events in a bootstrap set.
        seed: seed of the bootstrap.
        progress: show a progress bar.

    Returns:
        The scans of the test sets, and a table with columns ``method``, ``test_set``, ``mu``, ``z``, the
        metrics of :data:`METRICS` with intervals as published, ``mu coverage, crossing`` and
        ``z coverage, crossing`` with exact crossings, the same for the widths, and ``mu open`` and
        ``z open``, the fraction of crossing intervals that leave the scanned range.

    Raises:
        ParameterError: if there are no test sets or ``exact`` is not a method.
    """
    check_range("number of test sets", len(test_sets), low=1)
    if exact is not None:
        check_choice("exact", exact, densities)
    generator = Generator().manual_seed(seed)
    rows: list[dict[str, object]] = []
    scans: dict[str, list[NLLScan]] = {name: [] for name in densities}
    # The exact method first: all others are compared with it.
    names = sorted(densities, key=lambda name: name != exact)
    for number, test_set in enumerate(tqdm(test_sets, desc="test sets", disable=not progress)):
        counts = bootstrap_counts(len(test_set.events), n_bootstrap, set_size, generator)
        truth: _Scanned | None = None
        for name in names:
            components = densities[name].log_components(test_set.events, grid.nuisances)
            scans[name].append(scan_nll(components, None, grid, restrict=True))
            scanned = _scan(components, grid, counts)
            truth = scanned if name == exact else truth
            row = {
                "method": name,
                "test_set": number,
                "mu": test_set.signal_ratio,
                "z": test_set.nuisance,
            }
            if truth is not None:
                overlaps = likelihood_overlaps(scanned.scan, truth.scan)
                row |= dict(zip(METRICS[:3], (float(value.mean()) for value in overlaps), strict=True))
            rows.append(row | _interval_metrics(scanned, test_set))
    return Evaluation(pd.DataFrame(rows), scans)


def summarize_metrics(table: pd.DataFrame) -> pd.DataFrame:
    """Mean of every metric over the test sets and its standard error.

    Args:
        table: the table of an :class:`Evaluation`.

    Returns:
        A row per method, in order of appearance, with columns ``(metric, "mean")`` and
        ``(metric, "error")``.  The error is the scatter of the test sets over the square root of their
        number; NaN for a single one.
    """
    metrics = [name for name in table.columns if name not in ("method", "test_set", "mu", "z")]
    grouped = table.groupby("method", sort=False)[metrics]
    both = pd.concat({"mean": grouped.mean(), "error": grouped.sem()}, axis=1).swaplevel(axis=1)
    return both[[(metric, part) for metric in metrics for part in ("mean", "error")]]


def _scan(components: LogComponents, grid: ScanGrid, counts: Tensor) -> _Scanned:
    scan = scan_nll(components, None, grid, counts=counts, restrict=True)
    profiles = {
        "mu": profile_signal_ratio(scan, refine=True),
        "z": profile_nuisance(scan, refine=True),
    }
    return _Scanned(
        scan,
        quartics={name: fit_quartic(profile) for name, profile in profiles.items()},
        crossings={name: crossing_interval(profile) for name, profile in profiles.items()},
    )


def _interval_metrics(scanned: _Scanned, test_set: TestSet) -> dict[str, object]:
    row: dict[str, object] = {}
    for name, truth in (("mu", test_set.signal_ratio), ("z", test_set.nuisance)):
        quartic, crossing = scanned.quartics[name], scanned.crossings[name]
        # Comparisons with NaN are false: a failed fit covers nothing.
        row[f"{name} coverage"] = _mean((quartic.best - truth).abs() <= quartic.sigma)
        row[f"{name} mean width"] = 2 * float(quartic.sigma.nanmean())
        row[f"{name} coverage, crossing"] = _mean(crossing.contains(truth))
        row[f"{name} mean width, crossing"] = float(crossing.width.nanmean())
        row[f"{name} open"] = _mean(crossing.lower_open | crossing.upper_open)
    return row


def _mean(flags: Tensor) -> float:
    return float(flags.double().mean())
