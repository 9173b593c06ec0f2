"""Sliced Wasserstein distance against scipy, exact values of shifts, and the rate of false alarms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, wasserstein_distance

from sbilib.diagnostics import random_directions, sliced_wasserstein
from sbilib.errors import ParameterError


def normals(n_generated, n_reference, n_features, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, (n_generated, n_features)), rng.normal(size=(n_reference, n_features))


def test_directions_are_uniform_and_fixed_by_the_seed():
    directions = random_directions(20_000, 3, seed=1)
    assert np.linalg.norm(directions, axis=1) == pytest.approx(np.ones(20_000))
    # Each component of a uniform direction in three dimensions is uniform on [-1, 1].
    assert np.abs(directions.mean(axis=0)).max() < 4 / math.sqrt(3 * 20_000)
    assert np.abs(directions).mean() == pytest.approx(0.5, abs=0.01)
    assert np.array_equal(directions, random_directions(20_000, 3, seed=1))
    assert not np.array_equal(directions, random_directions(20_000, 3, seed=2))


def test_each_direction_has_the_distance_of_scipy():
    generated, reference = normals(150, 120, 4, 1, 0.3)
    weights = np.random.default_rng(2).uniform(size=150)
    found = sliced_wasserstein(
        generated, reference, weights=weights, seed=3, n_directions=8, n_permutations=2, n_bootstrap=2
    )
    x, y = ((each - reference.mean(axis=0)) / reference.std(axis=0) for each in (generated, reference))
    expected = [wasserstein_distance(x @ way, y @ way, u_weights=weights) for way in found.directions]
    assert found.by_direction == pytest.approx(expected, rel=1e-12)
    assert found.distance == pytest.approx(np.mean(expected), rel=1e-12)


def test_a_shift_has_its_exact_distance():
    """The mean modulus of the shift along a direction, whatever the scale of the features."""
    shift, n_features = 0.8, 6
    generated, reference = normals(20_000, 20_000, n_features, 4)
    generated[:, 0] += shift
    scales = np.geomspace(1e-3, 1e3, n_features)
    found = sliced_wasserstein(
        generated * scales, reference * scales, seed=1, n_directions=100, n_permutations=1, n_bootstrap=2
    )
    mean = math.gamma(n_features / 2) / (math.sqrt(math.pi) * math.gamma((n_features + 1) / 2))
    along = shift * np.abs(found.directions[:, 0])
    assert found.distance == pytest.approx(along.mean(), rel=0.05)
    # 100 directions know the mean over all of them to 7%.
    assert along.mean() == pytest.approx(shift * mean, rel=0.3)
    assert np.corrcoef(found.by_direction, along)[0, 1] > 0.99


@pytest.mark.parametrize("weighted", [False, True])
def test_false_alarms_have_their_rate(weighted):
    """Of 150 repetitions at p <= 0.1; outside of the limits by chance once in 1000."""
    alarms = 0
    for seed in range(150):
        generated, reference = normals(150, 100, 3, 100 + seed)
        weights = None
        if weighted:
            generated[:, 0] += 0.5
            weights = np.exp(-0.5 * generated[:, 0])
        options = {"weights": weights, "n_directions": 6, "n_permutations": 39, "n_bootstrap": 2}
        alarms += sliced_wasserstein(generated, reference, seed=seed, **options).p_value <= 0.1
    low, high = binom.ppf((0.0005, 0.9995), 150, 0.1)
    assert low <= alarms <= high


def test_a_shift_is_found():
    """A shift by 0.2 of each of three features, 300 events."""
    found = [
        sliced_wasserstein(
            *normals(300, 300, 3, 300 + seed, 0.2),
            seed=seed,
            n_directions=8,
            n_permutations=39,
            n_bootstrap=2,
        ).p_value
        for seed in range(30)
    ]
    assert np.mean(np.array(found) <= 0.05) > 0.7


def test_the_null_is_that_of_fresh_samples():
    """60 fresh distances know their mean to 3%."""
    options = {"n_directions": 10, "n_bootstrap": 2}
    fresh = [
        sliced_wasserstein(*normals(200, 150, 3, 400 + s), seed=1, n_permutations=1, **options).distance
        for s in range(60)
    ]
    found = sliced_wasserstein(*normals(200, 150, 3, 5, 0.5), seed=1, n_permutations=100, **options)
    assert found.null.mean() == pytest.approx(np.mean(fresh), rel=0.15)
    assert found.null.std() == pytest.approx(np.std(fresh), rel=0.5)
    low, high = found.null_band
    assert low < np.mean(fresh) < high < found.distance


def test_the_error_is_the_scatter():
    """60 repetitions know a standard deviation to 9%."""
    found = [
        sliced_wasserstein(
            *normals(200, 200, 2, 500 + s, 1.0), seed=1, n_directions=6, n_permutations=1, n_bootstrap=20
        )
        for s in range(60)
    ]
    scatter = np.std([each.distance for each in found], ddof=1)
    assert np.mean([each.error for each in found]) == pytest.approx(scatter, rel=0.3)


def test_the_same_seed_gives_the_same_numbers():
    samples = normals(100, 100, 2, 6)
    first, again = (
        sliced_wasserstein(*samples, seed=1, n_directions=5, n_permutations=9, n_bootstrap=5)
        for _ in range(2)
    )
    assert np.array_equal(first.null, again.null)
    assert (first.distance, first.error) == (again.distance, again.error)


@pytest.mark.parametrize("option", ["n_directions", "n_permutations", "n_bootstrap"])
def test_bad_numbers_are_refused(option):
    with pytest.raises(ParameterError, match=option):
        sliced_wasserstein(*normals(50, 50, 2, 7), seed=1, **{option: 0})
