"""Two one-channel models with one signal and one background, the smallest useful ones (as in pyhf)."""

from __future__ import annotations

from sbilib.histfactory.model import Model
from sbilib.histfactory.specification import Channel, HistoSys, NormFactor, Sample, ShapeSys, Values

__all__ = ["correlated_background", "uncorrelated_background"]


def uncorrelated_background(signal: Values, background: Values, uncertainty: Values) -> Model:
    """A signal of strength ``mu`` over a background with an independent uncertainty in each bin.

    Args:
        signal: expected signal events, ``(*batch, bins)``.
        background: expected background events, likewise.
        uncertainty: absolute uncertainty of the background (a shapesys ``uncorr_bkguncrt``), likewise.

    Raises:
        DataError: for templates that are NaN, negative, or of unequal length.

    >>> uncorrelated_background([12.0, 11.0], [50.0, 52.0], [3.0, 7.0]).parameter_names
    ('mu', 'uncorr_bkguncrt[0]', 'uncorr_bkguncrt[1]')
    """
    return Model(
        [
            Channel(
                "singlechannel",
                [
                    Sample("signal", signal, [NormFactor("mu")]),
                    Sample("background", background, [ShapeSys("uncorr_bkguncrt", uncertainty)]),
                ],
            )
        ]
    )


def correlated_background(signal: Values, background: Values, up: Values, down: Values) -> Model:
    """A signal of strength ``mu`` over a background that moves in all bins together.

    Args:
        signal: expected signal events, ``(*batch, bins)``.
        background: expected background events, likewise.
        up: background at alpha = +1 (a histosys ``correlated_bkg_uncertainty``), likewise.
        down: background at alpha = -1, likewise.

    Raises:
        DataError: for templates that are NaN, negative, or of unequal length.

    >>> correlated_background([12.0], [50.0], [45.0], [55.0]).parameter_names
    ('correlated_bkg_uncertainty', 'mu')
    """
    modifier = HistoSys("correlated_bkg_uncertainty", down, up)
    samples = [Sample("signal", signal, [NormFactor("mu")]), Sample("background", background, [modifier])]
    return Model([Channel("single_channel", samples)])
