r"""The masked residual network that conditions one autoregressive layer.

Feature ``d`` of a layer may depend on the features before it and on the context. Each unit carries a
*degree*, the number of features it has seen; a hidden unit listens to units of no higher degree, and the
outputs of feature ``d`` listen to units of degree below ``d`` (Germain et al., arXiv:1502.03509). The
network is that of nflows (initial layer, residual blocks that add the context, final layer), with two
differences: units of degree zero, which see the context alone, can be asked for, and everything that the
masks force to zero is left out of the arithmetic.

Tensors are laid out ``(units, batch)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ACTIVATIONS", "Conditioner", "hidden_degrees"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "silu": F.silu}
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


class MaskedLinear(nn.Module):
    """Linear map between units with degrees; weights against the order of the degrees count as zero."""

    mask: Tensor | None

    def __init__(self, in_degrees: Tensor, out_degrees: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        mask = (out_degrees[:, None] >= in_degrees).float()
        self.register_buffer("mask", None if bool(mask.all()) else mask, persistent=False)
        self.weight = nn.Parameter(torch.empty(len(out_degrees), len(in_degrees)))
        self.bias = nn.Parameter(torch.empty(len(out_degrees)))
        initialize_linear(self.weight, self.bias, generator)

    def masked_weight(self) -> Tensor:
        """Weights with the forbidden ones set to zero."""
        return self.weight if self.mask is None else self.weight * self.mask

    def forward(self, units: Tensor) -> Tensor:
        """Map ``(in, batch)`` to ``(out, batch)``."""
        return torch.addmm(self.bias[:, None], self.masked_weight(), units)


class ContextLinear(nn.Module):
    """Linear map of the context, which every unit may see."""

    def __init__(self, context_features: int, units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(units, context_features))
        self.bias = nn.Parameter(torch.empty(units))
        initialize_linear(self.weight, self.bias, generator)

    def forward(self, context: Tensor) -> Tensor:
        """Map ``(context_features, batch)`` to ``(units, batch)``."""
        return torch.addmm(self.bias[:, None], self.weight, context)


def initialize_linear(weight: Tensor, bias: Tensor, generator: torch.Generator) -> None:
    """Draw weight and bias uniformly in +-1/sqrt(inputs), as ``torch.nn.Linear`` does."""
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(weight.shape[1])
    nn.init.uniform_(bias, -bound, bound, generator=generator)


class ResidualBlock(nn.Module):
    """``h + W1 act(W0 act(h) + C z)``, with ``W1`` and its bias close to zero at first."""

    def __init__(
        self, degrees: Tensor, context_features: int, activation: str, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.context_layer = ContextLinear(context_features, len(degrees), generator)
        self.linear_0 = MaskedLinear(degrees, degrees, generator)
        self.linear_1 = MaskedLinear(degrees, degrees, generator)
        nn.init.uniform_(self.linear_1.weight, -1e-3, 1e-3, generator=generator)
        nn.init.uniform_(self.linear_1.bias, -1e-3, 1e-3, generator=generator)

    def forward(self, units: Tensor, context: Tensor) -> Tensor:
        """Map units ``(hidden, batch)``, given the context ``(context_features, batch)``."""
        inner = self.linear_0(self.activation(units)) + self.context_layer(context)
        return units + self.linear_1(self.activation(inner))


class Conditioner(nn.Module):
    """Parameters of the elementwise transforms of one autoregressive layer.

    Args:
        features: number of features ``D``.
        context_features: number of context features.
        outputs: number of parameters ``P`` of each feature.
        hidden: hidden units.
        n_blocks: residual blocks.
        activation: a key of :data:`ACTIVATIONS`.
        context_units: how many hidden units see the context alone.
        generator: draws the initial weights.

    Example:
        >>> net = Conditioner(2, 1, 29, 64, 2, "relu", 0, torch.Generator().manual_seed(0))
        >>> net(torch.zeros(2, 5), torch.zeros(1, 5)).shape
        torch.Size([2, 29, 5])
    """

    def __init__(
        self,
        features: int,
        context_features: int,
        outputs: int,
        hidden: int,
        n_blocks: int,
        activation: str,
        context_units: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.features, self.outputs = features, outputs
        self.activation = ACTIVATIONS[activation]
        degrees = hidden_degrees(features, hidden, context_units)
        self.n_context_units = int((degrees == 0).sum())
        seen = torch.arange(1, features + 1)
        self.initial_layer = MaskedLinear(seen, degrees, generator)
        self.context_layer = ContextLinear(context_features, hidden, generator)
        self.blocks = nn.ModuleList(
            ResidualBlock(degrees, context_features, activation, generator) for _ in range(n_blocks)
        )
        self.final_layer = MaskedLinear(degrees, (seen - 1).repeat_interleave(outputs), generator)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Parameters ``(features, outputs, batch)`` for ``x`` (features, batch), ``context`` (c, batch)."""
        units = self.initial_layer(x) + self.activation(self.context_layer(context))
        for block in self.blocks:
            units = block(units, context)
        if self.n_context_units:
            return self.final_layer(units).reshape(self.features, self.outputs, -1)
        # No unit may feed the first feature: its parameters are the biases, and its rows need no product.
        n = self.outputs
        weight, bias = self.final_layer.masked_weight()[n:], self.final_layer.bias
        others = torch.addmm(bias[n:, None], weight, units)
        return torch.cat([bias[:n, None].expand(n, x.shape[1]), others]).reshape(self.features, n, -1)

    def first_feature(self, context: Tensor) -> Tensor:
        """Parameters ``(1, outputs, batch)`` of the first feature, from the units that see only the context."""
        n, seen = self.n_context_units, self.outputs
        bias = self.final_layer.bias[:seen, None]
        if n == 0:
            return bias.expand(seen, context.shape[1])[None]
        units = self.initial_layer.bias[:n, None] + self.activation(_leading(self.context_layer, context, n))
        for block in self.blocks:
            inner = _leading(block.linear_0, self.activation(units), n) + _leading(block.context_layer, context, n)
            units = units + _leading(block.linear_1, self.activation(inner), n)
        return torch.addmm(bias, self.final_layer.weight[:seen, :n], units)[None]


def _leading(layer: nn.Module, units: Tensor, n: int) -> Tensor:
    """The first ``n`` outputs of a linear layer, from as many inputs as ``units`` has."""
    return torch.addmm(layer.bias[:n, None], layer.weight[:n, : units.shape[0]], units)
