"""Recipes for the Higgs case: as published, and ours.

Published settings (Sluijter 2024, sections 3.2.1 and 3.2.2, Table 4.1): classifiers of three layers of 120
ReLU nodes at a rate of 1e-4, flows of four layers with 64 hidden units, 10 bins and tail bound 7 at 3e-6,
batches
of 512, 100 000 steps.  The source does not say how features were scaled; a tail bound of 7 leaves no doubt
that they were.  Here features are standardized for every recipe, and the nuisance parameter is left as it is
for published ones.
"""

from __future__ import annotations

from dataclasses import replace

from sbilib.errors import check_choice, check_count
from sbilib.models.classifier import ClassifierConfig
from sbilib.models.flow import FlowConfig
from sbilib.studies.framed import FramedRecipe
from sbilib.studies.recipes import METHODS, RECIPES, Recipe, get_recipe
from sbilib.training import TrainConfig

__all__ = ["higgs_framed_recipe", "higgs_recipe"]


def higgs_recipe(
    method: str,
    name: str,
    *,
    n_coordinates: int = 2,
    n_steps: int | None = None,
    learning_rate: float | None = None,
    compile_models: bool = False,
    fine: bool | None = None,
) -> Recipe:
    """The recipe called ``name`` for the Higgs case.

    Args:
        method: ``"flow"`` or ``"classifier"``.
        name: ``"sluijter"`` or ``"modern"``.
        n_coordinates: coordinates of an event (`ScalingConfig.n_coordinates`).
        n_steps: optimizer steps, if not those of the recipe.
        learning_rate: (peak) learning rate, if not that of the recipe.
        compile_models: compile the stack of models; pays for thousands of steps.
        fine: of our classifiers, the one with a wide network and high orders in the nuisance parameter, which
            follows a steep edge; it takes many events.  For two coordinates if None.

    Raises:
        ParameterError: for an unknown method or name, or a bad number.

    Example:
        >>> higgs_recipe("flow", "sluijter").training.n_steps, higgs_recipe("classifier", "modern").normalize
        (100000, True)
    """
    check_choice("method", method, METHODS)
    check_choice("recipe", name, RECIPES)
    check_count("n_coordinates", n_coordinates, low=1)
    recipe = get_recipe(method, name, case="higgs")
    model: FlowConfig | ClassifierConfig
    if isinstance(recipe.model, FlowConfig):
        model = replace(recipe.model, features=n_coordinates)
    else:
        model = replace(recipe.model, n_features=n_coordinates)
    training = recipe.training
    if name == "modern":
        fine = n_coordinates <= 2 if fine is None else fine
        model, training = _modern(method, model, n_coordinates, fine)
        if fine and method == "classifier":
            recipe = replace(recipe, roughness=1e-8)
    if n_steps is not None:
        training = replace(training, n_steps=n_steps)
    if learning_rate is not None:
        training = replace(training, learning_rate=learning_rate)
    return replace(recipe, model=model, training=replace(training, compile=compile_models))


def _modern(
    method: str, model: FlowConfig | ClassifierConfig, n_coordinates: int, fine: bool
) -> tuple[FlowConfig | ClassifierConfig, TrainConfig]:
    if isinstance(model, FlowConfig):
        model = replace(model, n_transforms=2, n_bins=12, tail_bound=5.0)
        training = TrainConfig(2000, 3e-3, 2048, "one_cycle", average=0.99, validation_size=10_000)
        return model, replace(training, validate_every=250)
    # The thresholds cut a steep edge into the published pair of features, and the edge moves with z.
    hidden = (128, 128, 128) if fine or n_coordinates > 8 else (64, 64, 64)
    model = replace(model, hidden=hidden, nuisance_degree=6 if fine else 4)
    n_steps = 6000 if fine else 3000
    training = TrainConfig(n_steps, 3e-3, 4096, "one_cycle", average=0.99, validation_size=20_000)
    return model, replace(training, validate_every=250)


def higgs_framed_recipe(method: str, *, n_steps: int | None = None) -> FramedRecipe:
    """Ours for densities in the frame of the known map: skewed, so with more bins and a wider reference.

    Args:
        method: ``"flow"`` or ``"classifier"``.
        n_steps: optimizer steps, if not those of the recipe.

    Example:
        >>> higgs_framed_recipe("flow").model.n_bins
        12
    """
    recipe = FramedRecipe.of(method)
    model: FlowConfig | ClassifierConfig
    if isinstance(recipe.model, FlowConfig):
        model = replace(recipe.model, n_transforms=2, n_bins=12, hidden=32)
        training, widening = replace(recipe.training, n_steps=1000), 1.0
    else:
        model = replace(recipe.model, hidden=(48, 48, 48))
        training, widening = replace(recipe.training, n_steps=2000), 1.4
    if n_steps is not None:
        training = replace(training, n_steps=n_steps)
    return FramedRecipe(method, model, training, widening)
