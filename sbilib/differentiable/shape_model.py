r"""Statistic and information of a model with one background parameter, in closed form on Asimov data.

With held :math:`\hat{\hat\alpha}` from :func:`~sbilib.differentiable.shape_fit.fit_shape`, rates
:math:`\lambda_i` at the tested signal strength and data :math:`n_i` expected for the true one,

.. math:: q &= 2 \sum_i \left[\lambda_i - n_i - n_i \ln\frac{\lambda_i}{n_i}\right] + \hat{\hat\alpha}^2, \\
          I &= \sum_i \frac{1}{n_i} \begin{pmatrix} S_i^2 & S_i s_i \\ S_i s_i & s_i^2 \end{pmatrix}
               + \begin{pmatrix} 1 & 0 \\ 0 & 0 \end{pmatrix},

where :math:`S_i` is half the difference of the varied backgrounds.  They are what
:func:`~sbilib.differentiable.asimov_q` and :func:`~sbilib.differentiable.asimov_information` give, at half
the cost for a few bins: in a training loop the calls that build a general model and walk through its
modifiers are most of the time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sbilib.differentiable.shape_fit import fit_shape
from sbilib.differentiable.variances import binned_information
from sbilib.errors import DataError
from sbilib.histfactory.interpolation import additive_basis, additive_coefficients

__all__ = ["shape_information", "shape_q"]


def shape_q(
    signal: Tensor,
    background: Tensor,
    up: Tensor,
    down: Tensor,
    *,
    tested: Sequence[float],
    true: Sequence[float],
) -> Tensor:
    r"""Statistic :math:`q` of several hypotheses, each on the data expected for its own true signal strength.

    Args:
        signal, background, up, down: expected events, ``(*batch, n_bins)``, float64; the last two at
            alpha = +1 and -1, histosys code 4p.
        tested: n signal strengths under test.
        true: n signal strengths that the data are expected for.

    Returns:
        ``(n, *batch)``, at least zero, differentiable in the templates.

    Raises:
        DataError: if templates are negative or not finite.

    Source:
        Cowan et al. 2011, arXiv:1007.1727, eq. 7 and section 3.2.

    Example:
        >>> s, b = torch.tensor([5.0, 11.0]).double(), torch.tensor([50.0, 50.0]).double()
        >>> round(shape_q(s, b, b + 2, b - 2, tested=[1.0], true=[0.0]).item(), 4)
        2.3214
    """
    _check(signal, background, up, down)
    size = max(each.dim() for each in (signal, background, up, down)) - 1
    under_test, origin = (signal.new_tensor(each).view(-1, *(1,) * size) for each in (tested, true))
    data = origin.unsqueeze(-1) * signal + background
    measured = torch.nn.functional.pad(data.detach(), (0, 1))
    held = fit_shape(measured, signal, background, up, down, under_test)
    slope, bend = additive_coefficients(down, background, up)
    odd, even, _, _ = additive_basis("4p", held.unsqueeze(-1))
    rate = under_test.unsqueeze(-1) * signal + background + slope * odd + bend * even
    seen = data > 0
    # Without events a bin adds its rate alone; the ratio there is never looked at.
    ratio = torch.where(seen, rate / torch.where(seen, data, 1.0), 1.0)
    terms = rate - data - data * ratio.log()
    return (2.0 * terms.sum(-1) + held.square()).clamp_min(0.0)


def shape_information(
    signal: Tensor, background: Tensor, up: Tensor, down: Tensor, *, poi_value: float = 1.0
) -> Tensor:
    """Expected Fisher information of the background parameter and the signal strength, in this order.

    Args:
        signal, background, up, down: as for :func:`shape_q`.
        poi_value: true signal strength.

    Returns:
        ``(*batch, 2, 2)``, the constraint included, differentiable in the templates.

    Raises:
        DataError: if templates are negative or not finite, or a bin expects no events.

    Source:
        Cowan et al. 2011, arXiv:1007.1727, section 3.1.

    Example:
        >>> s, b = torch.tensor([10.0]).double(), torch.tensor([90.0]).double()
        >>> shape_information(s, b, b + 5, b - 5).tolist()
        [[1.25, 0.5], [0.5, 1.0]]
    """
    _check(signal, background, up, down)
    slopes = torch.stack(torch.broadcast_tensors(0.5 * (up - down), signal), dim=-2)  # type: ignore[no-untyped-call]
    information = binned_information(poi_value * signal + background, slopes)
    return information + information.new_tensor([[1.0, 0.0], [0.0, 0.0]])


@torch.no_grad()
def _check(*templates: Tensor) -> None:
    for name, values in zip(("signal", "background", "up", "down"), templates, strict=True):
        # NaN fails the first comparison, infinity the second.
        if not bool((values.min() >= 0) & (values.max() < torch.inf)):
            raise DataError(
                f"the {name} template has entries that are negative or not finite; check weights and "
                "bandwidth of the histogram that filled it"
            )
