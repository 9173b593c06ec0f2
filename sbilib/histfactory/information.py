r"""Fisher information, covariance, pulls, constraints and impacts.

.. math:: I(\theta) = \nabla^2 [-\ln L(\theta \mid x)], \qquad V = I^{-1}, \qquad \sigma_\mu =
\sqrt{V_{\mu\mu}}

On Asimov data of :math:`\theta` this is the expected information, on observed data the observed one;
constraint terms are part of both.  The covariance is the inverse of the information, over the free
parameters; fixed ones have none.

Source: arXiv:1007.1727, section 3.1; impacts: ATLAS and CMS Collaborations, ATL-PHYS-PUB-2011-11.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sbilib.histfactory.asymptotics import root
from sbilib.histfactory.fits import FitResult, check_data, poi_of, solve
from sbilib.histfactory.model import Model
from sbilib.histfactory.solver import SolverSettings

__all__ = [
    "Impacts",
    "Pulls",
    "covariance",
    "fisher_information",
    "impacts",
    "poi_uncertainty",
    "pulls",
]


def fisher_information(
    parameters: Tensor, model: Model, *, data: Tensor | Sequence[float] | None = None
) -> Tensor:
    r"""Return the Fisher information :math:`\nabla^2 [-\ln L]`, constraints included.

    Args:
        parameters: ``(*batch, P)`` where to take it.
        model: templates, which broadcast with the parameters.
        data: ``(*batch, bins + auxiliary)`` for the observed information; without, the expected one (on the
            Asimov data of the parameters).

    Returns:
        ``(*batch, P, P)`` for all parameters, differentiable in templates and data.

    Raises:
        DataError: if data or parameters have the wrong length, or data are NaN or negative.

    >>> from sbilib.histfactory import uncorrelated_background
    >>> model = uncorrelated_background([10.0], [90.0], [9.0])
    >>> fisher_information(model.initial, model).tolist()
    [[1.0, 9.0], [9.0, 181.0]]
    """
    counts = model.expected_data(parameters) if data is None else check_data(data, model)
    return model.nll_derivatives(parameters, counts)[2]


def covariance(parameters: Tensor, model: Model, *, data: Tensor | Sequence[float] | None = None) -> Tensor:
    r"""Return the covariance of the best fit, the inverse information of the free parameters.

    Args:
        parameters: ``(*batch, P)`` where to take it.
        model: templates, which broadcast with the parameters.
        data: as for :func:`fisher_information`.

    Returns:
        ``(*batch, P, P)``; rows and columns of fixed parameters are zero, and members whose information
        cannot be inverted are infinite.

    Raises:
        DataError: as :func:`fisher_information`.

    >>> from sbilib.histfactory import uncorrelated_background
    >>> model = uncorrelated_background([10.0], [90.0], [9.0])
    >>> [round(value, 4) for value in covariance(model.initial, model).diagonal().tolist()]
    [1.81, 0.01]
    """
    inverse, failed = torch.linalg.inv_ex(free_block(model, fisher_information(parameters, model, data=data)))
    inverse = torch.where((failed == 0)[..., None, None], inverse, torch.inf)
    fixed = model.fixed
    if not bool(fixed.any()):
        return inverse
    return torch.where(fixed.unsqueeze(-1) | fixed.unsqueeze(-2), 0.0, inverse)


def free_block(model: Model, information: Tensor) -> Tensor:
    """Return information ``(*batch, P, P)`` whose rows and columns of fixed parameters are unit vectors.

    They then change neither the determinant nor the inverse of the rest.
    """
    fixed = model.fixed
    if not bool(fixed.any()):
        return information
    either = fixed.unsqueeze(-1) | fixed.unsqueeze(-2)
    return torch.where(either, torch.eye(fixed.shape[-1]).to(information), information)


def poi_uncertainty(
    parameters: Tensor, model: Model, *, data: Tensor | Sequence[float] | None = None
) -> Tensor:
    r"""Return :math:`\sigma_\mu = \sqrt{(I^{-1})_{\mu\mu}}`, ``(*batch,)``, nuisance parameters included.

    Args:
        parameters: ``(*batch, P)`` where to take it.
        model: with a parameter of interest.
        data: as for :func:`fisher_information`.

    Raises:
        ParameterError: if the model has no parameter of interest.
        DataError: as :func:`fisher_information`.

    >>> from sbilib.histfactory import uncorrelated_background
    >>> model = uncorrelated_background([10.0], [90.0], [9.0])
    >>> round(float(poi_uncertainty(model.initial, model)), 4)
    1.3454
    """
    index = poi_of(model)
    return root(covariance(parameters, model, data=data)[..., index, index])


@dataclass(frozen=True, eq=False)
class Pulls:
    """Nuisance parameters after a fit in units of their constraints; NaN for parameters without constraint.

    Attributes:
        pull: ``(*batch, P)`` (best fit - start value) / constraint width.
        constraint: ``(*batch, P)`` uncertainty after the fit / constraint width; one if the data say nothing.
        uncertainty: ``(*batch, P)`` standard deviations after the fit.
        parameter_names: name of each parameter.
    """

    pull: Tensor
    constraint: Tensor
    uncertainty: Tensor
    parameter_names: tuple[str, ...]


def pulls(result: FitResult, data: Tensor | Sequence[float], model: Model) -> Pulls:
    r"""Return pulls :math:`(\hat\theta - \theta_0) / \sigma_0` and constraints :math:`\hat\sigma / \sigma_0`.

    Args:
        result: of a fit.
        data: that were fitted, ``(*batch, bins + auxiliary)``.
        model: that was fitted.

    Raises:
        DataError: as :func:`fisher_information`.

    >>> from sbilib.histfactory import correlated_background, fit
    >>> model = correlated_background([5.0, 5.0], [50.0, 60.0], [55.0, 66.0], [45.0, 54.0])
    >>> data = model.expected_data(model.initial)
    >>> found = pulls(fit(data, model), data, model)
    >>> round(float(found.constraint[0]), 4)
    0.9959
    """
    uncertainty = root(covariance(result.parameters, model, data=data).diagonal(dim1=-2, dim2=-1))
    known = model.sigmas.isfinite() & ~model.fixed
    width = torch.where(known, model.sigmas, torch.nan)
    return Pulls(
        (result.parameters - model.initial) / width,
        uncertainty / width,
        uncertainty,
        tuple(model.parameter_names),
    )


@dataclass(frozen=True, eq=False)
class Impacts:
    """Shifts of the best fit of the POI when one parameter is held a standard deviation away.

    Attributes:
        up, down: ``(*batch, P)`` shifts for +1 and -1 standard deviation; zero for fixed parameters and the
            POI.
        converged: ``(*batch, P)`` whether both fits converged.
        parameter_names: name of each parameter.
    """

    up: Tensor
    down: Tensor
    converged: Tensor
    parameter_names: tuple[str, ...]


@torch.no_grad()
def impacts(
    result: FitResult,
    data: Tensor | Sequence[float],
    model: Model,
    *,
    prefit: bool = False,
    settings: SolverSettings | None = None,
) -> Impacts:
    r"""Refit with each nuisance parameter held at :math:`\hat\theta \pm \sigma` and compare the POI.

    All 2 P fits of all members of the batch run together.

    Args:
        result: of a free fit.
        data: that were fitted, ``(*batch, bins + auxiliary)``.
        model: with a parameter of interest.
        prefit: shift by the constraint width instead of the uncertainty after the fit.
        settings: when fits stop.

    Raises:
        ParameterError: if the model has no parameter of interest.
        DataError: as :func:`fisher_information`.

    >>> from sbilib.histfactory import correlated_background, fit
    >>> model = correlated_background([5.0, 5.0], [50.0, 60.0], [55.0, 66.0], [45.0, 54.0])
    >>> data = model.expected_data(model.initial)
    >>> round(float(impacts(fit(data, model), data, model).down[0]), 3)
    1.088
    """
    index, counts = poi_of(model), check_data(data, model)
    best = result.parameters
    size = best.shape[-1]
    width = model.sigmas if prefit else root(covariance(best, model, data=data).diagonal(dim1=-2, dim2=-1))
    # An unconstrained parameter has no width before the fit.
    width = torch.where(width.isfinite() & ~model.fixed, width, 0.0).expand_as(best)
    unit = torch.eye(size, dtype=best.dtype, device=best.device)
    shape = (2, size, *[1] * (best.dim() - 1), size)
    sign = torch.tensor([1.0, -1.0], dtype=best.dtype, device=best.device).view(2, *[1] * (best.dim() + 1))
    moved = best + sign * width * unit.view(1, *shape[1:])
    low, high = model.bounds.unbind(-1)
    start = torch.minimum(torch.maximum(moved, low), high)
    held = unit.bool().view(1, *shape[1:]).expand_as(start)
    fits = solve(model, counts, start=start, held=held, settings=settings)
    shift = (fits.parameters[..., index] - best[..., index]).movedim(1, -1)
    nothing = (unit[index] > 0) | model.fixed
    up, down = torch.where(nothing, 0.0, shift)
    return Impacts(up, down, fits.converged.all(0).movedim(0, -1), tuple(model.parameter_names))
