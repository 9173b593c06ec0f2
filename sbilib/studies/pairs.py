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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from sbilib.components import ComponentDensities
from sbilib.digest import code_digest
from sbilib.errors import ParameterError
from sbilib.models.classifier import Classifier, ClassifierPair
from sbilib.models.flow import ConditionalFlow
from sbilib.models.pair import FlowPair
from sbilib.problems import COMPONENTS, Problem
from sbilib.studies.members import CODE_OF_MODELS, PairData, compilable, prepare_member
from sbilib.studies.recipes import Recipe
from sbilib.training import TrainingResult, resolve_device, train

__all__ = ["FittedPair", "cache_folder", "facts_digest", "finish_model", "fit_pair", "join_pair"]

_CODE_THAT_DECIDES = (
    "errors.py",
    "problems/base.py",
    "problems/gaussian.py",
    "problems/sets.py",
    "training/checkpoint.py",
    "training/loop.py",
    "training/schedule.py",
    "training/streams.py",
    "studies/members.py",
    "studies/pairs.py",
)


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

    @property
    def diverged(self) -> bool:
        """Whether a loss became NaN or infinite; such a pair must not be used, only counted."""
        return any(not bool(result.training_loss.isfinite().all()) for result in self.training.values())

    @property
    def learning_rate(self) -> float:
        """(Peak) learning rate of the training."""
        return self.recipe.training.learning_rate


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
    recipe = compilable(recipe, target)
    data = PairData.draw(problem, recipe, seed=seed, device=target)
    models, records = [], {}
    for number, component in enumerate(COMPONENTS):
        model, record = _fit_one(
            problem, recipe, component, data, seed=10 * seed + number, device=target, progress=progress
        )
        models.append(model.cpu())
        records[component] = record
    return FittedPair(join_pair(*models), recipe, seed, records)


def join_pair(
    signal: ConditionalFlow | Classifier, background: ConditionalFlow | Classifier
) -> ComponentDensities:
    """Two trained models as component densities."""
    if isinstance(signal, ConditionalFlow) and isinstance(background, ConditionalFlow):
        return FlowPair(signal, background)
    if isinstance(signal, Classifier) and isinstance(background, Classifier):
        return ClassifierPair(signal, background)
    raise ParameterError("both models of a pair must be of the same kind; train both with one recipe")


def finish_model(model: ConditionalFlow | Classifier, recipe: Recipe, data: PairData) -> None:
    """What is left to do after a training: normalize the ratio of a classifier, if its recipe says so."""
    if recipe.normalize and isinstance(model, Classifier) and data.reference is not None:
        model.normalize(data.reference)


def _fit_one(
    problem: Problem,
    recipe: Recipe,
    component: str,
    data: PairData,
    *,
    seed: int,
    device: torch.device,
    progress: bool,
) -> tuple[ConditionalFlow | Classifier, TrainingResult]:
    identity = {
        "problem": repr(problem),
        "recipe": recipe.facts(),
        "component": component,
        "seed": seed,
        "code": code_digest(*_CODE_THAT_DECIDES, *CODE_OF_MODELS[recipe.method]),
        "device": device.type,
    }
    member = prepare_member(problem, recipe, component, data, seed=seed, device=device)
    name = f"{problem.name}-{recipe.method}-{component}-{facts_digest(identity)}"
    result = train(
        member.model,
        member.loss,
        member.batches,
        member.validation,
        recipe.training,
        checkpoint=cache_folder() / f"{name}.safetensors",
        identity=identity,
        progress=progress,
        label=f"{recipe.name} {recipe.method}, {component}",
    )
    finish_model(member.model, recipe, data)
    return member.model, result


def facts_digest(facts: Mapping[str, object]) -> str:
    """Sixteen hexadecimal digits that stand for ``facts`` in a file name."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
