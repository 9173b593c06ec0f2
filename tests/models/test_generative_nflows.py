"""Every generative model computes the function of the same weights that nflows computes."""

from __future__ import annotations

import pytest
import torch

from sbilib.errors import ParameterError
from sbilib.models import GenerativeModel
from sbilib.models.generative import DensityFlow
from sbilib.models.generative_nflows import nflows_model
from tests.models.generative_examples import FLOWS, MODELS, events, perturbed

pytestmark = pytest.mark.filterwarnings("ignore:Inputs to the softmax are not scaled down")


@pytest.mark.parametrize("features", [2, 5, 8])
@pytest.mark.parametrize("name", MODELS)
def test_log_prob_is_that_of_nflows(name: str, features: int) -> None:
    ours = perturbed(MODELS[name], features)
    theirs = nflows_model(ours)
    x = events(features, 200, scale=3.0)
    with torch.no_grad():
        assert (ours.log_prob(x) - theirs.log_prob(x)).abs().max() < 1e-9


@pytest.mark.parametrize("name", FLOWS)
def test_inverse_is_that_of_nflows(name: str) -> None:
    ours = perturbed(MODELS[name], 6)
    assert isinstance(ours, DensityFlow)
    noise = events(6, 200, scale=1.0)
    with torch.no_grad():
        theirs, _ = nflows_model(ours)._transform.inverse(noise)
        assert (ours.from_noise(noise) - theirs).abs().max() < 1e-7


def test_gradient_of_the_events_is_that_of_nflows() -> None:
    for build in MODELS.values():
        ours = perturbed(build, 4)
        theirs = nflows_model(ours)
        gradients = []
        for model in (ours, theirs):
            x = events(4, 50).requires_grad_()
            gradients.append(torch.autograd.grad(model.log_prob(x).sum(), x)[0])
        assert torch.allclose(*gradients, rtol=1e-7, atol=1e-9)


def test_a_model_that_nflows_lacks_is_named() -> None:
    class Other(GenerativeModel):
        pass

    with pytest.raises(ParameterError, match="nflows has no counterpart of Other"):
        nflows_model(Other())
