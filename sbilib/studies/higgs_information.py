r"""How much information on signal ratio and energy scale is in which features, from the scores of one model.

With the rate density :math:`\lambda(x) = \nu_s p_s(x \mid z) + \nu_b p_b(x \mid z)` of the events that pass,
the *score* of an event is :math:`t = \nabla \log \lambda(x)`, the derivatives by :math:`\mu` and :math:`z`.
The Fisher information of the extended likelihood is a sum of two parts,

.. math:: I = \nu\, \mathrm E[t t^T] = \nu \operatorname{Cov}(t) + \nu\, g g^T, \qquad
          g = \mathrm E[t] = \nabla \log \nu ,

the first that of the shapes, the second that of the number of events.  If only some features :math:`x_S` are
kept, the score becomes :math:`\mathrm E[t \mid x_S]`.  A regression :math:`q(x_S)` of the score gives a bound
from below: as observables, the means of q have the information

.. math:: I_q = \nu\, A^T V^{-1} A, \qquad A = \operatorname{Cov}(q, t), \quad V = \operatorname{Cov}(q)

of the shapes (Brehmer, Cranmer, Louppe and Pavez, Phys. Rev. D 98 (2018) 052004, on scores as observables).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.components import ComponentDensities
from sbilib.errors import DataError, ParameterError, check_count, check_range
from sbilib.likelihood.extended import ExpectedYields

__all__ = ["EventScores", "Widths", "event_scores", "explained_information", "greedy_features", "widths_of"]

_STEP = 0.01
_RIDGE = 1e-6
_REACH = 3.5


class Widths(NamedTuple):
    """Expected widths of 68.3% intervals, twice the standard deviations."""

    mu: float
    """Of the signal ratio, the energy scale profiled."""
    z: float
    """Of the energy scale, the signal ratio profiled."""
    mu_fixed: float
    """Of the signal ratio where the energy scale is known."""


class EventScores(NamedTuple):
    """Scores of events of both components, weighted to the mixture."""

    scores: Tensor
    """Derivatives of the log rate density by signal ratio and energy scale, ``(n, 2)``, float64."""
    weights: Tensor
    """Expected events that each stands for, ``(n,)``; their sum is the expected number."""

    def shape_information(self) -> Tensor:
        """Information of the shapes, ``(2, 2)``."""
        offset = self.scores - self.mean()
        return (self.weights[:, None] * offset).T @ offset

    def rate_information(self) -> Tensor:
        """Information of the number of events, ``(2, 2)``, of rank one."""
        mean = self.mean()
        return self.weights.sum() * torch.outer(mean, mean)

    def mean(self) -> Tensor:
        """Mean score ``(2,)``: the derivatives of the log of the expected number."""
        return (self.weights @ self.scores) / self.weights.sum()


def widths_of(information: Tensor) -> Widths:
    """Widths that a ``(2, 2)`` information matrix allows.

    Raises:
        DataError: if it is singular: the data cannot tell the two parameters apart.

    Example:
        >>> widths_of(torch.tensor([[4.0, 0.0], [0.0, 100.0]], dtype=torch.float64))
        Widths(mu=1.0, z=0.2, mu_fixed=1.0)
    """
    if not bool(torch.linalg.matrix_rank(information.double()) == 2):
        raise DataError("the information matrix is singular; signal ratio and energy scale move alike")
    deviations = 2 * torch.linalg.inv(information).diagonal().sqrt()
    fixed = 2 / float(information[0, 0]) ** 0.5
    return Widths(round(float(deviations[0]), 9), round(float(deviations[1]), 9), round(fixed, 9))


def event_scores(
    densities: ComponentDensities,
    signal: Tensor,
    background: Tensor,
    yields: ExpectedYields,
    *,
    signal_ratio: float = 0.2,
    nuisance: float = 1.0,
) -> EventScores:
    """Scores of events at one pair of parameters.

    Args:
        densities: of the events, from a model that has not been trained on them.
        signal: events ``(n_s, d)`` at that nuisance value.
        background: events ``(n_b, d)``, likewise.
        yields: expected numbers of events.
        signal_ratio: positive.
        nuisance: a difference of 0.01 on either side of it gives the derivatives.

    Raises:
        ParameterError: for a signal ratio that is not positive.
    """
    check_range("signal_ratio", signal_ratio, low=0.0, include_low=False)
    z = nuisance + _STEP * torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    found = densities.log_components(torch.cat((signal, background)).double(), z)
    rates = yields.log_efficiencies(z)
    log_signal = found.signal + rates[0] + torch.tensor(signal_ratio, dtype=torch.float64).log()
    log_background = found.background + rates[1]
    share = torch.sigmoid(log_signal[:, 1] - log_background[:, 1])
    slopes = [(each[:, 2] - each[:, 0]) / (2 * _STEP) for each in (log_signal, log_background)]
    scores = torch.stack((share / signal_ratio, share * slopes[0] + (1 - share) * slopes[1]), dim=1)
    expected = [yields.background * float(rate[1].exp()) for rate in rates]
    weights = torch.cat(
        (
            torch.full((len(signal),), signal_ratio * expected[0] / len(signal), dtype=torch.float64),
            torch.full((len(background),), expected[1] / len(background), dtype=torch.float64),
        )
    )
    return EventScores(scores, weights)


def explained_information(coordinates: Tensor, scores: EventScores, *, degree: int = 3) -> Tensor:
    """Information of the shapes that a polynomial of some coordinates has, a bound from below.

    The polynomial is fitted to every second event and judged on the others, and the other way round.

    Args:
        coordinates: standardized features ``(n, k)``; values beyond 3.5 count as 3.5.
        scores: of the same events.
        degree: total degree of the polynomial.

    Returns:
        Information ``(2, 2)``, the mean of both halves.

    Raises:
        DataError: if numbers of events differ.
    """
    check_count("degree", degree, low=1)
    if len(coordinates) != len(scores.scores):
        raise DataError(f"{len(coordinates)} events have coordinates, {len(scores.scores)} have scores")
    basis = _polynomials(coordinates.double().clamp(-_REACH, _REACH), degree)
    halves = (slice(0, None, 2), slice(1, None, 2))
    parts = [_explained(basis, scores, fit, judge) for fit, judge in (halves, halves[::-1])]
    return (parts[0] + parts[1]) / 2


def greedy_features(
    coordinates: Tensor,
    names: Sequence[str],
    scores: EventScores,
    *,
    start: Sequence[str],
    candidates: Sequence[str],
    n_features: int,
) -> list[tuple[str, Widths]]:
    """Add one feature after the other, each time the one that makes the product of both widths smallest.

    Args:
        coordinates: standardized features ``(n, d)``.
        names: of its columns.
        scores: of the same events.
        start: features that are there already.
        candidates: what may be added.
        n_features: how many there are in the end.

    Returns:
        The added features, and the widths of the shapes after each.

    Raises:
        ParameterError: for an unknown name or too few candidates.
    """
    unknown = [name for name in (*start, *candidates) if name not in names]
    if unknown or len(set(start) | set(candidates)) < n_features:
        raise ParameterError(
            f"start and candidates must be at least {n_features} of the columns, unknown: {unknown}"
        )
    chosen, path = list(start), []
    while len(chosen) < n_features:
        tried = {
            name: widths_of(explained_information(_columns(coordinates, names, [*chosen, name]), scores))
            for name in candidates
            if name not in chosen
        }
        best = min(tried, key=lambda name: tried[name].mu * tried[name].z)
        chosen.append(best)
        path.append((best, tried[best]))
    return path


def _columns(coordinates: Tensor, names: Sequence[str], chosen: Sequence[str]) -> Tensor:
    return coordinates[:, [list(names).index(name) for name in chosen]]


def _polynomials(x: Tensor, degree: int) -> Tensor:
    """All products of up to ``degree`` coordinates, ``(n, n_terms)``, the constant first."""
    terms = [torch.ones(len(x), dtype=x.dtype)]
    for order in range(1, degree + 1):
        terms += [
            x[:, list(each)].prod(dim=1) for each in combinations_with_replacement(range(x.shape[1]), order)
        ]
    return torch.stack(terms, dim=1)


def _explained(basis: Tensor, scores: EventScores, fit: slice, judge: slice) -> Tensor:
    """Information of the polynomial fitted to events ``fit`` in the events ``judge``."""
    weighted = scores.weights[fit, None] * basis[fit]
    normal = weighted.T @ basis[fit]
    normal += _RIDGE * torch.diag(normal.diagonal())
    coefficients = torch.linalg.solve(normal, weighted.T @ scores.scores[fit])
    predicted, true = basis[judge] @ coefficients, scores.scores[judge]
    weights = scores.weights[judge] * (scores.weights.sum() / scores.weights[judge].sum())
    centered = [each - (weights @ each) / weights.sum() for each in (predicted, true)]
    cross = (weights[:, None] * centered[0]).T @ centered[1]
    own = (weights[:, None] * centered[0]).T @ centered[0]
    information: Tensor = cross.T @ torch.linalg.solve(own, cross)
    return information
