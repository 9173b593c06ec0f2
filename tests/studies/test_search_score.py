"""The score is the exact posterior probability where that is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sbilib.errors import CheckpointError, DataError, ParameterError
from sbilib.studies.search_score import SCORE_SHAPES, ScoreTraining, train_score
from tests.studies.search_examples import ToySearch

DATA = ToySearch(10_000)
CONFIG = ScoreTraining(n_steps=150, batch_size=512)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("score")


def test_the_score_is_the_probability_of_signal(folder: Path):
    score = train_score(DATA, CONFIG, checkpoint=folder / "score.safetensors")
    for component in ("signal", "background"):
        events = DATA.events(component, "reference")
        found, exact = score(events.numpy()), ToySearch.exact_score(events).numpy()
        assert np.corrcoef(found, exact)[0, 1] > 0.95
        assert np.abs(found - exact).mean() < 0.08


def test_a_finished_training_is_read_and_another_is_refused(folder: Path):
    path = folder / "kept.safetensors"
    short = ScoreTraining(n_steps=4, batch_size=64)
    events = DATA.events("signal", "reference").numpy()[:50]
    first = train_score(DATA, short, checkpoint=path)(events)
    np.testing.assert_array_equal(first, train_score(DATA, short, checkpoint=path)(events))
    np.testing.assert_array_equal(first, train_score(DATA, short)(events))
    with pytest.raises(CheckpointError, match="another training"):
        train_score(ToySearch(9_000), short, checkpoint=path)


def test_events_must_be_complete(folder: Path):
    score = train_score(DATA, ScoreTraining(n_steps=2, batch_size=64))
    with pytest.raises(DataError, match="18"):
        score(np.ones((3, 17)))
    broken = DATA.events("signal", "reference")[:3].clone()
    broken[1, 4] = torch.nan
    with pytest.raises(DataError, match="NaN"):
        score(broken.numpy())


def test_the_published_classifier_has_three_layers_of_512():
    assert SCORE_SHAPES["published"].hidden == (512, 512, 512)
    with pytest.raises(ParameterError, match="shape"):
        ScoreTraining(shape="large")
