"""Toys from a finite reservoir, and tabulated densities, with exact densities as the oracle."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

from sbilib.errors import ParameterError
from sbilib.likelihood.extended import ExpectedYields
from sbilib.studies.higgs_scaling import fit_scaling
from sbilib.studies.higgs_tables import TabulatedPair
from sbilib.studies.higgs_toys import Reservoir, ReservoirToys, reservoir_error, summarize_toys
from tests.studies.higgs_examples import SampledProblem


def test_events_are_used_equally_often() -> None:
    problem = SampledProblem(size=100)
    reservoir = Reservoir.of_problems([problem], 1.0)
    counts = torch.tensor([40, 30, 30, 60, 40])
    parts = reservoir.draw(counts, "background", torch.Generator().manual_seed(1))
    assert [len(part) for part in parts] == counts.tolist()
    used = torch.cat(parts).bincount(minlength=200)
    assert used[:100].sum() == 0
    assert used[100:].tolist() == [2] * 100
    # Before any event comes twice, all have come once.
    assert len(torch.cat(parts[:3]).unique()) == 100


def test_weighted_events_are_drawn_by_weight() -> None:
    reservoir = Reservoir(torch.zeros(3, 2).double(), torch.tensor([1.0, 3.0, 1.0]).double(), 2)
    (drawn,) = reservoir.draw(torch.tensor([10_000]), "signal", torch.Generator().manual_seed(1))
    # Four standard deviations: a false alarm in 16 000.
    assert abs(float((drawn == 1).double().mean()) - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 10_000)


def test_reservoir_error_is_that_of_shifted_intervals() -> None:
    shifts = np.random.default_rng(1).normal(size=400_000) / math.sqrt(150.0)
    coverage = norm.cdf(1 - shifts) - norm.cdf(-1 - shifts)
    assert reservoir_error(150.0) == pytest.approx(float(coverage.std()), rel=0.03)


def test_toys_do_not_depend_on_the_densities_and_hold_the_right_fraction() -> None:
    toys = ReservoirToys([SampledProblem()], seed=3, n_toys=200)
    index, sizes = toys.draw(3)
    mu, z = toys.points[3]
    assert bool((sizes == 1000).all())
    reservoir = toys.reservoir(z)
    fraction = float((index < reservoir.n_signal).double().mean())
    expected = mu / (1 + mu)
    # Four standard deviations: a false alarm in 16 000.
    assert abs(fraction - expected) < 4 * math.sqrt(expected * (1 - expected) / len(index))
    again = ReservoirToys([SampledProblem()], seed=3, n_toys=200).draw(3)[0]
    assert torch.equal(index, again)
    assert toys.k(3) == pytest.approx(min(20_000 / (1000 * expected), 20_000 / (1000 * (1 - expected))))


def test_exact_densities_cover_at_all_points() -> None:
    # 9 x 60 toys: 2.0% statistical error of the mean coverage; 3.3 of them with the reservoir's are a false
    # alarm in a thousand for each parameter.
    tests = [SampledProblem(size=40_000, seed=seed) for seed in (11, 12)]
    table = ReservoirToys(tests, seed=1, n_toys=60, n_events=400).fit({"exact": tests[0]})
    summary = summarize_toys(table)
    assert len(summary) == 18
    for _, part in summary.groupby("parameter"):
        assert abs(part["coverage"].mean() - 0.683) < 3.3 * 0.0201
        assert (part["n_toys"] == 60).all()


def test_tables_give_the_intervals_of_the_densities() -> None:
    tests = [SampledProblem(size=5000, seed=11)]
    exact = tests[0]
    tabulated = TabulatedPair(exact, fit_scaling(exact, n_events=2000), nuisance_range=exact.scan_range)
    table = ReservoirToys(tests, seed=1, n_toys=5, n_events=500).fit({"exact": exact, "table": tabulated})
    both = [part.sort_values(["mu", "z", "toy"]) for _, part in table.groupby("method")]
    for name in ("mu_hat", "mu_lower", "z_hat", "z_upper"):
        assert np.allclose(both[0][name], both[1][name], atol=1e-4), name
    x = exact.all_events("signal", 1.05).events[:200]
    z = torch.linspace(0.9, 1.1, 17, dtype=torch.float64)
    found, expected = tabulated.log_components(x, z), exact.log_components(x, z)
    assert torch.allclose(found.background, expected.background, atol=1e-4)


def test_extended_toys_have_poisson_numbers() -> None:
    yields = ExpectedYields.constant(800.0, (0.9, 1.1))
    toys = ReservoirToys([SampledProblem()], seed=1, n_toys=200, yields=yields)
    _, sizes = toys.draw(8)
    expected = 800 * 1.3
    # Mean within four standard errors; the variance over the mean of 200 Poisson numbers scatters by 10%.
    assert abs(float(sizes.double().mean()) - expected) < 4 * math.sqrt(expected / 200)
    assert 0.6 < float(sizes.double().var()) / expected < 1.4
    table = ReservoirToys([SampledProblem()], seed=1, n_toys=3, yields=yields).fit(
        {"exact": SampledProblem()}
    )
    assert len(table) == 27
    assert table["mu_hat"].between(0, 0.5).all()


def test_summary_counts_by_hand() -> None:
    rows = pd.DataFrame(
        {
            "method": "a",
            "mu": 0.2,
            "z": 1.0,
            "k": 100.0,
            "mu_hat": [0.2, 0.4, 0.3, 0.2],
            "mu_lower": [0.1, 0.3, 0.2, -math.inf],
            "mu_upper": [0.3, 0.5, 0.4, 0.3],
            "z_hat": 1.0,
            "z_lower": 0.99,
            "z_upper": 1.01,
        }
    )
    found = summarize_toys(rows).set_index("parameter")
    assert found.loc["mu", "coverage"] == 0.75
    assert found.loc["mu", "width"] == pytest.approx(0.2)
    assert found.loc["mu", "open"] == 0.25
    assert found.loc["mu", "pull"] == pytest.approx(2 * 0.075 / 0.2)
    assert found.loc["z", "coverage"] == 1.0


def test_bad_input_is_named() -> None:
    with pytest.raises(ParameterError, match="test split"):
        ReservoirToys([], seed=1, n_toys=1)
    with pytest.raises(ParameterError, match="n_toys"):
        ReservoirToys([SampledProblem()], seed=1, n_toys=0)
    with pytest.raises(ParameterError, match="no densities"):
        ReservoirToys([SampledProblem()], seed=1, n_toys=1).fit({})
