r"""A sweep: many pairs of models that differ in learning rate and seed, each measured on its own test sets.

The description is frozen and says everything that decides the results.  It splits into chunks, always the
same ones in the same order.  Models of a chunk are trained together as one stack; a chunk is the unit that is
kept, so that a sweep that was killed goes on where it stopped.

Everything random follows from the seed of a model alone.  Models of one seed see the same training events and
the same test sets at every learning rate and for both methods, so differences between rates and methods are
not blurred by them.  Models of different seeds share nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple, Self

from torch import Generator

from sbilib.errors import ParameterError, check_choice, check_count, check_range
from sbilib.likelihood import ScanGrid
from sbilib.problems import GaussianToy, TestSet, published_test_sets
from sbilib.studies.recipes import METHODS, RECIPES, Recipe, get_recipe

__all__ = ["PUBLISHED_RATES", "TRUTH", "Chunk", "Sweep", "SweepModel"]

TRUTH = "truth"
"""Name of the exact likelihood among the methods of a sweep."""
PUBLISHED_RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4)
"""Learning rates of the published study (Sluijter 2024, sections 3.2.1 and 3.2.2)."""

_CASES = ("large", "small")
_COUNTS = {
    "n_steps": 1,
    "n_events": 2,
    "validate_every": 1,
    "test_repeats": 1,
    "n_bootstrap": 1,
    "set_size": 1,
    "n_test_events": 1,
    "n_ratios": 2,
    "n_nuisances": 2,
    "pairs_per_chunk": 1,
}
_NOT_IN_DIGEST = ("name", "device", "compile_models")
_TUPLES = ("cases", "methods", "learning_rates", "seeds")


class SweepModel(NamedTuple):
    """What tells the models of one chunk apart."""

    seed: int
    """Seed of training events, initial weights, order of events, and test sets."""
    learning_rate: float | None
    """Learning rate; None for the exact likelihood, which is not trained."""


class Chunk(NamedTuple):
    """Models of one case and method that are trained together and kept together."""

    number: int
    """Position in the sweep, from 1."""
    case: str
    """``"large"`` or ``"small"``."""
    method: str
    """``"flow"``, ``"classifier"``, or ``"truth"`` for the exact likelihood."""
    models: tuple[SweepModel, ...]
    """Seed and learning rate of each pair."""

    @property
    def label(self) -> str:
        """The chunk in words."""
        return f"chunk {self.number} ({self.method}, {self.case} distance, {len(self.models)} models)"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Everything that decides the results of a sweep.

    Raises:
        ParameterError: if a value has the wrong type or lies outside its range, or if cases, methods,
            learning rates or seeds are empty or hold something twice; the message names it.

    Example:
        >>> sweep = Sweep.sluijter()
        >>> len(sweep.seeds) * len(sweep.learning_rates) * len(sweep.methods) * len(sweep.cases)
        720
        >>> Sweep.from_dict(sweep.to_dict()) == sweep
        True
    """

    name: str = "learning-rate-sweep"
    """Name, in lower case with dashes; it does not decide the results."""
    cases: tuple[str, ...] = _CASES
    """Cases of the Gaussian toys."""
    methods: tuple[str, ...] = METHODS
    """Kinds of models; the exact likelihood is always measured as well."""
    recipe: str = "sluijter"
    """Name of the recipe of all models."""
    learning_rates: tuple[float, ...] = PUBLISHED_RATES
    """Learning rates, each with a model of every seed."""
    seeds: tuple[int, ...] = tuple(range(1, 31))
    """One model of each kind for each of them, and learning rate."""
    n_steps: int = 30_000
    """Optimizer steps of each model."""
    n_events: int = 1_000_000
    """Training events of each pair, half of them signal."""
    validate_every: int = 50
    """Steps between validation losses."""
    test_repeats: int = 5
    """Test sets at each of the nine test points."""
    n_bootstrap: int = 100
    """Bootstrap sets of each test set."""
    set_size: int = 1000
    """Events in a bootstrap set."""
    n_test_events: int = 9000
    """Events in a test set."""
    n_ratios: int = 600
    """Grid points of the signal ratio, for the overlaps."""
    n_nuisances: int = 300
    """Grid points of the nuisance parameter, for the overlaps."""
    pairs_per_chunk: int = 8
    """Pairs that are trained together."""
    device: str = "auto"
    """``"auto"``, ``"cpu"`` or ``"cuda"``; it decides the results only up to rounding."""
    compile_models: bool = True
    """Compile the stacks where there is a C++ compiler; it decides the results only up to rounding."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise ParameterError(
                f"the name of a sweep must be lower-case words joined by dashes, got {self.name!r}; "
                "for example learning-rate-sweep"
            )
        for name in _TUPLES:
            _check_distinct(name, getattr(self, name))
        for case in self.cases:
            check_choice("case", case, _CASES)
        for method in self.methods:
            check_choice("method", method, METHODS)
        check_choice("recipe", self.recipe, RECIPES)
        for rate in self.learning_rates:
            check_range("learning rate", rate, low=0.0, include_low=False)
        for seed in self.seeds:
            check_count("seed", seed)
        for name, low in _COUNTS.items():
            check_count(name, getattr(self, name), low=low)
        check_choice("device", self.device, ("auto", "cpu", "cuda"))
        if not isinstance(self.compile_models, bool):
            raise ParameterError(f"compile_models must be True or False, got {self.compile_models!r}")

    @classmethod
    def sluijter(cls) -> Self:
        """The published sweep: 30 models at each of six rates, 30,000 steps (Sluijter 2024, section 3.2)."""
        return cls()

    @classmethod
    def with_models(cls, *, seed: int, n_models: int, **values: Any) -> Self:
        """A sweep with ``n_models`` consecutive seeds from ``seed`` on; lists are taken for tuples.

        >>> Sweep.with_models(seed=5, n_models=3, learning_rates=[1e-3]).seeds
        (5, 6, 7)
        """
        check_count("seed", seed)
        check_count("n_models", n_models, low=1)
        return cls.from_dict({**values, "seeds": range(seed, seed + n_models)})

    def to_dict(self) -> dict[str, Any]:
        """Fields by name, ready for JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """A sweep from :meth:`to_dict`.

        Raises:
            ParameterError: if a field is unknown or a value invalid.
        """
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ParameterError(f"a sweep has no field {', '.join(sorted(unknown))}; remove it")
        plain: dict[str, Any] = {
            name: tuple(value) if name in _TUPLES and not isinstance(value, str) else value
            for name, value in values.items()
        }
        return cls(**plain)

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the results, as plain values: all fields but those that do not."""
        return {name: value for name, value in self.to_dict().items() if name not in _NOT_IN_DIGEST}

    @property
    def digest(self) -> str:
        """SHA-256 of :attr:`facts`."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()

    def chunks(self) -> list[Chunk]:
        """All chunks in order: by case; within it flows, classifiers, exact likelihood; by seed and rate."""
        groups = [(case, method) for case in self.cases for method in (*self.methods, TRUTH)]
        parts = [
            (case, method, part)
            for case, method in groups
            for part in _cut(list(self._models(method)), self.pairs_per_chunk)
        ]
        return [Chunk(number, *part) for number, part in enumerate(parts, start=1)]

    def part(self, number: int, of: int) -> list[Chunk]:
        """Every ``of``-th chunk from the ``number``-th on: one of ``of`` shares of about the same work.

        Args:
            number: which share, from 1 to ``of``.
            of: number of shares.

        Raises:
            ParameterError: if there is no such share.

        >>> sweep = Sweep.sluijter()
        >>> sorted(c.number for i in (1, 2) for c in sweep.part(i, 2)) == [c.number for c in sweep.chunks()]
        True
        """
        check_count("number of parts", of, low=1)
        check_count("part", number, low=1)
        if number > of:
            raise ParameterError(f"part {number} of {of} does not exist; the last one is {of}/{of}")
        return self.chunks()[number - 1 :: of]

    def _models(self, method: str) -> Iterator[SweepModel]:
        rates: Sequence[float | None] = [None] if method == TRUTH else self.learning_rates
        return (SweepModel(seed, rate) for seed in self.seeds for rate in rates)

    def problem(self, case: str) -> GaussianToy:
        """The simulator of a case."""
        return GaussianToy.from_name(case)

    def recipe_of(self, case: str, method: str) -> Recipe:
        """The recipe of all models of a case and method, apart from their learning rates."""
        recipe = get_recipe(method, self.recipe, case=case)
        recipe = recipe.adapted(n_steps=self.n_steps, n_events=self.n_events)
        training = replace(recipe.training, validate_every=self.validate_every, compile=self.compile_models)
        return replace(recipe, training=training)

    def grid_of(self, case: str) -> ScanGrid:
        """Where likelihoods are compared in a case."""
        return ScanGrid.uniform(
            nuisance_range=self.problem(case).scan_range, n_ratios=self.n_ratios, n_nuisances=self.n_nuisances
        )

    def test_sets_of(self, case: str, seed: int) -> list[TestSet]:
        """The test sets of the models of one seed, independent of every training set."""
        generator = Generator().manual_seed(_derived_seed("test sets", case, seed))
        return published_test_sets(
            self.problem(case), generator, n_events=self.n_test_events, repeats=self.test_repeats
        )

    def bootstrap_seed(self, case: str, seed: int) -> int:
        """Seed of the bootstrap sets of the models of one seed."""
        return _derived_seed("bootstrap", case, seed)


def _check_distinct(name: str, values: object) -> None:
    readable = name.replace("_", " ")
    if not isinstance(values, tuple):
        raise ParameterError(f"{readable} must be a tuple, got {values!r}; write for example (1, 2)")
    if not values:
        raise ParameterError(f"{readable} must not be empty; give at least one")
    twice = sorted({repr(value) for value in values if values.count(value) > 1})
    if twice:
        raise ParameterError(f"{readable} must differ, but {', '.join(twice)} comes more than once; drop it")


def _cut(models: list[SweepModel], size: int) -> Iterator[tuple[SweepModel, ...]]:
    return (tuple(models[start : start + size]) for start in range(0, len(models), size))


def _derived_seed(purpose: str, case: str, seed: int) -> int:
    digest = hashlib.sha256(f"{purpose}, {case}, {seed}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
