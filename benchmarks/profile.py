"""Profile intervals of bootstrap sets: batched Newton fits against the dense grid.

Run ``python -m benchmarks.profile`` (``--quick`` for a small grid and few sets).  Both routes start from
the events and end with the intervals of signal ratio and nuisance parameter of every set, with exact
densities; the evaluation of the densities is part of both totals and also listed apart.  The dense
route evaluates the mixture once for all sets and sums it over events by matrix products.  Prints a
table and writes ``benchmarks/results/profile.json``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

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

RESULT = Path(__file__).parent / "results" / "profile.json"
N_NODES = 61
Result = TypeVar("Result")


@dataclass(frozen=True)
class Size:
    """How much work one run is."""

    n_events: int
    n_sets: int
    set_size: int
    n_ratios: int
    n_nuisances: int
    repeats: int


PUBLISHED = Size(n_events=9000, n_sets=100, set_size=1000, n_ratios=600, n_nuisances=300, repeats=9)
QUICK = Size(n_events=1800, n_sets=10, set_size=1000, n_ratios=200, n_nuisances=100, repeats=3)


def timed(function: Callable[[], Result], repeats: int) -> tuple[float, Result]:
    """Median wall time in seconds of ``repeats`` calls, and the last result."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


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


def compare(distance: str, size: Size) -> dict[str, float | str]:
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
    batched_fit(toy, events, nodes, counts)
    batched_seconds, fits = timed(lambda: batched_fit(toy, events, nodes, counts), size.repeats)
    dense_seconds, (ratio, nuisance) = timed(lambda: dense_fit(toy, events, grid, counts), 1)
    table_seconds, _ = timed(lambda: toy.log_components(events, nodes), size.repeats)
    model_seconds, _ = timed(lambda: toy.log_components(events, grid.nuisances), 3)
    mean_ratio, max_ratio = difference(fits.ratio_interval, ratio)
    mean_nuisance, max_nuisance = difference(fits.nuisance_interval, nuisance)
    return {
        "distance": distance,
        "dense_seconds": dense_seconds,
        "dense_model_seconds": model_seconds,
        "batched_seconds": batched_seconds,
        "batched_model_seconds": table_seconds,
        "speedup": dense_seconds / batched_seconds,
        "converged": float(fits.converged.double().mean()),
        "mean_difference_ratio": mean_ratio,
        "max_difference_ratio": max_ratio,
        "mean_difference_nuisance": mean_nuisance,
        "max_difference_nuisance": max_nuisance,
    }


def main() -> None:
    """Run both cases, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small grid and few sets")
    parser.add_argument("--threads", type=int, help="threads of torch (default: all)")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file to write")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    size = QUICK if options.quick else PUBLISHED
    rows = [compare(distance, size) for distance in ("large", "small")]
    print(
        f"profile intervals of {size.n_sets} sets of {size.set_size} from {size.n_events} events; "
        f"dense grid {size.n_ratios} x {size.n_nuisances}, batched table of {N_NODES} nodes; "
        f"{torch.get_num_threads()} threads"
    )
    print(f"{'case':8}{'dense s':>10}{'(model)':>10}{'batched s':>11}{'(model)':>10}{'speedup':>9}", end="")
    print(f"{'mean |diff| mu, z (widths)':>30}{'largest':>10}{'converged':>11}")
    for row in rows:
        means = f"{row['mean_difference_ratio']:.1e}, {row['mean_difference_nuisance']:.1e}"
        largest = max(float(row["max_difference_ratio"]), float(row["max_difference_nuisance"]))
        print(
            f"{row['distance']:8}{row['dense_seconds']:>10.2f}{row['dense_model_seconds']:>10.3f}"
            f"{row['batched_seconds']:>11.4f}{row['batched_model_seconds']:>10.4f}{row['speedup']:>9.0f}"
            f"{means:>30}{largest:>10.1e}{row['converged']:>11.0%}"
        )
    record = {
        "benchmark": "profile",
        "quick": options.quick,
        "size": asdict(size),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "results": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
