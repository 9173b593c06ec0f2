r"""The likelihoods of many sets as smooth surfaces, known only where they are not negligible.

The negative log-likelihood of a set is nearly a parabola in the signal fraction :math:`p = \mu/(1+\mu)`
and the nuisance parameter :math:`z`.  In a box around the best fits of all sets that share a table of
events, cubic splines through its values at a few nodes give it everywhere,

.. math:: L(p, z) = \sum_{kl} W_k(p)\, W_l(z)\, L(p_k, z_l), \qquad
          L(p_k, z_l) = -\sum_i w_i \log\left(p_k\, e^{s_i(z_l)} + (1 - p_k)\, e^{b_i(z_l)}\right) .

So the densities of an event are evaluated at about ten nuisance values, the values of all sets are one
matrix product, and any grid, profile or interval after that is a matter of small matrix products.  The
nodes are even in :math:`z` and in :math:`\sqrt p`: the logarithm of a clear signal event bends most at
small p.  Splines, unlike one polynomial, keep an error, such as that of a kink of a network, to its place.

The box is found from a part of the events and widened where a set's likelihood turns out to reach its rim.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from sbilib.components import ComponentDensities, LogComponents
from sbilib.errors import check_count, check_events
from sbilib.likelihood.checks import check_counts, check_interval_range, evaluate_components
from sbilib.likelihood.grid import NLLScan, ScanGrid
from sbilib.likelihood.newton import Bounds
from sbilib.likelihood.profile import Profile
from sbilib.likelihood.windows import WindowProfiles

__all__ = ["BLOCK_PAIRS", "NEGLIGIBLE_NLL", "LocalLikelihood", "local_likelihood", "positions_within"]

DEFAULT_NODES = (24, 13)
"""Signal fractions and nuisance values at which likelihoods are evaluated."""
NEGLIGIBLE_NLL = 12.0
"""Height above a set's minimum beyond which its likelihood is left out: five standard deviations."""

_COARSE_NODES = (12, 9)
_COARSE_EVENTS = 750
# Room for five standard deviations of a set, its distance from the events' common best fit, and the error
# of the part of the events that this is taken from: nine standard deviations.
_COARSE_DEPTH = 40.0
_VIEW_POINTS = 49
_WINDOW_DEPTH = 6.0  # covers the window of the quartic fit, 4.5, with a little to spare
_MAX_WIDENINGS = 6
BLOCK_PAIRS = 2**12  # pairs of event and nuisance value evaluated at once, so that they stay in cache


