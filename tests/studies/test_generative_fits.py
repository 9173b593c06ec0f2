"""Trainings of generative models: they learn, continue, and see the training events alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.models import (
    AffineFlowConfig,
    LogitStandardize,
    MaskedAutoregressiveFlow,
    MixtureAutoregressive,
    MixtureConfig,
    QuantileToNormal,
    RealNVP,
)
from sbilib.studies.generative_fits import GENERATORS, GenerativeRecipe, fit_generator, network_work
from sbilib.training import TrainConfig

NAMES = ("pt", "eta", "mass")
BOUNDS = {"pt": (20.0, None), "eta": (-2.5, 2.5)}


def events(n: int, seed: int) -> torch.Tensor:
    """Momentum and mass of one another, and an angle."""
    normal = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    momentum = 20 + 10 * normal[:, 0].exp()
    return torch.stack(
        [momentum, 0.6 * normal[:, 1].clamp(-4, 4), momentum * (1 + 0.1 * normal[:, 2].exp())], 1
    )


def recipe(model: str = "mixture", n_steps: int = 60, **changes: object) -> GenerativeRecipe:
    training = TrainConfig(
        n_steps=n_steps, learning_rate=2e-3, batch_size=128, validate_every=20, keep="best"
    )
    return GenerativeRecipe(model=model, training=training, **changes)  # type: ignore[arg-type]


def fit(recipe: GenerativeRecipe, seed: int = 1, n: int = 800):
    return fit_generator(events(n, 1), events(300, 2), recipe, names=NAMES, bounds=BOUNDS, seed=seed)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SBILIB_CACHE", str(tmp_path))
    return tmp_path


def test_a_model_learns_what_features_know_of_each_other():
    found = fit(recipe(n_steps=100), n=3000)
    held = events(1000, 3)
    u, log_det = found.model.transform(held)
    independent = log_det + torch.distributions.Normal(0.0, 1.0).log_prob(u).sum(dim=1)
    assert float((found.model.log_prob(held) - independent).mean()) > 0.5
    x = found.model.sample(2000, torch.Generator().manual_seed(1))
    assert float(torch.corrcoef(x[:, [0, 2]].log().T)[0, 1]) > 0.5
    assert bool((x[:, 0] >= 20).all() and (x[:, 1].abs() <= 2.5).all())


def test_the_same_seed_gives_the_same_model_and_a_finished_training_is_read_back(cache: Path):
    first = fit(recipe(n_steps=10))
    assert len(list(cache.glob("generator-mixture-*.safetensors"))) == 1
    again = fit(recipe(n_steps=10))
    x = events(20, 5)
    assert torch.equal(first.model.log_prob(x), again.model.log_prob(x))
    assert again.training.seconds == pytest.approx(first.training.seconds, abs=1.0)
    assert len(list(cache.glob("*.safetensors"))) == 1
    other = fit(recipe(n_steps=10), seed=2)
    assert not torch.equal(first.model.log_prob(x), other.model.log_prob(x))


def test_the_map_is_that_of_the_training_events():
    held = events(300, 2) * torch.tensor([2.0, 1.0, 3.0])
    found = fit_generator(events(800, 1), held, recipe(n_steps=2), names=NAMES, bounds=BOUNDS, seed=1)
    expected = QuantileToNormal.fit(events(800, 1), names=NAMES, bounds=BOUNDS)
    assert torch.equal(found.model.transform.values, expected.values)
    assert isinstance(fit(recipe(n_steps=2, preprocessing="logit")).model.transform, LogitStandardize)


def test_the_ordered_map_keeps_floors_and_others_ignore_them():
    floors = {"mass": (("pt",),)}
    for preprocessing, below in (("ordered", False), ("quantile", True)):
        found = fit_generator(
            events(800, 1), events(300, 2), recipe(n_steps=5, preprocessing=preprocessing), names=NAMES,
            bounds=BOUNDS, floors=floors, seed=1,
        )  # fmt: skip
        x = found.model.sample(1000, torch.Generator().manual_seed(1))
        assert bool((x[:, 2] < x[:, 0]).any()) == below
    with pytest.raises(ParameterError, match=r"needs floors.*quantile"):
        fit(recipe(preprocessing="ordered"))


def test_nothing_is_kept_if_it_is_not_asked_for(cache: Path):
    kept, fresh = (
        fit_generator(
            events(300, 1), events(100, 2), recipe(n_steps=5), names=NAMES, bounds=BOUNDS, seed=1, keep=keep
        )
        for keep in (True, False)
    )
    assert len(list(cache.iterdir())) == 1
    assert fresh.validation_loss == kept.validation_loss == float(fresh.training.validation_loss.min())


@pytest.mark.parametrize("model", GENERATORS)
def test_recipes_name_architectures(model: str):
    modern, published = GenerativeRecipe.modern(model), GenerativeRecipe.published(model)
    small = replace(modern, size="small").config(18)
    assert small == GENERATORS[model][1].small(18)
    assert small.hidden < modern.config(18).hidden < published.config(18).hidden
    config = GENERATORS[model][1]
    assert modern.config(18) == config.modern(18)
    assert published.config(18) == config.gavranovic(18)
    assert published.training.learning_rate == 3e-4
    assert isinstance(modern.build(4, seed=1), GENERATORS[model][0])


def test_products_are_those_of_the_masks():
    # Degrees 1, 1, 2, 2 of four units and three features: inputs 1 and 2, outputs for features 2 and 3.
    config = MixtureConfig(features=3, hidden=4, n_blocks=1, n_components=1)
    model = MixtureAutoregressive(config)
    initial, block, final = 2 + 4, 3 * 4, 3 * (2 + 4)
    expected = initial + 2 * block + final
    assert network_work(model) == (expected, expected, 3 * expected)


def test_flows_count_every_layer_and_couplings_draw_in_one_pass():
    config = AffineFlowConfig(features=4, n_transforms=3, hidden=6, n_blocks=1)
    single = replace(config, n_transforms=1)
    for kind, passes in ((MaskedAutoregressiveFlow, 4), (RealNVP, 1)):
        three, one = network_work(kind(config)), network_work(kind(single))
        assert three.density == 3 * one.density
        assert three.passes == passes * three.sampling


def test_bad_input_is_named():
    with pytest.raises(ParameterError, match="model must be one of"):
        GenerativeRecipe(model="gan")
    with pytest.raises(ParameterError, match="preprocessing"):
        recipe(preprocessing="rank")
    with pytest.raises(DataError, match="a column for each of 3 names"):
        fit_generator(events(300, 1)[:, :2], events(300, 2), recipe(), names=NAMES, bounds=BOUNDS, seed=1)
    with pytest.raises(DataError, match="outside its bounds"):
        fit_generator(
            events(300, 1), events(300, 2), recipe(), names=NAMES, bounds={"pt": (30, None)}, seed=1
        )
