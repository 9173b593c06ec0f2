r"""The published flow as nflows builds it, and the exchange of weights with it.

nflows is the oracle of :mod:`sbilib.models.flow`: both compute the same function of the same parameters.
This is the only module that imports it.
"""

from __future__ import annotations

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
    """Our flow with the weights and permutations of an nflows flow.

    Raises:
        ParameterError: if the configuration has parts that nflows lacks.
        CheckpointError: if the state dict does not fit the configuration.
    """
    _check_exchangeable(config)
    flow = ConditionalFlow(config)
    ours = {}
    for name, value in flow.state_dict().items():
        source = _nflows_name(name)
        if source not in state_dict or state_dict[source].shape != value.shape:
            found = tuple(state_dict[source].shape) if source in state_dict else "nothing"
            raise CheckpointError(
                f"the nflows state dict should hold {source} of shape {tuple(value.shape)}, found {found}; "
                "use the configuration the flow was trained with"
            )
        ours[name] = state_dict[source]
    flow.to(next(iter(flow.parameters())).dtype)
    if any(value.dtype == torch.float64 for value in ours.values()):
        flow.double()
    flow.load_state_dict(ours)
    return flow


def to_nflows_state_dict(flow: ConditionalFlow) -> dict[str, Tensor]:
    """Weights and permutations of our flow under the names of nflows, for ``load_state_dict``.

    Raises:
        ParameterError: if the flow has parts that nflows lacks.
    """
    _check_exchangeable(flow.config)
    theirs = {
        name: value for name, value in build_nflows(flow.config).state_dict().items()
        if name.endswith((".mask", ".degrees"))
    }
    theirs.update({_nflows_name(name): value.detach().clone() for name, value in flow.state_dict().items()})
    return theirs


def _nflows_name(name: str) -> str:
    """Name in nflows of one of our parameters, ``layers.<i>.<rest>``."""
    _, layer, rest = name.split(".", 2)
    if rest == "permutation":
        return f"_transform._transforms.{2 * int(layer) + 1}._permutation"
    rest = rest.replace("conditioner", "autoregressive_net")
    rest = rest.replace("linear_0", "linear_layers.0").replace("linear_1", "linear_layers.1")
    return f"_transform._transforms.{2 * int(layer)}.{rest}"


def _check_exchangeable(config: FlowConfig) -> None:
    if config.n_context_units or config.context_affine:
        raise ParameterError(
            "nflows has no context units and no context_affine layer; "
            f"use context_units=0 and context_affine=False, got {config}"
        )
