"""Train a pair of models for a problem, one for signal and one for background.

A finished or interrupted training is kept as a checkpoint, so that an interrupted study continues where it
stopped, and a study whose text or figures changed need not train again.  The folder is named by the
environment variable ``SBILIB_CACHE`` (default ``.cache/sbilib`` below the current folder).  The name of a
checkpoint contains a digest of everything that decides its content, the code of the models included.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Generator

from sbilib.components import ComponentDensities
from sbilib.digest import code_digest
from sbilib.errors import ParameterError
from sbilib.models.classifier import Classifier, ClassifierConfig, ClassifierPair
from sbilib.models.flow import ConditionalFlow, FlowConfig
from sbilib.models.pair import FlowPair
from sbilib.problems import COMPONENTS, Problem, TrainingSet, make_training_set
from sbilib.problems.base import uniform_nuisance
from sbilib.studies.recipes import Recipe
from sbilib.training import (
    ClassifierBatches,
    FlowBatches,
    PolynomialClassifierLoss,
    TrainingResult,
    classifier_loss,
    flow_loss,
    resolve_device,
    train,
)
from sbilib.training.loop import BatchSource
from sbilib.training.streams import Batch, classifier_batch

__all__ = ["FittedPair", "cache_folder", "fit_pair"]

_Model = ConditionalFlow | Classifier
_CODE_THAT_DECIDES = ("errors.py", "problems/*.py", "training/*.py", "studies/pairs.py")
_CODE_OF_MODELS = {
    "classifier": ("models/classifier.py",),
    "flow": ("models/flow.py", "models/made.py", "models/spline.py"),
}


@dataclass(frozen=True)
class FittedPair:
    """A trained pair and the record of its training."""

    densities: ComponentDensities
    """The pair, as the likelihood takes it."""
    recipe: Recipe
    """How it was made."""
    seed: int
    """Seed of its data, initial weights and order of events."""
    training: dict[str, TrainingResult]
    """Losses and timing of the signal and the background model."""

    @property
    def seconds(self) -> float:
        """Training time of both models together, in seconds."""
        return sum(result.seconds for result in self.training.values())


def cache_folder() -> Path:
    """The folder for checkpoints: ``SBILIB_CACHE``, or ``.cache/sbilib`` below the current folder."""
    return Path(os.environ.get("SBILIB_CACHE") or Path(".cache") / "sbilib")


def fit_pair(
    problem: Problem, recipe: Recipe, *, seed: int, device: str = "auto", progress: bool = False
) -> FittedPair:
    """Train one pair of models on a training set of its own.

    Args:
        problem: the simulator.
        recipe: shape of the models and way of training.
        seed: seed of training set, initial weights, order of events and validation events.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        progress: show a progress bar.

    Returns:
        The pair, on the CPU, and the record of its training.

    Raises:
        ParameterError: for an unknown device.
        DeviceError: if CUDA is asked for and there is none.
        TrainingError: if a loss becomes NaN or infinite.
        CheckpointError: if a checkpoint is damaged or cannot be written.
    """
    target = resolve_device(device)
    if recipe.training.compile and target.type == "cpu" and not _has_compiler():
        warnings.warn(
            "no C++ compiler found: the models run without being compiled, more slowly", stacklevel=2
        )
        recipe = replace(recipe, training=replace(recipe.training, compile=False))
    generator = Generator(target).manual_seed(seed)
    data = make_training_set(problem, recipe.n_events, generator)
    fixed = make_training_set(problem, recipe.n_events, generator, nuisance="reference")
    models, records = [], {}
    for number, component in enumerate(COMPONENTS):
        model, record = _fit_one(
            problem, recipe, component, data, fixed, seed=10 * seed + number, device=target, progress=progress
        )
        models.append(model.cpu())
        records[component] = record
    return FittedPair(_join(*models), recipe, seed, records)


def _has_compiler() -> bool:
    names = (os.environ.get("CXX"), "g++", "clang++", "c++", "cl")
    return any(shutil.which(name) for name in names if name)


def _join(
    signal: ConditionalFlow | Classifier, background: ConditionalFlow | Classifier
) -> ComponentDensities:
    if isinstance(signal, ConditionalFlow) and isinstance(background, ConditionalFlow):
        return FlowPair(signal, background)
    if isinstance(signal, Classifier) and isinstance(background, Classifier):
        return ClassifierPair(signal, background)
    raise ParameterError("both models of a pair must be of the same kind; train both with one recipe")


def _fit_one(
    problem: Problem,
    recipe: Recipe,
    component: str,
    data: TrainingSet,
    fixed: TrainingSet,
    *,
    seed: int,
    device: torch.device,
    progress: bool,
) -> tuple[_Model, TrainingResult]:
    x, z = data.component(component)
    identity = {
        "problem": repr(problem),
        "recipe": recipe.facts(),
        "component": component,
        "seed": seed,
        "code": code_digest(*_CODE_THAT_DECIDES, *_CODE_OF_MODELS[recipe.method]),
        "device": device.type,
    }
    fresh = _FreshEvents(problem, component, recipe.method, seed, device)
    batches: BatchSource
    loss: Callable[..., torch.Tensor]
    if isinstance(recipe.model, FlowConfig):
        model: _Model = ConditionalFlow(recipe.model, seed=seed)
        batches, loss = FlowBatches(x, z, seed=seed), flow_loss
    else:
        model = _classifier(recipe.model, x, z, seed)
        reference = torch.cat((fixed.signal, fixed.background))
        batches = ClassifierBatches(x, z, reference, seed=seed)
        loss = _polynomial_loss(recipe) if recipe.model.nuisance_degree > 0 else classifier_loss
    model.to(device)
    text = json.dumps(identity, sort_keys=True, default=str)
    name = f"{problem.name}-{recipe.method}-{component}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    result = train(
        model,
        loss,
        batches,
        fresh,
        recipe.training,
        checkpoint=cache_folder() / f"{name}.safetensors",
        identity=identity,
        progress=progress,
        label=f"{recipe.name} {recipe.method}, {component}",
    )
    if recipe.normalize and isinstance(model, Classifier):
        model.normalize(torch.cat((fixed.signal, fixed.background)))
    return model, result


def _polynomial_loss(recipe: Recipe) -> PolynomialClassifierLoss:
    return PolynomialClassifierLoss(n_negatives=recipe.n_negatives, roughness=recipe.roughness)


def _classifier(config: ClassifierConfig, x: torch.Tensor, z: torch.Tensor, seed: int) -> Classifier:
    model = Classifier(config, seed=seed).to(x.device)
    model.standardize(x, z.unsqueeze(1))
    return model


class _FreshEvents:
    """Validation batches of events that no training has seen, made anew for each validation."""

    def __init__(
        self, problem: Problem, component: str, method: str, seed: int, device: torch.device
    ) -> None:
        self._problem, self._component, self._method = problem, component, method
        self._seed, self._generator = seed, Generator(device)

    def batch(self, size: int, step: int) -> Batch:
        """A validation batch of ``size`` events."""
        problem, generator = self._problem, self._generator
        # Negative seeds keep these events apart from those of every training set.
        generator.manual_seed(-(self._seed * 1_000_003 + step + 1))
        n = size if self._method == "flow" else size // 2
        z = uniform_nuisance(problem, n, generator, torch.float32)
        x = problem.sample(self._component, z, generator)
        if self._method == "flow":
            return x, z.unsqueeze(1)
        at_reference = torch.full_like(z, problem.reference_nuisance)
        negative = torch.cat(
            [
                problem.sample(component, part, generator)
                for component, part in zip(COMPONENTS, at_reference.tensor_split(2), strict=True)
            ]
        )
        return classifier_batch(x, z.unsqueeze(1), negative)
