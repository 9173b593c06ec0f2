"""Schedules, streams, checkpoints, devices."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits

from sbilib.errors import CheckpointError, DataError, DeviceError, ParameterError
from sbilib.training import (
    ClassifierBatches,
    FlowBatches,
    PolynomialClassifierLoss,
    learning_rate_at,
    resolve_device,
)
from sbilib.training.checkpoint import read_checkpoint, write_checkpoint


@given(n=st.integers(2, 10_000), peak=st.floats(1e-7, 1), warmup=st.floats(0, 0.5), part=st.floats(0, 1))
def test_one_cycle_stays_below_its_peak_and_ends_near_zero(n, peak, warmup, part):
    def rate(step):
        return learning_rate_at(step, n_steps=n, peak=peak, schedule="one_cycle", warmup=warmup)

    assert 0 < rate(int(part * (n - 1))) <= peak * (1 + 1e-12)
    assert rate(n - 1) <= peak * 2e-4


def test_warm_up_rises_and_stays():
    rates = [learning_rate_at(s, n_steps=101, peak=1.0, schedule="warmup", warmup=0.2) for s in range(101)]
    assert rates[0] == pytest.approx(0.04)
    assert rates[10] == pytest.approx(0.52)
    assert rates[20:] == [1.0] * 81


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ParameterError, match="schedule"):
        learning_rate_at(0, n_steps=1, peak=1.0, schedule="exponential", warmup=0.0)


def test_an_epoch_visits_every_event_once():
    x = torch.arange(12.0).unsqueeze(1)
    stream = FlowBatches(x, x.squeeze(1), seed=3)
    first, second = (
        torch.cat([stream.batch(4, step)[0] for step in range(3 * e, 3 * e + 3)]).squeeze(1) for e in (0, 1)
    )
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, x.squeeze(1))
    assert torch.equal(second.sort().values, x.squeeze(1))


def test_a_batch_depends_on_seed_and_step_alone():
    x = torch.arange(100.0).unsqueeze(1)
    forward, fresh = (FlowBatches(x, x.squeeze(1), seed=3) for _ in range(2))
    for step in range(50):
        forward.batch(8, step)
    assert torch.equal(forward.batch(8, 50)[0], fresh.batch(8, 50)[0])
    assert not torch.equal(fresh.batch(8, 50)[0], FlowBatches(x, x.squeeze(1), seed=4).batch(8, 50)[0])


def test_small_data_are_drawn_with_replacement():
    x = torch.arange(3.0).unsqueeze(1)
    assert FlowBatches(x, x.squeeze(1), seed=1).batch(64, 0)[0].shape == (64, 1)


def test_classifier_batches_follow_the_published_recipe():
    positive, reference = (
        torch.full((50, 2), 1.0),
        torch.cat((torch.full((40, 2), 2.0), torch.full((40, 2), 3.0))),
    )
    z = torch.linspace(0, 1, 50)
    x, context, labels = ClassifierBatches(positive, z, reference, seed=1).batch(40, 0)
    assert bool((x[:20] == 1).all())
    assert bool((labels[:20] == 1).all())
    assert bool((x[20:] >= 2).all())
    assert bool((labels[20:] == 0).all())
    assert torch.equal(context[:20], context[20:]), "negatives take the nuisance values of the positives"
    both = ClassifierBatches(positive, z, reference, seed=1)
    negative = torch.cat([both.batch(40, step)[0][20:, 0] for step in range(4)])
    assert int((negative == 2).sum()) == 40, "an epoch holds as many signal as background events"


@pytest.mark.parametrize("n_negatives", [1, 4])
def test_more_negatives_leave_the_log_ratio_as_the_best_output(n_negatives):
    # Positives N(1/2, 1), negatives N(-1/2, 1): the log ratio is x itself, whatever K is.
    class Line(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = torch.nn.Parameter(torch.tensor([0.5, 0.3], dtype=torch.float64))

        def forward(self, x, z):
            return self.weights[0] + self.weights[1] * x[:, 0] + 0 * z[:, 0]

        def coefficients(self, x):
            return self(x, x).unsqueeze(1)

        def basis(self, z):
            return torch.ones_like(z)

    generator, half = torch.Generator().manual_seed(1), 40_000
    x = torch.randn(2 * half, 1, generator=generator, dtype=torch.float64)
    labels = (torch.arange(2 * half) < half).double()
    x += (labels - 0.5).unsqueeze(1)
    model, loss = Line(), PolynomialClassifierLoss(n_negatives=n_negatives)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(model, x, torch.zeros_like(x), labels)
        value.backward()
        return value

    optimizer.step(closure)
    # Standard errors are below 0.01.
    torch.testing.assert_close(
        model.weights.detach(), torch.tensor([0.0, 1.0], dtype=torch.float64), atol=0.04, rtol=0
    )
    if n_negatives == 1:
        published = binary_cross_entropy_with_logits(model(x, x), labels)
        torch.testing.assert_close(loss(model, x, x, labels), published)


def test_the_roughness_is_the_mean_squared_third_derivative():
    class Cubic(torch.nn.Module):
        def coefficients(self, x):
            return x

        def basis(self, z):
            return torch.ones(len(z), 5)

    x = torch.tensor([[0.0, 0.0, 0.0, 2.0, 1.0]] * 2)
    losses = [
        PolynomialClassifierLoss(roughness=strength)(Cubic(), x, torch.zeros(2, 1), torch.ones(2))
        for strength in (0.0, 1.0)
    ]
    # Third derivatives of P3 and P4 are 15 and 105 t: the mean of (30 + 105 t)^2 is 900 + 105^2 / 3.
    assert float(losses[1] - losses[0]) == pytest.approx(900 + 3675, rel=1e-5)


def test_mismatched_data_are_refused():
    with pytest.raises(DataError, match="3 events and 2 values"):
        FlowBatches(torch.zeros(3, 2), torch.zeros(2), seed=1)
    with pytest.raises(DataError, match="0 events"):
        FlowBatches(torch.zeros(0, 2), torch.zeros(0), seed=1)


def test_checkpoints_round_trip(tmp_path):
    tensors = {"a": torch.randn(3, 2), "b": torch.tensor(7)}
    path = tmp_path / "folder" / "run.safetensors"
    write_checkpoint(path, tensors, {"step": 5, "best": math.inf})
    back, facts = read_checkpoint(path)
    assert facts == {"step": 5, "best": math.inf}
    assert all(torch.equal(tensors[name], back[name]) for name in tensors)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "other"])
def test_damaged_checkpoints_are_refused(tmp_path, damage):
    path = tmp_path / "run.safetensors"
    write_checkpoint(path, {"a": torch.arange(100.0)}, {"step": 5})
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-3] ^= 1
    path.write_bytes({"truncate": content[:-50], "flip": content, "empty": b"", "other": b"hello"}[damage])
    with pytest.raises(CheckpointError, match=r"run\.safetensors.*delete it to start afresh"):
        read_checkpoint(path)


def test_a_failed_write_leaves_the_good_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    write_checkpoint(path, {"a": torch.ones(3)}, {"step": 1})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sbilib.training.checkpoint.save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        write_checkpoint(path, {"a": torch.zeros(3)}, {"step": 2})
    assert read_checkpoint(path)[1] == {"step": 1}
    assert list(tmp_path.iterdir()) == [path], "no temporary file is left behind"


def test_an_absent_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(DeviceError, match="finds no CUDA device; pass device='cpu'"):
        resolve_device("cuda")
