r"""Masked autoregressive flows: affine (MAF) and rational-quadratic (NSF-AR).

A layer transforms feature ``d`` with a monotonic map whose parameters depend on the features before it,

.. math:: y_d = g\bigl(x_d;\, \theta_d(x_1, \dots, x_{d-1})\bigr), \qquad
          \log |\det| = \sum_d \log \partial g / \partial x_d ,

with :math:`\theta` from one pass of a masked network (:mod:`sbilib.models.autoregressive_network`), and
:math:`g` affine (Papamakarios et al., arXiv:1705.07057) or a spline (Durkan et al., arXiv:1906.04032).  The
order of the features is reversed after each layer.  The inverse needs :math:`x_1` before :math:`x_2` and so
on; it completes the units of the network feature by feature, for about the arithmetic of one pass.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from sbilib.models.autoregressive_network import MaskedNetwork, Unfolding, unfolding_chunk
from sbilib.models.files import register_model
from sbilib.models.generative import CHUNK, DensityFlow
from sbilib.models.generative_config import AffineFlowConfig, SplineFlowConfig
from sbilib.models.generative_transforms import Affine, Elementwise, Spline

__all__ = ["MaskedAutoregressiveFlow", "SplineAutoregressiveFlow"]


class AutoregressiveLayer(nn.Module):
    """Elementwise maps with parameters from a masked network.

    Args:
        config: size of the network.
        elementwise: the map of one feature.
        generator: draws the initial weights, close to the identity.
    """

    def __init__(
        self, config: AffineFlowConfig, elementwise: Elementwise, generator: torch.Generator
    ) -> None:
        super().__init__()
        identity = elementwise.identity
        self.elementwise = elementwise
        self.network = MaskedNetwork(
            config.features,
            len(identity),
            hidden=config.hidden,
            n_blocks=config.n_blocks,
            activation=config.activation,
        )
        self.network.initialize(identity.repeat(config.features), generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Noise side ``(features, batch)`` of ``x``, and the log determinant ``(batch,)``."""
        y, log_derivative = self.elementwise.forward(x, self.network(x))
        return y, log_derivative.sum(dim=0)

    def inverse(self, y: Tensor) -> Tensor:
        """Data side of ``y`` (features, batch), one feature after the other."""
        x = torch.empty_like(y)
        unfolding = Unfolding(self.network, self.network.masked_weights(), x)
        for feature in range(len(y)):
            row = slice(feature, feature + 1)
            x[row] = self.elementwise.inverse(y[row], unfolding.parameters()[None])
            unfolding.reveal()
        return x


class _AutoregressiveFlow(DensityFlow):
    """A flow of autoregressive layers in alternating order."""

    def __init__(self, config: AffineFlowConfig, elementwise: Elementwise, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        layers = [AutoregressiveLayer(config, elementwise, generator) for _ in range(config.n_transforms)]
        reversed_order = torch.arange(config.features - 1, -1, -1)
        super().__init__(config, layers, reversed_order.repeat(config.n_transforms, 1))

    def _sampling_chunk(self) -> int:
        return min(CHUNK, unfolding_chunk(self.config.n_blocks, self.config.hidden))


class MaskedAutoregressiveFlow(_AutoregressiveFlow):
    """Flow of affine autoregressive layers (MAF).

    Args:
        config: the architecture.
        seed: draws the initial weights; no global random state is touched.

    Example:
        >>> flow = MaskedAutoregressiveFlow(AffineFlowConfig.modern(features=4), seed=1)
        >>> x = flow.sample(5, torch.Generator().manual_seed(2))
        >>> flow.log_prob(x).shape
        torch.Size([5])
    """

    kind: ClassVar[str] = "masked-autoregressive-flow"

    def __init__(self, config: AffineFlowConfig, *, seed: int = 0) -> None:
        super().__init__(config, Affine(), seed)


class SplineAutoregressiveFlow(_AutoregressiveFlow):
    """Flow of autoregressive layers of rational-quadratic splines (NSF-AR).

    Args:
        config: the architecture.
        seed: draws the initial weights; no global random state is touched.

    Example:
        >>> flow = SplineAutoregressiveFlow(SplineFlowConfig.modern(features=4), seed=1)
        >>> x = flow.sample(5, torch.Generator().manual_seed(2))
        >>> torch.allclose(flow.from_noise(flow.to_noise(x)), x, atol=1e-4)
        True
    """

    kind: ClassVar[str] = "spline-autoregressive-flow"

    def __init__(self, config: SplineFlowConfig, *, seed: int = 0) -> None:
        super().__init__(config, Spline(config.n_bins, config.tail_bound), seed)


register_model(MaskedAutoregressiveFlow.kind, AffineFlowConfig.from_dict, MaskedAutoregressiveFlow)
register_model(SplineAutoregressiveFlow.kind, SplineFlowConfig.from_dict, SplineAutoregressiveFlow)
