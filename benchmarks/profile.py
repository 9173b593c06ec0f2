"""Profile intervals of bootstrap sets: batched Newton fits against the dense grid.

Run ``python -m benchmarks.profile`` (``--quick`` for a small grid and few sets).  Both routes start from
the events and end with the intervals of signal ratio and nuisance parameter of every set, with exact
densities; the evaluation of the densities is part of both totals and also listed apart.  The dense
route evaluates the mixture once for all sets and sums it over events by matrix products.  Prints a
table and, unless quick, writes ``benchmarks/results/profile.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks._timing import compare, print_table, write_json
from sbilib.likelihood import (
    FitResults,
    Intervals,
    NuisanceTable,
    ScanGrid,
    crossing_interval,
    fit_sets,
    profile_nuisance,
    profile_signal_ratio,
    scan_nll,
)
from sbilib.problems.gaussian import GaussianToy
from sbilib.problems.sets import bootstrap_counts, make_test_set

N_NODES = 61
DENSE, BATCHED, DENSE_MODEL, BATCHED_MODEL = (
    "dense grid",
    "batched",
    "densities on the grid",
    "densities on nodes",
)


@dataclass(frozen=True)
class Size:
    """How much work one run is."""

    n_events: int
    n_sets: int
    set_size: int
    n_ratios: int
    n_nuisances: int
    rounds: int


PUBLISHED = Size(n_events=9000, n_sets=100, set_size=1000, n_ratios=600, n_nuisances=300, rounds=3)
QUICK = Size(n_events=1800, n_sets=10, set_size=1000, n_ratios=200, n_nuisances=100, rounds=2)


def dense_fit(
    toy: GaussianToy, events: Tensor, grid: ScanGrid, counts: Tensor
) -> tuple[Intervals, Intervals]:
    """Scan the grid for all sets and take the crossings of both profiles."""
    scan = scan_nll(toy, events, grid, counts=counts)
    return (
        crossing_interval(profile_signal_ratio(scan, refine=True)),
        crossing_interval(profile_nuisance(scan, refine=True)),
    )


def batched_fit(toy: GaussianToy, events: Tensor, nodes: Tensor, counts: Tensor) -> FitResults:
    """Tabulate the densities and fit all sets at once."""
    return fit_sets(NuisanceTable.build(toy, events, nodes), counts)


def difference(got: Intervals, want: Intervals) -> tuple[float, float]:
    """Mean and largest difference of best fits and edges, in units of the interval width."""
    parts = [((getattr(got, n) - getattr(want, n)) / want.width).abs() for n in ("best", "lower", "upper")]
    stacked = torch.stack(parts)
    return float(stacked.mean(dim=1).max()), float(stacked.max())


def run_case(distance: str, size: Size) -> dict[str, Any]:
    """Time both routes on the same bootstrap sets of one test set, and compare their intervals."""
    toy, generator = GaussianToy.from_name(distance), torch.Generator().manual_seed(1)
    test_set = make_test_set(
        toy, signal_ratio=0.2, nuisance=toy.reference_nuisance, n_events=size.n_events, generator=generator
    )
    events = test_set.events
    counts = bootstrap_counts(size.n_events, size.n_sets, size.set_size, generator)
    grid = ScanGrid.uniform(
        nuisance_range=toy.scan_range, n_ratios=size.n_ratios, n_nuisances=size.n_nuisances
    )
    nodes = torch.linspace(*toy.scan_range, N_NODES, dtype=torch.float64)
    batched = partial(batched_fit, toy, events, nodes, counts)
    fits = batched()
    ratio, nuisance = dense_fit(toy, events, grid, counts)
    methods: dict[str, Callable[[], object]] = {
        DENSE: partial(dense_fit, toy, events, grid, counts),
        BATCHED: batched,
        DENSE_MODEL: partial(toy.log_components, events, grid.nuisances),
        BATCHED_MODEL: partial(toy.log_components, events, nodes),
    }
    times = compare(methods, rounds=size.rounds, round_seconds=0.5, warm_up=0)
    speedup, low, high = times.speedup(BATCHED, DENSE)
    in_ratio, in_nuisance = (
        difference(fits.ratio_interval, ratio),
        difference(fits.nuisance_interval, nuisance),
    )
    return {
        "distance": distance,
        "median_seconds": {name: times.median(name) for name in methods},
        "speedup": speedup,
        "speedup_quartiles": [low, high],
        "converged": float(fits.converged.double().mean()),
        "difference_in_widths": {
            "signal_ratio": {"mean": in_ratio[0], "largest": in_ratio[1]},
            "nuisance": {"mean": in_nuisance[0], "largest": in_nuisance[1]},
        },
    }


def main() -> None:
    """Run both cases, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small grid, few sets, result not written")
    options = parser.parse_args()
    size = QUICK if options.quick else PUBLISHED
    cases = [run_case(distance, size) for distance in ("large", "small")]
    rows = [
        [
            case["distance"],
            *(f"{case['median_seconds'][name]:.3g}" for name in (DENSE, DENSE_MODEL, BATCHED, BATCHED_MODEL)),
            f"{case['speedup']:.0f}x",
            *(f"{case['difference_in_widths'][name]['mean']:.0e}" for name in ("signal_ratio", "nuisance")),
            f"{case['converged']:.0%}",
        ]
        for case in cases
    ]
    columns = (
        "case",
        "dense s",
        "of it model",
        "batched s",
        "of it model",
        "speedup",
        "diff mu",
        "diff z",
        "Newton",
    )
    print_table(
        f"Profile intervals of {size.n_sets} sets of {size.set_size} from {size.n_events} events",
        columns,
        rows,
        f"Dense grid of {size.n_ratios} x {size.n_nuisances} points; batched table of {N_NODES} nodes. "
        "diff: mean difference of best fits and edges in interval widths (the worst of the three). "
        "Newton: share of sets solved by the iteration, without a scan.",
    )
    if not options.quick:
        write_json("profile", {"size": asdict(size), "results": cases})


if __name__ == "__main__":
    main()
