r"""How far two samples are apart in each feature, beside what equal samples of their sizes show.

With probabilities :math:`p_k` of the generated and :math:`q_k` of the reference sample in bin k,

.. math::
   \mathrm{KL} = \sum_k q_k \log\frac{q_k}{p_k}, \quad
   \mathrm{JS} = \tfrac12 \sum_k \left( q_k \log\frac{2 q_k}{p_k + q_k}
       + p_k \log\frac{2 p_k}{p_k + q_k} \right), \quad
   H^2 = 1 - \sum_k \sqrt{p_k q_k}, \quad
   \chi^2 = \sum_k \frac{(p_k - q_k)^2}{q_k},

and, on the samples themselves, with their distribution functions F and G in units of the feature,

.. math:: W_1 = \int |F(x) - G(x)|\, dx .

The bins hold equal shares of the reference and are fixed by it alone; the outer ones are open, so no event
is lost.  Dropping empty bins would hide the worst failures, so each bin gets a pseudo-count of one half
(Jeffreys' prior) in both samples instead: a bin the generated sample never fills costs about
:math:`q_k \log(2 n q_k)`.

None of these vanishes for finite samples of one density: the mean of KL is about
:math:`\tfrac12 (K - 1)(1/n + 1/m)` with K bins and n and m events.  Hence the baseline, the same measures
between two samples of the reference simulation of the same sizes.  Measures and baseline follow Gavranovic
and Kersevan, Eur. Phys. J. C 84 (2024) 911.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sbilib.diagnostics._checks import (
    Events,
    FloatArray,
    SamplePair,
    check_pair,
    check_sample,
    check_seed,
    resampled_counts,
    tail_share,
)
from sbilib.errors import DataError, check_choice, check_count, check_range

__all__ = [
    "DIVERGENCES",
    "BinnedDivergences",
    "FeatureDivergences",
    "PooledFeature",
    "binned_divergences",
    "compare_features",
]

DIVERGENCES = ("kl", "jensen_shannon", "hellinger", "chi2", "wasserstein")
"""The measures of :func:`compare_features`, in the order of its columns."""
PSEUDO_COUNT = 0.5
"""Added to every bin of both samples."""
_LEAST_PER_BIN = 5


class BinnedDivergences(NamedTuple):
    """Divergences of two histograms."""

    kl: float
    """Kullback-Leibler divergence of the generated from the reference, in nats."""
    jensen_shannon: float
    """Jensen-Shannon divergence, in nats, at most log 2."""
    hellinger: float
    """Hellinger distance H, at most 1."""
    chi2: float
    """Pearson's chi-square divergence, relative to the reference."""


@dataclass(frozen=True)
class FeatureDivergences:
    """Divergences of each feature (rows) by each measure of :data:`DIVERGENCES` (columns)."""

    names: tuple[str, ...]
    """Of the d features."""
    value: FloatArray
    """Between generated and reference, ``(d, 5)``; the last column in units of the feature."""
    error: FloatArray
    """Standard deviation of ``value`` over bootstraps of both samples, ``(d, 5)``."""
    baseline: FloatArray
    """Mean between two reference samples of the same sizes, ``(d, 5)``."""
    baseline_low: FloatArray
    """2.5% quantile of the baseline, ``(d, 5)``."""
    baseline_high: FloatArray
    """97.5% quantile of the baseline, ``(d, 5)``."""
    p_value: FloatArray
    """Share of baseline draws at or above ``value``, ``(d, 5)``."""
    n_bins: tuple[int, ...]
    """Bins of each feature; fewer than asked for where values repeat."""
    disjoint: bool
    """Whether the baseline compares disjoint samples, or draws with replacement for lack of events."""

    @property
    def ratio(self) -> FloatArray:
        """Divergence over its baseline, ``(d, 5)``; near one if the samples are alike."""
        return self.value / self.baseline

    def column(self, measure: str) -> int:
        """Column of a measure.

        Raises:
            ParameterError: if there is no such measure.
        """
        return DIVERGENCES.index(check_choice("measure", measure, DIVERGENCES))

    def table(self) -> pd.DataFrame:
        """A row per feature and measure, with all of the above."""
        index = pd.MultiIndex.from_product([self.names, DIVERGENCES], names=["feature", "measure"])
        fields = ("value", "error", "baseline", "baseline_low", "baseline_high", "ratio", "p_value")
        return pd.DataFrame({name: getattr(self, name).ravel() for name in fields}, index=index)


