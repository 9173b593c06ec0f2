"""All upper limits of a search with generated background as one batch, against pyhf on a sample of them.

Run ``python -m benchmarks.search_limits`` (``--quick`` for few limits; nothing is written).  The search has
25 bins, a falling background and a peak of signal: 30 numbers of generated events, 4 luminosities, 3
uncertainties of the background and 2 observables, once without and once with modes of the model error.  pyhf
(numpy backend, minuit) sets one such limit with the same likelihood; its time for all is that, multiplied.
Prints a table and writes ``benchmarks/results/search_limits.json``.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass

import numpy as np
import pyhf
import torch

from benchmarks._timing import print_table, write_json
from sbilib.histfactory import upper_limit
from sbilib.studies.amplified_limits import (
    limit_table,
    logarithmic_counts,
    pyhf_workspace,
    single_search,
)
from sbilib.studies.amplified_search import SearchTemplates, search_templates
from sbilib.studies.amplified_templates import BinnedSample, Binning
from sbilib.studies.model_error import ShapeModes

LUMINOSITIES = (10.0, 50.0, 200.0, 1000.0)
BETAS = (0.05, 0.10, 0.20)
EFFICIENCY = 0.2
"""Part of the background that is selected."""


@dataclass(frozen=True)
class Size:
    """How much work one run is."""

    n_bins: int
    n_counts: int
    n_observables: int
    members: tuple[tuple[int, int], ...]
    """Numbers of generated events and luminosities, by place, of the limits that pyhf sets."""


PUBLISHED = Size(n_bins=25, n_counts=30, n_observables=2, members=((15, 2),))
QUICK = Size(n_bins=5, n_counts=3, n_observables=1, members=((0, 0),))


def searches(size: Size) -> list[tuple[BinnedSample, BinnedSample, BinnedSample, ShapeModes]]:
    """Generated background, true background, signal and error of the model for each observable."""
    binning = Binning("x", tuple(np.linspace(0, 1, size.n_bins + 1)))
    place = (np.arange(size.n_bins) + 0.5) / size.n_bins
    found = []
    for number in range(size.n_observables):
        background = np.exp(-(2 + number) * place)
        background *= EFFICIENCY / background.sum()
        peak = np.exp(-0.5 * ((place - 0.8 + 0.4 * number) / 0.15) ** 2) + 1e-3
        counts = np.array(logarithmic_counts(10_000, 1_000_000, size.n_counts), dtype=float)
        expected = counts[:, None] * background
        made = BinnedSample(binning, expected, expected, counts)
        truth = BinnedSample(binning, 1e9 * background, 1e9 * background, 1e9)
        signal = BinnedSample(binning, 1e6 * peak, 1e6 * peak, 2e6 * peak.sum())
        shifts = 0.01 * background * np.stack([place, np.cos(3 * place)])
        found.append((made, truth, signal, ShapeModes(shifts, 0.001 * background, 10, np.array(0.95))))
    return found


def ours(size: Size, *, with_modes: bool) -> tuple[float, int]:
    """Seconds of all limits, and their number."""
    cases, start, n_limits = searches(size), time.perf_counter(), 0
    for made, truth, signal, modes in cases:
        table = limit_table(
            {"generated": made}, truth, signal, LUMINOSITIES, betas=BETAS,
            modes={"generated": modes} if with_modes else {},
        )  # fmt: skip
        n_limits += len(table)
    return time.perf_counter() - start, n_limits


def theirs(templates: SearchTemplates, member: tuple[int, ...], beta: float) -> tuple[float, float]:
    """Seconds of one limit of pyhf, and the relative difference of the median expected one."""
    single = single_search(templates, member)
    workspace = pyhf_workspace(single, beta, 1.0)
    model = workspace.model(measurement_name="search")
    data = workspace.data(model)
    pyhf.set_backend("numpy", "minuit")
    mine = float(upper_limit(single.data(single.model(beta), strength=1.0), single.model(beta)).expected[2])
    start = time.perf_counter()
    _, bands = pyhf.infer.intervals.upper_limits.toms748_scan(data, model, 0.2 * mine, 5 * mine)
    return time.perf_counter() - start, abs(float(bands[2]) / mine - 1)


def main() -> None:
    """Run both, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few limits, result not written")
    size = QUICK if parser.parse_args().quick else PUBLISHED
    rows, results = [], {}
    ours(QUICK, with_modes=True)
    for with_modes in (False, True):
        label = "with model error" if with_modes else "as published"
        seconds, n_limits = ours(size, with_modes=with_modes)
        made, truth, signal, modes = searches(size)[0]
        templates = search_templates(made, truth, signal, LUMINOSITIES, modes=modes if with_modes else None)
        peer = [theirs(templates, member, BETAS[1]) for member in size.members]
        mean = float(np.mean([each[0] for each in peer]))
        results[label] = {
            "n_limits": n_limits, "seconds": seconds, "pyhf_seconds": [each[0] for each in peer],
            "limit_difference": [each[1] for each in peer],
        }  # fmt: skip
        rows.append(
            [label, str(n_limits), f"{seconds:.3g}", f"{mean:.3g}", f"{mean * n_limits / seconds:.3g}x"]
        )
    print_table(
        "All limits of a search",
        ("likelihood", "limits", "all of them [s]", "one by pyhf [s]", "ratio for all"),
        rows,
        f"{size.n_bins} bins.  pyhf: mean of {len(size.members)} limits, numpy backend with minuit.",
    )
    if size is PUBLISHED:
        write_json("search_limits", {"size": asdict(size), "results": results})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
