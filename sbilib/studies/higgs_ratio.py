"""One model on the Higgs case: the published table with errors, means over test points, widths compared.

Test sets of one split share events, and so do toys of one test point with those of others at the same true
parameters.  Errors here are those between splits where there are several, and add up those of test points
as independent where toys were drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sbilib.components import ComponentDensities
from sbilib.errors import DataError
from sbilib.likelihood import ScanGrid
from sbilib.problems import TestSet
from sbilib.studies.evaluation import evaluate_pair
from sbilib.studies.metrics import METRICS

__all__ = [
    "TABLE_METRICS",
    "best_fit_spread",
    "compare_widths",
    "higgs_table",
    "mean_over_points",
    "summarize_splits",
]

TABLE_METRICS = METRICS[3:]
"""Coverage and mean width of both parameters, in the order of Table 4.3 of Sluijter 2024."""


def higgs_table(
    densities: Mapping[str, ComponentDensities],
    test_sets: Sequence[TestSet],
    *,
    n_splits: int,
    grid: ScanGrid,
    n_bootstrap: int,
    seed: int,
) -> pd.DataFrame:
    """Coverage and widths in bootstrap sets, built the published way, for each method and test set.

    Args:
        densities: methods by name.
        test_sets: those of `higgs_test_sets`, split after split.
        n_splits: test splits they come from.
        grid: its ends are the scanned ranges.
        n_bootstrap: bootstrap sets of each test set; they hold a ninth of its events.
        seed: seed of the bootstrap, the same for all methods.

    Returns:
        A row per method and test set, with ``split``, ``mu``, ``z`` and `TABLE_METRICS`.

    Raises:
        DataError: if there are not as many test sets from each split.
    """
    if n_splits < 1 or len(test_sets) % n_splits:
        raise DataError(f"{len(test_sets)} test sets do not divide into {n_splits} splits of equal size")
    parts = []
    for name, pair in densities.items():
        table = evaluate_pair(
            pair,
            test_sets,
            exact=None,
            n_bootstrap=n_bootstrap,
            set_size=len(test_sets[0].events) // 9,
            seed=seed,
            grid=grid,
        )
        split = table["test_set"] // (len(test_sets) // n_splits) + 1
        parts.append(table.assign(method=name, split=split))
    return pd.concat(parts, ignore_index=True)


def summarize_splits(table: pd.DataFrame) -> pd.DataFrame:
    """Means over test points and splits, with standard errors from the differences between splits.

    Args:
        table: rows of `higgs_table`.

    Returns:
        A row per method; columns are pairs of metric and ``mean`` or ``error`` (NaN for one split).
    """
    columns = list(TABLE_METRICS)
    by_split = table.groupby(["method", "split"], sort=False)[columns].mean()
    groups = by_split.groupby("method", sort=False)
    mean, error = groups.mean(), groups.sem()
    return pd.concat({"mean": mean, "error": error}, axis=1).swaplevel(axis=1).sort_index(axis=1)


def mean_over_points(summary: pd.DataFrame) -> pd.DataFrame:
    """Coverage and width averaged over the test points.

    Args:
        summary: rows of `summarize_toys`.

    Returns:
        A row per method and parameter, with ``coverage``, ``width``, their errors ``coverage_error``
        (binomial and that of the finite reservoir, in quadrature) and ``width_error``, the smallest ``k``,
        the largest absolute mean ``pull`` of a test point in standard deviations of a toy, and ``open``.
    """
    rows = []
    for (method, parameter), part in summary.groupby(["method", "parameter"], sort=False):
        n = len(part)
        # Test points at one true scale share the fluctuation of a reservoir: its error is not averaged.
        coverage_error = math.hypot(
            math.sqrt(float((part["error"] ** 2).sum())) / n, float(part["reservoir_error"].max())
        )
        rows.append(
            {
                "method": method,
                "parameter": parameter,
                "coverage": float(part["coverage"].mean()),
                "coverage_error": coverage_error,
                "width": float(part["width"].mean()),
                "width_error": math.sqrt(float((part["width_error"] ** 2).sum())) / n,
                "pull": float(part["pull"].abs().max()),
                "open": float(part["open"].mean()),
                "k": float(part["k"].min()),
            }
        )
    return pd.DataFrame(rows)


def best_fit_spread(table: pd.DataFrame) -> pd.DataFrame:
    """Twice the root mean square error of best fits, which the mean width should match.

    Args:
        table: rows of `ReservoirToys.fit`.

    Returns:
        A row per method and parameter, with ``spread``, averaged over test points, and its standard
        ``error`` for normal best fits.
    """
    rows = []
    for method, part in table.groupby("method", sort=False):
        for name in ("mu", "z"):
            square = (part[f"{name}_hat"] - part[name]) ** 2
            by_point = 2 * np.sqrt(square.groupby([part["mu"], part["z"]]).mean())
            error = float(by_point.mean()) / math.sqrt(2 * len(part))
            rows.append(
                {"method": method, "parameter": name, "spread": float(by_point.mean()), "error": error}
            )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Widths:
    """Widths of two methods in the same toys, both finite."""

    own: np.ndarray
    other: np.ndarray

    def ratio(self) -> tuple[float, float]:
        """Ratio of the mean widths and its error, from the residuals of each toy."""
        if len(self.own) < 2:
            return math.nan, math.nan
        value = float(self.own.mean() / self.other.mean())
        residuals = (self.own - value * self.other) / self.other.mean()
        return value, float(residuals.std(ddof=1) / math.sqrt(len(residuals)))


def compare_widths(table: pd.DataFrame, *, baseline: str) -> pd.DataFrame:
    """Mean widths relative to those of one method in the same toys.

    Args:
        table: rows of `ReservoirToys.fit`.
        baseline: the method to compare with.

    Returns:
        A row per other method and parameter, with ``ratio`` and its standard ``error``; toys in which one
        of the two intervals is open are left out, and both are NaN if fewer than two are left.

    Raises:
        DataError: if the baseline is not in the table.

    Example:
        >>> edges = {"mu_lower": 0.1, "mu_upper": 0.2, "z_lower": 0.9, "z_upper": 1.0}
        >>> one = pd.DataFrame({"mu": 0.2, "z": 1.0, "toy": [0, 1], "method": "a", **edges})
        >>> two = one.assign(method="b", mu_upper=0.3)
        >>> compare_widths(pd.concat([one, two]), baseline="a")["ratio"].round(6).tolist()
        [2.0, 1.0]
    """
    indexed = table.set_index(["mu", "z", "toy"])
    if baseline not in set(indexed["method"]):
        raise DataError(f"the table has no method {baseline!r}, only {sorted(set(indexed['method']))}")
    other, rows = indexed[indexed["method"] == baseline], []
    for name in [method for method in dict.fromkeys(indexed["method"]) if method != baseline]:
        own = indexed[indexed["method"] == name]
        for parameter in ("mu", "z"):
            widths = [part[f"{parameter}_upper"] - part[f"{parameter}_lower"] for part in (own, other)]
            both = pd.concat(widths, axis=1, keys=["own", "other"])
            both = both[np.isfinite(both).all(axis=1)]
            value, error = _Widths(both["own"].to_numpy(), both["other"].to_numpy()).ratio()
            rows.append({"method": name, "parameter": parameter, "ratio": value, "error": error})
    return pd.DataFrame(rows)
