"""What the maps of features share: names and bounds, checks, and what happens outside the range.

A map is fitted once to training events and saved; nothing refits it.  It acts on each feature alone, so its
log determinant is the sum of the log derivatives of the features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from sbilib.errors import DataError, ParameterError, check_choice, check_range

__all__ = ["Bound", "FeatureTransform", "TransformConfig", "names_and_bounds", "training_columns"]

Bound = tuple[float | None, float | None]
"""Smallest and largest value that a feature can have; None where there is no such limit."""

OUTSIDE = ("error", "clamp")
"""What can be done with a value outside the range of a map."""
_ROWS = 2**16


@dataclass(frozen=True, kw_only=True)
class TransformConfig:
    """Names and physical bounds of the features.

    Raises:
        ParameterError: for no or repeated names, or bounds that are not an interval.
    """

    names: tuple[str, ...]
    """One name for each feature."""
    bounds: tuple[Bound, ...]
    """Physical bounds of each feature, None where there is none."""

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise ParameterError(f"names must be one name for each feature, got {self.names}; repeat none")
        if len(self.bounds) != len(self.names):
            raise ParameterError(f"bounds must be one pair for each of {len(self.names)} features")
        for name, (low, high) in zip(self.names, self.bounds, strict=True):
            for end in (low, high):
                if end is not None:
                    check_range(f"bound of {name}", float(end))
            if low is not None and high is not None and low >= high:
                raise ParameterError(f"bounds of {name} must be (low, high) with low < high, got {low, high}")

    @property
    def features(self) -> int:
        """Number of features."""
        return len(self.names)

    def limits(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Bounds as tensors ``(features,)``, rounded inwards and infinite where there is none.

        Example:
            >>> config = TransformConfig(names=("eta",), bounds=((-2.4, None),))
            >>> low, high = config.limits(torch.float32)
            >>> low.item() >= -2.4, high.item()
            (True, inf)
        """
        low = [_inward(pair[0], dtype, -math.inf) for pair in self.bounds]
        high = [_inward(pair[1], dtype, math.inf) for pair in self.bounds]
        return torch.stack(low), torch.stack(high)

    def to_dict(self) -> dict[str, Any]:
        """Fields by name, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`, from JSON too."""
        bounds = tuple((low, high) for low, high in values["bounds"])
        return cls(**{**values, "names": tuple(values["names"]), "bounds": bounds})


