"""What the particle-level events of all processes share: named arrays with one row per event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from sbilib.errors import DataError

__all__ = ["EventArrays"]


@dataclass(frozen=True, eq=False)
class EventArrays:
    """Named arrays of equal length, of the shapes and types that a subclass states.

    Raises:
        DataError: if a shape is wrong or a number is not finite.

    Example:
        >>> from sbilib.simulation.truth import TruthEvents
        >>> issubclass(TruthEvents, EventArrays), len(TruthEvents.empty())
        (True, 0)
    """

    SHAPES: ClassVar[Mapping[str, tuple[int, ...]]]
    """Shape of one row of each array."""
    DTYPES: ClassVar[Mapping[str, np.dtype[Any]]] = {}
    """Types other than float32."""

    def __post_init__(self) -> None:
        n_events = len(self)
        for name, shape in self.SHAPES.items():
            array = np.asarray(getattr(self, name), dtype=self.DTYPES.get(name, np.dtype(np.float32)))
            if array.shape != (n_events, *shape):
                raise DataError(
                    f"{name} must have shape {(n_events, *shape)}, got {array.shape}; give one row per event"
                )
            if not np.isfinite(array).all():
                raise DataError(f"{name} has NaN or infinite entries; remove or repair these events first")
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(getattr(self, next(iter(self.SHAPES))))

    @classmethod
    def empty(cls) -> Self:
        """No events at all."""
        return cls(**{name: np.zeros((0, *shape)) for name, shape in cls.SHAPES.items()})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """All events of ``parts`` in their order.

        Example:
            >>> from sbilib.simulation.truth import TruthEvents
            >>> len(TruthEvents.concatenate([TruthEvents.empty(), TruthEvents.empty()]))
            0
        """
        if not parts:
            return cls.empty()
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.SHAPES})

    def select(self, mask: NDArray[np.generic] | slice) -> Self:
        """The events that ``mask`` (booleans, indices or a slice) picks."""
        return type(self)(**{name: getattr(self, name)[mask] for name in self.SHAPES})
