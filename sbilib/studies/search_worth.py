"""What generated events are worth, in units: growing training sets, and many trainings for coverage.

The amplification needs trainings on different training sets: *sizes* by *recipes* by sets.  The coverage of
the signal strength needs many training sets of one size, so that each pseudo-experiment has a training of its
own.  Some of these sets have bootstrapped trainings too; together they tell the error of a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sbilib.errors import ParameterError, check_choice, check_count
from sbilib.studies.search_models import GENERATOR_RECIPES
from sbilib.studies.search_study import SEARCH_CODE, SearchPlan
from sbilib.studies.unit_results import UnitStudy

__all__ = ["WorthPlan"]


@dataclass(frozen=True)
class WorthPlan:
    """Which trainings are made beside those of the search.

    Args:
        search: classifier, cut, passes and events of the search.
        sizes: training events, increasing.
        recipes: generative models, names in :data:`~sbilib.studies.search_models.GENERATOR_RECIPES`.
        n_sets: training sets of each size, as far as disjoint ones fit into ``n_available``.
        n_available: training events that there are.
        n_drawn: events drawn from each model.
        coverage_recipe: model whose coverage is measured.
        coverage_size: its training events.
        n_trainings: training sets of the coverage.
        n_boot_sets: how many of them, the first ones, have bootstrapped trainings.
        n_boots: bootstrapped trainings of each of these, at least four.

    Raises:
        ParameterError: for values out of range.

    Example:
        >>> plan = WorthPlan(SearchPlan(), sizes=(10_000, 200_000), recipes=("small",), n_sets=2)
        >>> plan.amplification_units[1:]
        ('small-10000-001-nominal', 'small-200000-000-nominal')
    """

    search: SearchPlan
    sizes: tuple[int, ...] = (10_000, 30_000, 100_000, 200_000)
    recipes: tuple[str, ...] = ("small", "modern", "realnvp")
    n_sets: int = 6
    n_available: int = 200_000
    n_drawn: int = 400_000
    coverage_recipe: str = "small"
    coverage_size: int = 5_000
    n_trainings: int = 160
    n_boot_sets: int = 8
    n_boots: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        object.__setattr__(self, "recipes", tuple(self.recipes))
        for recipe in (*self.recipes, self.coverage_recipe):
            check_choice("recipe", recipe, tuple(GENERATOR_RECIPES))
        for name in ("n_sets", "n_drawn", "coverage_size"):
            check_count(name, getattr(self, name), low=1)
        check_count("n_trainings", self.n_trainings, low=2)
        check_count("n_boot_sets", self.n_boot_sets, low=1)
        check_count("n_boots", self.n_boots, low=4)
        if not self.sizes or list(self.sizes) != sorted(set(self.sizes)) or self.sizes[0] < 20:
            raise ParameterError(f"sizes must increase from 20 events or more, got {self.sizes}; sort them")
        if max(*self.sizes, self.coverage_size) > self.n_available:
            raise ParameterError(
                f"sizes must be at most n_available = {self.n_available}, got {self.sizes} and "
                f"{self.coverage_size}; leave out the largest"
            )

    @classmethod
    def from_parameters(cls, values: Mapping[str, Any]) -> WorthPlan:
        """The plan from the parameters of a page; others among them are ignored."""
        names = set(cls.__dataclass_fields__) - {"search"}
        own = {key: value for key, value in values.items() if key in names}
        return cls(SearchPlan.from_parameters(values), **own)

    @property
    def amplification_units(self) -> tuple[str, ...]:
        """Trainings on disjoint sets of each size."""
        return tuple(
            f"{recipe}-{size}-{number:03d}-nominal"
            for size in self.sizes
            for recipe in self.recipes
            for number in range(min(self.n_sets, self.n_available // size))
        )

    @property
    def coverage_units(self) -> tuple[str, ...]:
        """Nominal trainings on many sets of one size, and bootstrapped ones on the first of them."""
        stems = [
            f"{self.coverage_recipe}-{self.coverage_size}-{number:03d}" for number in range(self.n_trainings)
        ]
        boots = [f"boot{number:02d}" for number in range(self.n_boots)]
        replicas = (f"{stem}-{boot}" for stem in stems[: self.n_boot_sets] for boot in boots)
        return (*(f"{stem}-nominal" for stem in stems), *replicas)

    @property
    def units(self) -> tuple[str, ...]:
        """All units, each once."""
        return tuple(dict.fromkeys(("score", *self.amplification_units, *self.coverage_units)))

    def study(self, name: str = "worth-of-a-generated-event") -> UnitStudy:
        """The study in units, for :mod:`sbilib.studies.unit_results`."""
        facts = {**self.search.common_facts, "n_drawn": self.n_drawn}
        return UnitStudy(name, facts, self.units, (*SEARCH_CODE, "studies/search_worth.py"), self.make_unit)

    def make_unit(self, unit: str) -> pd.DataFrame:
        """Train and bin one unit; see :meth:`sbilib.studies.search_study.SearchPlan.make_unit`.

        Args:
            unit: a name such as ``"small-10000-003-boot01"``.
        """
        if unit == "score":
            return self.search.make_unit(unit)
        return self.search.generated_unit(unit, [self.n_drawn])


def unit_studies(values: Mapping[str, Any]) -> dict[str, UnitStudy]:
    """The trainings of the page with these parameters, by suffix of the folder of their table."""
    return {"": WorthPlan.from_parameters(values).study()}
