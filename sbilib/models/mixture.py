r"""Autoregressive density whose conditionals are mixtures of Gaussians (MADEMOG).

The chain rule makes one density of conditionals of one feature each,

.. math::

    \log p(x) = \sum_{d=1}^{D} \log \sum_{k=1}^{K} \pi_{dk}\,
        \mathcal N\bigl(x_d;\, m_{dk},\, \sigma_{dk}^2\bigr), \qquad
    \sigma = \log(1 + e^s) + 10^{-4},

where weights :math:`\pi` (a softmax), means and widths of feature ``d`` are outputs of a masked network of
the features before it (Germain et al., arXiv:1502.03509, with mixtures as in Uria et al., arXiv:1306.0186).
It is no flow: one network gives the density directly.  It is the model that Gavranovic and Kersevan 2024
choose for their search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sbilib.errors import check_count, check_range
from sbilib.models.autoregressive_network import MaskedNetwork, Unfolding, unfolding_chunk
from sbilib.models.files import register_model
from sbilib.models.generative import CHUNK, GenerativeModel
from sbilib.models.generative_config import NetworkConfig

__all__ = ["MixtureAutoregressive", "MixtureConfig", "mixture_log_prob"]

_LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, kw_only=True)
class MixtureConfig(NetworkConfig):
    """Architecture of a :class:`MixtureAutoregressive`.

    Raises:
        ParameterError: if a value is of the wrong type or outside its range.

    Example:
        >>> MixtureConfig.gavranovic().n_blocks
        30
        >>> MixtureConfig.from_dict(MixtureConfig.modern().to_dict()) == MixtureConfig.modern()
        True
    """

    n_components: int = 32
    """Gaussians of each conditional."""
    min_width: float = 1e-4
    """Smallest width of a Gaussian, in units of the features."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("n_components", self.n_components, low=1)
        check_range("min_width", self.min_width, low=0.0, include_low=False)

    @classmethod
    def gavranovic(cls, features: int = 18) -> Self:
        """The published size: 30 blocks of two layers of 512, 32 Gaussians (Gavranovic and Kersevan 2024)."""
        return cls(features=features, n_blocks=30)

    @classmethod
    def modern(cls, features: int = 18) -> Self:
        """A size that two cores train on 200,000 events of 18 features in minutes."""
        return cls(features=features, hidden=256, n_blocks=2, activation="silu", n_components=16)

    @classmethod
    def small(cls, features: int = 18) -> Self:
        """A size that trains on 10,000 events in seconds."""
        return cls(features=features, hidden=64, activation="silu", n_components=8)


