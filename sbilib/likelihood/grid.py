r"""The negative log-likelihood of signal ratio and nuisance parameter on a grid.

With the signal ratio :math:`\mu = p(\mathrm{sig})/p(\mathrm{bkg})` an event has the density
:math:`p(x \mid \mu, z) = [\mu\, p(x \mid \mathrm{sig}, z) + p(x \mid \mathrm{bkg}, z)] / (1 + \mu)`.
For events :math:`x_i` with multiplicities :math:`w_i` and log densities :math:`s_i(z)`, :math:`b_i(z)`,

.. math:: \mathrm{NLL}(\mu, z) = -\sum_i w_i \log\frac{\mu\, e^{s_i(z)} + e^{b_i(z)}}{1 + \mu} - C,

where :math:`C` is the minimum over the grid (Sluijter 2024, section 3.3.1 and eq. 3.1).  The sum is
formed as :math:`\max(s, b) + \log(\mu e^{s - \max} + e^{b - \max})`, which cannot overflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.components import ComponentDensities, LogComponents
from sbilib.errors import DataError, ParameterError, check_events
from sbilib.likelihood.checks import (
    check_components,
    check_counts,
    check_interval_range,
    evaluate_components,
)

__all__ = ["NLLScan", "ScanGrid", "scan_nll"]

_MAX_MEMORY = 256 * 1024**2
_CACHE_ELEMENTS = 2**17  # elements of one work array: about 1 MB, so that it stays in a core's cache
_BLOCK_EVENTS = 2**14
_COARSE_CELLS = 30
_NEGLIGIBLE_NLL = 30.0  # exp(-30) = 1e-13: what a restricted scan may leave out


@dataclass(frozen=True)
class ScanGrid:
    """A rectangular grid of signal ratios and nuisance values, both strictly increasing.

    Attributes:
        signal_ratios: shape ``(n_ratios,)``, not negative.
        nuisances: shape ``(n_nuisances,)``.

    Raises:
        ParameterError: if an axis has fewer than two points, is not increasing, not finite, or if a
            signal ratio is negative.

    Example:
        >>> grid = ScanGrid.uniform(nuisance_range=(0.9, 1.1), n_ratios=3, n_nuisances=2)
        >>> grid.signal_ratios.tolist(), grid.shape
        ([0.0, 0.25, 0.5], (3, 2))
    """

    signal_ratios: Tensor
    nuisances: Tensor

    def __post_init__(self) -> None:
        for name in ("signal_ratios", "nuisances"):
            values = getattr(self, name)
            if values.dim() != 1 or values.shape[0] < 2:
                raise ParameterError(
                    f"{name} must be a list of at least two grid points, got {values.tolist()}; "
                    "a grid with one point has no minimum to find: give two or more increasing values"
                )
            if not bool(values.isfinite().all()) or not bool((values.diff() > 0).all()):
                raise ParameterError(
                    f"{name} must be finite and strictly increasing, got {values.tolist()[:6]}...; "
                    "sort the values"
                )
            object.__setattr__(self, name, values.double())
        if float(self.signal_ratios[0]) < 0:
            raise ParameterError(
                f"signal ratios must not be negative, got {float(self.signal_ratios[0])}; start the grid at 0"
            )

    @classmethod
    def uniform(
        cls,
        *,
        nuisance_range: tuple[float, float],
        ratio_range: tuple[float, float] = (0.0, 0.5),
        n_ratios: int = 600,
        n_nuisances: int = 300,
    ) -> ScanGrid:
        """The evenly spaced grid of the source, 600 x 300 points, ends included (section 3.3.1)."""
        for name, number in (("n_ratios", n_ratios), ("n_nuisances", n_nuisances)):
            if number < 2:
                raise ParameterError(
                    f"{name} must be at least 2, got {number}; a grid with one point has no minimum to find"
                )
        ratio_low, ratio_high = check_interval_range("ratio_range", ratio_range, low=0.0)
        low, high = check_interval_range("nuisance_range", nuisance_range)
        return cls(
            torch.linspace(ratio_low, ratio_high, n_ratios, dtype=torch.float64),
            torch.linspace(low, high, n_nuisances, dtype=torch.float64),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Number of signal ratios and of nuisance values."""
        return self.signal_ratios.shape[0], self.nuisances.shape[0]

    def same_as(self, other: ScanGrid) -> bool:
        """True if both grids have the same points."""
        return self.shape == other.shape and bool(
            torch.equal(self.signal_ratios.cpu(), other.signal_ratios.cpu())
            and torch.equal(self.nuisances.cpu(), other.nuisances.cpu())
        )


