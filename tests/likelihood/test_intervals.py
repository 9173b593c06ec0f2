"""Profiles, crossing intervals, parabolic intervals and overlaps."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, norm

from sbilib.errors import DataError, ParameterError
from sbilib.likelihood import (
    Intervals,
    NLLScan,
    Profile,
    ScanGrid,
    best_fit,
    crossing_interval,
    fit_quartic,
    likelihood_overlaps,
    overlap,
    parabolic_interval,
    parabolic_levels,
    profile_nuisance,
    profile_signal_ratio,
    scan_nll,
)
from sbilib.problems.gaussian import GaussianToy

from .examples import toy_events


def line(low, high, n):
    return torch.linspace(low, high, n, dtype=torch.float64)


def paraboloid(ratio, nuisance, correlation, n_ratios=81, n_nuisances=61):
    """A scan of a correlated Gaussian likelihood with standard deviations 0.03 and 0.1."""
    grid = ScanGrid(line(0, 0.5, n_ratios), line(0, 1, n_nuisances))
    u = ((grid.signal_ratios - ratio) / 0.03)[:, None]
    v = ((grid.nuisances - nuisance) / 0.1)[None]
    nll = (u**2 - 2 * correlation * u * v + v**2) / (2 * (1 - correlation**2))
    minimum = nll.min()
    return NLLScan(nll - minimum, minimum, grid)


def test_profiles_of_a_correlated_gaussian_have_the_marginal_widths():
    scan = paraboloid(0.211, 0.437, 0.6)
    ratio = crossing_interval(profile_signal_ratio(scan, refine=True))
    nuisance = crossing_interval(profile_nuisance(scan, refine=True))
    assert ratio.lower.item() == pytest.approx(0.211 - 0.03, abs=1e-6)
    assert ratio.upper.item() == pytest.approx(0.211 + 0.03, abs=1e-6)
    assert nuisance.lower.item() == pytest.approx(0.337, abs=1e-6)
    assert nuisance.best.item() == pytest.approx(0.437, abs=1e-6)


def test_an_unrefined_profile_is_the_smallest_grid_value():
    scan = paraboloid(0.211, 0.437, 0.6)
    assert torch.equal(profile_signal_ratio(scan).nll, scan.nll.min(dim=1).values)
    assert torch.equal(profile_nuisance(scan).nll, scan.nll.min(dim=0).values)
    assert bool((profile_nuisance(scan, refine=True).nll <= profile_nuisance(scan).nll).all())


def test_best_fit_flags_the_edges_of_the_grid():
    inside = best_fit(paraboloid(0.211, 0.437, 0.6))
    assert inside.signal_ratio.item() == pytest.approx(0.211, abs=0.01)
    assert not inside.ratio_at_edge
    assert not inside.nuisance_at_edge
    outside = best_fit(paraboloid(-0.1, 1.3, 0.0))
    assert outside.signal_ratio == 0
    assert outside.nuisance == 1
    assert outside.ratio_at_edge
    assert outside.nuisance_at_edge


def test_an_edge_outside_the_range_is_open_and_holds_every_truth_there():
    profile = Profile(
        line(0, 1, 101), torch.stack([(line(0, 1, 101) - m) ** 2 / 0.02 for m in (0.05, 0.5, 0.97)])
    )
    interval = crossing_interval(profile)
    assert interval.lower_open.tolist() == [True, False, False]
    assert interval.upper_open.tolist() == [False, False, True]
    assert interval.lower[0] == 0
    assert interval.upper[2] == 1
    assert interval.contains(-3.0).tolist() == [True, False, False]
    assert interval.contains(9.0).tolist() == [False, False, True]


def test_a_minimum_on_the_first_point_leaves_the_lower_edge_open():
    x = line(0, 1, 51)
    interval = crossing_interval(Profile(x, 10 * x))
    assert interval.best == 0
    assert interval.lower_open
    assert interval.upper.item() == pytest.approx(0.05, abs=1e-9)


def test_the_interval_is_the_dip_around_the_deepest_minimum():
    x = line(-2, 2, 401)
    interval = crossing_interval(Profile(x, 8 * (x**2 - 1) ** 2 + 0.3 * x))
    assert interval.best.item() == pytest.approx(-1, abs=0.02)
    assert -1.3 < interval.lower.item() < interval.upper.item() < -0.7


@settings(max_examples=40, deadline=None)
@given(st.floats(-1, 1), st.floats(0.3, 2), st.floats(-0.1, 0.1), st.floats(0.2, 4))
def test_crossings_of_a_skewed_profile_reach_the_level(center, width, skew, level):
    x = line(-20, 20, 801)
    t = (x - center) / width

    def nll(t):
        return t**2 / 2 + skew * t**3 / 6 + 0.1 * t**4

    interval = crossing_interval(Profile(x, nll(t)), level=level)
    for edge in (interval.lower.item(), interval.upper.item()):
        assert 2 * nll((edge - center) / width) == pytest.approx(level, abs=3e-3 * level + 2e-3)
    assert interval.lower < interval.best < interval.upper


def test_infinite_nll_around_the_minimum_is_no_obstacle():
    x = line(-5, 5, 101)
    nll = (x - 0.013) ** 2 / 2
    cut = torch.where(x.abs() > 2.5, torch.inf, nll)
    plain, restricted = (crossing_interval(Profile(x, n)) for n in (nll, cut))
    assert restricted.lower.item() == pytest.approx(plain.lower.item(), abs=1e-12)
    assert restricted.upper.item() == pytest.approx(plain.upper.item(), abs=1e-12)


def test_parabola_gives_the_same_interval_by_both_constructions():
    x = line(-4, 4, 161)
    profile = Profile(x, (x - 0.37) ** 2 / (2 * 0.6**2))
    for interval in (
        crossing_interval(profile),
        parabolic_interval(profile),
        parabolic_interval(profile, window=None),
    ):
        assert interval.lower.item() == pytest.approx(-0.23, abs=1e-6)
        assert interval.upper.item() == pytest.approx(0.97, abs=1e-6)


def test_a_quartic_is_fitted_exactly_and_its_levels_follow_from_it():
    x = line(-2, 2, 201)
    q = 0.5 * x**2 + 0.08 * x**3 + 0.03 * x**4
    fit = fit_quartic(Profile(x, q), window=None)
    torch.testing.assert_close(fit.nll(x[None]), q[None], rtol=0, atol=1e-10)
    assert fit.best.item() == pytest.approx(0, abs=1e-9)
    assert fit.sigma.item() == pytest.approx(1, abs=1e-9)
    levels = parabolic_levels(Profile(x, q), window=None)
    assert levels.lower.item() == pytest.approx(chi2.cdf(2 * (0.5 - 0.08 + 0.03), 1), abs=1e-8)
    assert levels.upper.item() == pytest.approx(chi2.cdf(2 * (0.5 + 0.08 + 0.03), 1), abs=1e-8)


def test_levels_of_the_exact_toy_lie_between_65_and_75_percent():
    """Appendix B of the source; the ratio is asymmetric, the angle symmetric."""
    for radius in (2.0, 0.5):
        toy = GaussianToy(radius)
        grid = ScanGrid.uniform(nuisance_range=toy.scan_range, n_ratios=150, n_nuisances=60)
        scan = scan_nll(toy, toy_events(toy, 1000, 0.2, math.pi / 4, 8), grid)
        ratio = parabolic_levels(profile_signal_ratio(scan, refine=True))
        assert 0.69 < ratio.lower.item() < 0.75
        assert 0.645 < ratio.upper.item() < 0.675
        nuisance = parabolic_levels(profile_nuisance(scan, refine=True))
        assert nuisance.lower.item() == pytest.approx(0.6827, abs=0.003)


def test_a_profile_without_curvature_gives_an_invalid_interval():
    x = line(0, 1, 50)
    interval = parabolic_interval(Profile(x, torch.stack((-(x**2), (x - 0.5) ** 2 * 100))))
    assert interval.valid.tolist() == [False, True]
    assert bool(interval.width[0].isnan())
    assert interval.contains(0.5).tolist() == [False, True]
    assert bool(parabolic_levels(Profile(x, -(x**2))).lower.isnan())


def test_points_beyond_a_barrier_are_not_fitted():
    """A second dip beyond the window does not disturb the fit of the first."""
    x = line(-3, 3, 301)
    first = 10 * (x + 1) ** 2
    two = torch.minimum(first, 10 * (x - 2) ** 2 + 0.4)
    a, b = parabolic_interval(Profile(x, two)), parabolic_interval(Profile(x, first))
    assert a.upper.item() == pytest.approx(b.upper.item(), abs=1e-6)


def test_parabolic_edges_outside_the_range_are_open():
    x = line(0, 1, 80)
    interval = parabolic_interval(Profile(x, (x - 0.1) ** 2 / (2 * 0.2**2)))
    assert interval.lower_open
    assert interval.lower == 0
    assert interval.contains(-1.0)
    assert not interval.upper_open
    assert interval.upper.item() == pytest.approx(0.3, abs=1e-6)


def test_overlap_of_two_gaussians_is_known():
    """Unit Gaussians at distance d overlap by 2 Phi(-d/2)."""
    x = line(-12, 12, 4801)
    for distance in (0.0, 0.5, 2.0):
        got = overlap((x + distance / 2) ** 2 / 2, (x - distance / 2) ** 2 / 2)
        assert got.item() == pytest.approx(2 * norm.cdf(-distance / 2), abs=1e-5)


def test_overlap_ignores_constants_and_is_symmetric():
    a, b = paraboloid(0.2, 0.4, 0.5), paraboloid(0.25, 0.5, 0.2)
    shifted = NLLScan(a.nll + 7.0, a.minimum, a.grid)
    for one, two in zip(likelihood_overlaps(a, b), likelihood_overlaps(b, shifted), strict=True):
        assert one.item() == pytest.approx(two.item(), abs=1e-12)
    assert [v.item() for v in likelihood_overlaps(a, a)] == [1.0, 1.0, 1.0]
    shared = likelihood_overlaps(a, b)
    assert shared.total < min(shared.signal_ratio, shared.nuisance)


def test_overlap_of_different_grids_is_refused():
    with pytest.raises(DataError, match="same grid"):
        likelihood_overlaps(paraboloid(0.2, 0.4, 0.5), paraboloid(0.2, 0.4, 0.5, n_ratios=80))
    with pytest.raises(DataError, match="one shape"):
        overlap(torch.zeros(3), torch.zeros(4))
    with pytest.raises(DataError, match="NaN"):
        overlap(torch.full((3,), math.nan), torch.zeros(3))


def test_bad_profiles_and_levels_are_refused():
    x = line(0, 1, 5)
    with pytest.raises(DataError, match="do not match"):
        Profile(x, torch.zeros(6))
    with pytest.raises(DataError, match="NaN"):
        Profile(x, x * math.nan)
    with pytest.raises(DataError, match="at least two points"):
        Profile(x[:1], x[:1])
    with pytest.raises(ParameterError, match="level"):
        crossing_interval(Profile(x, x), level=0.0)
    with pytest.raises(ParameterError, match="window"):
        parabolic_interval(Profile(x, x), window=-1.0)


def test_intervals_hold_their_ends():
    yes, no = torch.tensor(True), torch.tensor(False)
    interval = Intervals(torch.tensor(0.5), torch.tensor(0.25), torch.tensor(0.75), no, no, yes)
    assert interval.contains(0.25)
    assert interval.contains(0.75)
    assert not interval.contains(0.8)
    assert interval.width == 0.5
