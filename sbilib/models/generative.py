r"""What every generative model offers, and the flows among them.

A generative model is a density :math:`p(x)` of events of ``D`` continuous features that can be evaluated and
drawn from.  A *flow* is one that maps an event to standard normal noise :math:`u = f(x)`,

.. math:: \log p(x) = \log \mathcal N(f(x); 0, 1) + \log |\det \partial f / \partial x| ,

through layers with a permutation of the features after each (Gavranovic and Kersevan 2024, eqs. 1-3).  Layers
are autoregressive (:mod:`sbilib.models.autoregressive`) or couplings (:mod:`sbilib.models.coupling`).  Events
are expected in coordinates of order one (:mod:`sbilib.models.preprocessing`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbilib.errors import DataError, ParameterError, check_count

__all__ = ["CHUNK", "DensityFlow", "GenerativeModel", "density_loss"]

CHUNK = 2048
"""Events that are evaluated at once where no gradient is needed."""
_COPIES = 4
"""Copies of the events that drawing them all at once takes, in float32 or float64."""


class GenerativeModel(nn.Module):
    """A density of events that can be drawn from.

    A subclass gives the number of :attr:`features`, the log density in :meth:`forward`, the random numbers
    of an event in :meth:`_draw` and the event made of them in :meth:`_from_random`.
    """

    kind: ClassVar[str]
    config: Any

    @property
    def features(self) -> int:
        """Number of features ``D`` of an event."""
        features: int = self.config.features
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Log density in one piece and without checks: what ``compile()`` compiles.

        Args:
            x: events, shape ``(n, features)``.

        Returns:
            Log density of each event, shape ``(n,)``.
        """
        raise NotImplementedError

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density of events.

        Args:
            x: events, shape ``(n, features)``.

        Returns:
            Log density of each event, shape ``(n,)``.

        Raises:
            DataError: if the shape of the events does not fit the model.
        """
        self._check(x, "x")
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or len(x) <= CHUNK:
            result: Tensor = self(x)
            return result
        # Chunks of one size stay in the cache of the processor, and one compiled graph fits them all.
        chunks = F.pad(x, (0, 0, 0, -len(x) % CHUNK)).view(-1, CHUNK, self.features)
        return torch.cat([self(chunk) for chunk in chunks])[: len(x)]

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw events.

        Args:
            n: how many.
            generator: random numbers, on the device of the model. They are all drawn before the first event
                is made of them, so the events do not depend on how the work is split.

        Returns:
            Events, shape ``(n, features)``, in the dtype of the model.

        Raises:
            ParameterError: if ``n`` is not a positive integer, or for more events than the memory holds.
        """
        check_count("n", n, low=1)
        _check_memory(n, self.features)
        return self._in_chunks(self._draw(n, generator))

    def _in_chunks(self, random: Tensor) -> Tensor:
        """Events ``(n, features)`` made of their random numbers, chunk by chunk."""
        return torch.cat([self._from_random(part) for part in torch.split(random, self._sampling_chunk())])

    def _sampling_chunk(self) -> int:
        return CHUNK

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        """The random numbers of ``n`` events, one row each."""
        like = next(self.parameters())
        return torch.randn(n, self.features, generator=generator, dtype=like.dtype, device=like.device)

    def _from_random(self, random: Tensor) -> Tensor:
        """Events ``(n, features)`` made of the rows that :meth:`_draw` gives."""
        raise NotImplementedError

    def _check(self, values: Tensor, name: str) -> None:
        if values.ndim != 2 or values.shape[1] != self.features:
            raise DataError(
                f"{name} must have shape (n, {self.features}), got {tuple(values.shape)}; "
                f"give one row per event with {self.features} columns"
            )


class FlowLayer(Protocol):
    """One invertible layer of a flow, on features ``(features, batch)``."""

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Noise side ``y`` of ``x``, and the log determinant ``(batch,)``."""
        ...

    def inverse(self, y: Tensor) -> Tensor:
        """Data side of ``y``."""
        ...


class DensityFlow(GenerativeModel):
    """A flow without context: layers with fixed permutations between them.

    Args:
        config: the architecture, with the number of ``features``.
        layers: modules that are each a :class:`FlowLayer`.
        permutations: order of the features after each layer, shape ``(n_layers, features)``.
    """

    permutations: Tensor

    def __init__(self, config: Any, layers: Sequence[nn.Module], permutations: Tensor) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(layers)
        self.register_buffer("permutations", permutations)

    def forward(self, x: Tensor) -> Tensor:
        """Log density ``(n,)`` of events ``x`` (n, features), in one piece and without checks."""
        noise, log_det = self._to_noise(x.T)
        constant = 0.5 * self.features * math.log(2 * math.pi)
        return log_det - 0.5 * noise.square().sum(dim=0) - constant

    def to_noise(self, x: Tensor) -> Tensor:
        """Standard normal noise ``(n, features)`` that the flow maps to events ``x`` (n, features).

        Raises:
            DataError: if the shape does not fit the flow.
        """
        self._check(x, "x")
        return self._to_noise(x.T)[0].T

    @torch.no_grad()
    def from_noise(self, noise: Tensor) -> Tensor:
        """Events ``(n, features)`` from standard normal noise ``(n, features)``: the inverse map.

        Raises:
            DataError: if the shape does not fit the flow.
        """
        self._check(noise, "noise")
        return self._in_chunks(noise)

    def _to_noise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Noise ``(features, batch)`` and log determinant ``(batch,)``."""
        x = x.contiguous()
        total = x.new_zeros(x.shape[1])
        for layer, permutation in zip(self.layers, self.permutations, strict=True):
            y, log_det = layer(x)
            x, total = y.index_select(0, permutation), total + log_det
        return x, total

    def _from_random(self, random: Tensor) -> Tensor:
        x = random.T
        for layer, permutation in reversed(list(zip(self.layers, self.permutations, strict=True))):
            x = layer.inverse(x.index_select(0, permutation.argsort()))
        return x.T


def density_loss(model: nn.Module, x: Tensor, *_: Tensor) -> Tensor:
    """Mean negative log density of events ``x`` (n, d); other tensors of the batch are not used.

    Example:
        >>> from sbilib.models import RealNVP, AffineFlowConfig
        >>> density_loss(RealNVP(AffineFlowConfig.modern(features=2)), torch.zeros(5, 2)).shape
        torch.Size([])
    """
    log_prob: Tensor = model.log_prob(x)  # type: ignore[operator]
    return -log_prob.mean()


def _check_memory(n: int, features: int) -> None:
    """Refuse to draw more events at once than the machine has memory for."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needed = 8 * _COPIES * n * features
    if needed > memory:
        raise ParameterError(
            f"n must be a number of events that fits into memory, got {n}, which takes {needed / 1e9:.1f} of "
            f"{memory / 1e9:.1f} GB; write them to a file with sample_to_parquet"
        )
