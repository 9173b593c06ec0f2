"""Samples that cannot be compared are refused, with the feature and a remedy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sbilib.diagnostics import (
    classifier_test,
    compare_correlations,
    compare_features,
    compare_tails,
    sliced_wasserstein,
)
from sbilib.diagnostics._checks import check_pair, effective_weights, resampled_counts, tail_share
from sbilib.errors import DataError, ParameterError

GOOD = np.random.default_rng(1).normal(size=(600, 2))
COMPARISONS = {
    "features": lambda *samples, **options: compare_features(*samples, seed=1, n_bins=5, **options),
    "correlations": lambda *samples, **options: compare_correlations(*samples, seed=1, **options),
    "sliced": lambda *samples, **options: sliced_wasserstein(*samples, seed=1, **options),
    "classifier": lambda *samples, **options: classifier_test(*samples, seed=1, **options),
    "tails": lambda *samples, **options: compare_tails(*samples, levels=[0.05], **options),
}


def changed(row: int | slice, value: float) -> np.ndarray:
    events = GOOD.copy()
    events[row, 1] = value
    return events


@pytest.fixture(params=COMPARISONS, ids=str)
def compare(request):
    return COMPARISONS[request.param]


@pytest.mark.parametrize(
    ("generated", "reference", "message"),
    [
        (GOOD, GOOD[:, :1], r"names must be 1 different ones"),
        (GOOD[:, :1], GOOD, r"generated events have 1 features.*\(mass, angle\); select the same"),
        (changed(3, np.nan), GOOD, r"generated events have NaN or infinite values in 'angle' \(1\)"),
        (GOOD, changed(slice(2), np.inf), r"reference events have NaN or infinite values in 'angle' \(2\)"),
        (changed(slice(None), 4.0), GOOD, "generated events all have the same value of 'angle'; leave"),
        (GOOD[:0], GOOD, "there are no generated events; check the selection"),
        (GOOD[:9], GOOD, r"at least \d+ generated events are needed, got 9; .*pass"),
        (GOOD, GOOD[:9], r"at least \d+ reference events are needed, got 9; .*pass"),
        (GOOD[:, 0], GOOD, r"shape \(n_events, n_features\), got \(600,\); a single feature is a column"),
    ],
)
def test_every_comparison_refuses_bad_samples(compare, generated, reference, message):
    with pytest.raises((DataError, ParameterError), match=message):
        compare(generated, reference, names=["mass", "angle"])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.full(600, -1.0), "600 of 600 weights are negative or not finite.*clip them"),
        (np.r_[np.nan, np.ones(599)], "1 of 600 weights"),
        (np.zeros(600), "all weights are zero"),
        (np.ones(5), r"must have shape \(600,\), got \(5,\)"),
        (np.r_[1e9, np.ones(599)], r"at least \d+ effective generated events are needed, got 1"),
    ],
)
def test_every_comparison_refuses_bad_weights(compare, weights, message):
    with pytest.raises(DataError, match=message):
        compare(GOOD, GOOD, weights=weights)


def test_every_comparison_refuses_a_bad_seed():
    for name in set(COMPARISONS) - {"tails"}:
        with pytest.raises(ParameterError, match="seed"):
            {
                "features": compare_features,
                "correlations": compare_correlations,
                "sliced": sliced_wasserstein,
                "classifier": classifier_test,
            }[name](GOOD, GOOD, seed=-1)


def test_names_must_be_unique():
    with pytest.raises(ParameterError, match="2 different ones"):
        check_pair(GOOD, GOOD, names=["mass", "mass"])


def test_tensors_arrays_and_lists_are_the_same():
    tensor = torch.from_numpy(GOOD).requires_grad_()
    for form in (tensor, GOOD.tolist(), GOOD):
        pair = check_pair(form, form)
        assert np.array_equal(pair.generated, GOOD)
        assert pair.names == ("feature 0", "feature 1")


def test_weights_sum_to_the_effective_number_of_events():
    assert effective_weights(None, 7).sum() == 7
    assert effective_weights(np.full(7, 0.2), 7) == pytest.approx(np.ones(7))
    assert effective_weights(np.r_[np.ones(5), np.zeros(95)], 100).sum() == pytest.approx(5)
    weights = np.random.default_rng(1).exponential(size=50)
    expected = weights.sum() ** 2 / np.square(weights).sum()
    for scale in (1e-300, 1.0, 1e300):
        assert effective_weights(scale * weights, 50).sum() == pytest.approx(expected)


def test_counts_of_a_bootstrap_are_multinomial():
    counts = np.stack([resampled_counts(40, 80, np.random.default_rng(seed)) for seed in range(500)])
    assert np.all(counts.sum(axis=1) == 80)
    # 20000 counts of variance 2 (1 - 1/40): its relative error is about sqrt(2 / 20000) = 1%.
    assert counts.var() == pytest.approx(2 * (1 - 1 / 40), rel=0.05)


def test_a_p_value_counts_the_observation_itself():
    null = np.arange(99.0)
    assert tail_share(null, 1000.0) == 0.01
    assert tail_share(null, -1.0) == 1.0
    assert tail_share(null, 98.0) == 0.02
