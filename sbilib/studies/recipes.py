"""Recipes: the shape of a model together with the way it is trained.

``sluijter`` recipes are the published settings (Sluijter 2024, sections 3.2.1 and 3.2.2, and the learning
rates of Table 4.1).  ``modern`` recipes are ours, chosen for accuracy per second of training on the same
number of events.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from sbilib.errors import ParameterError, check_choice, check_count, check_range
from sbilib.models.classifier import ClassifierConfig
from sbilib.models.flow import FlowConfig
from sbilib.training import TrainConfig

__all__ = ["METHODS", "PUBLISHED_LEARNING_RATES", "RECIPES", "Recipe", "get_recipe"]

METHODS = ("flow", "classifier")
RECIPES = ("sluijter", "modern")

PUBLISHED_LEARNING_RATES = {
    ("flow", "large"): 3e-6,
    ("flow", "small"): 1e-5,
    ("flow", "higgs"): 3e-6,
    ("classifier", "large"): 3e-5,
    ("classifier", "small"): 3e-5,
    ("classifier", "higgs"): 1e-4,
}
"""Learning rates picked for further analysis in Sluijter 2024, Table 4.1."""

_PUBLISHED_STEPS = {"large": 30_000, "small": 30_000, "higgs": 100_000}


@dataclass(frozen=True)
class Recipe:
    """How to make one pair of models.

    Args:
        method: ``"flow"`` or ``"classifier"``.
        name: ``"sluijter"``, ``"modern"``, or a name of your own.
        model: shape of both models of the pair.
        training: how each of them is trained.
        n_events: events in the training set, half of them signal.
        n_negatives: negatives for each positive event (:class:`PolynomialClassifierLoss`).
        roughness: strength of the penalty on roughness in the nuisance parameter (same class).
        normalize: normalize the ratios of a classifier to the reference after training.
    """

    method: str
    name: str
    model: ClassifierConfig | FlowConfig
    training: TrainConfig
    n_events: int = 1_000_000
    n_negatives: int = 1
    roughness: float = 0.0
    normalize: bool = False

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        expected = FlowConfig if self.method == "flow" else ClassifierConfig
        if not isinstance(self.model, expected):
            raise ParameterError(
                f"a {self.method} recipe needs a {expected.__name__}, got {type(self.model).__name__}"
            )
        check_count("n_events", self.n_events, low=2)
        check_count("n_negatives", self.n_negatives, low=1)
        check_range("roughness", self.roughness, low=0.0)
        polynomial = isinstance(self.model, ClassifierConfig) and self.model.nuisance_degree > 0
        if (self.n_negatives > 1 or self.roughness > 0 or self.normalize) and not polynomial:
            raise ParameterError(
                "n_negatives > 1, roughness and normalize need a classifier with nuisance_degree > 0; "
                "set it, or leave them at their defaults"
            )

    def adapted(self, *, n_steps: int, n_events: int, compile_flow: bool = False) -> Recipe:
        """The same recipe with other numbers of steps and events, and flows compiled or not."""
        compiled = compile_flow and self.method == "flow"
        training = replace(self.training, n_steps=n_steps, compile=compiled)
        return replace(self, training=training, n_events=n_events)

    def facts(self) -> dict[str, Any]:
        """All settings as plain values."""
        return asdict(self)


def get_recipe(method: str, name: str, *, case: str) -> Recipe:
    """The recipe called ``name`` for ``method`` in a case.

    Args:
        method: ``"flow"`` or ``"classifier"``.
        name: ``"sluijter"`` or ``"modern"``.
        case: ``"large"``, ``"small"`` or ``"higgs"``; published rates and steps differ between them.

    Raises:
        ParameterError: for an unknown method, name or case.

    Example:
        >>> get_recipe("flow", "sluijter", case="small").training.learning_rate
        1e-05
    """
    check_choice("method", method, METHODS)
    check_choice("recipe", name, RECIPES)
    check_choice("case", case, _PUBLISHED_STEPS)
    return _sluijter(method, case) if name == "sluijter" else _modern(method)


def _sluijter(method: str, case: str) -> Recipe:
    training = TrainConfig(
        n_steps=_PUBLISHED_STEPS[case],
        learning_rate=PUBLISHED_LEARNING_RATES[method, case],
        batch_size=512,
        validate_every=50,
        validation_size=4000 if method == "flow" else 20_000,
    )
    model = FlowConfig.sluijter() if method == "flow" else ClassifierConfig.sluijter()
    return Recipe(method, "sluijter", model, training)


def _modern(method: str) -> Recipe:
    if method == "flow":
        training = TrainConfig(
            n_steps=2000,
            learning_rate=5e-3,
            batch_size=4096,
            schedule="one_cycle",
            validate_every=50,
            validation_size=4000,
        )
        return Recipe(method, "modern", FlowConfig.modern(), training)
    training = TrainConfig(
        n_steps=4000,
        learning_rate=5e-3,
        batch_size=4096,
        schedule="one_cycle",
        validate_every=50,
        validation_size=20_000,
    )
    return Recipe(
        method, "modern", ClassifierConfig.modern(), training, n_negatives=8, roughness=1e-6, normalize=True
    )
