"""Small generative models of every kind, and events for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sbilib.models import (
    AffineFlowConfig,
    GenerativeModel,
    MaskedAutoregressiveFlow,
    MixtureAutoregressive,
    MixtureConfig,
    RealNVP,
    SplineAutoregressiveFlow,
    SplineCouplingFlow,
    SplineFlowConfig,
)

Build = Callable[[int], GenerativeModel]


def affine_config(features: int) -> AffineFlowConfig:
    """A small affine flow."""
    return AffineFlowConfig(features=features, n_transforms=3, hidden=12, n_blocks=1, activation="silu")


def spline_config(features: int) -> SplineFlowConfig:
    """A small spline flow."""
    return SplineFlowConfig(
        features=features, n_transforms=3, hidden=12, n_blocks=2, n_bins=5, tail_bound=4.0
    )


def mixture_config(features: int) -> MixtureConfig:
    """A small mixture."""
    return MixtureConfig(features=features, hidden=12, n_blocks=2, n_components=4, activation="relu")


MODELS: dict[str, Build] = {
    "mixture": lambda features: MixtureAutoregressive(mixture_config(features), seed=3),
    "maf": lambda features: MaskedAutoregressiveFlow(affine_config(features), seed=3),
    "nsf-ar": lambda features: SplineAutoregressiveFlow(spline_config(features), seed=3),
    "nsf-coupling": lambda features: SplineCouplingFlow(spline_config(features), seed=3),
    "real-nvp": lambda features: RealNVP(affine_config(features), seed=3),
}
FLOWS = [name for name in MODELS if name != "mixture"]


def perturbed(build: Build, features: int, scale: float = 0.15) -> GenerativeModel:
    """A float64 model away from its initial weights."""
    model = build(features).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def events(features: int, n: int = 40, scale: float = 1.5) -> Tensor:
    """Gaussian events in float64."""
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(n, features, generator=generator, dtype=torch.float64)
