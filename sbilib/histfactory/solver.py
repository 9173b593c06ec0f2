r"""Batched minimization within bounds by a modified Newton method on closed-form derivatives.

Each member of the batch moves by the step :math:`s` that minimizes the quadratic model in its box,

.. math:: g_F^T s_F + \tfrac12 s_F^T (H + \lambda D)_{FF}\, s_F, \qquad D = |\operatorname{diag} H|,

with the free set :math:`F`: parameters that are not fixed and not held by a bound (at the bound, gradient
pointing out).  Where the Hessian is not positive definite :math:`\lambda` grows until the Cholesky
factorization exists, and a step that does not lower the function is shortened.  The active-set projection is
that of Bertsekas (SIAM J. Control Optim. 20, 221, 1982), with the step solved anew after a bound is hit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.errors import check_count, check_range

__all__ = ["Derivatives", "Minimum", "SolverSettings", "minimize"]

Derivatives = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]]
"""Maps positions (m, P) of members ``rows`` (m,), or of all, to value, gradient and Hessian."""

# Ridge of the matrix scaled to unit diagonal: a direction without any curvature still has a (null) step.
_RIDGE = 1e-12
# Curvatures below this are taken as this when parameters are scaled, so that a flat one does not overflow.
_FLAT = 1e-8
_FIRST_DAMPING = 1e-2
_MOST_DAMPING = 1e12
_SHORTER = 0.25
_SHORTEST = 1e-10
_SUFFICIENT = 1e-4
_ROUNDING = 4e-15


@dataclass(frozen=True)
class SolverSettings:
    """When the iteration stops.

    Args:
        tolerance: predicted decrease of the function at which the last Newton step is taken, which leaves an
            error of the order of its square; in units of the negative log-likelihood.
        max_iterations: after which a member counts as failed.

    Raises:
        ParameterError: if either is out of range.

    >>> SolverSettings().max_iterations
    100
    """

    tolerance: float = 1e-8
    max_iterations: int = 100

    def __post_init__(self) -> None:
        check_range("tolerance", self.tolerance, low=0.0, include_low=False)
        check_count("max_iterations", self.max_iterations, low=1)


class Minimum(NamedTuple):
    """Minima of a batch of N functions of P parameters.

    Attributes:
        position: (N, P), within the bounds.
        value: (N,) function there (of a member that failed: the lowest met).
        gradient, hessian: (N, P) and (N, P, P) where they were last evaluated, one last step away.
        converged: (N,) whether the predicted decrease fell below the tolerance.
        n_iterations: (N,) evaluations of the function.
        at_bound: (N, P) parameters held by a bound: at it, with the gradient pointing out.
    """

    position: Tensor
    value: Tensor
    gradient: Tensor
    hessian: Tensor
    converged: Tensor
    n_iterations: Tensor
    at_bound: Tensor


class _State(NamedTuple):
    """Members still at work: positions, derivatives there, bounds, what may move, step lengths."""

    position: Tensor
    value: Tensor
    gradient: Tensor
    hessian: Tensor
    low: Tensor
    high: Tensor
    movable: Tensor
    length: Tensor

    def take(self, chosen: Tensor) -> _State:
        return _State(*(field[chosen] for field in self))


class _Step(NamedTuple):
    trial: Tensor
    gain: Tensor
    damping: Tensor


@torch.no_grad()
def minimize(
    derivatives: Derivatives,
    start: Tensor,
    bounds: Tensor,
    *,
    fixed: Tensor | None = None,
    settings: SolverSettings | None = None,
) -> Minimum:
    r"""Minimize a batch of functions within bounds.

    Args:
        derivatives: value, gradient and Hessian of the members asked for.
        start: (N, P) positions to start from; moved into the bounds.
        bounds: (P, 2) or (N, P, 2) lower and upper bounds.
        fixed: (P,) or (N, P) parameters held at their start, also outside the bounds.
        settings: when to stop.

    Returns:
        The minima.  A member that fails is flagged and holds the lowest point met; nothing is raised.

    Source: J. Nocedal and S. J. Wright, Numerical Optimization, 2nd edition (2006), chapters 3 and 16.

    >>> def parabola(x, rows):
    ...     return ((x - 2) ** 2).sum(-1), 2 * (x - 2), 2 * torch.eye(2).double().expand(len(x), 2, 2)
    >>> limits = torch.tensor([[0.0, 1.0], [0.0, 5.0]]).double()
    >>> minimize(parabola, torch.zeros(1, 2).double(), limits).position
    tensor([[1., 2.]], dtype=torch.float64)
    """
    settings = settings or SolverSettings()
    state = _begin(derivatives, start, bounds, fixed)
    result: Minimum | None = None
    rows: Tensor | None = None
    for iteration in range(1, settings.max_iterations + 1):
        step = _newton_step(state)
        done = (step.gain.abs() <= settings.tolerance) & (step.damping <= _RIDGE)
        given_up = (step.damping > _MOST_DAMPING) | (state.length < _SHORTEST)
        n_left = len(done) - int((done | given_up).sum())
        if n_left < len(done):
            result = _write(result, rows, state, step, done, iteration, len(start))
            if n_left == 0:
                return result
            keep = ~(done | given_up)
            state, step = state.take(keep), _Step(*(field[keep] for field in step))
            rows = keep.nonzero()[:, 0] if rows is None else rows[keep]
        state = _advance(derivatives, state, step, rows)
    none = torch.zeros_like(step.gain, dtype=torch.bool)
    return _write(result, rows, state, step, none, settings.max_iterations, len(start))


def _begin(derivatives: Derivatives, start: Tensor, bounds: Tensor, fixed: Tensor | None) -> _State:
    low, high = bounds[..., 0].expand_as(start), bounds[..., 1].expand_as(start)
    movable = torch.ones_like(start, dtype=torch.bool) if fixed is None else (~fixed).expand_as(start)
    # What does not move needs no bounds, and may lie outside of them.
    low, high = torch.where(movable, low, -torch.inf), torch.where(movable, high, torch.inf)
    inside = torch.clamp(start, low, high)
    value, gradient, hessian = derivatives(inside, None)
    return _State(inside, value, gradient, hessian, low, high, movable, torch.ones_like(value))


def _held(state: _State) -> Tensor:
    """Parameters at a bound whose gradient points out of the box."""
    x, slope = state.position, state.gradient
    return (slope > 0) & (x <= state.low) | (slope < 0) & (x >= state.high)


def _newton_step(state: _State) -> _Step:
    """Minimize the damped quadratic model in the box; a parameter that would leave it is put on the bound."""
    free = state.movable & ~_held(state)
    scale = state.hessian.diagonal(dim1=-2, dim2=-1).abs().clamp_min(_FLAT).rsqrt()
    step, damping = _solve(state.hessian, state.gradient, scale, free, torch.full_like(state.value, _RIDGE))
    target = state.position + step
    trial = torch.clamp(target, state.low, state.high)
    if torch.equal(trial, target):
        return _Step(trial, -0.5 * (state.gradient * step).sum(-1), damping)
    for _ in range(step.shape[-1]):
        hit = trial != target
        free = free & ~hit
        displacement = torch.where(free, 0.0, trial - state.position)
        slope = state.gradient + (state.hessian @ displacement.unsqueeze(-1)).squeeze(-1)
        step, damping = _solve(state.hessian, slope, scale, free, damping)
        target = state.position + displacement + step
        trial = torch.clamp(target, state.low, state.high)
        if torch.equal(trial, target):
            break
    gain = _foretold(state, trial)
    # Holding what was hit can be wrong; the scaled gradient projected into the box always descends.
    wrong = gain <= 0
    if bool(wrong.any()):
        downhill = torch.where(state.movable, state.gradient * scale**2 / step.shape[-1], 0.0)
        safe = torch.clamp(state.position - downhill, state.low, state.high)
        trial = torch.where(wrong[:, None], safe, trial)
        gain = torch.where(wrong, _foretold(state, safe), gain)
    return _Step(trial, gain, damping)


def _foretold(state: _State, trial: Tensor) -> Tensor:
    """Decrease that the quadratic model foretells."""
    step = trial - state.position
    curvature = (step * (state.hessian @ step.unsqueeze(-1)).squeeze(-1)).sum(-1)
    return -(state.gradient * step).sum(-1) - 0.5 * curvature


def _solve(
    hessian: Tensor, slope: Tensor, scale: Tensor, free: Tensor, damping: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve (H + damping D) step = -slope on the free set, with more damping where that is not positive."""
    scale = torch.where(free, scale, 0.0)
    scaled = hessian * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    unit = (~free).to(scaled.dtype)
    while True:
        matrix = scaled.clone()
        matrix.diagonal(dim1=-2, dim2=-1).add_(unit).add_(damping.unsqueeze(-1))
        factor, failed = torch.linalg.cholesky_ex(matrix)
        bad = failed != 0
        if not bool(bad.any()):
            break
        more = torch.where(damping < 10, 3 * damping, 10 * damping).clamp_min(_FIRST_DAMPING)
        damping = torch.where(bad, more, damping)
        # Derivatives that are not finite cannot be damped: such members take no step and are given up.
        broken = bad & (damping > _MOST_DAMPING)
        if bool(broken.any()):
            scaled = torch.where(broken[:, None, None], 0.0, scaled)
            unit = torch.where(broken[:, None], 1.0, unit)
            slope = torch.where(broken[:, None], 0.0, slope)
    return torch.cholesky_solve((-slope * scale).unsqueeze(-1), factor).squeeze(-1) * scale, damping


