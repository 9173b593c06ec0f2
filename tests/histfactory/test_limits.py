"""Upper limits equal pyhf's, have the level asked for, and differentiate exactly."""

from __future__ import annotations

import pyhf
import pytest
import torch
from scipy.stats import norm
from torch import Tensor
from torch.autograd import gradcheck

from sbilib.errors import DataError, ParameterError
from sbilib.histfactory import (
    Channel,
    Model,
    NormFactor,
    ParameterSettings,
    Sample,
    SolverSettings,
    hypotest,
    uncorrelated_background,
    upper_limit,
)
from tests.histfactory.fit_examples import correlated, observed, peak, simple

PAIRS = {
    "deficit": simple((45.0, 47.0)),
    "excess": simple((70.0, 75.0)),
    "correlated": correlated((63.0, 58.0, 55.0)),
    "peak": peak(3),
}


@pytest.mark.parametrize("name", PAIRS)
def test_limits_equal_pyhf(name: str) -> None:
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer(tolerance=1e-12, maxiter=10_000))
    pair = PAIRS[name]
    ours = upper_limit(pair.data, pair.model)
    low, high = 0.9 * float(ours.expected[0]), 1.1 * max(float(ours.observed), float(ours.expected[-1]))
    observed_limit, bands = pyhf.infer.intervals.upper_limits.toms748_scan(
        pair.data.tolist(), pair.oracle, low, high, rtol=2e-6
    )
    assert bool(ours.converged)
    assert float(ours.observed) == pytest.approx(float(observed_limit), rel=1e-5)
    assert ours.expected.tolist() == pytest.approx([float(each) for each in bands], rel=1e-5)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.32])
def test_limits_have_their_level(level: float) -> None:
    pair = PAIRS["excess"]
    limits = upper_limit(pair.data, pair.model, level=level)
    assert float(hypotest(limits.observed, pair.data, pair.model).CLs) == pytest.approx(level, rel=1e-7)
    bands = hypotest(limits.expected, pair.data, pair.model).CLs_expected.diagonal()
    assert bands.tolist() == pytest.approx([level] * 5, rel=1e-7)


def test_wald_limit_of_many_events() -> None:
    """With many events the median limit is 1.96 sigma (level 0.05)."""
    model = Model([Channel("SR", [Sample("s", [1e4], [NormFactor("mu")]), Sample("b", [1e8])])])
    limits = upper_limit([1e8], model)
    assert float(limits.expected[2]) == pytest.approx(norm.isf(0.025), rel=1e-3)
    assert float(limits.observed) == pytest.approx(norm.isf(0.025), rel=1e-3)


def test_the_statistic_of_a_signed_poi() -> None:
    settings = [ParameterSettings("mu", bounds=[(-4.0, 10.0)])]
    model = Model(
        [Channel("SR", [Sample("s", [10.0], [NormFactor("mu")]), Sample("b", [50.0])])], settings=settings
    )
    limit = upper_limit([42.0], model, test_stat="q")
    test = hypotest(limit.observed, [42.0], model, test_stat="q")
    assert float(test.CLs) == pytest.approx(0.05, rel=1e-7)
    assert float(limit.observed) != pytest.approx(float(upper_limit([42.0], model).observed), rel=1e-6)


def test_without_data_limits_are_those_of_the_model() -> None:
    model = PAIRS["excess"].model
    origin = model.initial.clone()
    origin[0] = 0.0
    blind, on_asimov = upper_limit(None, model), upper_limit(model.expected_data(origin), model)
    assert torch.allclose(blind.expected, on_asimov.expected, rtol=1e-7)
    assert torch.allclose(blind.observed, on_asimov.observed, rtol=1e-7)


def test_batches_equal_single_limits() -> None:
    signal = torch.tensor([[12.0, 11.0], [6.0, 15.0], [9.0, 2.0]]).double()
    models = uncorrelated_background(signal, [50.0, 52.0], [3.0, 7.0])
    one = uncorrelated_background([1.0, 1.0], [50.0, 52.0], [3.0, 7.0])
    data = observed(one, torch.tensor([[[51.0, 48.0]], [[80.0, 65.0]]]).double())
    found = upper_limit(data, models)
    assert found.expected.shape == (2, 3, 5)
    for i in range(2):
        for j in range(3):
            single = upper_limit(data[i, 0], uncorrelated_background(signal[j], [50.0, 52.0], [3.0, 7.0]))
            assert torch.allclose(found.observed[i, j], single.observed, rtol=1e-8)
            assert torch.allclose(found.expected[i, j], single.expected, rtol=1e-8)


@pytest.mark.parametrize("counts", [[51.0, 48.0], [55.0, 60.0], [80.0, 70.0]])
def test_gradients_of_limits(counts: list[float]) -> None:
    values = ([12.0, 11.0], [50.0, 52.0], [3.0, 7.0], counts)
    inputs = tuple(torch.tensor(each).double().requires_grad_() for each in values)

    def limits(*inputs: Tensor) -> tuple[Tensor, ...]:
        model = uncorrelated_background(*inputs[:3])
        found = upper_limit(torch.cat([inputs[3], model.auxiliary_data]), model)
        return found.observed, found.expected, upper_limit(None, model).expected

    assert gradcheck(limits, inputs, eps=1e-4, atol=1e-7, rtol=1e-5)


def test_limits_beyond_the_range_are_infinite_and_flagged() -> None:
    pair = PAIRS["excess"]
    full = upper_limit(pair.data, pair.model)
    high = float(full.expected[2]) * 1.001
    some = upper_limit(pair.data, pair.model, scan_range=(0.0, high))
    assert some.expected_in_range.tolist() == [True, True, True, False, False]
    assert not bool(some.in_range)
    assert bool(some.converged)
    assert torch.allclose(some.expected[:3], full.expected[:3], rtol=1e-7)
    assert some.observed == torch.inf
    assert some.expected[3:].tolist() == [torch.inf, torch.inf]
    signal = torch.tensor([0.0, 0.0]).double().requires_grad_()
    nothing = upper_limit(pair.data, uncorrelated_background(signal, [50.0, 52.0], [3.0, 7.0]))
    assert nothing.observed == torch.inf
    assert not bool(nothing.expected_in_range.any())


def test_bad_input_is_refused() -> None:
    pair = PAIRS["deficit"]
    for level in (0.0, 1.0, float("nan")):
        with pytest.raises(ParameterError, match="level"):
            upper_limit(pair.data, pair.model, level=level)
    with pytest.raises(ParameterError, match="low < high"):
        upper_limit(pair.data, pair.model, scan_range=(2.0, 1.0))
    with pytest.raises(ParameterError, match="test_stat"):
        upper_limit(pair.data, pair.model, test_stat="q0")
    with pytest.raises(DataError):
        upper_limit(pair.data[:-1], pair.model)
    nameless = Model([Channel("SR", [Sample("s", [3.0], [NormFactor("k")])])], poi=None)
    with pytest.raises(ParameterError, match="no parameter of interest"):
        upper_limit([3.0], nameless)


def test_fits_that_fail_are_flagged() -> None:
    pair = PAIRS["excess"]
    hasty = SolverSettings(max_iterations=1)
    limits = upper_limit(pair.data, pair.model, settings=hasty)
    assert not bool(limits.converged)
    assert not limits.expected.isnan().any()
    assert not bool(upper_limit(None, pair.model, settings=hasty).converged)
    test = hypotest(1.0, pair.data, pair.model, settings=hasty)
    assert not bool(test.converged)
    assert test.CLs.isfinite()
