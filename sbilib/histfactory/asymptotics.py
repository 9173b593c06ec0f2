r"""Large-sample distributions of the profile likelihood ratio statistics.

By Wald's relation :math:`-2 \ln \lambda(\mu) = (\mu - \hat\mu)^2 / \sigma^2` with :math:`\hat\mu` normal
about the true :math:`\mu'`, so p-values follow from the statistic of the data, :math:`q`, and that of the
Asimov data, :math:`q_A`, which estimates :math:`(\mu - \mu')^2 / \sigma^2`.  In the variable

.. math:: t = \sqrt q - \sqrt{q_A} \quad (\tilde q \le q_A), \qquad
          t = \frac{\tilde q - q_A}{2 \sqrt{q_A}} \quad (\tilde q > q_A)

(the second piece for :math:`\tilde q_\mu` only) the p-values are :math:`CL_{s+b} = \Phi(-t - \sqrt{q_A})` and
:math:`CL_b = \Phi(-t)`.

Source: G. Cowan, K. Cranmer, E. Gross and O. Vitells, Eur. Phys. J. C 71, 1554 (2011), arXiv:1007.1727,
equations 57, 59, 65, 67 and 89; CLs: A. L. Read, J. Phys. G 28, 2693 (2002).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.errors import check_range

__all__ = [
    "BANDS",
    "TailProbabilities",
    "expected_tail_probabilities",
    "root",
    "root_of_expected_limit",
    "significance",
    "tail_probabilities",
]

BANDS = (-2, -1, 0, 1, 2)
"""Positions of the expected bands: standard deviations of the best fit from its median."""


class TailProbabilities(NamedTuple):
    """p-values of a test, each of shape ``(*batch,)``.

    Attributes:
        CLsb: of the tested hypothesis.
        CLb: of the alternative (background only, or for q0 the signal of the Asimov data).
        CLs: CLsb / CLb.
    """

    CLsb: Tensor
    CLb: Tensor
    CLs: Tensor


def root(statistic: Tensor) -> Tensor:
    r"""Return :math:`\sqrt q`, with the derivative zero (not infinite) where :math:`q \le 0`.

    Args:
        statistic: q, any shape; values below zero (from rounding) count as zero.

    Returns:
        The root, same shape.

    >>> q = torch.tensor([0.0, 4.0], requires_grad=True)
    >>> root(q).sum().backward()
    >>> q.grad
    tensor([0.0000, 0.2500])
    """
    positive = statistic > 0
    return torch.where(positive, torch.where(positive, statistic, 1.0).sqrt(), 0.0)


def significance(p_value: Tensor) -> Tensor:
    r"""Return the significance :math:`Z = \Phi^{-1}(1 - p)` in standard deviations.

    Args:
        p_value: any shape, in [0, 1].

    Returns:
        Z, same shape; infinite at p = 0 (below about 1e-308).

    >>> significance(torch.tensor([0.5, 0.15865525]).double())
    tensor([-0.0000, 1.0000], dtype=torch.float64)
    """
    z: Tensor = -torch.special.ndtri(p_value)
    return z


def _ratio(log_numerator: Tensor, log_denominator: Tensor) -> Tensor:
    return (log_numerator - log_denominator).exp()


def tail_probabilities(statistic: Tensor, asimov: Tensor, *, tilde: bool = True) -> TailProbabilities:
    r"""Return the p-values of an observed statistic.

    .. math:: CL_{s+b} = \Phi(-t - \sqrt{q_A}), \qquad CL_b = \Phi(-t), \qquad CL_s = CL_{s+b} / CL_b

    Args:
        statistic: q of the data, ``(*batch,)``.
        asimov: q of the Asimov data, ``(*batch,)``.
        tilde: use both pieces, as is right for the statistic of a signal that cannot be negative.

    Returns:
        The three p-values, ``(*batch,)``; the ratio is taken of logarithms, so it is right far in the tail
        too.

    Source: arXiv:1007.1727, equations 57, 59, 65, 67.

    >>> q, q_asimov = torch.tensor([4.0]).double(), torch.tensor([1.0]).double()
    >>> tail_probabilities(q, q_asimov).CLsb
    tensor([0.0062], dtype=torch.float64)
    """
    reach = root(asimov)
    t = root(statistic) - reach
    if tilde:
        # A zero Asimov statistic has no second piece: there q equals its limit, the first piece.
        second = (statistic > asimov) & (asimov > 0)
        t = torch.where(second, (statistic - asimov) / (2 * torch.where(second, reach, 1.0)), t)
    return _probabilities(t, reach)


def expected_tail_probabilities(asimov: Tensor) -> TailProbabilities:
    r"""Return the p-values expected where the best fit lies n standard deviations from its median.

    .. math:: CL_{s+b} = \Phi(n - \sqrt{q_A}), \qquad CL_b = \Phi(n), \qquad n = -2, -1, 0, 1, 2

    Args:
        asimov: q of the Asimov data, ``(*batch,)``.

    Returns:
        p-values of shape ``(*batch, 5)``, in the order of :data:`BANDS`; the third is the median.

    Source: arXiv:1007.1727, equation 89.

    >>> expected_tail_probabilities(torch.tensor(4.0).double()).CLs[2]
    tensor(0.0455, dtype=torch.float64)
    """
    bands = torch.tensor(BANDS, dtype=asimov.dtype, device=asimov.device)
    return _probabilities(-bands, root(asimov).unsqueeze(-1))


def _probabilities(t: Tensor, reach: Tensor) -> TailProbabilities:
    log_signal = torch.special.log_ndtr(-t - reach)
    log_background = torch.special.log_ndtr(-t).expand_as(log_signal)
    return TailProbabilities(log_signal.exp(), log_background.exp(), _ratio(log_signal, log_background))


def root_of_expected_limit(level: float, *, device: torch.device | None = None) -> Tensor:
    r"""Return the :math:`\sqrt{q_A}` at which the expected CLs of each band equals ``level``.

    .. math:: \sqrt{q_A} = n - \Phi^{-1}(\alpha\, \Phi(n)), \qquad n = -2, -1, 0, 1, 2

    Args:
        level: alpha, in (0, 1).
        device: where to put the result.

    Returns:
        (5,) roots in the order of :data:`BANDS`.

    Raises:
        ParameterError: if the level is not in (0, 1).

    >>> root_of_expected_limit(0.05)[2]
    tensor(1.9600, dtype=torch.float64)
    """
    check_range("level", level, low=0, high=1, include_low=False, include_high=False)
    bands = torch.tensor(BANDS, dtype=torch.float64, device=device)
    roots: Tensor = bands - torch.special.ndtri(level * torch.special.ndtr(bands))
    return roots
