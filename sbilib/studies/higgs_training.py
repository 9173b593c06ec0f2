"""Train pairs of models on a finite sample whose energy scale can be set anew.

The shift of an event to another nuisance value is exact, so each batch draws events from the sample and gives
each of them a fresh value: no event is seen twice at the same one, and no shifted copies are kept.  Models
that are trained together are one stack; their batches are drawn in one call, and every batch is a function of
the seeds and the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from sbilib.components import FramedEvents, NuisanceMap
from sbilib.digest import code_digest
from sbilib.errors import ParameterError, TrainingError, check_count
from sbilib.models.classifier import Classifier, ClassifierConfig
from sbilib.models.flow import ConditionalFlow, FlowConfig
from sbilib.models.framed import FramedPair
from sbilib.models.moments import match_moments
from sbilib.models.scaling import FeatureScaling, ScaledPair
from sbilib.models.stack import stack_models
from sbilib.problems import COMPONENTS, Problem
from sbilib.problems.base import uniform_nuisance
from sbilib.problems.higgs import WeightedEvents
from sbilib.studies.framed import FittedFramedPair, FramedRecipe, fit_framed_pair
from sbilib.studies.higgs_scaling import StandardizedProblem, fit_scaling
from sbilib.studies.members import CODE_OF_MODELS, compilable
from sbilib.studies.pairs import FittedPair, cache_folder, facts_digest, join_pair
from sbilib.studies.recipes import Recipe
from sbilib.studies.stacks import fit_pairs
from sbilib.training import (
    PolynomialClassifierLoss,
    StackResult,
    classifier_loss,
    flow_loss,
    resolve_device,
    train_stack,
)
from sbilib.training.loop import Loss
from sbilib.training.streams import Batch, classifier_batch

__all__ = ["FrameCoordinates", "ShiftedBatches", "fit_higgs_framed", "fit_higgs_pairs"]

_CODE_THAT_DECIDES = (
    "errors.py",
    "models/scaling.py",
    "models/stack.py",
    "problems/base.py",
    "problems/higgs*.py",
    "simulation/derived.py",
    "simulation/energy_scale.py",
    "studies/higgs_scaling.py",
    "studies/higgs_training.py",
    "training/*.py",
)
_MATCHED_EVENTS = 200_000
_STANDARDIZATION_EVENTS = 50_000


class ShiftedBatches:
    """Batches for a stack of pairs, signal and background model of each in turn, at fresh nuisance values.

    Args:
        problem: in the coordinates of the models.
        n_pairs: pairs in the stack.
        method: ``"flow"`` or ``"classifier"``.
        seeds: decide all batches, with the step.
        device: where batches are made.
    """

    def __init__(
        self, problem: Problem, n_pairs: int, method: str, seeds: Sequence[int], device: torch.device
    ) -> None:
        self._problem, self._n_pairs, self._method = problem, n_pairs, method
        self._seeds, self._generator = list(seeds), Generator(device)

    def batch(self, size: int, step: int) -> Batch:
        """Tensors of the batch at ``step``, each with an axis of ``2 n_pairs`` members in front."""
        state = np.random.SeedSequence([*self._seeds, step]).generate_state(1, np.uint64)[0]
        generator = self._generator.manual_seed(int(state) >> 1)
        n = size if self._method == "flow" else size // 2
        parts = [self._shifted(name, n, generator) for name in COMPONENTS]
        x, z = (torch.stack(both, dim=1).flatten(0, 1) for both in zip(*parts, strict=True))
        if self._method == "flow":
            return x, z
        return classifier_batch(x, z, self.reference(n, generator))

    def reference(self, n: int, generator: Generator) -> Tensor:
        """Negative events of all members, half signal and half background: ``(2 n_pairs, n, d)``."""
        members, half = 2 * self._n_pairs, n // 2
        parts = []
        for name, count in zip(COMPONENTS, (half, n - half), strict=True):
            z = torch.full((members * count,), self._problem.reference_nuisance, device=generator.device)
            parts.append(self._problem.sample(name, z, generator).view(members, count, -1))
        return torch.cat(parts, dim=1)

    def _shifted(self, component: str, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        z = uniform_nuisance(self._problem, self._n_pairs * n, generator, torch.float32)
        x = self._problem.sample(component, z, generator)
        return x.view(self._n_pairs, n, -1), z.view(self._n_pairs, n, 1)


def fit_higgs_pairs(
    problem: Problem,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    learning_rates: Sequence[float] | None = None,
    validation: Problem | None = None,
    scaling: FeatureScaling | None = None,
    n_events: int | None = None,
    device: str = "auto",
    progress: bool = False,
    checkpoint_folder: Path | None = None,
) -> list[FittedPair]:
    """Train one pair for each seed, all at once, on the sample of a problem.

    Args:
        problem: of the training split, in physical features.
        recipe: shape of the models and way of training, for the coordinates of the scaling; where it asks to
            normalize, the moments of classifiers are matched to the sample (`match_moments`), which must then
            be a finite one.  With ``n_events`` they are only normalized.
        seeds: seeds of initial weights; together they decide the batches.
        learning_rates: (peak) learning rate of each pair; that of the recipe for all if None.
        validation: the same problem on events of its own; the training events if None.
        scaling: the map to coordinates; `fit_scaling` of the problem if None, which leaves the nuisance
            parameter as it is for published recipes.
        n_events: train each pair on a set of so many events, half of them signal, each at one nuisance value,
            instead of on all events at fresh ones.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        progress: show a progress bar.
        checkpoint_folder: where checkpoints go; the cache folder if None.

    Returns:
        The pairs, on the CPU, in the order of ``seeds``; their densities take physical events.

    Raises:
        ParameterError: if there are no seeds, one comes twice, not as many rates as seeds, or the recipe is
            for another number of coordinates.
        DeviceError: if CUDA is asked for and there is none.
        TrainingError: if the moments of a classifier cannot be matched.
        CheckpointError: if a checkpoint is damaged or cannot be written.
    """
    rates = _check_jobs(recipe, seeds, learning_rates)
    if scaling is None:
        scaling = fit_scaling(problem, scale_nuisance=recipe.name != "sluijter")
    inner = StandardizedProblem(problem, scaling)
    _check_coordinates(recipe, inner.n_features)
    if n_events is not None:
        small = replace(recipe, n_events=check_count("n_events", n_events, low=2))
        fitted = fit_pairs(
            inner,
            small,
            seeds=seeds,
            learning_rates=rates,
            device=device,
            progress=progress,
            checkpoint_folder=checkpoint_folder,
        )
        return [replace(pair, densities=ScaledPair(pair.densities, scaling)) for pair in fitted]  # type: ignore[arg-type]
    held_out = StandardizedProblem(validation, scaling) if validation is not None else inner
    target = resolve_device(device)
    job = _Job(inner, held_out, compilable(recipe, target), list(seeds), rates, target)
    return job.run(cache_folder() if checkpoint_folder is None else checkpoint_folder, progress)


@dataclass(frozen=True)
class _Job:
    """One stack of pairs and its training."""

    problem: StandardizedProblem
    validation: StandardizedProblem
    recipe: Recipe
    seeds: list[int]
    rates: list[float]
    device: torch.device

    def run(self, folder: Path, progress: bool) -> list[FittedPair]:
        """Train, or take the weights of a finished training."""
        recipe, n_pairs = self.recipe, len(self.seeds)
        identity = {
            "problem": repr(self.problem),
            "validation": repr(self.validation),
            "recipe": {name: value for name, value in recipe.facts().items() if name != "normalize"},
            "jobs": list(zip(self.seeds, self.rates, strict=True)),
            "code": code_digest(*_CODE_THAT_DECIDES, *CODE_OF_MODELS[recipe.method]),
            "device": self.device.type,
        }
        name = f"{self.problem.name}-{recipe.method}-shifted-{facts_digest(identity)}.safetensors"
        stack = stack_models(self._models())  # type: ignore[arg-type]
        # The word apart keeps validation events from those of the training where both share a sample.
        result = train_stack(
            stack,
            self._loss(),
            ShiftedBatches(self.problem, n_pairs, recipe.method, [0, *self.seeds], self.device),
            ShiftedBatches(self.validation, n_pairs, recipe.method, [1, *self.seeds], self.device),
            recipe.training,
            learning_rates=[rate for rate in self.rates for _ in COMPONENTS],
            checkpoint=folder / name,
            identity=identity,
            progress=progress,
            label=f"{recipe.name} {recipe.method}, {n_pairs} pairs",
        )
        members = [stack.member(k) for k in range(2 * n_pairs)]
        return self._pairs(members, result)

    def _models(self) -> list[ConditionalFlow | Classifier]:
        models: list[ConditionalFlow | Classifier] = []
        for seed in self.seeds:
            for number in range(len(COMPONENTS)):
                own = 10 * seed + number
                if isinstance(self.recipe.model, FlowConfig):
                    models.append(ConditionalFlow(self.recipe.model, seed=own).to(self.device))
                else:
                    models.append(self._classifier(self.recipe.model, own))
        return models

    def _classifier(self, config: ClassifierConfig, seed: int) -> Classifier:
        model = Classifier(config, seed=seed).to(self.device)
        if config.standardize:
            batches = ShiftedBatches(self.problem, 1, "flow", [2], self.device)
            x, z = batches.batch(_STANDARDIZATION_EVENTS, 0)
            model.standardize(x.flatten(0, 1), z.flatten(0, 1))
        return model

    def _loss(self) -> Loss:
        model, recipe = self.recipe.model, self.recipe
        if isinstance(model, FlowConfig):
            return flow_loss
        if model.nuisance_degree > 0:
            return PolynomialClassifierLoss(n_negatives=recipe.n_negatives, roughness=recipe.roughness)
        return classifier_loss

    def _pairs(self, members: Sequence[torch.nn.Module], result: StackResult) -> list[FittedPair]:
        pairs = []
        for number, (seed, rate) in enumerate(zip(self.seeds, self.rates, strict=True)):
            own = replace(self.recipe, training=replace(self.recipe.training, learning_rate=rate))
            models = members[2 * number : 2 * number + 2]
            densities = ScaledPair(join_pair(*(m.cpu() for m in models)), self.problem.scaling)  # type: ignore[arg-type]
            records = {name: result.member(2 * number + k) for k, name in enumerate(COMPONENTS)}
            pairs.append(FittedPair(densities, own, seed, records))
        if self.recipe.normalize:
            self._match_moments([pair for pair in pairs if not pair.diverged])
        return pairs

    def _match_moments(self, pairs: Sequence[FittedPair]) -> None:
        """Normalize classifiers and take the shift out of them, on the training events."""
        model = self.recipe.model
        assert isinstance(model, ClassifierConfig)  # a recipe for flows cannot ask for it
        nodes = torch.linspace(
            *self.problem.nuisance_range, 2 * model.nuisance_degree + 1, dtype=torch.float64
        )
        center = self.problem.reference_nuisance
        halves = {name: _some(self.problem.all_events(name, center)) for name in COMPONENTS}
        reference = (
            torch.cat([half.events for half in halves.values()]),
            torch.cat([half.weights / half.weights.sum() for half in halves.values()]),
        )
        for component, half in halves.items():
            # One after the other, since all nodes of a large sample with all its features would fill memory.
            samples = [_some(self.problem.all_events(component, z), half.step)[:2] for z in nodes.tolist()]
            for pair in pairs:
                try:
                    match_moments(getattr(pair.densities, component), nodes, samples, reference)
                except TrainingError as error:
                    raise TrainingError(f"{component} classifier of seed {pair.seed}: {error}") from error


class _Thinned(NamedTuple):
    """Every so many events of a sample."""

    events: Tensor
    weights: Tensor
    step: int


def _some(found: WeightedEvents, step: int | None = None) -> _Thinned:
    """Every event of a sample that is not large, else every second one, third one, and so on."""
    step = max(1, -(-len(found.events) // _MATCHED_EVENTS)) if step is None else step
    return _Thinned(found.events[::step].float(), found.weights[::step].clone(), step)


@dataclass(frozen=True)
class FrameCoordinates:
    """Physical events to the coordinates of a model in the frame of a nuisance map.

    Args:
        nuisance_map: the map of physical events.
        scaling: from physical events of the frame to coordinates.
    """

    nuisance_map: NuisanceMap
    scaling: FeatureScaling

    def to_reference(self, x: Tensor, nuisance: Tensor) -> FramedEvents:
        """Coordinates in the frame of physical events ``x`` (n, d), each at its ``nuisance`` (n,)."""
        moved = self.nuisance_map.to_reference(x, nuisance)
        return FramedEvents(self.scaling(moved.events), moved.log_det + self.scaling.log_det(moved.events))

    def from_reference(self, u: Tensor, nuisance: Tensor) -> Tensor:
        """Physical events of coordinates ``u`` (n, d) in the frame."""
        return self.nuisance_map.from_reference(self.scaling.inverse(u), nuisance)


def fit_higgs_framed(
    problem: Problem,
    recipe: FramedRecipe,
    *,
    n_events: int,
    seed: int,
    scaling: FeatureScaling | None = None,
    device: str = "auto",
    progress: bool = False,
) -> FittedFramedPair:
    """Train densities in the frame of the known map of a problem, in coordinates of that frame.

    Args:
        problem: of the training split, with a ``nuisance_map``, in physical features.
        recipe: shape of the networks and way of training.
        n_events: events in the training set, half of them signal.
        seed: seed of training set, initial weights and order of events.
        scaling: the map to coordinates; `fit_scaling` of the problem if None.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        progress: show a progress bar.

    Returns:
        The pair, which takes physical events, and the record of its training.

    Raises:
        ParameterError: if the problem has no known map, or for a bad number.
        DataError: if the map returns events that are not finite or of another shape.
    """
    inner = StandardizedProblem(problem, scaling or fit_scaling(problem))
    fitted = fit_framed_pair(
        inner, recipe, n_events=n_events, seed=seed, symmetries=False, device=device, progress=progress
    )
    coordinates = FrameCoordinates(inner.nuisance_map.nuisance_map, inner.scaling)
    pair = FramedPair(
        fitted.densities.signal,
        fitted.densities.background,
        coordinates,
        n_features=problem.n_features,
    )
    return replace(fitted, densities=pair)


def _check_jobs(recipe: Recipe, seeds: Sequence[int], rates: Sequence[float] | None) -> list[float]:
    if len(seeds) == 0 or len(set(seeds)) != len(seeds):
        raise ParameterError(f"seeds must be one or more different numbers, got {list(seeds)}")
    for seed in seeds:
        check_count("seeds", seed)
    chosen = [recipe.training.learning_rate] * len(seeds) if rates is None else list(rates)
    if len(chosen) != len(seeds):
        raise ParameterError(f"learning_rates must be as many as seeds ({len(seeds)}), got {len(chosen)}")
    return chosen


def _check_coordinates(recipe: Recipe, expected: int) -> None:
    model = recipe.model
    got = model.features if isinstance(model, FlowConfig) else model.n_features
    if got != expected:
        raise ParameterError(
            f"the recipe is for {got} coordinates, the scaling of the problem gives {expected}; "
            f"make it with higgs_recipe(..., n_coordinates={expected})"
        )
