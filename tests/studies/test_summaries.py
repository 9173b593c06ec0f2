import numpy as np
import pytest
import torch

from sbilib.differentiable import (
    AnalysisSettings,
    ExpectedYields,
    Logits,
    Templates,
    expected_cls,
    make_loss,
    sigma_mu,
)
from sbilib.errors import DataError, ParameterError
from sbilib.models.summary import SummaryConfig, SummaryStack
from sbilib.problems import BlobEvents, GaussianBlobs
from sbilib.studies.summaries import SummaryStudy, train_summaries
from sbilib.studies.summary_metrics import evaluate_summary, hard_templates

BLOBS = GaussianBlobs.neos()
EVENTS, HELD_OUT = BLOBS.sample(400, seed=1), BLOBS.sample(1000, seed=2)
SMALL = SummaryConfig(hidden=(16, 16))


def study(loss, **changes):
    fields = {"network": SMALL, "n_bins": 4, "n_epochs": 3, "batch_size": 400, **changes}
    return SummaryStudy(make_loss(loss), **fields)


def test_the_templates_are_the_histograms_of_numpy():
    generator = torch.Generator().manual_seed(3)
    outputs = Logits(*(torch.randn(2, n, generator=generator) for n in (10, 20, 30, 40)))
    edges = torch.tensor([0.0, 0.4, 0.7, 1.0], dtype=torch.float64)
    templates = hard_templates(outputs, edges, ExpectedYields(5.0, 60.0))
    for name, total in (("signal", 5.0), ("background", 60.0), ("up", 60.0), ("down", 60.0)):
        logits = getattr(outputs, name).double().numpy()
        for member in range(2):
            counts, _ = np.histogram(1 / (1 + np.exp(-logits[member])), edges.numpy())
            np.testing.assert_allclose(
                getattr(templates, name)[member], counts * total / len(logits[member]), rtol=1e-12
            )


def test_metrics_are_those_of_the_hard_histograms():
    generator = torch.Generator().manual_seed(3)
    outputs = Logits(*(torch.randn(2, 50, generator=generator) + shift for shift in (1.0, -1.0, -0.5, -1.5)))
    edges = torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64)
    settings, yields = AnalysisSettings(), ExpectedYields.neos()
    metrics = evaluate_summary(outputs, edges, yields=yields, settings=settings)
    for member in range(2):
        alone = Logits(*(each[member : member + 1] for each in outputs))
        templates = hard_templates(alone, edges, yields)
        model = Templates(
            templates.signal[0], templates.background[0], templates.up[0], templates.down[0]
        ).model()
        assert metrics.cls[member].item() == pytest.approx(expected_cls(model).item(), rel=1e-8)
        assert metrics.sigma_mu[member].item() == pytest.approx(sigma_mu(model).item(), rel=1e-8)
        right = (alone.signal > 0).double().mean() + (alone.background <= 0).double().mean()
        assert metrics.accuracy[member].item() == pytest.approx(right.item() / 2)


@pytest.mark.parametrize("loss", ["cls", "bce", {"sigma_mu": 1.0, "bce_augmented": 0.5}])
def test_members_train_as_if_alone(loss):
    # float32 rounding differs between batched and single products; Adam with few steps keeps it small.
    plan = study(loss, n_epochs=2)
    together = train_summaries(plan, EVENTS, HELD_OUT, seeds=(5, 6))
    alone = train_summaries(plan, EVENTS, HELD_OUT, seeds=(6,))
    for both, one in zip(together.final.stack.parameters(), alone.final.stack.parameters(), strict=True):
        torch.testing.assert_close(both[1], one[0], rtol=1e-3, atol=1e-4)
    again = train_summaries(plan, EVENTS, HELD_OUT, seeds=(5, 6))
    assert torch.equal(together.loss, again.loss)


