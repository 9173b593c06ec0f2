r"""Physical features in coordinates in which networks train well, as a fixed part of the model.

An event :math:`x` in GeV, rad and pure numbers becomes

.. math:: y_k = \frac{t_k(x_k) - m_k}{w_k}, \qquad
          t_k \in \{x,\; \log x,\; \log(1 + x),\; \operatorname{arsinh} x\},

with means :math:`m_k` and widths :math:`w_k` of the transformed training events, and a nuisance value becomes
:math:`(z - z_0) / h`.  Azimuths may be taken relative to one of them: no physics depends on the common one.
The map is fixed before the training and is the same at every :math:`z`, so

.. math:: \log p(x \mid z) = \log p_y(y(x) \mid z) + \log |\det \partial y / \partial x| ,

where the last term is one constant per event that signal and background share.

A quantity that may be absent holds a value of its own in place of a number; it becomes zero, the mean, and an
*indicator*, one more coordinate, says that it is absent.  Such coordinates are for classifiers: they have no
density that a flow could learn.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from sbilib.components import LogComponents
from sbilib.errors import DataError, ParameterError, check_choice, check_events, check_range
from sbilib.models.classifier import ClassifierConfig, ClassifierPair
from sbilib.models.files import register_model
from sbilib.models.flow import FlowConfig
from sbilib.models.pair import FlowPair

__all__ = ["TRANSFORM_NAMES", "FeatureScaling", "ScaledPair", "ScaledPairConfig", "ScalingConfig"]

TRANSFORM_NAMES = ("identity", "log", "log1p", "asinh")
"""The transforms of one feature by name."""
_FUNCTIONS = {"log": torch.log, "log1p": torch.log1p, "asinh": torch.asinh}


@dataclass(frozen=True)
class ScalingConfig:
    """What is fixed about a scaling apart from its means and widths.

    Args:
        transforms: name of the transform of each feature.
        azimuths: positions of azimuths in rad; all but the first become differences to the first.
        missing: value that stands for an absent quantity; None if nothing can be absent.
        indicators: one coordinate for each group of features that are absent together: their positions.
        nuisance_center: nuisance value that becomes zero.
        nuisance_width: distance from it that becomes one.

    Raises:
        ParameterError: for an unknown transform, a position out of range, or a width that is not positive.
    """

    transforms: tuple[str, ...]
    azimuths: tuple[int, ...] = ()
    missing: float | None = None
    indicators: tuple[tuple[int, ...], ...] = ()
    nuisance_center: float = 0.0
    nuisance_width: float = 1.0

    def __post_init__(self) -> None:
        for name in self.transforms:
            check_choice("transform", name, TRANSFORM_NAMES)
        places = [*self.azimuths, *(k for group in self.indicators for k in group)]
        if not self.transforms or not all(0 <= k < len(self.transforms) for k in places):
            raise ParameterError(
                f"azimuths and indicators must be positions among {len(self.transforms)} features, "
                f"got {places}; count from 0"
            )
        check_range("nuisance_center", self.nuisance_center)
        check_range("nuisance_width", self.nuisance_width, low=0.0, include_low=False)

    @property
    def n_features(self) -> int:
        """Features of an event."""
        return len(self.transforms)

    @property
    def n_coordinates(self) -> int:
        """Coordinates of an event as the model sees it: features and indicators."""
        return len(self.transforms) + len(self.indicators)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :func:`dataclasses.asdict`, from JSON too."""
        groups = tuple(tuple(group) for group in values["indicators"])
        lists = {name: tuple(values[name]) for name in ("transforms", "azimuths")}
        return cls(**{**values, **lists, "indicators": groups})