class PooledFeature:
    """One feature of pooled events, sorted once, to compare any two weightings of them.

    Args:
        values: of all events, ``(n,)``.

    Example:
        >>> pool = PooledFeature(np.array([1.0, 2.0, 2.0, 3.0]))
        >>> first, second = (pool.distribution(np.array(w)) for w in ([1, 0, 1, 0], [0, 1, 0, 1]))
        >>> pool.area(first - second)
        1.0
    """

    def __init__(self, values: FloatArray) -> None:
        self._order = np.argsort(values, kind="stable")
        ordered = values[self._order]
        self._gaps = np.diff(ordered)
        last_of_run = np.flatnonzero(np.append(self._gaps > 0, True))
        self._last_equal = last_of_run[np.searchsorted(last_of_run, np.arange(len(values)))]

    def distribution(self, weights: FloatArray | NDArray[np.bool_]) -> FloatArray:
        """Distribution function at each event, in order, if the events have ``weights``; both ``(n,)``."""
        sums = np.cumsum(weights[self._order])
        return np.asarray(sums / sums[-1], dtype=np.float64)

    def area(self, difference: FloatArray) -> float:
        """Area under the modulus of a difference of distribution functions, in units of the feature."""
        return float(np.abs(difference[:-1]) @ self._gaps)

    def equal_bins(self, reference: FloatArray, n_bins: int) -> NDArray[np.intp]:
        """Bins with equal shares of a reference, none without its events.

        Args:
            reference: its distribution function, ``(n,)``.
            n_bins: bins wanted; those that repeated values would leave empty are merged.

        Returns:
            Places, in order, of the last event of each bin but the last: at most ``n_bins - 1``.
        """
        levels = np.arange(1, n_bins) / n_bins - 1e-12
        last = np.unique(self._last_equal[np.searchsorted(reference, levels)])
        return last[reference[last] < 1 - 1e-12]


def binned_divergences(
    generated: ArrayLike, reference: ArrayLike, *, pseudo_count: float = PSEUDO_COUNT
) -> BinnedDivergences:
    """Divergences of two histograms in the same bins.

    Args:
        generated: events in each bin, ``(k,)``.
        reference: events in each bin, ``(k,)``.
        pseudo_count: added to every bin of both.

    Returns:
        The four divergences; KL and chi-square are infinite only if ``pseudo_count`` is zero and a bin of one
        sample is empty.

    Raises:
        DataError: if shapes differ, or counts are negative or all zero.
        ParameterError: if the pseudo-count is negative.

    Example:
        >>> round(binned_divergences([50, 50], [50, 50]).kl, 6)
        0.0
        >>> round(binned_divergences([0, 100], [50, 50], pseudo_count=0).hellinger ** 2, 4)  # 1 - 1 / sqrt(2)
        0.2929
    """
    check_range("pseudo_count", pseudo_count, low=0.0)
    counts = [np.asarray(each, dtype=np.float64) for each in (generated, reference)]
    if counts[0].shape != counts[1].shape or counts[0].ndim != 1:
        raise DataError(
            f"histograms must have one shape (k,), got {counts[0].shape} and {counts[1].shape}; "
            "fill both with the same bins"
        )
    if any((each < 0).any() or not 0 < each.sum() < np.inf for each in counts):
        raise DataError("histograms must hold events and no negative counts; check how they were filled")
    p, q = ((each + pseudo_count) / (each + pseudo_count).sum() for each in counts)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        chi2 = np.where(p == q, 0.0, np.square(p - q) / q).sum()
    return BinnedDivergences(
        kl=_relative_entropy(q, p),
        jensen_shannon=(_relative_entropy(q, middle) + _relative_entropy(p, middle)) / 2,
        hellinger=float(np.sqrt(np.square(np.sqrt(p) - np.sqrt(q)).sum() / 2)),
        chi2=float(chi2),
    )


