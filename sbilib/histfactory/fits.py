r"""Maximum-likelihood fits of many data sets, models and hypotheses at once.

.. math:: \hat\theta = \arg\min_{\theta \in \text{bounds}} -\ln L(\theta \mid x), \qquad
          \hat{\hat\theta}(\mu) = \arg\min_{\theta:\ \theta_{\mathrm{POI}} = \mu} -\ln L(\theta \mid x)

All fits of a call form one batch (:mod:`sbilib.histfactory.solver`).  A fit that does not converge is tried
again from other starts, and if that fails too it is flagged and the best point met is returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.errors import ParameterError
from sbilib.histfactory.implicit import attached_minimum, attached_parameters, broadcast_batch, needs_gradient
from sbilib.histfactory.model import Model
from sbilib.histfactory.solver import Derivatives, Minimum, SolverSettings, minimize

__all__ = [
    "FitResult",
    "Solution",
    "check_data",
    "fit",
    "fixed_poi_fit",
    "flat_derivatives",
    "poi_of",
    "solve",
    "solve_flat",
    "value_tensor",
    "with_poi",
]

# Hessians held at once: about 160 MB in float64 for each copy that an iteration makes.
_MOST_HESSIAN_ELEMENTS = 20_000_000
_RETRY_POI = (0.02, 0.1, 0.3)


class Solution(NamedTuple):
    """Detached optima; batch dimensions in front.

    Attributes:
        parameters: (*batch, P).
        nll: (*batch,) negative log-likelihood there.
        converged, n_iterations: (*batch,).
        at_bound: (*batch, P).
    """

    parameters: Tensor
    nll: Tensor
    converged: Tensor
    n_iterations: Tensor
    at_bound: Tensor


@dataclass(frozen=True, eq=False)
class FitResult:
    """Best fits; batch dimensions of templates, data and tested values in front.

    Attributes:
        parameters: ``(*batch, P)``, differentiable in templates and data (a parameter at its bound does not
            move).
        nll: ``(*batch,)`` negative log-likelihood there, with all constants, differentiable too.
        converged: ``(*batch,)`` whether the fit reached its tolerance; if not, the best point met is given.
        n_iterations: ``(*batch,)`` evaluations of the likelihood.
        at_bound: ``(*batch, P)`` parameters held by a bound.
        parameter_names: name of each parameter.
        poi_index: place of the parameter of interest, or None.
    """

    parameters: Tensor
    nll: Tensor
    converged: Tensor
    n_iterations: Tensor
    at_bound: Tensor
    parameter_names: tuple[str, ...]
    poi_index: int | None

    @property
    def twice_nll(self) -> Tensor:
        """Twice the negative log-likelihood, ``(*batch,)``, as pyhf returns it."""
        return 2 * self.nll

    @property
    def poi(self) -> Tensor:
        """The parameter of interest, ``(*batch,)``.

        Raises:
            ParameterError: if the model has none.
        """
        if self.poi_index is None:
            raise ParameterError("the fitted model has no parameter of interest; build it with poi='mu'")
        return self.parameters[..., self.poi_index]


def poi_of(model: Model) -> int:
    """Return the place of the parameter of interest.

    Raises:
        ParameterError: if the model has none.
    """
    if model.poi_index is None:
        raise ParameterError(
            "the model has no parameter of interest, and this needs one; build it with poi='mu' (one of "
            f"{', '.join(model.parameter_names[:8])})"
        )
    return model.poi_index


def value_tensor(value: float | Tensor, model: Model, name: str = "poi_value") -> Tensor:
    """Return a tested value as a finite float64 tensor on the model's device.

    Raises:
        ParameterError: if it is not finite.
    """
    tensor = torch.as_tensor(value, dtype=torch.float64, device=model.device)
    if not bool(tensor.isfinite().all()):
        raise ParameterError(f"{name} must be finite, got {value!r}; pass numbers")
    return tensor


def check_data(data: Tensor | Sequence[float], model: Model, *, poi_value: Tensor | None = None) -> Tensor:
    """Return data as a float64 tensor ``(*batch, bins + auxiliary)``, at little cost if they are good.

    Args:
        data: to be checked.
        model: that they belong to.
        poi_value: values that will be tested; if zero is one of them, a bin with data needs some background.

    Raises:
        DataError: if the length is wrong, values are NaN, infinite, or (counts) negative, or there is no
            background.
    """
    tensor = torch.as_tensor(data, dtype=torch.float64, device=model.device)
    right = tensor.dim() > 0 and tensor.shape[-1] == model.n_bins + model.n_auxiliary
    if not (right and bool((tensor[..., : model.n_bins] >= 0).all()) and bool(tensor.isfinite().all())):
        model.check_data(tensor, background_only=False)
    if poi_value is not None and bool((poi_value == 0).any()):
        with torch.no_grad():
            origin = with_poi(model.initial, poi_value.new_zeros(()), poi_of(model))
            empty = model.expected_data(origin, include_auxiliary=False) == 0
        if bool((empty & (tensor[..., : model.n_bins] > 0)).any()):
            model.check_data(tensor)
    return tensor


def fit(
    data: Tensor | Sequence[float],
    model: Model,
    *,
    start: Tensor | None = None,
    settings: SolverSettings | None = None,
) -> FitResult:
    r"""Fit all parameters of a model, :math:`\hat\theta = \arg\min -\ln L(\theta \mid x)`.

    Args:
        data: ``(*batch, bins + auxiliary)`` events and auxiliary data, in the order of
            ``model.expected_data``.
        model: its templates may have batch dimensions, which broadcast with those of the data.
        start: ``(*batch, P)`` where to start, by default ``model.initial``.
        settings: when to stop.

    Returns:
        The best fits.

    Raises:
        DataError: if data have the wrong length, are not finite, are negative, or a bin with data expects
            none.

    Source: arXiv:1007.1727, section 2.

    >>> from sbilib.histfactory import uncorrelated_background
    >>> model = uncorrelated_background([12.0, 11.0], [50.0, 52.0], [3.0, 7.0])
    >>> data = torch.cat([torch.tensor([55.0, 60.0]), model.auxiliary_data])
    >>> round(float(fit(data, model).poi), 4)
    0.5206
    """
    checked = check_data(data, model)
    solution = solve(model, checked, start=model.initial if start is None else start, settings=settings)
    return _result(model, checked, solution, None)


def fixed_poi_fit(
    poi_value: float | Tensor,
    data: Tensor | Sequence[float],
    model: Model,
    *,
    start: Tensor | None = None,
    settings: SolverSettings | None = None,
) -> FitResult:
    r"""Fit the nuisance parameters with the parameter of interest held, :math:`\hat{\hat\theta}(\mu)`.

    Args:
        poi_value: ``(*batch,)`` held values; they may lie outside the bounds of the parameter.
        data: ``(*batch, bins + auxiliary)``.
        model: with a parameter of interest.
        start: ``(*batch, P)`` where the others start, by default ``model.initial``.
        settings: when to stop.

    Returns:
        The best fits, differentiable in ``poi_value`` too.

    Raises:
        ParameterError: if the model has no parameter of interest or a value is not finite.
        DataError: as :func:`fit`.

    Source: arXiv:1007.1727, section 2.

    >>> from sbilib.histfactory import uncorrelated_background
    >>> model = uncorrelated_background([12.0, 11.0], [50.0, 52.0], [3.0, 7.0])
    >>> data = torch.cat([torch.tensor([51.0, 48.0]), model.auxiliary_data])
    >>> fixed_poi_fit(1.0, data, model).parameters
    tensor([1.0000, 0.9722, 0.8755], dtype=torch.float64)
    """
    index = poi_of(model)
    value = value_tensor(poi_value, model)
    checked = check_data(data, model, poi_value=value)
    begin = with_poi(model.initial if start is None else start, value, index)
    held = torch.zeros_like(model.initial, dtype=torch.bool)
    held[..., index] = True
    solution = solve(model, checked, start=begin, held=held, settings=settings)
    return _result(model, checked, solution, value)


def with_poi(parameters: Tensor, value: Tensor, index: int) -> Tensor:
    """Return detached parameters ``(*batch, P)`` with the POI set to ``value`` ``(*batch,)``."""
    batch = broadcast_batch(parameters.shape[:-1], value.shape)
    changed = parameters.detach().expand(*batch, -1).clone()
    changed[..., index] = value.detach()
    return changed


def _result(model: Model, data: Tensor, solution: Solution, poi_value: Tensor | None) -> FitResult:
    parameters, nll = solution.parameters, solution.nll
    if needs_gradient(model, data, poi_value):
        movable = ~model.fixed
        if poi_value is not None:
            movable = movable.clone()
            movable[..., model.poi_index] = False
            poi_value = poi_value.expand(parameters.shape[:-1])
        nll = attached_minimum(model, data, parameters, poi_value=poi_value)
        parameters = attached_parameters(
            model, data, parameters, movable=movable, bounds=model.bounds, poi_value=poi_value
        )
    return FitResult(
        parameters,
        nll,
        solution.converged,
        solution.n_iterations,
        solution.at_bound,
        tuple(model.parameter_names),
        model.poi_index,
    )


@torch.no_grad()
def solve(
    model: Model,
    data: Tensor,
    *,
    start: Tensor,
    held: Tensor | None = None,
    bounds: Tensor | None = None,
    settings: SolverSettings | None = None,
) -> Solution:
    """Minimize over a batch, without gradients and without checks.

    Args:
        model: as :func:`fit`.
        data: ``(*batch, bins + auxiliary)``.
        start: ``(*batch, P)``.
        held: ``(*batch, P)`` parameters held at their start besides those that the model fixes.
        bounds: ``(P, 2)``, by default the model's.
        settings: when to stop.

    Returns:
        The optima, over the broadcast of all batch dimensions.

    Raises:
        DataError: if a bin with data expects no events at the start, so that the likelihood vanishes.
    """
    batch = broadcast_batch(model.batch_shape, data.shape[:-1], start.shape[:-1])
    size = start.shape[-1]
    begin = start.detach().expand(*batch, size).reshape(-1, size)
    fixed = model.fixed if held is None else model.fixed | held
    if fixed.dim() > 1:
        fixed = fixed.expand(*batch, size).reshape(-1, size)
    limits = model.bounds if bounds is None else bounds
    derivatives = flat_derivatives(model, data.detach(), batch)
    found = solve_flat(derivatives, None, begin, limits, fixed, model, settings)
    if not bool(found.value.isfinite().all()):
        # An infinite likelihood mostly comes from a bin that has data and expects none.
        model.check_data(data)
    return Solution(
        found.position.view(*batch, size),
        found.value.view(batch),
        found.converged.view(batch),
        found.n_iterations.view(batch),
        found.at_bound.view(*batch, size),
    )


def flat_derivatives(model: Model, data: Tensor, batch: torch.Size) -> Derivatives:
    """Return the derivatives of the members of a flattened batch."""
    constant = model.detached()
    flat = data if data.dim() == 1 else data.expand(*batch, data.shape[-1]).reshape(-1, data.shape[-1])
    everyone = None
    if model.batch_shape:
        everyone = (
            constant
            if model.batch_shape == batch[-1:] == batch
            else constant.rows(batch, _range(batch, data))
        )

    def derivatives(theta: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        counts = flat if rows is None or flat.dim() == 1 else flat[rows]
        if everyone is None:
            return constant.nll_derivatives(theta, counts)
        chosen = everyone if rows is None else everyone.rows(everyone.batch_shape, rows)
        return chosen.nll_derivatives(theta, counts)

    return derivatives


def _range(batch: torch.Size, like: Tensor) -> Tensor:
    return torch.arange(batch.numel(), device=like.device)


def solve_flat(
    derivatives: Derivatives,
    members: Tensor | None,
    start: Tensor,
    bounds: Tensor,
    fixed: Tensor,
    model: Model,
    settings: SolverSettings | None,
) -> Minimum:
    """Minimize for members (n,) of a flattened batch, or all, from starts (n, P), with retries."""
    chosen = derivatives if members is None else _of_rows(derivatives, members)
    found = _in_chunks(chosen, start, bounds, fixed, settings)
    if bool(found.converged.all()):
        return found
    return _retried(chosen, found, start, bounds, fixed, settings, model)


def _in_chunks(
    derivatives: Derivatives, start: Tensor, bounds: Tensor, fixed: Tensor, settings: SolverSettings | None
) -> Minimum:
    """Minimize in pieces small enough for memory."""
    most = max(1, _MOST_HESSIAN_ELEMENTS // start.shape[-1] ** 2)
    if len(start) <= most:
        return minimize(derivatives, start, bounds, fixed=fixed, settings=settings)
    pieces = []
    for first in range(0, len(start), most):
        piece = torch.arange(first, min(first + most, len(start)), device=start.device)
        here = fixed[piece] if fixed.dim() > 1 else fixed
        part = _of_rows(derivatives, piece)
        found = minimize(part, start[piece], bounds, fixed=here, settings=settings)
        # The Hessians of all pieces together are what does not fit.
        pieces.append(found._replace(hessian=found.hessian[:, :0]))
    return Minimum(*(torch.cat(field) for field in zip(*pieces, strict=True)))


def _of_rows(derivatives: Derivatives, members: Tensor) -> Derivatives:
    return lambda theta, rows: derivatives(theta, members if rows is None else members[rows])


def _retried(
    derivatives: Derivatives,
    found: Minimum,
    start: Tensor,
    bounds: Tensor,
    fixed: Tensor,
    settings: SolverSettings | None,
    model: Model,
) -> Minimum:
    """Fit the members that failed from other starts and keep the best of all."""
    generator = torch.Generator().manual_seed(0)
    low, high = bounds[..., 0], bounds[..., 1]
    for fraction in _RETRY_POI:
        failed = (~found.converged).nonzero()[:, 0]
        if len(failed) == 0:
            break
        held = fixed[failed] if fixed.dim() > 1 else fixed
        noise = torch.rand(start.shape[-1], generator=generator, dtype=start.dtype).to(start.device) - 0.5
        other = model.initial + 0.1 * (high - low).clamp_max(10.0) * noise
        if model.poi_index is not None:
            other[..., model.poi_index] = (low + fraction * (high - low))[..., model.poi_index]
        begin = torch.where(held, start[failed], other)
        again = minimize(_of_rows(derivatives, failed), begin, bounds, fixed=held, settings=settings)
        better = again.converged | (again.value < found.value[failed])
        chosen = failed[better]
        for name in ("position", "value", "converged", "n_iterations", "at_bound", "gradient"):
            getattr(found, name)[chosen] = getattr(again, name)[better]
    return found
