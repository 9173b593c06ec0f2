r"""Residual networks whose masked form is autoregressive, and its evaluation one feature at a time.

With activation :math:`a` and ``n`` blocks a network computes

.. math::

    h_0 = W x + b, \qquad
    h_i = h_{i-1} + W''_i\, a\big(W'_i\, a(h_{i-1}) + b'_i\big) + b''_i, \qquad
    \theta = V h_n + v .

In its masked form every hidden unit has a *degree*, the number of leading features it may see; it listens to
units of no higher degree, and the parameters :math:`\theta_d` of feature ``d`` listen to the features before
it alone (Germain et al., arXiv:1502.03509).  nflows masks the same way, in another order of units.

Here the units are sorted by degree.  All masked weights are then block lower triangular, which saves twice:

* a pass leaves out most of the products with zero (:class:`_Staircase`);
* when features are drawn one after the other, a unit never changes once the features it sees are known.
  Each step computes only the units of the next degree (:class:`Unfolding`), so that drawing all ``D``
  features takes about the arithmetic of one pass rather than of ``D``.

Tensors of units are laid out ``(units, batch)``: the units of one degree are then adjacent in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbilib.models.made import hidden_degrees

__all__ = ["ACTIVATIONS", "MaskedNetwork", "ResidualNetwork", "Unfolding", "unfolding_chunk"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "silu": F.silu, "gelu": F.gelu}
"""Activation functions by name."""

_STEPS = 4
"""Stairs of a triangular weight; each costs overhead, and 4 of them leave out 3/8 of the products."""

_FINAL_SCALE = 0.1
"""Width of the first outputs around their start, relative to a usual layer."""
_KEPT_FLOATS = 2**24
"""Numbers that the units kept while features are drawn may take up."""

Stairs = tuple[tuple[int, int, int], ...]
"""First row, end of rows and end of columns of each rectangle that holds the weights of its rows."""


class NetworkWeights(NamedTuple):
    """Weights of a network with the masks applied; symbols as in the module's equation."""

    initial: Tensor
    """:math:`W`, ``(hidden, inputs)``."""
    blocks: Tensor
    """:math:`W'_i, W''_i`, ``(n_blocks, 2, hidden, hidden)``."""
    final: Tensor
    """:math:`V`, ``(outputs, hidden)``."""


