"""Analyses with one or two parameters: their models, their gradients, and where descents end."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from sbilib.differentiable import AnalysisSettings, asimov_significance, expected_p0
from sbilib.errors import DataError, ParameterError
from sbilib.problems import FallingSpectrum, one_bin_yields
from sbilib.studies import (
    LANDSCAPE_LOSSES,
    cut_gradients,
    cut_significance,
    descend,
    exact_soft_yields,
    full_gaussianity,
    landscape_values,
    one_bin_model,
    sample_spectra,
    statistic_at_alpha,
    toy_discovery,
    turning_points,
    two_bin_templates,
)

DOUBLE = torch.float64


def line(*values: float) -> torch.Tensor:
    return torch.tensor([[value, value] for value in values], dtype=DOUBLE)


def test_members_of_a_stack_descend_alone():
    def bowl(x: torch.Tensor) -> torch.Tensor:
        return (x - 1) ** 2

    both = descend(bowl, torch.tensor([3.0, -5.0]), rate=0.1, n_steps=20)
    alone = descend(bowl, torch.tensor([-5.0]), rate=0.1, n_steps=20)
    assert both.shape == (21, 2)
    torch.testing.assert_close(both[:, 1:], alone)


def test_descents_stay_inside_limits_and_name_a_bad_step():
    path = descend(lambda x: -x, torch.tensor([0.0]), rate=1.0, n_steps=5, optimizer="sgd", limits=(0.0, 2.5))
    assert path[:, 0].tolist() == [0.0, 1.0, 2.0, 2.5, 2.5, 2.5]
    with pytest.raises(DataError, match="step 1"):
        descend(torch.sqrt, torch.tensor([0.5]), rate=1.0, n_steps=5, optimizer="sgd")
    with pytest.raises(ParameterError, match="optimizer"):
        descend(torch.sqrt, torch.tensor([0.5]), rate=1.0, n_steps=5, optimizer="newton")


def test_the_poisson_constraint_is_the_significance_formula():
    phi = torch.linspace(0.0, 10.0, 11, dtype=DOUBLE)
    s, b, spread = (value.unsqueeze(-1) for value in one_bin_yields(phi))
    by_formula = torch.special.ndtr(-asimov_significance(s, b, spread))
    torch.testing.assert_close(expected_p0(one_bin_model(phi)), by_formula, rtol=1e-8, atol=0.0)


def test_the_normal_constraint_is_the_quadratic_equation():
    phi = torch.tensor([1.0, 5.0, 9.0], dtype=DOUBLE)
    s, b, spread = one_bin_yields(phi)
    n, variance = s + b, spread**2
    fitted = 0.5 * (b - variance + ((b - variance) ** 2 + 4 * n * variance).sqrt())
    q = 2 * (n * (n / fitted).log() - n + fitted) + (fitted - b) ** 2 / variance
    expected = torch.special.ndtr(-q.sqrt())
    torch.testing.assert_close(expected_p0(one_bin_model(phi, "normal")), expected, rtol=1e-8, atol=0.0)


@pytest.mark.parametrize("constraint", ["none", "poisson", "normal", "log-normal"])
def test_the_p_value_has_the_right_gradient(constraint):
    phi = torch.tensor([2.0, 6.0], dtype=DOUBLE, requires_grad=True)
    assert gradcheck(lambda p: expected_p0(one_bin_model(p, constraint), log=True), [phi], atol=1e-5)


def test_toys_of_a_known_background_are_poisson_counts():
    # One bin, no uncertainty: the p-value is that of the median count, here within four standard errors.
    found = toy_discovery(
        torch.tensor([4.0]), 20_000, constraint="none", generator=torch.Generator().manual_seed(3)
    )
    counts = torch.arange(0, 56, dtype=DOUBLE)
    exact = 1 - torch.exp(counts * math.log(37.0) - 37.0 - torch.lgamma(counts + 1)).sum().item()
    assert found.p_value.item() == pytest.approx(exact, abs=4 * found.error.item())


def test_an_unknown_constraint_is_refused():
    with pytest.raises(ParameterError, match="constraint must be one of"):
        one_bin_model(torch.tensor(1.0), "flat")


def test_soft_yields_of_an_exponential_have_the_closed_form():
    # Far above the end of the spectrum the factor is (pi a) / sin(pi a) with a = 1 / (k l).
    spectrum, cut, slope = FallingSpectrum(decay=0.5), torch.tensor([6.0], dtype=DOUBLE), 20.0
    _, hard = spectrum.yields_above(cut)
    _, soft = exact_soft_yields(cut, spectrum, slope)
    a = 1 / (slope * 0.5)
    assert (soft / hard).item() == pytest.approx(math.pi * a / math.sin(math.pi * a), rel=1e-3)


def test_samples_agree_with_the_exact_soft_yields():
    spectrum, cut = FallingSpectrum(), torch.full((4,), 1.4, dtype=DOUBLE)
    events = sample_spectra(spectrum, 100_000, 4, seed=2)
    for slope in (5.0, None):
        sampled = cut_significance(cut, events, spectrum, slope=slope)
        yields = (
            spectrum.yields_above(cut[:1]) if slope is None else exact_soft_yields(cut[:1], spectrum, slope)
        )
        exact = asimov_significance(*(value.unsqueeze(-1) for value in yields))
        # The share of the background that is kept is known to 0.6%, the significance to half of that.
        assert sampled.tolist() == pytest.approx([exact.item()] * 4, rel=0.015)


def test_a_steeper_cut_has_a_noisier_gradient():
    events = sample_spectra(FallingSpectrum(), 2000, 60, seed=4)
    _, spread = cut_gradients(1.0, events, FallingSpectrum(), torch.tensor([50.0, 800.0]))
    # Proportional to the square root of the slope, here within 25% of four (a spread of 60 has 9% error).
    assert (spread[1] / spread[0]).item() == pytest.approx(4.0, rel=0.25)


def test_variations_are_equal_on_the_line():
    templates = two_bin_templates(line(-3.0, 7.0))
    torch.testing.assert_close(templates.up, templates.down)
    assert templates.up[1].tolist() == [57.0, 43.0]
    with pytest.raises(ParameterError, match="u and d"):
        two_bin_templates(torch.tensor([51.0, 0.0]))


def test_on_the_line_the_information_is_constant_and_the_profile_is_not():
    places = line(-8.0, -1.0, 0.0, 2.0, 8.0)
    sigma = landscape_values(places, LANDSCAPE_LOSSES["sigma_mu"])
    torch.testing.assert_close(sigma, sigma[2].expand(5))
    cls, p0 = (landscape_values(places, LANDSCAPE_LOSSES[name]) for name in ("CLs", "p0"))
    torch.testing.assert_close(cls[:4], cls[2].expand(4))
    assert cls[4] > cls[2] + 0.003
    torch.testing.assert_close(p0[1:], p0[2].expand(4))
    assert p0[0] > p0[2] + 0.003


def test_alpha_zero_is_a_minimum_up_to_the_turning_point():
    alpha = torch.linspace(-0.02, 0.02, 3, dtype=DOUBLE)
    for turn, (tested, true) in zip(turning_points(), ((1.0, 0.0), (0.0, 1.0)), strict=True):
        before, after = (
            statistic_at_alpha(line(factor * turn), alpha, tested=tested, true=true)[:, 0]
            for factor in (0.9, 1.1)
        )
        assert before[0] > before[1] < before[2]
        assert after[0] < after[1] > after[2]


def test_the_full_likelihood_is_most_normal_near_no_variation():
    places = line(-6.0, 0.0, 6.0)
    values = full_gaussianity(two_bin_templates(places).model(AnalysisSettings(floor=0.0)))
    assert values.argmin() == 1
    assert values[1] < 0.05 * values[0]
