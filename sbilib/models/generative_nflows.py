"""The generative models as nflows builds them, with the weights of ours: oracle, and rival in speed.

nflows orders the hidden units otherwise, keeps the weights that its masks switch off, and lays out some
parameters in another order; the function is the same. Its affine coupling limits the scale in another way
than its affine autoregressive layer; here both use the latter's.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.nn.nde.made import MixtureOfGaussiansMADE
from nflows.nn.nets import ResidualNet
from nflows.transforms.autoregressive import (
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
)
from nflows.transforms.base import CompositeTransform
from nflows.transforms.coupling import AffineCouplingTransform, PiecewiseRationalQuadraticCouplingTransform
from nflows.transforms.permutations import Permutation
from torch import Tensor, nn

from sbilib.errors import ParameterError
from sbilib.models.autoregressive import AutoregressiveLayer
from sbilib.models.autoregressive_network import ACTIVATIONS, MaskedNetwork, ResidualNetwork
from sbilib.models.coupling import CouplingLayer
from sbilib.models.generative import DensityFlow, GenerativeModel
from sbilib.models.generative_config import NetworkConfig
from sbilib.models.generative_transforms import Affine, Spline
from sbilib.models.made import hidden_degrees
from sbilib.models.mixture import MixtureAutoregressive

__all__ = ["nflows_model"]


@torch.no_grad()
def nflows_model(model: GenerativeModel) -> nn.Module:
    """A module of nflows that computes the same ``log_prob`` from copies of the same weights.

    Args:
        model: one of our flows, or a mixture.

    Raises:
        ParameterError: if nflows has no such model.

    Example:
        >>> from sbilib.models import RealNVP, AffineFlowConfig
        >>> ours = RealNVP(AffineFlowConfig.modern(features=4), seed=1).double()
        >>> x = torch.linspace(-2, 2, 12, dtype=torch.float64).view(3, 4)
        >>> torch.allclose(nflows_model(ours).log_prob(x), ours.log_prob(x))
        True
    """
    theirs: Any
    if isinstance(model, MixtureAutoregressive):
        theirs = _mixture(model)
    elif isinstance(model, DensityFlow):
        theirs = Flow(CompositeTransform(_transforms(model)), StandardNormal([model.features]))
        theirs._distribution._log_z = theirs._distribution._log_z.to(next(model.parameters()))
    else:
        raise ParameterError(f"nflows has no counterpart of {type(model).__name__}; pass a flow or a mixture")
    moved: nn.Module = theirs.to(next(model.parameters()))
    return moved


def _transforms(model: DensityFlow) -> list[nn.Module]:
    transforms: list[nn.Module] = []
    for layer, permutation in zip(model.layers, model.permutations, strict=True):
        if isinstance(layer, AutoregressiveLayer):
            transforms.append(_autoregressive(layer, model.config))
        elif isinstance(layer, CouplingLayer):
            transforms.append(_coupling(layer, model.config))
        transforms.append(Permutation(permutation.clone()))
    return transforms


def _shape(config: NetworkConfig) -> dict[str, Any]:
    return {
        "hidden_features": config.hidden,
        "num_blocks": config.n_blocks,
        "activation": ACTIVATIONS[config.activation],
    }


def _autoregressive(layer: AutoregressiveLayer, config: NetworkConfig) -> nn.Module:
    options: dict[str, Any] = {"features": config.features, **_shape(config)}
    transform: Any
    if isinstance(layer.elementwise, Spline):
        transform = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            num_bins=layer.elementwise.n_bins, tails="linear", tail_bound=layer.elementwise.bound, **options
        )
    else:
        transform = MaskedAffineAutoregressiveTransform(**options)
    _fill_masked(transform.autoregressive_net, layer.network)
    result: nn.Module = transform
    return result


class _SoftplusCoupling(AffineCouplingTransform):  # type: ignore[misc]
    """An affine coupling with the scale of the affine autoregressive layer."""

    def _scale_and_shift(self, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale = transform_params.chunk(2, dim=1)
        return F.softplus(scale) + 1e-3, shift


def _coupling(layer: CouplingLayer, config: NetworkConfig) -> nn.Module:
    mask = torch.arange(config.features) >= layer.n_kept

    def network(inputs: int, outputs: int) -> nn.Module:
        net: nn.Module = ResidualNet(inputs, outputs, **_shape(config))
        return net

    weight: Tensor = layer.network.final_weight
    bias: Tensor = layer.network.final_bias
    transform: Any
    if isinstance(layer.elementwise, Affine):
        transform = _SoftplusCoupling(mask, network)
        order = torch.arange(len(bias)).view(-1, 2).flip(1).T.flatten()
        weight, bias = weight[order], bias[order]
    else:
        spline: Any = layer.elementwise
        transform = PiecewiseRationalQuadraticCouplingTransform(
            mask, network, num_bins=spline.n_bins, tails="linear", tail_bound=spline.bound
        )
        # nflows divides the widths and heights by the root of the number of hidden units.
        factor = torch.ones(3 * spline.n_bins - 1).to(bias)
        factor[: 2 * spline.n_bins] = math.sqrt(config.hidden)
        factor = factor.repeat(layer.n_changed)
        weight, bias = weight * factor[:, None], bias * factor
    every = torch.arange(config.hidden)
    _fill(transform.transform_net, layer.network, layer.network.initial_weight, weight, bias, every)
    result: nn.Module = transform
    return result


def _mixture(model: MixtureAutoregressive) -> nn.Module:
    config = model.config
    theirs: nn.Module = MixtureOfGaussiansMADE(
        config.features,
        num_mixture_components=config.n_components,
        epsilon=config.min_width,
        custom_initialization=False,
        **_shape(config),
    )
    # nflows has logit, mean and width of one Gaussian side by side.
    order = torch.arange(3 * config.features * config.n_components)
    order = order.view(config.features, 3, config.n_components).mT.flatten()
    _fill_masked(theirs, model.network, order)
    return theirs


def _fill_masked(made: nn.Module, network: MaskedNetwork, order: Tensor | None = None) -> None:
    """Copy weights into a MADE of nflows, whose units of hidden layers are not sorted by degree."""
    degrees = hidden_degrees(network.features, len(network.initial_bias), 0)
    units = degrees.argsort(stable=True).argsort()
    weights = network.masked_weights()
    final = F.pad(weights.final, (0, 0, network.outputs, 0))
    bias: Tensor = network.final_bias
    if order is not None:
        final, bias = final[order], bias[order]
    _fill(made, network, F.pad(weights.initial, (0, 1)), final, bias, units)


def _fill(
    net: Any, network: ResidualNetwork, initial: Tensor, final: Tensor, final_bias: Tensor, units: Tensor
) -> None:
    """Copy the weights of ``network``, with its hidden units in another order."""

    def copy(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
        layer.to(weight)
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)

    copy(net.initial_layer, initial[units], network.initial_bias[units])
    for block, weights, biases in zip(net.blocks, network.block_weight, network.block_bias, strict=True):
        for layer, weight, bias in zip(block.linear_layers, weights, biases, strict=True):
            copy(layer, weight[units][:, units], bias[units])
    copy(net.final_layer, final[:, units], final_bias)