class ResidualNetwork(nn.Module):
    """A residual network without masks, as coupling layers use it.

    Args:
        inputs: number of inputs.
        outputs: number of outputs.
        hidden: units of every hidden layer.
        n_blocks: residual blocks of two layers each.
        activation: a key of :data:`ACTIVATIONS`.

    The weights are left for :meth:`initialize` to draw.

    Example:
        >>> network = ResidualNetwork(2, 6, hidden=16, n_blocks=1, activation="silu")
        >>> network.initialize(torch.zeros(6), torch.Generator().manual_seed(0))
        >>> network(torch.zeros(2, 5)).shape
        torch.Size([6, 5])
    """

    def __init__(self, inputs: int, outputs: int, *, hidden: int, n_blocks: int, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.initial_weight = nn.Parameter(torch.empty(hidden, inputs))
        self.initial_bias = nn.Parameter(torch.empty(hidden))
        self.block_weight = nn.Parameter(torch.empty(n_blocks, 2, hidden, hidden))
        self.block_bias = nn.Parameter(torch.empty(n_blocks, 2, hidden))
        self.final_weight = nn.Parameter(torch.empty(outputs, hidden))
        self.final_bias = nn.Parameter(torch.empty(outputs))

    @torch.no_grad()
    def initialize(self, final_bias: Tensor, generator: torch.Generator) -> None:
        """Draw the weights; each block starts close to the identity, the outputs close to ``final_bias``.

        Args:
            final_bias: the outputs to start from, shape ``(outputs,)``.
            generator: random numbers, on the CPU.
        """

        def draw(weight: Tensor, bound: Tensor | float) -> None:
            weight.copy_((2 * torch.rand(weight.shape, generator=generator) - 1) * bound)

        maps = [("initial", self.initial_weight, self.initial_bias)]
        for weights, biases in zip(self.block_weight, self.block_bias, strict=True):
            maps.append(("blocks", weights[0], biases[0]))
        for name, weight, bias in maps:
            bound = self._mask(name, weight).sum(dim=1, keepdim=True).rsqrt()
            draw(weight, bound)
            draw(bias, bound[:, 0])
        draw(self.block_weight[:, 1], 1e-3)
        draw(self.block_bias[:, 1], 1e-3)
        draw(self.final_weight, _FINAL_SCALE / math.sqrt(self.final_weight.shape[1]))
        self.final_bias.copy_(final_bias)

    def masked_weights(self) -> NetworkWeights:
        """The weights as the arithmetic uses them."""
        return NetworkWeights(self.initial_weight, self.block_weight, self.final_weight)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``(outputs, batch)`` of inputs ``x`` (inputs, batch)."""
        weights = self.masked_weights()
        units = self._product("initial", weights.initial, x, self.initial_bias)
        for (first, second), bias in zip(weights.blocks, self.block_bias, strict=True):
            between = self._product("blocks", first, self.activation(units), bias[0])
            units = units + self._product("blocks", second, self.activation(between), bias[1])
        return self._outputs(weights.final, units)

    def _outputs(self, weight: Tensor, units: Tensor) -> Tensor:
        return self._product("final", weight, units, self.final_bias)

    def _product(self, name: str, weight: Tensor, inputs: Tensor, bias: Tensor) -> Tensor:
        return torch.addmm(bias[:, None], weight, inputs)

    def _mask(self, name: str, weight: Tensor) -> Tensor:
        """Ones where a weight is used."""
        return torch.ones_like(weight)


class MaskedNetwork(ResidualNetwork):
    """A network whose outputs for a feature depend on the features before it alone.

    Args:
        features: number of features ``D``, at least 2.
        outputs: number of parameters ``P`` of each feature.
        hidden: units of every hidden layer, at least ``D - 1``.
        n_blocks: residual blocks of two layers each.
        activation: a key of :data:`ACTIVATIONS`.

    Example:
        >>> network = MaskedNetwork(3, 2, hidden=16, n_blocks=1, activation="silu")
        >>> network.initialize(torch.zeros(6), torch.Generator().manual_seed(0))
        >>> x = torch.zeros(3, 1)
        >>> changed = network(torch.tensor([[0.0], [1.0], [0.0]])) != network(x)
        >>> changed[..., 0].any(dim=1).tolist()  # only the last feature comes after the second
        [False, False, True]
    """

    initial_mask: Tensor
    blocks_mask: Tensor
    final_mask: Tensor

    def __init__(self, features: int, outputs: int, *, hidden: int, n_blocks: int, activation: str) -> None:
        # Nothing may see the last feature, and the first one sees nothing: its parameters are biases.
        super().__init__(
            features - 1, (features - 1) * outputs, hidden=hidden, n_blocks=n_blocks, activation=activation
        )
        self.features, self.outputs = features, outputs
        self.final_bias = nn.Parameter(torch.empty(features * outputs))
        degrees = hidden_degrees(features, hidden, 0).sort().values
        later = torch.arange(1, features)
        self.ends = tuple(int((degrees <= degree).sum()) for degree in range(features))
        """Number of units of each degree or a lower one."""
        self._stairs: dict[str, Stairs] = {}
        self._register("initial", degrees, later)
        self._register("blocks", degrees, degrees)
        self._register("final", later.repeat_interleave(outputs), degrees)

    def _register(self, name: str, outgoing: Tensor, incoming: Tensor) -> None:
        mask = outgoing[:, None] >= incoming
        self.register_buffer(f"{name}_mask", mask.to(torch.get_default_dtype()), persistent=False)
        self._stairs[name] = stairs_of(mask, 1 if name == "initial" else _STEPS)

    def masked_weights(self) -> NetworkWeights:
        """The weights with zeros where a unit must not listen."""
        return NetworkWeights(
            self.initial_weight * self.initial_mask,
            self.block_weight * self.blocks_mask,
            self.final_weight * self.final_mask,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Parameters ``(features, outputs, batch)`` given features ``x`` (features, batch)."""
        return super().forward(x[:-1])

    def _outputs(self, weight: Tensor, units: Tensor) -> Tensor:
        first, others = self.final_bias.tensor_split([self.outputs])
        outputs = torch.cat([
            first[:, None].expand(-1, units.shape[1]), self._product("final", weight, units, others)
        ])  # fmt: skip
        return outputs.view(self.features, self.outputs, -1)

    def _product(self, name: str, weight: Tensor, inputs: Tensor, bias: Tensor) -> Tensor:
        stairs = self._stairs[name]
        if len(stairs) == 1:
            return torch.addmm(bias[:, None], weight, inputs)
        product: Tensor = _Staircase.apply(weight, inputs, bias, stairs)  # type: ignore[no-untyped-call]
        return product

    def _mask(self, name: str, weight: Tensor) -> Tensor:
        mask: Tensor = getattr(self, f"{name}_mask")
        return mask


def stairs_of(mask: Tensor, steps: int) -> Stairs:
    """Rectangles that cover all ones of a block lower triangular ``mask``, in at most ``steps`` stairs.

    Example:
        >>> stairs_of(torch.tril(torch.ones(8, 8)) > 0, 2)
        ((0, 4, 4), (4, 8, 8))
    """
    rows = sorted({round(len(mask) * step / steps) for step in range(steps + 1)})
    columns = torch.arange(1, mask.shape[1] + 1)
    return tuple(
        (start, end, int((mask[start:end].any(dim=0) * columns).max())) for start, end in pairwise(rows)
    )


class _Staircase(torch.autograd.Function):
    """``weight @ inputs + bias`` for a weight whose ones lie on and below a staircase."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, inputs: Tensor, bias: Tensor, stairs: Stairs) -> Tensor:
        ctx.save_for_backward(weight, inputs)
        ctx.stairs = stairs
        return torch.cat(
            [
                torch.addmm(bias[start:end, None], weight[start:end, :width], inputs[:width])
                for start, end, width in stairs
            ]
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        weight, inputs = ctx.saved_tensors
        to_weight, to_inputs = torch.zeros_like(weight), torch.zeros_like(inputs)
        for start, end, width in ctx.stairs:
            to_weight[start:end, :width] = grad[start:end] @ inputs[:width].T
            to_inputs[:width].addmm_(weight[start:end, :width].T, grad[start:end])
        return to_weight, to_inputs, grad.sum(dim=1), None


class Unfolding:
    """The parameters of one feature after the other, while the features are still being drawn.

    Call :meth:`parameters` for feature 0, store the value drawn with them, call :meth:`reveal`, and so on.

    Args:
        network: where the parameters come from.
        weights: its masked weights, which many unfoldings can share.
        x: features ``(features, batch)``, to be filled in by the caller in order.

    Example:
        >>> network = MaskedNetwork(3, 2, hidden=16, n_blocks=2, activation="gelu").double()
        >>> network.initialize(torch.ones(6), torch.Generator().manual_seed(0))
        >>> x = torch.tensor([[0.3], [-0.1], [2.0]], dtype=torch.float64)
        >>> with torch.no_grad():
        ...     unfolding, found = Unfolding(network, network.masked_weights(), x), []
        ...     for feature in range(3):
        ...         found.append(unfolding.parameters())
        ...         unfolding.reveal()
        ...     torch.allclose(torch.stack(found), network(x))
        True
    """

    def __init__(self, network: MaskedNetwork, weights: NetworkWeights, x: Tensor) -> None:
        self._network, self._weights, self._x = network, weights, x
        self._feature = 0
        n_blocks, hidden = len(weights.blocks), len(weights.initial)
        self._active = x.new_empty(n_blocks, 2, hidden, x.shape[1])
        self._units = x.new_empty(hidden, x.shape[1])

    def parameters(self) -> Tensor:
        """Parameters ``(outputs, batch)`` of the next feature, given all that were revealed."""
        feature, outputs = self._feature, self._network.outputs
        bias = self._network.final_bias[feature * outputs : (feature + 1) * outputs, None]
        if feature == 0:
            return bias.expand(-1, self._x.shape[1])
        seen = self._network.ends[feature]
        rows = self._weights.final[(feature - 1) * outputs : feature * outputs, :seen]
        return torch.addmm(bias, rows, self._units[:seen])

    def reveal(self) -> None:
        """Take the next feature from ``x`` and compute the units that it completes."""
        self._feature += 1
        known, network = self._feature, self._network
        if known == network.features:
            return
        start, end = network.ends[known - 1], network.ends[known]
        new = slice(start, end)
        units = torch.addmm(
            network.initial_bias[new, None], self._weights.initial[new, :known], self._x[:known]
        )
        for i, (first, second) in enumerate(self._weights.blocks):
            bias = network.block_bias[i, :, new, None]
            active, between = self._active[i]
            active[new] = network.activation(units)
            between[new] = network.activation(torch.addmm(bias[0], first[new, :end], active[:end]))
            units = units.add_(bias[1]).addmm_(second[new, :end], between[:end])
        self._units[new] = units


def unfolding_chunk(n_blocks: int, hidden: int) -> int:
    """Events to draw at once so that the units an :class:`Unfolding` keeps take 64 MB in float32 at most.

    Example:
        >>> unfolding_chunk(1, 512), unfolding_chunk(30, 512)
        (10922, 537)
    """
    return max(64, _KEPT_FLOATS // ((2 * n_blocks + 1) * hidden))
