r"""The masked residual networks that condition the autoregressive layers.

Feature ``d`` of a layer may depend on the features before it and on the context. Each unit carries a
*degree*, the number of features it has seen; a hidden unit listens to units of no higher degree, and the
outputs of feature ``d`` listen to units of degree below ``d`` (Germain et al., arXiv:1502.03509). With
activation :math:`a`, features :math:`x` and context :math:`z` the network of a layer is

.. math::

    h_0 &= W x + b + a(C_0 z + c_0), \\
    h_i &= h_{i-1} + W''_i \, a\big(W'_i \, a(h_{i-1}) + b'_i + C_i z + c_i\big) + b''_i, \\
    \text{parameters} &= V h_n + v,

as in nflows. Two things are ours: units of degree zero, which see the context alone, can be asked for, and
whatever the masks force to zero is left out of the arithmetic. The weights of all layers are stacked, so that
an optimizer or a compiled graph handles eight tensors instead of eighteen a layer.

Tensors of units are laid out ``(units, batch)``. Every weight and every tensor of units may have leading axes
in front, one network each: that is how a stack of models (:mod:`sbilib.models.stack`) runs through this code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ACTIVATIONS", "Conditioners", "LayerWeights", "affine", "hidden_degrees"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "silu": F.silu}
"""Activation functions by name."""


def hidden_degrees(features: int, hidden: int, context_units: int) -> Tensor:
    """Degrees of the hidden units, shape ``(hidden,)``: the context-only units first.

    Example:
        >>> hidden_degrees(3, 6, 2).tolist()
        [0, 0, 1, 1, 2, 2]
        >>> hidden_degrees(3, 6, 0).tolist()  # without context units, the order of nflows
        [1, 2, 1, 2, 1, 2]
    """
    lowest, span = min(1, features - 1), max(1, features - 1)
    degrees = torch.arange(hidden - context_units) % span + lowest
    if context_units == 0:
        return degrees
    return torch.cat([torch.zeros(context_units, dtype=torch.long), degrees.sort().values])


class LayerWeights(NamedTuple):
    """Weights of the network of one layer, masks applied; symbols as in the module's equation.

    In a stack every tensor has the axis of the members in front of the shape given here.
    """

    initial: Tensor
    """:math:`W` without the last feature, which nothing may see, ``(hidden, features - 1)``."""
    initial_bias: Tensor
    """:math:`b`, ``(hidden, 1)``."""
    context: tuple[Tensor, ...]
    """:math:`C_0, C_1, ...`, each ``(hidden, context_features)``."""
    context_bias: tuple[Tensor, ...]
    """:math:`c_0` and all :math:`c_i + b'_i`, each ``(hidden, 1)``."""
    hidden: tuple[Tensor, ...]
    """:math:`W'_1, W''_1, W'_2, ...`, each ``(hidden, hidden)``."""
    residual_bias: tuple[Tensor, ...]
    """:math:`b''_i`, each ``(hidden, 1)``."""
    final: Tensor
    """:math:`V`, ``(features * outputs, hidden)``."""
    final_bias: Tensor
    """:math:`v`, ``(features * outputs, 1)``."""

    def leading(self, n: int) -> LayerWeights:
        """The weights among the first ``n`` hidden units."""
        return LayerWeights(
            self.initial[..., :n, :],
            self.initial_bias[..., :n, :],
            tuple(weight[..., :n, :] for weight in self.context),
            tuple(bias[..., :n, :] for bias in self.context_bias),
            tuple(weight[..., :n, :n] for weight in self.hidden),
            tuple(bias[..., :n, :] for bias in self.residual_bias),
            self.final[..., :n],
            self.final_bias,
        )


class Conditioners(nn.Module):
    """Networks that give the parameters of the elementwise transforms, one network for each layer.

    Args:
        n_layers: number of layers ``L``.
        features: number of features ``D``.
        context_features: number of context features.
        outputs: number of parameters ``P`` of each feature.
        hidden: hidden units.
        n_blocks: residual blocks.
        activation: a key of :data:`ACTIVATIONS`.
        context_units: how many hidden units see the context alone.
        members: leading axes of all weights, one network for each index; none for an ordinary model.

    The weights are left for :meth:`initialize` to draw.

    Example:
        >>> nets = Conditioners(1, 2, 1, 29, hidden=64, n_blocks=2, activation="relu", context_units=0)
        >>> nets.initialize(0, torch.Generator().manual_seed(0))
        >>> nets(nets.layer_weights()[0], torch.zeros(2, 5), torch.zeros(1, 5)).shape
        torch.Size([2, 29, 5])
    """

    initial_mask: Tensor | None
    hidden_mask: Tensor | None
    final_mask: Tensor | None

    def __init__(
        self,
        n_layers: int,
        features: int,
        context_features: int,
        outputs: int,
        *,
        hidden: int,
        n_blocks: int,
        activation: str,
        context_units: int,
        members: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.features, self.outputs = features, outputs
        self._layer_axis = len(members)
        self.activation = ACTIVATIONS[activation]
        degrees = hidden_degrees(features, hidden, context_units)
        self.n_context_units = int((degrees == 0).sum())
        seen = torch.arange(1, features + 1)
        outgoing = torch.arange(features).repeat_interleave(outputs)
        if self.n_context_units == 0:
            # Nothing feeds the first feature: its parameters are the biases, its rows need no product.
            outgoing = outgoing[outputs:]
        self._register_mask("initial_mask", seen[:-1], degrees)
        self._register_mask("hidden_mask", degrees, degrees)
        self._register_mask("final_mask", degrees, outgoing)

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*members, n_layers, *shape))

        self.initial_weight = parameter(hidden, features)
        self.initial_bias = parameter(hidden)
        self.context_weight = parameter(1 + n_blocks, hidden, context_features)
        self.context_bias = parameter(1 + n_blocks, hidden)
        self.block_weight = parameter(n_blocks, 2, hidden, hidden)
        self.block_bias = parameter(n_blocks, 2, hidden)
        self.final_weight = parameter(features * outputs, hidden)
        self.final_bias = parameter(features * outputs)

    def _register_mask(self, name: str, incoming: Tensor, outgoing: Tensor) -> None:
        mask = (outgoing[:, None] >= incoming).to(torch.get_default_dtype())
        self.register_buffer(name, None if bool(mask.all()) else mask, persistent=False)

    def initialize(self, layer: int, generator: torch.Generator) -> None:
        """Draw the weights of one layer as nflows does, in the same order."""

        def linear(weight: Tensor, bias: Tensor) -> None:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
            bound = 1 / math.sqrt(weight.shape[1])
            nn.init.uniform_(bias, -bound, bound, generator=generator)

        linear(self.initial_weight[layer], self.initial_bias[layer])
        linear(self.context_weight[layer, 0], self.context_bias[layer, 0])
        for i in range(self.block_weight.shape[1]):
            linear(self.context_weight[layer, i + 1], self.context_bias[layer, i + 1])
            for j in range(2):
                linear(self.block_weight[layer, i, j], self.block_bias[layer, i, j])
            # A block starts close to the identity.
            nn.init.uniform_(self.block_weight[layer, i, 1], -1e-3, 1e-3, generator=generator)
            nn.init.uniform_(self.block_bias[layer, i, 1], -1e-3, 1e-3, generator=generator)
        linear(self.final_weight[layer], self.final_bias[layer])

    def layer_weights(self) -> list[LayerWeights]:
        """The weights of each layer, masked and unstacked, for :meth:`forward`."""
        axis = self._layer_axis
        initial = _masked(self.initial_weight[..., :-1], self.initial_mask)
        hidden = _masked(self.block_weight, self.hidden_mask).flatten(axis + 1, axis + 2)
        final = self.final_weight if self.n_context_units else self.final_weight[..., self.outputs :, :]
        context_bias = self.context_bias + F.pad(self.block_bias[..., 0, :], (0, 0, 1, 0))
        stacked = zip(
            initial.unbind(axis),
            self.initial_bias.unsqueeze(-1).unbind(axis),
            [layer.unbind(axis) for layer in self.context_weight.unbind(axis)],
            [layer.unbind(axis) for layer in context_bias.unsqueeze(-1).unbind(axis)],
            [layer.unbind(axis) for layer in hidden.unbind(axis)],
            [layer.unbind(axis) for layer in self.block_bias[..., 1, :].unsqueeze(-1).unbind(axis)],
            _masked(final, self.final_mask).unbind(axis),
            self.final_bias.unsqueeze(-1).unbind(axis),
            strict=True,
        )
        return [LayerWeights(*layer) for layer in stacked]

    def forward(self, weights: LayerWeights, x: Tensor, context: Tensor) -> Tensor:
        """Spline parameters of all features.

        Args:
            weights: those of the layer.
            x: features, shape ``(features, batch)``.
            context: shape ``(context_features, batch)``.

        Returns:
            Parameters, shape ``(features, outputs, batch)``.
        """
        units = self._hidden_units(weights, x[..., :-1, :], context)
        parameters = matmul(weights.final, units)
        if self.n_context_units:
            parameters = parameters + weights.final_bias
        else:
            first, others = weights.final_bias.tensor_split([self.outputs], dim=-2)
            first = first.expand(*first.shape[:-1], x.shape[-1])
            parameters = torch.cat([first, parameters + others], dim=-2)
        return parameters.view(*x.shape[:-2], self.features, self.outputs, x.shape[-1])

    def first_feature(self, weights: LayerWeights, context: Tensor) -> Tensor:
        """Parameters ``(1, outputs, batch)`` of the first feature, which depends on the context alone."""
        bias = weights.final_bias[: self.outputs]
        if not self.n_context_units:
            return bias.expand(-1, context.shape[1])[None]
        nothing = context.new_zeros(self.features - 1, context.shape[1])
        weights = weights.leading(self.n_context_units)
        units = self._hidden_units(weights, nothing, context)
        return (weights.final[: self.outputs] @ units + bias)[None]

    def _hidden_units(self, weights: LayerWeights, x: Tensor, context: Tensor) -> Tensor:
        """Units after the last block, ``(hidden, batch)``."""
        initial, *shifts = (
            affine(weight, context, bias)
            for weight, bias in zip(weights.context, weights.context_bias, strict=True)
        )
        units = affine(weights.initial, x, weights.initial_bias) + self._context_activation(initial)
        pairs = zip(weights.hidden[::2], weights.hidden[1::2], strict=True)
        for (first, second), bias, shift in zip(pairs, weights.residual_bias, shifts, strict=True):
            between = matmul(first, self.activation(units)) + shift
            units = units + matmul(second, self.activation(between)) + bias
        return units

    def _context_activation(self, units: Tensor) -> Tensor:
        # For relu, a compiled graph would store which units are positive, as booleans and element by element,
        # a tenth of a training step; the sign in the gradient of this form is recomputed instead.
        if self.activation is torch.relu and torch.compiler.is_compiling():
            return 0.5 * (units + units.abs())
        return self.activation(units)


def affine(weight: Tensor, inputs: Tensor, bias: Tensor) -> Tensor:
    """``weight @ inputs + bias``; with a single input it is elementwise, which compiled graphs fuse."""
    if weight.shape[-1] == 1:
        return weight * inputs + bias
    return torch.addmm(bias, weight, inputs) if weight.dim() == 2 else torch.baddbmm(bias, weight, inputs)


def matmul(weight: Tensor, inputs: Tensor) -> Tensor:
    """``weight @ inputs`` for matrices or stacks of matrices.

    The general product of PyTorch expands and reshapes three-dimensional arguments first. A compiled graph
    then keeps the signs of a relu for its gradient, as booleans and element by element, beside the relu
    itself, and the step takes more than twice as long.
    """
    return torch.bmm(weight, inputs) if weight.dim() == 3 else weight @ inputs


def _masked(weight: Tensor, mask: Tensor | None) -> Tensor:
    return weight if mask is None else weight * mask
