"""Starting points for the Newton iterations: a coarse scan of all sets in single precision."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.likelihood.newton import Bounds
from sbilib.likelihood.table import EventSets

__all__ = ["CoarseScan", "coarse_scan"]

_N_FRACTIONS = 8
_N_NUISANCES = 16
_BLOCK_EVENTS = 2**10
_RELEVANT_NLL = 3.0


class CoarseScan(NamedTuple):
    """Where the likelihood of each set is largest on a coarse grid; every field is ``(n_sets,)``."""

    fraction: Tensor
    nuisance: Tensor
    nll: Tensor
    several_minima: Tensor
    """True where the NLL has more than one relevant dip along the nuisance parameter near the best fit."""


def coarse_scan(sets: EventSets, bounds: Bounds) -> CoarseScan:
    """Scan all sets on 8 signal fractions, denser toward zero, and 16 of the table's nodes."""
    nodes = sets.table.nodes
    steps = torch.linspace(0, 1, _N_FRACTIONS, dtype=torch.float64, device=nodes.device) ** 2
    fractions = bounds.fraction_low + (bounds.fraction_high - bounds.fraction_low) * steps
    chosen = (
        torch.linspace(0, len(nodes) - 1, min(_N_NUISANCES, len(nodes)), device=nodes.device).round().long()
    )
    nll = -_sum_log_mixture(sets, fractions, chosen).double()
    nll -= sets.background[0][chosen].T[:, None, :]
    smallest, position = nll.flatten(1).min(dim=1)
    row, column = position // len(chosen), position % len(chosen)
    return CoarseScan(fractions[row], nodes[chosen][column], smallest, _several_minima(nll, row))


def _sum_log_mixture(sets: EventSets, fractions: Tensor, chosen: Tensor) -> Tensor:
    """Sum over events of log(1 - p + p e^d), shape (n_sets, n_fractions, n_chosen), in float32."""
    table, p = sets.table, fractions.float()
    width = len(chosen) * len(p)
    counts = None
    if sets.index is not None:
        counts = torch.zeros(sets.n_sets, table.n_events, dtype=torch.float32, device=p.device)
        ones = (
            torch.ones_like(sets.index, dtype=torch.float32) if sets.weight is None else sets.weight.float()
        )
        counts.scatter_add_(1, sets.index, ones)
    result = torch.zeros(sets.n_sets, width, dtype=torch.float32, device=p.device)
    step = _BLOCK_EVENTS if counts is not None else sets.length * max(1, _BLOCK_EVENTS // sets.length)
    for start in range(0, table.n_events, step):
        part = slice(start, min(start + step, table.n_events))
        logs = _log_mixture(table.log_ratio[0, :, part][chosen].T.float(), p).reshape(-1, width)
        if counts is not None:
            result.addmm_(counts[:, part], logs)
        else:
            first, last = part.start // sets.length, part.stop // sets.length
            result[first:last] = logs.reshape(last - first, sets.length, width).sum(dim=1)
    return result.reshape(sets.n_sets, len(chosen), len(p)).transpose(1, 2)


def _log_mixture(d: Tensor, p: Tensor) -> Tensor:
    """log(1 - p + p e^d), shape ``(*d.shape, n_fractions)``, without overflow."""
    small = torch.exp(-d.abs()).clamp(min=torch.finfo(d.dtype).tiny)
    shrunk, grown = torch.where(d > 0, small, 1.0), torch.where(d > 0, 1.0, small)
    mixture = shrunk[..., None] * (1 - p)
    mixture.addcmul_(grown[..., None], p)
    mixture.log_()
    mixture += d.clamp(min=0)[..., None]
    if float(p[0]) == 0.0:
        mixture[..., 0] = 0.0
    return mixture


def _several_minima(nll: Tensor, row: Tensor) -> Tensor:
    """True where a line along the nuisance parameter, near the best fraction, has two relevant dips."""
    near = (row[:, None] + torch.tensor([-1, 0, 1], device=row.device)).clamp(0, nll.shape[1] - 1)
    lines = nll.gather(1, near[:, :, None].expand(-1, -1, nll.shape[2]))
    wall = torch.full_like(lines[:, :, :1], torch.inf)
    left, right = torch.cat((wall, lines[:, :, :-1]), dim=2), torch.cat((lines[:, :, 1:], wall), dim=2)
    relevant = lines < lines.min(dim=2, keepdim=True).values + _RELEVANT_NLL
    dips = (lines < left) & (lines <= right) & relevant
    return (dips.sum(dim=2) > 1).any(dim=1)
