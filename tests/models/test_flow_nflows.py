"""Our flow is that of nflows: same weights, log_prob and gradients, and weights exchanged both ways."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sbilib.errors import CheckpointError, ParameterError
from sbilib.models import ConditionalFlow, FlowConfig
from sbilib.models.nflows_reference import build_nflows, from_nflows_state_dict, to_nflows_state_dict

CONFIGS = {
    "sluijter": FlowConfig.sluijter(),
    "one feature": FlowConfig(features=1, hidden=16),
    "three features": FlowConfig(features=3, context_features=2, hidden=16, n_bins=5, tail_bound=3.0),
    "alternating": FlowConfig(features=4, hidden=16, activation="silu", ordering="alternating", n_blocks=1),
}


def nflows_flow(config: FlowConfig, *, seed: int = 0, scale: float = 0.0, double: bool = True) -> nn.Module:
    """A flow of nflows with the weights of ``seed``, moved at random by ``scale``."""
    torch.manual_seed(seed)
    flow = build_nflows(config)
    if double:
        flow.double()
        flow._distribution._log_z = flow._distribution._log_z.double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return flow


def events(config: FlowConfig, n: int = 500) -> tuple[Tensor, Tensor]:
    """Events inside and outside the tails and exactly at the tail bound, and their contexts."""
    generator = torch.Generator().manual_seed(8)
    x = 0.5 * config.tail_bound * torch.randn(n, config.features, generator=generator, dtype=torch.float64)
    x[:9, 0], x[9:18, -1], x[18] = config.tail_bound, -config.tail_bound, config.tail_bound
    return x, torch.rand(n, config.context_features, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_initial_weights_are_those_nflows_draws(name: str, seed: int) -> None:
    theirs = nflows_flow(CONFIGS[name], seed=seed, double=False).state_dict()
    ours = to_nflows_state_dict(ConditionalFlow(CONFIGS[name], seed=seed))
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("scale", [0.0, 0.05])
def test_log_prob_is_that_of_nflows_in_float64(name: str, scale: float) -> None:
    theirs = nflows_flow(CONFIGS[name], scale=scale)
    ours = from_nflows_state_dict(CONFIGS[name], theirs.state_dict())
    x, z = events(CONFIGS[name])
    with torch.no_grad():
        assert (ours.log_prob(x, z) - theirs.log_prob(x, z)).abs().max() < 1e-10


def test_log_prob_is_that_of_nflows_in_float32_up_to_its_rounding() -> None:
    config = FlowConfig.sluijter()
    theirs = nflows_flow(config, double=False)
    with (
        torch.no_grad()
    ):  # as smooth as training makes it; the initial splines have slopes of several hundred
        for name, parameter in theirs.named_parameters():
            if "final_layer" in name:
                parameter.mul_(0.2)
    exact = nflows_flow(config)
    exact.load_state_dict(theirs.state_dict())
    ours = from_nflows_state_dict(config, theirs.state_dict())
    x, z = (values.float() for values in events(config, 5000))
    with torch.no_grad():
        a, b, c = ours.log_prob(x, z), theirs.log_prob(x, z), exact.log_prob(x.double(), z.double())
    assert ours.log_prob(x, z).dtype == torch.float32
    assert ((a - b).abs() <= 1e-5 * (1 + b.abs())).double().mean() > 0.999
    assert (a - c).abs().max() < 2 * (b - c).abs().max()


def test_gradients_are_those_of_nflows() -> None:
    config = CONFIGS["three features"]
    theirs = nflows_flow(config, scale=0.05)
    ours = from_nflows_state_dict(config, theirs.state_dict())
    inputs = [tuple(values.clone().requires_grad_() for values in events(config)) for _ in range(2)]
    ours.log_prob(*inputs[0]).mean().backward()
    theirs.log_prob(*inputs[1]).mean().backward()
    for mine, other in zip(*inputs, strict=True):
        assert torch.allclose(mine.grad, other.grad, atol=1e-10)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(parameter.grad)
    for name, value in to_nflows_state_dict(ours).items():
        if name in dict(theirs.named_parameters()):
            assert torch.allclose(value, theirs.get_parameter(name).grad, atol=1e-10), name


def test_training_takes_the_same_path_as_nflows() -> None:
    config = FlowConfig.sluijter()
    theirs = nflows_flow(config)
    ours = from_nflows_state_dict(config, theirs.state_dict())
    x, z = events(config)
    for flow in (ours, theirs):
        optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            (-flow.log_prob(x, z).mean()).backward()
            optimizer.step()
    with torch.no_grad():
        assert (ours.log_prob(x, z) - theirs.log_prob(x, z)).abs().max() < 1e-7


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_survive_the_round_trip(name: str) -> None:
    theirs = nflows_flow(CONFIGS[name], seed=4, scale=0.1).state_dict()
    ours = from_nflows_state_dict(CONFIGS[name], theirs)
    back = to_nflows_state_dict(ours)
    build_nflows(CONFIGS[name]).load_state_dict(back)
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)


def test_samples_are_distributed_as_nflows_maps_noise() -> None:
    config = CONFIGS["three features"]
    theirs = nflows_flow(config, scale=0.05)
    ours = from_nflows_state_dict(config, theirs.state_dict())
    noise, z = events(config)
    with torch.no_grad():
        expected, _ = theirs._transform.inverse(noise, context=z)
    assert (ours.from_noise(noise, z) - expected).abs().max() < 1e-7


def test_first_feature_of_nflows_never_sees_the_context() -> None:
    theirs = nflows_flow(FlowConfig.sluijter(), scale=0.05)
    for permutation in theirs._transform._transforms[1::2]:
        permutation._permutation[:] = torch.arange(2)
    x, z = events(FlowConfig.sluijter())
    z.requires_grad_()
    noise = theirs.transform_to_noise(x, z)
    dependence = [torch.autograd.grad(u.sum(), z, retain_graph=True)[0].abs().max() for u in noise.T]
    assert dependence[0] == 0
    assert dependence[1] > 0


def test_weights_of_another_architecture_are_refused() -> None:
    state = nflows_flow(CONFIGS["three features"]).state_dict()
    with pytest.raises(
        CheckpointError, match=r"should hold .*_permutation of shape \(2,\), found shape \(3,\)"
    ):
        from_nflows_state_dict(FlowConfig.sluijter(), state)
    with pytest.raises(CheckpointError, match="found nothing"):
        from_nflows_state_dict(FlowConfig.sluijter(), {})


def test_what_nflows_lacks_is_refused() -> None:
    with pytest.raises(ParameterError, match="nflows has no context units"):
        build_nflows(FlowConfig.modern())
    with pytest.raises(ParameterError, match="nflows has no context units"):
        to_nflows_state_dict(ConditionalFlow(FlowConfig.modern()))
