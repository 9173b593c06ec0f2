r"""Coupling flows: affine (RealNVP) and rational-quadratic (NSF).

A layer leaves the first half :math:`x_A` of the features as it is and transforms the others with monotonic
maps whose parameters depend on it,

.. math:: y_A = x_A, \qquad y_B = g\bigl(x_B;\, \theta(x_A)\bigr), \qquad
          \log |\det| = \sum_{d \in B} \log \partial g / \partial x_d ,

with :math:`g` affine (Dinh et al., arXiv:1605.08803) or a spline (Durkan et al., arXiv:1906.04032).  Both
directions take one pass of the network.  After every second layer the features are shuffled by a fixed random
permutation, and between the layers of such a pair they change sides, so that a pair transforms each of them.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from sbilib.models.autoregressive_network import ResidualNetwork
from sbilib.models.files import register_model
from sbilib.models.generative import DensityFlow
from sbilib.models.generative_config import AffineFlowConfig, SplineFlowConfig
from sbilib.models.generative_transforms import Affine, Elementwise, Spline

__all__ = ["RealNVP", "SplineCouplingFlow"]


class CouplingLayer(nn.Module):
    """Elementwise maps of the second half of the features with parameters from the first half.

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
        self.n_kept = config.features // 2
        self.n_changed = config.features - self.n_kept
        self.network = ResidualNetwork(
            self.n_kept,
            self.n_changed * len(identity),
            hidden=config.hidden,
            n_blocks=config.n_blocks,
            activation=config.activation,
        )
        self.network.initialize(identity.repeat(self.n_changed), generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Noise side ``(features, batch)`` of ``x``, and the log determinant ``(batch,)``."""
        kept, changed = x.tensor_split([self.n_kept])
        y, log_derivative = self.elementwise.forward(changed, self._parameters_of(kept))
        return torch.cat([kept, y]), log_derivative.sum(dim=0)

    def inverse(self, y: Tensor) -> Tensor:
        """Data side of ``y`` (features, batch)."""
        kept, changed = y.tensor_split([self.n_kept])
        return torch.cat([kept, self.elementwise.inverse(changed, self._parameters_of(kept))])

    def _parameters_of(self, kept: Tensor) -> Tensor:
        outputs: Tensor = self.network(kept)
        return outputs.view(self.n_changed, -1, kept.shape[1])


class _CouplingFlow(DensityFlow):
    """A flow of pairs of coupling layers, shuffled after each pair."""

    def __init__(self, config: AffineFlowConfig, elementwise: Elementwise, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        layers = [CouplingLayer(config, elementwise, generator) for _ in range(config.n_transforms)]
        change_sides = torch.arange(config.features).roll(-(config.features // 2))
        permutations = [
            torch.randperm(config.features, generator=generator) if number % 2 else change_sides
            for number in range(config.n_transforms)
        ]
        super().__init__(config, layers, torch.stack(permutations))


class RealNVP(_CouplingFlow):
    """Flow of affine coupling layers.

    Args:
        config: the architecture.
        seed: draws the initial weights and permutations; no global random state is touched.

    Example:
        >>> flow = RealNVP(AffineFlowConfig.modern(features=4), seed=1)
        >>> flow.sample(5, torch.Generator().manual_seed(2)).shape
        torch.Size([5, 4])
    """

    kind: ClassVar[str] = "real-nvp"

    def __init__(self, config: AffineFlowConfig, *, seed: int = 0) -> None:
        super().__init__(config, Affine(), seed)


class SplineCouplingFlow(_CouplingFlow):
    """Flow of coupling layers of rational-quadratic splines (NSF).

    Args:
        config: the architecture.
        seed: draws the initial weights and permutations; no global random state is touched.

    Example:
        >>> flow = SplineCouplingFlow(SplineFlowConfig.modern(features=5), seed=1)
        >>> x = flow.sample(5, torch.Generator().manual_seed(2))
        >>> torch.allclose(flow.from_noise(flow.to_noise(x)), x, atol=1e-4)
        True
    """

    kind: ClassVar[str] = "spline-coupling-flow"

    def __init__(self, config: SplineFlowConfig, *, seed: int = 0) -> None:
        super().__init__(config, Spline(config.n_bins, config.tail_bound), seed)


register_model(RealNVP.kind, AffineFlowConfig.from_dict, RealNVP)
register_model(SplineCouplingFlow.kind, SplineFlowConfig.from_dict, SplineCouplingFlow)
