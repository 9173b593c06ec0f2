"""Weights turn generated events into real ones, at a cost that is known."""

from __future__ import annotations

import numpy as np
import pytest

from sbilib.errors import DataError, ParameterError
from sbilib.studies.amplified_templates import BinnedSample, Binning, bin_events
from sbilib.studies.reweighting import (
    RatioTraining,
    calibrate_log_ratio,
    event_weights,
    reweighting_gain,
    train_log_ratio,
)
from sbilib.training import TrainConfig

SHIFT = 0.3
BINNING = Binning("x", tuple(np.linspace(-2.5, 2.5, 11)))
QUICK = TrainConfig(n_steps=300, learning_rate=5e-3, batch_size=512, schedule="one_cycle")


def real(n: int, seed: int) -> np.ndarray:
    """Two correlated features."""
    x = np.random.default_rng(seed).normal(size=(n, 2))
    return np.stack([x[:, 0], 0.6 * x[:, 0] + 0.8 * x[:, 1]], axis=1)


def generated(n: int, seed: int) -> np.ndarray:
    """The same, with the first feature shifted and the second following it."""
    return real(n, seed) + SHIFT * np.array([1.0, 0.6])


def exact_log_ratio(events: np.ndarray) -> np.ndarray:
    """Only the first feature decides: the other is the same given the first."""
    return SHIFT**2 / 2 - SHIFT * events[:, 0]


def templates(events: np.ndarray, weights: np.ndarray | None = None) -> BinnedSample:
    return bin_events(events[:, 1], BINNING, weights=weights)


def test_exact_weights_make_real_events_of_generated_ones():
    events, reference = generated(400_000, 1), templates(real(2_000_000, 2))
    weights = event_weights(exact_log_ratio(events), most=50.0)
    gain = reweighting_gain(templates(events), templates(events, weights.values), reference)
    # Reweighted in the first feature, the second becomes right: what is left is consistent with nothing.
    assert gain.before.value > 30 * gain.before.error
    assert abs(gain.after.value) < 3 * gain.after.error
    assert gain.removed == pytest.approx(1.0, abs=0.02)
    assert 0 < gain.error < 0.02


def test_effective_number_of_events():
    """For two normal distributions a distance d apart it is exp(-d^2) of all."""
    events = generated(400_000, 3)
    found = event_weights(exact_log_ratio(events), most=1000.0)
    assert found.n_effective / 400_000 == pytest.approx(np.exp(-(SHIFT**2)), rel=0.01)
    assert found.values.mean() == pytest.approx(1.0)
    assert event_weights(np.zeros(7)).n_effective == pytest.approx(7)


def test_clipping_bounds_the_weights_and_is_reported():
    values = np.log([0.01, 0.5, 1.0, 2.0, 500.0])
    found = event_weights(values, most=4.0)
    assert found.clipped == pytest.approx(0.4)
    assert found.values / found.values[2] == pytest.approx([0.25, 0.5, 1.0, 2.0, 4.0])
    assert event_weights([0.0, np.inf], most=4.0).values.tolist() == [0.4, 1.6]
    with pytest.raises(ParameterError, match="most"):
        event_weights(values, most=1.0)
    with pytest.raises(DataError, match="without NaN"):
        event_weights([np.nan])


def test_calibration_undoes_an_overconfident_and_shifted_classifier():
    """100 000 and 50 000 events: offset and slope within 4 standard errors of the exact ones."""
    right = exact_log_ratio(real(100_000, 4)), exact_log_ratio(generated(50_000, 5))
    perfect = calibrate_log_ratio(*right)
    assert abs(perfect.offset) < 4 * perfect.offset_error
    assert abs(perfect.slope - 1) < 4 * perfect.slope_error < 0.2
    wrong = calibrate_log_ratio(*(0.3 + 2.5 * each for each in right))
    assert wrong.slope == pytest.approx(perfect.slope / 2.5, rel=1e-6)
    assert wrong(0.3 + 2.5 * right[0]) == pytest.approx(perfect(right[0]), abs=1e-6)


def test_errors_of_the_calibration_are_its_spread():
    found = [
        calibrate_log_ratio(exact_log_ratio(real(2000, 10 + s)), exact_log_ratio(generated(1000, 500 + s)))
        for s in range(200)
    ]
    # The standard deviation of 200 numbers is known to 5%.
    for place in (0, 1):
        spread = np.std([each[place] for each in found])
        assert spread == pytest.approx(np.mean([each[place + 2] for each in found]), rel=0.2)


def test_a_trained_classifier_removes_most_of_the_bias():
    config = RatioTraining(hidden=(32, 32), training=QUICK, seed=2)
    log_ratio, calibration = train_log_ratio(real(40_000, 6), generated(40_000, 7), config)
    events, reference = generated(400_000, 1), templates(real(2_000_000, 2))
    error = log_ratio(events) - exact_log_ratio(events)
    assert np.sqrt(np.mean(error**2)) < 0.35 * np.std(exact_log_ratio(events))
    assert calibration.slope == pytest.approx(1.0, abs=0.3)
    weights = event_weights(log_ratio(events))
    gain = reweighting_gain(templates(events), templates(events, weights.values), reference)
    assert gain.removed > 0.85
    again, _ = train_log_ratio(real(40_000, 6), generated(40_000, 7), config)
    assert again(events[:100]) == pytest.approx(log_ratio(events[:100]), abs=1e-6)


def test_samples_that_cannot_be_told_apart_by_features_are_named():
    good = real(100, 1)
    with pytest.raises(DataError, match=r"same features and more than eight, got shapes \(100, 2\)"):
        train_log_ratio(good, good[:, :1])
    with pytest.raises(DataError, match="finite"):
        train_log_ratio(good, np.where(good > 2, np.nan, good) * [1, np.nan])
    flat = good * [1, 0]
    with pytest.raises(DataError, match="feature 1 is constant; leave it out"):
        train_log_ratio(flat, flat)
    with pytest.raises(DataError, match="calibration needs finite log ratios that vary"):
        calibrate_log_ratio([0.0], [0.0])
    one, two = templates(good), templates(good)
    batch = BinnedSample(BINNING, *np.ones((2, 2, 10)), np.ones(2))
    with pytest.raises(ParameterError, match="of the same trainings"):
        reweighting_gain(one, batch, two)
    with pytest.raises(ParameterError, match="held_out"):
        RatioTraining(held_out=1.0)
