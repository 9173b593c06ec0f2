"""The modes hold the covariance they were made from, without noise and with room for few models."""

from __future__ import annotations

import numpy as np
import pytest

from sbilib.errors import DataError, ParameterError
from sbilib.studies.model_error import ShapeModes, finite_ensemble_factor, shape_modes
from tests.studies.amplified_examples import drawn, parts, trainings

MEAN = parts()
DIRECTIONS = np.array([MEAN * np.linspace(-0.05, 0.05, 8), 0.01 * MEAN])


def replicas(n_models: int, seed: int = 1) -> np.ndarray:
    return MEAN + np.random.default_rng(seed).normal(size=(n_models, 2)) @ DIRECTIONS


def test_modes_span_the_directions_of_the_error():
    # 4000 models: each element of the covariance has a relative error of 2 to 3%.
    modes = shape_modes(replicas(4000), explained=0.9999)
    assert modes.n_modes == 2
    truth = DIRECTIONS.T @ DIRECTIONS
    scale = np.sqrt(np.outer(*[np.diag(truth)] * 2))
    assert np.abs((modes.covariance - truth) / scale).max() < 0.1
    assert (modes.residual < 1e-2 * np.sqrt(np.diag(truth))).all()
    assert modes.explained == pytest.approx(1.0)


def test_what_the_modes_leave_out_stays_in_the_bins():
    values = trainings(1, 300, 12, np.random.default_rng(4))[1][0]
    for n_modes in (0, 1, 2, 5):
        modes = shape_modes(values, n_modes=n_modes)
        factor = finite_ensemble_factor(12, n_modes)
        assert np.diag(modes.covariance) == pytest.approx(factor * values.var(0, ddof=1))
        assert modes.n_modes == n_modes


def test_the_factor_undoes_the_bias_of_an_inverse_covariance():
    """The mean of 20000 inverse 2 x 2 covariances of 12 models; the standard error is below 1%."""
    random = np.random.default_rng(8)
    values = random.normal(size=(20_000, 12, 2))
    centered = values - values.mean(1, keepdims=True)
    covariance = np.swapaxes(centered, 1, 2) @ centered / 11
    inflated = finite_ensemble_factor(12, 2) * covariance
    assert np.linalg.inv(inflated).mean(0) == pytest.approx(np.eye(2), abs=0.03)
    assert finite_ensemble_factor(12, 2, of_mean=True) == pytest.approx(11 / 8 * 13 / 12)


def test_the_noise_of_generated_events_is_no_error_of_the_model():
    random = np.random.default_rng(6)
    same = drawn(np.tile(MEAN, (400, 1)), 10_000, random)
    raw = shape_modes(same.fractions, n_modes=1)
    cleaned = shape_modes(same.fractions, noise=same.errors**2, n_modes=1)
    spread = np.trace(raw.covariance)
    assert spread == pytest.approx((MEAN * (1 - MEAN)).sum() / 10_000, rel=0.1)
    # 400 models of 8 bins: what is left by chance is about the root of 2 / 400 in each bin.
    assert np.trace(cleaned.covariance) < 0.15 * spread
    real = drawn(replicas(400), 10_000, random)
    found = shape_modes(real.fractions, noise=real.errors**2, explained=0.95)
    truth = np.trace(DIRECTIONS.T @ DIRECTIONS)
    assert np.trace(found.covariance) == pytest.approx(truth, rel=0.35)
    assert np.trace(shape_modes(real.fractions).covariance) > 1.5 * truth


def test_a_batch_of_ensembles_is_each_of_them():
    values = trainings(3, 200, 9, np.random.default_rng(4))[1]
    batch = shape_modes(values, n_modes=2)
    for place in range(3):
        single = shape_modes(values[place], n_modes=2)
        assert batch.member(place).covariance == pytest.approx(single.covariance)


def test_too_few_models_and_bad_templates_are_named():
    with pytest.raises(DataError, match=r"at least four models, got shape \(3, 8\)"):
        shape_modes(replicas(3))
    with pytest.raises(DataError, match="remove those that failed"):
        shape_modes(np.where(np.arange(8) == 2, np.nan, replicas(5)))
    with pytest.raises(DataError, match="empty in all models"):
        shape_modes(np.zeros((5, 3)))
    with pytest.raises(ParameterError, match="n_modes must be at most 2 here, got 3; train more models"):
        shape_modes(replicas(5), n_modes=3)
    assert shape_modes(trainings(1, 50, 5, np.random.default_rng(1))[1][0], explained=1.0).n_modes == 2
    with pytest.raises(ParameterError, match="n_models"):
        finite_ensemble_factor(4, 2)
    with pytest.raises(DataError, match="do not fit a residual"):
        ShapeModes(np.zeros((2, 8)), np.zeros(7), 5, np.ones(()))
