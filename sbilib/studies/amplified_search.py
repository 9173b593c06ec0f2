r"""A search for a signal over a background that a generative model has learned.

The expected events of a bin at luminosity :math:`L` are

.. math:: \nu_i = \mu\, S\, s_i + \frac{B}{\varepsilon_\mathrm{ref}}\, t_i\, \gamma_i\, \delta_i
          + \sum_k \alpha_k\, \frac{B}{\varepsilon_\mathrm{ref}}\, m_{ki},

with :math:`B` selected background events in the reference simulation, :math:`S = 0.05\, B`, the templates
:math:`s` (of sum one) and :math:`t` (parts of all generated events), a relative uncertainty :math:`\beta` of
each bin (:math:`\gamma`, shapesys), the statistical uncertainty of the generated sample (:math:`\delta`,
staterror), and modes :math:`m_k` of the error of the model itself (histosys,
:mod:`sbilib.studies.model_error`).  The data are Asimov data of the reference simulation.

Published (Gavranovič and Kerševan, source 004, section 5) is the model without modes.  Its only trace of the
generative model is then :math:`\delta`, which shrinks as :math:`1 / \sqrt{N_\mathrm{gen}}`, so that a gain
is built in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sbilib.errors import DataError, ParameterError, check_range
from sbilib.histfactory import (
    Channel,
    HistoSys,
    Model,
    NormFactor,
    ParameterSettings,
    Sample,
    ShapeSys,
    StatError,
    fit,
    poi_uncertainty,
)
from sbilib.studies.amplified_templates import BinnedSample, check_filled
from sbilib.studies.model_error import ShapeModes

__all__ = ["SearchSettings", "SearchTemplates", "asimov_counts", "fit_strengths", "search_templates"]

CHANNEL = "search"
_Array = NDArray[np.float64]


@dataclass(frozen=True)
class SearchSettings:
    """What the search assumes.

    Args:
        selected_per_fb: selected background events for each inverse femtobarn; 1000 makes 10 to 1000 /fb the
            published range of 10^4 to 10^6 events.
        signal_over_background: selected signal at strength one over selected background.
        strength_bounds: of the signal strength in fits.
        keep_efficiency: take the efficiency of the selection from the background sample, as published, so
            that its error is part of the template; if not, only its shape is taken.

    Raises:
        ParameterError: if a number is out of range.

    Example:
        >>> SearchSettings().background([10.0, 1000.0]).tolist()
        [10000.0, 1000000.0]
    """

    selected_per_fb: float = 1000.0
    signal_over_background: float = 0.05
    strength_bounds: tuple[float, float] = (0.0, 10.0)
    keep_efficiency: bool = True

    def __post_init__(self) -> None:
        check_range("selected_per_fb", self.selected_per_fb, low=0.0, include_low=False)
        check_range("signal_over_background", self.signal_over_background, low=0.0, include_low=False)
        low, high = self.strength_bounds
        if not low < high:
            raise ParameterError(f"strength_bounds must increase, got ({low}, {high}); swap them")

    def background(self, luminosities: ArrayLike) -> _Array:
        """Selected background events at luminosities in /fb.

        Raises:
            ParameterError: if a luminosity is not positive.
        """
        values = np.asarray(luminosities, dtype=np.float64)
        if not (np.isfinite(values) & (values > 0)).all():
            raise ParameterError(f"luminosities must be positive, got {values.tolist()}; pass /fb")
        result: _Array = self.selected_per_fb * values
        return result


class SearchTemplates(NamedTuple):
    """Expected events of every batch member and luminosity, float64; see :func:`search_templates`."""

    signal: Tensor
    """At strength one, ``(n_luminosities, n_bins)``."""
    reference: Tensor
    """Background of the reference simulation, ``(n_luminosities, n_bins)``."""
    background: Tensor
    """Of the sample under test, ``(*batch, n_luminosities, n_bins)``."""
    statistical: Tensor
    """Its standard deviation by the number of events, ``(*batch, n_luminosities, n_bins)``."""
    modes: tuple[Tensor, ...]
    """Shifts of the background by one standard deviation each, ``(*batch, n_luminosities, n_bins)``."""
    strength_bounds: tuple[float, float]
    """Of the signal strength in fits."""

    def model(self, beta: float | Tensor = 0.10) -> Model:
        """The binned likelihood, with batch dimensions ``(*batch, n_luminosities)``.

        Args:
            beta: relative uncertainty of each bin of the background; zero for none.  A tensor of shape
                ``(n_beta, 1, ..., 1)`` that broadcasts with the templates adds a dimension.

        Raises:
            ParameterError: if it is negative, or zero and positive values are mixed.
        """
        width = torch.as_tensor(beta, dtype=torch.float64)
        if bool((width < 0).any()) or (bool((width == 0).any()) and bool((width > 0).any())):
            raise ParameterError(f"beta must be zero or positive throughout, got {beta}; split the calls")
        modifiers: list[ShapeSys | StatError | HistoSys] = [StatError("statistics", self.statistical)]
        if bool((width > 0).all()):
            modifiers.append(ShapeSys("beta", width * self.background))
        modifiers += [
            HistoSys(f"mode_{k}", self.background - shift, self.background + shift)
            for k, shift in enumerate(self.modes)
        ]
        samples = [
            Sample("background", self.background, modifiers),
            Sample("signal", self.signal, [NormFactor("mu")]),
        ]
        bounds = ParameterSettings("mu", bounds=[self.strength_bounds])
        return Model([Channel(CHANNEL, samples)], settings=[bounds])

    def data(self, model: Model, *, strength: float = 1.0) -> Tensor:
        """Asimov data of the reference simulation with signal, with the auxiliary data of a model."""
        return asimov_counts(self.reference + strength * self.signal, model)


def asimov_counts(main: Tensor, model: Model) -> Tensor:
    """Append the auxiliary data of a model to counts ``(*batch, n_bins)``, broadcasting batch dimensions."""
    auxiliary = model.auxiliary_data
    batch = np.broadcast_shapes(main.shape[:-1], auxiliary.shape[:-1])
    return torch.cat([main.expand(*batch, -1), auxiliary.expand(*batch, -1)], dim=-1)


def search_templates(
    background: BinnedSample,
    reference: BinnedSample,
    signal: BinnedSample,
    luminosities: Sequence[float],
    settings: SearchSettings | None = None,
    *,
    modes: ShapeModes | None = None,
) -> SearchTemplates:
    """Scale histograms to the expected events of a search.

    Args:
        background: the sample under test, generated or simulated; batch dimensions are kept.
        reference: simulated background that makes the data; its efficiency fixes the scale.
        signal: simulated signal.
        luminosities: in /fb, ``(n_luminosities,)``.
        settings: of the search.
        modes: error of the generative model, in parts of all events as ``background.fractions``; what the
            modes leave out is added to the statistical uncertainty in quadrature.

    Raises:
        DataError: if the binnings differ, a bin of a background is empty, or no signal is left.

    Example:
        >>> from sbilib.studies.amplified_templates import Binning, bin_events
        >>> binning = Binning("score", (0.5, 0.75, 1.0))
        >>> background = bin_events([0.1, 0.6, 0.6, 0.7, 0.9], binning)
        >>> signal = bin_events([0.6, 0.9, 0.9, 0.9], binning)
        >>> search_templates(background, background, signal, [10.0]).background.tolist()
        [[7500.0, 2500.0]]
    """
    settings = settings or SearchSettings()
    _check_samples(background, reference, signal)
    expected = settings.background(luminosities)[:, None]
    shape = signal.fractions / signal.efficiency
    scale = expected / _efficiency(background, reference, settings)
    error = background.errors if modes is None else np.hypot(background.errors, modes.residual)
    shifts = () if modes is None else tuple(np.moveaxis(modes.shifts, -2, 0))

    def scaled(values: _Array) -> Tensor:
        return torch.from_numpy(scale * values[..., None, :])

    return SearchTemplates(
        torch.from_numpy(settings.signal_over_background * expected * shape),
        torch.from_numpy(expected * reference.fractions / reference.efficiency),
        scaled(background.fractions),
        scaled(error),
        tuple(map(scaled, shifts)),
        settings.strength_bounds,
    )


def _efficiency(background: BinnedSample, reference: BinnedSample, settings: SearchSettings) -> _Array:
    """Efficiency by which templates are scaled, broadcasting with (*batch, n_luminosities, n_bins)."""
    chosen = reference.efficiency if settings.keep_efficiency else background.efficiency
    return np.asarray(chosen)[..., None, None]


def _check_samples(background: BinnedSample, reference: BinnedSample, signal: BinnedSample) -> None:
    if not background.binning == reference.binning == signal.binning:
        raise DataError(
            "background, reference and signal must share one binning, got "
            f"{background.binning}, {reference.binning} and {signal.binning}; bin them alike"
        )
    if reference.totals.ndim or signal.totals.ndim:
        raise DataError("reference and signal must be single histograms, got a batch; pass one of them")
    if not signal.efficiency > 0:
        raise DataError(
            f"{signal.name}: no signal is left after the selection; lower the cut, or check that the score "
            "is high for signal"
        )
    check_filled(reference)
    check_filled(background)


def fit_strengths(
    templates: SearchTemplates,
    luminosities: Sequence[float],
    *,
    beta: float = 0.10,
    strength: float = 1.0,
) -> pd.DataFrame:
    """Fitted signal strength and its uncertainty against luminosity (source 004, Fig. 3).

    Args:
        templates: of :func:`search_templates`, of any batch shape.
        luminosities: that they were made for, in /fb.
        beta: relative uncertainty of each bin of the background.
        strength: in the Asimov data.

    Returns:
        A row for each member of the batch (columns ``member``, its place in the flattened batch, and
        ``luminosity``) with ``strength``, ``error`` (square root of the inverse information), ``pull`` =
        (fitted - true) / error, and ``converged``.

    Example:
        >>> from sbilib.studies.amplified_templates import Binning, bin_events
        >>> binning = Binning("score", (0.5, 0.75, 1.0))
        >>> background = bin_events([0.1, 0.6, 0.6, 0.7, 0.9], binning)
        >>> signal = bin_events([0.6, 0.9, 0.9, 0.9], binning)
        >>> templates = search_templates(background, background, signal, [10.0, 100.0])
        >>> fit_strengths(templates, [10.0, 100.0]).strength.round(6).tolist()
        [1.0, 1.0]
    """
    model = templates.model(beta)
    data = templates.data(model, strength=strength)
    found = fit(data, model)
    error = poi_uncertainty(found.parameters, model, data=data)
    shape = found.poi.shape
    members = np.arange(int(np.prod(shape[:-1]))).repeat(shape[-1])
    return pd.DataFrame(
        {
            "member": members,
            "luminosity": np.tile(np.asarray(luminosities, dtype=np.float64), int(np.prod(shape[:-1]))),
            "strength": found.poi.ravel().numpy(),
            "error": error.ravel().numpy(),
            "pull": ((found.poi - strength) / error).ravel().numpy(),
            "converged": found.converged.ravel().numpy(),
        }
    )
