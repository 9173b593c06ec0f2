r"""Do the tails of each feature agree, quantile by quantile?

The share of generated events beyond the k-th smallest of m reference events is compared with k/m.  If both
samples have one density, whatever it is, the chance to lie below that event is itself distributed as
:math:`\mathrm{Beta}(k, m + 1 - k)`, and so the number among n generated events as the beta-binomial with
these parameters.  P-values of unweighted samples are therefore exact at any sample size.  Upper tails count
from the other end.

The error of a quantile follows from that of the share :math:`\hat F` below it,

.. math:: \sigma_F^2 = \frac{\sum_i w_i^2 (1[x_i \le x_p] - p)^2}{(\sum_i w_i)^2}
   \;\left(= \frac{p(1-p)}{n} \text{ without weights}\right),

as half the distance between the quantiles at :math:`p - \sigma_F` and :math:`p + \sigma_F`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import betabinom, norm

from sbilib.diagnostics._checks import Events, FloatArray, check_pair
from sbilib.errors import ParameterError, check_range

__all__ = ["TAIL_LEVELS", "TailComparison", "compare_tails"]

TAIL_LEVELS = (0.001, 0.002, 0.005, 0.01, 0.99, 0.995, 0.998, 0.999)
"""Quantile levels of :func:`compare_tails`: 0.1% to 1% and 99% to 99.9%."""
_LEAST_BEYOND = 10
_ROUNDING = 1e-6


@dataclass(frozen=True)
class TailComparison:
    """Tails of d features at l levels; each array has shape ``(d, l)``."""

    names: tuple[str, ...]
    """Of the features."""
    levels: tuple[float, ...]
    """Of the quantiles; those above one half belong to upper tails."""
    generated: FloatArray
    """Quantiles of the generated sample, in units of the feature."""
    reference: FloatArray
    """Quantiles of the reference sample, each the value of one of its events."""
    generated_error: FloatArray
    """Errors of ``generated``."""
    reference_error: FloatArray
    """Errors of ``reference``."""
    fraction: FloatArray
    """Share of generated events at or beyond the quantile of the reference."""
    expected: FloatArray
    """Share of reference events at or beyond it: the level, or one minus it, but for repeated values."""
    fraction_error: FloatArray
    """Error of ``fraction - expected`` from both samples."""
    p_value: FloatArray
    """Two-sided chance of a fraction at least as far off if both samples have one density."""

    @property
    def difference(self) -> FloatArray:
        """Quantiles of generated minus reference, in units of the feature."""
        return self.generated - self.reference

    @property
    def error(self) -> FloatArray:
        """Errors of ``difference``."""
        return np.hypot(self.generated_error, self.reference_error)

    def table(self) -> pd.DataFrame:
        """A row per feature and level, with all of the above."""
        index = pd.MultiIndex.from_product([self.names, self.levels], names=["feature", "level"])
        fields = ["generated", "reference", "difference", "error"]
        fields += ["fraction", "expected", "fraction_error", "p_value"]
        return pd.DataFrame({name: getattr(self, name).ravel() for name in fields}, index=index)


def compare_tails(
    generated: Events,
    reference: Events,
    *,
    names: Sequence[str] | None = None,
    weights: Events | None = None,
    levels: Sequence[float] = TAIL_LEVELS,
) -> TailComparison:
    """Compare extreme quantiles and the shares of events beyond them.

    Nothing here is random.  P-values of weighted samples are those of a normal fraction.

    Args:
        generated: events, ``(n, d)``.
        reference: events, ``(m, d)``.
        names: of the features.
        weights: of the generated events, ``(n,)``.
        levels: of the quantiles, between zero and one, without one half.

    Raises:
        DataError: if the samples cannot be compared, or fewer than 10 events are expected beyond a level.
        ParameterError: if levels are out of range or names do not fit.

    Example:
        >>> x = np.linspace(0, 1, 2001)[:, None]
        >>> result = compare_tails(2 * x, x, levels=[0.99])
        >>> round(float(result.reference[0, 0]), 3), round(float(result.fraction[0, 0]), 2)
        (0.99, 0.51)
    """
    if not levels:
        raise ParameterError("levels must name at least one quantile, got none; pass for instance [0.01]")
    for level in levels:
        check_range("level", level, low=0.0, high=1.0, include_low=False, include_high=False)
        if level == 0.5:
            raise ParameterError("level 0.5 is in no tail; pass one below or above")
    # The small allowance keeps rounding of 1 - 0.99 from asking for one event more.
    least = math.ceil(_LEAST_BEYOND / min(min(level, 1 - level) for level in levels) - 1e-6)
    remedy = f"a level needs {_LEAST_BEYOND} events beyond it, so pass more events or less extreme levels"
    pair = check_pair(generated, reference, names=names, weights=weights, least=least, remedy=remedy)
    rows = [
        [_tail(*columns, pair.weights, pair.weighted, level) for level in levels]
        for columns in zip(pair.generated.T, pair.reference.T, strict=True)
    ]
    arrays = np.moveaxis(np.array(rows, dtype=np.float64), 2, 0)
    return TailComparison(pair.names, tuple(levels), **dict(zip(_Tail._fields, arrays, strict=True)))


class _Tail(NamedTuple):
    """One feature at one level, as in :class:`TailComparison`."""

    generated: float
    reference: float
    generated_error: float
    reference_error: float
    fraction: float
    expected: float
    fraction_error: float
    p_value: float


def _tail(
    generated: FloatArray, reference: FloatArray, weights: FloatArray, weighted: bool, level: float
) -> _Tail:
    if level > 0.5:
        # The mirror image has a lower tail.
        tail = _tail(-generated, -reference, weights, weighted, 1 - level)
        return tail._replace(generated=-tail.generated, reference=-tail.reference)
    ours, our_error = _quantile(generated, weights, level)
    theirs, their_error = _quantile(reference, np.ones(len(reference)), level)
    beyond, n_beyond = generated <= theirs, int((reference <= theirs).sum())
    expected = n_beyond / len(reference)
    fraction = float(weights[beyond].sum() / weights.sum())
    # Under the hypothesis of one density the deviation of either share is taken about the expected one.
    own = np.square(weights * (beyond - expected)).sum() / weights.sum() ** 2
    error = math.sqrt(own + expected * (1 - expected) / len(reference))
    if weighted:
        p_value = 2 * norm.sf(abs(fraction - expected) / error)
    else:
        counts = np.arange(int(beyond.sum()) + 1)
        chances = betabinom.pmf(counts, len(generated), n_beyond, len(reference) + 1 - n_beyond)
        above = 1 - chances[:-1].sum()
        if above < _ROUNDING:  # a difference of numbers near one; the sum of what is left is exact
            rest = np.arange(counts[-1], len(generated) + 1)
            above = betabinom.pmf(rest, len(generated), n_beyond, len(reference) + 1 - n_beyond).sum()
        p_value = min(1.0, 2 * min(chances.sum(), above))
    return _Tail(ours, theirs, our_error, their_error, fraction, expected, error, float(p_value))


def _quantile(values: FloatArray, weights: FloatArray, level: float) -> tuple[float, float]:
    """Quantile and its error."""
    order = np.argsort(values, kind="stable")
    ordered, shares = values[order], weights[order] / weights.sum()
    distribution = np.cumsum(shares)

    def quantile(share: float) -> float:
        place = int(np.searchsorted(distribution, share - 1e-12))
        return float(ordered[min(max(place, 0), len(ordered) - 1)])

    middle = quantile(level)
    spread = math.sqrt(float(np.square(shares * ((ordered <= middle) - level)).sum()))
    return middle, (quantile(level + spread) - quantile(level - spread)) / 2
