"""Splines, derivatives and the convex profile, against scipy, autograd and minimization by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize_scalar

from sbilib.components import LogComponents
from sbilib.errors import DataError, ParameterError
from sbilib.likelihood import EventSets, NuisanceTable, profile_over_signal_ratio
from sbilib.likelihood.derivatives import expand_nll
from sbilib.likelihood.table import spline_weights
from sbilib.problems.gaussian import GaussianToy

from .examples import seeded, toy_events, toy_table

TOY = GaussianToy.large_distance()


def exact_nll(events, weights, fraction, nuisance):
    signal, background = TOY.log_components(events, nuisance.reshape(1))
    log_prob = torch.logaddexp(fraction.log() + signal[:, 0], (1 - fraction).log() + background[:, 0])
    return -(weights * log_prob).sum()


def test_splines_equal_those_of_scipy_with_both_derivatives():
    nodes = torch.linspace(0, 2, 9, dtype=torch.float64) ** 1.5
    values = torch.randn(3, 9, generator=seeded(1), dtype=torch.float64)
    at = torch.tensor([0.0, 0.3, 1.1, 2.8], dtype=torch.float64)
    reference = CubicSpline(nodes.numpy(), values.numpy().T)
    curvature = torch.from_numpy(reference(nodes.numpy(), 2)).T
    spline = spline_weights(nodes, at)
    for order in range(3):
        w = spline.weights[:, order]
        got = (
            values[:, spline.cell] * w[:, 0]
            + values[:, spline.cell + 1] * w[:, 1]
            + curvature[:, spline.cell] * w[:, 2]
            + curvature[:, spline.cell + 1] * w[:, 3]
        )
        np.testing.assert_allclose(got.T.numpy(), reference(at.numpy(), order), atol=1e-10)


def test_table_reproduces_the_densities_between_the_nodes():
    events = toy_events(TOY, 50, 0.3, 0.8, 1)
    table = toy_table(TOY, events)
    at = torch.linspace(*TOY.scan_range, 37, dtype=torch.float64)
    signal, background = TOY.log_components(events, at)
    sets = EventSets.from_toys(table, 1)
    spline = spline_weights(table.nodes, at)
    columns = sets.log_ratio_columns(torch.zeros_like(spline.cell), spline.cell)
    got = (spline.weights[:, :1] @ columns)[:, 0]
    torch.testing.assert_close(got.T, signal - background, rtol=0, atol=2e-7)


@pytest.mark.parametrize("shared", [True, False])
def test_nll_and_derivatives_equal_autograd_on_exact_densities(shared):
    events = toy_events(TOY, 400, 0.2, 0.8, 2)
    table = toy_table(TOY, events, 121)
    counts = torch.zeros(2, 400)
    counts[0, :200], counts[1, 200:] = 1, 1
    sets = EventSets.from_counts(table, counts) if shared else EventSets.from_toys(table, 2)
    point = torch.tensor([[0.2, 0.71], [0.01, 1.1]], dtype=torch.float64)
    got = expand_nll(sets, torch.arange(2), point[:, 0], point[:, 1])
    for k in range(2):

        def nll(p, z, k=k):
            return exact_nll(events, counts[k].double(), p, z)

        value = nll(*point[k])
        gradient = torch.autograd.functional.jacobian(nll, tuple(point[k]))
        hessian = torch.autograd.functional.hessian(nll, tuple(point[k]))
        want = (value, *gradient, hessian[0][0], hessian[1][1], hessian[0][1])
        order = (got.nll, got.fraction, got.nuisance, got.fraction2, got.nuisance2, got.mixed)
        for a, b in zip(order, want, strict=True):
            assert a[k].item() == pytest.approx(b.item(), rel=1e-5, abs=1e-4)


def test_sets_weigh_events_by_their_counts():
    events = toy_events(TOY, 60, 0.2, 0.8, 2)
    counts = torch.randint(0, 3, (4, 60), generator=seeded(3))
    sets = EventSets.from_counts(toy_table(TOY, events, 121), counts)
    p, z = torch.full((4,), 0.15, dtype=torch.float64), torch.full((4,), 0.9, dtype=torch.float64)
    got = expand_nll(sets, torch.arange(4), p, z).nll
    for k in range(4):
        assert got[k].item() == pytest.approx(exact_nll(events, counts[k], p[k], z[k]).item(), abs=1e-6)
    subset = expand_nll(sets.select(torch.tensor([3, 1])), torch.arange(2), p[:2], z[:2]).nll
    torch.testing.assert_close(subset, got[[3, 1]])


def test_extreme_log_ratios_have_finite_derivatives_even_at_a_fraction_of_zero():
    class Extreme:
        def log_components(self, x, nuisance):
            return LogComponents(x[:, :1] + nuisance, torch.zeros(len(x), len(nuisance)))

    events = torch.tensor([[1e3], [-1e3], [0.5]])
    sets = EventSets.from_toys(NuisanceTable.build(Extreme(), events, torch.linspace(0, 1, 5)), 1)
    for fraction in (0.0, 1e-12, 0.3):
        p = torch.tensor([fraction], dtype=torch.float64)
        expansion = expand_nll(sets, torch.tensor([0]), p, torch.tensor([0.5], dtype=torch.float64))
        assert all(bool(t.isfinite().all()) for t in expansion)
    assert expansion.nll.item() == pytest.approx(
        -(math.log(0.3) + 1000.5 + math.log(0.7) + math.log(0.7 + 0.3 * math.e))
    )


@pytest.mark.parametrize("radius", [2.0, 0.5])
def test_profile_over_the_ratio_equals_a_bounded_search_for_every_nuisance_value(radius):
    toy = GaussianToy(radius)
    events = toy_events(toy, 150, 0.15, 0.8, 4)
    counts = torch.randint(0, 2, (3, 150), generator=seeded(5)).double()
    at = torch.tensor([0.35, 0.8, 1.2], dtype=torch.float64)
    got = profile_over_signal_ratio(EventSets.from_counts(toy_table(toy, events, 121), counts), at)
    signal, background = toy.log_components(events, at)
    for b in range(3):
        for j in range(3):

            def nll(ratio, b=b, j=j):
                mixture = (ratio * signal[:, j].exp() + background[:, j].exp()) / (1 + ratio)
                return -(counts[b] * mixture.log()).sum().item()

            best = min((nll(r), r) for r in (0.0, 0.5))
            search = minimize_scalar(nll, bounds=(0, 0.5), method="bounded", options={"xatol": 1e-10})
            if search.fun < best[0]:
                best = (search.fun, search.x)
            assert got.nll[b, j].item() == pytest.approx(best[0], abs=1e-6)
            assert got.signal_ratio[b, j].item() == pytest.approx(best[1], abs=1e-4)


def test_the_nll_is_convex_in_the_signal_fraction():
    events = toy_events(TOY, 30, 0.2, 0.8, 6)
    sets = EventSets.from_toys(toy_table(TOY, events), 1)
    p = torch.linspace(0, 1 / 3, 40, dtype=torch.float64)
    for z in (0.4, 1.2):
        expansion = expand_nll(sets, torch.zeros(40, dtype=torch.long), p, torch.full_like(p, z))
        assert bool((expansion.fraction2 >= 0).all())
        assert bool((expansion.nll.diff(n=2) > -1e-9).all())


def test_bad_tables_and_sets_are_refused():
    events = torch.zeros(6, 2)
    with pytest.raises(ParameterError, match="four nodes"):
        NuisanceTable.build(TOY, events, torch.linspace(0.4, 0.5, 3))
    with pytest.raises(ParameterError, match="increasing"):
        NuisanceTable.build(TOY, events, torch.tensor([0.4, 0.5, 0.5, 0.6]))
    with pytest.raises(DataError, match="NaN"):
        NuisanceTable.build(TOY, events * math.nan, torch.linspace(0.4, 0.5, 5))
    table = NuisanceTable.build(TOY, events, torch.linspace(0.4, 0.5, 5))
    with pytest.raises(DataError, match="6 events cannot be cut into 4"):
        EventSets.from_toys(table, 4)
    with pytest.raises(DataError, match="counts must have shape"):
        EventSets.from_counts(table, torch.ones(1, 5))
    with pytest.raises(ParameterError, match="wider range"):
        profile_over_signal_ratio(EventSets.from_toys(table, 1), torch.tensor([0.7]))
