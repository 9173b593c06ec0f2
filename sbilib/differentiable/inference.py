r"""Expected p-values as losses: CLs of an exclusion and p0 of a discovery.

Both are medians in the asymptotic limit, from Asimov data that a model of the analysis itself predicts
(Cowan et al. 2011, arXiv:1007.1727):

.. math::

    \mathrm{CL}_s &= \frac{1 - \Phi(\sqrt{q_\mu})}{1/2}, \quad q_\mu \text{ on data expected for } \mu = 0, \\
    p_0 &= 1 - \Phi(\sqrt{q_0}), \quad q_0 \text{ on data expected for } \mu = 1 .

The denominator is :math:`\mathrm{CL}_b`, which equals one half on exactly these data and on no others; for
observed data use :func:`sbilib.histfactory.hypotest`.

**One fit, and no gradient through it.**  On Asimov data the global best fit is where the data came from, so
only the fit with fixed :math:`\mu` is done.  At its optimum the derivative of the likelihood with respect to
the nuisance parameters vanishes (or they sit at a bound and do not move), so the gradient of :math:`q` is
that of the likelihood with the optimum held constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sbilib.errors import ParameterError, check_range
from sbilib.histfactory import Model, fixed_poi_fit
from sbilib.histfactory.asymptotics import root

__all__ = ["ConditionalFit", "asimov_q", "expected_cls", "expected_p0"]

ConditionalFit = Callable[[Tensor, Tensor], Tensor]
"""A fit: held values ``(*batch,)`` of the parameter of interest and data ``(*batch, N)`` to parameters."""


def poi_index(model: Model) -> int:
    """Place of the parameter of interest.

    Raises:
        ParameterError: if the model has none.
    """
    if model.poi_index is None:
        raise ParameterError("the model has no parameter of interest; build it with poi='mu'")
    return model.poi_index


def nominal(model: Model, poi_value: float | Sequence[float]) -> Tensor:
    """The initial parameters with the given value or values of the parameter of interest.

    Returns:
        ``(P,)``, or ``(n, 1, ..., 1, P)`` for n values, with one 1 for each batch dimension of the model.

    Raises:
        ParameterError: if the model has no parameter of interest or a value is not finite.
    """
    start = model.initial.detach()
    here = torch.arange(len(start), device=start.device) == poi_index(model)
    if not isinstance(poi_value, Sequence):
        return torch.where(here, check_range("poi_value", poi_value), start)
    values = start.new_tensor([check_range("poi_value", value) for value in poi_value])
    return torch.where(here, values.view(-1, *(1,) * (len(model.batch_shape) + 1)), start)


def asimov_q(
    model: Model,
    *,
    tested: float | Sequence[float],
    true: float | Sequence[float],
    conditional_fit: ConditionalFit | None = None,
) -> Tensor:
    r"""Statistic :math:`q = -2\ln L(\mu, \hat{\hat\theta})/L(\hat\mu, \hat\theta)` on Asimov data.

    Args:
        model: with a parameter of interest.
        tested: its value under test, or several.
        true: its value that the data are expected for, or as many; several tests cost hardly more than one.
        conditional_fit: finds the best parameters for tested values ``(*batch,)`` and data;
            :func:`sbilib.histfactory.fixed_poi_fit` if None.

    Returns:
        ``(*batch,)``, or ``(n, *batch)`` for n tests, at least zero, differentiable in the templates.

    Raises:
        ParameterError: if the model has no parameter of interest, or a value is not finite.

    Source:
        Cowan et al. 2011, eq. 7 and section 3.2.
    """
    origin, under_test = nominal(model, true), nominal(model, tested)
    data = model.expected_data(origin)
    held = held_parameters(model, under_test[..., poi_index(model)], data, conditional_fit)
    best, other = model.logpdf(torch.stack([origin.expand(held.shape), held]), data).unbind()
    return 2.0 * (best - other).clamp_min(0.0)


@torch.no_grad()
def held_parameters(model: Model, value: Tensor, data: Tensor, fit: ConditionalFit | None) -> Tensor:
    """Parameters ``(*batch, P)`` of the best fit with the parameter of interest held, without gradient."""
    if fit is not None:
        return fit(value, data.detach())
    return fixed_poi_fit(value, data.detach(), model.detached()).parameters


def cls_of(q: Tensor, *, log: bool) -> Tensor:
    """Median CLs without signal, or its logarithm, from the statistic on Asimov data."""
    tail = _tail(root(q), log)
    return tail + math.log(2.0) if log else 2.0 * tail


def p0_of(q: Tensor, *, log: bool) -> Tensor:
    """Median discovery p-value with signal, or its logarithm, from the statistic on Asimov data."""
    return _tail(root(q), log)


def expected_cls(model: Model, *, poi_value: float = 1.0, log: bool = False) -> Tensor:
    r"""Median CLs for a signal strength if there is no signal, :math:`2\,[1 - \Phi(\sqrt{q_\mu})]`.

    Args:
        model: with a parameter of interest.
        poi_value: signal strength to exclude, positive.
        log: return the natural logarithm, whose gradient stays large where CLs is tiny.

    Returns:
        ``(*batch,)``.

    Raises:
        ParameterError: if the model has no parameter of interest or the value is not positive.

    Source:
        Cowan et al. 2011, section 4; A. L. Read, J. Phys. G 28, 2693 (2002).

    Example:
        >>> from sbilib.differentiable import Templates
        >>> s, b = torch.tensor([5.0, 11.0]), torch.tensor([50.0, 50.0])
        >>> round(expected_cls(Templates(s, b, b + 2, b - 2).model()).item(), 4)
        0.1276
    """
    check_range("poi_value", poi_value, low=0.0, include_low=False)
    return cls_of(asimov_q(model, tested=poi_value, true=0.0), log=log)


def expected_p0(model: Model, *, poi_value: float = 1.0, log: bool = False) -> Tensor:
    r"""Median discovery p-value if the signal is there, :math:`1 - \Phi(\sqrt{q_0})`.

    Args:
        model: with a parameter of interest.
        poi_value: signal strength that is there, positive.
        log: return the natural logarithm, whose gradient stays large where the p-value is tiny.

    Returns:
        ``(*batch,)``.

    Raises:
        ParameterError: if the model has no parameter of interest or the value is not positive.

    Source:
        Cowan et al. 2011, eq. 53.

    Example:
        >>> from sbilib.differentiable import Templates
        >>> s, b = torch.tensor([5.0, 11.0]), torch.tensor([50.0, 50.0])
        >>> round(expected_p0(Templates(s, b, b + 2, b - 2).model()).item(), 4)
        0.0608
    """
    check_range("poi_value", poi_value, low=0.0, include_low=False)
    return p0_of(asimov_q(model, tested=0.0, true=poi_value), log=log)


def _tail(distance: Tensor, log: bool) -> Tensor:
    if log:
        logarithm: Tensor = torch.special.log_ndtr(-distance)
        return logarithm
    # torch.special.ndtr rounds the tail to steps of 1e-16 and to zero beyond 8.3 standard deviations.
    return 0.5 * torch.erfc(distance * math.sqrt(0.5))
