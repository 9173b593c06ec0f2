"""Binned fits, hypothesis tests and upper limits against pyhf, from 1 to 200 bins.

Run ``python -m benchmarks.histfactory`` (``--quick`` for few bins and toys; nothing is written).  Each model
has one channel with a peak over a falling background, shapesys and staterror in every bin (2 n + 1
parameters).  Both codes meet the same data in the same run.  pyhf (numpy backend) handles one data set at a
time, so its time for many is that of one, measured, times their number.  A method whose call takes too long
is left out for larger models.  Prints a table and writes ``benchmarks/results/histfactory.json``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyhf
import torch
from torch import Tensor

from benchmarks._timing import print_table, write_json
from sbilib.histfactory import (
    Channel,
    Model,
    NormFactor,
    Sample,
    ShapeSys,
    StatError,
    fit,
    hypotest,
    sample_data,
    upper_limit,
)

OPTIMIZERS = ("scipy", "minuit")


@dataclass(frozen=True)
class Size:
    """How much work one run is."""

    bins: tuple[int, ...]
    n_toys: int
    n_limits: int
    rounds: int
    most_seconds: float
    """A pyhf call beyond this is not tried for larger models."""


PUBLISHED = Size(bins=(1, 5, 25, 100, 200), n_toys=1000, n_limits=100, rounds=3, most_seconds=60.0)
QUICK = Size(bins=(1, 5), n_toys=100, n_limits=10, rounds=1, most_seconds=20.0)


@dataclass(frozen=True)
class Case:
    """One model in both codes, and data."""

    model: Model
    oracle: Any
    data: Tensor


def build(n_bins: int) -> Case:
    """A peak of 100 events over 2000, shapesys of 5% and the statistical uncertainty of the templates."""
    x = (np.arange(n_bins) + 0.5) / n_bins
    shape = np.exp(-0.5 * ((x - 0.4) / 0.1) ** 2) + 1e-3
    fall = np.exp(-2 * x)
    signal, background = 100 * shape / shape.sum(), 2000 * fall / fall.sum()
    own, stat = (0.05 * background).tolist(), (0.2 * np.sqrt(background)).tolist()
    stat_signal = (0.2 * np.sqrt(signal)).tolist()
    channel = Channel(
        "SR",
        [
            Sample("signal", signal.tolist(), [NormFactor("mu"), StatError("stat", stat_signal)]),
            Sample("background", background.tolist(), [ShapeSys("shape", own), StatError("stat", stat)]),
        ],
    )
    samples = [
        _sample("signal", signal, [("mu", "normfactor", None), ("stat", "staterror", stat_signal)]),
        _sample("background", background, [("shape", "shapesys", own), ("stat", "staterror", stat)]),
    ]
    model = Model([channel])
    oracle = pyhf.Model({"channels": [{"name": "SR", "samples": samples}]}, poi_name="mu")
    counts = torch.as_tensor(np.random.default_rng(1).poisson(background), dtype=torch.float64)
    return Case(model, oracle, torch.cat([counts, model.auxiliary_data]))


def _sample(name: str, yields: np.ndarray, modifiers: list[tuple[str, str, Any]]) -> dict[str, Any]:
    rows = [{"name": each, "type": kind, "data": data} for each, kind, data in modifiers]
    return {"name": name, "data": yields.tolist(), "modifiers": rows}


def seconds(call: Callable[[], object], rounds: int) -> float:
    """Shortest of some calls, after one to warm up where a call is short."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
        if taken[-1] > 20:
            break
    return min(taken)


