"""Checks of what comes into the likelihood: component densities, counts, ranges."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sbilib.components import ComponentDensities, LogComponents
from sbilib.errors import DataError, ParameterError

__all__ = ["check_components", "check_counts", "check_interval_range", "evaluate_components"]


def check_components(components: LogComponents, n_events: int, n_nuisances: int) -> LogComponents:
    """Return the log densities in float64 if they have the expected shape and are usable.

    A density of zero, :math:`\\log p = -\\infty`, is not accepted: no likelihood can be formed where
    both components vanish, and learned densities that return it are broken.

    Raises:
        DataError: if a component has the wrong shape or is not finite.
    """
    for name, values in (("signal", components.signal), ("background", components.background)):
        shape = tuple(values.shape)
        if shape != (n_events, n_nuisances):
            raise DataError(
                f"the {name} log densities must have shape (n_events, n_nuisance) = "
                f"({n_events}, {n_nuisances}), got {shape}; check what log_components returns"
            )
        # A finite sum proves all values finite at half the cost; a sum may also overflow, so look closer.
        if not bool(values.sum().isfinite()) and not bool(values.isfinite().all()):
            bad = ~values.isfinite()
            event, column = (int(i) for i in bad.nonzero()[0])
            raise DataError(
                f"{int(bad.sum())} of {bad.numel()} {name} log densities are NaN or infinite (first: event "
                f"{event} at nuisance value number {column}); remove the event or repair the model"
            )
    return LogComponents(components.signal.double(), components.background.double())


def evaluate_components(densities: ComponentDensities, events: Tensor, nuisances: Tensor) -> LogComponents:
    """Checked float64 log densities of ``events`` (n, d) at ``nuisances`` (m,), without gradients."""
    with torch.no_grad():
        components = densities.log_components(events, nuisances)
    return check_components(components, events.shape[0], nuisances.shape[0])


def check_counts(counts: Tensor, n_events: int) -> Tensor:
    """Return the event counts of each set, ``(n_sets, n_events)``, in float64 if they make sense.

    Raises:
        DataError: if the shape is wrong, a count is negative or not finite, or a set is empty.
    """
    shape = tuple(counts.shape)
    if len(shape) != 2 or shape[1] != n_events or shape[0] == 0:
        raise DataError(
            f"counts must have shape (n_sets, n_events) = (n_sets, {n_events}), got {shape}; "
            "give one row per set and one count per event"
        )
    values = counts.double()
    total = values.sum(dim=1)
    if not bool(total.isfinite().all()) or bool(values.min() < 0):
        raise DataError("counts must be finite and not negative; a count is how often a set holds an event")
    empty = total <= 0
    if bool(empty.any()):
        raise DataError(f"set {int(empty.nonzero()[0, 0])} has no events; every set needs at least one")
    return values


def check_interval_range(
    name: str, value: tuple[float, float], *, low: float = -math.inf
) -> tuple[float, float]:
    """Return ``(lower, upper)`` as floats if they are finite, increasing and not below ``low``.

    Raises:
        ParameterError: if they are not.
    """
    expected = "two increasing finite numbers" + (f", not below {low:g}" if math.isfinite(low) else "")
    try:
        lower, upper = (float(v) for v in value)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{name} must be {expected}, got {value!r}") from error
    if not (math.isfinite(lower) and math.isfinite(upper) and low <= lower < upper):
        raise ParameterError(f"{name} must be {expected}, got {value!r}; pass (lower, upper) in that range")
    return lower, upper
