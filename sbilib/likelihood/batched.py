r"""Best fits and profile intervals of many sets without scanning a grid.

The dense grid evaluates the likelihood of every set at 180 000 points.  Here the events' log densities
are tabulated on a few nodes in the nuisance parameter (`NuisanceTable`), each set starts from a coarse
scan, and Newton iterations over all sets at once find the best fit and the four interval edges, in
about thirty evaluations a set.  Sets for which the iteration fails, or whose coarse scan shows several
minima, are scanned on a fine grid instead, so the result does not depend on the route.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sbilib.components import ComponentDensities
from sbilib.errors import DataError, check_events, check_range
from sbilib.likelihood.checks import check_interval_range
from sbilib.likelihood.coarse import coarse_scan
from sbilib.likelihood.fine import fine_fit
from sbilib.likelihood.intervals import Intervals
from sbilib.likelihood.newton import Bounds, Edges, Minimum, find_edges, minimize
from sbilib.likelihood.table import EventSets, NuisanceTable

__all__ = ["FitResults", "fit_event_sets", "fit_sets", "fit_toys", "toy_groups"]

_MAX_MEMORY = 256 * 1024**2


@dataclass(frozen=True)
class FitResults:
    """Fits of many sets.

    Attributes:
        signal_ratio: best signal ratio within the scanned range, shape ``(n_sets,)``.
        nuisance: best nuisance value within the scanned range.
        nll_min: NLL there, nothing subtracted.
        ratio_at_bound: True where the best signal ratio is an end of its range.
        nuisance_at_bound: True where the best nuisance value is an end of its range.
        ratio_interval: profile interval of the signal ratio.
        nuisance_interval: profile interval of the nuisance parameter.
        converged: True where the Newton iteration gave the result, False where a fine scan did.
        level: threshold on -2 log lambda of the intervals.
    """

    signal_ratio: Tensor
    nuisance: Tensor
    nll_min: Tensor
    ratio_at_bound: Tensor
    nuisance_at_bound: Tensor
    ratio_interval: Intervals
    nuisance_interval: Intervals
    converged: Tensor
    level: float

    @classmethod
    def join(cls, parts: Sequence[FitResults]) -> FitResults:
        """Fits of several groups of sets, one after the other."""

        def tensors(name: str) -> Tensor:
            return torch.cat([getattr(part, name) for part in parts])

        return cls(
            signal_ratio=tensors("signal_ratio"),
            nuisance=tensors("nuisance"),
            nll_min=tensors("nll_min"),
            ratio_at_bound=tensors("ratio_at_bound"),
            nuisance_at_bound=tensors("nuisance_at_bound"),
            ratio_interval=Intervals.join([part.ratio_interval for part in parts]),
            nuisance_interval=Intervals.join([part.nuisance_interval for part in parts]),
            converged=tensors("converged"),
            level=parts[0].level,
        )


def fit_sets(
    table: NuisanceTable,
    counts: Tensor,
    *,
    ratio_range: tuple[float, float] = (0.0, 0.5),
    level: float = 1.0,
) -> FitResults:
    """Fit sets that share the events of a table, such as bootstrap sets.

    Args:
        table: log densities of the events; the nuisance parameter is searched between its first and
            last node.
        counts: multiplicity of each event in each set, shape ``(n_sets, n_events)``.
        ratio_range: scanned range of the signal ratio.
        level: threshold on -2 log lambda of the intervals; 1 for 68.3%.

    Raises:
        DataError: if the counts are of the wrong shape, negative, or empty for some set.
        ParameterError: for a bad range or level.

    Example:
        >>> import math
        >>> from sbilib.problems.gaussian import GaussianToy
        >>> toy, generator = GaussianToy(2.0), torch.Generator().manual_seed(1)
        >>> parts = zip(("signal", "background"), (60, 240))
        >>> events = torch.cat([toy.sample(c, torch.full((n,), 0.8), generator) for c, n in parts])
        >>> table = NuisanceTable.build(toy, events, torch.linspace(*toy.scan_range, 61))
        >>> fits = fit_sets(table, torch.ones(1, 300))
        >>> bool(fits.ratio_interval.contains(0.25)), bool(fits.converged)
        (True, True)
    """
    return fit_event_sets(EventSets.from_counts(table, counts), ratio_range=ratio_range, level=level)


def fit_toys(
    densities: ComponentDensities,
    events: Tensor,
    nuisances: Tensor,
    *,
    ratio_range: tuple[float, float] = (0.0, 0.5),
    level: float = 1.0,
    max_memory: int = _MAX_MEMORY,
) -> FitResults:
    """Fit independent toys, each with its own events.

    Args:
        densities: the component densities.
        events: shape ``(n_toys, n_events, n_features)``.
        nuisances: nodes in the nuisance parameter, see `NuisanceTable.build`.
        ratio_range: scanned range of the signal ratio.
        level: threshold on -2 log lambda of the intervals.
        max_memory: bytes that work arrays may take, roughly; toys are fitted in groups.

    Raises:
        DataError: for empty, non-finite or wrongly shaped events.
        ParameterError: for a bad range, level or nodes.
    """
    groups = toy_groups(densities, events, nuisances, max_memory=max_memory)
    return FitResults.join([fit_event_sets(sets, ratio_range=ratio_range, level=level) for sets in groups])


def toy_groups(
    densities: ComponentDensities, events: Tensor, nuisances: Tensor, *, max_memory: int = _MAX_MEMORY
) -> Iterator[EventSets]:
    """Independent toys as sets ready to be fitted, in groups that fit into memory.

    Arguments and errors are those of `fit_toys`.
    """
    if events.dim() != 3 or 0 in events.shape:
        raise DataError(
            f"events must have shape (n_toys, n_events, n_features), got {tuple(events.shape)}; "
            "give every toy the same number of events, at least one"
        )
    n_toys, n_events, n_features = events.shape
    check_events("events", events.reshape(-1, n_features), n_features)
    # The table takes three numbers a node and event, and its making about as many again.
    group = max(1, max_memory // (8 * 6 * n_events * len(nuisances)))
    for start in range(0, n_toys, group):
        chunk = events[start : start + group]
        table = NuisanceTable.build(densities, chunk.reshape(-1, n_features), nuisances)
        yield EventSets.from_toys(table, chunk.shape[0])


def fit_event_sets(
    sets: EventSets, *, ratio_range: tuple[float, float] = (0.0, 0.5), level: float = 1.0
) -> FitResults:
    """Fit prepared sets; `fit_sets` and `fit_toys` prepare them."""
    bounds = fit_bounds(sets, ratio_range)
    check_range("level", level, low=0.0, include_low=False)
    start = coarse_scan(sets, bounds)
    best = minimize(sets, start.fraction, start.nuisance, bounds)
    edges = find_edges(sets, best, bounds, level)
    # Single precision sums of n logarithms are good to about 1e-6 of their size.
    missed = best.expansion.nll > start.nll + 1e-2 + 1e-5 * start.nll.abs()
    converged = best.converged & edges.converged.reshape(4, -1).all(dim=0) & ~start.several_minima & ~missed
    results = _assemble(best, edges, bounds, ratio_range, converged, level)
    return _repair(results, sets, ratio_range, level)


def fit_bounds(sets: EventSets, ratio_range: tuple[float, float]) -> Bounds:
    """The scanned box in the signal fraction and the nuisance parameter."""
    low, high = check_interval_range("ratio_range", ratio_range, low=0.0)
    nodes = sets.table.nodes
    return Bounds(low / (1 + low), high / (1 + high), float(nodes[0]), float(nodes[-1]))


def _to_ratio(fraction: Tensor, ratio_range: tuple[float, float]) -> Tensor:
    return (fraction / (1 - fraction)).clamp(*ratio_range)


def _assemble(
    best: Minimum,
    edges: Edges,
    bounds: Bounds,
    ratio_range: tuple[float, float],
    converged: Tensor,
    level: float,
) -> FitResults:
    value, is_open = edges.value.reshape(4, -1), edges.open.reshape(4, -1)
    valid = torch.ones_like(converged)
    ratio = _to_ratio(best.fraction, ratio_range)
    lower, upper = (_to_ratio(value[k], ratio_range) for k in (0, 1))
    p, z = best.fraction, best.nuisance
    return FitResults(
        signal_ratio=ratio,
        nuisance=z,
        nll_min=best.expansion.nll,
        ratio_at_bound=(p <= bounds.fraction_low) | (p >= bounds.fraction_high),
        nuisance_at_bound=(z <= bounds.nuisance_low) | (z >= bounds.nuisance_high),
        ratio_interval=Intervals(ratio, lower, upper, is_open[0], is_open[1], valid),
        nuisance_interval=Intervals(z, value[2], value[3], is_open[2], is_open[3], valid),
        converged=converged,
        level=level,
    )


def _repair(
    results: FitResults, sets: EventSets, ratio_range: tuple[float, float], level: float
) -> FitResults:
    """Replace the fits that did not converge by those of a fine scan."""
    failed = (~results.converged).nonzero()[:, 0]
    if failed.numel() == 0:
        return results
    for number in failed:
        fit = fine_fit(sets.select(number.reshape(1)), ratio_range=ratio_range, level=level)
        for name in ("signal_ratio", "nuisance", "nll_min", "ratio_at_bound", "nuisance_at_bound"):
            getattr(results, name)[number] = getattr(fit, name)
        for name in ("ratio_interval", "nuisance_interval"):
            new, old = getattr(fit, name), getattr(results, name)
            for field in fields(Intervals):
                getattr(old, field.name)[number] = getattr(new, field.name)
    return results
