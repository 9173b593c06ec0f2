r"""What coverage to expect, in the limit of normal estimates.

The estimate from a bootstrap set of ``n`` events scatters around that of its test set of ``N = k n`` events
with variance :math:`\sigma^2/n`, and the latter around the truth with :math:`(1 - \rho)\,\sigma^2/N`.  The
share :math:`\rho` of the variance belongs to the number of signal events; it is missing where that number is
fixed.
An interval of half-width :math:`\sigma/\sqrt n` then covers the truth with probability

.. math:: C_\rho(k) = 2\,\Phi\!\left(\frac{1}{\sqrt{1 + (1 - \rho)/k}}\right) - 1 .

For the signal fraction :math:`f` the count term is that of a binomial fraction, so
:math:`\rho = f(1 - f)/\sigma_f^2`; for the nuisance parameter it is zero.
"""

from __future__ import annotations

import math

import torch
from torch import Generator

from sbilib.errors import check_range
from sbilib.problems import make_toys
from sbilib.problems.base import ExactProblem

__all__ = ["count_variance_share", "expected_bootstrap_coverage", "expected_fixed_count_coverage"]


def expected_bootstrap_coverage(k: float, *, count_share: float = 0.0) -> float:
    r"""Coverage of 68.3% intervals of bootstrap sets, :math:`C_\rho(k)`.

    Args:
        k: events of the test set over events of a bootstrap set, positive.
        count_share: share :math:`\rho` of the variance that comes from the number of signal events, in
            [0, 1], if the test set has a fixed number of them; 0 if it is binomial.

    Raises:
        ParameterError: for values outside these ranges.

    >>> [round(expected_bootstrap_coverage(k), 3) for k in (1, 9, 50)]
    [0.52, 0.657, 0.678]
    >>> round(expected_bootstrap_coverage(1, count_share=1.0), 3)
    0.683
    """
    check_range("k", k, low=0.0, include_low=False)
    check_range("count_share", count_share, low=0.0, high=1.0)
    # 2 Phi(x) - 1 = erf(x / sqrt 2).
    return math.erf(1 / math.sqrt(2 * (1 + (1 - count_share) / k)))


def expected_fixed_count_coverage(count_share: float) -> float:
    r"""Coverage of 68.3% intervals in toys with fixed counts, :math:`2\Phi(1/\sqrt{1 - \rho}) - 1`.

    Raises:
        ParameterError: if ``count_share`` is not in [0, 1).

    >>> round(expected_fixed_count_coverage(0.0), 3), round(expected_fixed_count_coverage(0.75), 3)
    (0.683, 0.954)
    """
    check_range("count_share", count_share, low=0.0, high=1.0, include_high=False)
    return math.erf(1 / math.sqrt(2 * (1 - count_share)))


def count_variance_share(
    problem: ExactProblem, *, signal_ratio: float, nuisance: float, seed: int, n_events: int = 200_000
) -> float:
    r"""Share :math:`\rho = f(1-f)/\sigma_f^2` of the variance of the signal ratio that is due to counts.

    The variance :math:`\sigma_f^2 = (I^{-1})_{ff}` of one event comes from the Fisher information of
    :math:`f` and :math:`z`, the mean product of the scores over simulated events.

    Args:
        problem: a problem with exact densities.
        signal_ratio: true ratio, positive.
        nuisance: true nuisance value inside the trained range.
        seed: seed of the events.
        n_events: simulated events; the error of the result is of order ``1/sqrt(n_events)``.

    Raises:
        ParameterError: if ``signal_ratio`` is not positive.

    >>> from sbilib.problems import GaussianToy
    >>> round(count_variance_share(GaussianToy(10.0), signal_ratio=0.2, nuisance=0.8, seed=1), 2)
    1.0
    """
    check_range("signal_ratio", signal_ratio, low=0.0, include_low=False)
    generator = Generator().manual_seed(seed)
    events = make_toys(
        problem,
        signal_ratio=signal_ratio,
        nuisance=nuisance,
        n_toys=1,
        n_events=n_events,
        generator=generator,
    )[0]
    step = 1e-4 * (problem.nuisance_range[1] - problem.nuisance_range[0])
    points = nuisance + step * torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    pair = problem.log_components(events, points)
    fraction = signal_ratio / (1 + signal_ratio)
    mixture = torch.logaddexp(
        math.log(fraction) + pair.signal.double(), math.log1p(-fraction) + pair.background.double()
    )
    of_fraction = (pair.signal - mixture)[:, 1].exp() - (pair.background - mixture)[:, 1].exp()
    of_nuisance = (mixture[:, 2] - mixture[:, 0]) / (2 * step)
    scores = torch.stack((of_fraction, of_nuisance))
    variance = torch.linalg.inv(scores @ scores.T / n_events)[0, 0]
    return min(1.0, fraction * (1 - fraction) / float(variance))
