r"""Shifts of the fitted signal strength to first order, bin by bin.

Data that differ from the expectation by :math:`r_i - t_i` pull the strength by

.. math:: \Delta\mu = \sum_i w_i\, (r_i - t_i), \qquad
          w_i = \frac{s_i / V_i}{\sum_j s_j^2 / V_j}, \qquad
          V_i = r_i + s_i + (\beta\, t_i)^2 + \sigma_i^2 ,

where the uncorrelated uncertainties of the bins have been profiled.
"""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sbilib.errors import ParameterError
from sbilib.studies.amplified_search import SearchTemplates

__all__ = ["expected_bias", "expected_noise"]


def expected_bias(templates: SearchTemplates, beta: float) -> Tensor:
    """Shift of the fitted signal strength by each bin, to first order.

    Args:
        templates: without modes, of any batch shape.
        beta: relative uncertainty of each bin of the background.

    Returns:
        Terms of the sum, ``(*batch, n_luminosities, n_bins)``.

    Raises:
        ParameterError: if there are modes.
    """
    return _pulls(templates, beta) * (templates.reference - templates.background)


def expected_noise(templates: SearchTemplates, beta: float, errors: ArrayLike) -> Tensor:
    r"""Standard deviation of the fitted strength by independent errors of the bins, to first order.

    .. math:: \sigma_\mu^2 = \sum_i w_i^2 e_i^2

    Args:
        templates: without modes, of any batch shape.
        beta: relative uncertainty of each bin of the background.
        errors: standard deviations in expected events, ``(*batch, n_luminosities, n_bins)`` or fewer axes.

    Returns:
        Of shape ``(*batch, n_luminosities)``.

    Raises:
        ParameterError: if there are modes.
    """
    squares = (_pulls(templates, beta) * torch.as_tensor(errors)).square()
    return squares.sum(-1).sqrt()


def _pulls(templates: SearchTemplates, beta: float) -> Tensor:
    """The weights w of :func:`expected_bias`."""
    if templates.modes:
        raise ParameterError("first-order shifts are for templates without modes; leave them out")
    signal, background = templates.signal, templates.background
    variance = templates.reference + signal + (beta * background).square() + templates.statistical.square()
    weight = signal / variance
    return weight / (weight * signal).sum(-1, keepdim=True)