class FeatureScaling(nn.Module):
    """The map from features to coordinates of a model, and back.

    Args:
        config: transforms, azimuths, absent quantities, scale of the nuisance parameter.

    Means are zero and widths one until :meth:`fit` takes them from events.

    Example:
        >>> scaling = FeatureScaling(ScalingConfig(("log", "identity")))
        >>> x = torch.tensor([[10.0, 1.0], [1000.0, 3.0]], dtype=torch.float64)
        >>> scaling.fit(x)(x).round(decimals=4).tolist()
        [[-1.0, -1.0], [1.0, 1.0]]
        >>> scaling.inverse(scaling(x)).round(decimals=4).tolist()
        [[10.0, 1.0], [1000.0, 3.0]]
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, config: ScalingConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("shift", torch.zeros(config.n_features))
        self.register_buffer("scale", torch.ones(config.n_features))

    def fit(self, x: Tensor) -> Self:
        """Take means and widths from training events ``x`` (n, d), absent quantities left out.

        Raises:
            DataError: if events are not finite, not positive where their logarithm is taken, or a feature is
                the same in all of them.
        """
        check_events("x", x, self.config.n_features)
        self.shift.zero_()
        self.scale.fill_(1.0)
        transformed, absent = self._transform(x.double())
        present = ~absent
        number = present.sum(dim=0).clamp(min=1)
        shift = torch.where(present, transformed, 0.0).sum(dim=0) / number
        offset = torch.where(present, transformed - shift, 0.0)
        scale = (offset.square().sum(dim=0) / number).sqrt()
        if not bool((scale > 0).all()):
            which = (~(scale > 0)).nonzero()[:, 0].tolist()
            raise DataError(f"features {which} are the same in all {len(x)} events; leave them out")
        self.shift.copy_(shift)
        self.scale.copy_(scale)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Coordinates ``(n, d + indicators)`` of events ``x`` (n, d), in their dtype, unchecked."""
        transformed, absent = self._transform(x)
        y = (transformed - self.shift.to(x)) / self.scale.to(x)
        if self.config.missing is None:
            return y
        flags = [absent[:, group[0]].to(y) for group in self.config.indicators]
        return torch.cat((torch.where(absent, 0.0, y), *(flag.unsqueeze(1) for flag in flags)), dim=1)

    def checked(self, x: Tensor) -> Tensor:
        """Coordinates of events, all of them finite.

        Raises:
            DataError: if one is not, for instance the logarithm of a negative mass.
        """
        y: Tensor = self(check_events("x", x, self.config.n_features))
        bad = ~y.isfinite().all(dim=1)
        if bool(bad.any()):
            first = int(bad.nonzero()[0, 0])
            raise DataError(
                f"event {first}, {x[first].tolist()}, has no finite coordinates under the transforms "
                f"{self.config.transforms}; remove it, or choose other transforms"
            )
        return y

    def inverse(self, y: Tensor) -> Tensor:
        """Events ``(n, d)`` of coordinates ``y`` (n, d + indicators).

        Azimuths come back relative to the first one, which is added, and lie within one turn.
        """
        config = self.config
        d = config.n_features
        t = y[:, :d] * self.scale.to(y) + self.shift.to(y)
        undo = {"identity": lambda v: v, "log": torch.exp, "log1p": torch.expm1, "asinh": torch.sinh}
        columns = [undo[name](t[:, k]) for k, name in enumerate(config.transforms)]
        for k in config.azimuths[1:]:
            columns[k] = _wrap(columns[k] + columns[config.azimuths[0]])
        for number, group in enumerate(config.indicators):
            for k in group:
                columns[k] = torch.where(y[:, d + number] > 0.5, float(config.missing or 0.0), columns[k])
        return torch.stack(columns, dim=1)

    def log_det(self, x: Tensor) -> Tensor:
        """Log Jacobian determinant of the map at events ``x`` (n, d); returns ``(n,)``."""
        total = x.new_zeros(len(x)) - self.scale.to(x).log().sum()
        for k, name in enumerate(self.config.transforms):
            if name == "asinh":
                total = total - 0.5 * x[:, k].square().log1p()
            elif name != "identity":
                total = total - (x[:, k] + (1.0 if name == "log1p" else 0.0)).log()
        return total

    def scaled_nuisance(self, nuisance: Tensor) -> Tensor:
        """Nuisance values as the model sees them."""
        return (nuisance - self.config.nuisance_center) / self.config.nuisance_width

    def physical_nuisance(self, scaled: Tensor) -> Tensor:
        """The inverse of :meth:`scaled_nuisance`."""
        return scaled * self.config.nuisance_width + self.config.nuisance_center

    def _transform(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Transformed features, and where they are absent."""
        config = self.config
        absent = torch.zeros_like(x, dtype=torch.bool) if config.missing is None else x == config.missing
        columns = list(x.unbind(dim=1))
        for k in config.azimuths[1:]:
            columns[k] = _wrap(columns[k] - columns[config.azimuths[0]])
        for k, name in enumerate(config.transforms):
            if name != "identity":
                safe = torch.where(absent[:, k], 1.0, columns[k])
                columns[k] = _FUNCTIONS[name](safe)
        return torch.stack(columns, dim=1), absent


def _wrap(angle: Tensor) -> Tensor:
    """The same angle between minus pi and pi."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


@dataclass(frozen=True)
class ScaledPairConfig:
    """A scaling and a pair behind it."""

    scaling: ScalingConfig
    kind: str
    model: FlowConfig | ClassifierConfig

    def to_dict(self) -> dict[str, Any]:
        """Fields by name, ready for JSON."""
        return {"scaling": asdict(self.scaling), "kind": self.kind, "model": self.model.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        config = FlowConfig if values["kind"] == FlowPair.kind else ClassifierConfig
        scaling = ScalingConfig.from_dict(values["scaling"])
        return cls(scaling, values["kind"], config.from_dict(values["model"]))


class ScaledPair(nn.Module):
    """A pair of models behind a scaling, as component densities of the physical features.

    Flows include the log Jacobian, so they are densities of the features; the log ratios of classifiers
    do not change.

    Args:
        pair: trained on coordinates and scaled nuisance values.
        scaling: the map to them.

    Raises:
        ParameterError: if the pair is for another number of coordinates, or is a flow with indicators.

    Example:
        >>> scaling = FeatureScaling(ScalingConfig(("log", "log"), nuisance_center=1.0, nuisance_width=0.2))
        >>> pair = ScaledPair(FlowPair.from_config(FlowConfig.modern(), seed=1), scaling)
        >>> pair.log_components(torch.ones(3, 2), torch.linspace(0.8, 1.2, 5)).signal.shape
        torch.Size([3, 5])
    """

    KINDS: ClassVar[dict[str, str]] = {
        kind: f"scaled-{kind}" for kind in (FlowPair.kind, ClassifierPair.kind)
    }

    def __init__(self, pair: FlowPair | ClassifierPair, scaling: FeatureScaling) -> None:
        super().__init__()
        expected = scaling.config.n_coordinates
        got = pair.config.features if isinstance(pair, FlowPair) else pair.config.n_features
        if got != expected:
            raise ParameterError(
                f"the scaling gives {expected} coordinates, the pair takes {got}; match them"
            )
        if isinstance(pair, FlowPair) and scaling.config.indicators:
            raise ParameterError(
                "flows need features that are always there, got some that may be absent; leave them out, or "
                "train a classifier"
            )
        self.pair, self.scaling = pair, scaling
        self.kind = self.KINDS[pair.kind]
        self.config = ScaledPairConfig(scaling.config, pair.kind, pair.config)

    @classmethod
    def from_config(cls, config: ScaledPairConfig) -> Self:
        """A pair with new weights."""
        pair: FlowPair | ClassifierPair
        if isinstance(config.model, FlowConfig):
            pair = FlowPair.from_config(config.model)
        else:
            pair = ClassifierPair.from_config(config.model)
        return cls(pair, FeatureScaling(config.scaling))

    @property
    def n_features(self) -> int:
        """Features of an event."""
        return self.scaling.config.n_features

    @property
    def signal(self) -> nn.Module:
        """The model of signal events."""
        return self.pair.signal

    @property
    def background(self) -> nn.Module:
        """The model of background events."""
        return self.pair.background

    @torch.no_grad()
    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        """Log densities (flows) or log ratios (classifiers) of every event at every nuisance value.

        Args:
            x: events in physical units, shape ``(n, d)``.
            nuisance: nuisance values, shape ``(m,)``.

        Returns:
            Signal and background, each float64 of shape ``(n, m)``.

        Raises:
            DataError: if events are bad, or have no finite coordinates.
        """
        x = x.double()
        found = self.pair.log_components(
            self.scaling.checked(x), self.scaling.scaled_nuisance(nuisance.double())
        )
        if self.pair.kind == ClassifierPair.kind:
            return found
        constant = self.scaling.log_det(x).unsqueeze(1)
        return LogComponents(found.signal + constant, found.background + constant)


for _kind in ScaledPair.KINDS.values():
    register_model(_kind, ScaledPairConfig.from_dict, ScaledPair.from_config)
