r"""Coverage of likelihood intervals, measured with bootstrap sets and with independent toys.

Intervals are built in two ways: ``crossing``, from the exact crossings of :math:`-2\log\lambda = 1`, and
``parabolic``, as in Sluijter 2024 from a quartic fit to the profile and the parabolic assumption, which has a
window as a parameter.  Nothing is scanned: all sets are fitted at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor
from tqdm import tqdm

from sbilib.errors import check_count, check_range
from sbilib.likelihood import (
    EventSets,
    NuisanceTable,
    fit_event_sets,
    parabolic_interval,
    profile_windows,
)
from sbilib.problems import bootstrap_counts, make_test_set, make_toys
from sbilib.problems.base import ExactProblem
from sbilib.studies.kept import kept_table

__all__ = [
    "ABOVE_ALL",
    "bootstrap_coverage",
    "nuisance_nodes",
    "seeded_generator",
    "summarize_bootstrap_coverage",
    "summarize_toy_coverage",
    "test_points",
    "toy_coverage",
]

ABOVE_ALL = 1e12
"""A finite window above the NLL of every point of a scan, which stands for the whole range."""
_N_NODES = 25
_TOYS_AT_ONCE = 100
_GROUP = ["k", "set_size", "fixed_counts", "parameter", "intervals", "window"]


def seeded_generator(*numbers: int) -> Generator:
    """A generator whose seed is mixed from non-negative integers; other integers give other streams.

    >>> a, b = (torch.rand(1, generator=seeded_generator(1, k)).item() for k in (2, 3))
    >>> a == b
    False
    """
    for number in numbers:
        check_count("seed", number)
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state) >> 1)


def nuisance_nodes(problem: ExactProblem) -> Tensor:
    """Nodes over the scanned range, dense enough for densities as smooth as those of the toys."""
    return torch.linspace(*problem.scan_range, _N_NODES, dtype=torch.float64)


def test_points(problem: ExactProblem) -> list[tuple[float, float]]:
    """The published test points, pairs of signal ratio and nuisance value.

    >>> from sbilib.problems import GaussianToy
    >>> len(test_points(GaussianToy(2.0)))
    9
    """
    return [(ratio, nuisance) for ratio in problem.test_signal_ratios for nuisance in problem.test_nuisances]


test_points.__test__ = False  # type: ignore[attr-defined]  # no test case, whatever pytest makes of the name


def bootstrap_coverage(
    problem: ExactProblem,
    *,
    k: int,
    set_size: int = 1000,
    repeats: int = 5,
    n_bootstrap: int = 100,
    seed: int,
    fixed_counts: bool = True,
    windows: Sequence[float] = (),
    progress: bool = False,
) -> pd.DataFrame:
    """Coverage of the bootstrap sets of each of many test sets, with the exact likelihood.

    Args:
        problem: a problem with exact densities.
        k: events of a test set over those of a bootstrap set.
        set_size: events in a bootstrap set.
        repeats: test sets at each of the nine test points; 5 give the published 45.
        n_bootstrap: bootstrap sets of each test set.
        seed: seed of test sets and bootstrap, not negative.
        fixed_counts: test sets have a fixed number of signal events, as published, else a binomial one.
        windows: build parabolic intervals with these windows of the fit too; infinity for the whole range.
        progress: show a progress bar.

    Returns:
        A row per test set, parameter (``mu``, ``z``) and way of building intervals, with ``coverage``, mean
        ``width`` and ``open``, the fraction of intervals that leave the scanned range.  The table is kept in
        the cache.

    Raises:
        ParameterError: for a number below one.

    >>> from sbilib.problems import GaussianToy
    >>> facts = {"k": 2, "set_size": 100, "repeats": 1, "n_bootstrap": 2, "seed": 1}
    >>> bootstrap_coverage(GaussianToy(2.0), **facts).groupby("parameter").size().to_dict()
    {'mu': 9, 'z': 9}
    """
    for name, value in (("k", k), ("set_size", set_size), ("repeats", repeats), ("n_bootstrap", n_bootstrap)):
        check_range(name, value, low=1)
    facts = {
        "k": k,
        "set_size": set_size,
        "fixed_counts": fixed_counts,
        "repeats": repeats,
        "n_bootstrap": n_bootstrap,
        "seed": seed,
        "windows": list(windows),
    }
    jobs = [(point, repeat) for point in enumerate(test_points(problem)) for repeat in range(repeats)]

    def compute() -> pd.DataFrame:
        rows = []
        label = f"{problem.name}, bootstrap sets of {set_size}, k = {k}"
        for (number, (ratio, nuisance)), repeat in tqdm(jobs, desc=label, disable=not progress):
            generator = seeded_generator(seed, k, set_size, int(fixed_counts), number, repeat)
            events = _test_events(problem, ratio, nuisance, k * set_size, generator, fixed_counts)
            table = NuisanceTable.build(problem, events, nuisance_nodes(problem))
            counts = bootstrap_counts(len(events), n_bootstrap, set_size, generator)
            for row in _judge(EventSets.from_counts(table, counts), ratio, nuisance, windows):
                rows.append({"mu": ratio, "z": nuisance, "repeat": repeat, **row})
        return pd.DataFrame(rows).assign(k=k, set_size=set_size, fixed_counts=fixed_counts)

    return kept_table("bootstrap-coverage", {"problem": repr(problem), **facts}, compute)


def toy_coverage(
    problem: ExactProblem,
    *,
    n_toys: int = 300,
    repeats: int = 4,
    n_events: int = 1000,
    seed: int,
    fixed_counts: bool = False,
    windows: Sequence[float] = (),
    progress: bool = False,
) -> pd.DataFrame:
    """Coverage in independent toys, with the exact likelihood.

    Args:
        problem: a problem with exact densities.
        n_toys: toys at each of the nine test points in each repeat.
        repeats: how often all is repeated; 4 times 9 times 300 toys are the published number.
        n_events: events in a toy.
        seed: seed of the toys, not negative.
        fixed_counts: give all toys of a point the same number of signal events.
        windows: build parabolic intervals with these windows of the fit too; infinity for the whole range.
        progress: show a progress bar.

    Returns:
        A row per repeat, test point, parameter and way of building intervals, like `bootstrap_coverage`, with
        ``n_toys``.  Each repeat is kept in the cache.

    Raises:
        ParameterError: for a number below one.

    >>> from sbilib.problems import GaussianToy
    >>> len(toy_coverage(GaussianToy(2.0), n_toys=2, repeats=1, n_events=100, seed=1))
    18
    """
    for name, value in (("n_toys", n_toys), ("repeats", repeats), ("n_events", n_events)):
        check_range(name, value, low=1)
    facts = {
        "n_toys": n_toys,
        "n_events": n_events,
        "seed": seed,
        "fixed_counts": fixed_counts,
        "windows": list(windows),
    }
    bar = tqdm(total=9 * repeats * n_toys, desc=f"{problem.name}, toys", disable=not progress)

    def compute(repeat: int) -> pd.DataFrame:
        rows = []
        for number, (ratio, nuisance) in enumerate(test_points(problem)):
            generator = seeded_generator(seed, n_events, int(fixed_counts), number, repeat)
            for size in _groups(n_toys):
                events = make_toys(
                    problem,
                    signal_ratio=ratio,
                    nuisance=nuisance,
                    n_toys=size,
                    n_events=n_events,
                    generator=generator,
                    fixed_counts=fixed_counts,
                )
                table = NuisanceTable.build(problem, events.flatten(0, 1), nuisance_nodes(problem))
                for row in _judge(EventSets.from_toys(table, size), ratio, nuisance, windows):
                    rows.append({"mu": ratio, "z": nuisance, "n_toys": size, **row})
                bar.update(size)
        return _merge_groups(pd.DataFrame(rows)).assign(repeat=repeat, fixed_counts=fixed_counts)

    tables = []
    for repeat in range(repeats):
        identity = {"problem": repr(problem), "repeat": repeat, **facts}
        tables.append(kept_table("toy-coverage", identity, lambda repeat=repeat: compute(repeat)))  # type: ignore[misc]
    bar.close()
    return pd.concat(tables, ignore_index=True)


def summarize_bootstrap_coverage(table: pd.DataFrame) -> pd.DataFrame:
    """Mean coverage over the test sets, and its standard error from their scatter.

    Args:
        table: results of `bootstrap_coverage`, of one or several calls.

    Returns:
        A row per ``k``, ``set_size``, ``fixed_counts``, ``parameter``, ``intervals`` and ``window``, with
        ``coverage``, ``error``, ``scatter`` (standard deviation between test sets) and ``n_sets``.
    """
    grouped = table.groupby(_GROUP, dropna=False)["coverage"]
    parts = {
        "coverage": grouped.mean(),
        "error": grouped.sem(),
        "scatter": grouped.std(),
        "n_sets": grouped.size(),
    }
    return pd.DataFrame(parts).reset_index()


def summarize_toy_coverage(table: pd.DataFrame) -> pd.DataFrame:
    """Coverage over all toys with its binomial standard error, and the scatter of the repeats.

    Args:
        table: results of `toy_coverage`.

    Returns:
        A row per ``fixed_counts``, ``parameter``, ``intervals`` and ``window``, with ``coverage``, ``error``
        (binomial), ``scatter`` (standard deviation of the repeats, the half-width of a published band), mean
        ``width``, ``open`` and ``n_toys``.
    """
    by = _GROUP[2:]
    grouped = table.groupby(by, dropna=False)
    result = grouped[["coverage", "width", "open"]].mean()
    result["n_toys"] = grouped["n_toys"].sum()
    result["error"] = np.sqrt(result["coverage"] * (1 - result["coverage"]) / result["n_toys"])
    repeats = table.groupby([*by, "repeat"], dropna=False)["coverage"].mean()
    result["scatter"] = repeats.groupby(by, dropna=False).std()
    return result.reset_index()


def _test_events(
    problem: ExactProblem, ratio: float, nuisance: float, n_events: int, generator: Generator, fixed: bool
) -> Tensor:
    if fixed:
        return make_test_set(
            problem, signal_ratio=ratio, nuisance=nuisance, generator=generator, n_events=n_events
        ).events
    return make_toys(
        problem, signal_ratio=ratio, nuisance=nuisance, n_toys=1, n_events=n_events, generator=generator
    )[0]


def _judge(
    sets: EventSets, ratio: float, nuisance: float, windows: Sequence[float]
) -> Iterator[dict[str, object]]:
    """Whether the intervals of many sets hold the truth: a row per parameter and way of building them."""
    fits = fit_event_sets(sets)
    pairs = [("crossing", math.nan, fits.ratio_interval, fits.nuisance_interval)]
    for window in windows:
        profiles = profile_windows(sets, fits, window=min(window, ABOVE_ALL))
        limit = None if math.isinf(window) else window
        of_ratio = parabolic_interval(profiles.signal_ratio, window=limit)
        of_nuisance = parabolic_interval(profiles.nuisance, window=limit)
        pairs.append(("parabolic", window, of_ratio, of_nuisance))
    for intervals, window, *both in pairs:
        for parameter, truth, interval in zip(("mu", "z"), (ratio, nuisance), both, strict=True):
            open_edge = interval.lower_open | interval.upper_open
            yield {
                "parameter": parameter,
                "intervals": intervals,
                "window": window,
                "coverage": float(interval.contains(truth).double().mean()),
                "width": float(interval.width.nanmean()),
                "open": float(open_edge.double().mean()),
            }


def _groups(n_toys: int) -> list[int]:
    """Sizes of the groups in which toys are fitted, to bound the memory."""
    full, rest = divmod(n_toys, _TOYS_AT_ONCE)
    return [_TOYS_AT_ONCE] * full + [rest] * (rest > 0)


def _merge_groups(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for all groups of a test point, weighted by their toys."""
    keys = ["mu", "z", "parameter", "intervals", "window"]
    values = ["coverage", "width", "open"]
    weighted = rows[values].mul(rows["n_toys"], axis=0).join(rows[[*keys, "n_toys"]])
    summed = weighted.groupby(keys, dropna=False).sum().reset_index()
    summed[values] = summed[values].div(summed["n_toys"], axis=0)
    return summed
