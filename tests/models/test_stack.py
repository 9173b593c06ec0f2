"""A stack computes what its members compute, and gives them back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sbilib.errors import DataError, ParameterError
from sbilib.models import Classifier, ClassifierConfig, ConditionalFlow, FlowConfig, stack_models

FLOWS = {
    "sluijter": FlowConfig.sluijter(),
    "modern": FlowConfig.modern(),
    "three features": FlowConfig(features=3, context_features=2, hidden=16, n_bins=4),
    "one feature": FlowConfig(features=1, n_transforms=2, hidden=16, n_bins=4),
}
CLASSIFIERS = {
    "sluijter": ClassifierConfig.sluijter(),
    "modern": ClassifierConfig.modern(),
    "standardized": ClassifierConfig(standardize=True, activation="tanh", hidden=(8,)),
}


def perturb(model: nn.Module, seed: int) -> None:
    """Move the weights away from their initial values, zeros included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def flows(config: FlowConfig, n: int = 5) -> list[ConditionalFlow]:
    models = [ConditionalFlow(config, seed=seed).double() for seed in range(n)]
    for seed, model in enumerate(models):
        perturb(model, seed)
    return models


def classifiers(config: ClassifierConfig, n: int = 3) -> list[Classifier]:
    models = [Classifier(config, seed=seed).double() for seed in range(n)]
    for seed, model in enumerate(models):
        perturb(model, seed)
        generator = torch.Generator().manual_seed(seed)
        model.standardize(
            seed + torch.randn(50, config.n_features, generator=generator, dtype=torch.float64),
            torch.rand(50, config.n_context, generator=generator, dtype=torch.float64),
        )
    return models


def inputs(members: int, features: int, context: int, n: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    x = 3 * torch.randn(members, n, features, generator=generator, dtype=torch.float64)
    return x, torch.rand(members, n, context, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", FLOWS)
def test_flows_in_a_stack_give_the_densities_and_gradients_of_the_flows_alone(name: str) -> None:
    config = FLOWS[name]
    models = flows(config)
    if name == "sluijter":
        orders = {tuple(model.permutations.flatten().tolist()) for model in models}
        assert len(orders) > 1, "the members should differ in their permutations"
    stack = stack_models(models)
    x, z = inputs(len(models), config.features, config.context_features)
    together = stack.log_prob(x, z)
    together.sum().backward()
    for m, model in enumerate(models):
        alone = model.log_prob(x[m], z[m])
        assert (together[m] - alone).abs().max() < 1e-10
        alone.sum().backward()
        for (label, ours), theirs in zip(stack.named_parameters(), model.parameters(), strict=True):
            assert (ours.grad[m] - theirs.grad).abs().max() < 1e-8, label


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_in_a_stack_give_the_logits_of_the_classifiers_alone(name: str) -> None:
    config = CLASSIFIERS[name]
    models = classifiers(config)
    stack = stack_models(models)
    x, z = inputs(len(models), config.n_features, config.n_context)
    for m, model in enumerate(models):
        assert (stack(x, z)[m] - model(x[m], z[m])).abs().max() < 1e-12


@pytest.mark.parametrize("models", [flows(FLOWS["sluijter"]), classifiers(CLASSIFIERS["modern"])])
def test_a_member_taken_out_is_the_model_that_went_in(models: list[nn.Module]) -> None:
    stack = stack_models(models)
    for m, model in enumerate(models):
        out = stack.member(m)
        assert type(out) is type(model)
        for (label, value), expected in zip(
            out.state_dict().items(), model.state_dict().values(), strict=True
        ):
            assert torch.equal(value, expected), label
            assert value.dtype == expected.dtype
    stack.member(0).state_dict()[label].zero_()
    assert torch.equal(stack.member(0).state_dict()[label], models[0].state_dict()[label]), "it is a copy"


def test_members_do_not_see_each_other() -> None:
    stack = stack_models(flows(FLOWS["modern"]))
    x, z = inputs(5, 2, 1)
    before = stack.log_prob(x, z)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter[2] = torch.nan
    after = stack.log_prob(x, z)
    assert after[2].isnan().all()
    for m in (0, 1, 3, 4):
        assert torch.equal(before[m], after[m])


def test_bad_stacks_and_inputs_are_refused_with_a_reason() -> None:
    with pytest.raises(ParameterError, match="at least one"):
        stack_models([])
    with pytest.raises(ParameterError, match="model 1 is a ConditionalFlow"):
        stack_models([ConditionalFlow(FLOWS["modern"]), ConditionalFlow(FLOWS["sluijter"])])
    with pytest.raises(ParameterError, match="first one a ConditionalFlow"):
        stack_models([ConditionalFlow(FLOWS["modern"]), Classifier(CLASSIFIERS["modern"], seed=1)])
    stack = stack_models(flows(FLOWS["modern"], 2))
    x, z = inputs(2, 2, 1)
    with pytest.raises(DataError, match=r"x must have shape \(2, n, 2\)"):
        stack.log_prob(x[0], z)
    with pytest.raises(DataError, match="40 events a member and context 39"):
        stack.log_prob(x, z[:, :39])
