"""Fits of many sets at once: against iminuit, against the dense grid, and their coverage."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from iminuit import Minuit
from scipy.stats import binom

from sbilib.components import LogComponents
from sbilib.errors import DataError, ParameterError
from sbilib.likelihood import (
    EventSets,
    NuisanceTable,
    ScanGrid,
    crossing_interval,
    fit_event_sets,
    fit_sets,
    fit_toys,
    parabolic_interval,
    profile_nuisance,
    profile_signal_ratio,
    profile_windows,
    scan_nll,
)
from sbilib.likelihood.fine import fine_fit
from sbilib.problems.gaussian import GaussianToy
from sbilib.problems.sets import bootstrap_counts, make_toys

from .examples import RoughDensities, seeded, toy_events, toy_table

LARGE, SMALL = GaussianToy.large_distance(), GaussianToy.small_distance()


def intervals_of(scan):
    return (
        crossing_interval(profile_signal_ratio(scan, refine=True)),
        crossing_interval(profile_nuisance(scan, refine=True)),
    )


def assert_same(got, want, *, mean):
    """Edges and best fits agree to ``mean`` of the interval width on average; flags are equal."""
    for name in ("best", "lower", "upper"):
        difference = ((getattr(got, name) - getattr(want, name)) / want.width).abs()
        assert difference.mean().item() < mean, name
        assert difference.max().item() < 10 * mean, name
    assert torch.equal(got.lower_open, want.lower_open)
    assert torch.equal(got.upper_open, want.upper_open)


@pytest.mark.parametrize(("toy", "n_events"), [(LARGE, 1000), (SMALL, 4000)])
def test_best_fit_and_errors_equal_those_of_minos(toy, n_events):
    events = toy_events(toy, n_events, 0.2, math.pi / 4, 11)

    def nll(ratio, nuisance):
        z = torch.tensor([nuisance], dtype=torch.float64)
        signal, background = toy.log_components(events, z)
        return -(torch.logaddexp(math.log(ratio) + signal, background) - math.log1p(ratio)).sum().item()

    minuit = Minuit(nll, ratio=0.2, nuisance=0.8)
    minuit.errordef, minuit.strategy, minuit.tol = Minuit.LIKELIHOOD, 2, 1e-4
    minuit.limits = [(1e-6, 0.5), toy.scan_range]
    minuit.migrad()
    minuit.minos()
    fits = fit_sets(toy_table(toy, events), torch.ones(1, n_events))
    assert bool(fits.converged.all())
    for name, interval in (("ratio", fits.ratio_interval), ("nuisance", fits.nuisance_interval)):
        oracle = minuit.merrors[name]
        sigma = (oracle.upper - oracle.lower) / 2
        best = minuit.values[name]
        assert interval.best.item() == pytest.approx(best, abs=1e-3 * sigma)
        # Minos itself stops at 1e-2 of its tolerance, a few 1e-4 of a standard deviation.
        assert interval.lower.item() == pytest.approx(best + oracle.lower, abs=1e-3 * sigma)
        assert interval.upper.item() == pytest.approx(best + oracle.upper, abs=1e-3 * sigma)
    assert fits.nll_min.item() == pytest.approx(minuit.fval, abs=1e-6)


@pytest.mark.parametrize("toy", [LARGE, SMALL])
def test_edges_solve_the_profile_equations_exactly(toy):
    """At an edge the exact NLL, minimized over the other parameter, is half a unit above the minimum."""
    events = toy_events(toy, 1500, 0.2, math.pi / 4, 12)
    fits = fit_sets(toy_table(toy, events), torch.ones(1, 1500))

    def smallest(ratio_range, nuisance_range):
        grid = ScanGrid.uniform(
            ratio_range=ratio_range, nuisance_range=nuisance_range, n_ratios=61, n_nuisances=61
        )
        return scan_nll(toy, events, grid)

    ratio, nuisance = fits.ratio_interval, fits.nuisance_interval
    for edge in (ratio.lower, ratio.upper):
        near = smallest((edge.item(), edge.item() + 1e-3), (nuisance.lower.item(), nuisance.upper.item()))
        value = profile_signal_ratio(near, refine=True).nll[0] + near.minimum
        assert (value - fits.nll_min).item() == pytest.approx(0.5, abs=1e-5)
    for edge in (nuisance.lower, nuisance.upper):
        near = smallest((ratio.lower.item(), ratio.upper.item()), (edge.item(), edge.item() + 1e-3))
        value = profile_nuisance(near, refine=True).nll[0] + near.minimum
        assert (value - fits.nll_min).item() == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize(
    ("toy", "ratio", "nuisance", "set_size"),
    [
        (LARGE, 0.2, 0.785, 1000),
        (SMALL, 0.2, 0.785, 1000),
        (LARGE, 0.45, 0.33, 200),  # leaves the range of the ratio above and of the angle below
        (SMALL, 0.05, 1.2, 100),  # best fits at zero signal, and on the upper end of the angle
    ],
)
def test_bootstrap_fits_equal_the_dense_grid(toy, ratio, nuisance, set_size):
    events = toy_events(toy, 3 * set_size, ratio, nuisance, 13)
    counts = bootstrap_counts(3 * set_size, 12, set_size, seeded(14))
    fits = fit_sets(toy_table(toy, events), counts)
    scan = scan_nll(
        toy,
        events,
        ScanGrid.uniform(nuisance_range=toy.scan_range, n_ratios=301, n_nuisances=101),
        counts=counts,
    )
    in_ratio, in_nuisance = intervals_of(scan)
    assert_same(fits.ratio_interval, in_ratio, mean=1e-4)
    assert_same(fits.nuisance_interval, in_nuisance, mean=1e-4)
    assert torch.equal(fits.ratio_at_bound, (in_ratio.best == 0) | (in_ratio.best == 0.5))
    assert torch.equal(fits.nuisance_interval.best, fits.nuisance)


def test_densities_with_kinks_give_the_intervals_of_the_dense_grid():
    events = toy_events(LARGE, 1000, 0.2, 0.785, 15)
    counts = bootstrap_counts(1000, 12, 1000, seeded(16))
    rough = RoughDensities(LARGE, 0.1)
    fits = fit_sets(toy_table(rough, events, 121), counts)
    scan = scan_nll(
        rough, events, ScanGrid.uniform(nuisance_range=LARGE.scan_range, n_ratios=101), counts=counts
    )
    in_ratio, in_nuisance = intervals_of(scan)
    assert_same(fits.ratio_interval, in_ratio, mean=1e-3)
    assert_same(fits.nuisance_interval, in_nuisance, mean=1e-3)


def test_toys_fitted_in_groups_equal_the_same_events_as_shared_sets():
    toys = make_toys(LARGE, signal_ratio=0.2, nuisance=0.8, n_toys=5, n_events=200, generator=seeded(17))
    nodes = torch.linspace(*LARGE.scan_range, 61, dtype=torch.float64)
    small, large = (fit_toys(LARGE, toys, nodes, max_memory=size) for size in (1, 2**30))
    counts = torch.eye(5).repeat_interleave(200, dim=1)
    shared = fit_sets(NuisanceTable.build(LARGE, toys.reshape(-1, 2), nodes), counts)
    for other in (large, shared):
        torch.testing.assert_close(small.ratio_interval.lower, other.ratio_interval.lower, rtol=0, atol=1e-7)
        torch.testing.assert_close(small.nuisance, other.nuisance, rtol=0, atol=1e-7)
        torch.testing.assert_close(small.nll_min, other.nll_min)


def test_the_fine_scan_gives_the_same_fit_as_the_newton_iteration():
    for toy, n_events in ((LARGE, 400), (SMALL, 200)):
        sets = EventSets.from_counts(
            toy_table(toy, toy_events(toy, n_events, 0.2, 0.8, 18)), torch.ones(1, n_events)
        )
        quick, slow = fit_event_sets(sets), fine_fit(sets, ratio_range=(0.0, 0.5), level=1.0)
        assert bool(quick.converged.all())
        for name in ("ratio_interval", "nuisance_interval"):
            a, b = getattr(quick, name), getattr(slow, name)
            for edge in ("best", "lower", "upper"):
                assert getattr(a, edge)[0].item() == pytest.approx(
                    getattr(b, edge).item(), abs=2e-4 * b.width.item()
                )
        assert quick.nll_min.item() == pytest.approx(slow.nll_min.item(), abs=1e-3)


def test_the_deeper_of_two_minima_is_found():
    """A likelihood with two dips in the nuisance parameter is left to the fine scan."""

    class TwoDips:
        def log_components(self, x, nuisance):
            dips = torch.minimum((nuisance - 0.3).abs(), (nuisance - 0.72).abs() + 0.02)
            log_prob = -((x - 3 * dips) ** 2) / 2
            return LogComponents(log_prob - 0.2, log_prob)

    events = 0.02 * torch.randn(200, 1, generator=seeded(19), dtype=torch.float64)
    table = NuisanceTable.build(TwoDips(), events, torch.linspace(0, 1, 101, dtype=torch.float64))
    fits = fit_sets(table, torch.ones(1, 200))
    assert not bool(fits.converged)
    assert fits.nuisance.item() == pytest.approx(0.3, abs=0.01)
    assert fits.ratio_at_bound
    assert fits.signal_ratio == 0
    assert fits.nuisance_interval.upper.item() < 0.4


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.5), st.integers(5, 60))
def test_the_interval_of_any_small_set_holds_its_best_fit(seed, ratio, n_events):
    events = toy_events(SMALL, n_events, ratio, 0.8, seed)
    fits = fit_sets(toy_table(SMALL, events, 31), torch.ones(1, n_events))
    for interval, (low, high) in (
        (fits.ratio_interval, (0, 0.5)),
        (fits.nuisance_interval, SMALL.scan_range),
    ):
        assert (
            low - 1e-12
            <= interval.lower.item()
            <= interval.best.item()
            <= interval.upper.item()
            <= high + 1e-12
        )
        assert interval.lower_open.item() == (interval.lower.item() == pytest.approx(low, abs=1e-12))
        assert interval.upper_open.item() == (interval.upper.item() == pytest.approx(high, abs=1e-12))


def test_a_higher_level_gives_a_wider_interval_within_the_same_fit():
    events = toy_events(LARGE, 800, 0.2, 0.8, 20)
    table = toy_table(LARGE, events)
    one, four = (fit_sets(table, torch.ones(1, 800), level=level) for level in (1.0, 4.0))
    assert one.signal_ratio.item() == pytest.approx(four.signal_ratio.item(), abs=1e-9)
    ratio = four.ratio_interval.width / one.ratio_interval.width
    assert ratio.item() == pytest.approx(2, abs=0.05)


def test_parabolic_intervals_from_a_few_points_equal_those_of_the_dense_grid():
    events = toy_events(LARGE, 2000, 0.2, 0.8, 21)
    counts = bootstrap_counts(2000, 6, 1000, seeded(22))
    sets = EventSets.from_counts(toy_table(LARGE, events), counts)
    windows = profile_windows(sets, fit_event_sets(sets))
    grid = ScanGrid.uniform(nuisance_range=LARGE.scan_range, n_ratios=300, n_nuisances=120)
    scan = scan_nll(LARGE, events, grid, counts=counts)
    pairs = (
        (windows.signal_ratio, profile_signal_ratio(scan, refine=True)),
        (windows.nuisance, profile_nuisance(scan, refine=True)),
    )
    for few, dense in pairs:
        got, want = parabolic_interval(few), parabolic_interval(dense)
        assert bool(want.valid.all())
        for name in ("best", "lower", "upper"):
            difference = ((getattr(got, name) - getattr(want, name)) / want.width).abs()
            assert difference.max().item() < 2e-3


def test_coverage_of_independent_toys_is_that_of_one_standard_deviation():
    """Exact crossings cover 68.3% of 600 toys; a correct construction fails 1 time in 1000 a parameter."""
    n_toys, truth = 600, (0.2, math.pi / 4)
    toys = make_toys(
        LARGE, signal_ratio=truth[0], nuisance=truth[1], n_toys=n_toys, n_events=500, generator=seeded(23)
    )
    fits = fit_toys(LARGE, toys, torch.linspace(*LARGE.scan_range, 31, dtype=torch.float64))
    low, high = binom.interval(0.999, n_toys, 0.6827)
    for interval, value in ((fits.ratio_interval, truth[0]), (fits.nuisance_interval, truth[1])):
        assert low <= int(interval.contains(value).sum()) <= high
    pull = (fits.signal_ratio - truth[0]) / (fits.ratio_interval.width / 2)
    assert pull.std().item() == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (torch.zeros(4, 2), "n_toys, n_events"),
        (torch.zeros(2, 0, 2), "n_toys"),
        (torch.full((1, 2, 2), math.nan), "NaN"),
    ],
)
def test_bad_toys_are_refused(events, message):
    with pytest.raises(DataError, match=message):
        fit_toys(LARGE, events, torch.linspace(*LARGE.scan_range, 11))


def test_bad_options_are_refused():
    table = toy_table(LARGE, torch.zeros(3, 2))
    with pytest.raises(ParameterError, match="ratio_range"):
        fit_sets(table, torch.ones(1, 3), ratio_range=(-0.1, 0.5))
    with pytest.raises(ParameterError, match="level"):
        fit_sets(table, torch.ones(1, 3), level=-1.0)
    with pytest.raises(DataError, match="counts"):
        fit_sets(table, torch.ones(1, 4))
    sets = EventSets.from_counts(table, torch.ones(1, 3))
    with pytest.raises(ParameterError, match="n_points"):
        profile_windows(sets, fit_event_sets(sets), n_points=3)
