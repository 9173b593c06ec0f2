r"""Models of the Higgs case that know how the energy scale acts, beside models that learn it.

For the published pair of features the scale :math:`z` is an exact map to the frame of :math:`z = 1`,

.. math:: T_z(m, \rho) = \left(\frac{m}{\sqrt z},\; z\,\rho\right) .

A model in the frame learns one density of each component from :math:`n` events of it.  A model that learns
the dependence on z gets the same events, each at a fresh scale in every batch; a fifth of them decides which
weights are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Generator
from tqdm import tqdm

from sbilib.components import ComponentDensities
from sbilib.errors import DataError, ParameterError, check_choice, check_count, check_range
from sbilib.problems import COMPONENTS, HiggsTauTau
from sbilib.problems.higgs import TAU_THRESHOLD
from sbilib.problems.higgs_data import EventTable, EventTables
from sbilib.studies.higgs_recipes import higgs_framed_recipe, higgs_recipe
from sbilib.studies.higgs_scaling import fit_scaling
from sbilib.studies.higgs_tables import TabulatedPair
from sbilib.studies.higgs_toys import ReservoirToys, summarize_toys
from sbilib.studies.higgs_training import fit_higgs_framed, fit_higgs_pairs
from sbilib.studies.recipes import METHODS

__all__ = ["MAP_KNOWLEDGE", "MapJob", "map_toys", "summarize_map", "training_subset"]

MAP_KNOWLEDGE = ("learned", "map")
"""What a model is told: nothing about the energy scale, or its exact map."""
_HELD_OUT = 0.2


@dataclass(frozen=True)
class MapJob:
    """One pair of models to be trained and measured.

    Args:
        method: ``"flow"`` or ``"classifier"``.
        knowledge: one of `MAP_KNOWLEDGE`.
        n_events: training events of each component.
        number: which part of the training sample, and the seed of the weights.
        effort: optimizer steps, relative to our recipes.

    Raises:
        ParameterError: for an unknown name or a number out of range.
    """

    method: str
    knowledge: str
    n_events: int
    number: int
    effort: float = 1.0

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        check_choice("knowledge", self.knowledge, MAP_KNOWLEDGE)
        check_count("n_events", self.n_events, low=100)
        check_count("number", self.number)
        check_range("effort", self.effort, low=0.0, include_low=False)

    def fit(
        self, problem: HiggsTauTau, *, device: str = "auto", progress: bool = False
    ) -> ComponentDensities:
        """Train the pair on its part of the training sample of ``problem``; it takes physical events."""
        if self.knowledge == "map":
            return self._fit_framed(problem, device, progress)
        subset = training_subset(problem, self.n_events, number=self.number, hold_out=_HELD_OUT)
        recipe = higgs_recipe(self.method, "modern", fine=False)
        n_steps = max(2, round(self.effort * recipe.training.n_steps))
        training = replace(
            recipe.training,
            n_steps=n_steps,
            batch_size=min(recipe.training.batch_size, max(256, self.n_events // 8)),
            validate_every=max(1, n_steps // 20),
            validation_size=min(recipe.training.validation_size, max(512, self.n_events)),
            keep="best",
        )
        [fitted] = fit_higgs_pairs(
            subset,
            replace(recipe, name="stopped", training=training),
            seeds=[self.number + 1],
            validation=subset.with_split("validation"),
            scaling=fit_scaling(subset),
            device=device,
            progress=progress,
        )
        return fitted.densities

    def _fit_framed(self, problem: HiggsTauTau, device: str, progress: bool) -> ComponentDensities:
        subset = training_subset(problem, self.n_events, number=self.number)
        recipe = higgs_framed_recipe(self.method)
        if self.method == "flow":
            # The network that learns the dependence, without it: the smaller one of the recipe fits worse.
            learner = higgs_recipe("flow", "modern")
            recipe = replace(recipe, model=learner.model, training=learner.training)
        training = replace(
            recipe.training,
            n_steps=max(2, round(self.effort * recipe.training.n_steps)),
            batch_size=min(recipe.training.batch_size, max(256, self.n_events // 8)),
            validation_size=min(recipe.training.validation_size, self.n_events),
        )
        # Without replacement the training set of the frame holds each event of the subset once.
        return fit_higgs_framed(
            replace(subset, replacement=False),
            replace(recipe, training=training),
            n_events=2 * self.n_events,
            seed=self.number + 1,
            scaling=fit_scaling(subset),
            device=device,
            progress=progress,
        ).densities


def training_subset(
    problem: HiggsTauTau, n_events: int, *, number: int, hold_out: float = 0.0
) -> HiggsTauTau:
    """The problem with few training events.

    Args:
        problem: of any split; the events come from its training split.
        n_events: events of each component.
        number: which subset; as many as fit into the sample are disjoint, further ones are drawn anew.
        hold_out: fraction of the events that becomes the validation split.

    Returns:
        The problem on the training split of the subset.

    Raises:
        DataError: if the training split has fewer events.
        ParameterError: for a fraction outside 0 to 1, or no data.
    """
    check_range("hold_out", hold_out, low=0.0, high=1.0, include_high=False)
    if problem.data is None:
        raise ParameterError("the problem has no data; leave data out for the default sample")
    tables = {}
    for component in COMPONENTS:
        table = problem.data.table(component, "train")
        available = problem.with_split("train").count(component)
        if n_events > available:
            raise DataError(
                f"{n_events} {component} events were asked for, only {available} are there; use fewer"
            )
        fits = (number + 1) * n_events <= available
        order = torch.randperm(available, generator=Generator().manual_seed(0 if fits else number + 1))
        rows = order[number * n_events :][:n_events] if fits else order[:n_events]
        cut = n_events - round(hold_out * n_events)
        parts = {"train": rows[:cut]} | ({"validation": rows[cut:]} if cut < n_events else {})
        weights = table.weights
        tables[component] = {
            split: EventTable(table.primary[index], None if weights is None else weights[index])
            for split, index in parts.items()
        }
    data = EventTables(tables, tau_threshold=TAU_THRESHOLD, source="a subset")
    return replace(problem, data=data, split="train")


def map_toys(
    problem: HiggsTauTau,
    jobs: Sequence[MapJob],
    toys: ReservoirToys,
    *,
    others: Mapping[str, ComponentDensities] | None = None,
    spacing: float = 0.1,
    device: str = "auto",
    progress: bool = False,
) -> pd.DataFrame:
    """Train each pair and measure it in the same toys.

    Args:
        problem: of the training split, with the published pair of features.
        jobs: pairs to be trained.
        toys: independent toys from the test splits.
        others: further densities, by name, for the same toys; their ``n_events`` is 0.
        spacing: distance of the points of the tables of the pairs.
        device: where to train.
        progress: show progress bars.

    Returns:
        A row per job, test point and parameter as `summarize_toys` makes them, with ``method``,
        ``knowledge``, ``n_events`` and ``number``.
    """
    parts = []
    scaling = fit_scaling(problem)
    for job in tqdm(jobs, desc="models", disable=not progress):
        pair = job.fit(problem, device=device)
        quick = TabulatedPair(pair, scaling, nuisance_range=problem.scan_range, spacing=spacing)
        summary = summarize_toys(toys.fit({job.method: quick}))
        parts.append(summary.assign(knowledge=job.knowledge, n_events=job.n_events, number=job.number))
    for name, densities in (others or {}).items():
        summary = summarize_toys(toys.fit({name: densities}))
        parts.append(summary.assign(knowledge="other", n_events=0, number=0))
    return pd.concat(parts, ignore_index=True)


def summarize_map(table: pd.DataFrame) -> pd.DataFrame:
    """Means over test points and parts of the training sample.

    Args:
        table: rows of `map_toys`.

    Returns:
        A row per method, knowledge, number of events and parameter, with ``coverage``, ``width`` and ``bias``
        (root mean square over test points of the mean pull, in standard deviations of a toy), and standard
        errors ``coverage_error``, ``width_error``, ``bias_error``: between parts of the training sample, or
        for coverage the binomial one if that is larger.  ``floor`` is the bias that toys of an exact
        likelihood would show, and ``n_models`` how many parts there are.
    """
    rows = []
    keys = ["method", "knowledge", "n_events", "parameter"]
    for labels, part in table.groupby(keys, sort=False):
        models = part.groupby("number")
        coverage, width = models["coverage"].mean(), models["width"].mean()
        bias = models["pull"].apply(lambda pulls: math.sqrt(float((pulls**2).mean())))
        n, value = len(coverage), float(coverage.mean())
        binomial = math.sqrt(value * (1 - value) / float(part["n_toys"].sum()))
        rows.append(
            {
                **dict(zip(keys, labels, strict=True)),
                "coverage": value,
                "coverage_error": max(binomial, _error(coverage)) if n > 1 else binomial,
                "width": float(width.mean()),
                "width_error": _error(width),
                "bias": float(bias.mean()),
                "bias_error": _error(bias),
                "floor": math.sqrt(float((1 / part["n_toys"] + 1 / part["k"]).mean())),
                "n_models": n,
            }
        )
    return pd.DataFrame(rows)


def _error(values: pd.Series) -> float:
    """Standard error of the mean, NaN for one value."""
    if len(values) < 2:
        return math.nan
    return float(values.to_numpy().std(ddof=1)) / math.sqrt(len(values))
