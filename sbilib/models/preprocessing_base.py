r"""What the maps of features share: names, bounds and floors, checks, and what happens outside the range.

A map is fitted once to training events and saved; nothing refits it.  It acts on each feature alone, so its
log determinant is the sum of the log derivatives of the features.

Where physics orders features, a map can act on what a feature has above its *floor* instead,

.. math:: y_d = x_d - \max_g \sum_{e \in g} x_e \ge 0,

with one or several groups ``g`` of other features; jets sorted by momentum, or the mass of a system above
those of its parts, are examples.  Events that come back then keep every inequality.  The step is triangular
with ones on the diagonal, so it leaves densities as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from sbilib.errors import DataError, ParameterError, check_choice, check_range

__all__ = ["Bound", "FeatureTransform", "Floor", "TransformConfig", "configured", "training_columns"]

Bound = tuple[float | None, float | None]
"""Smallest and largest value that a feature can have; None where there is no such limit."""

Floor = tuple[tuple[str, ...], ...]
"""Groups of features; a feature is never smaller than the sum of any group."""

OUTSIDE = ("error", "clamp")
"""What can be done with a value outside the range of a map."""
_ROWS = 2**16
_ROUNDING = 1e-4
"""Part of a value by which it may lie below its floor, as numbers rounded for a file do."""


@dataclass(frozen=True, kw_only=True)
class TransformConfig:
    """Names and physical bounds of the features.

    Raises:
        ParameterError: for no or repeated names, bounds that are not an interval, or floors of unknown
            features, of a feature with an upper bound, or that depend on each other in a circle.
    """

    names: tuple[str, ...]
    """One name for each feature."""
    bounds: tuple[Bound, ...]
    """Physical bounds of each feature, None where there is none."""
    floors: tuple[tuple[str, Floor], ...] = ()
    """Features that have a floor, by name, in an order in which each comes after those of its groups."""

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
        object.__setattr__(self, "floors", self._ordered(dict(self.floors)))

    def _ordered(self, floors: Mapping[str, Floor]) -> tuple[tuple[str, Floor], ...]:
        parts = {name: [part for group in groups for part in group] for name, groups in floors.items()}
        unknown = (set(floors) | set().union(*parts.values())) - set(self.names)
        if unknown:
            raise ParameterError(f"floors name features {sorted(unknown)}, which are not among {self.names}")
        for name, groups in floors.items():
            if not groups or not all(groups):
                raise ParameterError(
                    f"the floor of {name} must be at least one group of features; leave it out"
                )
            if self.bounds[self.names.index(name)][1] is not None:
                raise ParameterError(f"{name} has a floor and an upper bound; leave one out")
        try:
            order = [name for name in TopologicalSorter(parts).static_order() if name in floors]
        except CycleError as error:
            raise ParameterError(f"floors go round in a circle: {', '.join(error.args[1])}") from error
        return tuple((name, tuple(tuple(group) for group in floors[name])) for name in order)

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

    def limits_above_floors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """As :meth:`limits`, but zero and infinity for what a feature has above its floor.

        Example:
            >>> floors = (("pt_1", (("pt_2",),)),)
            >>> config = TransformConfig(names=("pt_1", "pt_2"), bounds=((20, None),) * 2, floors=floors)
            >>> config.limits_above_floors(torch.float32)[0].tolist()
            [0.0, 20.0]
        """
        low, high = self.limits(dtype)
        for name, _ in self.floors:
            low[self.names.index(name)] = 0.0
        return low, high

    def _floor(self, name: str, groups: Floor, values: Tensor) -> Tensor:
        """The floor ``(n,)`` of a feature from ``values`` (n, features): its groups, and its lower bound."""
        sums = [values[:, [self.names.index(part) for part in group]].sum(dim=1) for group in groups]
        lowest = self.bounds[self.names.index(name)][0]
        floor = torch.stack(sums).amax(dim=0)
        return floor if lowest is None else floor.clamp_min(lowest)

    def onto_limits(self, values: Tensor) -> Tensor:
        """The values ``(n, features)``, each lifted or lowered to its bounds and then to its floor."""
        low, high = (limit.to(values.device) for limit in self.limits(values.dtype))
        result = values.clamp(low, high)
        for name, groups in self.floors:
            k = self.names.index(name)
            result[:, k] = result[:, k].maximum(self._floor(name, groups, result))
        return result

    def above_floors(self, values: Tensor) -> Tensor:
        """What each feature has above its floor, ``(n, features)``, zero if it is lower by rounding only.

        Example:
            >>> floors = (("m_jjj", (("m_jj",),)),)
            >>> config = TransformConfig(names=("m_jj", "m_jjj"), bounds=((0, None),) * 2, floors=floors)
            >>> config.above_floors(torch.tensor([[80.0, 173.0]])).tolist()
            [[80.0, 93.0]]
        """
        if not self.floors:
            return values
        result = values.clone()
        for name, groups in self.floors:
            column = values[:, self.names.index(name)]
            above = column - self._floor(name, groups, values)
            rounded = (above < 0) & (above >= -_ROUNDING * column.abs())
            result[:, self.names.index(name)] = torch.where(rounded, 0.0, above)
        return result

    def onto_floors(self, above: Tensor, dtype: torch.dtype) -> Tensor:
        """The inverse of :meth:`above_floors` in ``dtype``, with every inequality and bound exact."""
        low, high = (limit.to(above.device) for limit in self.limits(dtype))
        result = above.to(dtype).clamp(low, high)
        for name, groups in self.floors:
            k = self.names.index(name)
            floor = self._floor(name, groups, result.double())
            value = (above[:, k].double() + floor).to(dtype)
            higher = torch.nextafter(value, value.new_tensor(math.inf))
            result[:, k] = torch.where(value.double() < floor, higher, value).clamp_min(low[k])
        return result

    def to_dict(self) -> dict[str, Any]:
        """Fields by name, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`, from JSON too."""
        bounds = tuple((low, high) for low, high in values["bounds"])
        floors = tuple((name, tuple(map(tuple, groups))) for name, groups in values.get("floors", ()))
        return cls(**{**values, "names": tuple(values["names"]), "bounds": bounds, "floors": floors})


class FeatureTransform(nn.Module):
    """A fitted map of each feature, or what it has above its floor, to a coordinate of order one, and back.

    A subclass gives the arithmetic, in float64 and on rows ``(features, n)``, and says which coordinates it
    can map back.

    Args:
        config: names, bounds and floors.
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
        _check_table(x, self.config.names)
        x64 = x.double()
        above = self.config.above_floors(self.config.onto_limits(x64) if outside == "clamp" else x64)
        x64 = self._inside(above, low, high, outside, "event", "check its units, cut it away")
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
        return self.config.onto_floors(torch.cat(rows), u.dtype)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates and log derivatives of rows ``(features, n)``."""
        raise NotImplementedError

    def _inverse(self, u: Tensor) -> Tensor:
        raise NotImplementedError

    def _range(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of each feature, or above its floor, that can be mapped."""
        return self.config.limits_above_floors(torch.float64)

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
            name = self.config.names[column]
            if what == "event" and name in dict(self.config.floors):
                name = f"{name} above its floor"
            raise DataError(
                f"{what} {row} has {name} = {values[row, column]:g}, outside the range "
                f"[{low[column]:g}, {high[column]:g}] of the fitted map; {remedy}, or pass outside='clamp'"
            )
        return values


def _inward(bound: float | None, dtype: torch.dtype, missing: float) -> Tensor:
    """The bound in ``dtype``, on the inner side if it falls between two numbers; ``missing`` tells which."""
    value = torch.tensor(missing if bound is None else bound, dtype=dtype)
    if bound is not None and (value.double() - bound) * math.copysign(1, missing) > 0:
        value = torch.nextafter(value, torch.tensor(-missing, dtype=dtype))
    return value


def configured(
    events: Tensor,
    names: Sequence[str] | None,
    bounds: Mapping[str, Bound] | None,
    floors: Mapping[str, Floor] | None,
) -> TransformConfig:
    """Configuration of a map that is fitted to events ``(n, features)``, with the default names."""
    if events.ndim != 2 or events.shape[1] == 0:
        raise DataError(f"events must have shape (n, features), got {tuple(events.shape)}")
    chosen = tuple(names) if names is not None else tuple(f"feature {k}" for k in range(events.shape[1]))
    unknown = set(bounds or {}) - set(chosen)
    if unknown:
        raise ParameterError(f"bounds name features {sorted(unknown)}, which are not among {chosen}")
    pairs = tuple((bounds or {}).get(name, (None, None)) for name in chosen)
    return TransformConfig(names=chosen, bounds=pairs, floors=tuple((floors or {}).items()))


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
    """Checked training events above their floors, as float32 rows ``(features, n)``, on the CPU."""
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
    above = config.above_floors(values.double())
    for name, _ in config.floors:
        broken = int((above[:, config.names.index(name)] < 0).sum())
        if broken:
            raise DataError(
                f"{broken} of {len(values)} events have {name} below its floor; correct the floor or remove "
                "these events"
            )
    columns = above.float().T.contiguous()
    columns = columns.clamp(*(limit[:, None] for limit in config.limits_above_floors(torch.float32)))
    constant = [name for name, row in zip(config.names, columns, strict=True) if row.min() == row.max()]
    if constant:
        raise DataError(
            f"{', '.join(constant)} has the same value in all {len(values)} events; leave the feature out"
        )
    return columns