class _MixtureLogProb(torch.autograd.Function):
    """The log density of a mixture with its gradient by hand, a third of the passes over memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameters: Tensor, min_width: float) -> Tensor:
        logits, means, raw = parameters.chunk(3, dim=1)
        inverse = (F.softplus(raw) + min_width).reciprocal_()
        pulls = (x.unsqueeze(1) - means).mul_(inverse)
        terms = torch.addcmul(logits, pulls, pulls, value=-0.5).add_(inverse.log())
        total, norm = terms.logsumexp(dim=1), logits.logsumexp(dim=1)
        ctx.save_for_backward(parameters, inverse, pulls, terms, total, norm)
        return total - norm - _LOG_ROOT_TWO_PI

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        parameters, inverse, pulls, terms, total, norm = ctx.saved_tensors
        logits, _, raw = parameters.chunk(3, dim=1)
        grad = grad.unsqueeze(1)
        share = (terms - total.unsqueeze(1)).exp_().mul_(grad)
        to_logits = share - (logits - norm.unsqueeze(1)).exp_().mul_(grad)
        over_width = share * inverse
        to_means = over_width * pulls
        to_raw = (to_means * pulls - over_width).mul_(raw.sigmoid())
        return -to_means.sum(dim=1), torch.cat([to_logits, to_means, to_raw], dim=1), None


def mixture_log_prob(x: Tensor, parameters: Tensor, min_width: float) -> Tensor:
    """Log density of each value under its own mixture of Gaussians.

    Args:
        x: values, shape ``(features, batch)``.
        parameters: logits of the weights (K), means (K) and widths before the softplus (K) along the second
            dimension, shape ``(features, 3 K, batch)``.
        min_width: what is added to every width.

    Returns:
        Log density, shape ``(features, batch)``.

    Example:
        >>> unit = math.log(math.expm1(1 - 1e-4))  # one Gaussian of width 1 at 2
        >>> parameters = torch.tensor([0.0, 2.0, unit]).view(1, 3, 1)
        >>> round(mixture_log_prob(torch.tensor([[2.0]]), parameters, 1e-4).item(), 5)
        -0.91894
    """
    log_prob: Tensor = _MixtureLogProb.apply(x, parameters, min_width)  # type: ignore[no-untyped-call]
    return log_prob


def mixture_sample(uniform: Tensor, normal: Tensor, parameters: Tensor, min_width: float) -> Tensor:
    """Draw one value ``(batch,)`` from each mixture.

    Args:
        uniform: uniform numbers in [0, 1), which choose the Gaussian, shape ``(batch,)``.
        normal: standard normal numbers, shape ``(batch,)``.
        parameters: those of :func:`mixture_log_prob` for one feature, shape ``(3 K, batch)``.
        min_width: what is added to every width.
    """
    logits, means, raw = parameters.chunk(3)
    below = logits.softmax(dim=0).cumsum(dim=0)[:-1] <= uniform
    chosen = below.sum(dim=0, keepdim=True)
    width = F.softplus(raw.gather(0, chosen)) + min_width
    return (means.gather(0, chosen) + width * normal)[0]


class MixtureAutoregressive(GenerativeModel):
    """Product of conditionals, each a mixture of Gaussians.

    Args:
        config: the architecture.
        seed: draws the initial weights; no global random state is touched.

    Example:
        >>> model = MixtureAutoregressive(MixtureConfig.modern(features=4), seed=1)
        >>> x = model.sample(5, torch.Generator().manual_seed(2))
        >>> model.log_prob(x).shape
        torch.Size([5])
    """

    kind: ClassVar[str] = "mixture-autoregressive"
    config: MixtureConfig

    def __init__(self, config: MixtureConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.network = MaskedNetwork(
            config.features,
            3 * config.n_components,
            hidden=config.hidden,
            n_blocks=config.n_blocks,
            activation=config.activation,
        )
        generator = torch.Generator().manual_seed(seed)
        self.network.initialize(self._first_mixture().repeat(config.features), generator)

    def _first_mixture(self) -> Tensor:
        """Parameters ``(3 K,)`` of a mixture close to a standard normal density."""
        n = self.config.n_components
        # Overlapping Gaussians of variance one in all: their tails are those of a normal density.
        means = 0.8 * torch.special.ndtri((torch.arange(n) + 0.5) / n)
        width = math.sqrt(1 - float(means.square().mean())) - self.config.min_width
        raw = torch.full((n,), math.log(math.expm1(max(width, 1e-3))))
        return torch.cat([torch.zeros(n), means, raw])

    def forward(self, x: Tensor) -> Tensor:
        """Log density ``(n,)`` of events ``x`` (n, features), in one piece and without checks."""
        rows = x.T.contiguous()
        return mixture_log_prob(rows, self.network(rows), self.config.min_width).sum(dim=0)

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        like = next(self.parameters())
        options: Any = {"generator": generator, "dtype": like.dtype, "device": like.device}
        return torch.cat(
            [torch.rand(n, self.features, **options), torch.randn(n, self.features, **options)], dim=1
        )

    def _from_random(self, random: Tensor) -> Tensor:
        uniform, normal = random.T.chunk(2)
        x = random.new_empty(self.features, len(random))
        unfolding = Unfolding(self.network, self.network.masked_weights(), x)
        for feature in range(self.features):
            x[feature] = mixture_sample(
                uniform[feature], normal[feature], unfolding.parameters(), self.config.min_width
            )
            unfolding.reveal()
        return x.T

    def _sampling_chunk(self) -> int:
        return min(CHUNK, unfolding_chunk(self.config.n_blocks, self.config.hidden))


register_model(MixtureAutoregressive.kind, MixtureConfig.from_dict, MixtureAutoregressive)