@dataclass(frozen=True)
class LocalLikelihood:
    """NLL surfaces of many sets in one box.

    Attributes:
        fractions: nodes in the signal fraction, shape ``(n_fractions,)``.
        nuisances: nodes in the nuisance parameter, shape ``(n_nuisances,)``.
        nll: NLL of each set at the nodes, minus the smallest of them, shape
            ``(n_sets, n_fractions, n_nuisances)``.
        minimum: what was subtracted, shape ``(n_sets,)``.
    """

    fractions: Tensor
    nuisances: Tensor
    nll: Tensor
    minimum: Tensor

    @property
    def box(self) -> Bounds:
        """The box that the nodes span, in the signal fraction and the nuisance parameter."""
        ends = ((float(nodes[0]), float(nodes[-1])) for nodes in (self.fractions, self.nuisances))
        return Bounds(*(end for pair in ends for end in pair))

    @property
    def n_sets(self) -> int:
        """Number of sets."""
        return self.nll.shape[0]

    def at(self, signal_ratios: Tensor, nuisances: Tensor) -> Tensor:
        """NLL, less `minimum`, on a grid of signal ratios and nuisance values inside the box.

        Args:
            signal_ratios: shape ``(n_ratios,)``, or ``(n_sets, n_ratios)`` for values of each set's own.
            nuisances: shape ``(n_nuisances,)`` or ``(n_sets, n_nuisances)``.

        Returns:
            Shape ``(n_sets, n_ratios, n_nuisances)``.
        """
        left, right = self.weights(signal_ratios, nuisances)
        return left @ (self.nll @ right.transpose(-1, -2))

    def scan(self, grid: ScanGrid) -> NLLScan:
        """The surfaces on a grid, infinite outside the box: what `scan_nll` gives, by interpolation."""
        rows, columns = self._inside(grid)
        inner = self.at(grid.signal_ratios[rows].to(self.nll), grid.nuisances[columns].to(self.nll))
        smallest = inner.flatten(1).min(dim=1).values
        nll = inner.new_full((self.n_sets, *grid.shape), torch.inf)
        nll[:, rows, columns] = inner - smallest[:, None, None]
        return NLLScan(nll, self.minimum + smallest, grid)

    def profiles(self, *, n_points: int = 33) -> WindowProfiles:
        """Profile NLL of both parameters around each set's best fit, where it is below about 6.

        Args:
            n_points: points of each profile, evenly spaced.

        Example:
            >>> from sbilib.likelihood import crossing_interval
            >>> from sbilib.problems import GaussianToy, bootstrap_counts, make_test_set
            >>> toy, generator = GaussianToy(2.0), torch.Generator().manual_seed(1)
            >>> data = make_test_set(toy, signal_ratio=0.2, nuisance=0.8, generator=generator)
            >>> counts = bootstrap_counts(9000, 3, 1000, generator)
            >>> local = local_likelihood(toy, data.events, counts, nuisance_range=toy.scan_range)
            >>> crossing_interval(local.profiles().signal_ratio).valid.tolist()
            [True, True, True]
        """
        check_count("n_points", n_points, low=8)
        reach = self.reach(_WINDOW_DEPTH)
        line = torch.linspace(0, 1, n_points, dtype=torch.float64, device=self.nll.device)
        ratios, nuisances = (low[:, None] + (high - low)[:, None] * line for low, high in reach)
        nll = self.at(ratios, nuisances)
        profiles = [_smallest(nll, dim=2), _smallest(nll, dim=1)]
        return WindowProfiles(
            *(
                Profile(values, profile - profile.min(dim=1, keepdim=True).values)
                for values, profile in zip((ratios, nuisances), profiles, strict=True)
            )
        )

    def weights(self, signal_ratios: Tensor, nuisances: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the nodes at signal ratios and at nuisance values, which are clamped to the box."""
        fractions = _to_fraction(signal_ratios)
        return _spline_matrix(self.fractions, fractions), _spline_matrix(self.nuisances, nuisances)

    def _ratio_range(self) -> tuple[float, float]:
        return _to_ratio(self.box.fraction_low), _to_ratio(self.box.fraction_high)

    def _inside(self, grid: ScanGrid) -> tuple[slice, slice]:
        """The part of a grid inside the box, with a little room for rounding."""
        return (
            positions_within(grid.signal_ratios, *self._ratio_range()),
            positions_within(grid.nuisances, self.box.nuisance_low, self.box.nuisance_high),
        )

    def _view_lines(self) -> tuple[Tensor, Tensor]:
        """Evenly spaced signal ratios and nuisance values across the box."""
        ratios, nuisances = (
            torch.linspace(*ends, _VIEW_POINTS, dtype=torch.float64, device=self.nll.device)
            for ends in (self._ratio_range(), (self.box.nuisance_low, self.box.nuisance_high))
        )
        return ratios, nuisances

    @cached_property
    def _view(self) -> Tensor:
        """NLL of each set above its minimum on those lines."""
        nll = self.at(*self._view_lines())
        return nll - nll.flatten(1).min(dim=1).values[:, None, None]

    def reach(self, depth: float) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Ranges of signal ratio and nuisance value outside which each set's NLL is above ``depth``."""
        lines = self._view_lines()
        near = self._view < depth
        ranges = []
        for line, hit in zip(lines, (near.any(dim=2), near.any(dim=1)), strict=True):
            first = hit.int().argmax(dim=1)
            last = _VIEW_POINTS - 1 - hit.flip(1).int().argmax(dim=1)
            ranges.append((line[(first - 1).clamp(min=0)], line[(last + 1).clamp(max=_VIEW_POINTS - 1)]))
        return ranges[0], ranges[1]


def local_likelihood(
    densities: ComponentDensities,
    events: Tensor,
    counts: Tensor,
    *,
    nuisance_range: tuple[float, float],
    ratio_range: tuple[float, float] = (0.0, 0.5),
    n_nodes: tuple[int, int] = DEFAULT_NODES,
) -> LocalLikelihood:
    """NLL surfaces of sets that share events, such as bootstrap sets of one test set.

    Args:
        densities: the component densities.
        events: shape ``(n_events, n_features)``.
        counts: multiplicity of each event in each set, shape ``(n_sets, n_events)``.
        nuisance_range: scanned range of the nuisance parameter.
        ratio_range: scanned range of the signal ratio.
        n_nodes: signal fractions and nuisance values at which the likelihood is evaluated.

    Raises:
        DataError: for bad events, counts or densities.
        ParameterError: for a bad range or fewer than four nodes.

    Example:
        >>> from sbilib.problems import GaussianToy, bootstrap_counts, make_test_set
        >>> toy, generator = GaussianToy(2.0), torch.Generator().manual_seed(1)
        >>> data = make_test_set(toy, signal_ratio=0.2, nuisance=0.8, generator=generator)
        >>> counts = bootstrap_counts(9000, 3, 1000, generator)
        >>> local_likelihood(toy, data.events, counts, nuisance_range=toy.scan_range).nll.shape
        torch.Size([3, 24, 13])
    """
    check_events("events", events, events.shape[-1] if events.dim() == 2 else 1)
    weights = check_counts(counts.to(events.device), events.shape[0])
    ratio_low, ratio_high = check_interval_range("ratio_range", ratio_range, low=0.0)
    low, high = check_interval_range("nuisance_range", nuisance_range)
    bounds = Bounds(ratio_low / (1 + ratio_low), ratio_high / (1 + ratio_high), low, high)
    for name, number in zip(("signal fractions", "nuisance values"), n_nodes, strict=True):
        check_count(f"number of {name}", number, low=4)
    box = _coarse_box(densities, events, weights, bounds)
    for _ in range(_MAX_WIDENINGS):
        local = _evaluate(densities, events, weights, box, n_nodes)
        wider = _widen(local, bounds)
        if wider == box:
            return local
        box = wider
    return _evaluate(densities, events, weights, bounds, n_nodes)


def positions_within(values: Tensor, low: float, high: float) -> slice:
    """Positions of increasing values from ``low`` to ``high``, at least one."""
    room = 1e-9 * (high - low)
    first = int(torch.searchsorted(values, low - room))
    last = int(torch.searchsorted(values, high + room))
    first = min(first, len(values) - 1)
    return slice(first, max(last, first + 1))


def _spline_matrix(nodes: Tensor, at: Tensor) -> Tensor:
    """Weights of the node values in the cubic spline (not-a-knot) at places of any shape, clamped inside."""
    x = nodes.cpu().numpy()
    spline = CubicSpline(x, np.eye(len(x)), bc_type="not-a-knot")
    matrix: np.ndarray = spline(at.double().clamp(float(nodes[0]), float(nodes[-1])).cpu().numpy())
    return torch.from_numpy(matrix).to(nodes)


def _to_fraction(ratio: Tensor) -> Tensor:
    return ratio / (1 + ratio)


def _to_ratio(fraction: float) -> float:
    return fraction / (1 - fraction)


def _smallest(nll: Tensor, dim: int) -> Tensor:
    """Minimum over evenly spaced points, refined by the parabola through the smallest value."""
    smallest, position = nll.min(dim=dim, keepdim=True)
    middle = position.clamp(1, nll.shape[dim] - 2)
    left, center, right = (nll.gather(dim, middle + k) for k in (-1, 0, 1))
    slope, curvature = (right - left) / 2, left - 2 * center + right
    inside = (curvature > 0) & (slope.abs() < curvature)
    vertex = center - slope**2 / (2 * torch.where(inside, curvature, 1.0))
    return torch.where(inside, torch.minimum(vertex, smallest), smallest).squeeze(dim)


def _coarse_box(densities: ComponentDensities, events: Tensor, weights: Tensor, bounds: Bounds) -> Bounds:
    """A box that holds the likelihoods of the sets, from a part of the events and few nodes."""
    part = events[:: math.ceil(len(events) / _COARSE_EVENTS)]
    alike = weights.new_full((1, len(part)), float(weights.sum(dim=1).min()) / len(part))
    coarse = _evaluate(densities, part, alike, bounds, _COARSE_NODES)
    (ratio_low, ratio_high), (low, high) = coarse.reach(_COARSE_DEPTH)
    box = Bounds(*(float(end) for end in (_to_fraction(ratio_low), _to_fraction(ratio_high), low, high)))
    return _within(box, bounds)


def _widen(local: LocalLikelihood, bounds: Bounds) -> Bounds:
    """The box, wider on each side where the likelihood of some set is not negligible."""
    excess = local._view
    rims = (excess[:, 0], excess[:, -1], excess[:, :, 0], excess[:, :, -1])
    box, moved = local.box, []
    for number, rim in enumerate(rims):
        width = (box[1] - box[0]) if number < 2 else (box[3] - box[2])
        step = width / 2 if float(rim.min()) < NEGLIGIBLE_NLL else 0.0
        moved.append(box[number] + (step if number % 2 else -step))
    return _within(Bounds(*moved), bounds)


def _within(box: Bounds, bounds: Bounds) -> Bounds:
    """The box cut at the bounds; a side within rounding of its bound is put there."""
    sides = []
    for number, (side, bound) in enumerate(zip(box, bounds, strict=True)):
        room = 1e-9 * (abs(bound) + 1)
        inside = side > bound + room if number % 2 == 0 else side < bound - room
        sides.append(side if inside else bound)
    return Bounds(*sides)


def _evaluate(
    densities: ComponentDensities, events: Tensor, weights: Tensor, box: Bounds, n_nodes: tuple[int, int]
) -> LocalLikelihood:
    """NLL of every set at the nodes of a box."""
    roots = torch.linspace(box.fraction_low**0.5, box.fraction_high**0.5, n_nodes[0], dtype=torch.float64)
    fractions = roots.square().to(events.device)
    fractions[0], fractions[-1] = box.fraction_low, box.fraction_high
    nuisances = torch.linspace(
        box.nuisance_low, box.nuisance_high, n_nodes[1], dtype=torch.float64, device=events.device
    )
    total = weights.new_zeros(len(weights), n_nodes[0] * n_nodes[1])
    step = max(1, BLOCK_PAIRS // len(nuisances))
    for start in range(0, len(events), step):
        block = slice(start, start + step)
        pair = evaluate_components(densities, events[block], nuisances)
        total.addmm_(weights[:, block], _log_mixture(pair, fractions).flatten(1))
    nll = -total.reshape(len(weights), *n_nodes)
    minimum = nll.flatten(1).min(dim=1).values
    return LocalLikelihood(fractions, nuisances, nll - minimum[:, None, None], minimum)


def _log_mixture(pair: LogComponents, fractions: Tensor) -> Tensor:
    """log(p e^s + (1 - p) e^b), shape ``(n_events, n_fractions, n_nuisances)``."""
    largest = torch.maximum(pair.signal, pair.background)
    signal, background = torch.exp(pair.signal - largest), torch.exp(pair.background - largest)
    p = fractions[:, None]
    mixture = background[:, None] * (1 - p)
    mixture.addcmul_(signal[:, None], p)
    mixture.log_()
    mixture += largest[:, None]
    if float(fractions[0]) == 0.0:
        # Where exp(b - max) underflows, p = 0 has to give the background itself, not log(0).
        mixture[:, 0] = pair.background
    return mixture
