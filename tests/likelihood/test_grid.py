"""The scan against the formula, in bounded memory, restricted, and with bad input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbilib.components import LogComponents
from sbilib.errors import DataError, ParameterError
from sbilib.likelihood import ScanGrid, likelihood_overlaps, scan_nll
from sbilib.problems.gaussian import GaussianToy

from .examples import seeded, toy_events

TOY = GaussianToy.large_distance()
GRID = ScanGrid.uniform(nuisance_range=TOY.scan_range, n_ratios=31, n_nuisances=23)


def direct_nll(toy, events, grid, counts):
    """The sum over events of -log p(x | mu, z), each p formed as it is defined."""
    signal, background = (t.exp() for t in toy.log_components(events, grid.nuisances))
    ratio = grid.signal_ratios[:, None, None]
    log_prob = ((ratio * signal + background) / (1 + ratio)).log()
    return -torch.einsum("bn,mnz->bmz", counts.double(), log_prob)


def test_scan_equals_the_direct_sum_for_every_set():
    events = toy_events(TOY, 300, 0.2, 0.8, 1)
    counts = torch.randint(0, 4, (5, 300), generator=seeded(2))
    scan = scan_nll(TOY, events, GRID, counts=counts)
    torch.testing.assert_close(
        scan.nll + scan.minimum[:, None, None], direct_nll(TOY, events, GRID, counts), rtol=1e-12, atol=1e-9
    )
    assert scan.nll.flatten(1).min(dim=1).values.tolist() == [0.0] * 5


def test_blocks_of_any_size_give_the_same_scan():
    events = toy_events(TOY, 20_000, 0.2, 0.8, 1)
    grid = ScanGrid.uniform(nuisance_range=TOY.scan_range, n_ratios=5, n_nuisances=4)
    small, large = (scan_nll(TOY, events, grid, max_memory=size) for size in (1, 2**30))
    torch.testing.assert_close(small.nll, large.nll, rtol=1e-12, atol=1e-9)


def test_counts_of_one_equal_no_counts_and_counts_equal_repeated_events():
    events = toy_events(TOY, 100, 0.2, 0.8, 1)
    once = scan_nll(TOY, events, GRID)
    ones = scan_nll(TOY, events, GRID, counts=torch.ones(1, 100))
    torch.testing.assert_close(ones.nll[0], once.nll, rtol=0, atol=1e-10)
    counts = torch.randint(0, 3, (1, 100), generator=seeded(3))
    repeated = scan_nll(TOY, events.repeat_interleave(counts[0], dim=0), GRID)
    counted = scan_nll(TOY, events, GRID, counts=counts)
    torch.testing.assert_close(counted.nll[0], repeated.nll, rtol=0, atol=1e-10)
    torch.testing.assert_close(counted.minimum[0], repeated.minimum)


def test_given_log_densities_equal_those_of_the_model():
    events = toy_events(TOY, 50, 0.2, 0.8, 1)
    values = TOY.log_components(events, GRID.nuisances)
    torch.testing.assert_close(scan_nll(values, None, GRID).nll, scan_nll(TOY, events, GRID).nll)


def test_a_constant_per_event_changes_nothing_but_the_minimum():
    events = toy_events(TOY, 50, 0.2, 0.8, 1)
    values = TOY.log_components(events, GRID.nuisances)
    shift = torch.randn(50, 1, generator=seeded(1), dtype=torch.float64)
    moved = scan_nll(LogComponents(values.signal + shift, values.background + shift), None, GRID)
    plain = scan_nll(values, None, GRID)
    torch.testing.assert_close(moved.nll, plain.nll, rtol=0, atol=1e-10)
    torch.testing.assert_close(moved.minimum, plain.minimum - shift.sum())


@pytest.mark.parametrize("size", [1e3, -1e3])
def test_log_ratios_of_a_thousand_stay_finite(size):
    values = LogComponents(torch.full((4, 2), size), torch.zeros(4, 2))
    grid = ScanGrid(torch.tensor([0.0, 0.1, 0.5]), torch.tensor([0.0, 1.0]))
    scan = scan_nll(values, None, grid)
    expected = [-4 * (math.log(mu) + size if size > 0 else 0) + 4 * math.log1p(mu) for mu in (0.1, 0.5)]
    absolute = scan.nll[:, 0] + scan.minimum
    torch.testing.assert_close(absolute, torch.tensor([0.0, *expected], dtype=torch.float64))


@pytest.mark.parametrize("radius", [2.0, 0.5])
def test_restricted_scan_gives_the_same_overlaps(radius):
    toy, other = GaussianToy(radius), GaussianToy(radius * 1.1)
    events = toy_events(toy, 600, 0.2, 0.8, 4)
    counts = torch.randint(0, 2, (4, 600), generator=seeded(5))
    grid = ScanGrid.uniform(nuisance_range=toy.scan_range, n_ratios=120, n_nuisances=90)
    full, cut = (
        likelihood_overlaps(*(scan_nll(t, events, grid, counts=counts, restrict=r) for t in (toy, other)))
        for r in (False, True)
    )
    for a, b in zip(full, cut, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert float(full.total.max()) < 0.99


def test_restricted_scan_leaves_out_what_is_negligible():
    events = toy_events(TOY, 3000, 0.2, 0.8, 4)
    grid = ScanGrid.uniform(nuisance_range=TOY.scan_range, n_ratios=120, n_nuisances=90)
    full, cut = (scan_nll(TOY, events, grid, restrict=r).nll for r in (False, True))
    outside = cut.isinf()
    assert 0.3 < float(outside.double().mean()) < 0.95
    assert float(full[outside].min()) > 30
    torch.testing.assert_close(cut[~outside], full[~outside], rtol=0, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=6),
    st.floats(0.001, 3),
)
def test_nll_of_any_events_is_the_sum_of_minus_log_mixtures(pairs, ratio):
    values = torch.tensor(pairs, dtype=torch.float64)
    densities = LogComponents(values[:, :1].expand(-1, 2), values[:, 1:].expand(-1, 2))
    grid = ScanGrid(torch.tensor([0.0, ratio], dtype=torch.float64), torch.tensor([0.0, 1.0]))
    scan = scan_nll(densities, None, grid)
    absolute = (scan.nll + scan.minimum)[:, 0].tolist()
    expected = -sum(math.log((ratio * math.exp(s) + math.exp(b)) / (1 + ratio)) for s, b in pairs)
    assert absolute[0] == pytest.approx(-sum(b for _, b in pairs), abs=1e-9)
    assert absolute[1] == pytest.approx(expected, rel=1e-10, abs=1e-9)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (([0.1], [0.0, 1.0]), "at least two grid points, got .0.1"),
        (([0.0, 0.1], [0.5]), "two or more increasing values"),
        (([-0.1, 0.1], [0.0, 1.0]), "must not be negative, got -0.1"),
        (([0.1, 0.1], [0.0, 1.0]), "strictly increasing"),
        (([0.0, math.nan], [0.0, 1.0]), "finite"),
    ],
)
def test_bad_grids_are_refused(axes, message):
    with pytest.raises(ParameterError, match=message):
        ScanGrid(*(torch.tensor(a, dtype=torch.float64) for a in axes))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_ratios": 1}, "n_ratios must be at least 2, got 1"),
        ({"ratio_range": (-0.1, 0.5)}, "ratio_range .* not below 0, got \\(-0.1, 0.5\\)"),
        ({"nuisance_range": (1.0, 1.0)}, "nuisance_range must be two increasing"),
        ({"nuisance_range": (math.nan, 1.0)}, "nuisance_range must be two increasing"),
    ],
)
def test_bad_uniform_grids_are_refused(options, message):
    with pytest.raises(ParameterError, match=message):
        ScanGrid.uniform(**{"nuisance_range": (0.0, 1.0), **options})


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (torch.zeros(0, 2), "empty"),
        (torch.full((3, 2), math.nan), "NaN"),
        (torch.zeros(3), "shape"),
        (torch.zeros(3, 3), "2 features"),
        (None, "events are missing"),
    ],
)
def test_bad_events_are_refused(events, message):
    with pytest.raises(DataError, match=message):
        scan_nll(TOY, events, GRID)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (torch.ones(1, 4), r"\(n_sets, 3\), got \(1, 4\)"),
        (torch.ones(3), "shape"),
        (-torch.ones(1, 3), "not negative"),
        (torch.full((1, 3), math.nan), "finite"),
        (torch.tensor([[1, 0, 0], [0, 0, 0]]), "set 1 has no events"),
    ],
)
def test_bad_counts_are_refused(counts, message):
    with pytest.raises(DataError, match=message):
        scan_nll(TOY, torch.zeros(3, 2), GRID, counts=counts)


def test_bad_densities_are_refused():
    good, grid = torch.zeros(3, 2), ScanGrid(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    bad = good.clone()
    bad[1, 1] = math.nan
    with pytest.raises(DataError, match=r"1 of 6 signal log densities .* event 1 at nuisance value number 1"):
        scan_nll(LogComponents(bad, good), None, grid)
    with pytest.raises(DataError, match=r"background .* \(3, 2\), got \(3, 1\)"):
        scan_nll(LogComponents(good, good[:, :1]), None, grid)