class FeatureTransform(nn.Module):
    """A fitted map of each feature to a coordinate of order one, and back.

    A subclass gives the arithmetic, in float64 and on rows ``(features, n)``, and says which coordinates it
    can map back.

    Args:
        config: names and bounds.
    """

    kind: ClassVar[str]

    def __init__(self, config: TransformConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, x: Tensor, *, outside: str = "error") -> tuple[Tensor, Tensor]:
        """Coordinates of events.

        Args:
            x: events in physical units, shape ``(n, features)``.
            outside: what to do with a value outside the range of the map: ``"error"``, or ``"clamp"`` it to
                the end of the range.

        Returns:
            Coordinates ``(n, features)`` and the log determinant of the Jacobian ``(n,)``, in the dtype of x.

        Raises:
            DataError: if the shape is wrong, a value is not finite, or one is outside the range.
        """
        low, high = self._range()
        x64 = self._inside(x, low, high, outside, "event", "check its units, cut it away")
        parts = [self._forward(rows.T.contiguous()) for rows in torch.split(x64, _ROWS)]
        log_det = torch.cat([part[1].sum(dim=0) for part in parts])
        return torch.cat([part[0].T for part in parts]).to(x), log_det.to(x)

    def inverse(self, u: Tensor, *, outside: str = "error") -> Tensor:
        """Events ``(n, features)`` of coordinates ``u`` (n, features), inside the physical bounds.

        Args:
            u: coordinates.
            outside: what to do with a coordinate that the map never gives: ``"error"``, or ``"clamp"`` it.

        Raises:
            DataError: if the shape is wrong, a coordinate is not finite, or one is outside the range.
        """
        low, high = self._coordinate_range()
        u64 = self._inside(u, low, high, outside, "coordinate", "check the density it was drawn from")
        rows = [self._inverse(rows.T.contiguous()).T for rows in torch.split(u64, _ROWS)]
        lowest, highest = (limit.to(u.device) for limit in self.config.limits(u.dtype))
        return torch.cat(rows).to(u).clamp(lowest, highest)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates and log derivatives of rows ``(features, n)``."""
        raise NotImplementedError

    def _inverse(self, u: Tensor) -> Tensor:
        raise NotImplementedError

    def _range(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of each feature that can be mapped."""
        return self.config.limits(torch.float64)

    def _coordinate_range(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest coordinate of each feature that can be mapped back."""
        raise NotImplementedError

    def _inside(
        self, values: Tensor, low: Tensor, high: Tensor, outside: str, what: str, remedy: str
    ) -> Tensor:
        check_choice("outside", outside, OUTSIDE)
        _check_table(values, self.config.names)
        values, low, high = values.double(), low.to(values.device), high.to(values.device)
        if outside == "clamp":
            return values.clamp(low, high)
        bad = (values < low) | (values > high)
        if bool(bad.any()):
            row, column = bad.nonzero()[0].tolist()
            raise DataError(
                f"{what} {row} has {self.config.names[column]} = {values[row, column]:g}, outside the range "
                f"[{low[column]:g}, {high[column]:g}] of the fitted map; {remedy}, or pass outside='clamp'"
            )
        return values


def _inward(bound: float | None, dtype: torch.dtype, missing: float) -> Tensor:
    """The bound in ``dtype``, on the inner side if it falls between two numbers; ``missing`` tells which."""
    value = torch.tensor(missing if bound is None else bound, dtype=dtype)
    if bound is not None and (value.double() - bound) * math.copysign(1, missing) > 0:
        value = torch.nextafter(value, torch.tensor(-missing, dtype=dtype))
    return value


def names_and_bounds(
    events: Tensor, names: Sequence[str] | None, bounds: Mapping[str, Bound] | None
) -> tuple[tuple[str, ...], tuple[Bound, ...]]:
    if events.ndim != 2 or events.shape[1] == 0:
        raise DataError(f"events must have shape (n, features), got {tuple(events.shape)}")
    chosen = tuple(names) if names is not None else tuple(f"feature {k}" for k in range(events.shape[1]))
    unknown = set(bounds or {}) - set(chosen)
    if unknown:
        raise ParameterError(f"bounds name features {sorted(unknown)}, which are not among {chosen}")
    return chosen, tuple((bounds or {}).get(name, (None, None)) for name in chosen)


def _check_table(values: Tensor, names: Sequence[str]) -> None:
    if values.ndim != 2 or values.shape[1] != len(names):
        raise DataError(
            f"events must have shape (n, {len(names)}), got {tuple(values.shape)}; "
            f"give one column for each of {', '.join(names)}"
        )
    if len(values) == 0 or not values.is_floating_point():
        raise DataError(f"events must be at least one row of floats, got {len(values)} of {values.dtype}")
    bad = ~values.isfinite()
    if bool(bad.any()):
        row, column = bad.nonzero()[0].tolist()
        raise DataError(
            f"{int(bad.any(dim=1).sum())} of {len(values)} events are NaN or infinite, the first is event "
            f"{row} with {names[column]} = {float(values[row, column])}; remove or repair them first"
        )


def training_columns(events: Tensor, config: TransformConfig) -> Tensor:
    """Checked training events as float32 rows ``(features, n)``, on the CPU."""
    _check_table(events, config.names)
    low, high = config.limits(torch.float64)
    values = events.detach().cpu()
    for k, name in enumerate(config.names):
        outside = int(((values[:, k].double() < low[k]) | (values[:, k].double() > high[k])).sum())
        if outside:
            raise DataError(
                f"{outside} of {len(values)} events have {name} outside its bounds {config.bounds[k]}; "
                "correct the bounds or remove these events"
            )
    columns = values.float().T.contiguous()
    columns = columns.clamp(*(limit[:, None] for limit in config.limits(torch.float32)))
    constant = [name for name, row in zip(config.names, columns, strict=True) if row.min() == row.max()]
    if constant:
        raise DataError(
            f"{', '.join(constant)} has the same value in all {len(values)} events; leave the feature out"
        )
    return columns
