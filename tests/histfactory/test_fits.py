"""Fits equal pyhf's with both of its optimizers, or reach a lower likelihood; gradients are exact."""

from __future__ import annotations

from collections.abc import Iterator

import pyhf
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from sbilib.errors import DataError, ParameterError
from sbilib.histfactory import (
    Channel,
    Model,
    NormFactor,
    Sample,
    correlated_background,
    fit,
    fixed_poi_fit,
    uncorrelated_background,
)
from tests.histfactory.fit_examples import Pair, correlated, observed, peak, simple

PAIRS = {
    "bound": simple((51.0, 48.0)),
    "excess": simple((60.0, 65.0)),
    "correlated": correlated((63.0, 58.0, 55.0)),
    "peak": peak(4),
}


@pytest.fixture(params=["scipy", "minuit"])
def optimizer(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "scipy":
        chosen = pyhf.optimize.scipy_optimizer(tolerance=1e-10)
    else:
        chosen = pyhf.optimize.minuit_optimizer(tolerance=1e-4, strategy=2)
    pyhf.set_backend("numpy", chosen)
    yield request.param
    pyhf.set_backend("numpy")


@pytest.mark.parametrize("name", PAIRS)
def test_fits_equal_pyhf_or_are_lower(name: str, optimizer: str) -> None:
    # Minuit's numerical gradients leave about 1e-4 standard deviations.
    tolerance = 2e-5 if optimizer == "scipy" else 3e-4
    pair = PAIRS[name]
    free, held = fit(pair.data, pair.model), fixed_poi_fit(1.5, pair.data, pair.model)
    oracles = (
        pyhf.infer.mle.fit(pair.data.tolist(), pair.oracle, return_fitted_val=True),
        pyhf.infer.mle.fixed_poi_fit(1.5, pair.data.tolist(), pair.oracle, return_fitted_val=True),
    )
    for ours, (parameters, twice_nll) in zip((free, held), oracles, strict=True):
        assert bool(ours.converged)
        assert float(ours.twice_nll) <= float(twice_nll) + 1e-9
        assert float(ours.twice_nll) == pytest.approx(float(twice_nll), rel=1e-6)
        # Away from bounds, where their optimizers stop early, parameters agree as well.
        assert torch.allclose(ours.parameters, torch.tensor(parameters).double(), atol=tolerance, rtol=2e-5)


def test_stationary_at_the_best_fit() -> None:
    pair = PAIRS["peak"]
    result = fit(pair.data, pair.model)
    gradient = pair.model.nll_derivatives(result.parameters, pair.data)[1]
    assert gradient[~result.at_bound].abs().max() < 1e-5


def test_batches_of_data_models_and_values_equal_single_fits() -> None:
    signal = torch.tensor([[12.0, 11.0], [6.0, 15.0], [9.0, 2.0]]).double()
    models = uncorrelated_background(signal, [50.0, 52.0], [3.0, 7.0])
    counts = torch.tensor([[51.0, 48.0], [60.0, 65.0]]).double().unsqueeze(1)
    data = observed(uncorrelated_background([1.0, 1.0], [50.0, 52.0], [3.0, 7.0]), counts)
    values = torch.tensor([0.0, 1.0, 2.0, 5.0]).double().view(4, 1, 1)
    free, held = fit(data, models), fixed_poi_fit(values, data, models)
    assert free.parameters.shape == (2, 3, 3)
    assert held.nll.shape == (4, 2, 3)
    for i in range(2):
        for j in range(3):
            one = uncorrelated_background(signal[j], [50.0, 52.0], [3.0, 7.0])
            assert torch.allclose(free.parameters[i, j], fit(data[i, 0], one).parameters, atol=1e-9)
            for k in range(4):
                single = fixed_poi_fit(float(values[k]), data[i, 0], one)
                assert torch.allclose(held.parameters[k, i, j], single.parameters, atol=1e-9)


def _templates() -> tuple[Tensor, ...]:
    values = ([12.0, 11.0], [50.0, 52.0], [3.0, 7.0])
    return tuple(torch.tensor(each).double().requires_grad_() for each in values)


@pytest.mark.parametrize("counts", [[51.0, 48.0], [60.0, 65.0]], ids=["mu at its bound", "free"])
def test_gradients_of_fits(counts: list[float]) -> None:
    main = torch.tensor(counts).double().requires_grad_()
    value = torch.tensor(0.7).double().requires_grad_()

    def free(signal: Tensor, background: Tensor, width: Tensor, main: Tensor) -> tuple[Tensor, Tensor]:
        model = uncorrelated_background(signal, background, width)
        result = fit(torch.cat([main, model.auxiliary_data]), model)
        return result.parameters, result.nll

    def held(value: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        model = uncorrelated_background(*inputs[:3])
        result = fixed_poi_fit(value, torch.cat([inputs[3], model.auxiliary_data]), model)
        return result.parameters, result.nll

    assert gradcheck(free, (*_templates(), main), eps=1e-4, atol=1e-6, rtol=1e-5)
    assert gradcheck(held, (value, *_templates(), main), eps=1e-4, atol=1e-6, rtol=1e-5)


def test_a_parameter_at_its_bound_does_not_move() -> None:
    signal, background, width = _templates()
    model = uncorrelated_background(signal, background, width)
    result = fit(observed(model, [40.0, 42.0]), model)
    assert result.poi == 0
    assert result.at_bound.tolist() == [True, False, False]
    (gradient,) = torch.autograd.grad(result.poi, signal)
    assert gradient.tolist() == [0.0, 0.0]


def test_asimov_data_are_fitted_by_their_parameters() -> None:
    model = correlated_background([5.0, 9.0], [50.0, 60.0], [55.0, 63.0], [45.0, 56.0])
    truth = torch.tensor([0.4, 1.3]).double()
    result = fit(model.expected_data(truth), model)
    assert torch.allclose(result.parameters, truth, atol=1e-7)


def test_a_signal_without_effect_converges() -> None:
    model = uncorrelated_background([0.0, 0.0], [50.0, 52.0], [3.0, 7.0])
    result = fit(observed(model, [51.0, 48.0]), model)
    assert bool(result.converged)
    assert result.parameters.isfinite().all()


def test_bad_input_is_refused_by_name() -> None:
    model = uncorrelated_background([12.0, 11.0], [50.0, 52.0], [3.0, 7.0])
    data = observed(model, [51.0, 48.0])
    with pytest.raises(DataError, match="auxiliary"):
        fit(data[:2], model)
    for bad in (torch.nan, -1.0):
        wrong = data.clone()
        wrong[1] = bad
        with pytest.raises(DataError, match="bin 1"):
            fit(wrong, model)
    with pytest.raises(ParameterError, match="finite"):
        fixed_poi_fit(float("nan"), data, model)
    nameless = Model([Channel("SR", [Sample("signal", [3.0], [NormFactor("k")])])], poi=None)
    with pytest.raises(ParameterError, match="poi="):
        fixed_poi_fit(1.0, [3.0], nameless)
    with pytest.raises(ParameterError, match="no parameter of interest"):
        _ = fit([3.0], nameless).poi


def test_data_where_nothing_is_expected_are_refused_by_bin() -> None:
    samples = [Sample("signal", [3.0, 1.0], [NormFactor("mu")]), Sample("background", [0.0, 5.0])]
    model = Model([Channel("SR", samples)])
    with pytest.raises(DataError, match="bin 0"):
        fixed_poi_fit(0.0, [2.0, 5.0], model)
    assert bool(fit([2.0, 5.0], model).converged)


def _worse_start(pair: Pair) -> Tensor:
    start = pair.model.initial.clone()
    start[1:] = 9.0
    return start


def test_far_starts_reach_the_same_minimum() -> None:
    pair = PAIRS["excess"]
    near, far = fit(pair.data, pair.model), fit(pair.data, pair.model, start=_worse_start(pair))
    assert bool(far.converged)
    assert torch.allclose(near.parameters, far.parameters, atol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_where_pyhf_stops_early_the_likelihood_is_lower(seed: int) -> None:
    """At pyhf's default settings, with minuit and many parameters, its minimum is above ours or equal."""
    pyhf.set_backend("numpy", "minuit")
    pair = peak(6, seed)
    ours = fit(pair.data, pair.model)
    _, twice_nll = pyhf.infer.mle.fit(pair.data.tolist(), pair.oracle, return_fitted_val=True)
    pyhf.set_backend("numpy")
    assert bool(ours.converged)
    excess = float(twice_nll) - float(ours.twice_nll)
    assert -1e-9 < excess < 1e-2
