"""The spline against nflows, autograd and its own inverse, in both of its ways to find a bin."""

from __future__ import annotations

import pytest
import torch
from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline
from torch import Tensor

from sbilib.models.spline import spline_forward, spline_inverse

BOUND = 7.0
N_BINS = 5


@pytest.fixture(params=["search", "scan"], autouse=True)
def _way_to_find_bins(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "scan":
        monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)


def inputs(n: int = 400, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = 20 * torch.rand(2, n, generator=generator, dtype=torch.float64) - 10
    x[0, :4] = torch.tensor([-BOUND, BOUND, -1e3, 1e3])
    parameters = scale * torch.randn(2, 3 * N_BINS - 1, n, generator=generator, dtype=torch.float64)
    return x.to(dtype), parameters.to(dtype)


@pytest.mark.parametrize("inverse", [False, True])
def test_equals_nflows_inside_outside_and_at_the_edges(inverse: bool) -> None:
    x, parameters = inputs(scale=2.0)
    widths, heights, slopes = parameters.movedim(1, -1).split([N_BINS, N_BINS, N_BINS - 1], dim=-1)
    expected, expected_log = unconstrained_rational_quadratic_spline(
        x, widths, heights, slopes, inverse=inverse, tail_bound=BOUND
    )
    if inverse:
        assert (spline_inverse(x, parameters, BOUND) - expected).abs().max() < 1e-10
    else:
        y, log_derivative = spline_forward(x, parameters, BOUND)
        assert (y - expected).abs().max() < 1e-11
        assert (log_derivative - expected_log).abs().max() < 1e-11


def test_gradients_are_those_of_finite_differences() -> None:
    x, parameters = inputs(30)
    # At the edges themselves the second derivative jumps, which finite differences cannot see.
    x[0, :2] = torch.tensor([-6.9, 6.9])
    assert torch.autograd.gradcheck(
        lambda x, p: spline_forward(x, p, BOUND), (x.requires_grad_(), parameters.requires_grad_())
    )


def test_log_derivative_is_that_of_autograd() -> None:
    x, parameters = inputs()
    x.requires_grad_()
    y, log_derivative = spline_forward(x, parameters, BOUND)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert (slope.log() - log_derivative).abs().max() < 1e-12


def test_inverse_undoes_forward() -> None:
    x, parameters = inputs(scale=2.0)
    y, _ = spline_forward(x, parameters, BOUND)
    assert (spline_inverse(y, parameters, BOUND) - x).abs().max() < 1e-9


def test_is_the_identity_in_the_tails() -> None:
    x, parameters = inputs()
    tails = x.abs() > BOUND
    y, log_derivative = spline_forward(x, parameters, BOUND)
    assert torch.equal(y[tails], x[tails])
    assert not log_derivative[tails].any()


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_stays_finite_for_extreme_parameters(scale: float) -> None:
    x, parameters = inputs(scale=scale, dtype=torch.float32)
    x.requires_grad_(), parameters.requires_grad_()
    y, log_derivative = spline_forward(x, parameters, BOUND)
    (y.sum() + log_derivative.sum()).backward()
    for values in (y, log_derivative, x.grad, parameters.grad, spline_inverse(x, parameters, BOUND)):
        assert values.isfinite().all()
