"""A toy generative model that can be trained thousands of times: a normal distribution fitted to events.

The true background is a standard normal distribution, the selection keeps the upper part of it, and the
signal is a narrow peak there.  Everything about templates is known exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from sbilib.studies.amplified_templates import BinnedSample, Binning

Array = NDArray[np.float64]
BINNING = Binning("x", tuple(np.linspace(0.5, 2.5, 9)))
_MANY = 1e9


def parts(mean: ArrayLike = 0.0, width: ArrayLike = 1.0) -> Array:
    """Exact parts of all events in the bins, ``(*batch, n_bins)``."""
    mean, width = np.asarray(mean)[..., None], np.asarray(width)[..., None]
    return np.diff(norm.cdf((np.asarray(BINNING.edges) - mean) / width), axis=-1)


def exact(fractions: Array, name: str, n_events: float = _MANY) -> BinnedSample:
    """The histogram expected of many events."""
    counts = fractions * n_events
    return BinnedSample(BINNING, counts, counts, np.full(fractions.shape[:-1], n_events), name)


def drawn(fractions: Array, n_events: int, random: np.random.Generator, name: str = "drawn") -> BinnedSample:
    """Histograms of simulated events, one for each template."""
    rest = 1 - fractions.sum(-1, keepdims=True)
    counts = random.multinomial(n_events, np.concatenate([fractions, rest], axis=-1))[..., :-1]
    return BinnedSample(BINNING, counts, counts, np.full(fractions.shape[:-1], float(n_events)), name)


def fitted(events: Array) -> tuple[Array, Array]:
    """The best normal distribution: mean and width along the last axis."""
    return events.mean(-1), events.std(-1)


def trainings(
    n_trainings: int, n_train: int, n_models: int, random: np.random.Generator
) -> tuple[Array, Array]:
    """Templates ``(n_trainings, n_bins)`` and those of bootstrapped models ``(n_trainings, K, n_bins)``."""
    nominal, replicas = [], []
    for _ in range(n_trainings):
        events = random.normal(size=n_train)
        nominal.append(parts(*fitted(events)))
        replicas.append(parts(*fitted(events[random.integers(n_train, size=(n_models, n_train))])))
    return np.array(nominal), np.array(replicas)


SIGNAL = exact(parts(1.8, 0.2), "signal")
TRUTH = exact(parts(), "truth")
