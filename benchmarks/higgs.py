"""The Higgs case: events per second of both generation routes, training steps, and evaluation of toys.

Run ``python -m benchmarks.higgs`` (``--quick`` for small numbers, ``--threads 1`` for one core, ``--skip
training`` to leave a part out).  Generation counts events that pass preselection and detector, the same for
both routes; starting Pythia and the library of tau decays, needed once, are not in the rates.  The two routes
take turns, and ratios are those within a round.  Without Pythia that part is skipped.  Steps of training
include drawing the batch, shifting its events, and validation.  Prints tables and writes
``benchmarks/results/higgs.json``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._timing import compare, environment, print_table, write_json
from sbilib.components import ComponentDensities
from sbilib.errors import DependencyError
from sbilib.likelihood import EventSets, NuisanceTable, fit_event_sets
from sbilib.likelihood.extended import fit_extended
from sbilib.problems import COMPONENTS
from sbilib.problems.higgs import HiggsTauTau
from sbilib.simulation.detector import DetectorResponse, simulate_detector
from sbilib.simulation.generator import import_pythia
from sbilib.simulation.sample import SampleSettings
from sbilib.simulation.truth import TruthEvents
from sbilib.studies.higgs_features import FEATURE_SETS
from sbilib.studies.higgs_recipes import higgs_recipe
from sbilib.studies.higgs_scaling import fit_scaling
from sbilib.studies.higgs_tables import TabulatedPair
from sbilib.studies.higgs_toys import problem_yields
from sbilib.studies.higgs_training import fit_higgs_pairs

PARTS = ("generation", "training", "evaluation")
TRAININGS = (
    ("classifier", "sluijter", 2),
    ("classifier", "modern", 2),
    ("classifier", "modern", 6),
    ("classifier", "modern", 28),
    ("flow", "sluijter", 2),
    ("flow", "modern", 2),
    ("flow", "modern", 6),
)
TOY_SIZE = 1000


class Route:
    """Parts of a generation one after the other, through the detector, with a count of what is left."""

    def __init__(self, parts: Iterator[tuple[TruthEvents, Any]]) -> None:
        self._parts, self._generator = parts, np.random.default_rng(1)
        self._response = DetectorResponse()
        self.calls = self.selected = 0

    def __call__(self) -> None:
        """Generate one more part."""
        events, _ = next(self._parts)
        self.selected += len(simulate_detector(events, self._response, self._generator).primary)
        self.calls += 1


def generation(quick: bool) -> dict[str, Any] | None:
    """Selected events a second of both routes, or None without Pythia."""
    try:
        import_pythia()
    except DependencyError as error:
        print(f"generation is skipped: {error}")
        return None
    from sbilib.simulation.fast_route import generate_fast
    from sbilib.simulation.plain_route import generate_plain
    from sbilib.simulation.tau_decays import build_library

    settings, rounds = SampleSettings().generation, 3 if quick else 9
    n_fast, n_plain, n_decays = (500, 20, 2000) if quick else (4000, 150, 20_000)
    start = time.perf_counter()
    library = build_library(n_decays)
    found: dict[str, Any] = {"library_decays": n_decays, "library_seconds": time.perf_counter() - start}
    rows = []
    for name in COMPONENTS:
        enough = 100 * rounds
        routes = {
            "fast": Route(generate_fast(name, enough * n_fast, 1, settings, library=library, chunk=n_fast)),
            "plain": Route(generate_plain(name, enough * n_plain, 1, settings, chunk=n_plain)),
        }
        times = compare(routes, rounds=rounds, round_seconds=0.0, warm_up=1)
        per_call = {route: each.selected / each.calls for route, each in routes.items()}
        rates = {route: per_call[route] / times.median(route) for route in routes}
        scale = per_call["fast"] / per_call["plain"]
        ratio, low, high = (scale * each for each in times.speedup("fast", "plain"))
        counted = {route: each.selected for route, each in routes.items()}
        found[name] = {"per_second": rates, "ratio": [ratio, low, high], "selected": counted}
        rows.append(
            [name, f"{rates['fast']:.0f}", f"{rates['plain']:.1f}", f"{ratio:.1f}  ({low:.1f}-{high:.1f})"]
        )
    print_table(
        "Generation: selected events a second, one core",
        ["component", "fast route", "plain Pythia", "ratio (quartiles)"],
        rows,
        caption=f"The library of 2 x {n_decays} tau decays took {found['library_seconds']:.0f} s, once.",
    )
    return found


def training(quick: bool) -> dict[str, Any]:
    """Milliseconds of an optimizer step of a pair."""
    n_steps, found, rows = 10 if quick else 150, {}, []
    for method, name, n_features in TRAININGS:
        problem = HiggsTauTau(features=FEATURE_SETS[n_features])
        scaling = fit_scaling(problem, n_events=20_000, scale_nuisance=name != "sluijter")
        recipe = higgs_recipe(method, name, n_coordinates=scaling.config.n_coordinates, n_steps=n_steps)
        with tempfile.TemporaryDirectory() as folder:
            (pair,) = fit_higgs_pairs(
                problem,
                recipe,
                seeds=[1],
                validation=problem.with_split("validation"),
                scaling=scaling,
                device="cpu",
                checkpoint_folder=Path(folder),
            )
        milliseconds = 1e3 * max(record.seconds for record in pair.training.values()) / n_steps
        batch = recipe.training.batch_size
        label = f"{method}, {name}, {n_features} features"
        found[label] = {
            "ms_per_step": milliseconds,
            "batch": batch,
            "events_per_second": 2e3 * batch / milliseconds,
        }
        rows.append([label, str(batch), f"{milliseconds:.1f}", f"{2e3 * batch / milliseconds:,.0f}"])
    print_table(
        f"Training of a pair (both models), {n_steps} steps",
        ["recipe", "batch", "ms a step", "events a second"],
        rows,
    )
    return found


def evaluation(quick: bool) -> dict[str, Any]:
    """Seconds to evaluate models on test events, and to fit toys."""
    rounds, n_events = (3, 2000) if quick else (9, 20_000)
    problem = HiggsTauTau(threshold="realistic")
    test = problem.with_split("test-1")
    events = torch.cat([test.all_events(name).events[: n_events // 2] for name in COMPONENTS])
    events = events[torch.randperm(len(events), generator=torch.Generator().manual_seed(1))]
    nodes = torch.linspace(*problem.scan_range, 21, dtype=torch.float64)
    densities = _untrained(problem)
    builds: dict[str, Callable[[], object]] = {}
    for name, each in densities.items():
        builds[name] = _build(each, events, nodes)
    times = compare(builds, rounds=rounds, round_seconds=0.0, warm_up=1)
    found = {"evaluation": {name: times.median(name) / len(events) for name in builds}}
    print_table(
        f"Evaluation at {len(nodes)} energy scales, two features",
        ["densities", "ms for 1000 events"],
        [[name, f"{1e6 * each:.1f}"] for name, each in found["evaluation"].items()],
    )
    found["fits"] = _fits(densities["classifier"], events, nodes, problem, rounds)
    return found


def _untrained(problem: HiggsTauTau) -> dict[str, ComponentDensities]:
    """Pairs after a few steps: how long they take does not depend on what they learned."""
    scaling = fit_scaling(problem, n_events=20_000)
    found: dict[str, ComponentDensities] = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in ("classifier", "flow"):
            recipe = higgs_recipe(method, "modern", n_steps=5)
            (pair,) = fit_higgs_pairs(
                problem, recipe, seeds=[1], scaling=scaling, device="cpu", checkpoint_folder=Path(folder)
            )
            found[method] = pair.densities
    for method in ("classifier", "flow"):
        found[f"{method}, tabulated"] = TabulatedPair(
            found[method], scaling, nuisance_range=problem.scan_range, spacing=0.2
        )
    return found


def _build(densities: ComponentDensities, events: torch.Tensor, nodes: torch.Tensor) -> Callable[[], object]:
    return lambda: NuisanceTable.build(densities, events, nodes)


def _fits(
    densities: ComponentDensities,
    events: torch.Tensor,
    nodes: torch.Tensor,
    problem: HiggsTauTau,
    rounds: int,
) -> dict[str, float]:
    """Seconds to fit one toy, once its events are evaluated."""
    table = NuisanceTable.build(densities, events, nodes)
    n_toys = len(events) // TOY_SIZE
    index, offsets = torch.arange(n_toys * TOY_SIZE), TOY_SIZE * torch.arange(n_toys)
    yields = problem_yields(problem, n_events=TOY_SIZE)
    first = NuisanceTable(table.nodes, table.log_ratio[:, :, index], table.background[index])
    methods: dict[str, Callable[[], object]] = {
        "shape, exact fits": lambda: fit_event_sets(EventSets.from_toys(first, n_toys)),
        "shape, surfaces": lambda: fit_extended(table, index, offsets, None),
        "extended, surfaces": lambda: fit_extended(table, index, offsets, yields),
    }
    times = compare(methods, rounds=rounds, round_seconds=0.0, warm_up=1)
    found = {name: times.median(name) / n_toys for name in methods}
    print_table(
        f"Fits and both intervals of toys of {TOY_SIZE} events",
        ["likelihood", "ms a toy"],
        [[name, f"{1e3 * each:.1f}"] for name, each in found.items()],
        caption=f"{n_toys} toys at once.",
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small numbers and fewer rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--skip", choices=PARTS, nargs="*", default=[], help="parts to leave out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    content: dict[str, Any] = {"quick": options.quick}
    for name, part in zip(PARTS, (generation, training, evaluation), strict=True):
        content[name] = None if name in options.skip else part(options.quick)
    print(f"{environment()}\nwrote {write_json('higgs', content)}")


if __name__ == "__main__":
    main()
