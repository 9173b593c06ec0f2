r"""How wrong an ensemble is, what the spread of its members says about it, and intervals that allow for it.

Let :math:`b_m` be the shift of the best fit of member :math:`m` from that of the exact likelihood on the same
events, averaged over toys.  To first order the shift is linear in the error of the log density, so that of an
ensemble of :math:`K` members is the mean of theirs.  With :math:`b_m = B + s_m`, where all members have
:math:`B` in common and the :math:`s_m` are independent of each other with variance :math:`S^2`,

.. math:: \mathbb E\, \bar b_K^2 = B^2 + S^2 / K .

The spread between members estimates :math:`S`.  It knows nothing of :math:`B`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from sbilib.errors import DataError, check_range
from sbilib.studies.ensembles import EXACT, SINGLE

__all__ = [
    "ErrorDecomposition",
    "decompose_members",
    "ensemble_coverage",
    "ensemble_overlaps",
    "ensemble_shifts",
    "fit_decomposition",
    "mean_square_shifts",
    "member_spread",
    "shifted_coverage",
    "widen_intervals",
]

_POINT = ["mu", "z"]
_TOY = [*_POINT, "toy"]
_SUB = ["kind", "size", "number"]
_OVERLAPS = ("mu_overlap", "z_overlap", "total_overlap")


def ensemble_shifts(table: pd.DataFrame) -> pd.DataFrame:
    """Mean shift of the best fits of every sub-ensemble from those of the exact likelihood on the same toys.

    Toys whose exact interval leaves the scanned range are left out, because their best fits may be cut off.

    Args:
        table: result of `fit_ensembles`.

    Returns:
        A row per test point, sub-ensemble and ``parameter`` (``mu``, ``z``), with ``sigma``, the mean
        half-width of the exact intervals, ``shift`` and its standard error ``error`` over the toys in units
        of ``sigma``, and ``n_toys``.

    Raises:
        DataError: if no toy is left at a test point.
    """
    exact = table[table["kind"] == EXACT].set_index(_TOY)
    learned = table[table["kind"] != EXACT]
    rows = []
    for parameter in _POINT:
        half = (exact[f"{parameter}_upper"] - exact[f"{parameter}_lower"]) / 2
        closed = half[np.isfinite(half)]
        sigma = closed.groupby(_POINT).mean()
        if len(sigma) < len(half.groupby(_POINT).size()):
            raise DataError(
                f"at some test point every exact interval of {parameter} leaves the scanned range; use more "
                "toys, or more events in a toy"
            )
        reference = exact.loc[closed.index, f"{parameter}_hat"].rename("reference")
        joined = learned.join(reference, on=_TOY, how="inner")
        difference = joined[f"{parameter}_hat"] - joined["reference"]
        grouped = difference.groupby([joined[name] for name in [*_POINT, *_SUB]])
        parts = pd.DataFrame({"shift": grouped.mean(), "error": grouped.sem(), "n_toys": grouped.size()})
        parts = parts.reset_index().join(sigma.rename("sigma"), on=_POINT)
        parts[["shift", "error"]] = parts[["shift", "error"]].div(parts["sigma"], axis=0)
        rows.append(parts.assign(parameter=parameter))
    return pd.concat(rows, ignore_index=True)


def mean_square_shifts(shifts: pd.DataFrame) -> pd.DataFrame:
    """Mean square of the shifts over test points and sub-ensembles, without the share of the toys' scatter.

    Args:
        shifts: result of `ensemble_shifts`.

    Returns:
        A row per ``parameter``, ``kind`` and ``size`` with ``mean_square``, its root ``rms`` (zero where the
        mean square is negative), and ``count``, the number of sub-ensembles.
    """
    squares = shifts.assign(mean_square=shifts["shift"] ** 2 - shifts["error"].fillna(0.0) ** 2)
    grouped = squares.groupby(["parameter", "kind", "size"])
    result = grouped.agg(mean_square=("mean_square", "mean"), count=("number", "nunique")).reset_index()
    return result.assign(rms=np.sqrt(result["mean_square"].clip(lower=0.0)))


class ErrorDecomposition(NamedTuple):
    """Common error and scatter of the members, as mean squares over test points in units of sigma squared."""

    common: float
    """:math:`B^2`; an estimate may be negative if the common error is small."""
    scatter: float
    """:math:`S^2`."""
    common_error: float = float("nan")
    """Standard error of ``common``."""
    scatter_error: float = float("nan")
    """Standard error of ``scatter``."""

    def rms(self, size: float) -> float:
        """Expected root mean square shift of an ensemble of ``size`` members."""
        return float(np.sqrt(max(0.0, self.common + self.scatter / size)))


def fit_decomposition(sizes: Sequence[float], mean_squares: Sequence[float]) -> ErrorDecomposition:
    r"""Fit :math:`B^2 + S^2/K` to mean square shifts at sizes :math:`K`, weighted by :math:`K`.

    The mean over :math:`n/K` disjoint sub-ensembles of a square with expectation near :math:`S^2/K` has a
    variance of :math:`2 (S^2/K)^2 K/n`, which falls as :math:`1/K`.

    Raises:
        DataError: if there are fewer than two different sizes, or a value is not finite.

    Example:
        >>> found = fit_decomposition([1, 2, 4], [1.25, 0.75, 0.5])
        >>> round(found.common, 6), round(found.scatter, 6)
        (0.25, 1.0)
    """
    x, y = 1 / np.asarray(sizes, dtype=float), np.asarray(mean_squares, dtype=float)
    if len(x) != len(y) or len(np.unique(x)) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError(
            f"a decomposition needs finite mean squares at two or more sizes, got {list(sizes)} and "
            f"{list(mean_squares)}"
        )
    weights = 1 / x
    center = np.average(x, weights=weights)
    slope = np.average((x - center) * y, weights=weights) / np.average((x - center) ** 2, weights=weights)
    common = np.average(y, weights=weights) - slope * center
    return ErrorDecomposition(float(common), float(slope))


def decompose_members(shifts: pd.DataFrame, parameter: str) -> ErrorDecomposition:
    r"""Common error and scatter from single members alone, without bias, with errors from the jackknife.

    With :math:`n` members and mean shift :math:`\bar b` at a test point, :math:`S^2` is the sample variance
    and :math:`B^2 = \bar b^2 - S^2/n`; both are averaged over the test points, after the share of the toys'
    scatter was taken off.  The jackknife leaves out one member at all test points.

    Args:
        shifts: result of `ensemble_shifts`.
        parameter: ``"mu"`` or ``"z"``.

    Raises:
        DataError: if there are fewer than three single members.
    """
    rows = shifts[(shifts["kind"] == SINGLE) & (shifts["parameter"] == parameter)]
    values = rows.pivot(index="number", columns=_POINT, values="shift").to_numpy()
    noise = rows.pivot(index="number", columns=_POINT, values="error").fillna(0.0).to_numpy() ** 2
    n = len(values)
    if n < 3:
        raise DataError(f"a decomposition needs at least three single members, got {n}; fit them with size 1")

    def estimate(chosen: np.ndarray) -> np.ndarray:
        part, toys = values[chosen], noise[chosen].mean(axis=0)
        scatter = part.var(axis=0, ddof=1)
        # The toys are the same for all members, so their scatter is counted once, with the mean.
        common = part.mean(axis=0) ** 2 - scatter / len(part) - toys
        return np.array([common.mean(), scatter.mean()])

    full = estimate(np.arange(n))
    left_out = np.stack([estimate(np.delete(np.arange(n), k)) for k in range(n)])
    errors = np.sqrt((n - 1) / n * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0))
    return ErrorDecomposition(*map(float, full), *map(float, errors))


def member_spread(shifts: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation of the best fits between single members, at each test point.

    It needs no truth: the exact estimate that was subtracted is the same for all members.

    Args:
        shifts: result of `ensemble_shifts`.

    Returns:
        Index ``(mu, z)``, columns ``mu`` and ``z``: spreads in the units of the parameters.

    Raises:
        DataError: if there are fewer than two single members.
    """
    single = shifts[shifts["kind"] == SINGLE]
    if single["number"].nunique() < 2:
        raise DataError("a spread needs at least two single members; fit them with size 1")
    absolute = (single["shift"] * single["sigma"]).groupby([single[c] for c in [*_POINT, "parameter"]])
    return absolute.std().unstack("parameter")


