r"""Test statistics of the profile likelihood ratio.

.. math:: t_\mu = -2 \ln \frac{L(\mu, \hat{\hat\theta}(\mu))}{L(\hat\mu, \hat\theta)}

and its one-sided forms: :math:`q_\mu = t_\mu` if :math:`\hat\mu \le \mu`, else 0 (upper limits);
:math:`q_0 = t_0` if :math:`\hat\mu \ge 0`, else 0 (discovery).  With a tilde the best fit is confined to
:math:`\hat\mu \ge 0`.

Source: G. Cowan, K. Cranmer, E. Gross and O. Vitells, Eur. Phys. J. C 71, 1554 (2011), arXiv:1007.1727,
equations 8, 11, 12, 14 and 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.errors import ParameterError, check_choice
from sbilib.histfactory.fits import Solution, check_data, poi_of, solve, value_tensor
from sbilib.histfactory.implicit import attached_minimum, broadcast_batch, needs_gradient
from sbilib.histfactory.model import Model
from sbilib.histfactory.solver import SolverSettings

__all__ = [
    "TEST_STATISTICS",
    "StatisticResult",
    "evaluate_statistic",
    "likelihood_ratio",
    "q0",
    "qmu",
    "qmu_tilde",
    "statistic_bounds",
    "tmu",
    "tmu_tilde",
]

TEST_STATISTICS = ("qtilde", "q", "q0", "ttilde", "t")
"""Names as in pyhf's ``hypotest``, and the two-sided forms."""

# Differences of likelihoods below this many rounding errors of theirs are zero.
_ROUNDING = 16 * torch.finfo(torch.float64).eps


class StatisticResult(NamedTuple):
    """A test statistic and the fits behind it; batch dimensions in front.

    Attributes:
        value: (*batch,) the statistic, differentiable.
        poi: (*batch,) best fit of the parameter of interest.
        parameters: (2, *batch, P) optima of the free fit and of the fit at the tested value, detached.
        converged: (*batch,) whether both fits converged.
    """

    value: Tensor
    poi: Tensor
    parameters: Tensor
    converged: Tensor


def statistic_bounds(model: Model, test_stat: str) -> Tensor:
    """Return the bounds of the fits of a statistic, ``(P, 2)``.

    Raises:
        ParameterError: if the statistic is unknown or needs negative values of the POI that its bounds
            forbid, or the POI is fixed.
    """
    check_choice("test_stat", test_stat, TEST_STATISTICS)
    index = poi_of(model)
    low = float(model.bounds[index, 0])
    if bool(model.fixed[..., index].any()):
        raise ParameterError(
            f"the parameter of interest {model.parameter_names[index]!r} is fixed, so no test; free it"
        )
    if test_stat in ("q", "t") and low >= 0:
        raise ParameterError(
            f"the statistic {test_stat!r} needs a POI that may be negative, but the bounds start at {low:g}; "
            f"use '{test_stat}tilde', or give the POI a negative lower bound"
        )
    if test_stat in ("qtilde", "ttilde") and low < 0:
        bounds = model.bounds.clone()
        bounds[index, 0] = 0.0
        return bounds
    return model.bounds


def likelihood_ratio(held: Tensor, free: Tensor, poi: Tensor, poi_value: Tensor, test_stat: str) -> Tensor:
    r"""Return the statistic from two minima.

    Args:
        held: ``(*batch,)`` smallest negative log-likelihood at the tested value.
        free: ``(*batch,)`` smallest of all.
        poi: ``(*batch,)`` best fit of the POI.
        poi_value: ``(*batch,)`` the tested value.
        test_stat: which of :data:`TEST_STATISTICS`.

    Returns:
        ``(*batch,)``, at least zero.

    >>> one = torch.ones(())
    >>> [float(likelihood_ratio(3 * one, one, 2 * one, one, name)) for name in ("qtilde", "ttilde")]
    [0.0, 4.0]
    """
    ratio = 2 * (held - free)
    positive = ratio.detach() > _ROUNDING * free.detach().abs()
    if test_stat == "q0":
        positive = positive & (poi.detach() > poi_value.detach())
    elif test_stat in ("q", "qtilde"):
        positive = positive & (poi.detach() < poi_value.detach())
    return torch.where(positive, ratio, 0.0)


def evaluate_statistic(
    test_stat: str,
    poi_value: float | Tensor,
    data: Tensor | Sequence[float],
    model: Model,
    *,
    start: Tensor | None = None,
    settings: SolverSettings | None = None,
) -> StatisticResult:
    r"""Evaluate a test statistic, with the fits behind it.

    Args:
        test_stat: ``"qtilde"``, ``"q"``, ``"q0"``, ``"ttilde"`` or ``"t"``.
        poi_value: ``(*batch,)`` tested values.
        data: ``(*batch, bins + auxiliary)``.
        model: with a parameter of interest.
        start: ``(2, *batch, P)`` starts of the free fit and of the fit at the tested value, by default
            ``model.initial``.
        settings: when fits stop.

    Returns:
        Value and fits, over the broadcast of all batch dimensions.

    Raises:
        ParameterError: if there is no POI, it is fixed, or its bounds do not suit the statistic.
        DataError: as :func:`~sbilib.histfactory.fits.fit`.
    """
    bounds = statistic_bounds(model, test_stat)
    value = value_tensor(poi_value, model)
    checked = check_data(data, model, poi_value=value)
    begin, held = two_starts(model, value, checked, start)
    solution = solve(model, checked, start=begin, held=held, bounds=bounds, settings=settings)
    return statistic_of(test_stat, value, checked, model, solution)


