r"""The likelihood of a HistFactory model, and its gradient and Hessian in closed form.

For bin ``b`` and sample ``s`` the rate is ``F A`` with ``F = prod_k f_k`` and ``A = yields + sum_k
delta_k``; slot ``k`` is one parameter that acts on the bin.  With ``L_k = f_k' / f_k``,

    G_k  = F (delta_k' + A L_k)                                               (slope of the rate),
    H_kl = L_k G_l + F delta_k' L_l                         (k != l),
    H_kk = F (delta_k'' + 2 delta_k' L_k + A f_k'' / f_k)                     (curvature),

summed over samples.  The main term -ln Poisson(n | lambda) then has the gradient ``(1 - n / lambda)
lambda_k`` and the Hessian ``(1 - n / lambda) lambda_kl + n / lambda^2 lambda_k lambda_l``, and the
constraints are diagonal.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from sbilib.histfactory.interpolation import additive_basis, factor
from sbilib.histfactory.plan import Plan
from sbilib.histfactory.templates import Terms

__all__ = ["Codes", "expected_auxiliary", "expected_bins", "nll", "nll_derivatives"]

Codes = tuple[str, str]
"""Interpolation codes of (normsys, histosys)."""

# Factors that are exactly zero (a signal strength of zero) are moved here, so that F / f_k is exact in
# rounding.
_TINY = 1e-100
# Rates below this are zero: dividing a count by its square still is a finite number.
_SMALLEST_RATE = 1e-140


def _factor_table(plan: Plan, terms: Terms, theta: Tensor, code: str, n: int) -> Tensor:
    """Return [parameters, 1, normsys factors] and, for ``n = 3``, two derivatives: (..., n, P+1+N)."""
    table = pad(theta, (0, 1), value=1.0).unsqueeze(-2)
    if n == 3:
        table = torch.cat([table, plan.table_slopes.expand(*table.shape[:-2], -1, -1)], dim=-2)
    if terms.factors is None:
        return table
    alpha = theta.index_select(-1, plan.normsys[0])
    found = factor(code, terms.factors, alpha, derivatives=n == 3)
    if found.shape[:-2] != table.shape[:-2]:
        table = table.expand(*found.shape[:-2], *table.shape[-2:])
    return torch.cat([table, found], dim=-1)


def _shift_basis(plan: Plan, theta: Tensor, code: str) -> list[Tensor]:
    """Return the odd function of each slot's parameter, the even one and its derivatives: (..., B, 1, K)."""
    n_bins, _, n_slots = plan.shape
    basis = additive_basis(code, theta.index_select(-1, plan.slots))
    return [each.view(*theta.shape[:-1], n_bins, 1, n_slots) for each in basis]


def expected_bins(plan: Plan, terms: Terms, theta: Tensor, codes: Codes) -> Tensor:
    """Return the expected main data, ``(*batch, B)``."""
    table = _factor_table(plan, terms, theta, codes[0], 1)[..., 0, :]
    factors = table.index_select(-1, plan.factors).view(*table.shape[:-1], *plan.shape).prod(-1)
    yields = terms.yields
    if terms.shifts is not None:
        odd, even, _, _ = _shift_basis(plan, theta, codes[1])
        half, bend = terms.shifts
        yields = yields + (half * odd + bend * even).sum(-1)
    return (factors * yields).sum(-1)


def expected_auxiliary(plan: Plan, terms: Terms, theta: Tensor) -> Tensor:
    """Return the expected auxiliary data, ``(*batch, A)``: the parameter, or parameter times rate."""
    parameters = torch.cat([plan.gaussian[0], plan.poisson[0]])
    order = torch.cat([plan.gaussian[1], plan.poisson[1]]).argsort()
    ones = torch.ones_like(terms.sigma)
    scale = torch.cat([ones, terms.tau], dim=-1).index_select(-1, order)
    return theta.index_select(-1, parameters[order]) * scale


def _poisson_nll(count: Tensor, rate: Tensor) -> Tensor:
    """Return -ln Poisson with Gamma(n + 1) for n!; infinite for negative rates, smooth at n = 0."""
    log_term = torch.xlogy(count, rate.masked_fill(count == 0, 1.0))
    return (rate - log_term + torch.lgamma(count + 1)).masked_fill(rate < 0, torch.inf)


def nll(plan: Plan, terms: Terms, theta: Tensor, data: Tensor, codes: Codes) -> Tensor:
    """Return -ln L with all constants, ``(*batch,)``."""
    rate = expected_bins(plan, terms, theta, codes)
    total = _poisson_nll(data[..., : plan.shape[0]], rate).sum(-1)
    auxiliary = data[..., plan.shape[0] :]
    if plan.gaussian.shape[1]:
        pull = auxiliary.index_select(-1, plan.gaussian[1]) - theta.index_select(-1, plan.gaussian[0])
        total = total + (0.5 * pull * pull * terms.precision).sum(-1) + terms.offset
    if plan.poisson.shape[1]:
        rate = terms.tau * theta.index_select(-1, plan.poisson[0])
        total = total + _poisson_nll(auxiliary.index_select(-1, plan.poisson[1]), rate).sum(-1)
    return total


