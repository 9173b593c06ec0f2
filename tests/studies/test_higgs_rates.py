"""Fits with and without the number of events, against the extended likelihood and closed forms."""

from __future__ import annotations

import pytest
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.likelihood import NuisanceTable
from sbilib.likelihood.extended import ExpectedYields, fit_extended
from sbilib.studies.higgs_rates import fit_rates
from tests.problems.scaled import ScaledProblem

NODES = torch.linspace(0.85, 1.15, 13, dtype=torch.float64)
YIELDS = ExpectedYields(400.0, NODES, NODES**2, NODES**3)


@pytest.fixture(scope="module")
def toys() -> tuple[NuisanceTable, torch.Tensor, torch.Tensor]:
    """Forty toys at mu = 0.25, z = 1.02, with Poisson numbers of events."""
    problem, generator = ScaledProblem(), torch.Generator().manual_seed(3)
    rates = torch.tensor([0.25 * 400.0 * 1.02**2, 400.0 * 1.02**3], dtype=torch.float64).repeat(40, 1)
    counts = torch.poisson(rates, generator=generator).long()
    events = [
        problem.sample(name, torch.full((int(counts[toy, k]),), 1.02, dtype=torch.float64), generator)
        for toy in range(40)
        for k, name in enumerate(("signal", "background"))
    ]
    table = NuisanceTable.build(problem, torch.cat(events), NODES)
    return table, torch.arange(table.n_events), counts.sum(dim=1)


def test_with_the_number_of_events_it_is_the_extended_likelihood(toys) -> None:
    table, index, sizes = toys
    found = fit_rates(table, index, sizes, YIELDS, nuisance=1.02)["extended"]
    expected = fit_extended(table, index, sizes.cumsum(0) - sizes, YIELDS)
    for mine, other in ((found.ratio, expected.ratio_interval), (found.nuisance, expected.nuisance_interval)):
        width = float(other.width.mean())
        for name in ("best", "lower", "upper"):
            difference = getattr(mine, name) - getattr(other, name)
            assert float(difference.abs().max()) < 0.02 * width, name


def test_shapes_alone_do_not_know_the_luminosity(toys) -> None:
    # The same events with twice as many expected: nothing changes without the number of events.
    table, index, sizes = toys
    twice = ExpectedYields(800.0, NODES, NODES**2, NODES**3)
    found = [fit_rates(table, index, sizes, each, nuisance=1.02) for each in (YIELDS, twice)]
    assert torch.allclose(found[0]["shape"].ratio.upper, found[1]["shape"].ratio.upper)
    assert not torch.allclose(found[0]["extended"].ratio.best, found[1]["extended"].ratio.best, atol=0.05)


def test_the_interval_of_z_does_not_depend_on_what_the_ratio_is_of(toys) -> None:
    # Without rates, efficiencies only rename the signal ratio at each z.
    table, index, sizes = toys
    constant = ExpectedYields.constant(400.0, (0.85, 1.15))
    found = [fit_rates(table, index, sizes, each, nuisance=1.02)["shape"] for each in (YIELDS, constant)]
    width = float(found[0].nuisance.width.mean())
    # A toy whose profile reaches the end of the scanned ratios may differ; nine in ten are far from it.
    difference = (found[0].nuisance.lower - found[1].nuisance.lower).abs()
    assert float(difference.quantile(0.9)) < 0.001 * width
    relative = found[1].ratio_fixed.upper / found[0].ratio_fixed.upper
    closed = found[0].ratio_fixed.upper < 0.45
    assert int(closed.sum()) > 30
    assert torch.allclose(relative[closed], torch.full_like(relative[closed], 1 / 1.02), atol=1e-3)


def test_knowing_z_and_counting_both_narrow_the_ratio(toys) -> None:
    table, index, sizes = toys
    fits = fit_rates(table, index, sizes, YIELDS, nuisance=1.02)
    for each in fits.values():
        assert float(each.ratio_fixed.width.mean()) < float(each.ratio.width.mean())
    assert float(fits["extended"].ratio.width.mean()) < float(fits["shape"].ratio.width.mean())
    rows = fits["shape"].rows()
    assert list(rows.columns[:3]) == ["mu_hat", "mu_lower", "mu_upper"]
    assert len(rows) == 40


def test_intervals_cover(toys) -> None:
    # 40 toys: the coverage scatters by 7.4%; 3.3 standard deviations are a false alarm in a thousand each.
    table, index, sizes = toys
    for each in fit_rates(table, index, sizes, YIELDS, nuisance=1.02).values():
        for interval, truth in ((each.ratio, 0.25), (each.ratio_fixed, 0.25), (each.nuisance, 1.02)):
            assert abs(float(interval.contains(truth).double().mean()) - 0.683) < 3.3 * 0.074


def test_bad_input_is_named(toys) -> None:
    table, index, sizes = toys
    with pytest.raises(DataError, match="toys have"):
        fit_rates(table, index[1:], sizes, YIELDS, nuisance=1.02)
    with pytest.raises(ParameterError, match="nuisance"):
        fit_rates(table, index, sizes, YIELDS, nuisance=1.3)
    with pytest.raises(ParameterError, match="n_grid"):
        fit_rates(table, index, sizes, YIELDS, nuisance=1.0, n_grid=(5, 5))
