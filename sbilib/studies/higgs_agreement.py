r"""Does disagreement between two methods warn of a wrong interval?

A flow and a classifier are trained apart.  On the toys they share, their best fits of a parameter differ by
:math:`\Delta`, in units of half the mean width of their intervals,

.. math:: D = \frac{|\hat\theta_f - \hat\theta_c|}{(w_f + w_c) / 4} .

An alarm is raised above a threshold on D.  Whether it says something is a matter of the receiver operating
characteristic (ROC): the share of wrong cases that raise it against the share of right ones that do.  A
case is a toy, and wrong if an interval misses the truth, which also happens to exact likelihoods in 32% of
toys; or it is a pair of models at a test point, and wrong if the coverage of one of them is too low there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sbilib.errors import DataError, ParameterError, check_choice, check_range

__all__ = ["RocCurve", "model_disagreement", "toy_disagreement", "warning_roc"]

_KEYS = ["mu", "z", "toy"]


class RocCurve(NamedTuple):
    """How well a score tells wrong cases from right ones."""

    false_alarms: NDArray[np.float64]
    """Share of right cases above each threshold, from 0 to 1."""
    detected: NDArray[np.float64]
    """Share of wrong cases above it."""
    thresholds: NDArray[np.float64]
    """The thresholds, decreasing; the first is infinite."""
    area: float
    """Area below the curve: the chance that a wrong case has the higher score; 0.5 says nothing."""
    error: float
    """Its standard error for independent cases (Hanley and McNeil, Radiology 143 (1982) 29)."""


def toy_disagreement(
    table: pd.DataFrame, flow_seed: int, classifier_seed: int, *, parameter: str
) -> pd.DataFrame:
    """Disagreement of one flow pair and one classifier pair on each toy.

    Args:
        table: rows of toys of `HiggsModels`: ``kind``, ``method``, ``seed``, ``mu``, ``z``, ``toy``, fits.
        flow_seed: which flow pair.
        classifier_seed: which classifier pair.
        parameter: ``"mu"`` or ``"z"``.

    Returns:
        A row per toy with ``mu``, ``z``, ``toy``, the ``disagreement`` D, the signed ``difference`` flow
        minus classifier in the same unit, ``flow_holds`` and ``classifier_holds`` (whether intervals hold the
        truth) and ``wrong``, true where one of them does not.

    Raises:
        ParameterError: for another parameter.
        DataError: if one of the pairs has no toys.
    """
    check_choice("parameter", parameter, ("mu", "z"))
    both = {}
    for method, seed in (("flow", flow_seed), ("classifier", classifier_seed)):
        part = table[(table["kind"] == "toy") & (table["method"] == method) & (table["seed"] == seed)]
        if part.empty:
            raise DataError(f"there are no toys of the {method} of seed {seed}; fit them first")
        both[method] = part.set_index(_KEYS)
    flow, classifier = both["flow"], both["classifier"].reindex(both["flow"].index)
    truth = flow.index.get_level_values(parameter).to_numpy()
    half = (_mean_width(flow, parameter) + _mean_width(classifier, parameter)) / 4
    difference = (flow[f"{parameter}_hat"] - classifier[f"{parameter}_hat"]) / half
    rows = pd.DataFrame({"difference": difference, "disagreement": difference.abs()})
    for name, part in (("flow", flow), ("classifier", classifier)):
        rows[f"{name}_holds"] = (part[f"{parameter}_lower"] <= truth) & (truth <= part[f"{parameter}_upper"])
    rows["wrong"] = ~(rows["flow_holds"] & rows["classifier_holds"])
    return rows.reset_index()


def model_disagreement(table: pd.DataFrame, *, parameter: str, lowest_coverage: float = 0.6) -> pd.DataFrame:
    """Disagreement of every flow pair with every classifier pair at every test point.

    Args:
        table: rows of toys of `HiggsModels`.
        parameter: ``"mu"`` or ``"z"``.
        lowest_coverage: a coverage below it is wrong; with n toys at a point a right one scatters by
            ``0.466 / sqrt(n)``.

    Returns:
        A row per flow seed, classifier seed and test point, with the mean ``disagreement`` of the toys, the
        mean ``difference`` of signed ones, ``flow_coverage``, ``classifier_coverage`` and ``wrong``.

    Raises:
        ParameterError: for another parameter or a coverage out of range.
        DataError: if one of the methods has no toys.
    """
    check_range("lowest_coverage", lowest_coverage, low=0.0, high=1.0)
    toys = table[table["kind"] == "toy"]
    seeds = {
        name: sorted(toys.loc[toys["method"] == name, "seed"].unique()) for name in ("flow", "classifier")
    }
    missing = [name for name, found in seeds.items() if not found]
    if missing:
        raise DataError(f"there are no toys of any {' and '.join(missing)}; fit both methods")
    parts = []
    for flow in seeds["flow"]:
        for classifier in seeds["classifier"]:
            rows = toy_disagreement(toys, int(flow), int(classifier), parameter=parameter)
            names = ["disagreement", "difference", "flow_holds", "classifier_holds"]
            means = rows.groupby(["mu", "z"], sort=False)[names].mean().reset_index()
            parts.append(means.assign(flow_seed=flow, classifier_seed=classifier))
    result = pd.concat(parts, ignore_index=True)
    result = result.rename(columns={"flow_holds": "flow_coverage", "classifier_holds": "classifier_coverage"})
    lowest = result[["flow_coverage", "classifier_coverage"]].min(axis=1)
    return result.assign(wrong=lowest < lowest_coverage)


def warning_roc(score: pd.Series, wrong: pd.Series) -> RocCurve:
    """ROC of the alarm that is raised above a threshold on ``score``.

    Args:
        score: of each case, for instance its disagreement.
        wrong: whether the case is wrong.

    Returns:
        The curve.  Its error takes cases for independent; where models are shared between them, repeat it
        over groups of models instead.

    Raises:
        ParameterError: if there is no wrong or no right case.

    Example:
        >>> warning_roc(pd.Series([3.0, 2.0, 1.0, 0.5]), pd.Series([True, True, False, False])).area
        1.0
    """
    values, flags = score.to_numpy(float), wrong.to_numpy(bool)
    n_wrong, n_right = int(flags.sum()), int((~flags).sum())
    if n_wrong == 0 or n_right == 0 or not np.isfinite(values).all():
        raise ParameterError(
            f"an ROC needs wrong and right cases with finite scores, got {n_wrong} wrong and {n_right} right"
        )
    order = np.argsort(-values, kind="stable")
    values, flags = values[order], flags[order]
    # Equal scores cannot be told apart: one point of the curve for all of them.
    last = np.append(np.diff(values) != 0, True)
    detected = np.append(0.0, np.cumsum(flags)[last] / n_wrong)
    false_alarms = np.append(0.0, np.cumsum(~flags)[last] / n_right)
    area = float(np.trapezoid(detected, false_alarms))
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (n_wrong - 1) * (q1 - area**2) + (n_right - 1) * (q2 - area**2)
    error = math.sqrt(max(variance, 0.0) / (n_wrong * n_right))
    return RocCurve(false_alarms, detected, np.append(np.inf, values[last]), area, error)


def _mean_width(rows: pd.DataFrame, parameter: str) -> float:
    width = (rows[f"{parameter}_upper"] - rows[f"{parameter}_lower"]).replace(np.inf, np.nan)
    return float(width.mean())
