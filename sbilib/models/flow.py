r"""Conditional normalizing flow of masked rational-quadratic autoregressive layers.

A flow maps an event :math:`x` with context :math:`z` to noise :math:`u = f(x; z)` that follows a standard
normal distribution, so that by the change of variables

.. math:: \log p(x \mid z) = \log \mathcal N(f(x; z); 0, 1) + \log |\det \partial f / \partial x|.

Each layer transforms every feature with a spline (:mod:`sbilib.models.spline`) whose parameters come from a
masked network of the features before it (:mod:`sbilib.models.made`), then permutes the features. With the
published settings it computes the same function of the same parameters as nflows (Durkan et al. 2020,
Zenodo 4296287), which :mod:`sbilib.models.nflows_reference` shows.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbilib.errors import DataError, ParameterError, check_choice, check_count, check_range
from sbilib.models.made import ACTIVATIONS, Conditioners, LayerWeights, affine
from sbilib.models.spline import spline_forward, spline_inverse

__all__ = ["ConditionalFlow", "FlowConfig"]

CHUNK = 4096
"""Events that are evaluated at once where no gradient is needed."""


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Architecture of a :class:`ConditionalFlow`.

    Raises:
        ParameterError: if a value is of the wrong type or outside its range.

    Example:
        >>> FlowConfig.sluijter().n_bins
        10
        >>> FlowConfig.from_dict(FlowConfig.modern().to_dict()) == FlowConfig.modern()
        True
    """

    features: int = 2
    """Number of features of an event."""
    context_features: int = 1
    """Number of context features (the nuisance parameter)."""
    n_transforms: int = 4
    """Number of autoregressive layers."""
    hidden: int = 64
    """Hidden units of the network in each layer."""
    n_blocks: int = 2
    """Residual blocks of the network in each layer."""
    n_bins: int = 10
    """Bins of each spline."""
    tail_bound: float = 7.0
    """Half width of the interval outside which a layer is the identity, in units of the features."""
    activation: str = "relu"
    """Activation function, ``relu`` or ``silu``."""
    ordering: str = "random"
    """Permutation after each layer: ``random`` (drawn at construction) or ``alternating`` (reversed)."""
    context_units: float = 0.0
    """Fraction of hidden units that see the context alone; without them a first feature never sees it."""
    context_affine: bool = False
    """Whether a location and scale that depend on the context come first."""

    def __post_init__(self) -> None:
        for name in ("features", "context_features", "n_transforms", "hidden", "n_bins"):
            check_count(name, getattr(self, name), low=1)
        check_count("n_blocks", self.n_blocks, low=0)
        if not 2 <= self.n_bins <= 500:
            raise ParameterError(f"n_bins must be between 2 and 500, got {self.n_bins}; pass such a value")
        check_range("tail_bound", self.tail_bound, low=0.0, include_low=False)
        check_range("context_units", self.context_units, low=0.0, high=1.0)
        if self.features > 1 and self.n_context_units == self.hidden:
            raise ParameterError(
                f"context_units must leave at least one hidden unit that sees the features, "
                f"got {self.context_units} of {self.hidden}; choose a smaller fraction"
            )
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("ordering", self.ordering, ("random", "alternating"))
        if not isinstance(self.context_affine, bool):
            raise ParameterError(f"context_affine must be True or False, got {self.context_affine!r}")

    @property
    def n_context_units(self) -> int:
        """Number of hidden units that see the context alone."""
        return round(self.context_units * self.hidden)

    @classmethod
    def sluijter(cls) -> Self:
        """The published flow (Sluijter 2024, section 3.2.2), the same as nflows builds it."""
        return cls()

    @classmethod
    def modern(cls) -> Self:
        """Our flow: every feature of every layer sees the context, and the order alternates."""
        return cls(
            n_transforms=1, activation="silu", ordering="alternating", context_units=0.5, context_affine=True
        )

    def to_dict(self) -> dict[str, Any]:
        """Fields by name, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Configuration from :meth:`to_dict`.

        Raises:
            ParameterError: if a field is unknown or a value invalid.
        """
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ParameterError(f"a flow configuration has no field {', '.join(sorted(unknown))}; remove it")
        return cls(**values)


