r"""How well the toy can be known from a finite training set, whatever learns it.

A model whose score :math:`\hat S = \partial_\theta \log \hat p(x \mid \theta)` differs from the exact one by
:math:`\Delta S` moves the best fit of a data set of :math:`n` events by, in standard deviations,

.. math:: \delta_\theta = \frac{1}{\sqrt{n I_\theta}} \sum_{i=1}^n \Delta S_\theta(x_i)
          \;\sim\; \mathcal N\Bigl(\sqrt{n/I_\theta}\; E[\Delta S_\theta],\;
                                   \mathrm{Var}[\Delta S_\theta] / I_\theta\Bigr)

with the Fisher information :math:`I_\theta` of an event (first order in the error of the model; the toy's
parameters :math:`\mu` and :math:`z` are uncorrelated by its mirror symmetry).  Two normal likelihoods of one
width at a distance :math:`|\delta|` overlap by :math:`2\Phi(-|\delta|/2)`.

The mean displacement has a limit.  A training set of :math:`M` events, half of each component, stands for
densities with an error :math:`\Delta p_c` that averages any function :math:`a` to
:math:`E_{\Delta p_c}[a] \sim \mathcal N(0, \mathrm{Var}_c[a]/(M/2))`.  To first order
:math:`E[\Delta S] = -\sum_c f_c E_{\Delta p_c}[S]` with the fractions :math:`f_c` of the mixture.  This is
the semiparametric efficiency bound (van der Vaart, Asymptotic Statistics, chapter 25): no estimate that knows
the frame and nothing else does better for all densities.  An invariance replaces the score by its mean over
the group, and the exchange makes one sample of both components.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

import pandas as pd
import torch
from torch import Generator, Tensor

from sbilib.errors import check_count
from sbilib.models.framed import FrameDensity, FramedPair, MovedDensity, NormalDensity, Whitening
from sbilib.problems import COMPONENTS, GaussianToy, make_training_set
from sbilib.studies.coverage import seeded_generator
from sbilib.studies.framed import frame_events

__all__ = ["FrameErrors", "fit_normal_pair", "frame_errors", "frame_limit", "simulate_normal_fits"]

_POINTS = 81
_REACH = 5.5
_STEP = 0.02
_QUANTILES = 60


class FrameErrors(NamedTuple):
    """Errors of densities in the frame, at each signal ratio of the test points; tensors ``(n_ratios,)``."""

    ratio_shift: Tensor
    """Mean displacement of the best signal ratio, in standard deviations."""
    ratio_scatter: Tensor
    """Its standard deviation between data sets."""
    nuisance_shift: Tensor
    """Mean displacement of the best nuisance value, in standard deviations."""
    nuisance_scatter: Tensor
    """Its standard deviation between data sets."""
    overlap: Tensor
    """Expected total overlap with the exact likelihood."""


def frame_errors(
    toy: GaussianToy, signal: FrameDensity, background: FrameDensity, *, n_events: int = 1000
) -> FrameErrors:
    """What densities in the frame do to likelihoods of ``n_events`` events, to first order, by integration.

    Args:
        toy: the exact densities.
        signal: density of signal in the frame.
        background: density of background in the frame.
        n_events: events of a data set.

    Raises:
        ParameterError: if ``n_events`` is not positive.

    Example:
        >>> toy = GaussianToy(2.0)
        >>> exact = [
        ...     NormalDensity(Whitening(torch.tensor([x, 0.0]).double(), torch.eye(2).double()))
        ...     for x in (2.0, -2.0)
        ... ]
        >>> bool((frame_errors(toy, *exact).overlap > 0.9999).all())
        True
    """
    check_count("n_events", n_events, low=1)
    plane = _Plane(toy)
    with torch.no_grad():
        tables = [
            [density.log_prob(plane.turned(angle)).double() for density in (signal, background)]
            for angle in (-_STEP, 0.0, _STEP)
        ]
    rows = []
    for ratio in toy.test_signal_ratios:
        exact = plane.scores(ratio)
        fraction = ratio / (1.0 + ratio)
        mixtures = [torch.logaddexp(s + math.log(fraction), b + math.log1p(-fraction)) for s, b in tables]
        s, b = tables[1]
        learned = {
            "mu": (s - mixtures[1]).exp() - (b - mixtures[1]).exp(),
            # A larger nuisance value turns the events further back.
            "z": (mixtures[0] - mixtures[2]) / (2 * _STEP),
        }
        moments = []
        for name in ("mu", "z"):
            difference = learned[name] - exact.scores[name]
            mean, variance = exact.moments(difference)
            information = exact.moments(exact.scores[name])[1]
            moments += [mean * math.sqrt(n_events / information), math.sqrt(variance / information)]
        rows.append((*moments, _expected_overlap(*moments)))
    return FrameErrors(*torch.tensor(rows, dtype=torch.float64).unbind(1))


def frame_limit(toy: GaussianToy, *, n_training: int, symmetries: bool, n_events: int = 1000) -> float:
    """Expected total overlap of the best model that knows the frame and learns the rest from events.

    Only the mean displacement counts here, so a real model, whose errors also scatter, stays below.

    Args:
        toy: the problem.
        n_training: training events, half of them signal.
        symmetries: the mirror and the exchange are known too.
        n_events: events of a data set.

    Returns:
        The mean over the test points and over training sets.

    Raises:
        ParameterError: if a number of events is not positive.

    Example:
        >>> round(frame_limit(GaussianToy(0.5), n_training=100_000, symmetries=True), 3)
        0.982
    """
    check_count("n_training", n_training, low=2)
    check_count("n_events", n_events, low=1)
    plane, overlaps = _Plane(toy), []
    for ratio in toy.test_signal_ratios:
        exact, fraction = plane.scores(ratio), ratio / (1.0 + ratio)
        scatter = []
        for score in exact.scores.values():
            if symmetries:
                even = 0.5 * (score + plane.mirrored(score))
                pooled = fraction * even + (1.0 - fraction) * plane.exchanged(even)
                variance = plane.moments("signal", pooled)[1] / n_training
            else:
                parts = (fraction, 1.0 - fraction)
                variance = sum(
                    part**2 * plane.moments(component, score)[1] / (n_training / 2)
                    for part, component in zip(parts, COMPONENTS, strict=True)
                )
            scatter.append(math.sqrt(n_events * variance / exact.moments(score)[1]))
        overlaps.append(_expected_overlap(0.0, scatter[0], 0.0, scatter[1]))
    return sum(overlaps) / len(overlaps)


def fit_normal_pair(toy: GaussianToy, *, n_events: int, seed: int, symmetries: bool) -> FramedPair:
    """The maximum-likelihood fit of normal densities in the frame, to the training set of `fit_framed_pair`.

    It knows that the densities are normal, which no network does, and fits their means and covariances.

    Args:
        toy: the problem.
        n_events: training events, half of them signal.
        seed: seed of the training set on a CPU, not negative.
        symmetries: use the mirror and the exchange too.

    Example:
        >>> pair = fit_normal_pair(GaussianToy(2.0), n_events=10_000, seed=1, symmetries=True)
        >>> [round(value, 1) for value in pair.signal.whitening.mean.tolist()]
        [2.0, 0.0]
    """
    check_count("n_events", n_events, low=10)
    check_count("seed", seed)
    frame = _draw(toy, n_events, Generator().manual_seed(seed))
    signal, background = _fit_normals(toy, frame, unit=False, mirror=symmetries, exchange=symmetries)
    return FramedPair(signal, background, toy.nuisance_map, n_features=toy.n_features)


def simulate_normal_fits(
    toy: GaussianToy, *, n_training: int, n_repeats: int, seed: int, n_events: int = 1000
) -> pd.DataFrame:
    """Maximum-likelihood fits of normal densities in the frame to simulated training sets.

    They know that the densities are normal, which no network does.

    Args:
        toy: the problem.
        n_training: training events, half of them signal.
        n_repeats: training sets.
        seed: seed of the training sets, not negative.
        n_events: events of a data set.

    Returns:
        A row for each combination of ``fitted`` (``means``, with the covariance known, or ``means and
        covariance``), ``mirror`` and ``exchange`` (known or not), with the expected ``total overlap``,
        averaged over training sets and test points, and its standard ``error``.

    Raises:
        ParameterError: if a number is not positive.

    Example:
        >>> len(simulate_normal_fits(GaussianToy(2.0), n_training=1000, n_repeats=2, seed=1))
        8
    """
    check_count("n_repeats", n_repeats, low=1)
    check_count("n_training", n_training, low=10)
    rows = []
    for repeat in range(n_repeats):
        frame = _draw(toy, n_training, seeded_generator(seed, n_training, repeat))
        for fitted, mirror, exchange in product(
            ("means", "means and covariance"), (False, True), (False, True)
        ):
            pair = _fit_normals(toy, frame, unit=fitted == "means", mirror=mirror, exchange=exchange)
            overlap = float(frame_errors(toy, *pair, n_events=n_events).overlap.mean())
            rows.append({"fitted": fitted, "mirror": mirror, "exchange": exchange, "total overlap": overlap})
    grouped = pd.DataFrame(rows).groupby(["fitted", "mirror", "exchange"])["total overlap"]
    return pd.DataFrame({"total overlap": grouped.mean(), "error": grouped.sem()}).reset_index()


def _draw(toy: GaussianToy, n_training: int, generator: Generator) -> dict[str, Tensor]:
    data = make_training_set(toy, n_training, generator)
    return {name: frame_events(toy, *data.component(name)).double() for name in COMPONENTS}


def _fit_normals(
    toy: GaussianToy, frame: Mapping[str, Tensor], *, unit: bool, mirror: bool, exchange: bool
) -> tuple[NormalDensity, NormalDensity | MovedDensity]:
    """Normal densities of signal and background in the frame with the likelihood of the events maximal."""

    def fit(u: Tensor) -> NormalDensity:
        images = torch.cat((u, *(move(u) for move in toy.invariances if mirror)))
        whitening = Whitening.of_events(images)
        factor = torch.eye(2, dtype=u.dtype) if unit else whitening.factor
        return NormalDensity(Whitening(whitening.mean, factor))

    if exchange:
        signal = fit(torch.cat((frame["signal"], toy.exchange(frame["background"]))))
        return signal, MovedDensity(signal, toy.exchange)
    return fit(frame["signal"]), fit(frame["background"])


def _expected_overlap(
    ratio_shift: float, ratio_scatter: float, nuisance_shift: float, nuisance_scatter: float
) -> float:
    """Mean of 2 Phi(-|delta| / 2) over two independent normal displacements."""
    levels = (torch.arange(_QUANTILES, dtype=torch.float64) + 0.5) / _QUANTILES
    normal = torch.special.ndtri(levels)
    one, other = ratio_shift + ratio_scatter * normal, nuisance_shift + nuisance_scatter * normal
    distance = torch.hypot(one[:, None], other[None, :])
    return float((2 * torch.special.ndtr(-distance / 2)).mean())


class _Exact(NamedTuple):
    """Scores of the exact mixture on the plane, and its probability in each cell."""

    scores: dict[str, Tensor]
    weights: Tensor

    def moments(self, values: Tensor) -> tuple[float, float]:
        """Mean and variance of a function."""
        return _moments(self.weights, values)


class _Plane:
    """A grid of the frame that is symmetric about both axes, with the exact densities on it."""

    def __init__(self, toy: GaussianToy) -> None:
        reach = toy.radius + _REACH
        axis = torch.linspace(-reach, reach, _POINTS, dtype=torch.float64)
        self._radius = toy.radius
        self._points = torch.cartesian_prod(axis, axis)
        cell = float(axis[1] - axis[0]) ** 2
        zero = torch.zeros(len(self._points), dtype=torch.float64)
        self._densities = {name: toy.log_prob(name, self._points, zero).exp() * cell for name in COMPONENTS}

    def turned(self, angle: float) -> Tensor:
        """The points turned by an angle."""
        c, s = math.cos(angle), math.sin(angle)
        return self._points @ torch.tensor([[c, s], [-s, c]], dtype=torch.float64)

    def mirrored(self, values: Tensor) -> Tensor:
        """Values at the mirror images of the points."""
        return values.view(_POINTS, _POINTS).flip(1).reshape(-1)

    def exchanged(self, values: Tensor) -> Tensor:
        """Values at the points reflected at the origin."""
        return values.flip(0)

    def moments(self, component: str, values: Tensor) -> tuple[float, float]:
        """Mean and variance of a function of the events of a component."""
        return _moments(self._densities[component], values)

    def scores(self, ratio: float) -> _Exact:
        """Exact scores in the signal fraction and the angle."""
        fraction = ratio / (1.0 + ratio)
        signal, background = self._densities["signal"], self._densities["background"]
        mixture = fraction * signal + (1.0 - fraction) * background
        lever = self._radius * self._points[:, 1]
        scores = {
            "mu": (signal - background) / mixture,
            "z": (fraction * signal - (1.0 - fraction) * background) * lever / mixture,
        }
        return _Exact(scores, mixture)


def _moments(weights: Tensor, values: Tensor) -> tuple[float, float]:
    mean = float((weights * values).sum())
    return mean, float((weights * values.square()).sum()) - mean**2
