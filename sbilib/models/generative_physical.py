r"""A generative model in physical units: a fitted map of the features, and a density of its coordinates.

.. math:: \log p(x) = \log p_u(t(x)) + \sum_d \log t_d'(x_d), \qquad x = t^{-1}(u), \quad u \sim p_u ,

with the map :math:`t` of :mod:`sbilib.models.preprocessing`, which never gives an event outside the physical
bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sbilib.errors import DataError, ParameterError
from sbilib.models.autoregressive import MaskedAutoregressiveFlow, SplineAutoregressiveFlow
from sbilib.models.coupling import RealNVP, SplineCouplingFlow
from sbilib.models.files import register_model
from sbilib.models.generative import GenerativeModel
from sbilib.models.generative_config import AffineFlowConfig, NetworkConfig, SplineFlowConfig
from sbilib.models.mixture import MixtureAutoregressive, MixtureConfig
from sbilib.models.preprocessing import LogitStandardize, QuantileConfig, QuantileToNormal
from sbilib.models.preprocessing_base import FeatureTransform, TransformConfig

__all__ = ["TransformedConfig", "TransformedDensity"]

_TRANSFORMS: dict[str, tuple[type[FeatureTransform], type[TransformConfig]]] = {
    QuantileToNormal.kind: (QuantileToNormal, QuantileConfig),
    LogitStandardize.kind: (LogitStandardize, TransformConfig),
}
_DENSITIES: dict[str, tuple[type[GenerativeModel], type[NetworkConfig]]] = {
    MixtureAutoregressive.kind: (MixtureAutoregressive, MixtureConfig),
    MaskedAutoregressiveFlow.kind: (MaskedAutoregressiveFlow, AffineFlowConfig),
    SplineAutoregressiveFlow.kind: (SplineAutoregressiveFlow, SplineFlowConfig),
    RealNVP.kind: (RealNVP, AffineFlowConfig),
    SplineCouplingFlow.kind: (SplineCouplingFlow, SplineFlowConfig),
}


@dataclass(frozen=True)
class TransformedConfig:
    """Configurations of a map and of the density behind it, with their kinds."""

    transform_kind: str
    transform: TransformConfig
    density_kind: str
    density: NetworkConfig

    @property
    def features(self) -> int:
        """Number of features of an event."""
        return self.transform.features

    def to_dict(self) -> dict[str, Any]:
        """Fields by name, ready for JSON."""
        return {
            "transform_kind": self.transform_kind,
            "transform": self.transform.to_dict(),
            "density_kind": self.density_kind,
            "density": self.density.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        transform = _TRANSFORMS[values["transform_kind"]][1].from_dict(values["transform"])
        density = _DENSITIES[values["density_kind"]][1].from_dict(values["density"])
        return cls(values["transform_kind"], transform, values["density_kind"], density)


class TransformedDensity(GenerativeModel):
    """Density of events in physical units.

    Train the density on ``transform(events)[0]``, which is computed once; then join both and save one file.
    Drawn coordinates beyond the range of the map are clamped to its ends, so that no event is lost and none
    lies outside the physical bounds; only coordinates that are not finite are an error.

    Args:
        transform: fitted map from events to coordinates.
        density: density of the coordinates.

    Raises:
        ParameterError: if the two are for different numbers of features.

    Example:
        >>> pt = 20 + 30 * torch.rand(500, 2, generator=torch.Generator().manual_seed(1))
        >>> bounds = {"pt_1": (20, None), "pt_2": (20, None)}
        >>> transform = QuantileToNormal.fit(pt, names=("pt_1", "pt_2"), bounds=bounds)
        >>> model = TransformedDensity(transform, MixtureAutoregressive(MixtureConfig.modern(features=2)))
        >>> x = model.sample(100, torch.Generator().manual_seed(2))
        >>> bool((x >= 20).all()), model.log_prob(x).shape
        (True, torch.Size([100]))
    """

    kind: ClassVar[str] = "transformed-density"
    config: TransformedConfig

    def __init__(self, transform: FeatureTransform, density: GenerativeModel) -> None:
        super().__init__()
        if transform.config.features != density.features:
            raise ParameterError(
                f"the map is for {transform.config.features} features, the density for {density.features}; "
                "match them"
            )
        self.transform, self.density = transform, density
        self.config = TransformedConfig(transform.kind, transform.config, density.kind, density.config)

    @classmethod
    def from_config(cls, config: TransformedConfig) -> Self:
        """A map without knots and a density with new weights, for a file to fill in."""
        transform = _TRANSFORMS[config.transform_kind][0](config.transform)
        build: Any = _DENSITIES[config.density_kind][0]
        return cls(transform, build(config.density))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return self.config.transform.names

    def log_prob(self, x: Tensor, *, outside: str = "error") -> Tensor:
        """Log density of events in physical units.

        Args:
            x: events, shape ``(n, features)``.
            outside: what to do with a value outside the range of the map: ``"error"`` or ``"clamp"``.

        Returns:
            Log density of each event, shape ``(n,)``, in one over the units of all features.

        Raises:
            DataError: if the shape is wrong, a value is not finite, or one is outside the range.
        """
        self._check(x, "x")
        u, log_det = self.transform(x, outside=outside)
        log_prob: Tensor = self.density.log_prob(u.to(next(self.parameters()))).to(x) + log_det
        return log_prob

    def forward(self, x: Tensor) -> Tensor:
        """Log density ``(n,)`` of events ``x`` (n, features), as :meth:`log_prob`."""
        return self.log_prob(x)

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        return self.density._draw(n, generator)

    def _in_chunks(self, random: Tensor) -> Tensor:
        coordinates = self.density._in_chunks(random)
        if not bool(coordinates.isfinite().all()):
            raise DataError(
                "the density drew coordinates that are not finite, so its training has failed; "
                "look at its loss, and train it again with a lower learning rate"
            )
        # A coordinate beyond the range of the map is a failure of the density, but one that bounds can mend.
        events: Tensor = self.transform.inverse(coordinates, outside="clamp")
        return events


register_model(TransformedDensity.kind, TransformedConfig.from_dict, TransformedDensity.from_config)
