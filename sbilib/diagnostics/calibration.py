r"""Calibration of learned log ratios where the exact ones are known.

Events are sorted by the exact log ratio :math:`t = \log p(x|\mathrm{sig},z) / p(x|\mathrm{bkg},z)` into bins
of equal numbers of events.  In each bin the learned log ratio :math:`\hat t` should scatter around
:math:`t` with no offset: a nonzero median of :math:`\hat t - t` is a bias that no number of observed events
averages away.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.errors import DataError, check_range

__all__ = ["RatioCalibration", "ratio_calibration"]


class RatioCalibration(NamedTuple):
    """Difference between learned and exact log ratios, in bins of the exact one."""

    exact: Tensor
    """Mean exact log ratio of each bin, shape ``(n_bins,)``."""
    difference: Tensor
    """Median of learned minus exact, shape ``(n_bins,)``."""
    low: Tensor
    """16% quantile of the difference, shape ``(n_bins,)``."""
    high: Tensor
    """84% quantile of the difference, shape ``(n_bins,)``."""
    rms: float
    """Root mean square of the difference over all events."""


def ratio_calibration(learned: Tensor, exact: Tensor, *, n_bins: int = 20) -> RatioCalibration:
    """Compare learned with exact log ratios of the same events.

    Args:
        learned: learned log ratios, any shape.
        exact: exact log ratios, of the same shape.
        n_bins: number of bins of (nearly) equal numbers of events, at least one.

    Returns:
        Differences of log ratios (pure numbers) in bins of the exact one, and their root mean square.

    Raises:
        DataError: if the shapes differ, values are not finite, or there are fewer events than bins.
        ParameterError: if ``n_bins`` is below one.

    Example:
        >>> exact = torch.linspace(-1, 1, 100)
        >>> result = ratio_calibration(exact + 0.5, exact, n_bins=4)
        >>> round(result.rms, 4), [round(float(d), 4) for d in result.difference]
        (0.5, [0.5, 0.5, 0.5, 0.5])
    """
    check_range("n_bins", n_bins, low=1)
    if learned.shape != exact.shape:
        raise DataError(
            f"learned and exact log ratios must have the same shape, got {tuple(learned.shape)} and "
            f"{tuple(exact.shape)}; evaluate both on the same events"
        )
    flat_exact, order = exact.double().flatten().sort()
    difference = learned.double().flatten()[order] - flat_exact
    if len(flat_exact) < n_bins:
        raise DataError(f"{n_bins} bins need at least as many events, got {len(flat_exact)}")
    if not bool(difference.isfinite().all()):
        raise DataError("log ratios must be finite, got NaN or infinity; check the models")
    levels = torch.tensor([0.16, 0.5, 0.84], dtype=torch.float64)
    quantiles = torch.stack([part.quantile(levels) for part in difference.tensor_split(n_bins)])
    return RatioCalibration(
        exact=torch.stack([part.mean() for part in flat_exact.tensor_split(n_bins)]),
        difference=quantiles[:, 1],
        low=quantiles[:, 0],
        high=quantiles[:, 2],
        rms=float(difference.square().mean().sqrt()),
    )