@dataclass(frozen=True)
class NLLScan:
    """NLL on a grid, with its minimum subtracted per set.

    Attributes:
        nll: shape ``(n_ratios, n_nuisances)``, or ``(n_sets, n_ratios, n_nuisances)`` for many sets; infinite
            where a restricted scan left the likelihood out.
        minimum: what was subtracted, shape ``()`` or ``(n_sets,)``.
        grid: the grid.
    """

    nll: Tensor
    minimum: Tensor
    grid: ScanGrid


def scan_nll(
    densities: ComponentDensities | LogComponents,
    events: Tensor | None,
    grid: ScanGrid,
    *,
    counts: Tensor | None = None,
    restrict: bool = False,
    max_memory: int = _MAX_MEMORY,
) -> NLLScan:
    r"""NLL of signal ratio and nuisance parameter on every point of a grid (eq. 3.1 of Sluijter 2024).

    Args:
        densities: the component densities, or their values as `LogComponents` of shape
            ``(n_events, n_nuisances)`` at the nuisance values of the grid.
        events: shape ``(n_events, n_features)``; None if ``densities`` are values.
        counts: multiplicity of each event in each set, shape ``(n_sets, n_events)``; None for one set
            that holds each event once.
        restrict: evaluate only the box of the grid that holds all points whose likelihood is at least
            :math:`e^{-30}` of the maximum for some set, found by a coarse pass; elsewhere the NLL is
            infinite.
        max_memory: bytes that work arrays may take besides the result; the result itself takes
            8 bytes a point and set.

    Raises:
        DataError: for empty, non-finite or wrongly shaped events, densities or counts.

    Example:
        >>> grid = ScanGrid(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
        >>> one_event = LogComponents(torch.tensor([[3.0, 3.0]]).log(), torch.zeros(1, 2))
        >>> nll = scan_nll(one_event, None, grid).nll
        >>> round(nll[0, 0].exp().item(), 6)  # (3 mu + 1) / (1 + mu) is 1 at mu = 0 and 2 at mu = 1
        2.0
    """
    source = _source(densities, events, grid, max_memory)
    weights = None if counts is None else check_counts(counts.to(source.device), source.n_events)
    rows, columns = slice(0, grid.shape[0]), slice(0, grid.shape[1])
    if restrict:
        rows, columns = _relevant_box(source, weights)
    box = _sum_log_mixture(source, weights, source.ratios[rows], list(range(grid.shape[1]))[columns])
    nll = box
    if restrict:
        nll = box.new_full((*box.shape[:-2], *grid.shape), torch.inf)
        nll[..., rows, columns] = box
    minimum = nll.flatten(-2).min(dim=-1).values
    nll -= minimum[..., None, None]
    return NLLScan(nll, minimum, grid)


class _Source(NamedTuple):
    """Log densities of a part of the events at some nuisance values of the grid, and the grid's axes."""

    evaluate: Callable[[slice, list[int]], LogComponents]
    n_events: int
    ratios: Tensor
    nuisances: Tensor
    device: torch.device
    width: int
    """How many nuisance values one block may hold."""


