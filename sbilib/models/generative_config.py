"""Architectures of the flows without context, and the settings they were published with."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from sbilib.errors import ParameterError, check_choice, check_count, check_range
from sbilib.models.autoregressive_network import ACTIVATIONS

__all__ = ["AffineFlowConfig", "NetworkConfig", "SplineFlowConfig"]


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """What the network of every generative model needs.

    Raises:
        ParameterError: if a value is of the wrong type or outside its range.
    """

    features: int = 18
    """Number of features of an event, at least 2."""
    hidden: int = 512
    """Units of every hidden layer, at least one for each feature but the last."""
    n_blocks: int = 1
    """Residual blocks of two layers each."""
    activation: str = "gelu"
    """Activation function, ``relu``, ``silu`` or ``gelu``."""

    def __post_init__(self) -> None:
        check_count("features", self.features, low=2)
        check_count("hidden", self.hidden, low=1)
        check_count("n_blocks", self.n_blocks)
        check_choice("activation", self.activation, ACTIVATIONS)
        if self.hidden < self.features - 1:
            raise ParameterError(
                f"hidden must be at least features - 1 = {self.features - 1}, so that there is a "
                f"unit for each feature, got {self.hidden}; pass a larger number"
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
            raise ParameterError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}; remove it")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class AffineFlowConfig(NetworkConfig):
    """Architecture of a flow of affine layers.

    Raises:
        ParameterError: if a value is of the wrong type or outside its range.

    Example:
        >>> AffineFlowConfig.gavranovic().n_transforms
        10
        >>> AffineFlowConfig.from_dict(AffineFlowConfig.modern().to_dict()) == AffineFlowConfig.modern()
        True
    """

    n_transforms: int = 10
    """Number of layers, with a permutation after each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("n_transforms", self.n_transforms, low=1)

    @classmethod
    def gavranovic(cls, features: int = 18) -> Self:
        """The published size, 10 transforms of 2 x 512 units (Gavranovic and Kersevan 2024).

        The two layers of 512 are one residual block here, as the 30 blocks of two layers are in their MADE.
        """
        return cls(features=features)

    @classmethod
    def modern(cls, features: int = 18) -> Self:
        """A size that two cores train on 200,000 events of 18 features in minutes."""
        return cls(features=features, n_transforms=6, hidden=128, activation="silu")

    @classmethod
    def small(cls, features: int = 18) -> Self:
        """A size that trains on 10,000 events in seconds."""
        return cls(features=features, n_transforms=4, hidden=64, activation="silu")


@dataclass(frozen=True, kw_only=True)
class SplineFlowConfig(AffineFlowConfig):
    """Architecture of a flow of rational-quadratic spline layers.

    Raises:
        ParameterError: if a value is of the wrong type or outside its range.

    Example:
        >>> SplineFlowConfig.gavranovic().n_bins
        32
    """

    n_bins: int = 32
    """Bins of each spline."""
    tail_bound: float = 5.0
    """Half width of the interval outside which a layer is the identity, in units of the features."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("n_bins", self.n_bins, low=2)
        if self.n_bins > 500:
            raise ParameterError(f"n_bins must be between 2 and 500, got {self.n_bins}; pass such a value")
        check_range("tail_bound", self.tail_bound, low=0.0, include_low=False)

    @classmethod
    def modern(cls, features: int = 18) -> Self:
        """A size that two cores train on 200,000 events of 18 features in minutes."""
        return cls(features=features, n_transforms=3, hidden=128, activation="silu", n_bins=12)

    @classmethod
    def small(cls, features: int = 18) -> Self:
        """A size that trains on 10,000 events in seconds."""
        return cls(features=features, n_transforms=2, hidden=64, activation="silu", n_bins=8)
