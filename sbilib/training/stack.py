r"""Train all members of a stack in one step, each as if it were alone.

The loss of a stack is a vector, one number for each member; its sum is what is differentiated. Adam acts
element by element, so one update of all weights together, with a learning rate for each member, is the
update of each member alone: with gradient :math:`g`, learning rate :math:`\eta_m` and
:math:`(\beta_1, \beta_2) = (0.9, 0.999)`

.. math::

    m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad
    v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
    \theta \leftarrow \theta - \eta_m \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

(Kingma and Ba, arXiv:1412.6980). A member whose loss is not finite is frozen from that step on: its weights
stay, the others do not notice. Weights, gradients and moments of all members lie in matrices with a row for
each member, so a step of the optimizer is a handful of operations however many tensors a model has.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from sbilib.errors import CheckpointError, ParameterError, check_count, check_range
from sbilib.training.checkpoint import read_checkpoint, write_checkpoint
from sbilib.training.loop import BatchSource, Loss, TrainConfig, TrainingResult, training_fingerprint
from sbilib.training.schedule import learning_rate_at

__all__ = ["StackResult", "train_stack"]

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8
_STATE = ("weights", "first", "second", "average", "best")


@dataclass(frozen=True)
class StackResult:
    """What the training of a stack leaves behind, besides the trained weights in the stack."""

    training_loss: Tensor
    """Loss of every member and step, float64, shape ``(M, n_steps)``; NaN once a member is frozen."""
    validation_steps: Tensor
    """Number of steps made before each validation, int64, shape ``(n_validations,)``."""
    validation_loss: Tensor
    """Validation losses, float64, shape ``(M, n_validations)``."""
    best_step: Tensor
    """Steps made when the validation loss of each member was lowest, int64, shape ``(M,)``."""
    diverged_at: Tensor
    """Step at which the loss of each member was not finite, int64, shape ``(M,)``; -1 for a sound member."""
    seconds: float
    """Wall time of all parts of the training together, in seconds."""

    def member(self, index: int) -> TrainingResult:
        """The record of one member; its share of the time is that of every other."""
        return TrainingResult(
            training_loss=self.training_loss[index],
            validation_steps=self.validation_steps,
            validation_loss=self.validation_loss[index],
            best_step=int(self.best_step[index]),
            seconds=self.seconds / len(self.best_step),
        )


def train_stack(
    stack: nn.Module,
    loss: Loss,
    batches: BatchSource,
    validation: BatchSource,
    config: TrainConfig,
    *,
    learning_rates: Sequence[float] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 1000,
    identity: dict[str, Any] | None = None,
    progress: bool = False,
    label: str = "training",
) -> StackResult:
    """Train all members of ``stack`` in place.

    Args:
        stack: the models, from `sbilib.models.stack_models`; trained where its parameters are.
        loss: ``loss(stack, *batch)``, one number for each member, shape ``(M,)``.
        batches: training batches with the axis of the members in front (`StackedBatches`).
        validation: validation batches, likewise.
        config: how to train; with ``compile`` the loss is compiled together with the models.
        learning_rates: (peak) learning rate of each member; that of ``config`` for all if None.
        checkpoint: file to write progress to, and to resume from if it exists.
        checkpoint_every: steps between checkpoints.
        identity: facts that tell this training from others; a checkpoint with other facts is refused.
        progress: show a progress bar with the median loss, the members frozen, and time left.
        label: name of the training in the progress bar.

    Returns:
        Losses, frozen members and timing. Each member holds the weights chosen by ``config.keep``; a
        frozen one those it had when its loss was not finite.

    Raises:
        ParameterError: if there is not one positive learning rate for each member.
        CheckpointError: if the checkpoint is damaged or belongs to another training.
    """
    check_count("checkpoint_every", checkpoint_every, low=1)
    rates = _check_rates(stack, config, learning_rates)
    run = _StackRun(stack, loss, config, rates)
    fingerprint = training_fingerprint(config, {**(identity or {}), "learning_rates": rates})
    if checkpoint is not None and checkpoint.exists():
        run.restore(checkpoint, fingerprint)
    started, earlier = time.perf_counter(), run.seconds
    bar = tqdm(total=config.n_steps, initial=run.step, desc=label, unit="step", disable=not progress)
    with bar:
        while run.step < config.n_steps:
            run.advance(batches.batch(config.batch_size, run.step))
            at_end = run.step == config.n_steps
            if run.step % config.validate_every == 0 or at_end:
                run.validate(validation.batch(config.validation_size, run.step))
                bar.update(run.step - bar.n)
                frozen = int((run.diverged_at >= 0).sum())
                bar.set_postfix(loss=f"{run.recent_loss():.4f}", frozen=frozen)
            if checkpoint is not None and (run.step % checkpoint_every == 0 or at_end):
                run.seconds = earlier + time.perf_counter() - started
                run.save(checkpoint, fingerprint)
    run.seconds = earlier + time.perf_counter() - started
    run.finish()
    return run.result()


def _check_rates(stack: nn.Module, config: TrainConfig, rates: Sequence[float] | None) -> list[float]:
    members = next(stack.parameters()).shape[0]
    chosen = [config.learning_rate] * members if rates is None else [float(rate) for rate in rates]
    if len(chosen) != members:
        raise ParameterError(
            f"learning_rates must name one rate for each of the {members} members, got {len(chosen)}"
        )
    for rate in chosen:
        check_range("learning_rates", rate, low=0.0, include_low=False)
    return chosen


class _Rows:
    """Weights of a stack as one matrix ``(M, P)``; the parameters of the stack are views of it."""

    def __init__(self, stack: nn.Module) -> None:
        parameters = list(stack.parameters())
        self.weights = torch.cat([p.detach().flatten(1) for p in parameters], dim=1)
        sizes = [parameter[0].numel() for parameter in parameters]
        for parameter, columns in zip(parameters, self.weights.split(sizes, dim=1), strict=True):  # type: ignore[no-untyped-call]
            parameter.data = columns.view_as(parameter)
        self._parameters = parameters

    def gradients(self, value: Tensor) -> Tensor:
        """Derivatives of ``value`` (M,), each member's with respect to its own weights, ``(M, P)``."""
        parts = torch.autograd.grad(value.sum(), self._parameters, materialize_grads=True)
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def release(self) -> None:
        """Give every parameter memory of its own again."""
        for parameter in self._parameters:
            parameter.data = parameter.data.clone()


