"""Likelihoods as smooth surfaces: against the dense 600 x 300 grid, for every kind of densities."""

import math

import pytest
import torch

from sbilib.components import LogComponents
from sbilib.errors import DataError, ParameterError
from sbilib.likelihood import (
    ScanGrid,
    crossing_interval,
    likelihood_overlaps,
    local_likelihood,
    local_overlaps,
    profile_nuisance,
    profile_signal_ratio,
    scan_nll,
)
from sbilib.models import ClassifierConfig, ClassifierPair, FlowConfig, FlowPair
from sbilib.problems.gaussian import GaussianToy
from sbilib.problems.sets import bootstrap_counts

from .examples import RoughDensities, seeded, toy_events

LARGE, SMALL = GaussianToy.large_distance(), GaussianToy.small_distance()


class Nearly:
    """The exact densities plus a little of a network that was never trained."""

    def __init__(self, toy, network, amplitude):
        self.toy, self.network, self.amplitude = toy, network, amplitude

    def log_components(self, x, nuisance):
        exact, noise = (part.log_components(x, nuisance) for part in (self.toy, self.network))
        return LogComponents(*(a + self.amplitude * b for a, b in zip(exact, noise, strict=True)))


# The likelihood of untrained networks is flat or absurd, so they come on top of the exact densities.  The
# last number is the error in an overlap that is allowed; the real one is less than half of it.
CASES = {
    "exact, large": (LARGE, lambda toy: toy, 9, 1e-4),
    "exact, small": (SMALL, lambda toy: toy, 9, 4e-4),
    "polynomial classifier": (
        SMALL,
        lambda toy: Nearly(toy, ClassifierPair.from_config(ClassifierConfig.modern(), seed=1), 0.3),
        13,
        1e-3,
    ),
    "ReLU classifier": (
        LARGE,
        lambda toy: Nearly(toy, ClassifierPair.from_config(ClassifierConfig.sluijter(), seed=1), 1.0),
        9,
        1e-3,
    ),
    "flow": (
        LARGE,
        lambda toy: Nearly(toy, FlowPair.from_config(FlowConfig.modern(), seed=1), 0.1),
        13,
        1e-3,
    ),
    "kinks": (SMALL, lambda toy: RoughDensities(toy, 0.1), 33, 1e-3),
}


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def both(request):
    """Dense scan and surfaces of one method, and those of the exact densities, on the same sets."""
    toy, make, n_nodes, tolerance = CASES[request.param]
    events = toy_events(toy, 700, 0.15, 0.7, 31)
    counts = bootstrap_counts(700, 3, 700, seeded(32))
    grid = ScanGrid.uniform(nuisance_range=toy.scan_range)
    densities = make(toy)
    dense, local = [], []
    for method in (densities,) if densities is toy else (densities, toy):
        dense.append(scan_nll(method, events, grid, counts=counts, restrict=True))
        nodes = (24, n_nodes if method is densities else 9)
        local.append(local_likelihood(method, events, counts, nuisance_range=toy.scan_range, n_nodes=nodes))
    return dense, local, grid, tolerance


def test_surfaces_equal_the_dense_grid(both):
    dense, local, grid, tolerance = both
    overlaps = likelihood_overlaps(local[0].scan(grid), dense[0])
    for value in overlaps:
        assert (1 - value).max().item() < tolerance
    assert (local[0].scan(grid).minimum - dense[0].minimum).abs().max().item() < 0.01


def test_overlaps_equal_those_of_the_dense_grid(both):
    dense, local, grid, tolerance = both
    got, want = local_overlaps(local[0], local[-1], grid), likelihood_overlaps(dense[0], dense[-1])
    for a, b in zip(got, want, strict=True):
        assert a.shape == (3,)
        assert (a - b).abs().max().item() < tolerance


