"""The classifier test against exact areas, its error, its null, and the rate of false alarms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom, mannwhitneyu, norm

from sbilib.diagnostics import classifier_test, roc_area
from sbilib.diagnostics.two_sample import _fit_trees, _Labeled
from sbilib.errors import DataError, ParameterError, TrainingError

KINDS = ("trees", "network")


def normals(n_generated, n_reference, n_features, seed, shift=0.0):
    """Normals of which the first feature is shifted."""
    rng = np.random.default_rng(seed)
    generated = rng.normal(size=(n_generated, n_features))
    generated[:, 0] += shift
    return generated, rng.normal(size=(n_reference, n_features))


def test_area_is_that_of_mann_and_whitney_with_ties():
    rng = np.random.default_rng(1)
    positive, negative = rng.integers(0, 9, size=80), rng.integers(2, 11, size=50)
    expected = mannwhitneyu(positive, negative).statistic / (80 * 50)
    assert roc_area(positive, negative).value == pytest.approx(expected, rel=1e-12)
    counts = rng.integers(0, 4, size=80)
    copied = mannwhitneyu(np.repeat(positive, counts), negative).statistic / (counts.sum() * 50)
    assert roc_area(positive, negative, weights=counts).value == pytest.approx(copied, rel=1e-12)


def test_area_of_shifted_normals_and_its_error_are_exact():
    """Phi(shift / sqrt 2); 400 repetitions know a standard deviation to 4%."""
    rng = np.random.default_rng(2)
    for weighted in (False, True):
        areas = [
            roc_area(
                rng.normal(1, 1, 100),
                rng.normal(size=150),
                weights=rng.exponential(size=100) if weighted else None,
            )
            for _ in range(400)
        ]
        values = np.array([area.value for area in areas])
        assert abs(values.mean() - norm.cdf(1 / np.sqrt(2))) < 4 * values.std() / np.sqrt(400)
        assert np.mean([area.error for area in areas]) == pytest.approx(values.std(), rel=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shift_reaches_its_exact_area(kind):
    """Phi(1.5 / sqrt 2) = 0.856 is the best any classifier can do; ours come within 0.015."""
    best = norm.cdf(1.5 / np.sqrt(2))
    found = classifier_test(*normals(5000, 5000, 3, 3, 1.5), seed=1, kind=kind, n_permutations=99)
    assert best - 0.015 - 3 * found.error < found.auc < best + 3 * found.error
    assert 0.005 < found.error < 0.01
    assert found.p_value == 0.01
    assert found.null_band[0] < 0.5 < found.null_band[1] < 0.52


@pytest.mark.parametrize("kind", KINDS)
def test_a_difference_in_correlation_alone_is_found(kind):
    generated, reference = normals(3000, 3000, 3, 4)
    generated[:, 1] = 0.7 * generated[:, 0] + np.sqrt(1 - 0.7**2) * generated[:, 1]
    found = classifier_test(generated, reference, seed=1, kind=kind, n_permutations=99)
    assert found.auc > 0.6
    assert found.p_value == 0.01


@pytest.mark.parametrize(("kind", "n_repeats"), [("trees", 120), ("network", 40)], ids=["trees", "network"])
def test_false_alarms_on_a_held_out_half_have_their_rate(kind, n_repeats):
    """At p <= 0.2; outside of the limits by chance once in 1000."""
    p_values = [
        classifier_test(*normals(150, 150, 2, 100 + s), seed=s, kind=kind, n_permutations=49).p_value
        for s in range(n_repeats)
    ]
    low, high = binom.ppf((0.0005, 0.9995), n_repeats, 0.2)
    assert low <= (np.array(p_values) <= 0.2).sum() <= high


def test_folds_raise_no_more_false_alarms_than_stated():
    """Widening the null is cautious: at p <= 0.2 one in 1000 sees more."""
    found = [
        classifier_test(*normals(150, 150, 2, 300 + s), seed=s, n_folds=4, n_permutations=49)
        for s in range(80)
    ]
    assert sum(each.p_value <= 0.2 for each in found) <= binom.ppf(0.999, 80, 0.2)
    # The width of permuted labels alone, too small for folds, is divided by sqrt(2) here.
    scatter = np.std([each.auc for each in found])
    assert scatter > 0.95 * np.mean([each.null.std() for each in found]) / np.sqrt(2)


def test_a_retrained_null_has_its_rate():
    """Of 40 repetitions at p <= 0.2; outside of the limits by chance once in 1000."""
    options = {"n_folds": 2, "n_retrained": 4}
    found = [classifier_test(*normals(80, 80, 2, 500 + s), seed=s, **options) for s in range(40)]
    low, high = binom.ppf((0.0005, 0.9995), 40, 0.2)
    assert low <= sum(each.p_value <= 0.2 for each in found) <= high
    assert all(each.retrained and len(each.null) == 4 for each in found)
    shifted = classifier_test(*normals(80, 80, 2, 600, 2.0), seed=1, **options)
    assert shifted.p_value == 0.2


@pytest.mark.parametrize("n_folds", [1, 3])
def test_power_on_a_small_shift(n_folds):
    """A shift by 0.4, best area 0.61, of 1000 events."""
    found = [
        classifier_test(*normals(1000, 1000, 3, 700 + s, 0.4), seed=s, n_folds=n_folds, n_permutations=99)
        for s in range(10)
    ]
    assert sum(each.p_value <= 0.05 for each in found) >= 8


def test_weights_remove_a_difference():
    """At p <= 0.2 of 60 repetitions; outside of the limits by chance once in 1000."""
    shift, p_values, plain = 0.5, [], []
    for s in range(60):
        generated, reference = normals(400, 400, 2, 800 + s, shift)
        weights = np.exp(-shift * generated[:, 0] + shift**2 / 2)
        p_values.append(
            classifier_test(generated, reference, weights=weights, seed=s, n_permutations=99).p_value
        )
        plain.append(classifier_test(generated, reference, seed=s, n_permutations=99).p_value)
    low, high = binom.ppf((0.0005, 0.9995), 60, 0.2)
    assert low <= (np.array(p_values) <= 0.2).sum() <= high
    assert (np.array(plain) <= 0.2).mean() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_is_scored_by_a_classifier_that_has_not_seen_it(kind):
    generated, reference = normals(200, 220, 2, 5)
    folds = classifier_test(generated, reference, seed=1, kind=kind, n_folds=3, n_permutations=9)
    assert len(folds.fold_auc) == 3
    assert folds.auc == pytest.approx(np.mean(folds.fold_auc))
    assert np.isfinite(folds.generated_scores).all()
    assert np.isfinite(folds.reference_scores).all()
    half = classifier_test(generated, reference, seed=1, kind=kind, n_permutations=9)
    assert np.isfinite(half.generated_scores).sum() == 100
    assert np.isfinite(half.reference_scores).sum() == 110


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_log_odds(kind):
    """For normals shifted by d they are d (x - d / 2)."""
    generated, reference = normals(6000, 6000, 1, 6, 1.0)
    found = classifier_test(generated, reference, seed=1, kind=kind, n_permutations=9)
    tested = np.isfinite(found.reference_scores)
    x, scores = reference[tested, 0], found.reference_scores[tested]
    central = np.abs(x) < 1.5
    assert np.abs(scores - (x - 0.5))[central].mean() < 0.15


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_numbers_and_leaves_the_global_state_alone(kind):
    samples = normals(100, 100, 2, 7)
    state = torch.random.get_rng_state()
    first, again, other = (
        classifier_test(*samples, seed=seed, kind=kind, n_permutations=9) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.auc == again.auc != other.auc
    assert np.array_equal(first.null, again.null)


def test_the_first_question_of_a_tree_is_the_best_one():
    """Labels set by a threshold on the second feature; one tree must rank them without a fault."""
    x = np.random.default_rng(8).normal(size=(2000, 3))
    data = _Labeled(x, (x[:, 1] > 0.3).astype(float), np.ones(2000)).part(np.ones(2000, dtype=bool))
    score = _fit_trees(data, data, np.random.default_rng(1))
    far = np.abs(x[:, 1] - 0.3) > 0.1
    assert ((score(x) > 0) == (x[:, 1] > 0.3))[far].all()


def test_labels_weigh_alike_whatever_their_number():
    x = np.zeros((10, 1))
    data = _Labeled(x, np.repeat([1.0, 0.0], [2, 8]), np.arange(1.0, 11.0)).part(np.arange(10) > 0)
    assert data.weights[data.y == 1].sum() == pytest.approx(data.weights[data.y == 0].sum())
    assert data.weights.mean() == pytest.approx(1)


def test_bad_input_is_refused():
    good = normals(100, 100, 2, 9)
    with pytest.raises(ParameterError, match="'trees', 'network'"):
        classifier_test(*good, seed=1, kind="forest")
    with pytest.raises(ParameterError, match="n_folds"):
        classifier_test(*good, seed=1, n_folds=0)
    with pytest.raises(DataError, match=r"at least 200 generated.*fewer folds"):
        classifier_test(*good, seed=1, n_folds=10)
    with pytest.raises(ParameterError, match="n_retrained=0"):
        classifier_test(*good, seed=1, weights=np.ones(100), n_retrained=1)
    with pytest.raises(DataError, match="two or more finite numbers"):
        roc_area([1.0], [0.0, 1.0])
    with pytest.raises(DataError, match="two or more finite numbers"):
        roc_area([1.0, np.nan], [0.0, 1.0])


def test_a_network_that_diverges_says_so(monkeypatch):
    monkeypatch.setattr("sbilib.diagnostics.two_sample._LEARNING_RATE", 1e30)
    with pytest.raises(TrainingError, match="kind='trees'"):
        classifier_test(*normals(100, 100, 2, 10), seed=1, kind="network")


@pytest.mark.parametrize("kind", KINDS)
def test_a_feature_that_varies_in_one_event_only_is_no_harm(kind):
    generated, reference = normals(100, 100, 2, 11)
    generated[:, 1], reference[:, 1] = 0.0, 0.0
    generated[0, 1], reference[0, 1] = 1.0, 1.0
    for seed in range(4):
        found = classifier_test(generated, reference, seed=seed, kind=kind, n_permutations=9)
        assert 0.3 < found.auc < 0.7
