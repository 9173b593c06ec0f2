"""Train a pair of ordinary models with few events: hold some of them out, and keep the best weights.

`fit_pair` trains on all events and keeps the last weights, which is right where events are many.  Where they
are few, a large network learns their noise.  Here a part of the same events decides when training was best.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from sbilib.digest import code_digest
from sbilib.errors import check_range
from sbilib.models.classifier import Classifier
from sbilib.models.flow import ConditionalFlow
from sbilib.problems import COMPONENTS, Problem, TrainingSet
from sbilib.studies.members import CODE_OF_MODELS, PairData, prepare_member
from sbilib.studies.pairs import FittedPair, cache_folder, facts_digest, finish_model, join_pair
from sbilib.studies.recipes import Recipe, get_recipe
from sbilib.training import TrainingResult, resolve_device, train
from sbilib.training.loop import BatchSource
from sbilib.training.streams import Batch

__all__ = ["fit_stopped_pair", "stopped_recipe"]

_CODE_THAT_DECIDES = (
    "errors.py",
    "problems/*.py",
    "training/checkpoint.py",
    "training/loop.py",
    "training/schedule.py",
    "training/streams.py",
    "studies/members.py",
    "studies/stopped.py",
)


def stopped_recipe(method: str, *, n_events: int, n_steps: int) -> Recipe:
    """The modern recipe for any number of events: smaller batches for fewer events.

    A batch holds at most a tenth of the events of a component, at least 64 and at most 4096.

    Example:
        >>> stopped_recipe("flow", n_events=10_000, n_steps=500).training.batch_size
        500
    """
    recipe = get_recipe(method, "modern", case="large")
    training = replace(
        recipe.training,
        n_steps=n_steps,
        batch_size=min(max(n_events // 20, 64), 4096),
        validate_every=20,
        keep="best",
    )
    return replace(recipe, name="stopped", training=training, n_events=n_events)


def fit_stopped_pair(
    problem: Problem,
    recipe: Recipe,
    *,
    seed: int,
    hold_out: float = 0.2,
    device: str = "auto",
    progress: bool = False,
) -> FittedPair:
    """Train one pair of ordinary models, with a part of the training events held out to choose the weights.

    The training set is that of `fit_pair` for the same seed, recipe and device.

    Args:
        problem: the simulator.
        recipe: shape of the models and way of training; with ``keep="best"`` the held-out events decide.
        seed: seed of training set, initial weights and order of events.
        hold_out: fraction of the training events held out.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        progress: show a progress bar.

    Returns:
        The pair, on the CPU, and the record of its training; its validation losses are those of the held-out
        events.

    Raises:
        ParameterError: for an unknown device, or a fraction that leaves no events on one side.
        DeviceError: if CUDA is asked for and there is none.
        TrainingError: if a loss becomes NaN or infinite.
        CheckpointError: if a checkpoint is damaged or cannot be written.
    """
    half = recipe.n_events // 2
    check_range("hold_out", hold_out, low=2 / half, high=1 - 2 / half)
    target = resolve_device(device)
    data = PairData.draw(problem, recipe, seed=seed, device=target)
    n_held = round(hold_out * half)
    held, kept = _part(data, slice(0, n_held)), _part(data, slice(n_held, None))
    models: list[ConditionalFlow | Classifier] = []
    records: dict[str, TrainingResult] = {}
    for number, component in enumerate(COMPONENTS):
        own_seed = 10 * seed + number
        member, other = (
            prepare_member(problem, recipe, component, part, seed=own_seed, device=target)
            for part in (kept, held)
        )
        identity = {
            "problem": repr(problem),
            "recipe": recipe.facts(),
            "hold_out": hold_out,
            "component": component,
            "seed": seed,
            "code": code_digest(*_CODE_THAT_DECIDES, *CODE_OF_MODELS[recipe.method]),
            "device": target.type,
        }
        name = f"{problem.name}-stopped-{recipe.method}-{component}-{facts_digest(identity)}"
        records[component] = train(
            member.model,
            member.loss,
            member.batches,
            _Always(other.batches, n_held if recipe.method == "flow" else 2 * n_held),
            recipe.training,
            checkpoint=cache_folder() / f"{name}.safetensors",
            identity=identity,
            progress=progress,
            label=f"{recipe.name} {recipe.method}, {component}",
        )
        finish_model(member.model, recipe, data)
        models.append(member.model.cpu())
    return FittedPair(join_pair(*models), recipe, seed, records)


def _part(data: PairData, rows: slice) -> PairData:
    """The same rows of signal, of background, and of both halves of the reference."""
    sets = data.labeled
    part = TrainingSet(
        sets.signal[rows], sets.signal_nuisance[rows], sets.background[rows], sets.background_nuisance[rows]
    )
    if data.reference is None:
        return PairData(part, None)
    return PairData(part, torch.cat([half[rows] for half in data.reference.tensor_split(2)]))


class _Always:
    """The same batch at every step, of all held-out events or as many as are asked for."""

    def __init__(self, source: BatchSource, most: int) -> None:
        self._source, self._most = source, most

    def batch(self, size: int, step: int) -> Batch:
        """The batch, whatever the step."""
        return self._source.batch(min(size, self._most), 0)
