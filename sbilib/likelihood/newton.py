r"""Best fits and interval edges of many sets at once, by safeguarded Newton iterations.

The best fit solves :math:`\nabla L(p, z) = 0` inside the scanned box.  An interval edge of parameter
:math:`\theta` with the other parameter :math:`\eta` profiled solves

.. math:: \sqrt{2 [L(\theta, \eta) - L(\hat\theta, \hat\eta)]} = \sqrt{\mathrm{level}}, \qquad
          \partial_\eta L(\theta, \eta) = 0,

where the root makes the first equation nearly linear.  Each row of a batch is one problem; rows that have
converged drop out.  At an end of the scanned range the second condition becomes an inequality.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.likelihood.derivatives import Expansion, expand_nll
from sbilib.likelihood.table import EventSets

__all__ = ["Bounds", "Edges", "Minimum", "conditional_minimum", "find_edges", "minimize"]

_MAX_ITERATIONS = 40
# When a Newton step promises less than this it is taken unchecked as the last one; as the iteration
# converges quadratically, what remains is about the square of these numbers, in standard deviations.
_SMALL_GAIN = 1e-6
_ROOT_TOLERANCE = 3e-3
_PROFILE_GAIN = 1e-5


class Bounds(NamedTuple):
    """The scanned box, in the signal fraction p and the nuisance parameter z."""

    fraction_low: float
    fraction_high: float
    nuisance_low: float
    nuisance_high: float


class Minimum(NamedTuple):
    """Minima of sets; every field is of shape ``(n_sets,)``."""

    fraction: Tensor
    nuisance: Tensor
    expansion: Expansion
    converged: Tensor


class Edges(NamedTuple):
    """Interval edges, shape ``(n_rows,)``."""

    value: Tensor
    open: Tensor
    converged: Tensor


def minimize(sets: EventSets, fraction: Tensor, nuisance: Tensor, bounds: Bounds) -> Minimum:
    """Minimize the NLL of every set from a start inside the box.

    A step that raises the NLL is taken back and a quarter of it tried, so the NLL never rises.
    """
    p, z = fraction.clone(), nuisance.clone()
    rows = torch.arange(sets.n_sets, device=p.device)
    now = expand_nll(sets, rows, p, z)
    kept = Expansion(*(t.clone() for t in now))
    converged = torch.zeros_like(rows, dtype=torch.bool)
    shrink = torch.ones_like(p)
    for _ in range(_MAX_ITERATIONS):
        here = Expansion(*(t[rows] for t in kept))
        step_p, step_z, gain = _descent_step(here, p[rows], z[rows], bounds)
        done = gain < _SMALL_GAIN
        scale = torch.where(done, 1.0, shrink[rows])
        new_p = (p[rows] + scale * step_p).clamp(bounds.fraction_low, bounds.fraction_high)
        new_z = (z[rows] + scale * step_z).clamp(bounds.nuisance_low, bounds.nuisance_high)
        finished = rows[done]
        p[finished], z[finished] = new_p[done], new_z[done]
        kept.nll[finished] -= gain[done]
        converged[finished] = True
        rows, new_p, new_z = rows[~done], new_p[~done], new_z[~done]
        if rows.numel() == 0:
            break
        trial = expand_nll(sets, rows, new_p, new_z)
        better = trial.nll <= kept.nll[rows] + 1e-13 * kept.nll[rows].abs()
        taken = rows[better]
        p[taken], z[taken] = new_p[better], new_z[better]
        for field, values in zip(kept, trial, strict=True):
            field[taken] = values[better]
        shrink[rows] = torch.where(better, 1.0, shrink[rows] / 4)
    return Minimum(p, z, kept, converged)


def _descent_step(e: Expansion, p: Tensor, z: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor, Tensor]:
    """Newton step within the box, and the decrease of the NLL that it promises.

    A coordinate that sits on the bound and wants to leave stays fixed.  Where the Hessian is not positive
    the coordinates are treated apart, with the size of their curvature.
    """
    p_fixed = ((p <= bounds.fraction_low) & (e.fraction > 0)) | (
        (p >= bounds.fraction_high) & (e.fraction < 0)
    )
    z_fixed = ((z <= bounds.nuisance_low) & (e.nuisance > 0)) | (
        (z >= bounds.nuisance_high) & (e.nuisance < 0)
    )
    tiny = torch.finfo(p.dtype).tiny
    gp, gz = torch.where(p_fixed, 0.0, e.fraction), torch.where(z_fixed, 0.0, e.nuisance)
    hpp, hzz = e.fraction2.abs().clamp(min=tiny), e.nuisance2.abs().clamp(min=tiny)
    coupled = ~p_fixed & ~z_fixed & (e.nuisance2 > 0) & (e.mixed.square() < 0.999 * hpp * hzz)
    # Scaled by the curvatures the matrix is [[1, rho], [rho, 1]], which cannot overflow.
    rho = torch.where(coupled, e.mixed / (hpp.sqrt() * hzz.sqrt()), 0.0)
    up, uz = gp / hpp.sqrt(), gz / hzz.sqrt()
    vp, vz = (up - rho * uz) / (1 - rho**2), (uz - rho * up) / (1 - rho**2)
    gain = (up * vp + uz * vz) / 2
    step_p, step_z = -vp / hpp.sqrt(), -vz / hzz.sqrt()
    largest_p = (bounds.fraction_high - bounds.fraction_low) / 4
    largest_z = (bounds.nuisance_high - bounds.nuisance_low) / 8
    excess = torch.maximum(step_p.abs() / largest_p, step_z.abs() / largest_z).clamp(min=1)
    gain = torch.where((e.nuisance2 > 0) | z_fixed, gain, torch.inf)
    return step_p / excess, step_z / excess, gain


class _Rows(NamedTuple):
    """Edge problems: the wanted parameter (target) and the profiled one (other), each (n_rows,)."""

    sets: Tensor
    of_fraction: Tensor
    sign: Tensor
    target_low: Tensor
    target_high: Tensor
    other_low: Tensor
    other_high: Tensor

    def take(self, chosen: Tensor) -> _Rows:
        return _Rows(*(t[chosen] for t in self))

    def points(self, target: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(self.of_fraction, target, other), torch.where(self.of_fraction, other, target)


class _Oriented(NamedTuple):
    """An expansion with its parameters renamed to target (t) and other (o)."""

    nll: Tensor
    t: Tensor
    o: Tensor
    tt: Tensor
    oo: Tensor
    to: Tensor


def _orient(e: Expansion, of_fraction: Tensor) -> _Oriented:
    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(of_fraction, a, b)

    first, second = (e.fraction, e.nuisance), (e.fraction2, e.nuisance2)
    return _Oriented(e.nll, pick(*first), pick(*first[::-1]), pick(*second), pick(*second[::-1]), e.mixed)


def _edge_rows(sets: Tensor, of_fraction: Tensor, sign: Tensor, bounds: Bounds) -> _Rows:
    low_p, high_p, low_z, high_z = (torch.full_like(sign, v) for v in bounds)
    return _Rows(
        sets,
        of_fraction,
        sign,
        torch.where(of_fraction, low_p, low_z),
        torch.where(of_fraction, high_p, high_z),
        torch.where(of_fraction, low_z, low_p),
        torch.where(of_fraction, high_z, high_p),
    )


def find_edges(sets: EventSets, best: Minimum, bounds: Bounds, level: float) -> Edges:
    """Edges where -2 log lambda of the profile reaches ``level``.

    Returns:
        Edges of shape ``(4 n_sets,)``: lower of p, upper of p, lower of z, upper of z, each for all sets.
    """
    n, device = sets.n_sets, best.fraction.device
    every = torch.arange(n, device=device).repeat(4)
    of_fraction = torch.arange(4, device=device).repeat_interleave(n) < 2
    sign = torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64, device=device).repeat_interleave(n)
    rows = _edge_rows(every, of_fraction, sign, bounds)
    e = _orient(Expansion(*(t.repeat(4) for t in best.expansion)), of_fraction)
    center_p, center_z = best.fraction.repeat(4), best.nuisance.repeat(4)
    center, other = torch.where(of_fraction, center_p, center_z), torch.where(of_fraction, center_z, center_p)
    slope = torch.where(e.oo > 0, -e.to / e.oo, 0.0)
    blocked = ((other <= rows.other_low) & (e.o > 0)) | ((other >= rows.other_high) & (e.o < 0))
    slope = torch.where(blocked, 0.0, slope)
    curvature = (e.tt + e.to * slope).clamp(min=torch.finfo(center.dtype).eps)
    # The gradient is not zero where the best fit sits on a bound.
    root = (e.t.square() + curvature * level).sqrt()
    scale = (root - sign * e.t) / curvature
    scale = scale.clamp(max=(rows.target_high - rows.target_low))
    target = (center + sign * scale).clamp(rows.target_low, rows.target_high)
    other = (other + slope * (target - center)).clamp(rows.other_low, rows.other_high)
    return _solve_edges(sets, rows, center, scale, target, other, e.nll, level)


def _solve_edges(
    sets: EventSets,
    rows: _Rows,
    center: Tensor,
    scale: Tensor,
    target: Tensor,
    other: Tensor,
    smallest: Tensor,
    level: float,
) -> Edges:
    """Newton iteration for the edges; ``scale`` is the expected distance from ``center``."""
    value, wanted = target.clone(), math.sqrt(level)
    is_open, converged = (torch.zeros_like(rows.of_fraction) for _ in range(2))
    end = torch.where(rows.sign > 0, rows.target_high, rows.target_low)
    inner, outer = center.clone(), rows.sign * torch.inf
    # A best fit on the outer bound has no room on that side: the edge is open at once.
    at_end = center == end
    value[at_end], is_open[at_end], converged[at_end] = end[at_end], True, True
    active = (~at_end).nonzero()[:, 0]
    for _ in range(_MAX_ITERATIONS):
        if active.numel() == 0:
            break
        part, t, o = rows.take(active), target[active], other[active]
        e = _orient(expand_nll(sets, part.sets, *part.points(t, o)), part.of_fraction)
        curved = e.oo > 0
        size = e.oo.abs().clamp(min=torch.finfo(t.dtype).tiny)
        free_o = (o - e.o / size).clamp(part.other_low, part.other_high) - o
        gain = -(e.o * free_o + size * free_o.square() / 2)
        root = (2 * (e.nll - gain - smallest[active])).clamp(min=0).sqrt()
        slope = e.t + e.to * free_o
        settled = curved & (gain < 0.05)
        below = root < wanted
        inner[active] = torch.where(settled & below, t, inner[active])
        outer[active] = torch.where(settled & ~below, t, outer[active])
        usable = curved & (slope * part.sign > 0)
        step = torch.where(usable, (wanted - root) * root / slope, 0.0)
        reach = scale[active]
        fallback = torch.where(below, 0.5, -0.25) * reach * part.sign
        step = torch.where(usable & (root > 0.05 * wanted), step, fallback).clamp(-reach, reach)
        new_t = (t + step).clamp(part.target_low, part.target_high)
        solved = usable & (gain < _PROFILE_GAIN) & ((root - wanted).abs() < _ROOT_TOLERANCE)
        ended = curved & (gain < _PROFILE_GAIN) & below & (t == end[active])
        new_t = torch.where(solved, new_t, _inside(new_t, inner[active], outer[active], part.sign))
        done = solved | ended
        value[active] = torch.where(ended, t, new_t)
        is_open[active] = ended
        converged[active] = done
        shift = (-(e.o + e.to * (new_t - t)) / size).clamp(-0.1 * _span(part), 0.1 * _span(part))
        target[active], other[active] = new_t, (o + shift).clamp(part.other_low, part.other_high)
        active = active[~done]
    return Edges(value, is_open, converged)


def _inside(t: Tensor, inner: Tensor, outer: Tensor, sign: Tensor) -> Tensor:
    """``t`` if it lies beyond ``inner`` and before ``outer``, else the point between the two."""
    good = (sign * (t - inner) > 0) & (sign * (outer - t) > 0)
    bounded = outer.isfinite()
    return torch.where(
        good | (~bounded & (sign * (t - inner) >= 0)), t, torch.where(bounded, (inner + outer) / 2, inner)
    )


def _span(rows: _Rows) -> Tensor:
    return rows.other_high - rows.other_low


def conditional_minimum(
    sets: EventSets, rows: Tensor, target: Tensor, other: Tensor, bounds: Bounds, *, of_fraction: bool
) -> tuple[Tensor, Tensor]:
    """Smallest NLL with one parameter held at ``target``, from a start ``other`` of the other one.

    Returns:
        The NLL and where it is reached, each shape ``(n_rows,)``.
    """
    flag = torch.full_like(rows, int(of_fraction)).bool()
    problem = _edge_rows(rows, flag, torch.ones_like(target), bounds)
    other = other.clone()
    nll = torch.full_like(target, torch.inf)
    place = other.clone()
    shrink = torch.ones_like(target)
    active = torch.arange(len(rows), device=rows.device)
    for _ in range(_MAX_ITERATIONS):
        part, t, o = problem.take(active), target[active], other[active]
        e = _orient(expand_nll(sets, part.sets, *part.points(t, o)), part.of_fraction)
        better = e.nll <= nll[active] + 1e-13 * nll[active].abs()
        limit = _span(part) / 8
        size = e.oo.abs().clamp(min=torch.finfo(t.dtype).tiny)
        move = (-e.o / size).clamp(-limit, limit)
        new = (o + move).clamp(part.other_low, part.other_high)
        gain = -(e.o * (new - o) + size * (new - o).square() / 2)
        done = better & (gain < _SMALL_GAIN) & ((e.oo > 0) | (new == o))
        taken = active[better]
        nll[taken], place[taken] = (
            (e.nll - torch.where(done, gain, 0.0))[better],
            torch.where(done, new, o)[better],
        )
        shrink[active] = torch.where(better, 1.0, shrink[active] / 4)
        # A step that raised the NLL is shortened toward the best place so far.
        retry = place[active] + (o - place[active]) / 4
        other[active] = torch.where(better, new, retry)
        active = active[~done]
        if active.numel() == 0:
            break
    return nll, place
