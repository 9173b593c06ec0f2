"""Train many pairs of models at once, as stacks.

All models of one recipe, signal and background of every pair alike, are members of one stack: each has its
own training set, initial weights, order of events and learning rate, and ends with the weights that
`fit_pair` would give it, to rounding. Where the stack does not fit into memory it is cut into several.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from sbilib.digest import code_digest
from sbilib.errors import ParameterError, check_choice, check_count
from sbilib.models.stack import stack_models
from sbilib.problems import COMPONENTS, Problem
from sbilib.studies.members import CODE_OF_MODELS, Member, PairData, compilable, prepare_member
from sbilib.studies.pairs import FittedPair, cache_folder, facts_digest, finish_model, join_pair
from sbilib.studies.recipes import Recipe
from sbilib.training import (
    StackedBatches,
    StackResult,
    available_bytes,
    member_bytes,
    resolve_device,
    train_stack,
)
from sbilib.training.loop import BatchSource
from sbilib.training.streams import Batch

__all__ = ["fit_pairs"]

_CODE_THAT_DECIDES = (
    "errors.py",
    "models/stack.py",
    "problems/base.py",
    "problems/gaussian.py",
    "problems/sets.py",
    "studies/members.py",
    "studies/pairs.py",
    "studies/stacks.py",
    "training/checkpoint.py",
    "training/schedule.py",
    "training/stack.py",
    "training/streams.py",
)
_CPU_MEMBERS = 8
"""Members at once on a CPU: enough to hide the cost of calls; more would push activations out of caches."""
_DATA = ("own", "shared", "bootstrap")


def fit_pairs(
    problem: Problem,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    learning_rates: Sequence[float] | None = None,
    data: str = "own",
    data_seed: int = 0,
    device: str = "auto",
    progress: bool = False,
    checkpoint_folder: Path | None = None,
    members_at_once: int | None = None,
) -> list[FittedPair]:
    """Train one pair of models for each seed, all at once.

    Args:
        problem: the simulator.
        recipe: shape of the models and way of training.
        seeds: seeds of initial weights, order of events and validation events of each pair.
        learning_rates: (peak) learning rate of each pair; that of the recipe for all if None.
        data: ``"own"``, a training set for each pair from its seed; ``"shared"``, the training set of
            ``data_seed`` for all; ``"bootstrap"``, a bootstrap resample of that set for each.
        data_seed: seed of the training set that is shared or resampled.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        progress: show a progress bar.
        checkpoint_folder: where checkpoints go; the cache folder if None.
        members_at_once: models in one stack, at least 2; as many as fit into memory (on a CPU at most 8) if
            None. If the device runs out of memory, half as many are tried.

    Returns:
        The pairs, on the CPU, in the order of ``seeds``. A pair whose loss became NaN or infinite is there
        too, flagged by its property ``diverged``.

    Raises:
        ParameterError: if there are no seeds, not as many rates as seeds, or a combination occurs twice.
        DeviceError: if CUDA is asked for and there is none.
        CheckpointError: if a checkpoint is damaged or cannot be written.
    """
    rates = _check_jobs(recipe, seeds, learning_rates)
    check_choice("data", data, _DATA)
    target = resolve_device(device)
    recipe = compilable(recipe, target)
    jobs = list(zip(seeds, rates, strict=True))
    folder = cache_folder() if checkpoint_folder is None else checkpoint_folder
    if members_at_once is None:
        members_at_once = _members_that_fit(problem, recipe, target)
    at_once = max(1, check_count("members_at_once", members_at_once, low=2) // 2)
    pairs: list[FittedPair] = []
    warned = False
    while len(pairs) < len(jobs):
        chunk = jobs[len(pairs) : len(pairs) + at_once]
        facts = {"data": data, "data_seed": data_seed if data != "own" else None}
        try:
            pairs += _fit_chunk(problem, recipe, chunk, facts, target, folder, progress)
        except torch.OutOfMemoryError:
            if at_once == 1:
                raise
            at_once = max(1, len(chunk) // 2)
            torch.cuda.empty_cache()
            if not warned:
                warned = True
                warnings.warn(
                    f"{target} ran out of memory with {2 * len(chunk)} models at once; trying {2 * at_once}, "
                    "and half as many again until they fit",
                    stacklevel=2,
                )
    return pairs


def _check_jobs(recipe: Recipe, seeds: Sequence[int], rates: Sequence[float] | None) -> list[float]:
    if len(seeds) == 0:
        raise ParameterError("seeds must name at least one pair, got none")
    for seed in seeds:
        check_count("seeds", seed)
    chosen = [recipe.training.learning_rate] * len(seeds) if rates is None else list(rates)
    if len(chosen) != len(seeds):
        raise ParameterError(f"learning_rates must be as many as seeds ({len(seeds)}), got {len(chosen)}")
    jobs = list(zip(seeds, chosen, strict=True))
    twice = sorted({job for job in jobs if jobs.count(job) > 1})
    if twice:
        raise ParameterError(f"seed and learning rate {twice[0]} occur twice; train each pair once")
    return chosen


def _members_that_fit(problem: Problem, recipe: Recipe, device: torch.device) -> int:
    """An even number of members, from what one of them takes."""
    tiny = replace(recipe, n_events=max(2, 2 * recipe.training.batch_size))
    data = PairData.draw(problem, tiny, seed=0, device=device)
    member = prepare_member(problem, tiny, COMPONENTS[0], data, seed=0, device=device)
    batch = member.batches.batch(recipe.training.batch_size, 0)
    tables = 4 * recipe.n_events * (problem.n_features + 1) * (1 if recipe.method == "flow" else 3)
    needed = member_bytes(member.model, member.loss, batch) + tables
    fitting = max(2, available_bytes(device) // needed // 2 * 2)
    return min(fitting, _CPU_MEMBERS) if device.type == "cpu" else fitting


def _fit_chunk(
    problem: Problem,
    recipe: Recipe,
    jobs: Sequence[tuple[int, float]],
    data_facts: Mapping[str, object],
    device: torch.device,
    folder: Path,
    progress: bool,
) -> list[FittedPair]:
    data = _training_sets(problem, recipe, [seed for seed, _ in jobs], data_facts, device)
    members = [
        prepare_member(problem, recipe, component, own, seed=10 * seed + number, device=device)
        for (seed, _), own in zip(jobs, data, strict=True)
        for number, component in enumerate(COMPONENTS)
    ]
    identity = {
        "problem": repr(problem),
        "recipe": recipe.facts(),
        "jobs": jobs,
        "code": code_digest(*_CODE_THAT_DECIDES, *CODE_OF_MODELS[recipe.method]),
        "device": device.type,
        **data_facts,
    }
    stack = stack_models([member.model for member in members])  # type: ignore[arg-type]
    result = train_stack(
        stack,
        members[0].loss,
        StackedBatches([member.batches for member in members]),
        _StackedValidation(members),
        recipe.training,
        learning_rates=[rate for _, rate in jobs for _ in COMPONENTS],
        checkpoint=folder / f"{problem.name}-{recipe.method}-stack-{facts_digest(identity)}.safetensors",
        identity=identity,
        progress=progress,
        label=f"{recipe.name} {recipe.method}, {len(jobs)} pairs",
    )
    return _take_pairs(stack, result, recipe, jobs, data)


def _training_sets(
    problem: Problem,
    recipe: Recipe,
    seeds: Sequence[int],
    facts: Mapping[str, object],
    device: torch.device,
) -> list[PairData]:
    if facts["data"] == "own":
        return [PairData.draw(problem, recipe, seed=seed, device=device) for seed in seeds]
    common = PairData.draw(problem, recipe, seed=int(str(facts["data_seed"])), device=device)
    if facts["data"] == "shared":
        return [common for _ in seeds]
    return [common.resampled(seed=seed) for seed in seeds]


class _StackedValidation:
    """Validation batches of all members, each as its own source gives it."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._sources: list[BatchSource] = [member.validation for member in members]

    def batch(self, size: int, step: int) -> Batch:
        batches = [source.batch(size, step) for source in self._sources]
        return tuple(torch.stack(tensors) for tensors in zip(*batches, strict=True))


def _take_pairs(
    stack: nn.Module,
    result: StackResult,
    recipe: Recipe,
    jobs: Sequence[tuple[int, float]],
    data: Sequence[PairData],
) -> list[FittedPair]:
    pairs = []
    for number, (seed, rate) in enumerate(jobs):
        own = replace(recipe, training=replace(recipe.training, learning_rate=rate))
        models, records = [], {}
        for offset, component in enumerate(COMPONENTS):
            index = 2 * number + offset
            model = stack.member(index)  # type: ignore[operator]
            finish_model(model, own, data[number])
            models.append(model.cpu())
            records[component] = result.member(index)
        pairs.append(FittedPair(join_pair(*models), own, seed, records))
    return pairs
