r"""What the tables of `CoveragePlan` say about pairs of models, ensembles and the template fit.

Two coverages are kept apart.  In independent toys a right interval covers in 68.3%.  In bootstrap sets of
test sets it covers in less, and a pair whose best fits are shifted by :math:`\delta` standard deviations in

.. math:: C_k(\delta) = \Phi\Bigl(\frac{1 - \delta}{s}\Bigr) - \Phi\Bigl(\frac{-1 - \delta}{s}\Bigr),
          \qquad s^2 = 1 + \frac{1 - \rho}{k}

of them on average, where independent toys give :math:`C_\infty(\delta)`; :math:`\rho` is the share of the
variance that a fixed number of signal events takes away.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm

from sbilib.errors import DataError, ParameterError, check_choice, check_count, check_range
from sbilib.problems import COMPONENTS
from sbilib.studies.higgs_toys import FiniteProblem, summarize_toys
from sbilib.studies.sweep_summary import SwapTest, compare_swaps

__all__ = [
    "AS_TRAINED",
    "ENSEMBLE",
    "TEMPLATE_FIT",
    "BarVerdict",
    "compare_swapped_pairs",
    "feature_information",
    "flow_excess",
    "judge_bar",
    "pair_means",
    "precise_summary",
    "shifted_bootstrap_coverage",
    "width_ratio",
]

ENSEMBLE, AS_TRAINED, TEMPLATE_FIT = "mean_density", "as trained", "template fit"
"""Recipes of rows that are no single pairs: ensembles of mean densities, the same of classifiers before their
moments are matched, and the histogram template fit."""
_KEYS = ["recipe", "method", "seed"]
_NOT_PAIRS = (ENSEMBLE, "mean_log_ratio", AS_TRAINED, TEMPLATE_FIT)


class BarVerdict(NamedTuple):
    """Whether the coverages of one method at all test points lie in a range."""

    n_inside: int
    """Coverages in the range."""
    n_points: int
    """Coverages in all: test points times parameters."""
    lowest: float
    """Lowest coverage."""
    highest: float
    """Highest coverage."""
    error: float
    """Largest standard error of a coverage, from the numbers of toys and of events in the reservoir."""


def pair_means(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each pair of models.

    Args:
        table: rows of `CoveragePlan`.

    Returns:
        A row per ``recipe``, ``method`` and ``seed`` with what its training left (``diverged``, swaps, losses
        and so on) and, for ``mu`` and ``z``, means over the test points: ``mu coverage`` and ``mu mean
        width`` in independent toys; ``mu shift``, the root mean square of the mean shift of best fits in
        standard deviations; ``mu coverage, bootstrap`` with crossings, ``mu coverage, published`` and ``mu
        mean width, published`` with parabolic intervals, if there are bootstrap sets.  ``min swaps`` is the
        smaller number of swaps of the two flows, missing where nothing is permuted at random.

    Raises:
        DataError: if there are no pairs.
    """
    pairs = table[~table["recipe"].isin(_NOT_PAIRS)]
    if pairs.empty:
        raise DataError("the table has no pairs of models; make the results of higgs-coverage first")
    facts = pairs[pairs["kind"] == "training"].set_index(_KEYS)
    names = ["diverged", "learning_rate", "training_seconds"]
    names += [f"{c} {what}" for c in COMPONENTS for what in ("swaps", "loss", "held-out loss")]
    result = facts[[name for name in names if name in facts]].copy()
    result["diverged"] = result["diverged"].astype(bool)
    result["min swaps"] = facts[[f"{c} swaps" for c in COMPONENTS]].min(axis=1, skipna=False)
    toys = summarize_toys(pairs[pairs["kind"] == "toy"], by=_KEYS)
    toys["square"] = toys["pull"] ** 2
    for name, rows in toys.groupby("parameter"):
        means = rows.groupby(_KEYS, sort=False)[["coverage", "width", "square"]].mean()
        result[f"{name} coverage"] = means["coverage"]
        result[f"{name} mean width"] = means["width"]
        result[f"{name} shift"] = np.sqrt(means["square"])
    sets = pairs[pairs["kind"] == "bootstrap"]
    if not sets.empty:
        means = sets.groupby(_KEYS, sort=False).mean(numeric_only=True)
        for name in ("mu", "z"):
            result[f"{name} coverage, bootstrap"] = means[f"{name} coverage, crossing"]
            result[f"{name} coverage, published"] = means[f"{name} coverage"]
            result[f"{name} mean width, published"] = means[f"{name} mean width"]
    return result.reset_index()


