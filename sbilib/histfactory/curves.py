r"""Profile curves q(mu) of many data sets at many tested values, for the search of limits.

Members of a batch are flattened; a *problem* is one limit of one member.  Each problem keeps the optimum of
its last profile fit and how it moves with :math:`\mu`, :math:`d\hat\theta_F/d\mu = -H_{FF}^{-1} H_{F\mu}`,
so that the next fit starts almost at its end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbilib.histfactory.asymptotics import tail_probabilities
from sbilib.histfactory.fits import flat_derivatives, poi_of, solve_flat
from sbilib.histfactory.implicit import attached_minimum, needs_gradient, newton_correction
from sbilib.histfactory.model import Model
from sbilib.histfactory.solver import SolverSettings
from sbilib.histfactory.statistics import likelihood_ratio

__all__ = ["Curves", "log_cls"]


def log_cls(statistic: Tensor, asimov: Tensor, tilde: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return ln CLs, attached to its arguments, and its detached derivatives by both.

    >>> value, by_data, _ = log_cls(torch.tensor([4.0]).double(), torch.tensor([4.0]).double(), True)
    >>> round(float(value), 3), round(float(by_data), 3)
    (-3.09, -0.394)
    """
    with torch.enable_grad():
        q, q_asimov = (each.detach().requires_grad_() for each in (statistic, asimov))
        value = tail_probabilities(q, q_asimov, tilde=tilde).CLs.log()
        by_data, by_asimov = torch.autograd.grad(value.sum(), (q, q_asimov))
    attached = value.detach()
    if statistic.requires_grad or asimov.requires_grad:
        attached = (
            attached + by_data * (statistic - statistic.detach()) + by_asimov * (asimov - asimov.detach())
        )
    return attached, by_data, by_asimov


