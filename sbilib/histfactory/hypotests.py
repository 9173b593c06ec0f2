r"""Hypothesis tests of the parameter of interest: CLs, CLs+b, CLb and p0, observed and expected.

Two fits to the data (free, and at the tested value), one at the alternative :math:`\mu'` that gives the
Asimov data, and one to the Asimov data at the tested value.  The free fit to Asimov data is never done: its
optimum is where the data came from.  The Asimov data depend on templates and data through the fit at
:math:`\mu'`, and so do their gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sbilib.errors import ParameterError, check_choice
from sbilib.histfactory.asymptotics import (
    TailProbabilities,
    expected_tail_probabilities,
    tail_probabilities,
)
from sbilib.histfactory.fits import check_data, fixed_poi_fit, poi_of, solve, value_tensor, with_poi
from sbilib.histfactory.implicit import (
    attached_minimum,
    attached_parameters,
    needs_gradient,
    newton_correction,
)
from sbilib.histfactory.model import Model
from sbilib.histfactory.solver import SolverSettings
from sbilib.histfactory.statistics import likelihood_ratio, statistic_bounds, statistic_of, two_starts
from sbilib.histfactory.toys import toy_probabilities

__all__ = ["HypotestResult", "asimov_data", "expected_hypotest", "hypotest"]


# Here only the smallest likelihood is wanted, whose error is the square of that of the parameters.
_VALUE_ONLY = SolverSettings(tolerance=1e-6)


@dataclass(frozen=True, eq=False)
class HypotestResult:
    """A hypothesis test; batch dimensions of templates, data and tested values in front.

    Attributes:
        CLs, CLsb, CLb: ``(*batch,)`` observed p-values; for ``q0`` CLsb is p0.
        CLs_expected, CLsb_expected, CLb_expected: ``(*batch, 5)`` at -2, -1, 0, 1, 2 standard deviations.
        statistic: ``(*batch,)`` of the data.
        asimov_statistic: ``(*batch,)`` of the Asimov data (for toys, the median of the alternative).
        poi: ``(*batch,)`` best fit of the parameter of interest.
        converged: ``(*batch,)`` whether all fits converged.
        test_stat: which statistic.
    """

    CLs: Tensor
    CLsb: Tensor
    CLb: Tensor
    CLs_expected: Tensor
    CLsb_expected: Tensor
    CLb_expected: Tensor
    statistic: Tensor
    asimov_statistic: Tensor
    poi: Tensor
    converged: Tensor
    test_stat: str

    @property
    def p0(self) -> Tensor:
        """Observed p-value of the background-only hypothesis, ``(*batch,)``.

        Raises:
            ParameterError: if the test was not one of discovery.
        """
        self._needs_discovery()
        return self.CLsb

    @property
    def p0_expected(self) -> Tensor:
        """p0 expected with the signal of the Asimov data, ``(*batch, 5)``.

        Raises:
            ParameterError: if the test was not one of discovery.
        """
        self._needs_discovery()
        return self.CLsb_expected

    def _needs_discovery(self) -> None:
        if self.test_stat != "q0":
            raise ParameterError(
                f"p0 belongs to test_stat='q0', got {self.test_stat!r}; run hypotest with 'q0'"
            )


def asimov_data(
    poi_value: float | Tensor,
    model: Model,
    *,
    data: Tensor | Sequence[float] | None = None,
    settings: SolverSettings | None = None,
) -> Tensor:
    """Return the data expected at a value of the POI, ``(*batch, bins + auxiliary)``.

    Args:
        poi_value: ``(*batch,)``.
        model: with a parameter of interest.
        data: where the nuisance parameters are fitted; without, they stay at ``model.initial``.
        settings: when the fit stops.

    Raises:
        ParameterError, DataError: as :func:`~sbilib.histfactory.fits.fixed_poi_fit`.

    Source: arXiv:1007.1727, section 3.2.

    >>> from sbilib.histfactory import uncorrelated_background
    >>> asimov_data(1.0, uncorrelated_background([12.0], [50.0], [5.0])).tolist()
    [62.0, 100.0]
    """
    if data is not None:
        return model.expected_data(fixed_poi_fit(poi_value, data, model, settings=settings).parameters)
    value = value_tensor(poi_value, model)
    return model.expected_data(with_poi(model.initial, value, poi_of(model)))


def hypotest(
    poi_value: float | Tensor,
    data: Tensor | Sequence[float],
    model: Model,
    *,
    test_stat: str = "qtilde",
    calculator: str = "asymptotic",
    n_toys: int = 2000,
    generator: torch.Generator | None = None,
    settings: SolverSettings | None = None,
) -> HypotestResult:
    r"""Test a value of the parameter of interest.

    .. math:: CL_s = \frac{CL_{s+b}}{CL_b} = \frac{P(q \ge q_{obs} \mid \mu)}{P(q \ge q_{obs} \mid \mu')}

    with :math:`\mu' = 0`, or for ``q0`` :math:`\mu = 0` and :math:`\mu' = 1`.

    Args:
        poi_value: ``(*batch,)`` tested values; zero for ``q0``.
        data: ``(*batch, bins + auxiliary)``.
        model: with a parameter of interest.
        test_stat: ``"qtilde"``, ``"q"`` or ``"q0"``.
        calculator: ``"asymptotic"`` or ``"toys"`` (not differentiable).
        n_toys: data sets for each of the two hypotheses.
        generator: for the toys, which need one.
        settings: when fits stop.

    Returns:
        p-values; with the asymptotic calculator differentiable in templates, data and tested values.

    Raises:
        ParameterError: for an unknown statistic or calculator, toys without a generator, or a POI that is
            missing, fixed, or has unsuitable bounds.
        DataError: as :func:`~sbilib.histfactory.fits.fit`.

    Source: arXiv:1007.1727; A. L. Read, J. Phys. G 28, 2693 (2002).

    >>> from sbilib.histfactory import uncorrelated_background
    >>> model = uncorrelated_background([12.0, 11.0], [50.0, 52.0], [3.0, 7.0])
    >>> test = hypotest(1.0, torch.cat([torch.tensor([51.0, 48.0]), model.auxiliary_data]), model)
    >>> round(float(test.CLs), 4), round(float(test.CLs_expected[2]), 4)
    (0.0525, 0.0645)
    """
    check_choice("test_stat", test_stat, ("qtilde", "q", "q0"))
    check_choice("calculator", calculator, ("asymptotic", "toys"))
    value = value_tensor(poi_value, model)
    if test_stat == "q0" and bool((value != 0).any()):
        raise ParameterError(f"q0 tests the value 0 of the POI, got {poi_value!r}; pass 0.0, or use 'qtilde'")
    # The background alone is always one of the hypotheses.
    checked = check_data(data, model, poi_value=torch.zeros_like(value))
    if calculator == "toys":
        return _toys(value, checked, model, test_stat, n_toys, generator, settings)
    return _asymptotic(value, checked, model, test_stat, settings)


def _asymptotic(
    value: Tensor, data: Tensor, model: Model, test_stat: str, settings: SolverSettings | None
) -> HypotestResult:
    index, bounds = poi_of(model), statistic_bounds(model, test_stat)
    begin, held = two_starts(model, value, data, None)
    alternative = torch.full_like(value, 1.0 if test_stat == "q0" else 0.0)
    # The third fit is that at the alternative.
    third = with_poi(begin[1], alternative, index).unsqueeze(0)
    begin = torch.cat([begin, third])
    solution = solve(
        model, data, start=begin, held=torch.cat([held, held[1:]]), bounds=bounds, settings=settings
    )
    observed = statistic_of(test_stat, value, data, model, type(solution)(*(f[:2] for f in solution)))
    origin = source = solution.parameters[2]
    if needs_gradient(model, data):
        movable = ~model.fixed.expand_as(origin) & ~held[1].expand_as(origin)
        source = attached_parameters(model, data, origin, movable=movable, bounds=bounds)
    asimov, done = _asimov_statistic(value, source, model, test_stat, settings)
    tails = tail_probabilities(observed.value, asimov, tilde=test_stat == "qtilde")
    return _result(
        tails,
        expected_tail_probabilities(asimov),
        observed.value,
        asimov,
        observed.poi,
        observed.converged & solution.converged[2] & done,
        test_stat,
    )


def _asimov_statistic(
    value: Tensor,
    origin: Tensor,
    model: Model,
    test_stat: str,
    settings: SolverSettings | None,
) -> tuple[Tensor, Tensor]:
    """Return the statistic of the data expected at parameters ``origin``, and whether its fit converged."""
    index = poi_of(model)
    data = model.expected_data(origin)
    held = torch.zeros_like(model.initial, dtype=torch.bool)
    held[index] = True
    start = _predicted(value, origin.detach(), data.detach(), model)
    solution = solve(model, data, start=start, held=held, settings=settings or _VALUE_ONLY)
    free = origin.detach().expand_as(solution.parameters)
    if needs_gradient(model, data, value):
        # Both likelihoods in one evaluation.
        nll = attached_minimum(model, data, torch.stack([free, solution.parameters]))
        if value.requires_grad:
            slope = model.detached().nll_derivatives(solution.parameters, data.detach())[1][..., index]
            nll = torch.stack([nll[0], nll[1] + slope * (value - value.detach())])
    else:
        nll = torch.stack([-model.logpdf(free, data), solution.nll])
    return likelihood_ratio(nll[1], nll[0], free[..., index], value, test_stat), solution.converged


@torch.no_grad()
def _predicted(value: Tensor, origin: Tensor, data: Tensor, model: Model) -> Tensor:
    """Predict the profile at the tested value from the curvature at the origin of the Asimov data."""
    index = poi_of(model)
    _, _, hessian = model.nll_derivatives(origin, data)
    movable = ~model.fixed
    movable[..., index] = False
    drift = newton_correction(hessian[..., index], hessian, movable.expand_as(hessian[..., index]))
    moved = origin + drift * (value - origin[..., index]).unsqueeze(-1)
    return with_poi(moved, value, index)


def expected_hypotest(
    poi_value: float | Tensor,
    model: Model,
    *,
    test_stat: str = "qtilde",
    settings: SolverSettings | None = None,
) -> HypotestResult:
    r"""Test a value of the POI with no data, on the Asimov data of the model as it is.

    Nuisance parameters are at ``model.initial``; the POI is zero, or one for ``q0``.  This takes one fit,
    and is meant for training loops; it equals :func:`hypotest` on those Asimov data.

    Args:
        poi_value: ``(*batch,)`` tested values; zero for ``q0``.
        model: with a parameter of interest.
        test_stat: ``"qtilde"``, ``"q"`` or ``"q0"``.
        settings: when fits stop.

    Returns:
        p-values, observed ones being the median expected; differentiable in templates and tested values.

    Raises:
        ParameterError: as :func:`hypotest`.

    >>> from sbilib.histfactory import uncorrelated_background
    >>> signal = torch.tensor([12.0, 11.0], dtype=torch.float64, requires_grad=True)
    >>> test = expected_hypotest(1.0, uncorrelated_background(signal, [50.0, 52.0], [3.0, 7.0]))
    >>> test.CLs.backward()
    >>> [round(value, 4) for value in signal.grad.tolist()]
    [-0.0139, -0.0086]
    """
    check_choice("test_stat", test_stat, ("qtilde", "q", "q0"))
    value, index = value_tensor(poi_value, model), poi_of(model)
    statistic_bounds(model, test_stat)
    truth = torch.full_like(value, 1.0 if test_stat == "q0" else 0.0)
    origin = with_poi(model.initial, truth, index)
    asimov, done = _asimov_statistic(value, origin, model, test_stat, settings)
    tails = tail_probabilities(asimov, asimov, tilde=test_stat == "qtilde")
    bands = expected_tail_probabilities(asimov)
    return _result(tails, bands, asimov, asimov, truth.expand_as(asimov), done, test_stat)


def _toys(
    value: Tensor,
    data: Tensor,
    model: Model,
    test_stat: str,
    n_toys: int,
    generator: torch.Generator | None,
    settings: SolverSettings | None,
) -> HypotestResult:
    if generator is None:
        raise ParameterError("toys need a generator, got None; pass torch.Generator().manual_seed(seed)")
    found = toy_probabilities(
        value, data, model, test_stat=test_stat, n_toys=n_toys, generator=generator, settings=settings
    )
    median = found.alternative_statistics.median(0).values
    return _result(
        found.observed, found.expected, found.statistic, median, found.poi, found.converged, test_stat
    )


def _result(
    tails: TailProbabilities,
    bands: TailProbabilities,
    statistic: Tensor,
    asimov: Tensor,
    poi: Tensor,
    converged: Tensor,
    test_stat: str,
) -> HypotestResult:
    return HypotestResult(
        tails.CLs,
        tails.CLsb,
        tails.CLb,
        bands.CLs,
        bands.CLsb,
        bands.CLb,
        statistic,
        asimov,
        poi,
        converged,
        test_stat,
    )
