"""The search fits what its formulas say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.studies.amplified_search import SearchSettings, fit_strengths, search_templates
from sbilib.studies.amplified_templates import BinnedSample, Binning
from sbilib.studies.model_error import ShapeModes
from tests.studies.amplified_examples import BINNING, SIGNAL, TRUTH, drawn, exact, parts

LUMINOSITIES = (10.0, 100.0, 1000.0)
WRONG = exact(parts(0.02, 1.01), "generated")


def one_bin(fraction: float, n_events: float, name: str) -> BinnedSample:
    binning = Binning("count", (0.0, 1.0))
    return BinnedSample(binning, *np.full((2, 1), fraction * n_events), n_events, name)  # type: ignore[arg-type]


def test_yields_are_those_asked_for():
    templates = search_templates(WRONG, TRUTH, SIGNAL, LUMINOSITIES)
    background = np.array([1e4, 1e5, 1e6])
    assert templates.reference.sum(-1).numpy() == pytest.approx(background)
    assert templates.signal.sum(-1).numpy() == pytest.approx(0.05 * background)
    ratio = float(WRONG.efficiency / TRUTH.efficiency)
    assert abs(ratio - 1) > 0.01
    assert templates.background.sum(-1).numpy() == pytest.approx(ratio * background)
    shape = search_templates(WRONG, TRUTH, SIGNAL, LUMINOSITIES, SearchSettings(keep_efficiency=False))
    assert shape.background.sum(-1).numpy() == pytest.approx(background)


def test_the_right_background_gives_the_right_strength():
    table = fit_strengths(search_templates(TRUTH, TRUTH, SIGNAL, LUMINOSITIES), LUMINOSITIES, strength=1.7)
    assert table.strength.to_numpy() == pytest.approx(1.7, abs=1e-7)
    assert table.converged.all()
    assert (np.diff(table.error) < 0).all()


def test_uncertainty_of_one_bin():
    r"""Exactly :math:`\sqrt{\nu + \beta^2 B^2 + \delta^2 + m^2} / S`, by the Schur complement."""
    reference, signal = one_bin(0.2, 1e9, "reference"), one_bin(0.3, 1e6, "signal")
    generated = one_bin(0.2, 50_000, "generated")
    modes = ShapeModes(np.array([[0.004]]), np.array([0.001]), 9, np.ones(()))
    for luminosity in LUMINOSITIES:
        templates = search_templates(generated, reference, signal, [luminosity], modes=modes)
        b = 1000 * luminosity
        variance = 1.05 * b + (0.1 * b) ** 2 + b**2 / 10_000 + (b * 0.02) ** 2 + (b * 0.005) ** 2
        error = fit_strengths(templates, [luminosity], beta=0.1).error.item()
        assert error == pytest.approx(variance**0.5 / (0.05 * b), rel=1e-6)


def test_a_wrong_background_biases_the_strength_by_its_excess_at_every_luminosity():
    reference, signal = one_bin(0.2, 1e9, "reference"), one_bin(0.3, 1e6, "signal")
    generated = one_bin(0.2 * 1.02, 1e9, "generated")
    templates = search_templates(generated, reference, signal, LUMINOSITIES)
    assert fit_strengths(templates, LUMINOSITIES).strength.to_numpy() == pytest.approx(
        1 - 0.02 / 0.05, rel=1e-5
    )


def test_members_of_a_batch_are_fitted_as_if_alone():
    random = np.random.default_rng(3)
    batch = drawn(np.stack([parts(), parts(0.02, 1.01)]), 20_000, random, "generated")
    table = fit_strengths(search_templates(batch, TRUTH, SIGNAL, LUMINOSITIES), LUMINOSITIES)
    assert table.member.tolist() == [0, 0, 0, 1, 1, 1]
    alone = BinnedSample(BINNING, batch.counts[1], batch.squares[1], batch.totals[1])
    single = fit_strengths(search_templates(alone, TRUTH, SIGNAL, LUMINOSITIES), LUMINOSITIES)
    assert table.strength[3:].to_numpy() == pytest.approx(single.strength.to_numpy(), rel=1e-5)
    assert table.luminosity[3:].tolist() == list(LUMINOSITIES)


def test_without_beta_there_is_no_such_parameter():
    templates = search_templates(WRONG, TRUTH, SIGNAL, LUMINOSITIES)
    assert templates.model(0.0).n_parameters == 1 + BINNING.n_bins
    assert templates.model(0.1).n_parameters == 1 + 2 * BINNING.n_bins
    with pytest.raises(ParameterError, match="beta must be zero or positive"):
        templates.model(torch.tensor([0.0, 0.1]).view(2, 1, 1))


def test_no_signal_an_empty_bin_and_other_bins_are_named():
    nothing = BinnedSample(BINNING, np.zeros(8), np.zeros(8), 100.0, "signal")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="signal: no signal is left after the selection; lower the cut"):
        search_templates(WRONG, TRUTH, nothing, LUMINOSITIES)
    few = drawn(parts(), 20, np.random.default_rng(1), "generated")
    with pytest.raises(DataError, match=r"generated: no event in bin .* merge bins"):
        search_templates(few, TRUTH, SIGNAL, LUMINOSITIES)
    with pytest.raises(DataError, match="share one binning"):
        search_templates(one_bin(0.2, 100, "generated"), TRUTH, SIGNAL, LUMINOSITIES)
    with pytest.raises(ParameterError, match="luminosities"):
        search_templates(WRONG, TRUTH, SIGNAL, [0.0])