def ours(case: Case, size: Size) -> dict[str, float]:
    """Seconds per data set of each task."""
    model, data = case.model, case.data
    generator = torch.Generator().manual_seed(1)
    origin = model.initial.clone()
    origin[model.poi_index or 0] = 0.0
    toys = sample_data(origin, model, size.n_toys, generator=generator)
    some = toys[: size.n_limits]
    # Many bins and many data sets make minutes; then fewer are timed, as many as one memory chunk holds.
    several = toys if model.n_bins <= 50 else toys[: max(20, size.n_toys // 10)]
    tests = 2 * len(several)

    def by_toys() -> object:
        return hypotest(1.0, data, model, calculator="toys", n_toys=len(several), generator=generator)

    fit(data, model)
    upper_limit(data, model)
    one, n = size.rounds + 2, size.rounds if model.n_bins <= 50 else 1
    return {
        "fit": seconds(lambda: fit(data, model), one),
        "fit, many": seconds(lambda: fit(several, model), n) / len(several),
        "hypotest": seconds(lambda: hypotest(1.0, data, model), one),
        "hypotest, many": seconds(lambda: hypotest(1.0, several, model), n) / len(several),
        "upper limit": seconds(lambda: upper_limit(data, model), one),
        "upper limit, many": seconds(lambda: upper_limit(some[: max(10, len(several) // 10)], model), n)
        / min(len(some), max(10, len(several) // 10)),
        "toy of a test": seconds(by_toys, 1) / tests,
    }


def theirs(case: Case, optimizer: str, size: Size, skip: set[str]) -> dict[str, float]:
    """Seconds of one pyhf call of each task; tasks whose calls are too long are added to ``skip``."""
    pyhf.set_backend("numpy", optimizer)
    data, model = case.data.tolist(), case.oracle
    config = model.config
    settings = config.suggested_init(), config.suggested_bounds(), config.suggested_fixed()
    calls: dict[str, Callable[[], object]] = {
        "fit": lambda: pyhf.infer.mle.fit(data, model),
        "hypotest": lambda: pyhf.infer.hypotest(1.0, data, model, return_expected_set=True),
        "toy of a test": lambda: pyhf.infer.test_statistics.qmu_tilde(1.0, data, model, *settings),
        "upper limit": lambda: pyhf.infer.intervals.upper_limits.upper_limit(data, model),
    }
    found: dict[str, float] = {}
    for task, call in calls.items():
        if f"{optimizer} {task}" in skip:
            continue
        try:
            found[task] = seconds(call, 1)
        except (pyhf.exceptions.FailedMinimization, ValueError):
            # It does not converge here; there is no time to compare with.
            continue
        # Fits grow about with the cube of the bins here, and a limit is some 40 tests.
        if found[task] > size.most_seconds / 4:
            skip.add(f"{optimizer} {task}")
        if task == "hypotest" and found[task] * 30 > 4 * size.most_seconds:
            skip.add(f"{optimizer} upper limit")
    for task in ("fit", "hypotest", "upper limit"):
        if task in found:
            found[f"{task}, many"] = found[task]
    return found


def agreement(case: Case) -> float | None:
    """Relative difference of the median expected limits, pyhf with minuit at its default tolerance."""
    pyhf.set_backend("numpy", "minuit")
    limit = float(upper_limit(case.data, case.model).expected[2])
    try:
        _, bands = pyhf.infer.intervals.upper_limits.toms748_scan(
            case.data.tolist(), case.oracle, 0.5 * limit, 2 * limit, rtol=1e-6
        )
    except (pyhf.exceptions.FailedMinimization, ValueError):
        return None
    return abs(float(bands[2]) / limit - 1)


def main() -> None:
    """Run all sizes, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few bins and toys, result not written")
    size = QUICK if parser.parse_args().quick else PUBLISHED
    results: list[dict[str, Any]] = []
    rows = []
    skip: set[str] = set()
    for n_bins in size.bins:
        case = build(n_bins)
        mine = ours(case, size)
        peers = {name: theirs(case, name, size, skip) for name in OPTIMIZERS}
        difference = agreement(case) if n_bins <= 5 else None
        results.append({"bins": n_bins, "sbilib": mine, "pyhf": peers, "limit_difference": difference})
        for task, taken in mine.items():
            cells = [_ratio(peers[name].get(task), taken) for name in OPTIMIZERS]
            rows.append([f"{n_bins} bins, {task}", f"{1 / taken:.3g}", *cells])
    print_table(
        "Fits, tests and limits per second, and how many times faster than pyhf",
        ("model and task", "per second", "pyhf/scipy", "pyhf/minuit"),
        rows,
        f"many: {size.n_toys} data sets ({size.n_limits} limits; a tenth beyond 50 bins) as one batch.  pyhf "
        "is timed on one data set, and for many that is multiplied.  A dash: pyhf failed or was too slow.",
    )
    if size is PUBLISHED:
        write_json("histfactory", {"size": asdict(size), "results": results})


def _ratio(slow: float | None, fast: float) -> str:
    return "-" if slow is None else f"{slow / fast:.3g}x"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
