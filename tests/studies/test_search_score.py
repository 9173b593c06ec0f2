"""The score is the exact posterior probability where that is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sbilib.errors import CheckpointError, DataError, ParameterError
from sbilib.studies.search_score import (
    SCORE_SHAPES,
    ScoreTraining,
    background_of_score,
    background_of_templates,
    train_score,
)
from tests.studies.search_examples import ToySearch

DATA = ToySearch(10_000)
CONFIG = ScoreTraining(n_steps=150, batch_size=512)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("score")


def test_the_score_has_background_of_its_own():
    """A classifier is biased on its training events, so they are neither in templates nor in generators."""
    parts = [background_of_score(DATA), background_of_templates(DATA), DATA.events("background", "train")]
    assert [len(part) for part in parts] == [1666, 8334, 10_000]
    every = {tuple(event) for part in parts for event in part.tolist()}
    assert len(every) == 20_000


def test_background_of_generators_is_scored_like_that_of_templates(folder: Path):
    """Two samples of 10,000 and 8,334 events: their shares differ by 4 standard deviations in 1 of 16,000."""
    score = train_score(DATA, ScoreTraining(n_steps=1500, batch_size=512))
    shares, variance = [], 0.0
    for events in (DATA.events("background", "train"), background_of_templates(DATA)):
        share = float((score(events.numpy()) > 0.6).mean())
        shares.append(share)
        variance += share * (1 - share) / len(events)
    assert abs(shares[0] - shares[1]) < 4 * variance**0.5


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
