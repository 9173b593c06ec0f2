"""The exceptions of sbilib, and the checks that raise them at the boundary.

Every message says what was expected, what came, and what to do.  All exceptions derive from
:class:`SbilibError`, so a caller (or the command line) can catch the whole family at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CheckpointError",
    "DataError",
    "DependencyError",
    "DeviceError",
    "ParameterError",
    "SbilibError",
    "StudyError",
    "TrainingError",
    "check_choice",
    "check_count",
    "check_events",
    "check_range",
]


class SbilibError(Exception):
    """Base class of every error raised on purpose by sbilib."""


class ParameterError(SbilibError, ValueError):
    """A parameter has the wrong type or lies outside its allowed range."""


class DataError(SbilibError, ValueError):
    """Data are empty, of the wrong shape, or contain non-finite values."""


class CheckpointError(SbilibError):
    """A checkpoint or weights file is missing, corrupt, or belongs to another configuration."""


class DeviceError(SbilibError):
    """A compute device was asked for that this machine does not have."""


class DependencyError(SbilibError, ImportError):
    """An optional package that this function needs is not installed."""


class TrainingError(SbilibError):
    """Training cannot go on, for instance because the loss is not finite."""


class StudyError(SbilibError):
    """A study, parameter set, or published run does not exist or cannot be used."""


def check_range(
    name: str,
    value: float,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    include_low: bool = True,
    include_high: bool = True,
) -> float:
    """Return ``value`` as a float if it lies in the given range.

    Raises:
        ParameterError: if ``value`` is not a finite number inside the range.
    """
    left, right = "[" if include_low else "(", "]" if include_high else ")"
    expected = f"a finite number in {left}{low:g}, {high:g}{right}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ParameterError(f"{name} must be {expected}, got {value!r}; pass a value in that range")
    above = value >= low if include_low else value > low
    below = value <= high if include_high else value < high
    if not (above and below):
        raise ParameterError(f"{name} must be {expected}, got {value!r}; pass a value in that range")
    return float(value)


def check_count(name: str, value: int, *, low: int = 0) -> int:
    """Return ``value`` if it is an integer of at least ``low``.

    Raises:
        ParameterError: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ParameterError(f"{name} must be an integer of at least {low}, got {value!r}; pass such a value")
    return value


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        ParameterError: if it is not.
    """
    allowed = list(choices)
    if value not in allowed:
        raise ParameterError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def check_events(name: str, events: Tensor, n_features: int) -> Tensor:
    """Return ``events`` if it is a finite, non-empty ``(n_events, n_features)`` floating-point tensor.

    Raises:
        DataError: if it is empty, of the wrong shape or type, or not finite.
    """
    shape = tuple(events.shape)
    if len(shape) != 2 or shape[1] != n_features:
        raise DataError(
            f"{name} must have shape (n_events, {n_features}), got {shape}; "
            f"check that each event has exactly {n_features} features"
        )
    if shape[0] == 0:
        raise DataError(f"{name} is empty; at least one event is needed")
    if not events.is_floating_point():
        raise DataError(f"{name} must be floating point, got {events.dtype}; convert it with .float()")
    bad = ~events.isfinite().all(dim=1)
    if bool(bad.any()):
        first = int(bad.nonzero()[0, 0])
        raise DataError(
            f"{name} has {int(bad.sum())} of {shape[0]} events with NaN or infinite features "
            f"(first: event {first}, {events[first].tolist()}); remove or repair them first"
        )
    return events