def _adam(
    weights: Tensor,
    gradients: Tensor,
    first: Tensor,
    second: Tensor,
    rates: Tensor,
    sound: Tensor,
    corrections: Tensor,
    weight_decay: float,
) -> None:
    """One step of AdamW for all members; ``rates``, ``sound`` (M, 1), ``corrections`` (2,)."""
    first.lerp_(gradients, 1 - _BETA_1)
    second.mul_(_BETA_2).addcmul_(gradients, gradients, value=1 - _BETA_2)
    change = first / (second.sqrt() / corrections[1] + _EPSILON) * (rates / corrections[0])
    if weight_decay > 0:
        change = change + rates * weight_decay * weights
    weights.sub_(torch.where(sound, change, 0.0))


class _StackRun:
    """Stack, optimizer and bookkeeping of one training; nothing in a step waits for the device."""

    def __init__(self, stack: nn.Module, loss: Loss, config: TrainConfig, rates: list[float]) -> None:
        self.stack, self.config = stack, config
        self._rows = _Rows(stack)
        weights = self.weights = self._rows.weights
        members, device = len(weights), weights.device
        self.loss = self._validation_loss = loss
        self._update = _adam
        if config.compile:
            # Validation is rare and has a batch size of its own, so it is not worth a graph of its own.
            self.loss = torch.compile(loss, dynamic=False)
            self._update = torch.compile(_adam, dynamic=False)
        self.rates = torch.tensor(rates, dtype=weights.dtype, device=device).unsqueeze(1)
        self.first, self.second = torch.zeros_like(weights), torch.zeros_like(weights)
        # Kept only where the configuration asks for them.
        self.average = weights.clone() if config.average > 0 else weights.new_empty(0)
        self.best = weights.clone() if config.keep == "best" else weights.new_empty(0)
        self.losses = torch.full((config.n_steps, members), math.nan, dtype=weights.dtype, device=device)
        n_validations = math.ceil(config.n_steps / config.validate_every)
        self.validation = torch.full((n_validations, members), math.nan, dtype=torch.float64, device=device)
        self.lowest = torch.full((members,), math.inf, dtype=torch.float64, device=device)
        self.best_step = torch.zeros(members, dtype=torch.long, device=device)
        self.diverged_at = torch.full((members,), -1, dtype=torch.long, device=device)
        self.step, self.seconds = 0, 0.0

    def advance(self, batch: tuple[Tensor, ...]) -> None:
        """One optimizer step of every sound member."""
        config = self.config
        shape = learning_rate_at(
            self.step, n_steps=config.n_steps, peak=1.0, schedule=config.schedule, warmup=config.warmup
        )
        value = self.loss(self.stack, *batch)
        gradients = self._rows.gradients(value)
        with torch.no_grad():
            value = value.detach()
            fresh = ~value.isfinite() & (self.diverged_at < 0)
            self.diverged_at.masked_fill_(fresh, self.step)
            sound = self.diverged_at < 0
            self.losses[self.step] = torch.where(sound, value, math.nan)
            self.step += 1
            corrections = self.rates.new_tensor([1 - _BETA_1**self.step, math.sqrt(1 - _BETA_2**self.step)])
            self._update(
                self.weights,
                gradients,
                self.first,
                self.second,
                self.rates * shape,
                sound.unsqueeze(1),
                corrections,
                config.weight_decay,
            )
            if config.average > 0:
                decay = min(config.average, (1 + self.step) / (10 + self.step))
                self.average.lerp_(self.weights, 1 - decay)

    @torch.no_grad()
    def validate(self, batch: tuple[Tensor, ...]) -> None:
        """Validation loss of the weights that would be returned now, and the best ones so far."""
        kept = self._with_averages()
        value = self._validation_loss(self.stack, *batch).double()
        value = torch.where(self.diverged_at < 0, value, math.nan)
        self._restore_weights(kept)
        self.validation[math.ceil(self.step / self.config.validate_every) - 1] = value
        better = value < self.lowest
        self.lowest = torch.where(better, value, self.lowest)
        self.best_step.masked_fill_(better, self.step)
        if self.config.keep == "best":
            source = self.average if self.config.average > 0 else self.weights
            self.best.copy_(torch.where(better.unsqueeze(1), source, self.best))

    def _with_averages(self) -> Tensor | None:
        if self.config.average == 0:
            return None
        kept = self.weights.clone()
        self.weights.copy_(self.average)
        return kept

    def _restore_weights(self, kept: Tensor | None) -> None:
        if kept is not None:
            self.weights.copy_(kept)

    @torch.no_grad()
    def finish(self) -> None:
        """Put the weights to keep into the stack."""
        source = self.average if self.config.average > 0 else self.weights
        if self.config.keep == "best":
            source = self.best
        sound = (self.diverged_at < 0).unsqueeze(1)
        self.weights.copy_(torch.where(sound, source, self.weights))
        self._rows.release()

    def recent_loss(self) -> float:
        """Median over the sound members of the newest training loss."""
        return float(self.losses[self.step - 1].nanmedian())

    def save(self, path: Path, fingerprint: str) -> None:
        """Write a checkpoint."""
        names = (*_STATE, "losses", "validation", "lowest", "best_step", "diverged_at")
        tensors = {name: getattr(self, name) for name in names}
        facts = {"fingerprint": fingerprint, "step": self.step, "seconds": self.seconds}
        write_checkpoint(path, tensors, facts)

    @torch.no_grad()
    def restore(self, path: Path, fingerprint: str) -> None:
        """Continue from a checkpoint."""
        tensors, facts = read_checkpoint(path)
        if facts["fingerprint"] != fingerprint:
            raise CheckpointError(
                f"checkpoint {path} belongs to another training (its seeds, rates, recipe or data differ); "
                "choose another file or delete it"
            )
        for name, value in tensors.items():
            getattr(self, name).copy_(value)
        self.step, self.seconds = facts["step"], facts["seconds"]

    def result(self) -> StackResult:
        """The record of the training."""
        steps = (torch.arange(len(self.validation)) + 1) * self.config.validate_every
        return StackResult(
            training_loss=self.losses.double().T.cpu(),
            validation_steps=steps.clamp(max=self.config.n_steps),
            validation_loss=self.validation.T.cpu(),
            best_step=self.best_step.cpu(),
            diverged_at=self.diverged_at.cpu(),
            seconds=self.seconds,
        )
