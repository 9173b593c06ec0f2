r"""Two small analyses with one free parameter each: a cut on a falling spectrum, and a trade-off in one bin.

**A peak on a falling background.**  Signal and background events have the densities

.. math:: f_s(x) = \mathcal N(x;\, m, w), \qquad f_b(x) = \frac{1}{\ell} e^{-x/\ell} \quad (x > 0),

and a cut keeps the events above it (Simpson 2023, section 7.2.1, which gives no numbers; these
are ours).

**One bin, one parameter.**  Yields and the uncertainty of the background as functions of :math:`\phi`,

.. math:: s = 15 + \phi, \qquad b = 45 - 2\phi, \qquad \sigma_b = 0.5 + 0.1\,\phi^2,

(Simpson 2023, section 7.1.1): without its uncertainty the background is best made small, with it there is an
optimum in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.errors import ParameterError, check_count, check_range
from sbilib.problems.streams import spawn_generators

__all__ = ["FallingSpectrum", "OneBinYields", "SpectrumEvents", "one_bin_yields"]


class SpectrumEvents(NamedTuple):
    """Values of the observable for signal and background events, each ``(n_events,)``."""

    signal: Tensor
    background: Tensor


@dataclass(frozen=True)
class FallingSpectrum:
    """A normal peak of signal on an exponentially falling background.

    Args:
        peak: mean m of the signal.
        width: standard deviation w of the signal, positive.
        decay: length l of the exponential, positive, in units of the observable.
        signal_yield: expected signal events, positive.
        background_yield: expected background events, positive.

    Raises:
        ParameterError: if a number is out of its range.

    Example:
        >>> spectrum = FallingSpectrum()
        >>> [round(float(n)) for n in spectrum.yields_above(torch.tensor(0.0))]
        [50, 1000]
    """

    peak: float = 2.0
    width: float = 0.3
    decay: float = 1.0
    signal_yield: float = 50.0
    background_yield: float = 1000.0

    def __post_init__(self) -> None:
        check_range("peak", self.peak)
        for name in ("width", "decay", "signal_yield", "background_yield"):
            check_range(name, getattr(self, name), low=0.0, include_low=False)

    def sample(self, n: int, *, seed: int, dtype: torch.dtype = torch.float64) -> SpectrumEvents:
        """Draw ``n`` events of each component, each from a random stream of its own.

        Raises:
            ParameterError: if ``n`` or ``seed`` is not an integer in its range.
        """
        check_count("n", n, low=1)
        first, second = spawn_generators(seed, 2)
        signal = self.peak + self.width * torch.randn(n, generator=first, dtype=dtype)
        background = torch.empty(n, dtype=dtype).exponential_(1.0 / self.decay, generator=second)
        return SpectrumEvents(signal, background)

    def yields_above(self, cut: Tensor) -> tuple[Tensor, Tensor]:
        """Exact expected signal and background events above a cut of any shape, differentiable in it."""
        cut = cut.double()
        signal = self.signal_yield * torch.special.ndtr((self.peak - cut) / self.width)
        background = self.background_yield * torch.exp(-torch.relu(cut) / self.decay)
        return signal, background


class OneBinYields(NamedTuple):
    """Expected events of a one-bin analysis, of the shape of its parameter."""

    signal: Tensor
    background: Tensor
    background_uncertainty: Tensor


def one_bin_yields(phi: Tensor) -> OneBinYields:
    r"""Yields of the one-bin analysis at its parameter, :math:`s = 15 + \phi`, :math:`b = 45 - 2\phi`.

    Args:
        phi: the parameter, any shape, in [-15, 22.5] where no yield is negative.

    Returns:
        Signal, background and its uncertainty :math:`0.5 + 0.1\phi^2`, in events, in float64.

    Raises:
        ParameterError: if ``phi`` is outside its range.

    Source:
        Simpson 2023, section 7.1.1.

    Example:
        >>> [value.item() for value in one_bin_yields(torch.tensor(5.0))]
        [20.0, 35.0, 3.0]
    """
    phi = phi.double()
    inside = (phi.detach() >= -15.0) & (phi.detach() <= 22.5)
    if not bool(inside.all()):
        raise ParameterError(
            f"phi must lie in [-15, 22.5], where no yield is negative, got "
            f"{float(phi.detach()[~inside][0]):g}; pass values in that range"
        )
    return OneBinYields(15.0 + phi, 45.0 - 2.0 * phi, 0.5 + 0.1 * phi**2)
