"""Divergences against exact values of shifted normals, scipy, and what equal samples must show."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.spatial.distance import jensenshannon
from scipy.stats import binom, entropy, norm, wasserstein_distance

from sbilib.diagnostics import DIVERGENCES, binned_divergences, compare_features
from sbilib.errors import DataError, ParameterError

SHIFT = 0.5


def normals(n_generated, n_reference, n_features, seed, shift=0.0):
    """Each feature is one independent repetition."""
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, (n_generated, n_features)), rng.normal(size=(n_reference, n_features))


def exact_divergences(shift: float) -> dict[str, float]:
    """Of a unit normal shifted by ``shift`` from another."""

    def integrand(x: float) -> float:
        p, q = norm.pdf(x, shift), norm.pdf(x)
        return (q * np.log(2 * q / (p + q)) + p * np.log(2 * p / (p + q))) / 2

    return {
        "kl": shift**2 / 2,
        "jensen_shannon": quad(integrand, -10, 10)[0],
        "hellinger": np.sqrt(1 - np.exp(-(shift**2) / 8)),
        "chi2": np.exp(shift**2) - 1,
        "wasserstein": shift,
    }


def test_binned_divergences_agree_with_scipy():
    rng = np.random.default_rng(1)
    generated, reference = rng.integers(1, 100, size=(2, 30))
    p, q = generated / generated.sum(), reference / reference.sum()
    found = binned_divergences(generated, reference, pseudo_count=0.0)
    assert found.kl == pytest.approx(entropy(q, p), rel=1e-12)
    assert found.jensen_shannon == pytest.approx(jensenshannon(p, q) ** 2, rel=1e-12)
    assert found.hellinger == pytest.approx(np.sqrt(1 - np.sqrt(p * q).sum()), rel=1e-12)
    assert found.chi2 == pytest.approx(np.square(p - q) @ (1 / q), rel=1e-12)


def test_equal_and_disjoint_histograms_are_the_limits():
    assert binned_divergences([3, 0, 5], [3, 0, 5], pseudo_count=0) == pytest.approx((0, 0, 0, 0))
    found = binned_divergences([7, 0], [0, 7], pseudo_count=0)
    assert found.jensen_shannon == pytest.approx(np.log(2))
    assert found.hellinger == pytest.approx(1)
    assert found.kl == np.inf
    assert found.chi2 == np.inf


def test_a_bin_the_generator_never_fills_is_not_dropped():
    reference = np.full(50, 2000.0)
    generated = np.where(np.arange(50) == 0, 0.0, 100_000 / 49)
    found = binned_divergences(generated, reference)
    kept = entropy(np.full(49, 1 / 49), np.full(49, 1 / 49))
    assert kept == 0, "without the empty bin nothing would be seen"
    # The rest of the bins give back log(49 / 50) each.
    expected = 0.02 * np.log(2 * 100_000 * 0.02) + 0.98 * np.log(49 / 50)
    assert found.kl == pytest.approx(expected, rel=0.01)


def test_a_shift_has_its_exact_divergences():
    result = compare_features(*normals(200_000, 200_000, 1, 1, SHIFT), seed=1, n_splits=5, n_bootstrap=30)
    exact = exact_divergences(SHIFT)
    edges = norm.ppf(np.arange(51) / 50)
    ideal = np.diff(norm.cdf(edges, SHIFT))
    binned = binned_divergences(ideal, np.full(50, 0.02), pseudo_count=0)
    for column, name in enumerate(DIVERGENCES):
        value, error = result.value[0, column], result.error[0, column]
        expected = exact[name] if name == "wasserstein" else getattr(binned, name)
        assert abs(value - expected) < 4 * error, name
        assert error < 0.02 * value, name
        # Bins lose little, and cannot gain.
        assert 0.93 * exact[name] < expected <= exact[name] + 1e-12, name
    assert (result.p_value == 1 / 6).all()


def test_wasserstein_is_that_of_scipy_on_the_samples():
    rng = np.random.default_rng(2)
    generated, reference = rng.exponential(size=(300, 2)).round(2), rng.normal(size=(200, 2)).round(2)
    weights = rng.uniform(size=300)
    found = compare_features(
        generated, reference, weights=weights, seed=1, n_bins=5, n_splits=2, n_bootstrap=2
    )
    expected = [
        wasserstein_distance(a, b, u_weights=weights) for a, b in zip(generated.T, reference.T, strict=True)
    ]
    assert found.value[:, 4] == pytest.approx(expected, rel=1e-12)


def test_wasserstein_has_the_unit_of_the_feature():
    """Unlike a distance of histogram heights, which no shift of empty bins changes."""
    _, reference = normals(1, 500, 1, 3)
    for shift in (0.5, 3.0, 100.0):
        result = compare_features(reference + shift, reference, seed=1, n_bins=5, n_splits=2, n_bootstrap=2)
        assert result.value[0, 4] == pytest.approx(shift)


def test_equal_samples_have_the_known_mean_divergence():
    """300 repetitions; 4 standard errors are passed by chance once in 16000."""
    n, m, n_bins = 2000, 1000, 20
    result = compare_features(*normals(n, m, 300, 4), seed=1, n_bins=n_bins, n_splits=15, n_bootstrap=2)
    kl = (n_bins - 1) / 2 * (1 / n + 1 / m)
    # The next order in the occupation of bins, 1 / 50, is allowed for.
    for name, expected in {"kl": kl, "jensen_shannon": kl / 4, "chi2": 2 * kl}.items():
        column = result.column(name)
        for sample in (result.value[:, column], result.baseline[:, column]):
            standard_error = sample.std() / np.sqrt(len(sample))
            assert abs(sample.mean() - expected) < 4 * standard_error + 0.02 * expected, name
    squares = np.square(result.value[:, 2])
    assert squares.mean() == pytest.approx(kl / 4, rel=0.05)


@pytest.mark.parametrize("n_spare", [0, 400])
def test_the_baseline_is_that_of_fresh_samples(n_spare):
    """Disjoint and redrawn baselines; 150 repetitions of W1 know the mean to 3%."""
    n, m = 400, 300
    _, spare = normals(1, n_spare, 150, 6)
    result = compare_features(
        *normals(n, m, 150, 5),
        spare=spare if n_spare else None,
        seed=1,
        n_bins=10,
        n_splits=40,
        n_bootstrap=2,
    )
    assert result.disjoint == (n_spare > 0)
    standard_error = result.value.std(axis=0) / np.sqrt(150)
    # Redrawing from so few events leaves W1 a little small.
    allowed = 4 * standard_error + 0.03 * result.value.mean(axis=0)
    assert (np.abs(result.baseline.mean(axis=0) - result.value.mean(axis=0)) < allowed).all()
    assert (result.baseline_low < result.baseline).all()
    assert (result.baseline < result.baseline_high).all()


@pytest.mark.parametrize(("n_spare", "weighted"), [(0, False), (450, False), (0, True)])
def test_false_alarms_have_their_rate(n_spare, weighted):
    """At p <= 0.05, of 4 x 50 repetitions; outside of the limits by chance once in 1000 for each measure."""
    n, m, p_values = 400, 300, []
    for seed in range(4):
        generated, reference = normals(n, m, 50, 10 + seed)
        weights = np.random.default_rng(seed).exponential(size=n) if weighted else None
        spare = normals(1, n_spare, 50, 20 + seed)[1] if n_spare else None
        options = {"seed": seed, "weights": weights, "spare": spare, "n_bins": 8}
        p_values.append(compare_features(generated, reference, n_splits=59, n_bootstrap=2, **options).p_value)
    alarms = (np.concatenate(p_values) <= 0.05).sum(axis=0)
    low, high = binom.ppf((0.0005, 0.9995), 200, 0.05)
    assert ((low <= alarms) & (alarms <= high)).all(), alarms


def test_a_shift_is_found():
    """500 events, a shift by 0.25 of W1 = 0.25 against a baseline of 0.05."""
    result = compare_features(*normals(500, 500, 40, 7, 0.25), seed=1, n_bins=10, n_splits=99, n_bootstrap=2)
    detected = (result.p_value <= 0.05).mean(axis=0)
    assert detected[:4].min() > 0.6
    assert detected[4] > 0.9


def test_bootstrap_errors_are_the_scatter():
    """200 repetitions know a standard deviation to 5%."""
    result = compare_features(
        *normals(600, 600, 200, 8, SHIFT), seed=1, n_bins=10, n_splits=2, n_bootstrap=30
    )
    assert result.error.mean(axis=0) == pytest.approx(result.value.std(axis=0), rel=0.2)


def test_weights_remove_a_shift():
    generated, reference = normals(4000, 4000, 1, 9, SHIFT)
    weights = np.exp(-SHIFT * generated[:, 0] + SHIFT**2 / 2)
    plain, weighted = (
        compare_features(generated, reference, weights=each, seed=1, n_bins=10, n_splits=99, n_bootstrap=2)
        for each in (None, weights)
    )
    assert (plain.p_value == 0.01).all()
    assert (weighted.p_value > 0.01).all()
    assert (weighted.ratio < 3).all()


def test_repeated_values_merge_bins_and_leave_none_empty():
    rng = np.random.default_rng(11)
    values = np.maximum(rng.normal(size=(2, 3000, 1)), 0.0)  # half of them zero
    capped = -values  # the repeated value is now the largest
    for sample in (values, capped):
        result = compare_features(*sample, seed=1, n_bins=20, n_splits=99, n_bootstrap=2)
        assert result.n_bins[0] in (11, 12)
        assert (result.p_value > 0.01).all()
        kl = (result.n_bins[0] - 1) / 2 * (2 / 3000)
        assert result.baseline[0, 0] == pytest.approx(kl, rel=0.2)


def test_results_are_reproducible_and_tabulated():
    samples = normals(200, 200, 2, 12)
    first, again, other = (
        compare_features(*samples, seed=seed, names=["mass", "angle"], n_bins=5, n_splits=9, n_bootstrap=9)
        for seed in (1, 1, 2)
    )
    assert first.table().equals(again.table())
    assert not first.table().equals(other.table())
    assert first.table().loc[("angle", "chi2"), "value"] == first.value[1, 3]
    with pytest.raises(ParameterError, match="'kl', 'jensen_shannon'"):
        first.column("entropy")


def test_bad_input_is_refused():
    good = normals(200, 200, 1, 13)
    with pytest.raises(DataError, match="each of 50 bins should hold 5"):
        compare_features(*good, seed=1)
    with pytest.raises(DataError, match="spare events have 2 features"):
        compare_features(*good, spare=np.ones((5, 2)), seed=1, n_bins=5)
    with pytest.raises(ParameterError, match="n_bins"):
        compare_features(*good, seed=1, n_bins=1)
    with pytest.raises(DataError, match="one shape"):
        binned_divergences([1, 2], [1, 2, 3])
    with pytest.raises(DataError, match="no negative counts"):
        binned_divergences([-1, 2], [1, 2])
