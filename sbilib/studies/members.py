"""What it takes to train one model of a pair: the model, its batches, its validation events and its loss."""

from __future__ import annotations

import os
import shutil
import warnings
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from sbilib.errors import ParameterError
from sbilib.models.classifier import Classifier, ClassifierConfig
from sbilib.models.flow import ConditionalFlow, FlowConfig
from sbilib.problems import COMPONENTS, Problem, TrainingSet, make_training_set
from sbilib.problems.base import uniform_nuisance
from sbilib.studies.recipes import Recipe
from sbilib.training import (
    ClassifierBatches,
    FlowBatches,
    PolynomialClassifierLoss,
    classifier_loss,
    flow_loss,
)
from sbilib.training.loop import BatchSource, Loss
from sbilib.training.streams import Batch, classifier_batch

__all__ = ["CODE_OF_MODELS", "FreshEvents", "Member", "PairData", "compilable", "prepare_member"]

CODE_OF_MODELS = {
    "classifier": ("models/classifier.py",),
    "flow": ("models/flow.py", "models/made.py", "models/spline.py"),
}
"""Modules that decide what a model of each method computes."""


class PairData(NamedTuple):
    """The training events of one pair."""

    labeled: TrainingSet
    """Events at nuisance values drawn over the trained range."""
    reference: Tensor | None
    """Signal and background events at the reference value, ``(n, d)``; None for flows, which need none."""

    @classmethod
    def draw(cls, problem: Problem, recipe: Recipe, *, seed: int, device: torch.device) -> PairData:
        """Draw the training set of a seed."""
        generator = Generator(device).manual_seed(seed)
        labeled = make_training_set(problem, recipe.n_events, generator)
        if recipe.method == "flow":
            return cls(labeled, None)
        fixed = make_training_set(problem, recipe.n_events, generator, nuisance="reference")
        return cls(labeled, torch.cat((fixed.signal, fixed.background)))

    def resampled(self, *, seed: int) -> PairData:
        """A bootstrap resample: as many events of each kind, drawn with replacement."""
        generator = Generator(self.labeled.signal.device).manual_seed(seed)

        def draw(*tables: Tensor) -> list[Tensor]:
            n = len(tables[0])
            rows = torch.randint(n, (n,), generator=generator, device=generator.device)
            return [table[rows] for table in tables]

        signal = draw(self.labeled.signal, self.labeled.signal_nuisance)
        background = draw(self.labeled.background, self.labeled.background_nuisance)
        if self.reference is None:
            return PairData(TrainingSet(*signal, *background), None)
        # Signal and background of the reference stay in equal numbers.
        halves = [draw(half)[0] for half in self.reference.tensor_split(2)]
        return PairData(TrainingSet(*signal, *background), torch.cat(halves))


class Member(NamedTuple):
    """One model of a pair, ready to be trained."""

    model: ConditionalFlow | Classifier
    batches: FlowBatches | ClassifierBatches
    validation: BatchSource
    loss: Loss


def prepare_member(
    problem: Problem, recipe: Recipe, component: str, data: PairData, *, seed: int, device: torch.device
) -> Member:
    """Model, batches and loss for one component of a pair.

    Args:
        problem: the simulator, for the validation events.
        recipe: shape of the model and way of training.
        component: ``"signal"`` or ``"background"``.
        data: training events, on ``device``.
        seed: seed of initial weights, order of events and validation events.
        device: where the model goes.
    """
    x, z = data.labeled.component(component)
    fresh = FreshEvents(problem, component, recipe.method, seed, device)
    if isinstance(recipe.model, FlowConfig):
        flow = ConditionalFlow(recipe.model, seed=seed).to(device)
        return Member(flow, FlowBatches(x, z, seed=seed), fresh, flow_loss)
    reference = data.reference
    if reference is None:
        raise ParameterError("a classifier needs reference events, got none; draw the data with its recipe")
    classifier = _classifier(recipe.model, x, z, seed)
    loss: Loss = classifier_loss
    if recipe.model.nuisance_degree > 0:
        loss = PolynomialClassifierLoss(n_negatives=recipe.n_negatives, roughness=recipe.roughness)
    return Member(classifier, ClassifierBatches(x, z, reference, seed=seed), fresh, loss)


def compilable(recipe: Recipe, device: torch.device) -> Recipe:
    """The recipe, not compiled (with a warning) if it should be on a CPU that has no C++ compiler."""
    names = (os.environ.get("CXX"), "g++", "clang++", "c++", "cl")
    if not recipe.training.compile or device.type != "cpu" or any(shutil.which(n) for n in names if n):
        return recipe
    warnings.warn("no C++ compiler found: the models run without being compiled, more slowly", stacklevel=3)
    return replace(recipe, training=replace(recipe.training, compile=False))


def _classifier(config: ClassifierConfig, x: Tensor, z: Tensor, seed: int) -> Classifier:
    model = Classifier(config, seed=seed).to(x.device)
    model.standardize(x, z.unsqueeze(1))
    return model


class FreshEvents:
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
