r"""The published flow as nflows builds it, and the exchange of weights with it.

nflows is the oracle of :mod:`sbilib.models.flow`: both compute the same function of the same parameters.
Only this module and :mod:`sbilib.models.generative_nflows` import it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressiveTransform
from nflows.transforms.base import CompositeTransform
from nflows.transforms.permutations import RandomPermutation, ReversePermutation
from torch import Tensor, nn

from sbilib.errors import CheckpointError, ParameterError
from sbilib.models.flow import ConditionalFlow, FlowConfig

__all__ = ["build_nflows", "from_nflows_state_dict", "to_nflows_state_dict"]


def build_nflows(config: FlowConfig) -> nn.Module:
    """Plain nflows flow of the given architecture, with weights from torch's global generator.

    Raises:
        ParameterError: if the configuration has parts that nflows lacks.

    Example:
        >>> flow = build_nflows(FlowConfig.sluijter())
        >>> flow.log_prob(torch.zeros(3, 2), context=torch.zeros(3, 1)).shape
        torch.Size([3])
    """
    _check_exchangeable(config)
    permutation = RandomPermutation if config.ordering == "random" else ReversePermutation
    transforms: list[nn.Module] = []
    for _ in range(config.n_transforms):
        transforms.append(
            MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                features=config.features,
                hidden_features=config.hidden,
                context_features=config.context_features,
                num_bins=config.n_bins,
                tails="linear",
                tail_bound=config.tail_bound,
                num_blocks=config.n_blocks,
                use_residual_blocks=True,
                activation=getattr(F, config.activation),
            )
        )
        transforms.append(permutation(features=config.features))
    flow: nn.Module = Flow(CompositeTransform(transforms), StandardNormal([config.features]))
    return flow


def from_nflows_state_dict(config: FlowConfig, state_dict: dict[str, Tensor]) -> ConditionalFlow:
    """Our flow with the weights and permutations of an nflows flow, in the same dtype.

    Raises:
        ParameterError: if the configuration has parts that nflows lacks.
        CheckpointError: if the state dict does not fit the configuration.
    """
    _check_exchangeable(config)
    flow = ConditionalFlow(config)
    for name, ours in _correspondence(flow):
        theirs = state_dict.get(name)
        if theirs is None or theirs.shape != ours.shape:
            found = "nothing" if theirs is None else f"shape {tuple(theirs.shape)}"
            raise CheckpointError(
                f"the nflows state dict should hold {name} of shape {tuple(ours.shape)}, found {found}; "
                "use the configuration the flow was trained with"
            )
    flow.to(state_dict["_transform._transforms.0.autoregressive_net.final_layer.weight"].dtype)
    with torch.no_grad():
        for name, ours in _correspondence(flow):
            ours.copy_(state_dict[name])
    return flow


def to_nflows_state_dict(flow: ConditionalFlow) -> dict[str, Tensor]:
    """Weights and permutations of our flow under the names of nflows, for ``load_state_dict``.

    Raises:
        ParameterError: if the flow has parts that nflows lacks.
    """
    _check_exchangeable(flow.config)
    with torch.random.fork_rng(devices=[]):
        fixed = build_nflows(flow.config).state_dict()
    theirs = {name: value for name, value in fixed.items() if name.endswith((".mask", ".degrees"))}
    return theirs | {name: ours.detach().clone() for name, ours in _correspondence(flow)}


def _correspondence(flow: ConditionalFlow) -> Iterator[tuple[str, Tensor]]:
    """Names of nflows, each with the part of our parameters or permutations that it denotes."""
    nets = flow.conditioners
    for i in range(flow.config.n_transforms):
        yield f"_transform._transforms.{2 * i + 1}._permutation", flow.permutations[i]
        net = f"_transform._transforms.{2 * i}.autoregressive_net"
        yield f"{net}.initial_layer.weight", nets.initial_weight[i]
        yield f"{net}.initial_layer.bias", nets.initial_bias[i]
        yield f"{net}.context_layer.weight", nets.context_weight[i, 0]
        yield f"{net}.context_layer.bias", nets.context_bias[i, 0]
        for j in range(flow.config.n_blocks):
            yield f"{net}.blocks.{j}.context_layer.weight", nets.context_weight[i, j + 1]
            yield f"{net}.blocks.{j}.context_layer.bias", nets.context_bias[i, j + 1]
            for k in range(2):
                yield f"{net}.blocks.{j}.linear_layers.{k}.weight", nets.block_weight[i, j, k]
                yield f"{net}.blocks.{j}.linear_layers.{k}.bias", nets.block_bias[i, j, k]
        yield f"{net}.final_layer.weight", nets.final_weight[i]
        yield f"{net}.final_layer.bias", nets.final_bias[i]


def _check_exchangeable(config: FlowConfig) -> None:
    if config.n_context_units or config.context_affine:
        raise ParameterError(
            "nflows has no context units and no context_affine layer; "
            f"use context_units=0 and context_affine=False, got {config}"
        )