def compare_features(
    generated: Events,
    reference: Events,
    *,
    seed: int,
    names: Sequence[str] | None = None,
    weights: Events | None = None,
    spare: Events | None = None,
    n_bins: int = 50,
    n_splits: int = 200,
    n_bootstrap: int = 100,
) -> FeatureDivergences:
    """Divergences of each feature, with bootstrap errors and their baseline.

    The baseline draws two samples, of as many events as the generated (effective ones if weighted) and the
    reference sample, from the pool of ``reference`` and ``spare``: disjoint ones if the pool has enough
    events, else with replacement.  There, too, the second sample of each draw alone sets the bins.
    Weighted events are taken for as many as their effective number, also where weights depend on a feature.

    Args:
        generated: events, ``(n, d)``.
        reference: events, ``(m, d)``, on which the generator was not trained.
        seed: of bootstraps and baseline.
        names: of the features.
        weights: of the generated events, ``(n,)``.
        spare: further events of the reference simulation for the baseline, ``(l, d)``, for instance those of
            the training.
        n_bins: bins of each feature.
        n_splits: pairs of samples in the baseline.
        n_bootstrap: bootstraps of both samples.

    Raises:
        DataError: if the samples cannot be compared; the message names the feature.
        ParameterError: if numbers are too small or names do not fit.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> x, y = rng.normal(size=(2, 1000, 1))
        >>> result = compare_features(x + 0.5, y, seed=2, n_bins=20, names=["mass"])
        >>> row = result.table().loc["mass", "kl"]  # the shift makes it 0.5**2 / 2
        >>> bool(0.1 < row["value"] < 0.2), bool(row["ratio"] > 5), float(row["p_value"]) < 0.01
        (True, True, True)
    """
    check_count("n_splits", n_splits, low=1)
    check_count("n_bootstrap", n_bootstrap, low=2)
    least = _LEAST_PER_BIN * check_count("n_bins", n_bins, low=2)
    remedy = f"each of {n_bins} bins should hold {_LEAST_PER_BIN}, so pass more events or a smaller n_bins"
    pair = check_pair(generated, reference, names=names, weights=weights, least=least, remedy=remedy)
    pool = pair.reference
    if spare is not None:
        pool = np.concatenate((pool, check_sample("spare", spare, pair.names)))
    value, error, filled = _observed(pair, n_bins, n_bootstrap, seed)
    draws = np.stack([_baseline(column, pair, n_bins, n_splits, seed) for column in pool.T], axis=1)
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    return FeatureDivergences(
        names=pair.names,
        value=value,
        error=error,
        baseline=draws.mean(axis=0),
        baseline_low=low,
        baseline_high=high,
        p_value=tail_share(draws, value),
        n_bins=filled,
        disjoint=_is_disjoint(len(pool), pair),
    )


def _relative_entropy(p: FloatArray, q: FloatArray) -> float:
    filled = p > 0
    with np.errstate(divide="ignore"):
        terms = p[filled] * np.log(p[filled] / q[filled])
    return float(terms.sum())


def _divergences(
    pool: PooledFeature, both: Sequence[FloatArray], bins: NDArray[np.intp], sizes: tuple[int, int]
) -> FloatArray:
    """All measures between two distributions of a pool, generated and reference, shape ``(5,)``."""
    shares = (np.diff(each[bins], prepend=0.0, append=1.0) for each in both)
    counts = (size * share for size, share in zip(sizes, shares, strict=True))
    return np.array([*binned_divergences(*counts), pool.area(both[0] - both[1])])


def _observed(
    pair: SamplePair, n_bins: int, n_bootstrap: int, seed: int
) -> tuple[FloatArray, FloatArray, tuple[int, ...]]:
    """Divergences of the samples, their bootstrap errors, each ``(d, 5)``, and the bins of each feature."""
    n, m = len(pair.generated), len(pair.reference)
    sizes = pair.n_effective, m
    weights = np.concatenate((pair.weights, np.zeros(m))), np.concatenate((np.zeros(n), np.ones(m)))
    values, errors, filled = [], [], []
    for column in np.concatenate((pair.generated, pair.reference)).T:
        generator = check_seed(seed, 0)  # all features see the same bootstraps
        pool = PooledFeature(column)
        both = [pool.distribution(each) for each in weights]
        bins = pool.equal_bins(both[1], n_bins)
        replicas = []
        for _ in range(n_bootstrap):
            counts = np.concatenate([resampled_counts(size, size, generator) for size in (n, m)])
            again = [pool.distribution(each * counts) for each in weights]
            replicas.append(_divergences(pool, again, bins, sizes))
        values.append(_divergences(pool, both, bins, sizes))
        errors.append(np.std(replicas, axis=0, ddof=1))
        filled.append(len(bins) + 1)
    return np.stack(values), np.stack(errors), tuple(filled)


def _is_disjoint(n_pool: int, pair: SamplePair) -> bool:
    return pair.n_effective + len(pair.reference) <= n_pool


def _baseline(values: FloatArray, pair: SamplePair, n_bins: int, n_splits: int, seed: int) -> FloatArray:
    """Divergences between pairs of samples of pooled events, shape ``(n_splits, 5)``."""
    n_pool, sizes = len(values), (pair.n_effective, len(pair.reference))
    pool, generator = PooledFeature(values), check_seed(seed, 1)
    rows = []
    for _ in range(n_splits):
        if _is_disjoint(n_pool, pair):
            place = generator.permutation(n_pool)
            both = [pool.distribution(place < sizes[0]), pool.distribution(place >= n_pool - sizes[1])]
        else:
            both = [pool.distribution(resampled_counts(n_pool, size, generator)) for size in sizes]
        rows.append(_divergences(pool, both, pool.equal_bins(both[1], n_bins), sizes))
    return np.stack(rows)
