"""Training sets and trainings of the generative models of the search."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sbilib.errors import DataError
from sbilib.models import MixtureConfig
from sbilib.simulation.bsm_schema import BSM_CONTINUOUS
from sbilib.studies.bsm_bounds import event_bounds
from sbilib.studies.generative_measures import impossible_events
from sbilib.studies.search_models import (
    GENERATOR_RECIPES,
    bootstrapped,
    train_generator,
    training_events,
)
from tests.studies.search_examples import ToySearch

SAMPLE = torch.arange(1000.0)[:, None]


def test_first_training_sets_are_disjoint_and_later_ones_share_their_part():
    sets = [set(training_events(SAMPLE, 300, number, seed=1)[:, 0].tolist()) for number in range(6)]
    assert all(len(each) == 300 for each in sets)
    for shuffle in (sets[:3], sets[3:]):
        assert len(set.union(*shuffle)) == 900
    shared = np.mean([len(a & b) for a in sets[:3] for b in sets[3:]])
    # Sets of different shuffles share 90 events on average, and nine pairs scatter by about 2.
    assert abs(shared - 90) < 12


def test_a_training_set_depends_on_its_seed_alone():
    one, again, other = (training_events(SAMPLE, 300, 4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    with pytest.raises(DataError, match=r"1001 events.*simulate more"):
        training_events(SAMPLE, 1001, 0, seed=1)


def test_a_bootstrap_never_trains_on_a_held_out_event():
    drawn = bootstrapped(SAMPLE, seed=3)[:, 0]
    assert len(drawn) == 1000
    assert drawn[:900].max() < 900
    assert drawn[900:].min() >= 900
    # A bootstrap of many events holds a part 1 - 1/e of them: 63.2%, with a standard deviation of 1%.
    assert len(set(drawn[:900].tolist())) / 900 == pytest.approx(0.632, abs=0.05)


def test_the_published_recipe_is_the_published_model():
    recipe = GENERATOR_RECIPES["published"]
    assert recipe.config(18) == MixtureConfig.gavranovic()
    assert recipe.preprocessing == "quantile"
    assert (recipe.training.batch_size, recipe.training.learning_rate) == (1024, 3e-4)


def test_a_training_passes_through_its_events_as_often_as_asked():
    events = ToySearch(1000).events("background", "train")
    record = train_generator(events, GENERATOR_RECIPES["small"], n_epochs=3, seed=1).training
    assert len(record.training_loss) == round(3 * 900 / 256)


@pytest.mark.parametrize("name", ["small", "realnvp"])
def test_a_training_learns_features_in_their_bounds(name: str):
    events = ToySearch(1000).events("background", "train")
    trained = train_generator(events, GENERATOR_RECIPES[name], n_epochs=3, seed=1)
    # Coordinates are independent and normal: 18 times 1.419 nats is the entropy, which no model passes.
    entropy = 18 * 0.5 * (1 + np.log(2 * np.pi))
    assert entropy - 0.8 < trained.validation_loss < entropy + 2.0
    drawn = trained.model.sample(3000, torch.Generator().manual_seed(1))
    for feature, (low, high) in event_bounds().items():
        values = drawn[:, BSM_CONTINUOUS.index(feature)]
        assert low is None or (values >= low).all()
        assert high is None or (values <= high).all()
    assert impossible_events(drawn, BSM_CONTINUOUS) == {"jets out of order": 0, "masses too small": 0}
    # The median of a lognormal feature is 60 GeV; 3000 events and as many knots know it to 1 GeV.
    assert drawn[:, BSM_CONTINUOUS.index("m_bb")].median().item() == pytest.approx(60.0, abs=4.0)


def test_too_few_events_are_refused():
    with pytest.raises(DataError, match="at least 20 events"):
        train_generator(ToySearch(12).events("background", "train"), GENERATOR_RECIPES["small"],
                        n_epochs=1, seed=1)  # fmt: skip
