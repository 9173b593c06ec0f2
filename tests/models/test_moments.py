"""Moments of a learned log ratio: the conditions at the maximum, and a ratio that is known exactly."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbilib.errors import DataError, ParameterError, TrainingError
from sbilib.models.classifier import Classifier, ClassifierConfig
from sbilib.models.moments import match_moments

NODES = torch.linspace(-1, 1, 7, dtype=torch.float64)
N_EVENTS = 4000


def _normal_quantiles(n: int) -> torch.Tensor:
    levels = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return torch.special.ndtri(levels).unsqueeze(1)


def _classifier(seed: int = 1, degree: int = 3, n_features: int = 1) -> Classifier:
    model = Classifier(
        ClassifierConfig(n_features, hidden=(16,), activation="tanh", nuisance_degree=degree), seed=seed
    )
    # Standardized, a uniform nuisance parameter has root 3 times its width.
    model.scale[n_features:] = 1 / math.sqrt(3.0)
    return model


def _linear(weights: torch.Tensor, biases: torch.Tensor) -> Classifier:
    """One whose coefficients are linear in the event."""
    model = _classifier(degree=len(weights) - 1)
    with torch.no_grad():
        for layer in (model.layers[0], model.layers[-1]):
            layer.weight.zero_()
            layer.bias.zero_()
        # tanh is linear to 1e-6 for such small inputs.
        model.layers[0].weight[0] = 1e-3
        model.layers[-1].weight[:, 0] = 1e3 * weights
        model.layers[-1].bias += biases
    return model


def _shifted(slope: float = 0.5) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = _normal_quantiles(N_EVENTS)
    return [(x + slope * z, torch.ones(len(x))) for z in NODES]


def _residuals(model: Classifier, samples, reference) -> torch.Tensor:
    """Projections on the polynomials of the differences of both moments, ``(k, 2)``."""
    basis = model.basis(NODES.float().unsqueeze(1)).double()
    x, weights = reference
    coefficients = model.coefficients(x.float()).double()
    ratios = (weights / weights.sum()).double()[:, None] * (coefficients @ basis.T).exp()
    found = torch.stack((ratios.sum(0), ratios.T @ coefficients[:, 1]), dim=1)
    slopes = [(model.coefficients(s.float())[:, 1].double() * w / w.sum()).sum() for s, w in samples]
    wanted = torch.stack((torch.ones(len(NODES), dtype=torch.float64), torch.stack(slopes)), dim=1)
    return basis.T @ (wanted - found)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), slope=st.floats(-0.8, 0.8), tilt=st.floats(-0.5, 0.5))
def test_moments_agree_after_matching(seed: int, slope: float, tilt: float) -> None:
    model = _classifier(seed)
    samples = _shifted(slope)
    x = _normal_quantiles(N_EVENTS)
    reference = (x, (tilt * x[:, 0]).exp())
    # The slope that is matched is that of before: the same up to a factor and an offset of the polynomial.
    before = model.coefficients(x.float()).detach()
    match_moments(model, NODES, samples, reference)
    after = model.coefficients(x.float()).detach()
    change = after - before
    design = torch.stack((torch.ones(len(x)), before[:, 1]), dim=1)
    assert torch.allclose(design @ torch.linalg.lstsq(design, change).solution, change, atol=1e-4)
    assert _residuals(model, samples, reference).abs().max() < 1e-4


def test_moments_disagree_before_matching() -> None:
    reference = (_normal_quantiles(N_EVENTS), torch.ones(N_EVENTS))
    assert _residuals(_classifier(), _shifted(), reference).abs().max() > 0.1


def test_exact_ratio_with_an_error_is_mended_exactly() -> None:
    # p(x | z) is normal with mean z / 2, the reference standard normal: the log ratio is x z / 2 - z^2 / 8.
    model = _linear(torch.tensor([0.03, 0.4, -0.02]), torch.tensor([0.2, 0.1, -0.1]))
    x, z = _normal_quantiles(N_EVENTS), torch.tensor([[-1.0], [-0.4], [0.3], [1.0]])
    match_moments(model, NODES, _shifted(0.5), (x, torch.ones(N_EVENTS)))
    exact = 0.5 * x @ z.double().T - z.double().T.square() / 8
    assert torch.allclose(model.outer(x.float(), z).double(), exact, atol=3e-3)


def test_weights_count_as_numbers_of_events() -> None:
    x = _normal_quantiles(500)
    twice = torch.cat((x, x[:200]))
    weights = torch.ones(500)
    weights[:200] = 2
    one, other = _classifier(), _classifier()
    match_moments(one, NODES, [(x, weights)] * len(NODES), (x, weights))
    match_moments(other, NODES, [(twice, torch.ones(700))] * len(NODES), (twice, torch.ones(700)))
    assert torch.allclose(one.layers[-1].weight, other.layers[-1].weight, atol=1e-5)
    assert torch.allclose(one.layers[-1].bias, other.layers[-1].bias, atol=1e-5)


def test_bad_input_is_named() -> None:
    x, one = _normal_quantiles(50), torch.ones(50)
    samples = [(x, one)] * len(NODES)
    plain = Classifier(ClassifierConfig(1, hidden=(4,)), seed=1)
    with pytest.raises(ParameterError, match="nuisance_degree > 0"):
        match_moments(plain, NODES, samples, (x, one))
    with pytest.raises(ParameterError, match="degree 3 needs more than 3"):
        match_moments(_classifier(), NODES[:3], samples[:3], (x, one))
    with pytest.raises(ParameterError, match="finite and different"):
        match_moments(_classifier(), NODES * 0, samples, (x, one))
    with pytest.raises(DataError, match="6 samples for 7"):
        match_moments(_classifier(), NODES, samples[:6], (x, one))
    with pytest.raises(DataError, match="weights must be finite"):
        match_moments(_classifier(), NODES, samples, (x, one * float("nan")))
    with pytest.raises(DataError, match="weights must be finite"):
        match_moments(_classifier(), NODES, samples, (x, one[:40]))
    with pytest.raises(DataError, match="not negative"):
        match_moments(_classifier(), NODES, samples, (x, one - 2 * (torch.arange(50) == 3)))
    with pytest.raises(DataError, match="events"):
        match_moments(_classifier(), NODES, samples, (x * float("inf"), one))


def test_reference_without_the_events_is_refused() -> None:
    x, one = _normal_quantiles(200), torch.ones(200)
    model = _linear(torch.tensor([0.0, 1.0]), torch.zeros(2))
    before = model.layers[-1].weight.clone()
    with pytest.raises(TrainingError, match="reference"):
        match_moments(model, NODES, [(x + 5, one)] * len(NODES), (x, one))
    assert torch.equal(model.layers[-1].weight, before)
