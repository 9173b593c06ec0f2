r"""Gradients of best fits and minima by the implicit function theorem, without unrolling the iteration.

With templates and data :math:`t`, the free parameters solve :math:`\nabla_\theta L(\hat\theta, t) = 0`, so

.. math:: \frac{d\hat\theta_F}{dt} = -H_{FF}^{-1}\, \partial_t \nabla_F L, \qquad
          \frac{dL(\hat\theta(t), t)}{dt} = \partial_t L .

The first is attached as one Newton correction of value zero from the detached optimum; parameters that are
fixed or held by a bound do not move.  The second (envelope theorem) needs no derivative of
:math:`\hat\theta`, is right at bounds too, and is attached by evaluating the likelihood at the detached
optimum.

Source: S. G. Krantz and H. R. Parks, The Implicit Function Theorem (2002); P. Milgrom and I. Segal,
Econometrica 70, 583 (2002).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbilib.histfactory.model import Model

__all__ = [
    "attached_minimum",
    "attached_parameters",
    "broadcast_batch",
    "needs_gradient",
    "newton_correction",
]


def broadcast_batch(*shapes: torch.Size) -> torch.Size:
    """Broadcast batch shapes, at no cost in the usual case that all but one are empty.

    >>> broadcast_batch(torch.Size([3]), torch.Size([]))
    torch.Size([3])
    """
    different = {shape for shape in shapes if shape}
    if len(different) > 1:
        return torch.Size(torch.broadcast_shapes(*different))  # type: ignore[no-untyped-call]
    return different.pop() if different else torch.Size()


def needs_gradient(model: Model, *tensors: Tensor | None) -> bool:
    """Whether anything computed from the model and these tensors must carry gradients."""
    if not torch.is_grad_enabled():
        return False
    # Any nominal yield tells: all templates are packed into one tensor.
    return model._terms.yields.requires_grad or any(
        each is not None and each.requires_grad for each in tensors
    )


def newton_correction(gradient: Tensor, hessian: Tensor, free: Tensor) -> Tensor:
    r"""Return :math:`-H_{FF}^{-1} g_F`, zero for the other parameters.

    Args:
        gradient: ``(*batch, P)``, may carry gradients.
        hessian: ``(*batch, P, P)``, taken as constant.
        free: ``(*batch, P)`` the set F.

    Returns:
        ``(*batch, P)``; zero for members whose H is not positive definite there (no isolated minimum).

    >>> slope, curvature = torch.ones(2).double(), 2 * torch.eye(2).double()
    >>> newton_correction(slope, curvature, torch.tensor([True, False])).round(decimals=9).tolist()
    [-0.5, -0.0]
    """
    with torch.no_grad():
        scale = hessian.diagonal(dim1=-2, dim2=-1).abs().clamp_min(1e-8).rsqrt()
        scale = torch.where(free, scale, 0.0)
        matrix = hessian * scale.unsqueeze(-1) * scale.unsqueeze(-2)
        matrix.diagonal(dim1=-2, dim2=-1).add_((~free).to(matrix.dtype))
        factor, failed = torch.linalg.cholesky_ex(matrix)
        bad = failed != 0
        if bool(bad.any()):
            scale = torch.where(bad.unsqueeze(-1), 0.0, scale)
            unit = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
            factor = torch.where(bad[..., None, None], unit, factor)
    scaled = torch.where(free, gradient, 0.0) * scale
    return -torch.cholesky_solve(scaled.unsqueeze(-1), factor).squeeze(-1) * scale


def attached_parameters(
    model: Model,
    data: Tensor,
    parameters: Tensor,
    *,
    movable: Tensor,
    bounds: Tensor,
    poi_value: Tensor | None = None,
) -> Tensor:
    r"""Attach the gradient of a best fit to its (unchanged) values.

    Args:
        model, data: templates and data, which may carry gradients.
        parameters: ``(*batch, P)`` detached optimum.
        movable: ``(*batch, P)`` or ``(P,)`` parameters that the fit could move.
        bounds: ``(P, 2)``.
        poi_value: ``(*batch,)`` value at which the POI was held, if it was and carries gradients.

    Returns:
        ``(*batch, P)``, differentiable in templates, data and the POI value.
    """
    _, gradient, hessian = model.nll_derivatives(parameters, data)
    hessian, slope = hessian.detach(), gradient.detach()
    held = (slope > 0) & (parameters <= bounds[..., 0]) | (slope < 0) & (parameters >= bounds[..., 1])
    if poi_value is not None and poi_value.requires_grad:
        moved = (poi_value - poi_value.detach()).unsqueeze(-1)
        gradient = gradient + hessian[..., model.poi_index] * moved
        unit = torch.zeros_like(parameters)
        unit[..., model.poi_index] = 1.0
        parameters = parameters + unit * moved
    correction = newton_correction(gradient, hessian, movable & ~held)
    return parameters + (correction - correction.detach())


def attached_minimum(
    model: Model, data: Tensor, parameters: Tensor, *, poi_value: Tensor | None = None
) -> Tensor:
    """Return the negative log-likelihood at a detached optimum, with its gradient by the envelope theorem.

    Args:
        model, data: templates and data, which may carry gradients.
        parameters: ``(*batch, P)`` detached optimum.
        poi_value: ``(*batch,)`` value at which the POI was held, if it was and carries gradients.

    Returns:
        ``(*batch,)``.
    """
    value = -model.logpdf(parameters, data)
    if poi_value is not None and poi_value.requires_grad:
        with torch.no_grad():
            slope = model.nll_derivatives(parameters, data)[1][..., model.poi_index]
        value = value + slope * (poi_value - poi_value.detach())
    return value
