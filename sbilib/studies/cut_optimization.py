r"""A cut found by descent on simulated events, and how noisy the way there is.

With weights :math:`w_i(c)` of a soft cut at :math:`c`, the expected yields are

.. math:: s(c) = \frac{S}{n_s} \sum_{i \in s} w_i(c), \qquad b(c) = \frac{B}{n_b} \sum_{i \in b} w_i(c),

and the loss is the inverse of the Asimov significance (Simpson 2023, section 7.2.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbilib.differentiable import asimov_significance, hard_cut, soft_cut
from sbilib.errors import check_count
from sbilib.problems import FallingSpectrum, SpectrumEvents

__all__ = ["cut_gradients", "cut_significance", "exact_soft_yields", "sample_spectra"]


def sample_spectra(spectrum: FallingSpectrum, n_events: int, n_sets: int, *, seed: int) -> SpectrumEvents:
    """Independent simulated samples, one for each repetition of an optimization.

    Args:
        spectrum: what to sample from.
        n_events: events of signal and of background in a sample.
        n_sets: number of samples.
        seed: of the random streams.

    Returns:
        Signal and background events, each ``(n_sets, n_events)``.

    Raises:
        ParameterError: if a number is out of its range.

    Example:
        >>> sample_spectra(FallingSpectrum(), 10, 3, seed=1).signal.shape
        torch.Size([3, 10])
    """
    check_count("n_sets", n_sets, low=1)
    events = spectrum.sample(n_events * n_sets, seed=seed)
    return SpectrumEvents(*(each.view(n_sets, n_events) for each in events))


def cut_significance(
    cut: Tensor, events: SpectrumEvents, spectrum: FallingSpectrum, *, slope: float | Tensor | None
) -> Tensor:
    """Asimov significance above a cut, from simulated events.

    Args:
        cut: thresholds ``(*batch,)``.
        events: signal and background, each ``(*batch, n_events)``; batches broadcast.
        spectrum: its total yields scale the weights.
        slope: of the soft cut, a number or ``(*batch,)``; None for the hard cut, which has no gradient.

    Returns:
        ``(*batch,)``, in standard deviations.

    Raises:
        ParameterError: if the slope is not positive.
        DataError: if no background is left, so that the significance would be infinite.
    """
    threshold = cut.unsqueeze(-1)
    steepness = slope.unsqueeze(-1) if isinstance(slope, Tensor) else slope

    def share(values: Tensor) -> Tensor:
        if steepness is None:
            return hard_cut(values, threshold).mean(-1, keepdim=True)
        return soft_cut(values, threshold, slope=steepness).mean(-1, keepdim=True)

    return asimov_significance(
        spectrum.signal_yield * share(events.signal), spectrum.background_yield * share(events.background)
    )


def cut_gradients(
    cut: float, events: SpectrumEvents, spectrum: FallingSpectrum, slopes: Tensor
) -> tuple[Tensor, Tensor]:
    """Derivative of the significance with respect to a soft cut in each sample, and its spread.

    Args:
        cut: where the derivative is taken.
        events: signal and background, each ``(n_sets, n_events)``.
        spectrum: its total yields scale the weights.
        slopes: steepnesses of the soft cut, ``(n_slopes,)``.

    Returns:
        Mean and standard deviation over the samples, each ``(n_slopes,)``, per unit of the observable.
    """
    means, spreads = [], []
    for slope in slopes.tolist():
        place = torch.full((len(events.signal),), cut, dtype=torch.float64, requires_grad=True)
        value = cut_significance(place, events, spectrum, slope=slope)
        (gradient,) = torch.autograd.grad(value.sum(), place)
        means.append(gradient.mean())
        spreads.append(gradient.std())
    return torch.stack(means), torch.stack(spreads)


def exact_soft_yields(
    cut: Tensor, spectrum: FallingSpectrum, slope: float, *, n_points: int = 4001
) -> tuple[Tensor, Tensor]:
    r"""Expected yields after a soft cut without simulation noise.

    A soft cut is a hard one whose threshold is smeared by a logistic density,

    .. math:: s_k(c) = \int s(c + t)\, K_k(t)\, \mathrm d t, \qquad
              K_k(t) = \frac{k\, e^{-kt}}{(1 + e^{-kt})^2},

    and with :math:`u` the cumulative distribution of :math:`t`, the integral is a mean over :math:`u`.

    Args:
        cut: thresholds of any shape.
        spectrum: densities and yields.
        slope: steepness k.
        n_points: midpoints in u.

    Returns:
        Signal and background events, of the shape of ``cut``, differentiable in it.
    """
    u = (torch.arange(n_points, dtype=torch.float64) + 0.5) / n_points
    signal, background = spectrum.yields_above(cut.unsqueeze(-1) + torch.logit(u) / slope)
    return signal.mean(-1), background.mean(-1)
