import math

import pytest
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.models import Classifier, ClassifierConfig, ClassifierPair, load_model, save_model
from sbilib.problems import GaussianToy, make_training_set
from sbilib.training import ClassifierBatches, TrainConfig, classifier_loss, train

CONFIGS = {"sluijter": ClassifierConfig.sluijter(), "modern": ClassifierConfig.modern()}


@pytest.fixture(params=CONFIGS, ids=str)
def config(request):
    return CONFIGS[request.param]


def test_the_published_network_has_the_published_size():
    model = Classifier(ClassifierConfig.sluijter(), seed=1)
    assert sum(p.numel() for p in model.parameters()) == (3 + 1) * 120 + 2 * 121 * 120 + 121
    assert [type(layer).__name__ for layer in model.layers] == ["Linear", "ReLU"] * 3 + ["Linear"]


def test_the_output_depends_on_every_feature_and_on_the_context(config):
    model = Classifier(config, seed=1)
    x, z = torch.randn(64, 2, requires_grad=True), torch.rand(64, 1, requires_grad=True)
    model(x, z).sum().backward()
    assert bool((x.grad.abs().max(dim=0).values > 0).all())
    assert bool((z.grad.abs() > 0).any())


def test_initial_weights_depend_on_the_seed_alone(config):
    state = torch.random.get_rng_state()
    models = [Classifier(config, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), state), "the global state is left alone"
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_log_components_are_the_logits_at_every_pair(config, monkeypatch):
    monkeypatch.setattr("sbilib.models.classifier._CHUNK", 50)  # several chunks
    pair = ClassifierPair(Classifier(config, seed=1), Classifier(config, seed=2))
    x, z = torch.randn(33, 2, dtype=torch.float64), torch.linspace(0, 1, 7)
    both = pair.log_components(x, z)
    assert both.signal.shape == (33, 7)
    assert both.signal.dtype == torch.float64
    for model, table in zip((pair.signal, pair.background), both, strict=True):
        for column in range(7):
            expected = model(x.float(), z[column].expand(33, 1))
            torch.testing.assert_close(table[:, column].float(), expected, rtol=1e-4, atol=1e-5)


def test_a_normalized_ratio_averages_to_one_at_every_nuisance_value():
    toy = GaussianToy.small_distance()
    fixed = make_training_set(toy, 40_000, torch.Generator().manual_seed(2), nuisance="reference")
    reference = torch.cat((fixed.signal, fixed.background))
    model = Classifier(ClassifierConfig.modern(), seed=1)
    model.standardize(reference, torch.rand(40_000, 1, generator=torch.Generator().manual_seed(3)))
    z = torch.rand(9, 1, generator=torch.Generator().manual_seed(4))

    def mean_ratio():
        return model.outer(reference, z).double().exp().mean(dim=0)

    assert (mean_ratio() - 1).abs().max().item() > 0.01
    model.normalize(reference)
    torch.testing.assert_close(mean_ratio(), torch.ones(9, dtype=torch.float64), atol=1e-3, rtol=0)


def test_a_network_with_z_as_input_cannot_be_normalized():
    with pytest.raises(ParameterError, match="nuisance_degree > 0"):
        Classifier(ClassifierConfig.sluijter(), seed=1).normalize(torch.zeros(4, 2))


def test_training_recovers_the_exact_log_ratio():
    # Far more than the agreement needed here is measured on the book's pages; this is the trick itself.
    toy = GaussianToy.small_distance()
    data = make_training_set(toy, 60_000, torch.Generator().manual_seed(1))
    fixed = make_training_set(toy, 60_000, torch.Generator().manual_seed(2), nuisance="reference")
    stream = ClassifierBatches(
        data.signal, data.signal_nuisance, torch.cat((fixed.signal, fixed.background)), seed=1
    )
    model = Classifier(ClassifierConfig(hidden=(32, 32), activation="silu", standardize=True), seed=1)
    model.standardize(data.signal, data.signal_nuisance.unsqueeze(1))
    config = TrainConfig(n_steps=400, learning_rate=1e-2, batch_size=1024, schedule="one_cycle")
    train(model, classifier_loss, stream, stream, config)
    x = toy.sample("signal", torch.full((500,), 0.4), torch.Generator().manual_seed(3))
    z = torch.tensor([0.4])
    reference = torch.logaddexp(*toy.log_components(x, torch.tensor([toy.reference_nuisance]))) - math.log(2)
    exact = toy.log_components(x, z).signal - reference
    learned = ClassifierPair(model, model).log_components(x, z).signal
    assert float((learned - exact).abs().mean()) < 0.1 * float(exact.std())


def test_confident_logits_survive_in_float32():
    model = Classifier(ClassifierConfig(hidden=(4,)), seed=1)
    with torch.no_grad():
        model.layers[-1].bias.fill_(40.0)  # sigmoid rounds to one here, log(f / (1 - f)) to infinity
    logit = model(torch.zeros(1, 2), torch.zeros(1, 1))
    assert torch.sigmoid(logit).item() == 1.0
    assert abs(logit.item() - 40.0) < 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden": ()}, "at least one layer"),
        ({"hidden": (0,)}, "hidden must be"),
        ({"activation": "gelu"}, "activation"),
        ({"n_features": 0}, "n_features"),
        ({"nuisance_degree": -1}, "nuisance_degree"),
        ({"nuisance_degree": 2, "n_context": 2}, "needs one nuisance parameter, got 2"),
    ],
)
def test_bad_shapes_are_refused(fields, message):
    with pytest.raises(ParameterError, match=message):
        ClassifierConfig(**fields)


def test_configurations_survive_json(config):
    assert ClassifierConfig.from_dict(config.to_dict()) == config


def test_a_classifier_survives_its_file(config, tmp_path):
    model = Classifier(config, seed=3)
    model.standardize(torch.randn(50, 2), torch.rand(50, 1))
    save_model(tmp_path / "model.safetensors", model, {"note": "kept"})
    loaded = load_model(tmp_path / "model.safetensors")
    x, z = torch.randn(9, 2), torch.rand(9, 1)
    assert torch.equal(loaded.model(x, z), model(x, z))
    assert loaded.model.config == config
    assert loaded.metadata == {"note": "kept"}


def test_bad_events_are_refused(config):
    pair = ClassifierPair(Classifier(config, seed=1), Classifier(config, seed=2))
    with pytest.raises(DataError, match=r"got \(4, 3\)"):
        pair.log_components(torch.zeros(4, 3), torch.zeros(1))
    with pytest.raises(DataError, match="NaN"):
        pair.log_components(torch.full((4, 2), math.nan), torch.zeros(1))
