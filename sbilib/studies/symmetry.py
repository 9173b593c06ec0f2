"""What built-in symmetry is worth: generic and framed models against the number of training events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from sbilib.components import ComponentDensities, LogComponents
from sbilib.digest import code_digest
from sbilib.errors import check_choice, check_count, check_range
from sbilib.likelihood import fit_toys
from sbilib.models.tabulated import TabulatedMembers
from sbilib.problems import ExactProblem, GaussianToy, TestSet, make_toys
from sbilib.studies.coverage import seeded_generator, test_points
from sbilib.studies.evaluation import evaluate_pair
from sbilib.studies.frame_limits import fit_normal_pair
from sbilib.studies.framed import FittedFramedPair, FramedRecipe, fit_framed_pair
from sbilib.studies.kept import kept_table
from sbilib.studies.pairs import FittedPair
from sbilib.studies.stopped import fit_stopped_pair, stopped_recipe

__all__ = ["KNOWLEDGE", "SymmetryJob", "coverage_in_toys", "fit_job", "summarize_symmetry", "symmetry_table"]

KNOWLEDGE = ("generic", "frame", "symmetric")
"""What a model is told: nothing, the map to the frame, or the map and all symmetries of the frame."""
_GENERIC_STEPS = {"flow": 500, "classifier": 1000}
_CODE_THAT_DECIDES = (
    "components.py",
    "models/classifier.py",
    "models/flow.py",
    "models/framed.py",
    "models/made.py",
    "models/spline.py",
    "training/loop.py",
    "training/schedule.py",
    "training/streams.py",
    *(
        f"studies/{name}.py"
        for name in (
            "evaluation",
            "frame_limits",
            "framed",
            "members",
            "metrics",
            "recipes",
            "stopped",
            "symmetry",
        )
    ),
)
_N_NODES = 13


class SymmetryJob(NamedTuple):
    """One pair of models of the study."""

    method: str
    """``"flow"``, ``"classifier"``, or ``"normal"`` for a fit that knows the form of the densities."""
    knowledge: str
    """What the pair is told, one of `KNOWLEDGE`."""
    n_events: int
    """Training events, half of them signal."""
    seed: int
    """Seed of the pair."""
    effort: float = 1.0
    """Optimizer steps relative to ours: 500 for a generic flow, 1000 for a generic classifier, and those of
    `FramedRecipe.of` in the frame."""


def fit_job(
    problem: GaussianToy, job: SymmetryJob, *, device: str = "auto", progress: bool = False
) -> FittedPair | FittedFramedPair:
    """Train the pair of a job.

    Generic pairs hold out a fifth of their events and keep the best weights (`fit_stopped_pair`); framed
    pairs train on all events (`fit_framed_pair`).

    Args:
        problem: the toy.
        job: what to train, by a flow or a classifier.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        progress: show a progress bar.

    Raises:
        ParameterError: for unknown names or bad numbers in the job.
    """
    check_choice("knowledge", job.knowledge, KNOWLEDGE)
    if job.knowledge == "generic":
        n_steps = max(1, round(job.effort * _GENERIC_STEPS[job.method]))
        recipe = stopped_recipe(job.method, n_events=job.n_events, n_steps=n_steps)
        return fit_stopped_pair(problem, recipe, seed=job.seed, device=device, progress=progress)
    framed = FramedRecipe.of(job.method)
    n_steps = max(1, round(job.effort * framed.training.n_steps))
    return fit_framed_pair(
        problem,
        replace(framed, training=replace(framed.training, n_steps=n_steps)),
        n_events=job.n_events,
        seed=job.seed,
        symmetries=job.knowledge == "symmetric",
        device=device,
        progress=progress,
    )


def symmetry_table(
    problem: GaussianToy,
    jobs: Iterable[SymmetryJob],
    test_sets: Sequence[TestSet],
    *,
    n_bootstrap: int,
    set_size: int = 1000,
    seed: int,
    device: str = "auto",
    progress: bool = False,
) -> pd.DataFrame:
    """Train and evaluate many pairs on the same test sets.

    Args:
        problem: the toy.
        jobs: the pairs; a normal fit must be told the frame or more.
        test_sets: test sets with known parameters.
        n_bootstrap: bootstrap sets of each test set.
        set_size: events in a bootstrap set.
        seed: seed of the bootstrap.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        progress: show a progress bar.

    Returns:
        A row per job with its fields, the metrics of `evaluate_pair` averaged over the test sets, and the
        training time in ``seconds``.  Each row is kept as soon as it is known, so a study that was killed
        continues where it stopped.
    """
    jobs = list(jobs)
    rows = []
    for job in tqdm(jobs, desc=f"{problem.name}, pairs", disable=not progress):
        facts = {
            "problem": repr(problem),
            "job": job._asdict(),
            "test sets": [(t.signal_ratio, t.nuisance, float(t.events.double().sum())) for t in test_sets],
            "bootstrap": [n_bootstrap, set_size, seed],
            "code": code_digest(*_CODE_THAT_DECIDES),
        }

        def compute(job: SymmetryJob = job) -> pd.DataFrame:
            densities, seconds = _fit(problem, job, device)
            table = evaluate_pair(
                densities,
                test_sets,
                exact=problem,
                n_bootstrap=n_bootstrap,
                set_size=set_size,
                seed=seed,
            )
            means = table.drop(columns=["test_set", "mu", "z"]).mean()
            return pd.DataFrame([{**job._asdict(), **means, "seconds": seconds}])

        rows.append(kept_table("symmetry", facts, compute))
    return pd.concat(rows, ignore_index=True)


def _fit(problem: GaussianToy, job: SymmetryJob, device: str) -> tuple[ComponentDensities, float]:
    """The densities of a job and the seconds it took to train them."""
    if job.method != "normal":
        pair = fit_job(problem, job, device=device)
        return pair.densities, pair.seconds
    check_choice("knowledge of a normal fit", job.knowledge, KNOWLEDGE[1:])
    symmetries = job.knowledge == "symmetric"
    return fit_normal_pair(problem, n_events=job.n_events, seed=job.seed, symmetries=symmetries), 0.0


def summarize_symmetry(table: pd.DataFrame, metric: str = "total overlap") -> pd.DataFrame:
    """Mean of a metric over the seeds, and its standard error.

    Args:
        table: the result of `symmetry_table`.
        metric: one of its columns.

    Returns:
        A row per ``method``, ``knowledge`` and ``n_events`` with ``mean``, ``error`` (NaN for a single seed)
        and ``n_seeds``.

    Example:
        >>> row = {"method": "flow", "knowledge": "frame", "n_events": 1000, "total overlap": 0.9}
        >>> summarize_symmetry(pd.DataFrame([row, row]))["n_seeds"].tolist()
        [2]
    """
    grouped = table.groupby(["method", "knowledge", "n_events"], sort=False)[metric]
    return pd.DataFrame(
        {"mean": grouped.mean(), "error": grouped.sem(), "n_seeds": grouped.size()}
    ).reset_index()


def coverage_in_toys(
    problem: ExactProblem,
    densities: Sequence[ComponentDensities],
    *,
    n_toys: int,
    n_events: int = 1000,
    seed: int,
    table_spacing: float = 0.1,
    progress: bool = False,
) -> pd.DataFrame:
    """Coverage of intervals from learned densities in independent toys, with exact crossings.

    Args:
        problem: makes the toys, with binomial numbers of signal events.
        densities: one or more pairs that were trained alike; each meets toys of its own.
        n_toys: toys at each of the nine test points for each pair.
        n_events: events in a toy.
        seed: seed of the toys, not negative.
        table_spacing: log densities are read off tables of this spacing in both features
            (`TabulatedMembers`), which takes seconds instead of minutes; 0 asks the densities themselves.
        progress: show a progress bar.

    Returns:
        A row per pair, test point and parameter (``mu``, ``z``) with ``coverage``, mean ``width``, ``open``
        (the fraction of intervals that leave the scanned range) and ``n_toys``.

    Raises:
        ParameterError: for a number below one.

    Example:
        >>> from sbilib.problems import GaussianToy
        >>> toy = GaussianToy(2.0)
        >>> len(coverage_in_toys(toy, [toy], n_toys=2, n_events=100, seed=1))
        18
    """
    check_count("n_toys", n_toys, low=1)
    check_count("n_events", n_events, low=1)
    check_range("table_spacing", table_spacing, low=0.0)
    nodes = torch.linspace(*problem.scan_range, _N_NODES, dtype=torch.float64)
    rows = []
    points = list(enumerate(test_points(problem)))
    bar = tqdm(total=len(densities) * len(points), desc=f"{problem.name}, toys", disable=not progress)
    for pair_number, pair in enumerate(densities):
        toys = [
            make_toys(
                problem,
                signal_ratio=ratio,
                nuisance=nuisance,
                n_toys=n_toys,
                n_events=n_events,
                generator=seeded_generator(seed, n_events, number, pair_number),
            )
            for number, (ratio, nuisance) in points
        ]
        source = pair
        if table_spacing > 0:
            events = torch.cat([part.flatten(0, 1) for part in toys])
            box = torch.stack((events.amin(dim=0), events.amax(dim=0)), dim=1)
            source = _Tables(TabulatedMembers([pair], nodes, box=box, spacing=table_spacing))
        for number, (ratio, nuisance) in points:
            fits = fit_toys(source, toys[number], nodes)
            for parameter, truth, interval in (
                ("mu", ratio, fits.ratio_interval),
                ("z", nuisance, fits.nuisance_interval),
            ):
                rows.append(
                    {
                        "pair": pair_number,
                        "mu": ratio,
                        "z": nuisance,
                        "parameter": parameter,
                        "coverage": _mean(interval.contains(truth)),
                        "width": float(interval.width.nanmean()),
                        "open": _mean(interval.lower_open | interval.upper_open),
                        "n_toys": n_toys,
                    }
                )
            bar.update()
    bar.close()
    return pd.DataFrame(rows)


class _Tables(NamedTuple):
    """Tables of one pair as component densities at their own nuisance values."""

    members: TabulatedMembers

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        """Log densities of events ``x`` (n, 2) at the nuisance values of the tables (m,); each ``(n, m)``."""
        values = self.members.evaluate(x)
        return LogComponents(values.signal[0], values.background[0])


def _mean(flags: Tensor) -> float:
    return float(flags.double().mean())
