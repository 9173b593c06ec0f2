"""All metrics of one pair of models: splines near the likelihoods against the dense grid.

Run ``python -m benchmarks.evaluation`` (``--quick`` for a small case).  One pair is evaluated on bootstrap
sets of published test sets, with the exact densities on the same sets for the overlaps, once by
`evaluate_pair` and, modern pairs only, once by `evaluate_densities` on the published grid.  The pairs are
trained for a few hundred steps only: long enough that their likelihoods look like likelihoods.  Both routes
take the same time for every test set, so few are timed and the seconds are given for all 45.  One column is
the time of the networks alone on the nodes that the fast route uses, and the rate of a matrix product in the
same run tells what the machine had to give.  The fast route is also timed with the pair read from tables over
its two features (`TabulatedPair`), which pays for many test sets: making them is part of the time.  Coverage
and widths take a coarser table than overlaps do; what that changes stands in the last column.  Prints a table
and, unless quick, writes ``benchmarks/results/evaluation.json``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Generator

from benchmarks._timing import compare, print_table, write_json
from sbilib.components import ComponentDensities
from sbilib.likelihood import ScanGrid
from sbilib.likelihood.checks import evaluate_components
from sbilib.likelihood.local import BLOCK_PAIRS
from sbilib.problems import TestSet, published_test_sets
from sbilib.problems.gaussian import GaussianToy
from sbilib.studies import METHODS, METRICS, RECIPES, evaluate_densities, evaluate_pair, fit_pair, get_recipe
from sbilib.studies.evaluation import DEFAULT_NODES
from sbilib.studies.higgs_scaling import fit_scaling
from sbilib.studies.higgs_tables import TabulatedPair

N_PUBLISHED = 45
FULL, INTERVALS, FINE, COARSE, FULL_TABLES, INTERVALS_TABLES, NETWORK, DENSE, PRODUCT = (
    "all metrics",
    "coverage and widths",
    "making fine tables",
    "making coarse tables",
    "all metrics, tables",
    "coverage and widths, tables",
    "networks alone",
    "dense grid",
    "matrix product",
)
PRODUCT_SIZE = 1000
DENSE_RECIPE = "modern"  # published networks are slower still on the grid
SPACING = {FINE: 0.05, COARSE: 0.1}
"""Spacing of the tables, in standard deviations of the features."""


@dataclass(frozen=True)
class Size:
    """How much work one run is."""

    n_events: int
    n_bootstrap: int
    set_size: int
    n_ratios: int
    n_nuisances: int
    test_sets: int
    dense_test_sets: int
    steps: int
    rounds: int


PUBLISHED = Size(9000, 100, 1000, 600, 300, test_sets=3, dense_test_sets=1, steps=400, rounds=2)
QUICK = Size(900, 10, 500, 120, 60, test_sets=2, dense_test_sets=1, steps=50, rounds=1)


def make_pair(toy: GaussianToy, method: str, recipe: str, size: Size) -> ComponentDensities:
    """A pair that was trained for a moment."""
    case = "large" if toy.radius > 1 else "small"
    short = get_recipe(method, recipe, case=case).adapted(n_steps=size.steps, n_events=20_000)
    training = replace(short.training, validate_every=size.steps, learning_rate=3e-3)
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("SBILIB_CACHE")
        os.environ["SBILIB_CACHE"] = folder
        try:
            return fit_pair(toy, replace(short, training=training), seed=1, device="cpu").densities
        finally:
            if before is None:
                del os.environ["SBILIB_CACHE"]
            else:
                os.environ["SBILIB_CACHE"] = before


def evaluate_networks(pair: ComponentDensities, toy: GaussianToy, test_sets: Sequence[TestSet]) -> None:
    """Densities of every event on as many nodes as the fast route uses, in blocks as it does."""
    nodes = torch.linspace(*toy.scan_range, DEFAULT_NODES, dtype=torch.float64)
    for test_set in test_sets:
        for block in torch.split(test_set.events, BLOCK_PAIRS // DEFAULT_NODES):
            evaluate_components(pair, block, nodes)


def dense(
    pair: ComponentDensities, toy: GaussianToy, test_sets: Sequence[TestSet], grid: ScanGrid, size: Size
) -> pd.DataFrame:
    """The metrics of the pair by scans of the whole grid."""
    table = evaluate_densities(
        {"exact": toy, "pair": pair},
        test_sets,
        grid,
        exact="exact",
        n_bootstrap=size.n_bootstrap,
        set_size=size.set_size,
        seed=1,
    ).table
    return table[table["method"] == "pair"].reset_index(drop=True)


def run_pair(toy: GaussianToy, method: str, recipe: str, size: Size) -> dict[str, Any]:
    """Time both routes for one pair, and compare their metrics on the same bootstrap sets."""
    pair = make_pair(toy, method, recipe, size)
    all_sets = published_test_sets(toy, Generator().manual_seed(1), n_events=size.n_events)
    chosen = [all_sets[round(k)] for k in torch.linspace(0, 8, size.test_sets).tolist()]
    grid = ScanGrid.uniform(
        nuisance_range=toy.scan_range, n_ratios=size.n_ratios, n_nuisances=size.n_nuisances
    )
    fast = partial(
        evaluate_pair,
        pair,
        exact=toy,
        n_bootstrap=size.n_bootstrap,
        set_size=size.set_size,
        seed=1,
        grid=grid,
    )
    scaling = fit_scaling(toy)
    tabulate = {
        name: partial(TabulatedPair, pair, scaling, nuisance_range=toy.scan_range, spacing=spacing)
        for name, spacing in SPACING.items()
    }
    read = {name: partial(fast.func, make(), **fast.keywords) for name, make in tabulate.items()}
    square = torch.rand(PRODUCT_SIZE, PRODUCT_SIZE)
    methods: dict[str, Callable[[], object]] = {
        FULL: partial(fast, chosen),
        INTERVALS: partial(fast, chosen, overlaps=False),
        **tabulate,
        FULL_TABLES: partial(read[FINE], chosen),
        INTERVALS_TABLES: partial(read[COARSE], chosen, overlaps=False),
        NETWORK: partial(evaluate_networks, pair, toy, chosen),
        PRODUCT: partial(torch.mm, square, square),
    }
    times = compare(methods, rounds=size.rounds, warm_up=1)
    timed = (FULL, INTERVALS, FULL_TABLES, INTERVALS_TABLES, NETWORK)
    seconds = {name: N_PUBLISHED / size.test_sets * times.median(name) for name in timed}
    for name, table in ((FULL_TABLES, FINE), (INTERVALS_TABLES, COARSE)):
        seconds[table] = times.median(table)
        seconds[name] += seconds[table]
    difference: dict[str, float] = {}
    if recipe == DENSE_RECIPE:
        few = chosen[: size.dense_test_sets]
        start = time.perf_counter()
        want = dense(pair, toy, few, grid, size)
        seconds[DENSE] = N_PUBLISHED / len(few) * (time.perf_counter() - start)
        largest = (fast(few)[list(METRICS)] - want[list(METRICS)]).abs().max()
        difference = {name: float(largest[name]) for name in METRICS}
    direct = fast(chosen)
    shifts = {
        FULL_TABLES: read[FINE](chosen)[list(METRICS[:3])] - direct[list(METRICS[:3])],
        INTERVALS_TABLES: read[COARSE](chosen)[list(METRICS[3:])] - direct[list(METRICS[3:])],
    }
    of_tables = pd.concat([table.mean() for table in shifts.values()]).abs()
    return {
        "case": toy.name,
        "method": method,
        "recipe": recipe,
        "seconds_for_45_test_sets": seconds,
        "matrix_product_gflops": 2 * PRODUCT_SIZE**3 / times.median(PRODUCT) / 1e9,
        "speedup": seconds[DENSE] / seconds[FULL] if DENSE in seconds else None,
        "mean_difference_of_tables": {name: float(of_tables[name]) for name in METRICS},
        "largest_difference": difference,
    }


def _beside_dense(result: dict[str, Any]) -> tuple[str, str, str]:
    """Seconds of the dense grid, speedup and largest difference, where it was timed."""
    if result["speedup"] is None:
        return ("–", "–", "–")
    difference = max(result["largest_difference"][name] for name in METRICS[:3])
    return (
        f"{result['seconds_for_45_test_sets'][DENSE]:.3g}",
        f"{result['speedup']:.0f}x",
        f"{difference:.0e}",
    )


def main() -> None:
    """Run all pairs, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few events and sets, result not written")
    options = parser.parse_args()
    size = QUICK if options.quick else PUBLISHED
    toys = (GaussianToy.large_distance(), GaussianToy.small_distance())
    results = [
        run_pair(toy, method, recipe, size) for toy in toys for method in METHODS for recipe in RECIPES
    ]
    rows = [
        [
            f"{result['case']}, {result['recipe']} {result['method']}",
            *(
                f"{result['seconds_for_45_test_sets'][name]:.3g}"
                for name in (FULL, INTERVALS, FULL_TABLES, INTERVALS_TABLES, NETWORK)
            ),
            *_beside_dense(result),
            f"{result['matrix_product_gflops']:.0f}",
            f"{max(result['mean_difference_of_tables'].values()):.0e}",
        ]
        for result in results
    ]
    columns = (
        *("pair", "all s", "no overlaps s", "all, tables s", "no overlaps, tables s", "networks s"),
        *("dense s", "speedup", "diff", "GFLOP/s", "diff tables"),
    )
    print_table(
        f"All metrics of one pair on {N_PUBLISHED} test sets of {size.n_events} events, "
        f"{size.n_bootstrap} bootstrap sets each",
        columns,
        rows,
        f"{DEFAULT_NODES} nuisance nodes against a grid of {size.n_ratios} x {size.n_nuisances} points.  "
        "networks: the densities on the nodes alone.  GFLOP/s: single-precision matrix product in the same "
        "run.  diff: largest difference of the mean overlaps of one test set; diff tables: of any metric, "
        "mean over the test sets, with tables and without.",
    )
    if not options.quick:
        write_json("evaluation", {"size": asdict(size), "results": results})


if __name__ == "__main__":
    main()
