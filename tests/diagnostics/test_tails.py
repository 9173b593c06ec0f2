"""Tails against exact quantiles, and p-values that are exact at any sample size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import betabinom, binom, norm

from sbilib.diagnostics import TAIL_LEVELS, compare_tails
from sbilib.errors import DataError, ParameterError


def normals(n_generated, n_reference, n_features, seed, scale=1.0):
    """Each feature is one independent repetition."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, scale, (n_generated, n_features)), rng.normal(size=(n_reference, n_features))


def test_wider_normals_have_their_exact_tails():
    """30 repetitions; a mean of them is known to a fifth of the error of one."""
    scale = 1.1
    found = compare_tails(*normals(20_000, 20_000, 30, 1, scale))
    for index, level in enumerate(TAIL_LEVELS):
        edge = norm.ppf(level)
        for name, expected in {"generated": scale * edge, "reference": edge}.items():
            values, errors = (getattr(found, field)[:, index] for field in (name, f"{name}_error"))
            assert abs(values.mean() - expected) < 4 * errors.mean() / np.sqrt(30) + 1e-3 * abs(edge), level
            assert values.std() == pytest.approx(errors.mean(), rel=0.5)
        fraction = norm.cdf(-abs(edge) / scale)
        fractions = found.fraction[:, index]
        assert abs(fractions.mean() - fraction) < 4 * fractions.std() / np.sqrt(30), level
        assert found.expected[:, index] == pytest.approx(np.full(30, min(level, 1 - level)))
    assert (found.p_value < 0.05).mean() > 0.5


def test_errors_are_the_scatter():
    """400 repetitions know a standard deviation to 4%."""
    found = compare_tails(*normals(2000, 1000, 400, 2), levels=[0.02, 0.9])
    assert found.fraction_error.mean(axis=0) == pytest.approx(found.fraction.std(axis=0), rel=0.15)
    assert found.error.mean(axis=0) == pytest.approx(found.difference.std(axis=0), rel=0.15)


@pytest.mark.parametrize("density", ["normal", "cauchy"])
def test_false_alarms_have_their_rate_for_any_density(density):
    """The exact test is discrete and so a little cautious; outside of the limits once in 1000."""
    rng = np.random.default_rng(3)
    draw = rng.standard_normal if density == "normal" else rng.standard_cauchy
    found = compare_tails(draw((700, 1000)), draw((300, 1000)), levels=[0.05, 0.96])
    low, high = binom.ppf(0.0005, 1000, 0.035), binom.ppf(0.9995, 1000, 0.05)
    alarms = (found.p_value <= 0.05).sum(axis=0)
    assert ((low <= alarms) & (alarms <= high)).all(), alarms


def test_weighted_false_alarms_have_their_rate():
    """Shifted normals weighted back; the fraction is only nearly normal, so 3% to 8% are allowed."""
    generated, reference = normals(4000, 4000, 1000, 4)
    generated += 0.3
    weights = np.exp(-0.3 * generated + 0.3**2 / 2)
    p_values = [
        compare_tails(x[:, None], y[:, None], weights=w, levels=[0.05, 0.95]).p_value[0]
        for x, y, w in zip(generated.T, reference.T, weights.T, strict=True)
    ]
    rates = (np.array(p_values) <= 0.05).mean(axis=0)
    assert ((rates > 0.03) & (rates < 0.08)).all(), rates


def test_p_values_are_those_of_the_beta_binomial():
    """The 15th of 300 reference events is 14; 0 to 40 of 200 generated events lie at or below it."""
    reference = np.arange(300.0)[:, None]
    chance = betabinom(200, 15, 300 + 1 - 15)
    for count in (0, 3, 10, 17, 40):
        generated = np.where(np.arange(200) < count, 5.0, 100.0 + np.arange(200))[:, None]
        found = compare_tails(generated, reference, levels=[0.05])
        expected = min(1.0, 2 * min(chance.cdf(count), chance.sf(count - 1)))
        assert found.p_value[0, 0] == pytest.approx(expected, rel=1e-6)


def test_very_small_p_values_are_exact():
    """The sum of the chances below an outcome is one to rounding, and gave negative p-values."""
    reference = np.arange(10_000.0)[:, None]
    generated = np.concatenate([np.full(400, -1.0), np.arange(400.0, 10_000.0)])[:, None]
    found = compare_tails(generated, reference, levels=[0.01])
    # As many not beyond, from the other end: the same distribution mirrored.
    outcomes = np.arange(10_000 - 400 + 1)
    expected = 2 * betabinom.pmf(outcomes, 10_000, 10_001 - 100, 100).sum()
    assert 0 < found.p_value[0, 0] < 1e-20
    assert found.p_value[0, 0] == pytest.approx(expected, rel=1e-6)


def test_both_tails_are_mirror_images():
    generated, reference = normals(500, 400, 2, 5, 1.3)
    upper = compare_tails(generated, reference, levels=[0.95])
    lower = compare_tails(-generated, -reference, levels=[0.05])
    assert (upper.generated == -lower.generated).all()
    for name in ("fraction", "expected", "p_value", "error"):
        assert getattr(upper, name) == pytest.approx(getattr(lower, name), rel=1e-9), name


def test_a_cut_off_tail_is_found():
    """A generator that stops at its 99% quantile."""
    generated, reference = normals(20_000, 20_000, 1, 6)
    found = compare_tails(np.minimum(generated, norm.ppf(0.99)), reference)
    place = TAIL_LEVELS.index(0.998)
    assert found.fraction[0, place] == 0
    assert found.p_value[0, place] < 1e-8
    assert found.difference[0, place] < -5 * found.error[0, place]
    assert (found.p_value[0, :4] > 0.001).all()


def test_whole_weights_are_copies_of_events():
    generated, reference = normals(300, 300, 1, 7)
    counts = np.random.default_rng(1).integers(0, 4, size=300)
    weighted = compare_tails(generated, reference, weights=counts, levels=[0.1, 0.9])
    copied = compare_tails(np.repeat(generated, counts, axis=0), reference, levels=[0.1, 0.9])
    assert (weighted.generated == copied.generated).all()
    assert weighted.fraction == pytest.approx(copied.fraction, rel=1e-12)
    # Copies are no new events.
    assert (weighted.fraction_error > copied.fraction_error).all()


def test_repeated_values_count_in_both_samples():
    rng = np.random.default_rng(8)
    generated, reference = np.maximum(rng.normal(size=(2, 2000, 1)), -1.0)  # 16% at the bound
    found = compare_tails(generated, reference, levels=[0.01])
    assert found.reference[0, 0] == found.generated[0, 0] == -1
    assert found.expected[0, 0] == pytest.approx((reference == -1).mean())
    assert found.p_value[0, 0] > 0.001


def test_the_table_has_a_row_a_feature_and_level():
    found = compare_tails(*normals(500, 500, 2, 9), names=["mass", "angle"], levels=[0.05, 0.9])
    table = found.table()
    assert table.loc[("angle", 0.9), "fraction"] == found.fraction[1, 1]
    assert table.loc[("mass", 0.05), "difference"] == found.difference[0, 0]


def test_bad_input_is_refused():
    good = normals(500, 500, 1, 10)
    with pytest.raises(DataError, match=r"at least 10000 generated.*less extreme levels"):
        compare_tails(*good)
    compare_tails(*good, levels=[0.98])  # ten events beyond, in spite of rounding
    for level in (0.0, 1.0, 0.5):
        with pytest.raises(ParameterError, match="level"):
            compare_tails(*good, levels=[level])
    with pytest.raises(ParameterError, match="at least one"):
        compare_tails(*good, levels=[])
