"""Profiles of many sets on points around each set's best fit, for intervals as published."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from sbilib.errors import ParameterError, check_range
from sbilib.likelihood.batched import FitResults, fit_bounds
from sbilib.likelihood.newton import conditional_minimum
from sbilib.likelihood.parabolic import DEFAULT_WINDOW
from sbilib.likelihood.profile import Profile
from sbilib.likelihood.table import EventSets

__all__ = ["WindowProfiles", "profile_windows"]

_MARGIN = 1.15  # how far the points reach beyond the window expected from the interval


class WindowProfiles(NamedTuple):
    """Profiles with points of their own for each set, to be given to `parabolic_interval`."""

    signal_ratio: Profile
    """Of the signal ratio, at ``(n_sets, n_points)`` values."""
    nuisance: Profile
    """Of the nuisance parameter, at ``(n_sets, n_points)`` values."""


def profile_windows(
    sets: EventSets,
    fits: FitResults,
    *,
    window: float = DEFAULT_WINDOW,
    n_points: int = 25,
    ratio_range: tuple[float, float] = (0.0, 0.5),
) -> WindowProfiles:
    """Profile NLL of both parameters where it is within ``window`` of its minimum, and a little beyond.

    Args:
        sets: the sets that were fitted.
        fits: their fits, from `fit_event_sets`.
        window: height of the part of the profile that will be fitted.
        n_points: points of each profile, at least 8.
        ratio_range: scanned range of the signal ratio, as in the fit.

    Raises:
        ParameterError: for fewer than 8 points, or a window that is not positive.

    Example:
        >>> from sbilib.likelihood import NuisanceTable, fit_event_sets, parabolic_interval
        >>> from sbilib.problems.gaussian import GaussianToy
        >>> toy, generator = GaussianToy(2.0), torch.Generator().manual_seed(1)
        >>> events = torch.cat([toy.sample(c, torch.full((n,), 0.8), generator)
        ...                     for c, n in (("signal", 60), ("background", 240))])
        >>> table = NuisanceTable.build(toy, events, torch.linspace(*toy.scan_range, 61))
        >>> sets = EventSets.from_toys(table, 1)
        >>> windows = profile_windows(sets, fit_event_sets(sets))
        >>> bool(parabolic_interval(windows.signal_ratio).contains(0.25))
        True
    """
    check_range("window", window, low=0.0, include_low=False)
    if n_points < 8:
        raise ParameterError(f"n_points must be at least 8 to fit a quartic, got {n_points}")
    bounds = fit_bounds(sets, ratio_range)
    reach = _MARGIN * math.sqrt(2 * window / fits.level)
    line = torch.linspace(-1, 1, n_points, dtype=torch.float64, device=sets.size.device)
    rows = torch.arange(sets.n_sets, device=line.device)[:, None].expand(-1, n_points)
    profiles = []
    ends = (ratio_range, (bounds.nuisance_low, bounds.nuisance_high))
    for k, (interval, limits) in enumerate(
        zip((fits.ratio_interval, fits.nuisance_interval), ends, strict=True)
    ):
        half = torch.maximum(interval.upper - interval.best, interval.best - interval.lower) * reach
        first = (interval.best - half).clamp(min=limits[0])
        last = (interval.best + half).clamp(max=limits[1])
        points = first[:, None] + (last - first)[:, None] * (line + 1) / 2
        points = points.clamp(*limits)
        of_fraction = k == 0
        fraction = fits.signal_ratio / (1 + fits.signal_ratio)
        target = points / (1 + points) if of_fraction else points
        target = target.clamp(bounds[0], bounds[1]) if of_fraction else target
        start = (fits.nuisance if of_fraction else fraction)[:, None].expand(-1, n_points)
        nll, _ = conditional_minimum(
            sets, rows.reshape(-1), target.reshape(-1), start.reshape(-1), bounds, of_fraction=of_fraction
        )
        nll = nll.reshape(-1, n_points)
        profiles.append(Profile(points, nll - nll.min(dim=1, keepdim=True).values))
    return WindowProfiles(*profiles)
