r"""Are the features of two samples correlated alike?

With weights w that sum to one, Pearson's correlation of features a and b is

.. math:: \rho_{ab} = \frac{\sum_i w_i (a_i - \bar a)(b_i - \bar b)}
   {\sqrt{\sum_i w_i (a_i - \bar a)^2 \sum_i w_i (b_i - \bar b)^2}}

and Spearman's is the same of their ranks, here the weighted share of events below an event plus half of that
at it.  Errors are bootstrap standard deviations, which need no assumption on the densities.  The largest of
many differences is large by chance alone, so it is compared with the largest of the same number of
:math:`|\Delta^*_{ab} - \Delta_{ab}|`, where :math:`\Delta^*` are the differences of a bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sbilib.diagnostics._checks import (
    Events,
    FloatArray,
    check_pair,
    check_seed,
    resampled_counts,
    tail_share,
)
from sbilib.errors import DataError, check_choice, check_count

__all__ = ["CorrelationComparison", "compare_correlations", "correlation_matrix"]

_KINDS = ("pearson", "spearman")
_LEAST_EVENTS = 20


@dataclass(frozen=True)
class CorrelationComparison:
    """Correlation matrices of two samples; each matrix has shape ``(d, d)``."""

    kind: str
    """``"pearson"`` or ``"spearman"``."""
    names: tuple[str, ...]
    """Of the d features."""
    generated: FloatArray
    """Correlations of the generated sample."""
    reference: FloatArray
    """Correlations of the reference sample."""
    generated_error: FloatArray
    """Bootstrap errors of ``generated``."""
    reference_error: FloatArray
    """Bootstrap errors of ``reference``."""
    largest: float
    """Largest modulus of a difference."""
    largest_pair: tuple[str, str]
    """The features it belongs to."""
    largest_error: float
    """Bootstrap error of that difference."""
    largest_by_chance: float
    """95% quantile of the largest difference if both samples have one density."""
    p_value: float
    """Chance of a largest difference at least as large if both samples have one density."""

    @property
    def difference(self) -> FloatArray:
        """Generated minus reference."""
        return self.generated - self.reference

    @property
    def error(self) -> FloatArray:
        """Bootstrap errors of ``difference``."""
        return np.hypot(self.generated_error, self.reference_error)

    def table(self) -> pd.DataFrame:
        """A row per pair of features, the largest difference first."""
        rows, columns = np.triu_indices(len(self.names), k=1)
        labels = [[self.names[i] for i in place] for place in (rows, columns)]
        fields = ("generated", "reference", "difference", "error")
        data = {name: getattr(self, name)[rows, columns] for name in fields}
        table = pd.DataFrame(data, index=pd.MultiIndex.from_arrays(labels, names=["first", "second"]))
        return table.sort_values("difference", key=np.abs, ascending=False)


class _Ranks:
    """Ranks of each feature under any weights of its events."""

    def __init__(self, events: FloatArray) -> None:
        self._columns = []
        for column in events.T:
            order = np.argsort(column, kind="stable")
            starts = np.flatnonzero(np.diff(column[order], prepend=-np.inf))
            run = np.searchsorted(starts, np.arange(len(column)), side="right") - 1
            self._columns.append((order, starts, run))

    def __call__(self, weights: FloatArray) -> FloatArray:
        ranks = np.empty((len(weights), len(self._columns)))
        for index, (order, starts, run) in enumerate(self._columns):
            content = np.add.reduceat(weights[order], starts)
            ranks[order, index] = (np.cumsum(content) - content / 2)[run]
        return np.asarray(ranks / weights.sum(), dtype=np.float64)


def correlation_matrix(events: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Pearson's correlations of the columns of ``events``.

    Args:
        events: shape ``(n, d)``.
        weights: shape ``(n,)``, not negative; None weighs all alike.

    Returns:
        Shape ``(d, d)``; zero beside the diagonal for a column that does not vary.

    Example:
        >>> correlation_matrix(np.array([[0.0, 1.0], [1.0, 0.0], [9.0, 9.0]]), np.array([1.0, 1.0, 0.0]))
        array([[ 1., -1.],
               [-1.,  1.]])
    """
    shares = np.full(len(events), 1 / len(events)) if weights is None else weights / weights.sum()
    centered = events - shares @ events
    covariance = (centered * shares[:, None]).T @ centered
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    result = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
    np.fill_diagonal(result, 1.0)
    return np.asarray(np.clip(result, -1.0, 1.0), dtype=np.float64)


def compare_correlations(
    generated: Events,
    reference: Events,
    *,
    seed: int,
    kind: str = "pearson",
    names: Sequence[str] | None = None,
    weights: Events | None = None,
    n_bootstrap: int = 200,
) -> CorrelationComparison:
    """Compare the correlations of all pairs of features.

    Args:
        generated: events, ``(n, d)`` with at least two features.
        reference: events, ``(m, d)``.
        seed: of the bootstrap.
        kind: ``"pearson"``, or ``"spearman"`` for ranks, which far tails do not dominate.
        names: of the features.
        weights: of the generated events, ``(n,)``.
        n_bootstrap: bootstraps of both samples.

    Raises:
        DataError: if the samples cannot be compared; the message names the feature.
        ParameterError: if the kind is unknown, there are too few bootstraps, or names do not fit.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> x = rng.normal(size=(1000, 2))
        >>> result = compare_correlations(x, x + x[:, ::-1], seed=2)  # correlation 0 against 1
        >>> round(result.largest, 1), result.p_value < 0.01
        (1.0, True)
    """
    check_choice("kind", kind, _KINDS)
    check_count("n_bootstrap", n_bootstrap, low=2)
    pair = check_pair(generated, reference, names=names, weights=weights, least=_LEAST_EVENTS)
    if len(pair.names) < 2:
        raise DataError(f"correlations need two features, got only {pair.names[0]!r}; pass more features")
    values, replicas = zip(
        _bootstrap(pair.generated, pair.weights, kind, n_bootstrap, check_seed(seed, 0)),
        _bootstrap(pair.reference, np.ones(len(pair.reference)), kind, n_bootstrap, check_seed(seed, 1)),
        strict=True,
    )
    errors = [np.std(each, axis=0, ddof=1) for each in replicas]
    difference = values[0] - values[1]
    by_chance = np.abs(replicas[0] - replicas[1] - difference).max(axis=(1, 2))
    row, column = np.unravel_index(np.abs(difference).argmax(), difference.shape)
    largest = float(np.abs(difference).max())
    return CorrelationComparison(
        kind=kind,
        names=pair.names,
        generated=values[0],
        reference=values[1],
        generated_error=errors[0],
        reference_error=errors[1],
        largest=largest,
        largest_pair=(pair.names[row], pair.names[column]),
        largest_error=float(np.hypot(errors[0], errors[1])[row, column]),
        largest_by_chance=float(np.quantile(by_chance, 0.95)),
        p_value=float(tail_share(by_chance, largest)),
    )


def _bootstrap(
    events: FloatArray, weights: FloatArray, kind: str, n_bootstrap: int, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Correlations ``(d, d)`` of a sample and of its bootstraps ``(n_bootstrap, d, d)``."""
    ranks = _Ranks(events) if kind == "spearman" else None

    def correlations(each: FloatArray) -> FloatArray:
        return correlation_matrix(events if ranks is None else ranks(each), each)

    n_events = len(events)
    draws = (weights * resampled_counts(n_events, n_events, generator) for _ in range(n_bootstrap))
    return correlations(weights), np.stack([correlations(each) for each in draws])