class Curves:
    """The curves of the data and of their Asimov data.

    Args:
        model: templates, which may carry gradients.
        data: ``(*batch, bins + auxiliary)`` or None.
        asimov: ``(*batch, bins + auxiliary)`` at mu = 0, attached.
        free: ``(*batch, P)`` best fits to the data, or None.
        origin: ``(*batch, P)`` fits at mu = 0, where the Asimov data come from, detached.
        converged: ``(*batch,)`` whether these fits converged; fits of the curves are added.
        bounds: ``(P, 2)``.
        test_stat: ``"qtilde"`` or ``"q"``.
        settings: when fits stop.
    """

    def __init__(
        self,
        model: Model,
        data: Tensor | None,
        asimov: Tensor,
        free: Tensor | None,
        origin: Tensor,
        converged: Tensor,
        bounds: Tensor,
        test_stat: str,
        settings: SolverSettings | None,
    ) -> None:
        self.model, self.data, self.asimov, self.origin = model, data, asimov, origin
        self.bounds, self.test_stat, self.settings = bounds, test_stat, settings
        self.index, self.tilde = poi_of(model), test_stat == "qtilde"
        self.batch, self.device = origin.shape[:-1], origin.device
        self.size = self.batch.numel()
        self.needs_gradient = needs_gradient(model, data, asimov)
        with torch.no_grad():
            self._prepare(free)
        self._converged = converged.reshape(-1).clone()

    def _prepare(self, free: Tensor | None) -> None:
        size = self.origin.shape[-1]
        model = self.model.detached()
        detached = self.asimov.detach()
        self.held = torch.zeros(size, dtype=torch.bool, device=self.device)
        self.held[self.index] = True
        self.fixed = (self.model.fixed | self.held).expand(*self.batch, size).reshape(-1, size)
        self.flat_origin = self.origin.reshape(-1, size)
        self._asimov_nll = -model.logpdf(self.origin, detached).reshape(-1)
        self._on_asimov = flat_derivatives(model, detached, self.batch)
        hessian = self._on_asimov(self.flat_origin, None)[2]
        unit = torch.zeros_like(self.flat_origin)
        unit[:, self.index] = 1.0
        movable = (~self.model.fixed).expand(*self.batch, size).reshape(-1, size)
        variance = newton_correction(-unit, hessian, movable)[:, self.index]
        # Without information the width is unknown; the caller limits it to its range.
        self.sigma = torch.where(variance > 0, variance, torch.inf).sqrt()
        first = newton_correction(hessian[:, :, self.index], hessian, ~self.fixed)
        self._memory: dict[bool, tuple[Tensor, Tensor, Tensor]] = {}
        self._first = first
        self.poi: Tensor | None = None
        self.free = free
        if free is not None and self.data is not None:
            self.poi = free[..., self.index].reshape(-1)
            self._data_nll = -model.logpdf(free, self.data.detach()).reshape(-1)
            self._on_data = flat_derivatives(model, self.data.detach(), self.batch)

    @property
    def converged(self) -> Tensor:
        """Whether all fits so far converged, ``(*batch,)``."""
        return self._converged.view(self.batch)

    def asimov_statistic(self, problems: Tensor, members: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return q_A and its slope in mu at ``x``, each (n,)."""
        nll, slope = self._profile(True, problems, members, x)
        zero = torch.zeros_like(x)
        return likelihood_ratio(nll, self._asimov_nll[members], zero, x, self.test_stat), 2 * slope

    def data_statistic(self, problems: Tensor, members: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return q of the data and its slope in mu at ``x``, each (n,)."""
        nll, slope = self._profile(False, problems, members, x)
        q = likelihood_ratio(nll, self._data_nll[members], self._poi()[members], x, self.test_stat)
        return q, torch.where(q > 0, 2 * slope, 0.0)

    def _poi(self) -> Tensor:
        if self.poi is None:
            raise RuntimeError("these curves have no data")
        return self.poi

    def _profile(
        self, on_asimov: bool, problems: Tensor, members: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fit at fixed mu = x; return the smallest nll and its derivative in mu."""
        last, at, drift = self._remembered(on_asimov, problems, members)
        moved = x - at
        start = last + drift * moved.unsqueeze(-1)
        start[:, self.index] = x
        derivatives = self._on_asimov if on_asimov else self._on_data
        fixed = self.fixed[members]
        found = solve_flat(derivatives, members, start, self.bounds, fixed, self.model, self.settings)
        self._converged[members[~found.converged]] = False
        if found.hessian.shape[1]:
            free = ~fixed & ~found.at_bound
            drift = newton_correction(found.hessian[:, :, self.index], found.hessian, free)
        memory = self._memory[on_asimov]
        memory[0][problems], memory[1][problems], memory[2][problems] = found.position, x, drift
        return found.value, found.gradient[:, self.index]

    def _remembered(
        self, on_asimov: bool, problems: Tensor, members: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        if on_asimov not in self._memory:
            # The first call asks for all problems.
            at = torch.zeros(int(problems.max()) + 1, dtype=torch.float64, device=self.device)
            self._memory[on_asimov] = (self.flat_origin[members], at, self._first[members])
        last, at, drift = self._memory[on_asimov]
        return last[problems], at[problems], drift[problems]

    def last_parameters(self, on_asimov: bool, x: Tensor) -> Tensor:
        """Return the profile at the roots ``x`` (kinds, *batch), shape (kinds, *batch, P), fitted anew."""
        flat = x.detach().reshape(-1)
        problems = torch.arange(len(flat), device=self.device)
        members = problems % self.size
        with torch.no_grad():
            self._profile(on_asimov, problems, members, flat)
        return self._memory[on_asimov][0][: len(flat)].view(*x.shape, -1)

    def attached_asimov(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return q_A at (kinds, *batch) values, attached to templates and data, and its detached slope."""
        return self._attached(self.asimov, self.origin, self.last_parameters(True, x))

    def attached_data(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return q of the data at (*batch,) values, attached, and its detached slope."""
        if self.data is None or self.free is None:
            raise RuntimeError("these curves have no data")
        q, slope = self._attached(self.data, self.free, self.last_parameters(False, x))
        above = self.free[..., self.index] < x.detach()
        return torch.where(above, q, 0.0), torch.where(above, slope, 0.0)

    def _attached(self, data: Tensor, free: Tensor, profile: Tensor) -> tuple[Tensor, Tensor]:
        held = attached_minimum(self.model, data, profile)
        smallest = attached_minimum(self.model, data, free)
        with torch.no_grad():
            slope = self.model.detached().nll_derivatives(profile, data.detach())[1][..., self.index]
        return 2 * (held - smallest), 2 * slope
