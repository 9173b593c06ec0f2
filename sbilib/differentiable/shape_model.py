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
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sbilib.differentiable.shape_fit import Array, even_part, fit_arrays
from sbilib.differentiable.variances import binned_information
from sbilib.errors import DataError

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
    value: Tensor = _ShapeQ.apply(tuple(tested), tuple(true), signal, background, up, down)  # type: ignore[no-untyped-call]
    return value


class _ShapeQ(torch.autograd.Function):
    """The statistic with the gradient that its closed form has.

    The fitted parameter sits at a minimum or at a bound, so it adds nothing to the gradient.  All of it is
    one pass over tiny arrays, in NumPy for the same reason as the fit.
    """

    @staticmethod
    def forward(ctx: Any, tested: tuple[float, ...], true: tuple[float, ...], *templates: Tensor) -> Tensor:
        arrays = [each.detach().cpu().numpy() for each in templates]
        value, slopes = _q_and_slopes(tested, true, *arrays)
        ctx.slopes, ctx.shapes = slopes, [each.shape for each in templates]
        return torch.as_tensor(value, device=templates[0].device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        weight = above.detach().cpu().numpy()[..., None]
        gradients = ((weight * slope).sum(0) for slope in ctx.slopes)
        found = (
            torch.as_tensor(gradient, device=above.device).sum_to_size(shape)
            for gradient, shape in zip(gradients, ctx.shapes, strict=True)
        )
        return (None, None, *found)


def _q_and_slopes(
    tested: Sequence[float], true: Sequence[float], signal: Array, background: Array, up: Array, down: Array
) -> tuple[Array, tuple[Array, ...]]:
    """Statistic ``(n, *batch)`` and its derivative by each template, ``(n, *batch, n_bins)``."""
    size = max(each.ndim for each in (signal, background, up, down))
    under_test, origin = (np.reshape(each, (-1, *(1,) * size)) for each in (tested, true))
    data = origin * signal + background
    measured = np.concatenate((data, np.zeros((*data.shape[:-1], 1))), axis=-1)
    held = fit_arrays(measured, signal, background, up, down, under_test[..., 0])[..., None]
    even = even_part(held)[0]
    rate = under_test * signal + background + held * (0.5 * (up - down))
    rate = rate + even * (0.5 * (up + down) - background)
    # Without events a bin adds its rate alone; the ratio there is never looked at.
    ratio = np.where(data > 0, rate / np.where(data > 0, data, 1.0), 1.0)
    logarithm = np.log(ratio)
    q = 2.0 * (rate - data - data * logarithm).sum(-1) + np.square(held[..., 0])
    by_rate = np.where(data > 0, 2.0 - 2.0 / ratio, 2.0)
    by_data = np.where(data > 0, -2.0 * logarithm, -2.0)
    # At q = 0, the least it can be, all derivatives are zero but for rounding.
    slopes = (
        by_rate * under_test + by_data * origin,
        by_rate * (1.0 - even) + by_data,
        by_rate * 0.5 * (even + held),
        by_rate * 0.5 * (even - held),
    )
    return np.maximum(q, 0.0), slopes


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
