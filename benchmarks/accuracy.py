"""Accuracy against training time: total overlap with the exact likelihood for both recipes of both methods.

Every point is a pair of its own, trained from scratch with so many steps (the schedule of the modern recipes
stretches over them).  Overlaps are means over the nine published test points, with bootstrap sets of 1000
events on a grid of 150 x 81 points.  The full trainings stand in the study ``gaussian-toys``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from typing import Any

import torch

from benchmarks._timing import print_table, write_json
from sbilib.likelihood import ScanGrid
from sbilib.problems import GaussianToy, published_test_sets
from sbilib.studies import evaluate_densities, fit_pair, get_recipe, summarize_metrics

STEPS = {
    ("sluijter", "flow"): (300, 1000),
    ("sluijter", "classifier"): (1000, 3000),
    ("modern", "flow"): (250, 1000),
    ("modern", "classifier"): (500, 2000),
}
QUICK_STEPS = {key: steps[:1] for key, steps in STEPS.items()}


def measure(
    case: str, steps: dict[tuple[str, str], tuple[int, ...]], n_bootstrap: int
) -> list[dict[str, Any]]:
    """Train all pairs of one case and compare their likelihoods with the exact one."""
    toy = GaussianToy.from_name(case)
    test_sets = published_test_sets(toy, torch.Generator().manual_seed(1))
    grid = ScanGrid.uniform(nuisance_range=toy.scan_range, n_ratios=150, n_nuisances=81)
    points = []
    for (recipe, method), numbers in steps.items():
        for n_steps in numbers:
            plan = get_recipe(method, recipe, case=case).adapted(n_steps=n_steps, n_events=1_000_000)
            pair = fit_pair(toy, plan, seed=1, progress=True)
            densities = {"exact": toy, "pair": pair.densities}
            table = evaluate_densities(
                densities, test_sets, grid, exact="exact", n_bootstrap=n_bootstrap, seed=1
            ).table
            overlap = summarize_metrics(table).loc["pair", "total overlap"]
            points.append(
                {
                    "case": case,
                    "recipe": recipe,
                    "method": method,
                    "steps": n_steps,
                    "seconds": pair.seconds,
                    "total_overlap": float(overlap["mean"]),
                    "error": float(overlap["error"]),
                }
            )
    return points


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description="accuracy against training seconds")
    parser.add_argument("--quick", action="store_true", help="one point a recipe, result not written")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # A folder of its own: times must be measured, not read from the checkpoints of a study.
        os.environ["SBILIB_CACHE"] = folder
        steps, n_bootstrap = (QUICK_STEPS, 10) if options.quick else (STEPS, 20)
        points = [point for case in ("large", "small") for point in measure(case, steps, n_bootstrap)]
    rows = [
        [
            point["case"],
            point["method"],
            point["recipe"],
            f"{point['steps']:,}",
            f"{point['seconds']:.0f}",
            f"{point['total_overlap']:.3f} ± {point['error']:.3f}",
        ]
        for point in points
    ]
    print_table(
        "Accuracy against training time",
        ("case", "method", "recipe", "steps", "seconds a pair", "total overlap"),
        rows,
        "Errors are standard errors over the nine test sets of one pair.",
    )
    if not options.quick:
        write_json("accuracy", {"points": points})


if __name__ == "__main__":
    main()