def widen_intervals(table: pd.DataFrame, spread: pd.DataFrame, *, factor: float = 1.0) -> pd.DataFrame:
    r"""Widen both sides of every learned interval in quadrature, :math:`h \to \sqrt{h^2 + (c\,s)^2}`.

    For a profile that is a parabola this is the interval of the threshold :math:`t = 1 + (c\,s)^2/h^2` on
    :math:`-2\log\lambda`.

    Args:
        table: result of `fit_ensembles`.
        spread: result of `member_spread`, the standard deviation :math:`s` of the model error of one member.
        factor: :math:`c`, for instance :math:`1/\sqrt K` for an independent ensemble of :math:`K` members.

    Returns:
        The table with other edges; rows of the exact likelihood are left as they are.

    Raises:
        ParameterError: for a negative factor.
        DataError: if a test point has no spread.
    """
    check_range("factor", factor, low=0.0)
    known = table.join(spread.rename(columns=lambda name: f"{name}_spread"), on=_POINT)
    added = known[["mu_spread", "z_spread"]]
    if bool(added.isna().any(axis=None)):
        raise DataError("some test points have no spread; take it from fits at the same test points")
    learned = (table["kind"] != EXACT).to_numpy()
    result = table.copy()
    for parameter in _POINT:
        best, extra = table[f"{parameter}_hat"], (factor * added[f"{parameter}_spread"]) ** 2 * learned
        result[f"{parameter}_lower"] = best - np.sqrt((best - table[f"{parameter}_lower"]) ** 2 + extra)
        result[f"{parameter}_upper"] = best + np.sqrt((table[f"{parameter}_upper"] - best) ** 2 + extra)
    return result


