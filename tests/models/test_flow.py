"""The contract of every flow: a normalized density, invertible, differentiable, dependent on its context."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import sbilib.models.flow
from sbilib.errors import DataError, ParameterError
from sbilib.models import ConditionalFlow, FlowConfig

SMALL = {"hidden": 16, "n_bins": 4}
CONFIGS = {
    "sluijter": FlowConfig.sluijter(),
    "modern": FlowConfig.modern(),
    "one feature": FlowConfig(features=1, n_transforms=2, **SMALL),
    "three features": FlowConfig(features=3, context_features=2, **SMALL),
    "four features": FlowConfig(features=4, context_units=0.25, ordering="alternating", **SMALL),
    "six features": FlowConfig(features=6, context_affine=True, activation="silu", n_blocks=1, **SMALL),
}


def perturbed(config: FlowConfig, scale: float = 0.05, seed: int = 1) -> ConditionalFlow:
    """A float64 flow away from its initial weights."""
    flow = ConditionalFlow(config, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return flow


def events(config: FlowConfig, n: int = 64, scale: float = 2.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Events inside and outside the tails and exactly at the tail bound, and their contexts."""
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(n, config.features, generator=generator, dtype=torch.float64)
    x[0], x[1] = config.tail_bound, -config.tail_bound
    x[2, 0] = 3 * config.tail_bound
    return x, torch.rand(n, config.context_features, generator=generator, dtype=torch.float64)


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def config(request: pytest.FixtureRequest) -> FlowConfig:
    value: FlowConfig = request.param
    return value


def test_log_prob_is_the_change_of_variables(config: FlowConfig) -> None:
    flow = perturbed(config)
    x, z = events(config, 8)
    x[:2] *= 0.99  # the Jacobian of the tail bound itself is one-sided
    for i in range(len(x)):
        jacobian = torch.autograd.functional.jacobian(
            lambda v, i=i: flow.to_noise(v[None], z[i : i + 1])[0], x[i]
        )
        noise = flow.to_noise(x[i : i + 1], z[i : i + 1])
        normal = -0.5 * (noise.square() + math.log(2 * math.pi)).sum()
        expected = normal + jacobian.det().abs().log()
        assert abs(flow.log_prob(x[i : i + 1], z[i : i + 1])[0] - expected) < 1e-9


def test_inverse_undoes_the_flow(config: FlowConfig) -> None:
    flow = perturbed(config)
    x, z = events(config)
    assert (flow.from_noise(flow.to_noise(x, z), z) - x).abs().max() < 1e-6


