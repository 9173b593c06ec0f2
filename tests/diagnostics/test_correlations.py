"""Correlations against numpy and scipy, exact values of normals, and the rate of false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, spearmanr

from sbilib.diagnostics import compare_correlations, correlation_matrix
from sbilib.errors import DataError, ParameterError


def normals(n_events, seed, correlation=0.0, n_features=3):
    """Features of which the first two are correlated."""
    values = np.random.default_rng(seed).normal(size=(n_events, n_features))
    values[:, 1] = correlation * values[:, 0] + np.sqrt(1 - correlation**2) * values[:, 1]
    return values


@pytest.mark.parametrize("decimals", [1, 8], ids=["ties", "no ties"])
def test_matrices_are_those_of_numpy_and_scipy(decimals):
    generated, reference = normals(200, 1, 0.6).round(decimals), normals(150, 2).round(decimals)
    for kind, oracle in (
        ("pearson", lambda x: np.corrcoef(x.T)),
        ("spearman", lambda x: spearmanr(x).statistic),
    ):
        found = compare_correlations(generated, reference, seed=1, kind=kind, n_bootstrap=2)
        np.testing.assert_allclose(found.generated, oracle(generated), atol=1e-12)
        np.testing.assert_allclose(found.reference, oracle(reference), atol=1e-12)


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_whole_weights_are_copies_of_events(kind):
    events, counts = normals(100, 3, 0.5).round(1), np.random.default_rng(1).integers(0, 4, size=100)
    copies = np.repeat(events, counts, axis=0)
    weighted = compare_correlations(events, events, weights=counts, seed=1, kind=kind, n_bootstrap=2)
    copied = compare_correlations(copies, events, seed=1, kind=kind, n_bootstrap=2)
    np.testing.assert_allclose(weighted.generated, copied.generated, atol=1e-12)


def test_normals_have_their_exact_correlations():
    """Spearman's of normals is 6 / pi arcsin(rho / 2)."""
    generated, reference = normals(50_000, 4, 0.8), normals(50_000, 5, -0.3)
    for kind, exact in (("pearson", lambda r: r), ("spearman", lambda r: 6 / np.pi * np.arcsin(r / 2))):
        found = compare_correlations(generated, reference, seed=1, kind=kind, n_bootstrap=20)
        assert abs(found.generated[0, 1] - exact(0.8)) < 4 * found.generated_error[0, 1]
        assert abs(found.reference[0, 1] - exact(-0.3)) < 4 * found.reference_error[0, 1]
        assert found.largest == abs(found.difference[0, 1]) > 1
        assert set(found.largest_pair) == {"feature 0", "feature 1"}
        assert found.largest_error == found.error[0, 1] < 0.01
        assert found.p_value == 1 / 21


def test_errors_are_those_of_normals():
    """Fisher: (1 - rho^2) / sqrt(n); 300 bootstraps know a standard deviation to 4%."""
    found = compare_correlations(normals(4000, 6, 0.7), normals(1000, 7), seed=1, n_bootstrap=300)
    assert found.generated_error[0, 1] == pytest.approx((1 - 0.7**2) / np.sqrt(4000), rel=0.2)
    assert found.reference_error[1, 2] == pytest.approx(1 / np.sqrt(1000), rel=0.2)
    assert (np.diag(found.error) == 0).all()


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
@pytest.mark.parametrize("weighted", [False, True])
def test_false_alarms_have_their_rate(kind, weighted):
    """Of 150 repetitions at p <= 0.1; outside of the limits by chance once in 1000."""
    alarms = 0
    for seed in range(150):
        generated, reference = normals(300, 100 + seed, 0.4), normals(200, 300 + seed, 0.4)
        weights = np.random.default_rng(seed).exponential(size=300) if weighted else None
        options = {"kind": kind, "weights": weights, "n_bootstrap": 39}
        alarms += compare_correlations(generated, reference, seed=seed, **options).p_value <= 0.1
    low, high = binom.ppf((0.0005, 0.9995), 150, 0.1)
    assert low <= alarms <= high


def test_a_difference_is_found():
    """Correlations 0.4 and 0.1 of 300 events, four standard errors apart."""
    found = [
        compare_correlations(
            normals(300, 500 + seed, 0.4), normals(300, 600 + seed, 0.1), seed=seed, n_bootstrap=39
        ).p_value
        for seed in range(40)
    ]
    assert np.mean(np.array(found) <= 0.05) > 0.7


def test_weights_remove_a_difference():
    """Events with correlation 0.5, weighted to none by the ratio of normal densities."""
    rho = 0.5
    generated, reference = normals(20_000, 8, rho), normals(20_000, 9)
    x, y = generated[:, 0], generated[:, 1]
    weights = np.exp((rho**2 * (x**2 + y**2) - 2 * rho * x * y) / (2 * (1 - rho**2)))
    plain, weighted = (
        compare_correlations(generated, reference, weights=each, seed=1, n_bootstrap=49)
        for each in (None, weights)
    )
    assert plain.largest > 0.45
    assert abs(weighted.difference[0, 1]) < 4 * weighted.error[0, 1] < 0.2


def test_the_table_has_every_pair_once_and_the_largest_first():
    found = compare_correlations(normals(500, 10, 0.9), normals(500, 11), names=["a", "b", "c"], seed=1)
    table = found.table()
    assert sorted(table.index) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert table.index[0] == found.largest_pair == ("a", "b")
    assert abs(table["difference"].iloc[0]) == found.largest
    again = compare_correlations(normals(500, 10, 0.9), normals(500, 11), names=["a", "b", "c"], seed=1)
    assert table.equals(again.table())


def test_a_column_that_does_not_vary_is_uncorrelated():
    events = np.column_stack((np.arange(5.0), np.ones(5)))
    assert correlation_matrix(events).tolist() == [[1, 0], [0, 1]]


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="two features, got only 'feature 0'"):
        compare_correlations(normals(50, 1)[:, :1], normals(50, 1)[:, :1], seed=1)
    with pytest.raises(ParameterError, match="kind"):
        compare_correlations(normals(50, 1), normals(50, 1), seed=1, kind="kendall")
    with pytest.raises(ParameterError, match="n_bootstrap"):
        compare_correlations(normals(50, 1), normals(50, 1), seed=1, n_bootstrap=1)