def test_intervals_equal_those_of_the_dense_grid(both):
    dense, local, _, tolerance = both
    profiles = profile_signal_ratio(dense[0], refine=True), profile_nuisance(dense[0], refine=True)
    for few, many in zip(local[0].profiles(), profiles, strict=True):
        got, want = crossing_interval(few), crossing_interval(many)
        for name in ("lower", "upper"):
            difference = ((getattr(got, name) - getattr(want, name)) / want.width).abs()
            assert difference.max().item() < 10 * tolerance
        assert torch.equal(got.lower_open, want.lower_open)
        assert torch.equal(got.upper_open, want.upper_open)


class Turned:
    """The exact densities at an angle that is off by a constant."""

    def log_components(self, x, nuisance):
        return LARGE.log_components(x, nuisance + 0.3)


def test_likelihoods_in_different_places_do_not_overlap():
    events, counts = toy_events(LARGE, 3000, 0.2, 0.8, 33), bootstrap_counts(3000, 3, 1000, seeded(34))
    grid = ScanGrid.uniform(nuisance_range=LARGE.scan_range)
    here, there = (
        local_likelihood(d, events, counts, nuisance_range=LARGE.scan_range) for d in (LARGE, Turned())
    )
    overlaps = local_overlaps(here, there, grid)
    assert overlaps.nuisance.max().item() < 1e-3
    assert overlaps.total.max().item() < 1e-3
    assert overlaps.signal_ratio.min().item() > 0.9


def test_the_box_is_widened_until_it_holds_every_set():
    """One set holds the events of another angle only, which the part seen first hardly shows."""
    parts = [toy_events(LARGE, n, 0.2, angle, 35) for n, angle in ((3000, 0.5), (300, 0.9))]
    events = torch.cat(parts)
    counts = torch.zeros(2, 3300)
    counts[0, :3000], counts[1, 3000:] = 0.3, 3
    local = local_likelihood(LARGE, events, counts, nuisance_range=LARGE.scan_range)
    best = crossing_interval(local.profiles().nuisance).best
    assert best.tolist() == pytest.approx([0.5, 0.9], abs=0.1)


def test_a_set_without_signal_has_an_open_interval_at_zero():
    events = toy_events(LARGE, 1000, 0.0, 0.8, 36)
    interval = crossing_interval(
        local_likelihood(LARGE, events, torch.ones(1, 1000), nuisance_range=LARGE.scan_range)
        .profiles()
        .signal_ratio
    )
    assert interval.lower_open.item()
    assert interval.lower.item() == 0.0
    assert interval.upper.item() < 0.02


def test_only_a_part_of_the_scanned_range_is_evaluated():
    seen = []

    class Watched:
        def log_components(self, x, nuisance):
            seen.append((len(x) * len(nuisance), nuisance.min().item(), nuisance.max().item()))
            return LARGE.log_components(x, nuisance)

    events = toy_events(LARGE, 9000, 0.2, math.pi / 4, 37)
    counts = bootstrap_counts(9000, 20, 1000, seeded(38))
    local = local_likelihood(Watched(), events, counts, nuisance_range=LARGE.scan_range)
    low, high = LARGE.scan_range
    assert local.nuisances[-1] - local.nuisances[0] < 0.5 * (high - low)
    assert sum(pairs for pairs, _, _ in seen) < 15 * 9000


def test_bad_input_is_refused():
    events, ones = toy_events(LARGE, 50, 0.2, 0.8, 39), torch.ones(1, 50)
    with pytest.raises(DataError, match="counts"):
        local_likelihood(LARGE, events, torch.ones(1, 49), nuisance_range=LARGE.scan_range)
    with pytest.raises(ParameterError, match="nuisance values"):
        local_likelihood(LARGE, events, ones, nuisance_range=LARGE.scan_range, n_nodes=(16, 3))
    with pytest.raises(ParameterError, match="nuisance_range"):
        local_likelihood(LARGE, events, ones, nuisance_range=(1.0, 0.5))
    one, two = (
        local_likelihood(LARGE, events, torch.ones(n, 50), nuisance_range=LARGE.scan_range) for n in (1, 2)
    )
    with pytest.raises(DataError, match="same sets"):
        local_overlaps(one, two, ScanGrid.uniform(nuisance_range=LARGE.scan_range))
