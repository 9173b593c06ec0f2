"""The error of a binned gradient: closed form against simulation, and laws that are known."""

from __future__ import annotations

import math

import pytest
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.studies.kde_errors import (
    NormalMixture,
    best_bandwidth,
    exact_gradient_error,
    fit_power_law,
    simulated_gradients,
)

BIMODAL = NormalMixture((0.6, 0.4), (-1.5, 1.5), (0.5, 0.8))
SHIFTS = torch.linspace(-2, 2, 21, dtype=torch.float64)


@pytest.mark.parametrize("edges", [(-0.5, 0.5), (1.0, 2.0)])
def test_bin_gradient_is_the_derivative_of_its_fraction(edges):
    shift = SHIFTS.clone().requires_grad_()
    (slope,) = torch.autograd.grad(BIMODAL.bin_fraction(shift, edges).sum(), shift)
    torch.testing.assert_close(BIMODAL.bin_gradient(SHIFTS, edges), slope)


@pytest.mark.parametrize(("mixture", "bandwidth"), [(NormalMixture(), 0.2), (BIMODAL, 0.6)])
def test_closed_form_agrees_with_simulation(mixture, bandwidth):
    """400 samples with a fixed seed; five standard errors, a false alarm in a million."""
    edges = (-0.5, 0.5)
    found = simulated_gradients(
        mixture, edges, SHIFTS, bandwidths=[bandwidth], n_events=40, seeds=range(400)
    )[:, 0]
    truth = mixture.bin_gradient(SHIFTS, edges)
    squares = (found - truth).square().mean(-1) / truth.square().mean()
    expected = exact_gradient_error(mixture, edges, SHIFTS, bandwidth=bandwidth, n_events=40) ** 2
    assert abs(squares.mean() - expected) < 5 * squares.std() / math.sqrt(400)


@pytest.mark.parametrize(("edges", "power"), [((-1.5, 1.5), 1 / 5), ((-0.001, 0.001), 1 / 7)])
def test_best_bandwidth_falls_with_the_known_power(edges, power):
    grid = torch.logspace(-3.5, 0.0, 141).tolist()
    numbers = (10**9, 10**11)
    best = [
        float(
            best_bandwidth(
                grid,
                torch.stack(
                    [
                        exact_gradient_error(NormalMixture(), edges, SHIFTS, bandwidth=h, n_events=n)
                        for h in grid
                    ]
                ),
            )
        )
        for n in numbers
    ]
    assert math.log(best[0] / best[1]) / math.log(100) == pytest.approx(power, abs=0.005)


def test_best_bandwidth_of_a_parabola_is_its_vertex():
    grid = torch.logspace(-1, 1, 9)
    errors = torch.exp((grid.log() - 0.3) ** 2)
    assert float(best_bandwidth(grid.tolist(), errors)) == pytest.approx(math.exp(0.3), rel=1e-6)
    assert float(best_bandwidth(grid.tolist(), grid)) == pytest.approx(0.1)


def test_power_law_is_found_with_the_errors_of_its_points():
    numbers = [10.0, 100.0, 1000.0, 10000.0]
    h = torch.tensor([2.0 * n**-0.25 for n in numbers])
    law = fit_power_law(numbers, h, 0.05 * h)
    assert (law.factor, law.exponent) == (pytest.approx(2.0, rel=1e-6), pytest.approx(0.25, rel=1e-6))
    spread = math.log(10) * math.sqrt(sum((k - 1.5) ** 2 for k in range(4)))
    assert law.exponent_error == pytest.approx(0.05 / spread, rel=1e-5)
    assert law(16.0) == pytest.approx(1.0, rel=1e-6)


def test_bad_input_is_refused():
    with pytest.raises(ParameterError, match="weights must add up"):
        NormalMixture((0.5,), (0.0,), (1.0,))
    with pytest.raises(ParameterError, match="must increase"):
        exact_gradient_error(NormalMixture(), (1.0, 0.0), SHIFTS, bandwidth=0.1, n_events=10)
    with pytest.raises(DataError, match="at least three"):
        best_bandwidth([0.1, 0.2], torch.ones(2))
    with pytest.raises(DataError, match="at least three"):
        fit_power_law([1, 2], torch.ones(2), torch.ones(2))
