import pytest
import torch

from sbilib.errors import CheckpointError, ParameterError
from sbilib.models import ClassifierConfig, ClassifierPair, FlowConfig, FlowPair
from sbilib.problems import GaussianToy
from sbilib.studies import METHODS, RECIPES, Recipe, fit_pair, get_recipe
from sbilib.training import TrainConfig

TOY = GaussianToy.large_distance()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SBILIB_CACHE", str(tmp_path))
    return tmp_path


def quick(method, recipe="modern", n_steps=12):
    return get_recipe(method, recipe, case="large").adapted(n_steps=n_steps, n_events=2000)


def test_the_published_settings_are_those_of_the_source():
    flow, classifier = (get_recipe(method, "sluijter", case="small") for method in METHODS)
    assert flow.model == FlowConfig.sluijter()
    assert classifier.model == ClassifierConfig.sluijter()
    for recipe, rate, validation in ((flow, 1e-5, 4000), (classifier, 3e-5, 20_000)):
        training = recipe.training
        assert (training.n_steps, training.batch_size, training.validate_every) == (30_000, 512, 50)
        assert (training.learning_rate, training.validation_size) == (rate, validation)
        assert (training.schedule, training.keep, training.average, training.weight_decay) == (
            "constant",
            "last",
            0.0,
            0.0,
        )
        assert recipe.n_events == 1_000_000
    assert get_recipe("classifier", "sluijter", case="higgs").training.n_steps == 100_000


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("method", METHODS)
def test_every_recipe_trains_a_pair_that_the_likelihood_can_use(method, recipe):
    pair = fit_pair(TOY, quick(method, recipe), seed=1, device="cpu")
    assert isinstance(pair.densities, FlowPair if method == "flow" else ClassifierPair)
    both = pair.densities.log_components(torch.randn(20, 2), torch.linspace(0.4, 1.2, 5))
    for part in both:
        assert part.shape == (20, 5)
        assert part.dtype == torch.float64
        assert bool(part.isfinite().all())
    assert set(pair.training) == {"signal", "background"}
    assert pair.seconds > 0


def test_a_finished_pair_is_taken_from_its_checkpoint(cache, monkeypatch):
    x, z = torch.randn(20, 2), torch.tensor([0.5])
    first = fit_pair(TOY, quick("classifier"), seed=1, device="cpu").densities.log_components(x, z)
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setattr(
        "sbilib.training.loop._Run.step", lambda *_: pytest.fail("a finished training must not make steps")
    )
    second = fit_pair(TOY, quick("classifier"), seed=1, device="cpu").densities.log_components(x, z)
    assert torch.equal(first.signal, second.signal)
    assert torch.equal(first.background, second.background)


def test_another_seed_or_recipe_is_another_training(cache):
    for seed, n_steps in ((1, 12), (2, 12), (1, 13)):
        fit_pair(TOY, quick("classifier", n_steps=n_steps), seed=seed, device="cpu")
    assert len(list(cache.iterdir())) == 6


def test_a_damaged_checkpoint_is_refused(cache):
    fit_pair(TOY, quick("classifier"), seed=1, device="cpu")
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="delete it to start afresh"):
        fit_pair(TOY, quick("classifier"), seed=1, device="cpu")


def test_recipes_that_contradict_themselves_are_refused():
    training = TrainConfig(n_steps=1, learning_rate=0.1)
    with pytest.raises(ParameterError, match="a flow recipe needs a FlowConfig, got ClassifierConfig"):
        Recipe("flow", "mine", ClassifierConfig(), training)
    with pytest.raises(ParameterError, match="need a classifier with nuisance_degree > 0"):
        Recipe("classifier", "mine", ClassifierConfig(), training, normalize=True)
    with pytest.raises(ParameterError, match="recipe must be one of 'sluijter', 'modern', got 'best'"):
        get_recipe("flow", "best", case="large")
