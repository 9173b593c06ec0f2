"""The pair of flows, one for signal and one for background, that gives the likelihood its densities."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from sbilib.components import LogComponents
from sbilib.errors import DataError, ParameterError, check_choice, check_events
from sbilib.models.flow import ConditionalFlow, FlowConfig

__all__ = ["FlowPair"]

PAIRS = 65536
"""Pairs of event and nuisance value whose inputs are laid out at once."""


class FlowPair(nn.Module):
    """Flows of signal and background with one configuration, conditioned on the nuisance parameter.

    Args:
        signal: flow of the signal events.
        background: flow of the background events.

    Raises:
        ParameterError: if the two configurations differ.

    Example:
        >>> pair = FlowPair.from_config(FlowConfig.sluijter(), seed=1)
        >>> pair.log_components(torch.zeros(3, 2), torch.linspace(0, 1, 4)).signal.shape
        torch.Size([3, 4])
    """

    kind: ClassVar[str] = "flow-pair"

    def __init__(self, signal: ConditionalFlow, background: ConditionalFlow) -> None:
        super().__init__()
        if signal.config != background.config:
            raise ParameterError(
                f"signal and background flows must share one configuration, got {signal.config} "
                f"and {background.config}; build both from the same one"
            )
        self.config = signal.config
        self.signal = signal
        self.background = background

    @classmethod
    def from_config(cls, config: FlowConfig, *, seed: int = 0) -> Self:
        """Pair of new flows, with weights drawn from seeds ``2 seed`` (signal) and ``2 seed + 1``."""
        return cls(ConditionalFlow(config, seed=2 * seed), ConditionalFlow(config, seed=2 * seed + 1))

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile both flows in place, with the arguments of :func:`torch.compile`; they share the code."""
        self.signal.compile(*args, **kwargs)
        self.background.compile(*args, **kwargs)

    @torch.no_grad()
    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        """Log densities of every event at every nuisance value, in the dtype of the flows, then float64.

        The pairs are evaluated in chunks, so memory beyond the result stays at some tens of MB.

        Args:
            x: events, shape ``(n, features)``.
            nuisance: values of the nuisance parameter, shape ``(m,)``.

        Returns:
            Signal and background log densities, each float64 of shape ``(n, m)``.

        Raises:
            DataError: if events or nuisance values have the wrong shape or are not finite.
        """
        check_events("x", x, self.config.features)
        if self.config.context_features != 1 or nuisance.ndim != 1:
            raise DataError(
                f"log_components needs a one-dimensional nuisance and one context feature, got shape "
                f"{tuple(nuisance.shape)} and {self.config.context_features}; pass one value per grid point"
            )
        check_events("nuisance", nuisance[:, None], 1)
        parameter = next(self.parameters())
        events = x.to(parameter)
        values = nuisance.to(parameter)
        return LogComponents(_table(self.signal, events, values), _table(self.background, events, values))

    def sample(self, component: str, nuisance: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one event of ``component`` (``signal`` or ``background``) for each nuisance value (n,)."""
        check_choice("component", component, ("signal", "background"))
        flow: ConditionalFlow = getattr(self, component)
        return flow.sample(nuisance.to(next(self.parameters()))[:, None], generator)


def _table(flow: ConditionalFlow, x: Tensor, nuisance: Tensor) -> Tensor:
    """``log p(x_i | z_j)`` as float64, a block of events at a time."""
    n, m = len(x), len(nuisance)
    table = torch.empty(n, m, dtype=torch.float64, device=x.device)
    rows = max(1, PAIRS // m)
    for start in range(0, n, rows):
        block = x[start : start + rows]
        context = nuisance.repeat(len(block))[:, None]
        table[start : start + rows] = flow.log_prob(block.repeat_interleave(m, dim=0), context).view(-1, m)
    return table