def _source(
    densities: ComponentDensities | LogComponents, events: Tensor | None, grid: ScanGrid, max_memory: int
) -> _Source:
    """Check the input and wrap it as blocks, from a model or from given values."""
    if isinstance(densities, LogComponents):
        if densities.signal.shape[0] == 0:
            raise DataError("the log densities are of no events; at least one event is needed")
        values = check_components(densities, densities.signal.shape[0], grid.shape[1])
        n_events, device = values.signal.shape[0], values.signal.device

        def evaluate(part: slice, columns: list[int]) -> LogComponents:
            return LogComponents(values.signal[part][:, columns], values.background[part][:, columns])
    else:
        if events is None:
            raise DataError("events are missing; give the events whose densities are to be evaluated")
        checked = check_events("events", events, events.shape[-1] if events.dim() == 2 else 1)
        model, n_events, device = densities, events.shape[0], events.device

        def evaluate(part: slice, columns: list[int]) -> LogComponents:
            return evaluate_components(model, checked[part], grid.nuisances.to(device)[columns])

    # A model holds several arrays of the block's size at once; 16 is generous for ours.
    width = max(1, max_memory // (8 * 16 * min(n_events, _BLOCK_EVENTS)))
    return _Source(
        evaluate, n_events, grid.signal_ratios.to(device), grid.nuisances.to(device), device, width
    )


def _blocks(source: _Source, columns: list[int]) -> Iterator[tuple[slice, range, LogComponents]]:
    """Yield (events, positions in ``columns``, log densities of this block)."""
    for start in range(0, source.n_events, _BLOCK_EVENTS):
        part = slice(start, min(start + _BLOCK_EVENTS, source.n_events))
        for first in range(0, len(columns), source.width):
            chosen = range(first, min(first + source.width, len(columns)))
            yield part, chosen, source.evaluate(part, columns[chosen.start : chosen.stop])


def _sum_log_mixture(source: _Source, weights: Tensor | None, ratios: Tensor, columns: list[int]) -> Tensor:
    """NLL (without subtraction) of a part of the grid, shape ([n_sets,] n_ratios, n_columns)."""
    n_sets = 1 if weights is None else weights.shape[0]
    nll = torch.zeros(len(columns), n_sets, len(ratios), dtype=torch.float64, device=source.device)
    step = max(1, _CACHE_ELEMENTS // len(ratios))
    for part, positions, pair in _blocks(source, columns):
        block_weights = None if weights is None else weights[:, part]
        for k, position in enumerate(positions):
            target = nll[position]
            signal, background = pair.signal[:, k], pair.background[:, k]
            for start in range(0, signal.shape[0], step):
                piece = slice(start, start + step)
                logs = _log_mixture(signal[piece], background[piece], ratios)
                if block_weights is None:
                    target -= logs.sum(dim=0)
                else:
                    target.addmm_(block_weights[:, piece], logs, alpha=-1)
    total = float(source.n_events) if weights is None else weights.sum(dim=1)[:, None]
    nll += total * torch.log1p(ratios)
    result = nll.permute(1, 2, 0)
    return result[0].contiguous() if weights is None else result.contiguous()


def _log_mixture(signal: Tensor, background: Tensor, ratios: Tensor) -> Tensor:
    """log(mu e^s + e^b), shape (n_events, n_ratios), from log densities (n_events,) however far apart."""
    largest = torch.maximum(signal, background)
    mixture = torch.exp(signal - largest)[:, None] * ratios
    mixture += torch.exp(background - largest)[:, None]
    mixture.log_()
    mixture += largest[:, None]
    if float(ratios[0]) == 0.0:
        # Where exp(b - max) underflows, mu = 0 has to give the background itself, not log(0).
        mixture[:, 0] = background
    return mixture


def _relevant_box(source: _Source, weights: Tensor | None) -> tuple[slice, slice]:
    """The box outside which every set has a negligible likelihood.

    The coarse grid is a part of the full one, so its minimum is not below the true one and every
    coarse point within the limit is kept; one more coarse cell on each side covers what lies between.
    """
    lines = [
        torch.unique(
            torch.cat((torch.arange(0, n, max(1, n // _COARSE_CELLS)), torch.tensor([n - 1])))
        ).tolist()
        for n in (len(source.ratios), len(source.nuisances))
    ]
    nll = _sum_log_mixture(source, weights, source.ratios[lines[0]], lines[1])
    nll = nll.reshape(-1, len(lines[0]), len(lines[1]))
    near = (nll - nll.flatten(1).min(dim=1).values[:, None, None] < _NEGLIGIBLE_NLL).any(dim=0)
    box = []
    for axis, line in enumerate(lines):
        hit = near.any(dim=1 - axis).nonzero()[:, 0]
        first, last = max(int(hit[0]) - 1, 0), min(int(hit[-1]) + 1, len(line) - 1)
        box.append(slice(line[first], line[last] + 1))
    return box[0], box[1]
