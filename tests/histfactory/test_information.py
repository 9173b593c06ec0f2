"""Information and covariance against autograd, iminuit and closed forms; pulls and impacts."""

from __future__ import annotations

import pytest
import torch
from iminuit import Minuit
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.autograd import gradcheck

from sbilib.errors import ParameterError
from sbilib.histfactory import (
    Channel,
    Model,
    NormFactor,
    Sample,
    correlated_background,
    covariance,
    fisher_information,
    fit,
    fixed_poi_fit,
    impacts,
    poi_uncertainty,
    pulls,
    uncorrelated_background,
)
from tests.histfactory.fit_examples import correlated, observed, peak


def test_information_equals_the_hessian_by_autograd() -> None:
    pair = peak(3)
    theta = pair.model.initial + 0.05
    want = torch.autograd.functional.hessian(lambda t: -pair.model.logpdf(t, pair.data), theta)
    assert torch.allclose(fisher_information(theta, pair.model, data=pair.data), want, rtol=1e-8, atol=1e-8)


def test_expected_information_of_counts() -> None:
    """I = sum of slopes times slopes over yields, plus the constraint."""
    model = uncorrelated_background([10.0, 4.0], [90.0, 60.0], [9.0, 6.0])
    found = fisher_information(model.initial, model)
    slopes = torch.tensor([[10.0, 4.0], [90.0, 0.0], [0.0, 60.0]]).double()
    want = slopes @ torch.diag(1 / torch.tensor([100.0, 64.0]).double()) @ slopes.T
    want += torch.diag(torch.tensor([0.0, 100.0, 100.0]).double())
    assert torch.allclose(found, want)


def test_uncertainties_equal_minuit() -> None:
    pair = correlated((63.0, 58.0, 65.0))
    result = fit(pair.data, pair.model)

    def twice_nll(theta: list[float]) -> float:
        return -2 * float(pair.model.logpdf(torch.tensor(theta, dtype=torch.float64), pair.data))

    minuit = Minuit(twice_nll, result.parameters.numpy())
    minuit.strategy = 2
    minuit.hesse()
    ours = covariance(result.parameters, pair.model, data=pair.data)
    assert torch.allclose(ours, torch.tensor(minuit.covariance[:, :]).double(), rtol=1e-2)
    assert float(poi_uncertainty(result.parameters, pair.model, data=pair.data)) == pytest.approx(
        float(ours[1, 1].sqrt())
    )


def test_fixed_parameters_have_no_covariance() -> None:
    model = uncorrelated_background([10.0, 4.0], [90.0, 60.0], [9.0, 0.0])
    assert model.fixed.tolist() == [False, False, True]
    found = covariance(model.initial, model)
    assert (found[2] == 0).all()
    assert (found[:, 2] == 0).all()
    free = fisher_information(model.initial, model)[:2, :2]
    assert torch.allclose(found[:2, :2], torch.linalg.inv(free))


def test_no_information_is_an_infinite_covariance() -> None:
    model = uncorrelated_background([0.0, 0.0], [90.0, 60.0], [9.0, 6.0])
    assert poi_uncertainty(model.initial, model) == torch.inf


def test_sigma_is_differentiable_in_templates() -> None:
    values = ([12.0, 11.0], [50.0, 52.0], [55.0, 60.0], [46.0, 40.0])
    inputs = tuple(torch.tensor(each).double().requires_grad_() for each in values)

    def sigma(*inputs: Tensor) -> Tensor:
        model = correlated_background(*inputs)
        return poi_uncertainty(model.initial, model)

    def sigma_of_data(*inputs: Tensor) -> Tensor:
        model = correlated_background(*inputs)
        data = observed(model, [61.0, 70.0])
        return poi_uncertainty(fit(data, model).parameters, model, data=data)

    assert gradcheck(sigma, inputs, eps=1e-4, atol=1e-7, rtol=1e-5)
    assert gradcheck(sigma_of_data, inputs, eps=1e-4, atol=1e-7, rtol=1e-5)


def test_pulls_and_constraints() -> None:
    model = correlated_background([0.1, 0.1], [1000.0, 1200.0], [1050.0, 1260.0], [950.0, 1140.0])
    origin = torch.tensor([0.0, 1.0]).double()
    data = model.expected_data(origin)
    data[:2] = model.expected_data(torch.tensor([0.8, 1.0]).double())[:2]
    result = fixed_poi_fit(1.0, data, model)
    found = pulls(result, data, model)
    information = float(fisher_information(result.parameters, model, data=data)[0, 0])
    # A measurement of precision I - 1 pulls toward 0.8 against the constraint of precision 1.
    assert float(found.pull[0]) == pytest.approx(0.8 * (information - 1) / information, rel=0.02)
    assert 0 < float(found.constraint[0]) < 1
    assert found.pull[1].isnan()
    nothing = correlated_background([5.0, 5.0], [50.0, 60.0], [50.0, 60.0], [50.0, 60.0])
    data = nothing.expected_data(nothing.initial)
    assert float(pulls(fit(data, nothing), data, nothing).constraint[0]) == pytest.approx(1.0)


@pytest.mark.parametrize("prefit", [False, True])
def test_impacts_equal_separate_fits(prefit: bool) -> None:
    pair = correlated((63.0, 58.0, 65.0))
    result = fit(pair.data, pair.model)
    found = impacts(result, pair.data, pair.model, prefit=prefit)
    matrix = covariance(result.parameters, pair.model, data=pair.data)
    width = 1.0 if prefit else float(matrix[0, 0].sqrt())
    assert found.up[1] == 0
    assert bool(found.converged.all())
    for sign, shift in ((1, found.up), (-1, found.down)):
        alpha = float(result.parameters[0]) + sign * width

        def nll(mu: float, alpha: float = alpha) -> float:
            return -float(pair.model.logpdf([alpha, mu], pair.data))

        best = minimize_scalar(nll, bounds=(0, 10), method="bounded", options={"xatol": 1e-9})
        assert float(shift[0]) == pytest.approx(best.x - float(result.poi), abs=1e-5)


def test_batched_impacts() -> None:
    one = correlated((63.0, 58.0, 65.0))
    data = torch.stack([one.data, correlated((70.0, 60.0, 50.0)).data])
    found = impacts(fit(data, one.model), data, one.model)
    assert found.up.shape == (2, 2)
    single = impacts(fit(data[1], one.model), data[1], one.model)
    assert torch.allclose(found.up[1], single.up, atol=1e-8)


def test_a_model_without_poi_has_no_uncertainty_of_it() -> None:
    model = Model([Channel("SR", [Sample("signal", [3.0], [NormFactor("k")])])], poi=None)
    with pytest.raises(ParameterError, match="no parameter of interest"):
        poi_uncertainty(model.initial, model)
