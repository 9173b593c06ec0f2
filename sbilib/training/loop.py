"""The one training loop: any model, any loss, CPU or CUDA.

The data stay on the device and the loop never waits for it inside a step: losses are collected in a tensor
and looked at only when the validation loss is due.  Everything random is a function of the seed and the
step, so a training that was killed and resumed ends with the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from sbilib.errors import CheckpointError, TrainingError, check_choice, check_count, check_range
from sbilib.training.checkpoint import read_checkpoint, write_checkpoint
from sbilib.training.schedule import SCHEDULES, learning_rate_at
from sbilib.training.streams import Batch

__all__ = ["BatchSource", "Loss", "TrainConfig", "TrainingResult", "train", "training_fingerprint"]

Loss = Callable[..., Tensor]


class BatchSource(Protocol):
    """Where batches come from."""

    def batch(self, size: int, step: int) -> Batch:
        """The batch of ``size`` events that belongs to ``step``."""
        ...


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Args:
        n_steps: optimizer steps.
        learning_rate: (peak) learning rate of Adam.
        batch_size: events in a batch.
        schedule: ``"constant"``, ``"warmup"`` or ``"one_cycle"`` (:func:`learning_rate_at`).
        warmup: fraction of the steps spent rising to the peak rate.
        average: decay of the running average of the weights that is returned instead of the last weights;
            0 returns the last weights.
        weight_decay: decoupled weight decay (AdamW).
        validate_every: steps between validation losses.
        validation_size: events in a validation batch.
        keep: ``"last"`` weights, or those with the ``"best"`` validation loss.
        compile: compile the model in place (``model.compile``); needs a C++ compiler on a CPU.

    Raises:
        ParameterError: for values outside their range.
    """

    n_steps: int
    learning_rate: float
    batch_size: int = 512
    schedule: str = "constant"
    warmup: float = 0.1
    average: float = 0.0
    weight_decay: float = 0.0
    validate_every: int = 50
    validation_size: int = 20_000
    keep: str = "last"
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("n_steps", "validate_every", "validation_size"):
            check_count(name, getattr(self, name), low=1)
        check_count("batch_size", self.batch_size, low=2)
        check_range("learning_rate", self.learning_rate, low=0.0, include_low=False)
        check_range("warmup", self.warmup, low=0.0, high=1.0)
        check_range("average", self.average, low=0.0, high=1.0, include_high=False)
        check_range("weight_decay", self.weight_decay, low=0.0)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("keep", self.keep, ("last", "best"))


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves behind, besides the trained weights in the model."""

    training_loss: Tensor
    """Loss of every step, float64, shape ``(n_steps,)``."""
    validation_steps: Tensor
    """Number of steps made before each validation, int64, shape ``(n_validations,)``."""
    validation_loss: Tensor
    """Validation losses, float64, shape ``(n_validations,)``."""
    best_step: int
    """Steps made when the validation loss was lowest."""
    seconds: float
    """Wall time of all parts of the training together, in seconds."""


@dataclass
class _State:
    """Everything that changes during a training, besides model and optimizer."""

    losses: Tensor
    validation: Tensor
    step: int = 0
    best: float = math.inf
    best_step: int = 0
    seconds: float = 0.0


def train(
    model: nn.Module,
    loss: Loss,
    batches: BatchSource,
    validation: BatchSource,
    config: TrainConfig,
    *,
    checkpoint: Path | None = None,
    checkpoint_every: int = 1000,
    identity: dict[str, Any] | None = None,
    progress: bool = False,
    label: str = "training",
) -> TrainingResult:
    """Train ``model`` in place.

    Args:
        model: the model; it is trained where its parameters are, so move it first.
        loss: ``loss(model, *batch)``, a scalar.
        batches: training batches, as a function of the step.
        validation: validation batches, as a function of the step (fresh events where possible).
        config: how to train.
        checkpoint: file to write progress to, and to resume from if it exists.
        checkpoint_every: steps between checkpoints.
        identity: facts that tell this training from others (seed, recipe, data); a checkpoint with other
            facts is refused.
        progress: show a progress bar with loss and time left.
        label: name of the training in the progress bar and in messages.

    Returns:
        Losses and timing.  The model holds the weights chosen by ``config.keep``.

    Raises:
        TrainingError: if the loss becomes NaN or infinite; the message names the step.
        CheckpointError: if the checkpoint is damaged or belongs to another training.
    """
    check_range("checkpoint_every", checkpoint_every, low=1)
    device = next(model.parameters()).device
    run = _Run(model, loss, config, device)
    fingerprint = training_fingerprint(config, identity)
    if checkpoint is not None and checkpoint.exists():
        run.restore(checkpoint, fingerprint)
    state, started = run.state, time.perf_counter()
    earlier = state.seconds
    bar = tqdm(total=config.n_steps, initial=state.step, desc=label, unit="step", disable=not progress)
    with bar:
        while state.step < config.n_steps:
            run.step(batches.batch(config.batch_size, state.step))
            at_end = state.step == config.n_steps
            if state.step % config.validate_every == 0 or at_end:
                run.check_losses(label)
                run.validate(validation.batch(config.validation_size, state.step))
                bar.update(state.step - bar.n)
                bar.set_postfix(loss=f"{run.recent_loss():.4f}", validation=f"{run.last_validation():.4f}")
            if checkpoint is not None and (state.step % checkpoint_every == 0 or at_end):
                run.check_losses(label)
                state.seconds = earlier + time.perf_counter() - started
                run.save(checkpoint, fingerprint)
    state.seconds = earlier + time.perf_counter() - started
    run.finish()
    return run.result()


class _Run:
    """Model, optimizer and bookkeeping of one training."""

    def __init__(self, model: nn.Module, loss: Loss, config: TrainConfig, device: torch.device) -> None:
        self.model, self.config = model, config
        self.loss = loss
        if config.compile:
            model.compile(dynamic=False)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.parameters = list(model.parameters())
        self.averages = [p.detach().clone() for p in self.parameters]
        self.best = [p.detach().clone() for p in self.parameters]
        n_validations = math.ceil(config.n_steps / config.validate_every)
        self.state = _State(
            losses=torch.full((config.n_steps,), math.nan, device=device),
            validation=torch.full((n_validations,), math.nan, dtype=torch.float64),
        )

    def step(self, batch: Batch) -> None:
        """One optimizer step; never waits for the device."""
        config, state = self.config, self.state
        rate = learning_rate_at(
            state.step,
            n_steps=config.n_steps,
            peak=config.learning_rate,
            schedule=config.schedule,
            warmup=config.warmup,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        value = self.loss(self.model, *batch)
        value.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        state.losses[state.step] = value.detach()
        state.step += 1
        if config.average > 0:
            # The usual bias correction: early averages look back over fewer steps.
            decay = min(config.average, (1 + state.step) / (10 + state.step))
            with torch.no_grad():
                for average, parameter in zip(self.averages, self.parameters, strict=True):
                    average.lerp_(parameter, 1 - decay)

    def check_losses(self, label: str) -> None:
        """Stop if any loss since the start is not finite, naming the first such step."""
        bad = ~self.state.losses[: self.state.step].isfinite()
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise TrainingError(
                f"{label}: the loss became {float(self.state.losses[first])} at step {first} of "
                f"{self.config.n_steps}; lower the learning rate (now {self.config.learning_rate:g}) "
                "or check the data"
            )

    @torch.no_grad()
    def validate(self, batch: Batch) -> None:
        """Validation loss of the weights that would be returned now."""
        state = self.state
        with _Swapped(self.parameters, self.averages if self.config.average > 0 else None):
            value = float(self.loss(self.model, *batch))
            state.validation[math.ceil(state.step / self.config.validate_every) - 1] = value
            if value < state.best:
                state.best, state.best_step = value, state.step
                for best, parameter in zip(self.best, self.parameters, strict=True):
                    best.copy_(parameter)

    @torch.no_grad()
    def finish(self) -> None:
        """Put the weights to keep into the model."""
        source = self.averages if self.config.average > 0 else self.parameters
        if self.config.keep == "best":
            source = self.best
        for parameter, value in zip(self.parameters, source, strict=True):
            parameter.copy_(value)

    def recent_loss(self) -> float:
        """Mean training loss since the last validation."""
        begin = max(0, self.state.step - self.config.validate_every)
        return float(self.state.losses[begin : self.state.step].mean())

    def last_validation(self) -> float:
        """The newest validation loss."""
        return float(self.state.validation[math.ceil(self.state.step / self.config.validate_every) - 1])

    def save(self, path: Path, fingerprint: str) -> None:
        """Write a checkpoint."""
        state = self.state
        tensors = {"losses": state.losses, "validation": state.validation}
        for i, parameter in enumerate(self.parameters):
            tensors[f"parameter.{i}"] = parameter
            tensors[f"average.{i}"] = self.averages[i]
            tensors[f"best.{i}"] = self.best[i]
            for name, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{i}.{name}"] = value
        tensors |= {f"buffer.{name}": buffer for name, buffer in self.model.named_buffers()}
        facts = {
            "fingerprint": fingerprint,
            "step": state.step,
            "best": state.best,
            "best_step": state.best_step,
            "seconds": state.seconds,
        }
        write_checkpoint(path, tensors, facts)

    @torch.no_grad()
    def restore(self, path: Path, fingerprint: str) -> None:
        """Continue from a checkpoint."""
        tensors, facts = read_checkpoint(path)
        if facts["fingerprint"] != fingerprint:
            raise CheckpointError(
                f"checkpoint {path} belongs to another training (its seed, recipe or data differ); "
                "choose another file or delete it"
            )
        state = self.state
        state.losses.copy_(tensors["losses"])
        state.validation.copy_(tensors["validation"])
        for i, parameter in enumerate(self.parameters):
            parameter.copy_(tensors[f"parameter.{i}"])
            self.averages[i].copy_(tensors[f"average.{i}"])
            self.best[i].copy_(tensors[f"best.{i}"])
            prefix = f"optimizer.{i}."
            self.optimizer.state[parameter] = {
                name.removeprefix(prefix): value.to(parameter.device)
                for name, value in tensors.items()
                if name.startswith(prefix)
            }
        for name, buffer in self.model.named_buffers():
            buffer.copy_(tensors[f"buffer.{name}"])
        state.step, state.seconds = facts["step"], facts["seconds"]
        state.best, state.best_step = facts["best"], facts["best_step"]

    def result(self) -> TrainingResult:
        """The record of the training."""
        state, config = self.state, self.config
        steps = (torch.arange(len(state.validation)) + 1) * config.validate_every
        return TrainingResult(
            training_loss=state.losses.double().cpu(),
            validation_steps=steps.clamp(max=config.n_steps),
            validation_loss=state.validation.clone(),
            best_step=state.best_step,
            seconds=state.seconds,
        )


class _Swapped:
    """Within the block, the parameters hold other values (or their own, if there are none)."""

    def __init__(self, parameters: list[nn.Parameter], values: list[Tensor] | None) -> None:
        self._parameters, self._values = parameters, values

    def _swap(self) -> None:
        for parameter, value in zip(self._parameters, self._values or [], strict=True):
            kept = parameter.detach().clone()
            parameter.data.copy_(value)
            value.copy_(kept)

    def __enter__(self) -> None:
        if self._values is not None:
            self._swap()

    def __exit__(self, *_: object) -> None:
        if self._values is not None:
            self._swap()


def training_fingerprint(config: TrainConfig, identity: dict[str, Any] | None) -> str:
    """Digest of all that tells one training from another; it stands in its checkpoints."""
    text = json.dumps({"config": asdict(config), "identity": identity or {}}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