@pytest.mark.parametrize(
    ("loss", "changes"),
    [
        ("log_cls", {}),
        ("sigma_mu", {"learn_edges": True}),
        ("sigma_mu", {"network": SummaryConfig(hidden=(16, 16), n_outputs=4)}),
        ({"log_p0": 1.0, "gaussianity": 1.0}, {}),
        ("bce_augmented", {}),
    ],
)
def test_training_lowers_the_hard_loss_on_held_out_events(loss, changes):
    run = train_summaries(
        study(loss, n_epochs=15, learning_rate=5e-3, **changes), EVENTS, HELD_OUT, seeds=(1, 2)
    )
    assert run.loss.shape == (16, 2)
    best = run.loss.gather(0, run.best_epoch.unsqueeze(0))[0]
    assert (best < run.loss[0] - 0.02).all()
    edges = run.final.edges
    if changes.get("learn_edges"):
        assert (edges.diff(dim=-1) > 0).all()
        assert not torch.allclose(edges[0], edges[1])


def test_the_best_networks_are_those_of_the_best_epoch():
    run = train_summaries(
        study("sigma_mu", n_epochs=6, learning_rate=2e-2), EVENTS, HELD_OUT, seeds=(1, 2, 3)
    )
    found = run.best.evaluate(HELD_OUT).sigma_mu
    expected = run.metrics.sigma_mu.gather(0, run.best_epoch.unsqueeze(0))[0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(run.metrics.sigma_mu, run.loss)
    torch.testing.assert_close(
        run.final.evaluate(HELD_OUT).sigma_mu, run.metrics.sigma_mu[-1], rtol=1e-6, atol=0
    )


def test_the_stack_is_its_members():
    stack = SummaryStack(
        SummaryConfig(n_features=3, hidden=(8,), n_outputs=4, activation="tanh"), seeds=(1, 2)
    )
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    for index in range(2):
        torch.testing.assert_close(stack.member(index)(x[index])[0], stack(x)[index])
        weights = [stack.layers[k].weight[index] for k in range(2)]
        biases = [stack.layers[k].bias[index] for k in range(2)]
        by_hand = torch.tanh(x[index] @ weights[0].T + biases[0]) @ weights[1].T + biases[1]
        torch.testing.assert_close(stack(x)[index], by_hand)
    fresh = SummaryStack(stack.config, seeds=(2,))
    assert torch.equal(fresh.layers[0].weight[0], stack.layers[0].weight[1])


def test_published_settings():
    neos, deep = SummaryStudy.neos(make_loss("cls")), SummaryStudy.deep(make_loss("cls"), n_bins=20)
    assert neos.network.hidden == (1024, 1024)
    assert (neos.n_epochs, neos.batch_size, neos.learning_rate) == (15, 2000, 1e-3)
    assert deep.network.hidden == (128, 128, 128, 128)
    assert (deep.n_epochs, deep.bandwidth, deep.n_bins) == (100, 0.09, 20)
    assert (deep.yields.signal, deep.yields.background) == (20.0, 100.0)


def test_bad_input_is_refused():
    for field in ("bandwidth", "temperature", "learning_rate"):
        with pytest.raises(ParameterError, match=field):
            study("cls", **{field: 0.0})
    with pytest.raises(ParameterError, match="multiple of the four"):
        study("cls", batch_size=402)
    with pytest.raises(ParameterError, match="one output, or 4"):
        study("cls", network=SummaryConfig(n_outputs=3))
    with pytest.raises(ParameterError, match="no logit to classify"):
        study("bce", network=SummaryConfig(n_outputs=4))
    with pytest.raises(ParameterError, match="at least one seed"):
        train_summaries(study("cls"), EVENTS, HELD_OUT, seeds=())
    uneven = BlobEvents(*(each[: 10 + k] for k, each in enumerate(EVENTS)))
    with pytest.raises(DataError, match="as many of each"):
        train_summaries(study("cls"), uneven, HELD_OUT, seeds=(1,))
    with pytest.raises(ParameterError, match="activation"):
        SummaryConfig(activation="step")
    with pytest.raises(ParameterError, match="at least one layer"):
        SummaryConfig(hidden=())
    stack = SummaryStack(SMALL, seeds=(1, 2))
    for shape in ((5, 3), (3, 5, 2), (2,)):
        with pytest.raises(DataError, match="x must have shape"):
            stack(torch.zeros(shape))