def precise_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Coverage and width of ensembles and template fit at each test point, from the further toys.

    Returns:
        Rows of `summarize_toys` with ``recipe`` and ``method``, and ``total_error``, the binomial error and
        that of the reservoir in quadrature.

    Raises:
        DataError: if there are none.
    """
    rows = table[table["kind"] == "summary"].dropna(axis=1, how="all")
    if rows.empty:
        raise DataError("the table has no ensembles; make the results of higgs-coverage first")
    total = np.hypot(rows["error"], rows["reservoir_error"])
    return rows.drop(columns=["kind", "seed"]).assign(total_error=total).reset_index(drop=True)


def judge_bar(
    summary: pd.DataFrame, method: str, *, recipe: str = ENSEMBLE, low: float = 0.66, high: float = 0.70
) -> BarVerdict:
    """Whether all coverages of ``mu`` and ``z`` of an ensemble lie between ``low`` and ``high``.

    Args:
        summary: result of `precise_summary`.
        method: ``"flow"``, ``"classifier"`` or the template fit.
        recipe: which rows of it.
        low: lowest coverage of the range.
        high: highest one.

    Raises:
        DataError: if there are no such rows.
    """
    check_range("low", low, low=0.0, high=high)
    rows = summary[(summary["method"] == method) & (summary["recipe"] == recipe)]
    if rows.empty:
        raise DataError(f"the summary has no rows of {method!r} and {recipe!r}")
    values = rows["coverage"]
    inside = int(values.between(low, high).sum())
    return BarVerdict(
        inside, len(values), float(values.min()), float(values.max()), float(rows["total_error"].max())
    )


def width_ratio(summary: pd.DataFrame, first: tuple[str, str], second: tuple[str, str]) -> pd.DataFrame:
    """Mean widths of one way over those of another, at each test point.

    Args:
        summary: result of `precise_summary`.
        first: method and recipe above.
        second: method and recipe below.

    Returns:
        A row per ``parameter``, ``mu`` and ``z`` with ``ratio`` and its ``error``, that of independent toys,
        which is too large where the toys are the same.
    """
    keys = ["parameter", "mu", "z"]
    parts = [
        summary[(summary["method"] == method) & (summary["recipe"] == recipe)].set_index(keys)
        for method, recipe in (first, second)
    ]
    above, below = parts[0], parts[1].reindex(parts[0].index)
    ratio = above["width"] / below["width"]
    relative = np.hypot(above["width_error"] / above["width"], below["width_error"] / below["width"])
    return pd.DataFrame({"ratio": ratio, "error": ratio * relative}).reset_index()


def shifted_bootstrap_coverage(shift: float, *, k: float = math.inf, count_share: float = 0.0) -> float:
    """Expected coverage of intervals shifted by ``shift`` standard deviations in bootstrap sets.

    Args:
        shift: in standard deviations of one set.
        k: events of a test set over those of a bootstrap set; infinite for independent toys.
        count_share: share of the variance that fixed numbers of signal events take away.

    Example:
        >>> round(shifted_bootstrap_coverage(0.0), 4), round(shifted_bootstrap_coverage(0.0, k=9), 3)
        (0.6827, 0.657)
    """
    if not k > 0:
        raise ParameterError(f"k must be positive, got {k!r}; pass the size of a test set over that of a set")
    check_range("count_share", count_share, low=0.0, high=1.0)
    scale = math.sqrt(1 + (1 - count_share) / k)
    return float(norm.cdf((1 - shift) / scale) - norm.cdf((-1 - shift) / scale))


def flow_excess(pairs: pd.DataFrame) -> pd.DataFrame:
    """Held-out loss of every single flow above the best one of its component.

    Args:
        pairs: result of `pair_means`.

    Returns:
        A row per flow with ``recipe``, ``seed``, ``component``, ``swaps`` (NaN where nothing is permuted at
        random) and ``excess``, in nats an event.
    """
    flows = pairs[pairs["method"] == "flow"]
    parts = []
    for component in COMPONENTS:
        loss = flows[f"{component} held-out loss"]
        part = flows[["recipe", "seed"]].assign(
            component=component, swaps=flows[f"{component} swaps"], excess=loss - loss.min()
        )
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def compare_swapped_pairs(pairs: pd.DataFrame, metric: str) -> SwapTest:
    """Test whether pairs of published flows with a blind one have lower values of ``metric``.

    Args:
        pairs: result of `pair_means`.
        metric: a column of it; for one in which low is good, pass a column of negative values.
    """
    flows = pairs[(pairs["recipe"] == "sluijter") & (pairs["method"] == "flow") & ~pairs["diverged"]]
    flows = flows.assign(case="higgs")
    flows["min swaps"] = flows["min swaps"].astype("Int64")
    return compare_swaps(flows, metric)


def feature_information(
    problem: FiniteProblem, component: str, *, feature: int = 0, n_nodes: int = 21, n_bins: int = 100
) -> float:
    r"""Mutual information of one feature and the nuisance parameter, uniform over its range, in nats.

    .. math:: I = h\bigl[\mathbb E_z\, p(x_j \mid z)\bigr] - \mathbb E_z\, h\bigl[p(x_j \mid z)\bigr]

    from histograms of the logarithm of the feature with :math:`B` bins, which overestimate it by less than
    :math:`B / 2N` for N events.  A flow of which the feature is modeled without the nuisance parameter has
    at least this excess of its loss.

    Args:
        problem: events that can be shifted; the feature must be positive.
        component: ``"signal"`` or ``"background"``.
        feature: position of the feature.
        n_nodes: nuisance values.
        n_bins: bins over the range of the logarithms.
    """
    check_choice("component", component, COMPONENTS)
    check_count("n_nodes", n_nodes, low=2)
    check_count("n_bins", n_bins, low=2)
    low, high = problem.nuisance_range
    nodes = low + (high - low) * (np.arange(n_nodes) + 0.5) / n_nodes
    found = [problem.all_events(component, float(z)) for z in nodes]
    logs = [part.events[:, feature].double().log() for part in found]
    ends = torch.stack([torch.stack([values.min(), values.max()]) for values in logs])
    edges = np.linspace(float(ends[:, 0].min()), float(ends[:, 1].max()), n_bins + 1)
    shares = np.stack(
        [
            np.histogram(values.numpy(), edges, weights=part.weights.double().numpy())[0]
            for values, part in zip(logs, found, strict=True)
        ]
    )
    shares = shares / shares.sum(axis=1, keepdims=True)
    return _entropy(shares.mean(axis=0)) - float(np.mean([_entropy(row) for row in shares]))


def _entropy(shares: np.ndarray) -> float:
    filled = shares[shares > 0]
    return -float((filled * np.log(filled)).sum())
