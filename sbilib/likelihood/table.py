r"""Per-event log densities as cubic splines of the nuisance parameter.

For the likelihood the log densities of an event are functions of :math:`z` alone.  They are evaluated
once on ``n_nodes`` values :math:`z_j` and continued by cubic splines (not-a-knot), which are linear in
the node values: with the matrix :math:`S` that maps node values to second derivatives,

.. math:: d(z) = A\, d_j + B\, d_{j+1} + \tfrac{h^2}{6} [(A^3 - A)(S d)_j + (B^3 - B)(S d)_{j+1}],
          \qquad A = \frac{z_{j+1} - z}{h}, \quad B = 1 - A, \quad h = z_{j+1} - z_j .

The mixture needs the log ratio :math:`d = s - b` of each event and only the *sum* of the backgrounds
:math:`b` over a set, as :math:`\log(p\, e^s + (1 - p)\, e^b) = b + \log(1 - p + p\, e^d)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from sbilib.components import ComponentDensities
from sbilib.errors import DataError, ParameterError, check_events
from sbilib.likelihood.checks import check_counts, evaluate_components

__all__ = ["EventSets", "NuisanceTable", "SplineWeights", "spline_weights"]

_BLOCK_EVENTS = 2**16


@dataclass(frozen=True)
class SplineWeights:
    """Where a nuisance value lies between the nodes, and the spline's weights there.

    Attributes:
        cell: index of the node to the left, shape ``(n_rows,)``.
        weights: shape ``(n_rows, 3, 4)``: value, first and second derivative, each from the node values
            left and right and the second derivatives left and right.
    """

    cell: Tensor
    weights: Tensor


def spline_weights(nodes: Tensor, at: Tensor) -> SplineWeights:
    """Weights of the cubic spline with nodes ``nodes`` (n_nodes,) at values ``at`` (n_rows,) inside them."""
    cell = (torch.searchsorted(nodes, at.contiguous(), right=True) - 1).clamp(0, nodes.shape[0] - 2)
    h = nodes[cell + 1] - nodes[cell]
    a = (nodes[cell + 1] - at) / h
    b = 1 - a
    zero = torch.zeros_like(a)
    value = torch.stack((a, b, (a**3 - a) * h**2 / 6, (b**3 - b) * h**2 / 6), dim=1)
    first = torch.stack((-1 / h, 1 / h, -(3 * a**2 - 1) * h / 6, (3 * b**2 - 1) * h / 6), dim=1)
    return SplineWeights(cell, torch.stack((value, first, torch.stack((zero, zero, a, b), dim=1)), dim=1))


@dataclass(frozen=True)
class NuisanceTable:
    """Log ratio and log background of events on nodes in the nuisance parameter.

    Attributes:
        nodes: nuisance values, shape ``(n_nodes,)``; the fits search between the first and the last.
        log_ratio: log signal over background density and its second derivative in the nuisance
            parameter, shape ``(2, n_nodes, n_events)``.
        background: log background density at the nodes, shape ``(n_events, n_nodes)``.
    """

    nodes: Tensor
    log_ratio: Tensor
    background: Tensor

    @classmethod
    def build(cls, densities: ComponentDensities, events: Tensor, nuisances: Tensor) -> NuisanceTable:
        """Evaluate the densities of ``events`` (n_events, n_features) at ``nuisances`` (n_nodes,).

        For densities that are smooth in the nuisance parameter 61 nodes over the scanned range are
        plenty (the Gaussian toys need 31); networks with ReLU activations have kinks and need 121 for
        interval edges good to a thousandth of the width.

        Raises:
            ParameterError: for fewer than four nodes, or nodes that are not increasing.
            DataError: for bad events or densities.

        Example:
            >>> import math
            >>> from sbilib.problems.gaussian import GaussianToy
            >>> nodes = torch.linspace(0.1 * math.pi, 0.4 * math.pi, 21, dtype=torch.float64)
            >>> NuisanceTable.build(GaussianToy(2.0), torch.zeros(5, 2), nodes).log_ratio.shape
            torch.Size([2, 21, 5])
        """
        if nuisances.dim() != 1 or nuisances.shape[0] < 4 or not bool((nuisances.diff() > 0).all()):
            raise ParameterError(
                f"nuisances must be at least four increasing values, got {nuisances.tolist()[:6]}; "
                "a cubic spline needs four nodes"
            )
        check_events("events", events, events.shape[-1] if events.dim() == 2 else 1)
        nodes = nuisances.to(device=events.device, dtype=torch.float64)
        operator = second_derivative_operator(nodes)
        n_nodes, n_events = len(nodes), events.shape[0]
        log_ratio = torch.empty(2, n_nodes, n_events, dtype=torch.float64, device=events.device)
        background = torch.empty(n_events, n_nodes, dtype=torch.float64, device=events.device)
        for start in range(0, events.shape[0], _BLOCK_EVENTS):
            part = slice(start, start + _BLOCK_EVENTS)
            pair = evaluate_components(densities, events[part], nodes)
            background[part] = pair.background
            log_ratio[0, :, part] = (pair.signal - pair.background).T
        torch.mm(operator, log_ratio[0], out=log_ratio[1])
        return cls(nodes, log_ratio, background)

    @property
    def n_events(self) -> int:
        """Number of events in the table."""
        return self.background.shape[0]


def second_derivative_operator(nodes: Tensor) -> Tensor:
    """The matrix from node values to second derivatives of the not-a-knot spline, (n_nodes, n_nodes)."""
    x = nodes.cpu().numpy()
    matrix: np.ndarray = CubicSpline(x, np.eye(len(x)), axis=0, bc_type="not-a-knot")(x, 2)
    return torch.from_numpy(np.ascontiguousarray(matrix)).to(nodes)


@dataclass(frozen=True)
class EventSets:
    """Sets of events drawn from one table, with what the likelihood needs of each.

    Attributes:
        table: the events.
        index: events of each set, shape ``(n_sets, set_length)``, padded; None if set ``b`` is the ``b``-th
            run of ``set_length`` events of the table.
        weight: multiplicities, shape ``(n_sets, set_length)``, zero for padding; None if all are one.
        size: number of events of each set, shape ``(n_sets,)``.
        background: summed log background at the nodes and its second derivative, ``(2, n_nodes, n_sets)``.
    """

    table: NuisanceTable
    index: Tensor | None
    weight: Tensor | None
    size: Tensor
    background: Tensor

    @classmethod
    def from_counts(cls, table: NuisanceTable, counts: Tensor) -> EventSets:
        """Sets that share the events of the table, as counts of shape ``(n_sets, n_events)``.

        Raises:
            DataError: if the counts are of the wrong shape, negative, or empty for some set.
        """
        weights = check_counts(counts.to(table.nodes.device), table.n_events)
        rows, events = weights.nonzero(as_tuple=True)
        occupied = torch.bincount(rows, minlength=len(weights))
        length = int(occupied.max())
        # nonzero lists row after row, so the place within a row is the running number minus the row's start.
        start = occupied.cumsum(0) - occupied
        place = torch.arange(len(rows), device=rows.device) - start[rows]
        index = torch.zeros(len(weights), length, dtype=torch.long, device=rows.device)
        weight = torch.zeros(len(weights), length, dtype=torch.float64, device=rows.device)
        index[rows, place] = events
        weight[rows, place] = weights[rows, events]
        summed = (weights @ table.background).T
        return cls(table, index, weight, weights.sum(dim=1), _with_curvature(table, summed))

    @classmethod
    def from_toys(cls, table: NuisanceTable, n_toys: int) -> EventSets:
        """Cut the events of the table into ``n_toys`` sets of equal size, in order.

        Raises:
            DataError: if the number of events is not a multiple of ``n_toys``.
        """
        if n_toys < 1 or table.n_events % n_toys:
            raise DataError(f"{table.n_events} events cannot be cut into {n_toys} sets of equal size")
        length = table.n_events // n_toys
        summed = table.background.reshape(n_toys, length, len(table.nodes)).sum(dim=1).T
        size = torch.full((n_toys,), float(length), dtype=torch.float64, device=summed.device)
        return cls(table, None, None, size, _with_curvature(table, summed))

    @property
    def n_sets(self) -> int:
        """Number of sets."""
        return self.size.shape[0]

    @property
    def length(self) -> int:
        """Events (with padding) of each set."""
        return self.table.n_events // self.n_sets if self.index is None else self.index.shape[1]

    def log_ratio_columns(self, rows: Tensor, node: Tensor) -> Tensor:
        """Log ratios and second derivatives of the events of sets ``rows`` at ``node`` and the next.

        Returns:
            Shape ``(n_rows, 4, set_length)``: value at the node and the next, second derivative likewise.
        """
        n_nodes, length = len(self.table.nodes), self.length
        # Row of the table, seen as (2 * n_nodes, n_events): value and curvature at this node and the next.
        offsets = torch.tensor([0, 1, n_nodes, n_nodes + 1], device=rows.device)
        lines = node[:, None] + offsets
        if self.index is None:
            runs = self.table.log_ratio.reshape(-1, length)
            place = lines * self.n_sets + rows[:, None]
            return runs.index_select(0, place.reshape(-1)).reshape(len(rows), 4, length)
        place = self.index.index_select(0, rows)[:, None, :] + (lines * self.table.n_events)[:, :, None]
        return self.table.log_ratio.reshape(-1).index_select(0, place.reshape(-1)).reshape(place.shape)

    def select(self, sets: Tensor) -> EventSets:
        """The sets of these numbers, sharing the table."""
        index = self.index
        if index is None:
            index = sets[:, None] * self.length + torch.arange(self.length, device=sets.device)
        else:
            index = index[sets]
        weight = None if self.weight is None else self.weight[sets]
        return EventSets(self.table, index, weight, self.size[sets], self.background[:, :, sets])


def _with_curvature(table: NuisanceTable, summed: Tensor) -> Tensor:
    """Stack node values (n_nodes, n_sets) and their spline's second derivatives."""
    return torch.stack((summed, second_derivative_operator(table.nodes) @ summed))
