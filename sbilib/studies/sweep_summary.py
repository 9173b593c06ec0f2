r"""What a sweep says: metrics against the learning rate, the best rates, and what a missing swap costs.

Each model is first averaged over its test sets.  Means and standard deviations are then over models, as in
Fig. 4.2 of Sluijter 2024.  Models whose training diverged are counted and take no part in a mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from scipy.stats import fisher_exact, mannwhitneyu

from sbilib.errors import DataError, ParameterError
from sbilib.problems import COMPONENTS, GaussianToy
from sbilib.studies.metrics import METRICS
from sbilib.studies.recipes import PUBLISHED_LEARNING_RATES
from sbilib.studies.sweep import TRUTH, Sweep

__all__ = [
    "OUTLIER_DISTANCE",
    "SwapTest",
    "best_rates",
    "best_rates_beside_published",
    "blind_loss",
    "chosen_models",
    "compare_swaps",
    "estimated_hours",
    "flow_losses",
    "metrics_by_swaps",
    "model_means",
    "summarize_sweep",
]

OUTLIER_DISTANCE = 3.0
"""A model is an outlier if it lies this many robust standard deviations below the median of its group."""

_KEYS = ["case", "method", "learning_rate", "seed"]
_GROUP = _KEYS[:3]
_SWAPS = ("signal swaps", "background swaps")
_NORMAL_MAD = 0.6745  # median absolute deviation of a standard normal variable


class SwapTest(NamedTuple):
    """Whether pairs with a flow that never swaps its features do worse than the others."""

    metric: str
    """What was compared."""
    n_blind: int
    """Pairs in which one flow or both have no swap between layers."""
    n_others: int
    """All other pairs."""
    p_rank: float
    """One-sided p-value of the rank test of Mann and Whitney that blind pairs have lower values."""
    blind_outliers: int
    """Outliers among the blind pairs."""
    other_outliers: int
    """Outliers among the other pairs."""
    p_outliers: float
    """One-sided p-value of Fisher's exact test that outliers are more frequent among blind pairs."""


def model_means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean of every metric over the test sets of each model.

    Args:
        table: the table of a sweep, a row per model and test set.

    Returns:
        A row per model that did not diverge, with columns ``case``, ``method``, ``learning_rate`` (NaN for
        the exact likelihood), ``seed``, the metrics, the final losses, the swaps of each flow, and ``min
        swaps`` of the two (missing where layers are not permuted at random).

    Raises:
        DataError: if there is no such row.
    """
    finite = table[~table["diverged"]]
    if finite.empty:
        raise DataError("every model of the sweep diverged; choose lower learning rates")
    values = [
        name for name in table.columns if table[name].dtype == "float64" and name not in ("mu", "z", *_KEYS)
    ]
    means = finite.groupby(_KEYS, sort=False, dropna=False)[values].mean()
    swaps = finite.groupby(_KEYS, sort=False, dropna=False)[list(_SWAPS)].min()
    smaller = swaps.min(axis=1, skipna=False).astype("Int64")
    return means.join(swaps).assign(**{"min swaps": smaller}).reset_index()


def summarize_sweep(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation of every metric over the models (Fig. 4.2 of Sluijter 2024).

    Returns:
        A row per case, method and learning rate, indexed by them, with columns ``(metric, "mean")``,
        ``(metric, "std")`` (NaN for a single model), ``("models", "")`` and ``("diverged", "")``.
    """
    means = model_means(table)
    metrics = [name for name in METRICS if name in means]
    groups = means.groupby(_GROUP, sort=False, dropna=False)
    parts = {(name, part): getattr(groups[name], part)() for name in metrics for part in ("mean", "std")}
    each = table.drop_duplicates(_KEYS).groupby(_GROUP, sort=False, dropna=False)["diverged"]
    summary = pd.DataFrame({**parts, ("models", ""): groups.size()}).reindex(each.size().index)
    summary["models", ""] = summary["models", ""].fillna(0).astype("int64")
    summary["diverged", ""] = each.sum().astype("int64")
    return summary


def best_rates(table: pd.DataFrame, *, metric: str = "total overlap") -> dict[tuple[str, str], float]:
    """The learning rate with the largest mean of ``metric`` over the models, by case and method.

    Rates at which more than half of the models diverged are passed over.

    Raises:
        DataError: if no rate is left for a case and method.
    """
    summary = summarize_sweep(table)
    usable = summary[summary["models", ""] >= summary["diverged", ""]]
    means = usable[metric, "mean"].dropna().rename("mean").reset_index()
    best = {}
    for case, method in dict.fromkeys(key[:2] for key in summary.index.to_flat_index()):
        here = means[(means["case"] == case) & (means["method"] == method)]
        if method == TRUTH:
            continue
        if here.empty:
            raise DataError(
                f"no learning rate of the {method}, {case} distance, is usable; choose lower ones"
            )
        best[str(case), str(method)] = float(here.loc[here["mean"].idxmax(), "learning_rate"])
    return best


def best_rates_beside_published(rates: Mapping[tuple[str, str], float]) -> pd.DataFrame:
    """Chosen learning rates beside those of Table 4.1 of Sluijter 2024.

    Returns:
        A row per method, columns ``(case, "published")`` and ``(case, "ours")``.
    """
    columns: dict[tuple[str, str], dict[str, float]] = {}
    for (case, method), rate in rates.items():
        columns.setdefault((case, "published"), {})[method] = PUBLISHED_LEARNING_RATES[method, case]
        columns.setdefault((case, "ours"), {})[method] = rate
    return pd.DataFrame(columns)


