"""The extended likelihood against a brute-force grid, the likelihood of the mixture, and exact toys."""

from __future__ import annotations

import pytest
import torch
from scipy.interpolate import CubicSpline

from sbilib.errors import DataError, ParameterError
from sbilib.likelihood import EventSets, NuisanceTable, fit_event_sets
from sbilib.likelihood.extended import ExpectedYields, extended_surfaces, fit_extended
from tests.problems.scaled import ScaledProblem

NODES = torch.linspace(0.85, 1.15, 13, dtype=torch.float64)
# Rates that fall by a few percent for a change of the nuisance parameter by its error.
YIELDS = ExpectedYields(400.0, NODES, NODES**2, NODES**3)


def _toys(n_toys: int, mu: float, z: float, seed: int) -> tuple[NuisanceTable, torch.Tensor, torch.Tensor]:
    """Toys with Poisson numbers of events, all in one table."""
    problem, generator = ScaledProblem(), torch.Generator().manual_seed(seed)
    rates = torch.tensor([mu * 400.0 * z**2, 400.0 * z**3], dtype=torch.float64).repeat(n_toys, 1)
    counts = torch.poisson(rates, generator=generator).long()
    events = [
        problem.sample(name, torch.full((int(counts[toy, k]),), z, dtype=torch.float64), generator)
        for toy in range(n_toys)
        for k, name in enumerate(("signal", "background"))
    ]
    sizes = counts.sum(dim=1)
    table = NuisanceTable.build(problem, torch.cat(events), NODES)
    return table, torch.arange(int(sizes.sum())), sizes.cumsum(0) - sizes


def test_surface_is_the_likelihood_written_out() -> None:
    table, index, offsets = _toys(2, 0.2, 1.02, seed=1)
    surfaces = extended_surfaces(table, index, offsets, YIELDS)
    x = _events_of_first()
    assert len(x) == int(offsets[1])
    low, high = surfaces.nuisances[3], surfaces.nuisances[-4]
    mu = torch.tensor([0.15, 0.2, 0.24], dtype=torch.float64)
    z = torch.stack((low, (low + high) / 2, high))
    found = surfaces.at(mu, z)[0] + surfaces.minimum[0]
    direct = torch.empty(3, 3, dtype=torch.float64)
    for i, ratio in enumerate(mu):
        for j, value in enumerate(z):
            pair = ScaledProblem().log_components(x, value.reshape(1))
            signal, background = ratio * 400.0 * value**2, 400.0 * value**3
            terms = (signal * pair.signal.exp() + background * pair.background.exp()).log()
            direct[i, j] = signal + background - terms.sum()
    assert torch.allclose(found, direct, atol=2e-3)


def _events_of_first() -> torch.Tensor:
    """The events of the first toy of `_toys(2, 0.2, 1.02, seed=1)`, drawn again."""
    problem, generator = ScaledProblem(), torch.Generator().manual_seed(1)
    rates = torch.tensor([0.2 * 400.0 * 1.02**2, 400.0 * 1.02**3], dtype=torch.float64).repeat(2, 1)
    counts = torch.poisson(rates, generator=generator).long()
    events = [
        problem.sample(name, torch.full((int(counts[0, k]),), 1.02, dtype=torch.float64), generator)
        for k, name in enumerate(("signal", "background"))
    ]
    return torch.cat(events)


def test_intervals_are_those_of_a_fine_grid() -> None:
    table, index, offsets = _toys(1, 0.25, 0.99, seed=4)
    fits = fit_extended(table, index, offsets, YIELDS)
    mu = torch.linspace(0.05, 0.45, 401, dtype=torch.float64)
    z = torch.linspace(0.93, 1.05, 601, dtype=torch.float64)
    spline = CubicSpline(NODES.numpy(), table.log_ratio[0].numpy(), axis=0)
    d = torch.from_numpy(spline(z.numpy()))
    base = torch.from_numpy(CubicSpline(NODES.numpy(), table.background.T.numpy(), axis=0)(z.numpy()))
    nll = torch.stack(
        [
            400 * (m * z**2 + z**3)
            - ((m * z[:, None] ** 2 * d.exp() + z[:, None] ** 3).log() + base).sum(dim=1)
            for m in mu
        ]
    )
    for profile, values, interval in (
        (nll.min(dim=1).values, mu, fits.ratio_interval),
        (nll.min(dim=0).values, z, fits.nuisance_interval),
    ):
        inside = values[profile - profile.min() < 0.5]
        step = float(values[1] - values[0])
        assert interval.lower.item() == pytest.approx(float(inside[0]), abs=1.01 * step)
        assert interval.upper.item() == pytest.approx(float(inside[-1]), abs=1.01 * step)


def test_without_yields_it_is_the_likelihood_of_the_mixture() -> None:
    problem, generator = ScaledProblem(), torch.Generator().manual_seed(3)
    parts = [
        problem.sample(name, torch.full((20 * n,), 1.01, dtype=torch.float64), generator).view(20, n, 2)
        for name, n in (("signal", 60), ("background", 240))
    ]
    table = NuisanceTable.build(problem, torch.cat(parts, dim=1).flatten(0, 1), NODES)
    fits = fit_extended(table, torch.arange(6000), 300 * torch.arange(20), None)
    expected = fit_event_sets(EventSets.from_toys(table, 20))
    for name in ("ratio_interval", "nuisance_interval"):
        for field in ("best", "lower", "upper"):
            found, other = getattr(getattr(fits, name), field), getattr(getattr(expected, name), field)
            assert torch.allclose(found, other, atol=1e-4), (name, field)


def test_intervals_cover_in_exact_toys() -> None:
    # The coverage of 400 toys scatters by 2.3%; 3.3 standard deviations are a false alarm in a thousand.
    table, index, offsets = _toys(400, 0.25, 1.0, seed=7)
    fits = fit_extended(table, index, offsets, YIELDS)
    for interval, truth in ((fits.ratio_interval, 0.25), (fits.nuisance_interval, 1.0)):
        assert abs(float(interval.contains(truth).double().mean()) - 0.683) < 3.3 * 0.0233


def test_the_number_of_events_measures_the_signal_ratio() -> None:
    table, index, offsets = _toys(30, 0.25, 1.0, seed=9)
    with_counts = fit_extended(table, index, offsets, ExpectedYields.constant(400.0, (0.85, 1.15)))
    without = fit_extended(table, index, offsets, None)
    assert float(with_counts.ratio_interval.width.mean()) < 0.9 * float(without.ratio_interval.width.mean())


def test_bad_input_is_named() -> None:
    table, index, offsets = _toys(2, 0.2, 1.0, seed=1)
    with pytest.raises(DataError, match="offsets"):
        fit_extended(table, index, torch.tensor([0, 0]), YIELDS)
    with pytest.raises(DataError, match="index"):
        fit_extended(table, index + 1, offsets, YIELDS)
    with pytest.raises(ParameterError, match="yields cover"):
        fit_extended(table, index, offsets, ExpectedYields.constant(400.0, (0.9, 1.1)))
    with pytest.raises(ParameterError, match="background"):
        ExpectedYields.constant(0.0, (0.9, 1.1))
    with pytest.raises(DataError, match="signal_efficiency"):
        ExpectedYields(1.0, NODES, -NODES, NODES)