class ContextAffine(nn.Module):
    r"""``(x - m(z)) exp(-s(z))`` with a small network for ``m`` and ``s``; the identity at first.

    Leading axes ``members`` make one network for each index, see :mod:`sbilib.models.made`.
    """

    def __init__(
        self, features: int, context_features: int, hidden: int, members: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.hidden_weight = nn.Parameter(torch.empty(*members, hidden, context_features))
        self.hidden_bias = nn.Parameter(torch.empty(*members, hidden))
        self.weight = nn.Parameter(torch.zeros(*members, 2 * features, hidden))
        self.bias = nn.Parameter(torch.zeros(*members, 2 * features))

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the weights of the hidden units."""
        bound = 1 / math.sqrt(self.hidden_weight.shape[-1])
        nn.init.uniform_(self.hidden_weight, -bound, bound, generator=generator)
        nn.init.uniform_(self.hidden_bias, -bound, bound, generator=generator)

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Location and log scale, each ``(features, batch)``, of a context ``(context_features, batch)``."""
        units = torch.tanh(affine(self.hidden_weight, context, self.hidden_bias.unsqueeze(-1)))
        location, log_scale = affine(self.weight, units, self.bias.unsqueeze(-1)).chunk(2, dim=-2)
        return location, log_scale


class FlowNetwork(nn.Module):
    """What an ordinary flow and a stack of flows share: the parameters and the map from events to noise.

    Args:
        config: the architecture.
        members: leading axes of all parameters, one flow for each index; none for an ordinary flow.

    The weights are left for the subclass to fill in.
    """

    permutations: Tensor

    def __init__(self, config: FlowConfig, members: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.config = config
        self.affine = (
            ContextAffine(config.features, config.context_features, config.hidden, members)
            if config.context_affine
            else None
        )
        self.conditioners = Conditioners(
            config.n_transforms,
            config.features,
            config.context_features,
            3 * config.n_bins - 1,
            hidden=config.hidden,
            n_blocks=config.n_blocks,
            activation=config.activation,
            context_units=config.n_context_units,
            members=members,
        )
        reversed_order = torch.arange(config.features - 1, -1, -1)
        self.register_buffer("permutations", reversed_order.repeat(*members, config.n_transforms, 1))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Log density in one piece and without checks: what ``compile()`` compiles.

        Args:
            x: events, shape ``(n, features)``; a stack has the axis of the members in front.
            context: context of each event, shape ``(n, context_features)``, likewise.

        Returns:
            Log density of each event, shape ``(n,)``, likewise.
        """
        noise, log_derivative = self._to_noise(x.mT, context.mT)
        constant = 0.5 * math.log(2 * math.pi)
        return (log_derivative - 0.5 * noise.square() - constant).sum(dim=-2)

    def _to_noise(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Noise and summed log derivatives, each ``(features, batch)``."""
        x, context = x.contiguous(), context.contiguous()
        total = torch.zeros_like(x)
        if self.affine is not None:
            location, log_scale = self.affine(context)
            x, total = (x - location) * (-log_scale).exp(), -log_scale
        bound = self.config.tail_bound
        for weights, permutation in zip(
            self.conditioners.layer_weights(), self.permutations.unbind(-2), strict=True
        ):
            parameters = self.conditioners(weights, x, context)
            # The spline works on rows of values, whatever they belong to.
            y, log_derivative = spline_forward(x.flatten(0, -2), parameters.flatten(0, -3), bound)
            x = self._permute(y, permutation).view_as(x)
            total = total + log_derivative.view_as(x)
        return x, total

    def _permute(self, rows: Tensor, permutation: Tensor) -> Tensor:
        """Rows ``(features, batch)`` in the order of ``permutation``; a stack does so by member."""
        return rows.index_select(0, permutation)


class ConditionalFlow(FlowNetwork):
    """Density of events given a context, by change of variables.

    Args:
        config: the architecture.
        seed: draws the initial weights and permutations. With ``sluijter()`` they are those that nflows
            draws after ``torch.manual_seed(seed)``. No global random state is touched.

    Example:
        >>> flow = ConditionalFlow(FlowConfig.sluijter(), seed=1)
        >>> z = torch.full((4, 1), 0.7)
        >>> x = flow.sample(z, torch.Generator().manual_seed(2))
        >>> flow.log_prob(x, z).shape
        torch.Size([4])
    """

    kind: ClassVar[str] = "flow"

    def __init__(self, config: FlowConfig, *, seed: int = 0) -> None:
        super().__init__(config)
        generator = torch.Generator().manual_seed(seed)
        if self.affine is not None:
            self.affine.initialize(generator)
        for layer in range(config.n_transforms):
            self.conditioners.initialize(layer, generator)
            if config.ordering == "random":
                self.permutations[layer] = torch.randperm(config.features, generator=generator)

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        r"""Log density :math:`\log p(x \mid z)`.

        Without gradients, large batches are evaluated in chunks. ``flow.compile(dynamic=False)`` makes every
        later call run compiled code, in training and in evaluation.

        Args:
            x: events, shape ``(n, features)``.
            context: context of each event, shape ``(n, context_features)``.

        Returns:
            Log density of each event, shape ``(n,)``, in one over the units of the features.

        Raises:
            DataError: if the shapes do not fit the configuration or each other.
        """
        self._check(x, self.config.features, "x")
        self._check(context, self.config.context_features, "context")
        if len(x) != len(context):
            raise DataError(f"x has {len(x)} events and context {len(context)}; give one context per event")
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or len(x) <= CHUNK:
            result: Tensor = self(x, context)
            return result
        # Chunks of one size stay in the cache of the processor, and one compiled graph fits them all.
        padding = (0, 0, 0, -len(x) % CHUNK)
        events, contexts = (F.pad(rows, padding).view(-1, CHUNK, rows.shape[1]) for rows in (x, context))
        return torch.cat([self(*chunk) for chunk in zip(events, contexts, strict=True)])[: len(x)]

    def sample(self, context: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one event for each context.

        Args:
            context: shape ``(n, context_features)``.
            generator: random numbers, on the device of the context.

        Returns:
            Events, shape ``(n, features)``.
        """
        self._check(context, self.config.context_features, "context")
        noise = torch.randn(
            len(context),
            self.config.features,
            generator=generator,
            dtype=context.dtype,
            device=context.device,
        )
        return self.from_noise(noise, context)

    def to_noise(self, x: Tensor, context: Tensor) -> Tensor:
        """Standard normal noise ``(n, features)`` that the flow maps to events ``x`` (n, features)."""
        return self._to_noise(x.T, context.T)[0].T

    @torch.no_grad()
    def from_noise(self, noise: Tensor, context: Tensor) -> Tensor:
        """Events ``(n, features)`` from standard normal noise ``(n, features)``: the inverse map."""
        chunks = zip(torch.split(noise, CHUNK), torch.split(context, CHUNK), strict=True)
        return torch.cat([self._from_noise(u.T, z.T.contiguous()).T for u, z in chunks])

    def _from_noise(self, x: Tensor, context: Tensor) -> Tensor:
        """Events ``(features, batch)`` from noise ``x`` of the same shape."""
        layers = zip(self.conditioners.layer_weights(), self.permutations, strict=True)
        for weights, permutation in reversed(list(layers)):
            x = self._layer_inverse(weights, x.index_select(0, permutation.argsort()), context)
        if self.affine is not None:
            location, log_scale = self.affine(context)
            x = x * log_scale.exp() + location
        return x

    def _layer_inverse(self, weights: LayerWeights, y: Tensor, context: Tensor) -> Tensor:
        """Data side of ``y``: the first feature directly, then one pass of the network for each other."""
        x = torch.zeros_like(y)
        bound = self.config.tail_bound
        x[:1] = spline_inverse(y[:1], self.conditioners.first_feature(weights, context), bound)
        for d in range(1, len(y)):
            parameters = self.conditioners(weights, x, context)[d : d + 1]
            x[d : d + 1] = spline_inverse(y[d : d + 1], parameters, bound)
        return x

    @staticmethod
    def _check(values: Tensor, columns: int, name: str) -> None:
        if values.ndim != 2 or values.shape[1] != columns:
            raise DataError(
                f"{name} must have shape (n, {columns}), got {tuple(values.shape)}; "
                f"give one row per event with {columns} columns"
            )
