"""Facts about the loop: exact resume, schedules, best weights, clear failures."""

import math

import pytest
import torch
from torch import nn

from sbilib.errors import CheckpointError, ParameterError, TrainingError
from sbilib.training import FlowBatches, TrainConfig, train


class Line(nn.Module):
    """A line through noisy points: small enough to know the answer."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        self.register_buffer("offset", torch.tensor(0.5))

    def forward(self, x):
        return self.layers(x) + self.offset


def squared_error(model, x, z):
    return (model(x) - z).square().mean()


X = torch.linspace(-1, 1, 400).unsqueeze(1)
Y = 0.3 * X.squeeze(1) + 0.1


class Stopping:
    """Batches that break off, as a killed job does."""

    def __init__(self, batches, at):
        self._batches, self._at = batches, at

    def batch(self, size, step):
        if step == self._at:
            raise KeyboardInterrupt
        return self._batches.batch(size, step)


def batches(seed=1):
    return FlowBatches(X, Y, seed=seed)


def fit(config, model=None, source=None, **options):
    model = model or Line()
    result = train(model, squared_error, source or batches(), batches(2), config, **options)
    return model, result


CONFIG = TrainConfig(
    n_steps=130,
    learning_rate=0.02,
    batch_size=32,
    schedule="one_cycle",
    average=0.9,
    validate_every=20,
    validation_size=100,
    keep="best",
)


def test_training_finds_the_line():
    model, result = fit(TrainConfig(n_steps=600, learning_rate=0.02, batch_size=64, schedule="one_cycle"))
    torch.testing.assert_close(model(X).squeeze(1), Y, atol=0.02, rtol=0)
    assert result.training_loss.shape == (600,)
    assert float(result.validation_loss[-1]) < 1e-4


@pytest.mark.parametrize("killed_at", [1, 39, 40, 77, 129])
def test_a_killed_and_resumed_run_ends_with_the_same_bits(tmp_path, killed_at):
    straight, expected = fit(CONFIG)
    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(CONFIG, source=Stopping(batches(), killed_at), checkpoint=path, checkpoint_every=10)
    # The resumed run starts from other weights, so that everything must come from the checkpoint.
    resumed, result = fit(CONFIG, model=Line(seed=9) if path.exists() else None, checkpoint=path)
    for (name, value), other in zip(
        straight.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
    assert torch.equal(result.training_loss, expected.training_loss)
    assert torch.equal(result.validation_loss, expected.validation_loss)
    assert result.best_step == expected.best_step


def test_a_finished_run_is_not_trained_again(tmp_path):
    path = tmp_path / "run.safetensors"
    first, _ = fit(CONFIG, checkpoint=path)
    second, result = fit(CONFIG, model=Line(seed=4), source=Stopping(batches(), 0), checkpoint=path)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert bool(result.training_loss.isfinite().all())


@pytest.mark.parametrize("options", [{"identity": {"seed": 2}}, {"identity": None}])
def test_a_checkpoint_of_another_training_is_refused(tmp_path, options):
    path = tmp_path / "run.safetensors"
    fit(CONFIG, checkpoint=path, identity={"seed": 1})
    with pytest.raises(CheckpointError, match="another training"):
        fit(CONFIG, checkpoint=path, **options)


def test_best_keeps_the_weights_of_the_lowest_validation_loss():
    config = TrainConfig(
        n_steps=200, learning_rate=0.5, batch_size=8, validate_every=10, validation_size=100, keep="best"
    )
    model, result = fit(config)
    lowest = int(result.validation_loss.argmin())
    assert result.best_step == int(result.validation_steps[lowest])
    # The data have no noise, so the loss over all of them orders weights as the validation batch does.
    assert squared_error(model, X, Y.unsqueeze(1)).item() < 2 * float(result.validation_loss[lowest])
    assert result.validation_loss[lowest] < result.validation_loss[-1]


def test_the_average_is_smoother_than_the_weights():
    noisy = {"n_steps": 400, "learning_rate": 0.1, "batch_size": 4, "validate_every": 400}
    losses = [float(fit(TrainConfig(**noisy, average=a))[1].validation_loss[-1]) for a in (0.0, 0.98)]
    assert losses[1] < losses[0]


def test_a_loss_that_is_not_finite_names_the_step(tmp_path):
    def loss(model, x, z):
        loss.calls += 1
        return squared_error(model, x, z) * (math.nan if loss.calls == 32 else 1.0)

    loss.calls = 0
    path = tmp_path / "run.safetensors"
    with pytest.raises(TrainingError, match="nan at step 30 of 130; lower the learning rate"):
        train(Line(), loss, batches(), batches(2), CONFIG, checkpoint=path, checkpoint_every=40)
    assert not path.exists(), "weights after the failure must not be kept"


def test_the_published_optimizer_is_adam():
    config = TrainConfig(n_steps=25, learning_rate=0.01, batch_size=16)
    model, _ = fit(config)
    reference, source = Line(), batches()
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.01)
    for step in range(25):
        optimizer.zero_grad()
        squared_error(reference, *source.batch(16, step)).backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_steps", 0),
        ("learning_rate", -1.0),
        ("learning_rate", math.nan),
        ("batch_size", 1),
        ("schedule", "cosine"),
        ("average", 1.0),
        ("keep", "first"),
    ],
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(ParameterError, match=f"{field} must be .*{value!r}"):
        TrainConfig(**{"n_steps": 10, "learning_rate": 0.1, field: value})
