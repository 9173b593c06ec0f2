r"""Weights for generated events from a classifier between generated and real training events.

A classifier of equal numbers of both has the output :math:`s \to p_\mathrm{real} / (p_\mathrm{real} +
p_\mathrm{gen})`, so

.. math:: w(x) = \frac{s(x)}{1 - s(x)} = e^{\ell(x)}

turns generated events into real ones (:math:`\ell` is the logit).  Three steps keep the weights sane:

1. Calibration: on held-out events :math:`\ell \to a + k \ell` by logistic regression, which undoes an
   overconfident classifier (:math:`k < 1`).
2. Clipping: :math:`|\ell| \le \ln w_\mathrm{max}`, so that no event counts more than :math:`w_\mathrm{max}`
   times; the part of events that this changes is reported.
3. Normalization to a mean of one.

The weights cost events, :math:`N_\mathrm{eff} = (\sum w)^2 / \sum w^2`, and know no more than the training
set: they remove what the generator got wrong although its training events show it, not the fluctuation of
those events.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from sbilib.errors import DataError, ParameterError, check_count, check_range
from sbilib.models.classifier import Classifier, ClassifierConfig
from sbilib.studies.amplification import Distance, template_distance
from sbilib.studies.amplified_templates import BinnedSample
from sbilib.training import TrainConfig, train

__all__ = [
    "Calibration",
    "EventWeights",
    "LogRatio",
    "RatioTraining",
    "ReweightingGain",
    "calibrate_log_ratio",
    "event_weights",
    "reweighting_gain",
    "train_log_ratio",
]

_Array = NDArray[np.float64]
LogRatio = Callable[[ArrayLike], _Array]
"""Maps events ``(n, d)`` to log ratios real over generated, ``(n,)``."""
_CHUNK = 100_000
_TRAINING = TrainConfig(n_steps=1500, learning_rate=3e-3, batch_size=1024, schedule="one_cycle", keep="best")


@dataclass(frozen=True, eq=False)
class EventWeights:
    """Weights of generated events.

    Attributes:
        values: ``(n,)`` of mean one.
        n_effective: events without weights that are worth as much, (sum w)^2 / sum w^2.
        clipped: part of the events whose log ratio was clipped.
    """

    values: _Array
    n_effective: float
    clipped: float


def event_weights(log_ratio: ArrayLike, *, most: float = 10.0) -> EventWeights:
    r"""Clipped and normalized weights.

    Args:
        log_ratio: real over generated, ``(n,)``.
        most: largest weight before normalization; the smallest is its inverse.

    Raises:
        DataError: if there are no values, or some are NaN.
        ParameterError: if ``most`` is not above one.

    Example:
        >>> found = event_weights(np.log([1.0, 3.0, 100.0]), most=5.0)
        >>> found.values.round(3).tolist(), round(found.clipped, 3)
        ([0.333, 1.0, 1.667], 0.333)
    """
    check_range("most", most, low=1.0, include_low=False)
    values = np.asarray(log_ratio, dtype=np.float64)
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        raise DataError(
            f"log ratios must be (n,) without NaN, got shape {values.shape}; check the classifier"
        )
    limit = math.log(most)
    weights = np.exp(values.clip(-limit, limit))
    weights = weights / weights.mean()
    return EventWeights(
        weights,
        float(weights.sum() ** 2 / np.square(weights).sum()),
        float((np.abs(values) > limit).mean()),
    )


class Calibration(NamedTuple):
    """Affine correction of a log ratio, with standard errors; a perfect one has offset 0 and slope 1."""

    offset: float
    slope: float
    offset_error: float
    slope_error: float

    def __call__(self, log_ratio: ArrayLike) -> _Array:
        """The corrected log ratio."""
        result: _Array = self.offset + self.slope * np.asarray(log_ratio, dtype=np.float64)
        return result


def calibrate_log_ratio(of_real: ArrayLike, of_generated: ArrayLike) -> Calibration:
    r"""Logistic regression of the label on a log ratio, for held-out events.

    .. math:: \min_{a, k} \; \overline{\ln(1 + e^{-(a + k \ell)})}_\mathrm{real}
              + \overline{\ln(1 + e^{a + k \ell})}_\mathrm{gen}

    Means, so that the numbers of events need not be equal.

    Args:
        of_real: log ratios of real events, ``(n,)``.
        of_generated: log ratios of generated events, ``(m,)``.

    Raises:
        DataError: if either is empty or not finite, or the log ratio is constant.

    Example:
        >>> found = calibrate_log_ratio([2.0, 2.0, 2.0, -2.0], [2.0, -2.0, -2.0, -2.0])
        >>> round(found.slope, 4), round(abs(found.offset), 4)
        (0.5493, 0.0)
    """
    real, generated = (np.asarray(each, dtype=np.float64) for each in (of_real, of_generated))
    both = np.concatenate([real, generated])
    if not (len(real) and len(generated) and np.isfinite(both).all()) or np.ptp(both) == 0:
        raise DataError(
            f"calibration needs finite log ratios that vary, got {len(real)} of real and {len(generated)} of "
            "generated events; hold out events of both, or train the classifier longer"
        )
    x = np.stack([np.ones_like(both), both], axis=1)
    sign = np.repeat([1.0, -1.0], [len(real), len(generated)])
    weight = np.repeat([1 / len(real), 1 / len(generated)], [len(real), len(generated)])
    beta = np.array([0.0, 1.0])
    for _ in range(50):
        gradient, hessian, _ = _logistic(beta, x, sign, weight)
        step = np.linalg.solve(hessian, gradient)
        # A long step from a flat place would overshoot.
        step *= min(1.0, 2.0 / float(np.abs(step).max() + 1e-300))
        beta = beta - step
        if np.abs(step).max() < 1e-10:
            break
    _, hessian, square = _logistic(beta, x, sign, weight)
    inverse = np.linalg.inv(hessian)
    errors = np.sqrt(np.diag(inverse @ square @ inverse))
    return Calibration(*map(float, (*beta, *errors)))


def _logistic(beta: _Array, x: _Array, sign: _Array, weight: _Array) -> tuple[_Array, _Array, _Array]:
    """Gradient and Hessian of the mean losses, and the covariance of the gradient."""
    wrong = 0.5 * (1 - np.tanh(0.5 * sign * (x @ beta)))
    slopes = -(weight * sign * wrong)[:, None] * x
    hessian = (x * (weight * wrong * (1 - wrong))[:, None]).T @ x
    # The numbers of events of both classes are given, so each fluctuates about its own mean only.
    centered = np.concatenate([part - part.mean(0) for part in (slopes[sign > 0], slopes[sign < 0])])
    return slopes.sum(0), hessian, centered.T @ centered


@dataclass(frozen=True)
class RatioTraining:
    """How the default classifier is trained.

    Args:
        hidden: nodes of its hidden layers.
        training: optimizer, steps and batches.
        held_out: part of the events kept for validation and calibration.
        seed: of initial weights, split and batches.

    Raises:
        ParameterError: if a value is out of range.
    """

    hidden: tuple[int, ...] = (64, 64)
    training: TrainConfig = _TRAINING
    held_out: float = 0.25
    seed: int = 1

    def __post_init__(self) -> None:
        check_range("held_out", self.held_out, low=0.0, high=1.0, include_low=False, include_high=False)
        check_count("seed", self.seed)


class _TwoSamples:
    """Batches of half real, half generated events, as a function of the step."""

    def __init__(self, real: Tensor, generated: Tensor, seed: int) -> None:
        self._samples, self._seed = (real, generated), seed
        self._generator = torch.Generator()

    def batch(self, size: int, step: int) -> tuple[Tensor, Tensor]:
        """Events and labels."""
        self._generator.manual_seed(self._seed * 1_000_003 + step)
        half = size // 2
        chosen = [
            sample[torch.randint(len(sample), (half,), generator=self._generator)] for sample in self._samples
        ]
        return torch.cat(chosen), torch.cat([torch.ones(half), torch.zeros(half)])


def _loss(model: nn.Module, x: Tensor, label: Tensor) -> Tensor:
    logit = model(x, x.new_zeros(len(x), 1))
    return nn.functional.binary_cross_entropy_with_logits(logit, label)


class _Network:
    """A classifier with its own scaling of the features."""

    def __init__(self, real: _Array, generated: _Array, config: RatioTraining) -> None:
        both = np.concatenate([real, generated])
        self.shift, self.scale = both.mean(0), both.std(0)
        if not (self.scale > 0).all():
            raise DataError(f"feature {int((self.scale <= 0).argmax())} is constant; leave it out")
        shape = ClassifierConfig(n_features=both.shape[1], hidden=config.hidden, activation="silu")
        self.model = Classifier(shape, seed=config.seed)

    def scaled(self, events: ArrayLike) -> Tensor:
        return torch.from_numpy((np.asarray(events, dtype=np.float64) - self.shift) / self.scale).float()

    @torch.no_grad()
    def logit(self, scaled: Tensor) -> _Array:
        pieces = [self.model(piece, piece.new_zeros(len(piece), 1)) for piece in torch.split(scaled, _CHUNK)]
        result: _Array = torch.cat(pieces).double().numpy()
        return result


def train_log_ratio(
    real: ArrayLike, generated: ArrayLike, config: RatioTraining | None = None
) -> tuple[LogRatio, Calibration]:
    """Train and calibrate a classifier between real training events and generated ones.

    Args:
        real: training events, ``(n, d)``.
        generated: events of the model, ``(m, d)``; the events that will get weights may be others.
        config: how to train.

    Returns:
        The calibrated log ratio, and its calibration.

    Raises:
        DataError: if the samples are too small, not finite, differ in features, or a feature is constant.
    """
    config = config or RatioTraining()
    samples = _checked_samples(real, generated)
    network = _Network(samples[0], samples[1], config)
    random = np.random.default_rng(config.seed)
    kept, held = [], []
    for sample in samples:
        shuffled = network.scaled(sample[random.permutation(len(sample))])
        first = max(1, round(config.held_out * len(sample)))
        held.append(shuffled[:first])
        kept.append(shuffled[first:])
    batches, validation = (_TwoSamples(real, made, config.seed) for real, made in (kept, held))
    train(network.model, _loss, batches, validation, config.training, label="reweighting")
    calibration = calibrate_log_ratio(*map(network.logit, held))
    return lambda events: calibration(network.logit(network.scaled(events))), calibration


def _checked_samples(real: ArrayLike, generated: ArrayLike) -> list[_Array]:
    samples = [np.asarray(each, dtype=np.float64) for each in (real, generated)]
    good = all(each.ndim == 2 and len(each) > 8 and np.isfinite(each).all() for each in samples)
    if not good or samples[0].shape[1] != samples[1].shape[1]:
        raise DataError(
            "real and generated events must be finite (n, d) of the same features and more than eight, got "
            f"shapes {samples[0].shape} and {samples[1].shape}; check their columns"
        )
    return samples


class ReweightingGain(NamedTuple):
    """Distance of a template from the truth before and after reweighting, without sampling noise."""

    before: Distance
    """Of the generated template."""
    after: Distance
    """Of the reweighted template."""

    @property
    def removed(self) -> float:
        """Part of the squared distance that the weights remove; may leave [0, 1] by noise."""
        return 1 - self.after.value / self.before.value

    @property
    def error(self) -> float:
        """Standard deviation of :attr:`removed`, with both distances taken as independent."""
        ratio = self.after.value / self.before.value
        return float(np.hypot(self.after.error, ratio * self.before.error) / abs(self.before.value))


def reweighting_gain(
    before: BinnedSample, after: BinnedSample, reference: BinnedSample, *, distance: str = "chi2"
) -> ReweightingGain:
    """How much of the distance from the truth the weights remove, in one observable and region.

    Args:
        before: generated templates, ``(n_trainings, n_bins)`` or ``(n_bins,)``.
        after: the same events with their weights.
        reference: simulated events that no training has seen.
        distance: ``"chi2"`` or ``"squared"``.

    Raises:
        ParameterError: for an unknown distance, or if the two batches differ.
        DataError: as :func:`~sbilib.studies.amplification.template_distance`.

    Example:
        >>> from sbilib.studies.amplified_templates import Binning
        >>> binning = Binning("x", (0.0, 0.5, 1.0))
        >>> truth, before, after = (
        ...     BinnedSample(binning, [n, 1e9 - n], [n, 1e9 - n], 1e9) for n in (5.0e8, 5.1e8, 5.05e8)
        ... )
        >>> round(reweighting_gain(before, after, truth).removed, 3)
        0.75
    """
    if before.counts.shape != after.counts.shape:
        raise ParameterError(
            f"templates before and after must be of the same trainings, got shapes {before.counts.shape} and "
            f"{after.counts.shape}; reweight each of them"
        )
    return ReweightingGain(
        *(
            template_distance(each, reference, distance=distance, subtract_sampling=True)
            for each in (before, after)
        )
    )