def _bin_derivatives(plan: Plan, terms: Terms, theta: Tensor, codes: Codes) -> tuple[Tensor, Tensor, Tensor]:
    """Return rates (..., B), slopes (..., B, K) and curvatures (..., B, K, K) of the main bins."""
    moved = theta.masked_fill(theta == 0, _TINY)
    bend: Tensor | None = None
    if terms.factors is None:
        table = pad(moved, (0, 1), value=1.0)
        value = table.index_select(-1, plan.factors).view(*table.shape[:-1], *plan.shape)
        log_slope = plan.linear / value
    else:
        table = _factor_table(plan, terms, moved, codes[0], 3)
        value, slope, second = (
            table.index_select(-1, plan.factors).view(*table.shape[:-1], *plan.shape).unbind(-4)
        )
        log_slope = slope / value
        bend = second / value
    product = value.prod(-1)
    if terms.shifts is None:
        rate = product * terms.yields
        slopes = rate.unsqueeze(-1) * log_slope
        curvature = log_slope.mT @ slopes * plan.off_diagonal
        if bend is not None:
            curvature = curvature + torch.diag_embed((rate.unsqueeze(-1) * bend).sum(-2))
        return rate.sum(-1), slopes.sum(-2), curvature
    odd, even, even_slope, even_bend = _shift_basis(plan, theta, codes[1])
    half, uneven = terms.shifts
    rate = product * (terms.yields + (half * odd + uneven * even).sum(-1))
    scale = product.unsqueeze(-1)
    added = scale * (half + uneven * even_slope)
    multiplied = rate.unsqueeze(-1)
    slopes = added + multiplied * log_slope
    curvature = (log_slope.mT @ slopes + added.mT @ log_slope) * plan.off_diagonal
    diagonal = scale * uneven * even_bend + 2 * added * log_slope
    if bend is not None:
        diagonal = diagonal + multiplied * bend
    return rate.sum(-1), slopes.sum(-2), curvature + torch.diag_embed(diagonal.sum(-2))


def nll_derivatives(
    plan: Plan, terms: Terms, theta: Tensor, data: Tensor, codes: Codes
) -> tuple[Tensor, Tensor, Tensor]:
    """Return -ln L with all constants, its gradient (..., P) and Hessian (..., P, P)."""
    n_bins = plan.shape[0]
    rate, slopes, curvature = _bin_derivatives(plan, terms, theta, codes)
    count, auxiliary = data[..., :n_bins], data[..., n_bins:]
    total = _poisson_nll(count, rate).sum(-1)
    divisor = rate.clamp_min(_SMALLEST_RATE)
    ratio = count / divisor
    weight = (1 - ratio).unsqueeze(-1)
    gradients = [(weight * slopes).flatten(-2)]
    outer = slopes.unsqueeze(-1) * ((ratio / divisor).unsqueeze(-1) * slopes).unsqueeze(-2)
    hessians = [(weight.unsqueeze(-1) * curvature + outer).flatten(-3)]
    if plan.gaussian.shape[1]:
        pull = auxiliary.index_select(-1, plan.gaussian[1]) - theta.index_select(-1, plan.gaussian[0])
        scaled = pull * terms.precision
        total = total + 0.5 * (pull * scaled).sum(-1) + terms.offset
        gradients.append(-scaled)
        hessians.append(terms.precision)
    if plan.poisson.shape[1]:
        parameter = theta.index_select(-1, plan.poisson[0])
        measured = auxiliary.index_select(-1, plan.poisson[1])
        total = total + _poisson_nll(measured, terms.tau * parameter).sum(-1)
        ratio = measured / parameter
        gradients.append(terms.tau - ratio)
        hessians.append(ratio / parameter)
    size = theta.shape[-1]
    gradient = _scattered(gradients, total.shape, plan.gradient_at, size)
    hessian = _scattered(hessians, total.shape, plan.hessian_at, size * size)
    return total, gradient, hessian.view(*total.shape, size, size)


def _scattered(parts: list[Tensor], batch: torch.Size, places: Tensor, size: int) -> Tensor:
    joined = torch.cat([part.expand(*batch, part.shape[-1]) for part in parts], dim=-1)
    empty = torch.zeros(*batch, size, dtype=joined.dtype, device=joined.device)
    return empty.scatter_add(-1, places.expand(*batch, -1), joined)
