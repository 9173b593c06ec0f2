"""With the error of the model the interval covers, without it does not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from sbilib.errors import DataError
from sbilib.studies.amplified_coverage import strength_coverage
from sbilib.studies.amplified_templates import BinnedSample
from sbilib.studies.model_error import ShapeModes, shape_modes
from tests.studies.amplified_examples import SIGNAL, TRUTH, drawn, parts, trainings

LUMINOSITIES = (2.0, 20.0, 200.0)
N_TRAININGS, N_TRAIN, N_MODELS, N_GENERATED = 3000, 600, 20, 200_000


def measured(
    background: BinnedSample, modes: ShapeModes | None, luminosities: tuple[float, ...], beta: float = 0.0
) -> pd.DataFrame:
    generator = torch.Generator().manual_seed(3)
    return strength_coverage(
        background, TRUTH, SIGNAL, luminosities, beta=beta, modes=modes, generator=generator
    )


@pytest.fixture(scope="module")
def trained() -> tuple[BinnedSample, np.ndarray]:
    """Generated templates of many trainings, and the templates of their bootstrapped models."""
    random = np.random.default_rng(11)
    nominal, replicas = trainings(N_TRAININGS, N_TRAIN, N_MODELS, random)
    return drawn(nominal, N_GENERATED, random, "generated"), replicas


def test_the_interval_covers_with_the_error_of_the_model(trained: tuple[BinnedSample, np.ndarray]):
    """3000 independent trainings: the standard error is 0.85%, the false-alarm rate 0.5% for each number."""
    generated, replicas = trained
    table = measured(generated, shape_modes(replicas), LUMINOSITIES)
    assert table.coverage.between(0.66, 0.71).all(), table
    assert table.error.to_numpy() == pytest.approx(0.0085, rel=0.03)
    assert (table.failed == 0).all()
    assert (table.reference_share < 1e-4).all()


def test_the_mean_of_the_models_covers_too(trained: tuple[BinnedSample, np.ndarray]):
    """1000 trainings: the standard error is 1.5%, the false-alarm rate 0.3%."""
    replicas = trained[1][:1000]
    mean = drawn(replicas.mean(1), N_GENERATED, np.random.default_rng(1), "mean")
    table = measured(mean, shape_modes(replicas, of_mean=True), (20.0,))
    assert table.coverage.item() == pytest.approx(0.6827, abs=0.045)


def test_few_models_need_their_factor(trained: tuple[BinnedSample, np.ndarray]):
    """Where data do not yet constrain the modes, their size decides."""
    generated, replicas = trained
    few = replicas[:, :5]
    raw, factored = (
        measured(generated, shape_modes(few, inflate=inflate), (2.0,)).coverage.item()
        for inflate in (False, True)
    )
    assert raw < 0.65
    assert 0.66 < factored < 0.71


def test_the_interval_does_not_cover_without_it(trained: tuple[BinnedSample, np.ndarray]):
    """The more luminosity, the less: the error of the template stays and the interval shrinks."""
    table = measured(trained[0], None, LUMINOSITIES)
    assert (table.coverage < [0.45, 0.20, 0.12]).all(), table
    # The fits are not biased on average over trainings; it is the width that is wrong.
    assert (table.bias.abs() < 4 * table.spread / N_TRAININGS**0.5).all()
    assert (table.spread > 0.3).all()


def test_the_fluctuating_auxiliary_measurement_makes_the_interval_of_beta_cover():
    """A right template, beta 10%: 2000 experiments, standard error 1%, false-alarm rate 0.3% for each."""
    same = drawn(np.tile(parts(), (2000, 1)), 10_000_000, np.random.default_rng(2))
    table = measured(same, None, LUMINOSITIES, beta=0.1)
    assert (table.coverage - 0.6827).abs().max() < 0.031, table


def test_modes_of_one_training_can_serve_all(trained: tuple[BinnedSample, np.ndarray]):
    """The error of another training of the same size is nearly one's own: standard error 1.5%."""
    few = trained[1][:1000, 0]
    generated = drawn(few, N_GENERATED, np.random.default_rng(4), "generated")
    # A bootstrapped model is off by the fluctuation of its training set and by as much again.
    shared = shape_modes(trained[1][7])
    both = ShapeModes(2**0.5 * shared.shifts, shared.residual, 20, shared.explained)
    table = measured(generated, both, (20.0,))
    assert table.coverage.item() == pytest.approx(0.6827, abs=0.08)


def test_a_single_training_is_biased_and_the_error_knows_it():
    random = np.random.default_rng(5)
    few = drawn(trainings(10, N_TRAIN, 4, random)[0], N_GENERATED, random)
    generator = torch.Generator().manual_seed(1)
    table = strength_coverage(few, TRUTH, SIGNAL, [20.0], beta=0.0, generator=generator, n_repeats=50)
    binomial = (table.coverage * (1 - table.coverage) / 500) ** 0.5
    assert table.error.item() > 3 * binomial.item()
    # Some trainings cover often and most never.
    assert table.between.item() > 0.1
    with pytest.raises(DataError, match="at least two trainings"):
        strength_coverage(TRUTH, TRUTH, SIGNAL, [20.0], generator=generator)
