"""Members of a stack train as if alone, survive each other, and resume where they stopped."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sbilib.errors import CheckpointError, ParameterError
from sbilib.models import Classifier, ClassifierConfig, ConditionalFlow, FlowConfig, stack_models
from sbilib.training import (
    ClassifierBatches,
    FlowBatches,
    PolynomialClassifierLoss,
    StackedBatches,
    StackResult,
    TrainConfig,
    classifier_loss,
    flow_loss,
    member_bytes,
    train,
    train_stack,
)

FLOW = FlowConfig(n_transforms=2, hidden=12, n_bins=4)
MODERN_FLOW = FlowConfig(hidden=12, n_bins=4, context_units=0.5, context_affine=True, ordering="alternating")
CLASSIFIER = ClassifierConfig(hidden=(16, 16), activation="silu")
POLYNOMIAL = ClassifierConfig(hidden=(16,), activation="silu", standardize=True, nuisance_degree=3)
CONFIG = TrainConfig(
    n_steps=30, learning_rate=3e-3, batch_size=32, validate_every=7, validation_size=50, schedule="one_cycle"
)
RATES = [1e-3, 3e-3, 1e-2]


def data(seed: int, n: int = 150) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.rand(n + 10 * seed, generator=generator, dtype=torch.float64)
    x = torch.randn(len(z), 2, generator=generator, dtype=torch.float64) + z[:, None]
    return x, z, torch.randn(80, 2, generator=generator, dtype=torch.float64)


def member(kind: str, seed: int):
    """An ordinary float64 model, its batches, and its loss."""
    x, z, reference = data(seed)
    if kind in ("flow", "modern flow"):
        model = ConditionalFlow(FLOW if kind == "flow" else MODERN_FLOW, seed=seed).double()
        return model, FlowBatches(x, z, seed=seed), flow_loss
    batches = ClassifierBatches(x, z, reference, seed=seed)
    if kind == "classifier":
        return Classifier(CLASSIFIER, seed=seed).double(), batches, classifier_loss
    model = Classifier(POLYNOMIAL, seed=seed).double()
    model.standardize(x, z.unsqueeze(1))
    return model, batches, PolynomialClassifierLoss(n_negatives=3, roughness=1e-3)


def fit_stack(kind: str, config: TrainConfig = CONFIG, **options) -> tuple[torch.nn.Module, StackResult]:
    members = [member(kind, seed) for seed in range(3)]
    stack = stack_models([model for model, _, _ in members])
    batches = StackedBatches([source for _, source, _ in members])
    options.setdefault("learning_rates", RATES)
    return stack, train_stack(stack, members[0][2], batches, batches, config, **options)


@pytest.mark.parametrize("kind", ["flow", "modern flow", "classifier", "polynomial classifier"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"average": 0.9, "keep": "best", "weight_decay": 0.1}],
    ids=["last weights", "averaged, best, decayed"],
)
def test_a_member_ends_with_the_weights_it_would_have_alone(kind: str, changes: dict) -> None:
    config = replace(CONFIG, **changes)
    stack, together = fit_stack(kind, config)
    for m, rate in enumerate(RATES):
        model, batches, loss = member(kind, m)
        alone = train(model, loss, batches, batches, replace(config, learning_rate=rate))
        expected = torch.cat([p.detach().flatten() for p in model.parameters()])
        got = torch.cat([p.detach().flatten() for p in stack.member(m).parameters()])
        assert (got - expected).abs().max() < 1e-9
        record = together.member(m)
        assert (record.training_loss - alone.training_loss).abs().max() < 1e-6  # kept in float32 there
        assert (record.validation_loss - alone.validation_loss).abs().max() < 1e-9
        assert torch.equal(record.validation_steps, alone.validation_steps)
        assert record.best_step == alone.best_step


def test_weights_do_move() -> None:
    stack, _ = fit_stack("flow")
    start, _, _ = member("flow", 1)
    moved = [
        (a - b).abs().max() > 1e-3
        for a, b in zip(stack.member(1).parameters(), start.parameters(), strict=True)
    ]
    assert all(moved)


class Poisoned:
    """Batches in which one member meets an infinite event from a given step on."""

    def __init__(self, source: StackedBatches, victim: int, step: int) -> None:
        self._source, self._victim, self._step = source, victim, step

    def batch(self, size: int, step: int) -> tuple[Tensor, ...]:
        x, *rest = self._source.batch(size, step)
        if step >= self._step:
            x = x.clone()
            x[self._victim, 0] = math.inf
        return (x, *rest)


@pytest.mark.parametrize("kind", ["flow", "classifier", "polynomial classifier"])
def test_a_member_that_diverges_is_frozen_and_harms_no_other(kind: str) -> None:
    members = [member(kind, seed) for seed in range(3)]
    batches = StackedBatches([source for _, source, _ in members])
    sound_stack, sound = fit_stack(kind)
    stack = stack_models([model for model, _, _ in members])
    result = train_stack(
        stack, members[0][2], Poisoned(batches, 1, 12), batches, CONFIG, learning_rates=RATES
    )
    assert result.diverged_at.tolist() == [-1, 12, -1]
    assert sound.diverged_at.tolist() == [-1, -1, -1]
    assert result.training_loss[1, :12].isfinite().all()
    assert result.training_loss[1, 12:].isnan().all()
    for m in (0, 2):
        assert torch.equal(result.training_loss[m], sound.training_loss[m])
        for ours, theirs in zip(stack.parameters(), sound_stack.parameters(), strict=True):
            assert torch.equal(ours[m], theirs[m])
    assert all(parameter[1].isfinite().all() for parameter in stack.parameters())


def test_a_rate_that_is_far_too_high_freezes_its_member_alone() -> None:
    _, result = fit_stack("flow", learning_rates=[1e-3, 1e30, 1e-3])
    assert int(result.diverged_at[1]) > 0
    assert (result.diverged_at[[0, 2]] == -1).all()
    assert result.training_loss[[0, 2]].isfinite().all()


class Killed(Exception):
    pass


class Stopping:
    """Batches that stop a training at a step, as a kill would."""

    def __init__(self, source: StackedBatches, step: int) -> None:
        self._source, self._step = source, step

    def batch(self, size: int, step: int) -> tuple[Tensor, ...]:
        if step == self._step:
            raise Killed
        return self._source.batch(size, step)


@pytest.mark.parametrize("stop", [3, 11, 29])
def test_a_killed_stack_resumes_to_the_same_weights(tmp_path: Path, stop: int) -> None:
    config = replace(CONFIG, average=0.9, keep="best")
    expected_stack, expected = fit_stack("classifier", config)
    members = [member("classifier", seed) for seed in range(3)]
    batches = StackedBatches([source for _, source, _ in members])
    options = {"learning_rates": RATES, "checkpoint": tmp_path / "stack.safetensors", "checkpoint_every": 5}
    stack = stack_models([model for model, _, _ in members])
    with pytest.raises(Killed):
        train_stack(stack, classifier_loss, Stopping(batches, stop), batches, config, **options)
    stack = stack_models([member("classifier", seed)[0] for seed in range(3)])
    result = train_stack(stack, classifier_loss, batches, batches, config, **options)
    for ours, theirs in zip(stack.parameters(), expected_stack.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(result.training_loss, expected.training_loss)
    assert torch.equal(result.best_step, expected.best_step)
    with pytest.raises(CheckpointError, match="another training"):
        fit_stack("classifier", config, **{**options, "learning_rates": [1e-3, 3e-3, 2e-2]})


def test_compiled_training_gives_the_same_weights(tmp_path: Path) -> None:
    plain, _ = fit_stack("classifier", replace(CONFIG, n_steps=5))
    compiled, _ = fit_stack("classifier", replace(CONFIG, n_steps=5, compile=True))
    for ours, theirs in zip(compiled.parameters(), plain.parameters(), strict=True):
        assert (ours - theirs).abs().max() < 1e-9


def test_memory_of_a_member_grows_with_batch_and_network() -> None:
    def needed(hidden: int, batch: int) -> int:
        model = Classifier(ClassifierConfig(hidden=(hidden, hidden)), seed=1)
        return member_bytes(
            model, classifier_loss, (torch.zeros(batch, 2), torch.zeros(batch, 1), torch.zeros(batch))
        )

    assert needed(64, 2048) > 1.8 * needed(64, 1024)
    assert needed(512, 256) > 4 * needed(64, 256)


def test_bad_rates_are_refused() -> None:
    with pytest.raises(ParameterError, match="each of the 3 members, got 2"):
        fit_stack("classifier", learning_rates=[1e-3, 1e-3])
    with pytest.raises(ParameterError, match="learning_rates"):
        fit_stack("classifier", learning_rates=[1e-3, 0.0, 1e-3])
    with pytest.raises(ParameterError, match="at least one source"):
        StackedBatches([])