def two_starts(model: Model, poi_value: Tensor, data: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return starts (2, *batch, P) of a free fit and of one with the POI held, and what the fits hold."""
    index = poi_of(model)
    batch = broadcast_batch(model.batch_shape, data.shape[:-1], poi_value.shape)
    begin = (model.initial if start is None else start).detach()
    begin = begin.expand(2, *batch, begin.shape[-1]).clone()
    begin[1, ..., index] = poi_value.detach()
    held = torch.zeros_like(begin, dtype=torch.bool)
    held[1, ..., index] = True
    return begin, held


def statistic_of(
    test_stat: str, poi_value: Tensor, data: Tensor, model: Model, solution: Solution
) -> StatisticResult:
    """Turn fits of shape (2, *batch), free and held, into the statistic."""
    poi = solution.parameters[0, ..., poi_of(model)]
    nll = solution.nll
    if needs_gradient(model, data, poi_value):
        nll = attached_minimum(model, data, solution.parameters)
        if poi_value.requires_grad:
            slope = model.detached().nll_derivatives(solution.parameters[1], data.detach())[1]
            moved = slope[..., poi_of(model)] * (poi_value - poi_value.detach())
            nll = torch.stack([nll[0], nll[1] + moved])
    value = likelihood_ratio(nll[1], nll[0], poi, poi_value, test_stat)
    return StatisticResult(value, poi, solution.parameters, solution.converged.all(0))


_Data = Tensor | Sequence[float]


def q0(data: _Data, model: Model, *, settings: SolverSettings | None = None) -> Tensor:
    r"""Return the discovery statistic :math:`q_0` (arXiv:1007.1727, equation 12), ``(*batch,)``.

    Args:
        data: ``(*batch, bins + auxiliary)``.
        model: with a parameter of interest.
        settings: when fits stop.

    Raises:
        ParameterError, DataError: as :func:`evaluate_statistic`.

    >>> from sbilib.histfactory import uncorrelated_background
    >>> model = uncorrelated_background([12.0, 11.0], [50.0, 52.0], [3.0, 7.0])
    >>> round(float(q0(torch.cat([torch.tensor([60.0, 65.0]), model.auxiliary_data]), model)), 4)
    2.9834
    """
    return evaluate_statistic("q0", 0.0, data, model, settings=settings).value


def qmu(
    poi_value: float | Tensor, data: _Data, model: Model, *, settings: SolverSettings | None = None
) -> Tensor:
    r"""Return :math:`q_\mu` for upper limits, POI of any sign (arXiv:1007.1727, equation 14), ``(*batch,)``.

    Args:
        poi_value: ``(*batch,)`` tested values.
        data: ``(*batch, bins + auxiliary)``.
        model: with a parameter of interest whose lower bound is negative.
        settings: when fits stop.

    Raises:
        ParameterError, DataError: as :func:`evaluate_statistic`.
    """
    return evaluate_statistic("q", poi_value, data, model, settings=settings).value


def qmu_tilde(
    poi_value: float | Tensor, data: _Data, model: Model, *, settings: SolverSettings | None = None
) -> Tensor:
    r"""Return :math:`\tilde q_\mu` for upper limits, POI not negative, ``(*batch,)``.

    Args:
        poi_value: ``(*batch,)`` tested values.
        data: ``(*batch, bins + auxiliary)``.
        model: with a parameter of interest.
        settings: when fits stop.

    Raises:
        ParameterError, DataError: as :func:`evaluate_statistic`.

    >>> from sbilib.histfactory import uncorrelated_background
    >>> model = uncorrelated_background([12.0, 11.0], [50.0, 52.0], [3.0, 7.0])
    >>> round(float(qmu_tilde(1.0, torch.cat([torch.tensor([51.0, 48.0]), model.auxiliary_data]), model)), 4)
    3.9382
    """
    return evaluate_statistic("qtilde", poi_value, data, model, settings=settings).value


def tmu(
    poi_value: float | Tensor, data: _Data, model: Model, *, settings: SolverSettings | None = None
) -> Tensor:
    r"""Return the two-sided :math:`t_\mu`, POI of any sign (arXiv:1007.1727, equation 8), ``(*batch,)``.

    Args:
        poi_value: ``(*batch,)`` tested values.
        data: ``(*batch, bins + auxiliary)``.
        model: with a parameter of interest whose lower bound is negative.
        settings: when fits stop.

    Raises:
        ParameterError, DataError: as :func:`evaluate_statistic`.
    """
    return evaluate_statistic("t", poi_value, data, model, settings=settings).value


def tmu_tilde(
    poi_value: float | Tensor, data: _Data, model: Model, *, settings: SolverSettings | None = None
) -> Tensor:
    r"""Return the two-sided :math:`\tilde t_\mu`, POI not negative, ``(*batch,)``.

    Args:
        poi_value: ``(*batch,)`` tested values.
        data: ``(*batch, bins + auxiliary)``.
        model: with a parameter of interest.
        settings: when fits stop.

    Raises:
        ParameterError, DataError: as :func:`evaluate_statistic`.
    """
    return evaluate_statistic("ttilde", poi_value, data, model, settings=settings).value
