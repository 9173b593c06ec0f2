"""Many pairs of models on the Higgs case, trained in groups and each measured on common test events.

A unit is a group of pairs of one method and recipe that are trained together as a stack.  Each pair leaves
rows of three kinds: what its training left (``"training"``), the published metrics in bootstrap sets of
test sets
of 9 000 events (``"bootstrap"``), and its best fits and intervals in independent toys that are the same for
all pairs (``"toy"``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd
from torch import Generator

from sbilib.components import ComponentDensities
from sbilib.errors import ParameterError, check_choice, check_count
from sbilib.likelihood import ScanGrid
from sbilib.models.scaling import ScaledPair
from sbilib.problems import COMPONENTS, TestSet, published_test_sets
from sbilib.studies.evaluation import evaluate_pair
from sbilib.studies.higgs_recipes import higgs_recipe
from sbilib.studies.higgs_scaling import fit_scaling
from sbilib.studies.higgs_tables import TabulatedPair
from sbilib.studies.higgs_toys import FiniteProblem, ReservoirToys
from sbilib.studies.higgs_training import fit_higgs_pairs
from sbilib.studies.pairs import FittedPair
from sbilib.studies.recipes import METHODS, RECIPES
from sbilib.studies.sweep_run import flow_swaps
from sbilib.studies.unit_results import UnitStudy

__all__ = ["CODE_OF_HIGGS_PAIRS", "HiggsModels", "HiggsSplits", "higgs_test_sets"]

CODE_OF_HIGGS_PAIRS = (
    "likelihood/*.py",
    *(
        f"models/{name}.py"
        for name in (
            "classifier",
            "ensemble",
            "flow",
            "histogram",
            "made",
            "moments",
            "pair",
            "scaling",
            "spline",
        )
    ),
    "models/stack.py",
    "models/tabulated.py",
    "problems/higgs*.py",
    "simulation/derived.py",
    "simulation/energy_scale.py",
    "studies/higgs_recipes.py",
    "studies/higgs_scaling.py",
    "studies/higgs_tables.py",
    "studies/higgs_toys.py",
    "studies/higgs_training.py",
    "training/*.py",
)
"""Patterns of the modules that decide trainings and fits of the Higgs case, apart from the study itself."""

_CODE = (*CODE_OF_HIGGS_PAIRS, "studies/higgs_models.py")
_FIRST_SEED = 1
_NOT_FACTS = ("n_pairs", "methods", "compile_models")


@dataclass(frozen=True)
class HiggsSplits:
    """One problem on disjoint parts of its data.

    Args:
        train: events to train on.
        validation: events of validation losses.
        tests: independent test splits, at least one.

    Raises:
        ParameterError: if there is no test split.
    """

    train: FiniteProblem
    validation: FiniteProblem
    tests: tuple[FiniteProblem, ...]

    def __post_init__(self) -> None:
        if not self.tests:
            raise ParameterError("name at least one test split, got none")

    @classmethod
    def of(cls, problem: Any) -> HiggsSplits:
        """The published parts of a `HiggsTauTau`: train, validation and five test splits."""
        tests = tuple(problem.with_split(f"test-{number}") for number in range(1, 6))
        return cls(problem.with_split("train"), problem.with_split("validation"), tests)


def higgs_test_sets(splits: HiggsSplits, *, seed: int, n_events: int = 9000) -> list[TestSet]:
    """The published test sets: one at each of the nine test points from each test split.

    Args:
        splits: of which the test splits are used.
        seed: decides which events are drawn, with the number of the split.
        n_events: events of a test set; the number of signal events is fixed.
    """
    sets = []
    for number, problem in enumerate(splits.tests):
        generator = Generator().manual_seed(100 * seed + number)
        sets += published_test_sets(problem, generator, n_events=n_events)
    return sets


@dataclass(frozen=True, kw_only=True)
class HiggsModels:
    """Everything that decides the results, apart from the data.

    Args:
        methods: ``"flow"``, ``"classifier"`` or both.
        recipe: ``"sluijter"`` or ``"modern"``.
        n_pairs: pairs of each method.
        pairs_per_unit: pairs that are trained together.
        n_steps: optimizer steps; those of the recipe if None.
        learning_rates: (peak) rate of each method, in order; those of the recipe if None.
        compile_models: compile the stacks; it decides the results only up to rounding.
        matched: match the moments of classifiers after the training, if their recipe does.
        n_toys: independent toys at each test point.
        n_events: events of a toy and of a bootstrap set.
        n_bootstrap: bootstrap sets of each test set; 0 leaves the published metrics out.
        n_test_events: events of a test set.
        table_spacing: spacing of the tables of densities of two features (`TabulatedPair`).
        seed: seed of test sets and toys.

    Raises:
        ParameterError: for an unknown name or a number out of range.

    Example:
        >>> models = HiggsModels(methods=("flow",), n_pairs=10, pairs_per_unit=4)
        >>> models.units
        ['flow-1-4', 'flow-5-8', 'flow-9-10']
    """

    methods: tuple[str, ...] = METHODS
    recipe: str = "modern"
    n_pairs: int = 8
    pairs_per_unit: int = 4
    n_steps: int | None = None
    learning_rates: tuple[float, ...] | None = None
    compile_models: bool = False
    matched: bool = True
    n_toys: int = 100
    n_events: int = 1000
    n_bootstrap: int = 100
    n_test_events: int = 9000
    table_spacing: float = 0.05
    seed: int = 1

    def __post_init__(self) -> None:
        if not self.methods or len(set(self.methods)) != len(self.methods):
            raise ParameterError(f"name one or more different methods, got {self.methods}")
        for method in self.methods:
            check_choice("method", method, METHODS)
        check_choice("recipe", self.recipe, RECIPES)
        for name in ("n_pairs", "pairs_per_unit", "n_toys", "n_events", "n_test_events"):
            check_count(name, getattr(self, name), low=1)
        check_count("n_bootstrap", self.n_bootstrap)
        check_count("seed", self.seed)
        if self.learning_rates is not None and len(self.learning_rates) != len(self.methods):
            raise ParameterError(
                f"learning_rates must be one for each of {self.methods}, got {self.learning_rates}"
            )

    @property
    def units(self) -> list[str]:
        """Names of the units: method, first and last seed."""
        return [f"{method}-{part[0]}-{part[-1]}" for method in self.methods for part in self._groups()]

    def study(self, splits: HiggsSplits) -> UnitStudy:
        """The study, in units that are kept one by one (`make_units`, `finished_or_made`).

        Args:
            splits: the problem on its parts.
        """
        facts = {name: value for name, value in asdict(self).items() if name not in _NOT_FACTS}
        facts["problem"] = repr(splits)

        def make(unit: str) -> pd.DataFrame:
            return self.make(unit, splits)

        return UnitStudy(f"higgs-models-{self.recipe}", facts, self.units, _CODE, make)

    def make(self, unit: str, splits: HiggsSplits) -> pd.DataFrame:
        """Train and measure one unit.

        Returns:
            Rows with columns ``kind``, ``method``, ``recipe`` and ``seed``.  Those of kind ``"training"``
            have
            ``diverged``, ``signal swaps`` and ``background swaps`` (of the random permutations of a flow of
            two features), ``signal loss`` and ``background loss`` (last validation), ``learning_rate`` and
            ``training_seconds``; the others those of `evaluate_pair` and of `ReservoirToys.fit`.  A pair that
            diverged leaves the first kind alone.
        """
        method, pairs = unit.partition("-")[0], self.fit_unit(unit, splits)
        sound = {pair.seed: self._quick(pair.densities, splits) for pair in pairs if not pair.diverged}
        parts = [_facts(pair, method).assign(kind="training") for pair in pairs]
        if sound:
            parts += [self._toy_rows(sound, method, splits), *self._bootstrap_rows(sound, method, splits)]
        return pd.concat(parts, ignore_index=True).assign(recipe=self.recipe)

    def fit_unit(self, unit: str, splits: HiggsSplits) -> list[FittedPair]:
        """The pairs of one of :attr:`units`, from their checkpoint if they were trained before."""
        method, first, last = unit.split("-")
        return self.fit(method, range(int(first), int(last) + 1), splits)

    def fit(self, method: str, seeds: Sequence[int], splits: HiggsSplits) -> list[FittedPair]:
        """The pairs of these seeds, from their checkpoint if they were trained before."""
        rates = self.learning_rates
        rate = None if rates is None else rates[self.methods.index(method)]
        scaling = fit_scaling(splits.train, scale_nuisance=self.recipe != "sluijter")
        recipe = higgs_recipe(
            method,
            self.recipe,
            n_coordinates=scaling.config.n_coordinates,
            n_steps=self.n_steps,
            learning_rate=rate,
            compile_models=self.compile_models,
        )
        recipe = replace(recipe, normalize=recipe.normalize and self.matched)
        return fit_higgs_pairs(
            splits.train, recipe, seeds=list(seeds), validation=splits.validation, scaling=scaling
        )

    def _quick(self, densities: ComponentDensities, splits: HiggsSplits) -> ComponentDensities:
        """The densities, tabulated where they have two features."""
        if not isinstance(densities, ScaledPair) or densities.scaling.config.n_coordinates != 2:
            return densities
        span, spacing = splits.train.scan_range, self.table_spacing
        return TabulatedPair(densities, densities.scaling, nuisance_range=span, spacing=spacing)

    def _groups(self) -> list[range]:
        seeds = range(_FIRST_SEED, _FIRST_SEED + self.n_pairs)
        return [seeds[k : k + self.pairs_per_unit] for k in range(0, self.n_pairs, self.pairs_per_unit)]

    def _toy_rows(
        self, pairs: Mapping[int, ComponentDensities], method: str, splits: HiggsSplits
    ) -> pd.DataFrame:
        toys = ReservoirToys(splits.tests, seed=self.seed, n_toys=self.n_toys, n_events=self.n_events)
        table = toys.fit({str(seed): densities for seed, densities in pairs.items()})
        seeds = table["method"].astype(int)
        return table.assign(kind="toy", seed=seeds, method=method)

    def _bootstrap_rows(
        self, pairs: Mapping[int, ComponentDensities], method: str, splits: HiggsSplits
    ) -> list[pd.DataFrame]:
        if self.n_bootstrap == 0:
            return []
        test_sets = higgs_test_sets(splits, seed=self.seed, n_events=self.n_test_events)
        grid = ScanGrid.uniform(nuisance_range=splits.train.scan_range)
        rows = []
        for seed, densities in pairs.items():
            table = evaluate_pair(
                densities,
                test_sets,
                exact=None,
                n_bootstrap=self.n_bootstrap,
                set_size=self.n_events,
                seed=self.seed,
                grid=grid,
            )
            rows.append(table.assign(kind="bootstrap", seed=seed, method=method))
        return rows


def _facts(pair: FittedPair, method: str) -> pd.DataFrame:
    """One row of what the training left."""
    facts: dict[str, object] = {
        "method": method,
        "seed": pair.seed,
        "learning_rate": pair.learning_rate,
        "diverged": pair.diverged,
        "training_seconds": max(record.seconds for record in pair.training.values()),
    }
    for component in COMPONENTS:
        model = getattr(pair.densities, component)
        swaps = flow_swaps(model)
        facts[f"{component} swaps"] = float("nan") if swaps is None else float(swaps)
        facts[f"{component} loss"] = float(pair.training[component].validation_loss[-1])
    return pd.DataFrame([facts])
