r"""Upper limits: the value of the parameter of interest at which CLs falls to a level.

The expected limits need no p-values: the band at n standard deviations lies where

.. math:: \sqrt{q_A(\mu)} = n - \Phi^{-1}(\alpha\, \Phi(n)),

and :math:`\sqrt{q_A}` is nearly linear in :math:`\mu`.  The observed limit solves :math:`\ln CL_s(\mu) = \ln
\alpha`. All are found together by a Newton iteration kept inside a bracket, with slopes from the envelope
theorem, :math:`dq/d\mu = 2\, \partial_\mu L`, and profile fits that start from the previous ones.  Gradients
follow from the implicit function theorem, :math:`d\mu/dt = -(\partial F/\partial t) / (\partial
F/\partial\mu)`.

Source: G. Cowan, K. Cranmer, E. Gross and O. Vitells, Eur. Phys. J. C 71, 1554 (2011), arXiv:1007.1727,
equation 89.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sbilib.errors import ParameterError, check_choice, check_range
from sbilib.histfactory.asymptotics import BANDS, root_of_expected_limit
from sbilib.histfactory.curves import Curves, log_cls
from sbilib.histfactory.fits import check_data, poi_of, solve, with_poi
from sbilib.histfactory.implicit import attached_parameters, broadcast_batch, needs_gradient
from sbilib.histfactory.model import Model
from sbilib.histfactory.solver import SolverSettings
from sbilib.histfactory.statistics import statistic_bounds

__all__ = ["LimitResult", "upper_limit"]

_MAX_ITERATIONS = 60
# A Newton step smaller than this fraction of the value is the last one; its error is about the square.
_SMALL_STEP = 1e-5


@dataclass(frozen=True, eq=False)
class LimitResult:
    """Upper limits; batch dimensions of templates and data in front.

    Attributes:
        observed: ``(*batch,)``; without data, the median expected limit.  Infinite where the limit lies
            beyond the scan range.
        expected: ``(*batch, 5)`` at -2, -1, 0, 1, 2 standard deviations, likewise.
        in_range, expected_in_range: whether each limit lies in the scan range.
        converged: ``(*batch,)`` whether all fits and all roots converged.
        level: the CLs at the limits.
        scan_range: where they were looked for.
    """

    observed: Tensor
    expected: Tensor
    in_range: Tensor
    expected_in_range: Tensor
    converged: Tensor
    level: float
    scan_range: tuple[float, float]


def upper_limit(
    data: Tensor | Sequence[float] | None,
    model: Model,
    *,
    level: float = 0.05,
    test_stat: str = "qtilde",
    scan_range: tuple[float, float] | None = None,
    settings: SolverSettings | None = None,
) -> LimitResult:
    r"""Find the observed and expected upper limits on the parameter of interest.

    Args:
        data: ``(*batch, bins + auxiliary)``; ``None`` for limits expected of the model as it is (nuisance
            parameters at ``model.initial``).
        model: with a parameter of interest; its templates may have batch dimensions.
        level: CLs at the limit.
        test_stat: ``"qtilde"`` or ``"q"``.
        scan_range: where to look, by default from zero to the upper bound of the parameter.
        settings: when fits stop.

    Returns:
        The limits, differentiable in templates and data.  A limit beyond the scan range is infinite and
        flagged.

    Raises:
        ParameterError: for a level outside (0, 1), a range that is empty or starts below zero, an unknown
            statistic, or a POI that is missing, fixed, or has unsuitable bounds.
        DataError: as :func:`~sbilib.histfactory.fits.fit`.

    >>> from sbilib.histfactory import uncorrelated_background
    >>> model = uncorrelated_background([12.0, 11.0], [50.0, 52.0], [3.0, 7.0])
    >>> limits = upper_limit(torch.cat([torch.tensor([51.0, 48.0]), model.auxiliary_data]), model)
    >>> round(float(limits.observed), 4), round(float(limits.expected[2]), 4)
    (1.0116, 1.0624)
    """
    check_range("level", level, low=0, high=1, include_low=False, include_high=False)
    check_choice("test_stat", test_stat, ("qtilde", "q"))
    low, high = _scan_range(scan_range, model)
    curves = _curves(data, model, test_stat, settings)
    search = _Search(curves, level, low, high)
    search.run()
    values = search.value
    if curves.needs_gradient:
        values = _attached(curves, values, search.found, level)
    # A limit beyond the range is not the end of the range.
    values = torch.where(search.found, values, torch.inf)
    observed, bands, found = values[0], values[-5:].movedim(0, -1), search.found
    if data is None:
        observed = bands[..., 2]
    return LimitResult(
        observed,
        bands,
        found[0] if data is not None else found[2],
        found[-5:].movedim(0, -1),
        curves.converged & search.converged.all(0),
        level,
        (low, high),
    )


def _scan_range(scan_range: tuple[float, float] | None, model: Model) -> tuple[float, float]:
    low, high = (0.0, float(model.bounds[poi_of(model), 1])) if scan_range is None else scan_range
    check_range("the start of scan_range", low, low=0.0)
    check_range("the end of scan_range", high)
    if not low < high:
        raise ParameterError(
            f"scan_range must have low < high, got ({low:g}, {high:g}); pass for instance (0.0, 10.0)"
        )
    return low, high


def _curves(
    data: Tensor | Sequence[float] | None, model: Model, test_stat: str, settings: SolverSettings | None
) -> Curves:
    """Do the fits that do not depend on the tested value."""
    index, bounds = poi_of(model), statistic_bounds(model, test_stat)
    zero = torch.zeros((), dtype=torch.float64, device=model.device)
    held = torch.zeros_like(model.initial, dtype=torch.bool)
    held[index] = True
    origin = with_poi(model.initial, zero, index)
    if data is None:
        asimov = model.expected_data(origin)
        origin = origin.expand(*asimov.shape[:-1], -1)
        fine = torch.ones(asimov.shape[:-1], dtype=torch.bool, device=model.device)
        return Curves(model, None, asimov, None, origin, fine, bounds, test_stat, settings)
    checked = check_data(data, model, poi_value=zero)
    begin = torch.stack([model.initial, origin])
    holds = torch.stack([torch.zeros_like(held), held])
    batch = broadcast_batch(model.batch_shape, checked.shape[:-1])
    begin, holds = (each.view(2, *[1] * len(batch), -1) for each in (begin, holds))
    fits = solve(model, checked, start=begin, held=holds, bounds=bounds, settings=settings)
    free, origin = fits.parameters
    source = origin
    if needs_gradient(model, checked):
        movable = (~model.fixed & ~held).expand_as(origin)
        source = attached_parameters(model, checked, origin, movable=movable, bounds=bounds)
    asimov = model.expected_data(source)
    return Curves(model, checked, asimov, free, origin, fits.converged.all(0), bounds, test_stat, settings)


class _Search:
    """The roots of one observed and five expected conditions for every member of the batch, flattened."""

    def __init__(self, curves: Curves, level: float, low: float, high: float) -> None:
        self.curves, self.level, self.low, self.high = curves, level, low, high
        kinds = len(BANDS) + (curves.data is not None)
        self.shape = (kinds, *curves.batch)
        self.targets = root_of_expected_limit(level, device=curves.device)
        size = math.prod(self.shape)
        place = torch.arange(size, device=curves.device)
        self.member, self.kind = place % max(curves.size, 1), place // max(curves.size, 1) - (kinds - 5)
        self.x = self._first_guess()
        self.lower, self.upper = torch.full_like(self.x, low), torch.full_like(self.x, torch.inf)
        self.is_found, self.is_done = (
            torch.zeros(size, dtype=torch.bool, device=place.device) for _ in range(2)
        )

    @property
    def value(self) -> Tensor:
        return self.x.view(self.shape)

    @property
    def found(self) -> Tensor:
        return self.is_found.view(self.shape)

    @property
    def converged(self) -> Tensor:
        return self.is_done.view(self.shape)

    def _first_guess(self) -> Tensor:
        """Use Wald's relation: the band at n lies at sigma times its root."""
        sigma = self.curves.sigma.clamp(max=(self.high - self.low) / 4)
        band = torch.where(self.kind < 0, 2, self.kind)
        guess = sigma[self.member] * self.targets[band]
        if self.curves.poi is not None:
            pull = (self.curves.poi / sigma).clamp(-3, 30)[self.member]
            wald = pull - torch.special.ndtri(self.level * torch.special.ndtr(pull))
            guess = torch.where(self.kind < 0, sigma[self.member] * wald, guess)
        span = self.high - self.low
        return guess.clamp(self.low + 1e-6 * span, self.high)

    @torch.no_grad()
    def run(self) -> None:
        """Iterate until every root is found or known to lie beyond the range."""
        active = torch.arange(len(self.x), device=self.x.device)
        for _ in range(_MAX_ITERATIONS):
            if len(active) == 0:
                return
            x, kind = self.x[active], self.kind[active]
            excess, slope = self._condition(active, x, kind)
            below = excess < 0
            lower = self.lower[active] = torch.where(below, x, self.lower[active])
            upper = self.upper[active] = torch.where(below, self.upper[active], x)
            step = -excess / torch.where(slope > 0, slope, torch.inf)
            new = self._inside(x, x + step, lower, upper, slope > 0)
            beyond = below & (x >= self.high)
            small = (step.abs() <= _SMALL_STEP * x.abs()) & (slope > 0)
            closed = upper.isfinite() & (upper - lower <= 1e-12 * upper)
            solved = (small | closed) & ~beyond
            self.x[active] = torch.where(
                beyond, x, torch.where(solved, x + torch.where(small, step, 0.0), new)
            )
            self.is_found[active] = solved
            self.is_done[active] = solved | beyond
            active = active[~(solved | beyond)]

    def _inside(self, x: Tensor, new: Tensor, lower: Tensor, upper: Tensor, usable: Tensor) -> Tensor:
        """Keep the Newton step if it stays in the bracket; otherwise halve the bracket or go on outward."""
        bounded = upper.isfinite()
        # An open bracket grows by at most a factor of four a time.
        new = torch.where(bounded, new, torch.minimum(new, 4 * x)).clamp(max=self.high)
        good = usable & (new > lower) & (new < upper)
        fallback = torch.where(bounded, (lower + upper) / 2, (2 * x).clamp(max=self.high))
        return torch.where(good, new, fallback)

    def _condition(self, active: Tensor, x: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        """Return what must vanish, rising in x, and its slope."""
        member, observed = self.member[active], kind < 0
        q, rise = self.curves.asimov_statistic(active, member, x)
        reach = q.sqrt()
        excess = reach - self.targets[kind.clamp_min(0)]
        slope = rise / (2 * reach.clamp_min(1e-30))
        if bool(observed.any()):
            data_q, data_rise = self.curves.data_statistic(active[observed], member[observed], x[observed])
            log_ratio, by_data, by_asimov = log_cls(data_q, q[observed], self.curves.tilde)
            excess[observed] = math.log(self.level) - log_ratio
            slope[observed] = -(by_data * data_rise + by_asimov * rise[observed])
        return excess, slope


def _attached(curves: Curves, values: Tensor, found: Tensor, level: float) -> Tensor:
    """Attach gradients by the implicit function theorem to roots (kinds, *batch)."""
    x = torch.where(found, values, 1.0)
    asimov_q, rise = curves.attached_asimov(x)
    asimov_reach = asimov_q.clamp_min(1e-300).sqrt()
    condition, slope = asimov_reach, rise / (2 * asimov_reach.detach())
    if curves.data is not None:
        data_q, data_rise = curves.attached_data(x[0])
        log_ratio, by_data, by_asimov = log_cls(data_q, asimov_q[0], curves.tilde)
        first = math.log(level) - log_ratio
        first_slope = -(by_data * data_rise + by_asimov * rise[0]).detach()
        condition = torch.cat([first.unsqueeze(0), condition[1:]])
        slope = torch.cat([first_slope.unsqueeze(0), slope[1:]])
    usable = found & (slope > 0)
    shift = torch.where(usable, (condition - condition.detach()) / torch.where(usable, slope, 1.0), 0.0)
    return values - shift