def ensemble_coverage(table: pd.DataFrame) -> pd.DataFrame:
    """Coverage of the intervals of every kind and size over all toys of the nine test points.

    Args:
        table: result of `fit_ensembles` or `widen_intervals`.

    Returns:
        A row per ``parameter``, ``kind`` and ``size``, with ``coverage`` (mean over sub-ensembles), ``error``
        (binomial, from the number of toys ``n_toys``; sub-ensembles share their toys), ``difference`` from
        the exact likelihood on the same toys and its ``difference_error``, and ``count``, the number of
        sub-ensembles.
    """
    covered = {
        name: (table[f"{name}_lower"] <= table[name]) & (table[name] <= table[f"{name}_upper"])
        for name in _POINT
    }
    counts = table.groupby(["kind", "size"])["number"].nunique().rename("count")
    parts = []
    for parameter, flags in covered.items():
        keys = [table[name] for name in ["kind", "size", *_TOY]]
        held = flags.astype(float).groupby(keys).mean().rename("held").reset_index()
        exact = held.loc[held["kind"] == EXACT, [*_TOY, "held"]]
        both = held.merge(exact, on=_TOY, suffixes=("", "_exact"))
        both["difference"] = both["held"] - both["held_exact"]
        grouped = both.groupby(["kind", "size"])
        part = pd.DataFrame(
            {
                "coverage": grouped["held"].mean(),
                "difference": grouped["difference"].mean(),
                "difference_error": grouped["difference"].sem(),
                "n_toys": grouped["held"].size(),
            }
        )
        part["error"] = np.sqrt(part["coverage"] * (1 - part["coverage"]) / part["n_toys"])
        parts.append(part.join(counts).reset_index().assign(parameter=parameter))
    return pd.concat(parts, ignore_index=True)


def ensemble_overlaps(table: pd.DataFrame) -> pd.DataFrame:
    """Mean overlaps of every sub-ensemble with the exact likelihood.

    Args:
        table: result of `fit_ensembles` with ``n_overlaps`` above zero.

    Returns:
        A row per ``kind``, ``size`` and ``number``, with ``mu_overlap``, ``z_overlap`` and ``total_overlap``,
        each the mean over test points and toys, and ``total_error``, the standard error of the last over the
        toys.

    Raises:
        DataError: if no overlaps were computed.
    """
    rows = table[(table["kind"] != EXACT) & table["total_overlap"].notna()]
    if rows.empty:
        raise DataError("the table has no overlaps; call fit_ensembles with n_overlaps above 0")
    grouped = rows.groupby(_SUB)
    return grouped[list(_OVERLAPS)].mean().assign(total_error=grouped["total_overlap"].sem()).reset_index()


def shifted_coverage(shift: float, *, widening: float = 1.0) -> float:
    r"""Coverage of an interval that is shifted and widened, :math:`\Phi(w - \delta) - \Phi(-w - \delta)`.

    Args:
        shift: shift :math:`\delta` of the estimate in standard deviations.
        widening: half-width :math:`w` in standard deviations.

    Example:
        >>> round(shifted_coverage(0.0), 4), round(shifted_coverage(0.5), 3)
        (0.6827, 0.625)
    """
    return float(norm.cdf(widening - shift) - norm.cdf(-widening - shift))
