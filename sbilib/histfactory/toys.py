r"""Hypothesis tests with pseudo-data ("toys") instead of asymptotic formulae, all toys in one batch.

Toys are drawn with the nuisance parameters at their best fit to the data for each hypothesis, main and
auxiliary data alike, and

.. math:: CL_{s+b} = \frac{\#\{q^{(s+b)} \ge q_{obs}\}}{n}, \qquad CL_b = \frac{\#\{q^{(b)} \ge q_{obs}\}}{n}.

Source: ATLAS and CMS Collaborations, Procedure for the LHC Higgs boson search combination in Summer 2011,
ATL-PHYS-PUB-2011-11.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.errors import check_count
from sbilib.histfactory.asymptotics import BANDS, TailProbabilities
from sbilib.histfactory.fits import poi_of, solve, with_poi
from sbilib.histfactory.model import Model
from sbilib.histfactory.solver import SolverSettings
from sbilib.histfactory.statistics import evaluate_statistic, statistic_bounds, statistic_of, two_starts

__all__ = ["ToyResult", "sample_data", "toy_probabilities"]


_TIE = 1e-8


class ToyResult(NamedTuple):
    """A toy-based test; batch dimensions in front.

    Attributes:
        observed: p-values of the data, each (*batch,).
        expected: p-values of toys of the alternative at -2, -1, 0, 1, 2 standard deviations, each (*batch,
            5).
        statistic, poi: (*batch,) of the data.
        tested_statistics, alternative_statistics: (n_toys, *batch) of the toys of both hypotheses.
        converged: (*batch,) whether the fits to the data converged.
        n_failed: fits to toys that did not converge (their best point is used).
    """

    observed: TailProbabilities
    expected: TailProbabilities
    statistic: Tensor
    poi: Tensor
    tested_statistics: Tensor
    alternative_statistics: Tensor
    converged: Tensor
    n_failed: int


def sample_data(parameters: Tensor, model: Model, n: int, *, generator: torch.Generator) -> Tensor:
    """Draw data sets, main and auxiliary, at given parameters.

    Args:
        parameters: ``(*batch, P)``.
        model: whose templates broadcast with the parameters.
        n: data sets for each member of the batch.
        generator: of the random numbers, on the device of the model.

    Returns:
        ``(n, *batch, bins + auxiliary)``.

    Raises:
        ParameterError: if n is not a positive integer.

    >>> from sbilib.histfactory import uncorrelated_background
    >>> model = uncorrelated_background([12.0], [50.0], [5.0])
    >>> sample_data(model.initial, model, 3, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([3, 2])
    """
    check_count("n", n, low=1)
    with torch.no_grad():
        expected = model.expected_data(parameters)
        mean = expected.expand(n, *expected.shape)
        data = torch.poisson(mean.clamp_min(0), generator=generator)
        gaussian = model.n_bins + model._plan.gaussian[1]
        center = mean.index_select(-1, gaussian)
        noise = torch.randn(center.shape, generator=generator, dtype=center.dtype, device=center.device)
        data[..., gaussian] = center + noise * model._terms.sigma
    return data


@torch.no_grad()
def toy_probabilities(
    poi_value: Tensor,
    data: Tensor,
    model: Model,
    *,
    test_stat: str,
    n_toys: int,
    generator: torch.Generator,
    settings: SolverSettings | None = None,
) -> ToyResult:
    """Test a value of the POI with toys; see :func:`~sbilib.histfactory.hypotests.hypotest`.

    Args:
        poi_value: ``(*batch,)`` tested values.
        data: ``(*batch, bins + auxiliary)``.
        model: with a parameter of interest.
        test_stat: ``"qtilde"``, ``"q"`` or ``"q0"``.
        n_toys: data sets for each of the two hypotheses.
        generator: of the random numbers.
        settings: when fits stop.

    Raises:
        ParameterError, DataError: as :func:`~sbilib.histfactory.hypotests.hypotest`.
    """
    model = model.detached()
    observed = evaluate_statistic(test_stat, poi_value, data, model, settings=settings)
    alternative = torch.full_like(poi_value, 1.0 if test_stat == "q0" else 0.0)
    tested = observed.parameters[1]
    held = torch.zeros_like(model.initial, dtype=torch.bool)
    held[poi_of(model)] = True
    other = solve(
        model, data, start=with_poi(tested, alternative, poi_of(model)), held=held, settings=settings
    )
    truth = torch.stack([tested, other.parameters])
    toys = sample_data(truth, model, n_toys, generator=generator)
    # A toy is like its truth, so fits start there; all fits of all toys are one batch.
    start = torch.stack([truth.expand(n_toys, *truth.shape), tested.expand(n_toys, *truth.shape)])
    begin, held_toys = two_starts(model, poi_value, toys, start)
    bounds = statistic_bounds(model, test_stat)
    fits = solve(model, toys, start=begin, held=held_toys, bounds=bounds, settings=settings)
    statistics = statistic_of(test_stat, poi_value, toys, model, fits).value
    signal, background = statistics.unbind(1)
    return ToyResult(
        _fractions(observed.value.unsqueeze(0), signal, background, squeeze=True),
        _bands(signal, background),
        observed.value,
        observed.poi,
        signal,
        background,
        observed.converged & other.converged,
        int((~fits.converged).sum()),
    )


def _above(samples: Tensor, values: Tensor) -> Tensor:
    """Fraction of samples (n, *batch) that are at least ``values`` (m, *batch), shape (m, *batch)."""
    ordered = samples.movedim(0, -1).sort(-1).values.contiguous()
    # Equal counts give equal statistics, but for rounding; ties belong to the tail.
    limits = (values - _TIE * (1 + values)).movedim(0, -1).contiguous()
    below = torch.searchsorted(ordered, limits)
    return (1 - below.to(samples.dtype) / samples.shape[0]).movedim(-1, 0)


def _fractions(
    values: Tensor, signal: Tensor, background: Tensor, *, squeeze: bool = False
) -> TailProbabilities:
    tested, alternative = _above(signal, values), _above(background, values)
    # Where no toy of either hypothesis lies above, the ratio is undefined: nothing is excluded.
    ratio = torch.where(alternative > 0, tested / alternative.clamp_min(1 / (2 * len(background))), 1.0)
    found = TailProbabilities(tested, alternative, ratio)
    return TailProbabilities(*(field[0] for field in found)) if squeeze else found


def _bands(signal: Tensor, background: Tensor) -> TailProbabilities:
    """Quantiles of the p-values over the toys of the alternative."""
    bands = torch.tensor(BANDS, dtype=signal.dtype, device=signal.device)
    quantiles = torch.special.ndtr(bands)
    values = _fractions(background, signal, background)
    return TailProbabilities(*(field.quantile(quantiles, dim=0).movedim(0, -1) for field in values))
