r"""NLL of many sets at one point each, with first and second derivatives.

In the signal fraction :math:`p = \mu / (1 + \mu)` the NLL is

.. math:: L(p, z) = -\sum_i w_i \bigl[b_i(z) + \log(1 - p + p\, e^{d_i(z)})\bigr],

which is convex in :math:`p` for every :math:`z`: with :math:`q = (e^d - 1) / (1 - p + p\, e^d)` its
derivatives are :math:`-\sum w q` and :math:`\sum w q^2 \ge 0`.  In :math:`d` the derivative of the
logarithm is the posterior probability of signal :math:`P = p\, e^d / (1 - p + p\, e^d)`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.likelihood.table import EventSets, spline_weights

__all__ = ["Expansion", "expand_nll", "nll_in_fraction"]

# exp(-|d|) is kept above this so that nothing divides by zero; it changes no sum at fractions above 1e-150.
_SMALLEST = 1e-150
_BLOCK_ELEMENTS = 2**16


class Expansion(NamedTuple):
    """NLL and its derivatives at one point per row; every field has shape ``(n_rows,)``."""

    nll: Tensor
    fraction: Tensor
    """First derivative in the signal fraction p."""
    nuisance: Tensor
    """First derivative in the nuisance parameter z."""
    fraction2: Tensor
    """Second derivative in p."""
    nuisance2: Tensor
    """Second derivative in z."""
    mixed: Tensor
    """Mixed derivative."""


def expand_nll(sets: EventSets, rows: Tensor, fraction: Tensor, nuisance: Tensor) -> Expansion:
    """NLL and derivatives of sets ``rows`` (n_rows,) at ``fraction`` and ``nuisance`` (n_rows,)."""
    step = max(1, _BLOCK_ELEMENTS // sets.length)
    blocks = [
        _expand_block(sets, *(t[start : start + step] for t in (rows, fraction, nuisance)))
        for start in range(0, rows.shape[0], step)
    ]
    return Expansion(*(torch.cat(parts) for parts in zip(*blocks, strict=True)))


def _expand_block(sets: EventSets, rows: Tensor, fraction: Tensor, nuisance: Tensor) -> Expansion:
    spline = spline_weights(sets.table.nodes, nuisance)
    d, d1, d2 = (spline.weights @ sets.log_ratio_columns(rows, spline.cell)).unbind(dim=1)
    p = fraction[:, None]
    shrunk, grown, mixture = _mixture(d, p)
    log_mixture = mixture.log() + d.clamp(min=0)
    if bool((fraction == 0).any()):
        log_mixture = torch.where(p == 0, 0.0, log_mixture)
    q = (grown - shrunk) / mixture
    posterior = p * grown / mixture
    cross = grown * shrunk / mixture**2
    weight = torch.ones_like(d) if sets.weight is None else sets.weight[rows]
    pd1 = posterior * d1
    # d2 P + d1^2 P (1 - P), the curvature of the log mixture along z.
    terms = (log_mixture, q, pd1, q * q, torch.addcmul(posterior * d2, pd1, d1 - pd1), cross * d1)
    sums = [torch.linalg.vecdot(term, weight) for term in terms]
    nodes = torch.stack((spline.cell, spline.cell + 1), dim=1)
    columns = sets.background[:, nodes, rows[:, None]].transpose(0, 1).reshape(len(rows), 4, 1)
    b, b1, b2 = (spline.weights @ columns)[:, :, 0].unbind(dim=1)
    return Expansion(-b - sums[0], -sums[1], -b1 - sums[2], sums[3], -b2 - sums[4], -sums[5])


def _mixture(d: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """exp(-m), exp(d - m) and (1 - p) exp(-m) + p exp(d - m) with m = max(d, 0): no overflow."""
    small = torch.exp(-d.abs()).clamp(min=_SMALLEST)
    positive = d > 0
    shrunk = torch.where(positive, small, 1.0)
    grown = torch.where(positive, 1.0, small)
    return shrunk, grown, torch.lerp(shrunk, grown, p)


def nll_in_fraction(
    sets: EventSets, rows: Tensor, fraction: Tensor, log_ratio: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Minus the sum of log(1 - p + p e^d) and its two derivatives in p.

    Args:
        sets: the sets.
        rows: which set, shape ``(n_rows,)``.
        fraction: signal fractions, shape ``(n_rows,)``.
        log_ratio: log ratios of the events of each row, shape ``(n_rows, set_length)``.
    """
    p = fraction[:, None]
    shrunk, grown, mixture = _mixture(log_ratio, p)
    log_mixture = torch.where(p == 0, 0.0, mixture.log() + log_ratio.clamp(min=0))
    q = (grown - shrunk) / mixture
    weight = torch.ones_like(q) if sets.weight is None else sets.weight[rows]
    total, first, second = (torch.linalg.vecdot(term, weight) for term in (log_mixture, q, q * q))
    return -total, -first, second
