"""Interpolation codes: equal to pyhf's, exact derivatives, smooth where they claim it."""

from __future__ import annotations

import pyhf
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyhf import interpolators

from sbilib.errors import ParameterError
from sbilib.histfactory import interpolate

CODES = ("0", "1", "2", "4", "4p")
ALPHAS = torch.tensor([-3.2, -1.0, -0.999, -0.3, 0.0, 0.4, 0.999, 1.0, 2.5], dtype=torch.float64)


def _triple(low: float, nominal: float, high: float) -> torch.Tensor:
    return torch.tensor([[low], [nominal], [high]], dtype=torch.float64)


@pytest.mark.parametrize("code", CODES)
@given(
    low=st.floats(0.2, 40.0),
    nominal=st.floats(1.0, 30.0),
    high=st.floats(0.2, 40.0),
    alpha=st.floats(-4.0, 4.0),
)
@settings(max_examples=60, deadline=None)
def test_equals_pyhf(code: str, low: float, nominal: float, high: float, alpha: float) -> None:
    pyhf.set_backend("numpy")
    theirs = getattr(interpolators, f"code{code}")([[[[low], [nominal], [high]]]], subscribe=False)
    expected = float(theirs(pyhf.tensorlib.astensor([[alpha]]))[0, 0, 0, 0])
    value, _, _ = interpolate(code, torch.tensor([alpha], dtype=torch.float64), *_triple(low, nominal, high))
    assert value.item() == pytest.approx(expected, rel=1e-10, abs=1e-9)


@pytest.mark.parametrize("code", CODES)
def test_derivatives_equal_automatic_ones(code: str) -> None:
    triple = _triple(7.0, 10.0, 14.0)
    alpha = ALPHAS.clone().requires_grad_()
    value, first, second = interpolate(code, alpha, *triple)
    (slope,) = torch.autograd.grad(value.sum(), alpha, create_graph=True)
    torch.testing.assert_close(first, slope, rtol=1e-10, atol=1e-10)
    if slope.requires_grad:
        (bend,) = torch.autograd.grad(slope.sum(), alpha)
        torch.testing.assert_close(second, bend, rtol=1e-10, atol=1e-10)
    else:
        assert torch.equal(second, torch.zeros_like(second))


@pytest.mark.parametrize("code", ["4", "4p"])
@pytest.mark.parametrize("edge", [-1.0, 1.0])
def test_smooth_codes_have_two_continuous_derivatives(code: str, edge: float) -> None:
    step = 1e-9
    inside, outside = (
        interpolate(code, torch.tensor([edge * (1 + s)], dtype=torch.float64), *_triple(8.0, 10.0, 13.0))
        for s in (-step, step)
    )
    for left, right in zip(inside, outside, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-6)


@pytest.mark.parametrize("code", CODES)
def test_templates_are_met_at_one_sigma(code: str) -> None:
    low, nominal, high = 8.0, 10.0, 13.0
    alpha = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    value, _, _ = interpolate(code, alpha, *_triple(low, nominal, high))
    yields = nominal * value if code in ("1", "4") else nominal + value
    torch.testing.assert_close(yields, torch.tensor([low, nominal, high], dtype=torch.float64))


@pytest.mark.parametrize("code", CODES)
def test_gradients_in_the_templates(code: str) -> None:
    alpha = torch.tensor([-1.7, -0.4, 0.6, 1.3], dtype=torch.float64)
    triple = [torch.full((4,), value, dtype=torch.float64, requires_grad=True) for value in (8.0, 10.0, 13.0)]
    assert torch.autograd.gradcheck(lambda *t: interpolate(code, alpha, *t), tuple(triple))


def test_unknown_code_is_named() -> None:
    with pytest.raises(ParameterError, match=r"got '3'; use one of them"):
        interpolate("3", ALPHAS, *_triple(1.0, 1.0, 1.0))