def chosen_models(table: pd.DataFrame, rates: Mapping[tuple[str, str], float], case: str) -> pd.DataFrame:
    """Rows of :func:`model_means` of one case at the chosen rates, the exact likelihood included."""
    means = model_means(table)
    means = means[means["case"] == case]
    chosen = means["learning_rate"] == means["method"].map(lambda method: rates.get((case, method)))
    return means[chosen | (means["method"] == TRUTH)].reset_index(drop=True)


def metrics_by_swaps(models: pd.DataFrame, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Mean metrics of published flow pairs by the smaller number of swaps of the two flows.

    Args:
        models: rows of :func:`model_means`, of one case and one learning rate.
        metrics: which metrics.

    Returns:
        A row per number of swaps, with columns ``("models", "")``, ``(metric, "mean")`` and
        ``(metric, "error")``, the standard error of the mean over models (NaN for a single one).
    """
    flows = models[models["min swaps"].notna()]
    groups = flows.groupby("min swaps")
    parts = {
        (name, part): groups[name].agg(how)
        for name in metrics
        for part, how in (("mean", "mean"), ("error", "sem"))
    }
    return pd.DataFrame({("models", ""): groups.size(), **parts})


def flow_losses(models: pd.DataFrame) -> pd.DataFrame:
    """Final validation loss of every single flow with the number of its swaps.

    Args:
        models: rows of :func:`model_means`.

    Returns:
        A row per flow with random permutations: ``case``, ``learning_rate``, ``seed``, ``component``,
        ``swaps`` and ``loss`` (in nats an event).
    """
    flows = models[models["min swaps"].notna()]
    parts = [
        flows[["case", "learning_rate", "seed"]].assign(
            component=component,
            swaps=flows[f"{component} swaps"].astype("int64"),
            loss=flows[f"{component} validation loss"],
        )
        for component in COMPONENTS
    ]
    return pd.concat(parts, ignore_index=True)


def blind_loss(problem: GaussianToy) -> float:
    r"""Loss that a flow with a feature blind to :math:`z` cannot avoid, in nats an event.

    It is the mutual information of one feature :math:`x_1` and the nuisance parameter, uniform in its range,

    .. math:: I = h\bigl[\mathbb{E}_z\,p(x_1 \mid z)\bigr] - \mathbb{E}_z\,h\bigl[p(x_1 \mid z)\bigr],

    with the entropy :math:`h`, from sums on a fine grid. In the published range both features give the same.

    Example:
        >>> round(blind_loss(GaussianToy.large_distance()), 3)
        0.16
    """
    low, high = problem.nuisance_range
    angles = low + (high - low) * (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    means = problem.mean("signal", angles)[:, 0]
    x = torch.linspace(float(means.min()) - 8, float(means.max()) + 8, 4001, dtype=torch.float64)
    density = (-0.5 * (x - means[:, None]).square()).exp().mean(dim=0) / math.sqrt(2 * math.pi)
    entropy = -torch.trapezoid(torch.special.xlogy(density, density), x)
    return float(entropy) - 0.5 * math.log(2 * math.pi * math.e)


def estimated_hours(manifest: Mapping[str, Any], sweep: Sweep) -> float:
    """How long another sweep would take on the device of a finished one, in hours.

    Training is taken to be linear in models and steps, evaluation in models, test sets and bootstrap sets.

    Args:
        manifest: of the finished sweep.
        sweep: the other sweep, with the same methods.
    """
    done = Sweep.from_dict(manifest["sweep"])
    models = dict.fromkeys((*done.methods, TRUTH), 0)
    seconds = {method: [0.0, 0.0] for method in models}
    for chunk in manifest["chunks"]:
        models[chunk["method"]] += chunk["models"]
        seconds[chunk["method"]][0] += chunk["training_seconds"]
        seconds[chunk["method"]][1] += chunk["evaluation_seconds"]
    steps = sweep.n_steps / done.n_steps
    tests = sweep.test_repeats * sweep.n_bootstrap / (done.test_repeats * done.n_bootstrap)
    total = sum(
        len(chunk.models)
        / models[chunk.method]
        * (seconds[chunk.method][0] * steps + seconds[chunk.method][1] * tests)
        for chunk in sweep.chunks()
    )
    return total / 3600


def compare_swaps(models: pd.DataFrame, metric: str = "mu overlap") -> SwapTest:
    """Compare pairs in which a flow has no swap between its layers with all others.

    Outliers lie more than :data:`OUTLIER_DISTANCE` robust standard deviations below the median of all pairs;
    the robust standard deviation is the median absolute deviation over that of a standard normal variable.
    P-values are NaN if one of the two groups is empty.

    Args:
        models: rows of :func:`model_means`, of one case and one learning rate.
        metric: what is compared.

    Raises:
        ParameterError: if ``models`` holds several cases or learning rates of flows.
    """
    flows = models[models["min swaps"].notna()]
    if len(flows[["case", "learning_rate"]].drop_duplicates()) > 1:
        raise ParameterError(
            "the test of swaps needs flows of one case and one learning rate; select them first"
        )
    values, blind = flows[metric].astype(float), (flows["min swaps"] == 0).astype(bool)
    spread = (values - values.median()).abs().median() / _NORMAL_MAD
    outlier = values < values.median() - OUTLIER_DISTANCE * spread
    counts = [[int((outlier & group).sum()), int((~outlier & group).sum())] for group in (blind, ~blind)]
    p_rank = p_outliers = float("nan")
    if blind.any() and not blind.all():
        p_rank = float(mannwhitneyu(values[blind], values[~blind], alternative="less").pvalue)
        p_outliers = float(fisher_exact(counts, alternative="greater").pvalue)
    return SwapTest(
        metric, int(blind.sum()), int((~blind).sum()), p_rank, counts[0][0], counts[1][0], p_outliers
    )
