r"""From counts to a HistFactory model: signal, background, and the background varied up and down.

The model of a summary statistic has one channel,

.. math:: \lambda_i(\mu, \alpha) = \mu\, s_i + b_i(\alpha), \qquad
          b_i(0) = b_i,\; b_i(+1) = b_i^{\mathrm{up}},\; b_i(-1) = b_i^{\mathrm{down}},

with a unit normal constraint on :math:`\alpha` (Simpson 2023, eq. 7.2 and section 7.4.1).

**Empty bins.**  A bin in which no simulated background event fell would forbid background altogether, and one
observed event there would be an infinitely significant discovery.  The settings therefore add a small
constant to the background in every bin, nominal and varied alike.  An additive constant keeps the gradient
that a lower bound on the counts would cut off, and leaves the difference between the variations as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sbilib.differentiable.inference import ConditionalFit
from sbilib.differentiable.shape_fit import fit_shape
from sbilib.errors import DataError, check_choice, check_count, check_range
from sbilib.histfactory import Channel, HistoSys, Model, NormFactor, Sample, StatError
from sbilib.histfactory.interpolation import ADDITIVE_CODES

__all__ = ["AnalysisSettings", "ExpectedYields", "Templates"]


@dataclass(frozen=True)
class ExpectedYields:
    """How many events are expected in all, which scales the counts of a batch.

    Args:
        signal: expected signal events at signal strength one, positive.
        background: expected background events, positive.

    Raises:
        ParameterError: if a yield is not positive.

    Example:
        >>> ExpectedYields.neos().background
        100.0
    """

    signal: float
    background: float

    def __post_init__(self) -> None:
        check_range("signal", self.signal, low=0.0, include_low=False)
        check_range("background", self.background, low=0.0, include_low=False)

    @classmethod
    def neos(cls) -> ExpectedYields:
        """Scales 2 and 10 of signal and background, times 10 (Simpson 2023, section 7.4.1)."""
        return cls(signal=20.0, background=100.0)


@dataclass(frozen=True)
class AnalysisSettings:
    """How a model is built from templates.

    Args:
        floor: events added to the background in every bin, not negative; see the module's text.
        interpolation: histosys code, ``"0"``, ``"2"`` or ``"4p"``.
        statistical: whether the finite number of simulated background events adds a staterror; the
            templates must then have their uncertainty.

    Raises:
        ParameterError: if the floor is negative or the code unknown.

    Example:
        >>> AnalysisSettings().interpolation
        '4p'
    """

    floor: float = 1e-3
    interpolation: str = "4p"
    statistical: bool = False

    def __post_init__(self) -> None:
        check_range("floor", self.floor, low=0.0)
        check_choice("interpolation", self.interpolation, ADDITIVE_CODES)


@dataclass(frozen=True, eq=False)
class Templates:
    """Expected events in the bins of one summary statistic.

    Args:
        signal: at signal strength one, ``(*batch, n_bins)``.
        background: nominal, ``(*batch, n_bins)``.
        up: background at alpha = +1.
        down: background at alpha = -1.
        uncertainty: of the nominal background from the number of simulated events, or None.

    Example:
        >>> import torch
        >>> s, b = torch.tensor([5.0, 11.0]), torch.tensor([50.0, 50.0])
        >>> Templates(s, b, b + 2, b - 2).model().parameter_names
        ('shape', 'mu')
    """

    signal: Tensor
    background: Tensor
    up: Tensor
    down: Tensor
    uncertainty: Tensor | None = None

    @classmethod
    def from_counts(
        cls,
        signal: Tensor,
        background: Tensor,
        up: Tensor,
        down: Tensor,
        *,
        n_events: int,
        yields: ExpectedYields,
        uncertainty: Tensor | None = None,
    ) -> Self:
        """Scale counts of four samples of ``n_events`` events each to expected yields.

        Args:
            signal, background, up, down: counts, ``(*batch, n_bins)``.
            n_events: events of each sample, also those outside of all bins.
            yields: expected events in all.
            uncertainty: of the background counts, in counts.

        Raises:
            ParameterError: if ``n_events`` is not positive.
        """
        check_count("n_events", n_events, low=1)
        scale = yields.background / n_events
        return cls(
            signal * (yields.signal / n_events),
            background * scale,
            up * scale,
            down * scale,
            None if uncertainty is None else uncertainty * scale,
        )

    def detach(self) -> Templates:
        """The same templates without their history of gradients."""
        uncertainty = None if self.uncertainty is None else self.uncertainty.detach()
        return Templates(
            self.signal.detach(), self.background.detach(), self.up.detach(), self.down.detach(), uncertainty
        )

    def has_shape_only(self, settings: AnalysisSettings) -> bool:
        """Whether the model of these settings is the one that closed forms exist for.

        Args:
            settings: those of the model.
        """
        return not settings.statistical and settings.interpolation == "4p"

    def floored(self, settings: AnalysisSettings) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Signal, background, up and down in float64, with the floor of the settings in every bin.

        Args:
            settings: those of the model.
        """
        background, up, down = (e.double() + settings.floor for e in (self.background, self.up, self.down))
        return self.signal.double(), background, up, down

    def conditional_fit(self, settings: AnalysisSettings) -> ConditionalFit | None:
        """A fast fit of ``shape`` with ``mu`` held, or None where the general one is needed.

        Args:
            settings: those of the model.
        """
        if not self.has_shape_only(settings):
            return None
        signal, background, up, down = self.detach().floored(settings)

        def fit(value: Tensor, data: Tensor) -> Tensor:
            alpha = fit_shape(data, signal, background, up, down, value)
            return torch.stack([alpha, value.expand(alpha.shape)], dim=-1)

        return fit

    def model(self, settings: AnalysisSettings | None = None) -> Model:
        """The HistFactory model with signal strength ``mu`` and background parameter ``shape``.

        Args:
            settings: how to build it; the defaults if None.

        Raises:
            DataError: if yields are negative or not finite, or a staterror is asked for without uncertainty.
        """
        settings = AnalysisSettings() if settings is None else settings
        floor = settings.floor
        modifiers: list[HistoSys | StatError] = [HistoSys("shape", self.down + floor, self.up + floor)]
        if settings.statistical:
            if self.uncertainty is None:
                raise DataError(
                    "statistical=True needs the uncertainty of the background template, got None; pass "
                    "uncertainty, for instance the square root of hard_histogram(..., weights=weights**2)"
                )
            modifiers.append(StatError("statistics", self.uncertainty))
        samples = [
            Sample("signal", self.signal, [NormFactor("mu")]),
            Sample("background", self.background + floor, modifiers),
        ]
        return Model([Channel("summary", samples)], poi="mu", histosys_code=settings.interpolation)
