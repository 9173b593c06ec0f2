r"""Networks that turn an event into a summary statistic: one number, or one output for each bin.

The members of a stack train at the same time and never mix: parameters have a leading member axis, and a
layer of all members is one batched matrix product (see :mod:`sbilib.models.stack`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from sbilib.errors import DataError, ParameterError, check_choice, check_count
from sbilib.models.classifier import ACTIVATION_FUNCTIONS
from sbilib.models.stack import _StackedLinear

__all__ = ["SummaryConfig", "SummaryStack"]


@dataclass(frozen=True)
class SummaryConfig:
    """Shape of a network that makes a summary statistic.

    Args:
        n_features: features of an event.
        hidden: nodes of each hidden layer.
        n_outputs: 1 for one number, or the number of bins for a softmax histogram.
        activation: ``"relu"``, ``"silu"`` or ``"tanh"``.

    Raises:
        ParameterError: for sizes below one, no hidden layer, or an unknown activation.

    Example:
        >>> SummaryConfig.neos().hidden
        (1024, 1024)
    """

    n_features: int = 2
    hidden: tuple[int, ...] = (128, 128, 128, 128)
    n_outputs: int = 1
    activation: str = "relu"

    def __post_init__(self) -> None:
        check_count("n_features", self.n_features, low=1)
        check_count("n_outputs", self.n_outputs, low=1)
        check_choice("activation", self.activation, ACTIVATION_FUNCTIONS)
        if not self.hidden:
            raise ParameterError("hidden must name at least one layer, got (); pass for instance (128, 128)")
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for width in self.hidden:
            check_count("hidden", width, low=1)

    @classmethod
    def neos(cls) -> SummaryConfig:
        """Two hidden layers of 1024 nodes (Simpson and Heinrich 2021; Simpson 2023, section 7.4.1)."""
        return cls(hidden=(1024, 1024))

    @classmethod
    def deep(cls) -> SummaryConfig:
        """Four hidden layers of 128 nodes (Simpson 2023, section 7.6)."""
        return cls(hidden=(128, 128, 128, 128))

    @classmethod
    def inferno(cls, *, activation: str = "relu") -> SummaryConfig:
        """Two hidden layers of 100 nodes and ten outputs (de Castro and Dorigo 2019, section 5.1)."""
        return cls(n_features=3, hidden=(100, 100), n_outputs=10, activation=activation)


class SummaryStack(nn.Module):
    """Networks of one shape, one for each seed, that train at the same time.

    Args:
        config: shape of every member.
        seeds: one for each member; a seed decides the initial weights of its member alone.

    Raises:
        ParameterError: if there are no seeds.

    Example:
        >>> stack = SummaryStack(SummaryConfig.deep(), seeds=(1, 2, 3))
        >>> stack(torch.zeros(7, 2)).shape
        torch.Size([3, 7])
    """

    kind: ClassVar[str] = "summary-stack"

    def __init__(self, config: SummaryConfig, *, seeds: tuple[int, ...]) -> None:
        super().__init__()
        if not seeds:
            raise ParameterError("a stack needs at least one seed, got none; pass for instance seeds=(0,)")
        self.config, self.seeds = config, tuple(seeds)
        sizes = (config.n_features, *config.hidden, config.n_outputs)
        layers = [_StackedLinear(len(seeds), n_in, n_out) for n_in, n_out in pairwise(sizes)]
        self.layers = nn.ModuleList(layers)
        self._activation = ACTIVATION_FUNCTIONS[config.activation]
        for member, seed in enumerate(self.seeds):
            _initialize(layers, member, Generator().manual_seed(check_count("a seed", seed)))

    @property
    def n_members(self) -> int:
        """Number of networks."""
        return len(self.seeds)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs for events of each member or of all.

        Args:
            x: ``(n, n_features)`` for all members, or ``(n_members, n, n_features)``.

        Returns:
            ``(n_members, n)``, before the sigmoid, or with several outputs ``(n_members, n, n_outputs)``.

        Raises:
            DataError: if the shape does not fit.
        """
        d = self.config.n_features
        if x.dim() not in (2, 3) or x.shape[-1] != d or (x.dim() == 3 and x.shape[0] != self.n_members):
            raise DataError(
                f"x must have shape (n, {d}) or ({self.n_members}, n, {d}), got {tuple(x.shape)}; "
                "give events to all members, or each member its own"
            )
        units = x.mT.expand(self.n_members, d, x.shape[-2])
        *hidden, final = self.layers
        for layer in hidden:
            units = self._activation(layer(units))
        outputs: Tensor = final(units)
        return outputs.squeeze(-2) if self.config.n_outputs == 1 else outputs.mT

    def member(self, index: int) -> SummaryStack:
        """A stack of one with a copy of the weights of member ``index``."""
        alone = SummaryStack(self.config, seeds=(self.seeds[index],)).to(next(self.parameters()))
        state = {name: value[index : index + 1] for name, value in self.state_dict().items()}
        alone.load_state_dict(state)
        return alone


@torch.no_grad()
def _initialize(layers: list[_StackedLinear], member: int, generator: Generator) -> None:
    """PyTorch's own start of linear layers: uniform within one over the root of the number of inputs."""
    for layer in layers:
        bound = 1.0 / math.sqrt(layer.weight.shape[-1])
        layer.weight[member].uniform_(-bound, bound, generator=generator)
        layer.bias[member].uniform_(-bound, bound, generator=generator)
