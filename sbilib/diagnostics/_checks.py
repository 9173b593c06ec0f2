"""What the comparisons of two samples share: checks at the boundary, and resampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sbilib.errors import DataError, ParameterError, check_count

__all__ = [
    "Events",
    "FloatArray",
    "SamplePair",
    "check_pair",
    "check_sample",
    "check_seed",
    "effective_weights",
    "resampled_counts",
    "tail_share",
]

Events = ArrayLike | Tensor
"""Events as a tensor, an array, or a table of numbers."""
FloatArray = NDArray[np.float64]
"""Array of float64."""


class SamplePair(NamedTuple):
    """Two samples of the same features that passed all checks."""

    generated: FloatArray
    """Shape ``(n, d)``."""
    reference: FloatArray
    """Shape ``(m, d)``."""
    weights: FloatArray
    """Of the generated events, ``(n,)``; they sum to the effective number of events."""
    weighted: bool
    """Whether weights were given."""
    names: tuple[str, ...]
    """Of the d features."""

    @property
    def n_effective(self) -> int:
        r"""Effective number of generated events, :math:`(\sum w)^2 / \sum w^2`, rounded."""
        return round(float(self.weights.sum()))


def check_pair(
    generated: Events,
    reference: Events,
    *,
    names: Sequence[str] | None = None,
    weights: Events | None = None,
    least: int = 2,
    remedy: str = "pass more events",
) -> SamplePair:
    """Both samples in float64, if they can be compared.

    Args:
        generated: events, ``(n, d)``.
        reference: events, ``(m, d)``.
        names: of the features, for messages and tables; None numbers them.
        weights: of the generated events, ``(n,)``, not negative; None weighs all alike.
        least: events (effective ones if weighted) that each sample needs.
        remedy: what to do if there are fewer.

    Raises:
        DataError: if shapes differ, values are not finite, a feature is constant, there are too few events,
            or weights are negative, not finite or all zero.
        ParameterError: if the names do not fit the features or are not unique.
    """
    second = _matrix("reference", reference)
    n_features = second.shape[1]
    labels = tuple(names) if names is not None else tuple(f"feature {i}" for i in range(n_features))
    if len(labels) != n_features or len(set(labels)) != n_features:
        raise ParameterError(
            f"names must be {n_features} different ones, got {list(labels)}; name each feature once"
        )
    both = check_sample("generated", generated, labels), check_sample("reference", second, labels)
    scaled = effective_weights(weights, len(both[0]))
    for sample, size in (("generated", float(scaled.sum())), ("reference", float(len(both[1])))):
        if size < least - 1e-9:
            effective = "effective " if sample == "generated" and weights is not None else ""
            raise DataError(
                f"at least {least} {effective}{sample} events are needed, got {size:.6g}; {remedy}"
            )
    return SamplePair(*both, scaled, weights is not None, labels)


def check_sample(sample: str, events: Events, names: tuple[str, ...]) -> FloatArray:
    """Events in float64, if all are finite and no feature is constant.

    Args:
        sample: what the events are, for messages.
        events: shape ``(n, d)``.
        names: of the d features.

    Raises:
        DataError: if not; the message names the feature.
    """
    values = _matrix(sample, events)
    if values.shape[1] != len(names):
        raise DataError(
            f"{sample} events have {values.shape[1]} features, but reference events have {len(names)} "
            f"({', '.join(names)}); select the same features of both"
        )
    _check_features(sample, values, names)
    return values


def check_seed(seed: int, *key: int) -> np.random.Generator:
    """A generator of its own for each purpose ``key`` of a seed.

    Raises:
        ParameterError: if the seed is not a natural number.
    """
    return np.random.default_rng([check_count("seed", seed), *key])


def resampled_counts(n_events: int, size: int, generator: np.random.Generator) -> FloatArray:
    """How often each of ``n_events`` is drawn in ``size`` draws with replacement, shape ``(n_events,)``."""
    return np.bincount(generator.integers(n_events, size=size), minlength=n_events).astype(np.float64)


def tail_share(null: FloatArray, value: FloatArray | float) -> FloatArray:
    """P-value: share of ``null`` (its first axis) at or above ``value``, which itself counts as one draw."""
    above: FloatArray = (1.0 + (null >= value).sum(axis=0)) / (1.0 + len(null))
    return above


def _matrix(sample: str, events: Events) -> FloatArray:
    values = np.asarray(events.detach().cpu() if isinstance(events, Tensor) else events, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise DataError(
            f"{sample} events must have shape (n_events, n_features), got {values.shape}; "
            "a single feature is a column, values[:, None]"
        )
    if len(values) == 0:
        raise DataError(f"there are no {sample} events; check the selection that came before")
    return values


def _check_features(sample: str, events: FloatArray, names: tuple[str, ...]) -> None:
    n_bad = (~np.isfinite(events)).sum(axis=0)
    if n_bad.any():
        bad = ", ".join(f"{name!r} ({count})" for name, count in zip(names, n_bad, strict=True) if count)
        raise DataError(
            f"{sample} events have NaN or infinite values in {bad} of {len(events)} events; "
            "remove or repair these events first"
        )
    constant = [name for name, spread in zip(names, np.ptp(events, axis=0), strict=True) if spread == 0]
    if constant and len(events) > 1:
        raise DataError(
            f"{sample} events all have the same value of {', '.join(map(repr, constant))}; "
            "leave such a feature out, or see why the sample has collapsed"
        )


def effective_weights(weights: Events | None, n_events: int) -> FloatArray:
    """Weights scaled to sum to the effective number of events, shape ``(n_events,)``.

    Raises:
        DataError: if they do not fit the events, are negative, not finite, or all zero.
    """
    if weights is None:
        return np.ones(n_events)
    values = np.asarray(weights.detach().cpu() if isinstance(weights, Tensor) else weights, dtype=np.float64)
    if values.shape != (n_events,):
        raise DataError(f"weights must have shape ({n_events},), got {values.shape}; give one an event")
    bad = ~(values >= 0) | np.isinf(values)
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {n_events} weights are negative or not finite (first: {values[bad][0]:g}); "
            "clip them, or resample the events so that their weights are positive"
        )
    if not values.any():
        raise DataError("all weights are zero; check how they were made")
    # The largest is divided out first, so that no square overflows or vanishes.
    values = values / values.max()
    return np.asarray(values * (values.sum() / np.square(values).sum()), dtype=np.float64)