def _advance(derivatives: Derivatives, state: _State, step: _Step, rows: Tensor | None) -> _State:
    """Evaluate the trial points; take those that lower the function enough, shorten the other steps."""
    shortened = bool((state.length < 1).any())
    trial, gain = step.trial, step.gain
    if shortened:
        trial = torch.lerp(state.position, trial, state.length.unsqueeze(-1))
        gain = gain * state.length
    value, gradient, hessian = derivatives(trial, rows)
    better = value <= state.value - _SUFFICIENT * gain.clamp_min(0) + _ROUNDING * state.value.abs()
    if bool(better.all()):
        length = torch.ones_like(value) if shortened else state.length
        return state._replace(position=trial, value=value, gradient=gradient, hessian=hessian, length=length)
    return state._replace(
        position=torch.where(better[:, None], trial, state.position),
        value=torch.where(better, value, state.value),
        gradient=torch.where(better[:, None], gradient, state.gradient),
        hessian=torch.where(better[:, None, None], hessian, state.hessian),
        length=torch.where(better, 1.0, _SHORTER * state.length),
    )


def _write(
    result: Minimum | None, rows: Tensor | None, state: _State, step: _Step, done: Tensor, n: int, size: int
) -> Minimum:
    """Note members with their last step, if they are done; members at work are written again later."""
    finished = Minimum(
        torch.where(done[:, None], step.trial, state.position),
        state.value - torch.where(done, step.gain, 0.0),
        state.gradient,
        state.hessian,
        done,
        torch.full_like(done, n, dtype=torch.long),
        _held(state) & state.movable,
    )
    if result is None or rows is None:
        # Derivatives may come as views of one another, which cannot be written to.
        return finished if bool(done.all()) else Minimum(*(field.clone() for field in finished))
    for field, values in zip(result, finished, strict=True):
        field[rows] = values
    return result