def test_samples_are_the_noise_of_the_generator_mapped_back(config: FlowConfig) -> None:
    flow = perturbed(config)
    _, z = events(config)
    x = flow.sample(z, torch.Generator().manual_seed(5))
    noise = torch.randn(
        len(z), config.features, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    assert (flow.to_noise(x, z) - noise).abs().max() < 1e-6


def test_gradients_are_finite_everywhere_and_reach_every_parameter(config: FlowConfig) -> None:
    flow = perturbed(config).float()
    x, z = (values.float().requires_grad_() for values in events(config, 256))
    flow.log_prob(x, z).sum().backward()
    for name, values in [("x", x), ("context", z), *flow.named_parameters()]:
        assert values.grad is not None, name
        assert values.grad.isfinite().all(), name
        assert values.grad.any() or (config.features == 1 and name.endswith("initial_weight")), name


@pytest.mark.parametrize("name", ["one feature", "three features", "four features"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    config = FlowConfig(**{**CONFIGS[name].to_dict(), "hidden": 4, "n_transforms": 2, "activation": "silu"})
    flow = perturbed(config)
    x, z = events(config, 4)
    x[:2] *= 0.9
    names = list(dict(flow.named_parameters()))

    def log_prob(x: Tensor, z: Tensor, *values: Tensor) -> Tensor:
        weights = dict(zip(names, values, strict=True))
        return torch.func.functional_call(flow, weights, (x, z))

    weights = [parameter.detach().requires_grad_() for parameter in flow.parameters()]
    assert torch.autograd.gradcheck(log_prob, (x.requires_grad_(), z.requires_grad_(), *weights))


@pytest.mark.parametrize("name", ["sluijter", "modern"])
def test_density_integrates_to_one(name: str) -> None:
    flow = perturbed(CONFIGS[name])
    with torch.no_grad():  # shrunk final layers make a density that a grid of this step resolves
        flow.conditioners.final_weight.mul_(0.2)
        flow.conditioners.final_bias.mul_(0.2)
    axis = torch.linspace(-12, 12, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = flow.log_prob(grid, torch.full((len(grid), 1), 0.4, dtype=torch.float64)).exp()
    assert abs(density.sum() * (axis[1] - axis[0]) ** 2 - 1) < 1e-3


def context_dependence(flow: ConditionalFlow) -> Tensor:
    """Largest derivative of the noise with respect to the context, for each feature of the noise."""
    x, z = events(flow.config, 32)
    z.requires_grad_()
    noise = flow.to_noise(x[3:], z[3:])
    gradients = [torch.autograd.grad(column.sum(), z, retain_graph=True)[0] for column in noise.T]
    return torch.stack([gradient.abs().max() for gradient in gradients])


def test_every_output_of_our_flows_depends_on_the_context() -> None:
    for seed in range(8):
        assert (context_dependence(perturbed(FlowConfig.modern(), seed=seed)) > 1e-3).all()


def test_every_feature_of_every_layer_sees_the_context_with_context_units() -> None:
    config = FlowConfig.modern()
    flow = perturbed(config)
    x, z = (values.T.contiguous() for values in events(config, 16))
    z.requires_grad_()
    for weights in flow.conditioners.layer_weights():
        parameters = flow.conditioners(weights, x, z)
        for feature in parameters:
            (gradient,) = torch.autograd.grad(feature.square().sum(), z, retain_graph=True)
            assert gradient.abs().min() > 0


@pytest.mark.parametrize(("swaps", "blind"), [(0, [True, False]), (1, [False, False])])
def test_published_flow_without_a_swap_is_blind_in_its_first_feature(swaps: int, blind: list[bool]) -> None:
    flow = perturbed(FlowConfig.sluijter())
    flow.permutations[:] = torch.arange(2)
    flow.permutations[:swaps] = torch.tensor([1, 0])
    assert (context_dependence(flow) == 0).tolist() == blind


def test_seed_decides_the_weights_and_leaves_the_global_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, same, other = (ConditionalFlow(FlowConfig.modern(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [flow.state_dict()["conditioners.block_weight"] for flow in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("n", [1, 7, 20])
def test_chunks_and_single_events_give_the_same_numbers(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = perturbed(FlowConfig.modern())
    x, z = (values[:n] for values in events(flow.config))
    expected = flow.log_prob(x, z).detach()
    noise = flow.to_noise(x, z).detach()
    monkeypatch.setattr(sbilib.models.flow, "CHUNK", 7)
    with torch.no_grad():
        assert torch.allclose(flow.log_prob(x, z), expected, rtol=1e-12)
    assert torch.allclose(flow.from_noise(noise, z), x, atol=1e-6)


@pytest.mark.parametrize("name", ["sluijter", "modern", "three features"])
def test_compiles_as_one_graph_to_the_same_numbers(name: str) -> None:
    config = FlowConfig(**{**CONFIGS[name].to_dict(), "n_transforms": 2})
    eager, compiled = perturbed(config), perturbed(config)
    compiled.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    x, z = events(config)
    for flow in (eager, compiled):
        flow.log_prob(x, z).mean().backward()
    assert torch.allclose(eager.log_prob(x, z), compiled.log_prob(x, z), rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(eager.parameters(), compiled.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": 0}, "features must be an integer of at least 1, got 0"),
        ({"hidden": 6.5}, "hidden must be an integer"),
        ({"n_blocks": True}, "n_blocks must be an integer"),
        ({"n_bins": 1}, "n_bins must be between 2 and 500"),
        ({"n_bins": 1000}, "n_bins must be between 2 and 500"),
        ({"tail_bound": 0.0}, "tail_bound must be a finite number"),
        ({"tail_bound": "7"}, "tail_bound must be a finite number"),
        ({"activation": "tanh"}, "activation must be one of 'relu', 'silu'"),
        ({"ordering": "none"}, "ordering must be one of"),
        ({"context_units": 1.5}, "context_units must be a finite number"),
        ({"context_units": 0.999}, "leave at least one hidden unit"),
        ({"context_affine": 1}, "context_affine must be True or False"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        FlowConfig.from_dict({**FlowConfig().to_dict(), **changes})


def test_unknown_configuration_field_is_refused() -> None:
    with pytest.raises(ParameterError, match="no field depth"):
        FlowConfig.from_dict({"depth": 3})


def test_wrong_shapes_are_refused() -> None:
    flow = ConditionalFlow(FlowConfig.modern())
    with pytest.raises(DataError, match=r"x must have shape \(n, 2\), got \(5, 3\)"):
        flow.log_prob(torch.zeros(5, 3), torch.zeros(5, 1))
    with pytest.raises(DataError, match=r"context must have shape \(n, 1\), got \(5,\)"):
        flow.sample(torch.zeros(5), torch.Generator())
    with pytest.raises(DataError, match="5 events and context 4"):
        flow.log_prob(torch.zeros(5, 2), torch.zeros(4, 1))
