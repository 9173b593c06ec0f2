r"""Sliced Wasserstein distance: are two samples alike in every direction?

Features are standardized with mean and standard deviation of the reference.  Events are projected on
directions :math:`\theta` drawn uniformly on the unit sphere, and

.. math:: \mathrm{SW}_1 = \mathrm{E}_\theta \int |F_\theta(t) - G_\theta(t)|\, dt

averages the Wasserstein distance of the projections, in standard deviations (Bonneel et al., J. Math. Imaging
Vis. 51 (2015) 22).  A shift by :math:`\delta` in d dimensions gives
:math:`|\delta|\, \Gamma(d/2) / (\sqrt\pi\, \Gamma((d + 1)/2))`.

Two samples of one density have a distance too.  Its null distribution comes from permuting which events are
called generated.  Weighted events cannot trade places with others, so with weights it comes from a bootstrap
of both samples about the distributions found, :math:`|(F^* - G^*) - (F - G)|`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbilib.diagnostics._checks import (
    Events,
    FloatArray,
    SamplePair,
    check_pair,
    check_seed,
    resampled_counts,
    tail_share,
)
from sbilib.diagnostics.divergences import PooledFeature
from sbilib.errors import check_count

__all__ = ["SlicedWasserstein", "random_directions", "sliced_wasserstein"]

_LEAST_EVENTS = 20


@dataclass(frozen=True)
class SlicedWasserstein:
    """Sliced Wasserstein distance and what equal samples show."""

    distance: float
    """In standard deviations of the reference."""
    error: float
    """Its standard deviation over bootstraps of both samples."""
    null: FloatArray
    """Distances if both samples had one density, ``(n_permutations,)``."""
    p_value: float
    """Share of ``null`` at or above the distance."""
    directions: FloatArray
    """Directions in standardized features, ``(n_directions, d)``."""
    by_direction: FloatArray
    """Wasserstein distance along each, ``(n_directions,)``: the worst ones tell where samples differ."""

    @property
    def null_band(self) -> tuple[float, float]:
        """2.5% and 97.5% quantiles of ``null``."""
        low, high = np.quantile(self.null, (0.025, 0.975))
        return float(low), float(high)


def random_directions(n_directions: int, n_features: int, *, seed: int) -> FloatArray:
    """Unit vectors uniform on the sphere, shape ``(n_directions, n_features)``.

    Example:
        >>> np.linalg.norm(random_directions(3, 18, seed=1), axis=1).round(12)
        array([1., 1., 1.])
    """
    check_count("n_directions", n_directions, low=1)
    normal = check_seed(seed, 0).normal(size=(n_directions, check_count("n_features", n_features, low=1)))
    return np.asarray(normal / np.linalg.norm(normal, axis=1, keepdims=True), dtype=np.float64)


def sliced_wasserstein(
    generated: Events,
    reference: Events,
    *,
    seed: int,
    names: Sequence[str] | None = None,
    weights: Events | None = None,
    n_directions: int = 50,
    n_permutations: int = 200,
    n_bootstrap: int = 50,
) -> SlicedWasserstein:
    """Sliced Wasserstein distance with its error, null distribution and p-value.

    The time is proportional to events, directions, and permutations plus bootstraps.

    Args:
        generated: events, ``(n, d)``.
        reference: events, ``(m, d)``.
        seed: of directions, permutations and bootstraps; the same seed gives the same directions.
        names: of the features, for messages.
        weights: of the generated events, ``(n,)``.
        n_directions: directions to average over.
        n_permutations: draws of the null distribution.
        n_bootstrap: bootstraps of both samples, for the error.

    Raises:
        DataError: if the samples cannot be compared; the message names the feature.
        ParameterError: if numbers are too small or names do not fit.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> x, y = rng.normal(size=(2, 1000, 3))
        >>> result = sliced_wasserstein(x + [0.0, 0.0, 1.0], y, seed=2, n_permutations=99)
        >>> round(result.distance, 1), result.p_value  # a shift by one in three dimensions: 1/2
        (0.5, 0.01)
    """
    check_count("n_permutations", n_permutations, low=1)
    check_count("n_bootstrap", n_bootstrap, low=2)
    pair = check_pair(generated, reference, names=names, weights=weights, least=_LEAST_EVENTS)
    mean, scale = pair.reference.mean(axis=0), pair.reference.std(axis=0)
    standardized = (np.concatenate((pair.generated, pair.reference)) - mean) / scale
    directions = random_directions(n_directions, standardized.shape[1], seed=seed)
    by_direction = np.empty(n_directions)
    null, replicas = np.zeros(n_permutations), np.zeros(n_bootstrap)
    for index, direction in enumerate(directions):
        line = PooledFeature(standardized @ direction)
        observed = _difference(line, _weights(pair))
        by_direction[index] = line.area(observed)
        # Every direction sees the same permutations and bootstraps.
        null += _null(line, observed, pair, n_permutations, check_seed(seed, 1))
        replicas += [line.area(each) for each in _bootstraps(line, pair, n_bootstrap, check_seed(seed, 2))]
    null, distance = null / n_directions, float(by_direction.mean())
    return SlicedWasserstein(
        distance=distance,
        error=float(np.std(replicas / n_directions, ddof=1)),
        null=null,
        p_value=float(tail_share(null, distance)),
        directions=directions,
        by_direction=by_direction,
    )


def _weights(pair: SamplePair) -> list[FloatArray]:
    """Weights of all events as generated and as reference ones, each ``(n + m,)``."""
    n, m = len(pair.generated), len(pair.reference)
    return [np.concatenate((pair.weights, np.zeros(m))), np.concatenate((np.zeros(n), np.ones(m)))]


def _difference(line: PooledFeature, weights: Sequence[FloatArray | NDArray[np.bool_]]) -> FloatArray:
    return line.distribution(weights[0]) - line.distribution(weights[1])


def _bootstraps(
    line: PooledFeature, pair: SamplePair, n_bootstrap: int, generator: np.random.Generator
) -> Iterator[FloatArray]:
    """Differences of distribution functions of bootstraps of both samples."""
    weights, sizes = _weights(pair), (len(pair.generated), len(pair.reference))
    for _ in range(n_bootstrap):
        counts = np.concatenate([resampled_counts(size, size, generator) for size in sizes])
        yield _difference(line, [each * counts for each in weights])


def _null(
    line: PooledFeature, observed: FloatArray, pair: SamplePair, n_draws: int, generator: np.random.Generator
) -> FloatArray:
    """Distances along one line under the hypothesis of one density, ``(n_draws,)``."""
    if pair.weighted:
        return np.array([line.area(each - observed) for each in _bootstraps(line, pair, n_draws, generator)])
    flags = np.arange(len(observed)) < len(pair.generated)
    areas = []
    for _ in range(n_draws):
        chosen = generator.permutation(flags)
        areas.append(line.area(_difference(line, [chosen, ~chosen])))
    return np.array(areas)
