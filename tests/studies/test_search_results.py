"""From tables to templates: amplification, error of the model and bias where they are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.studies.amplified_coverage import strength_coverage
from sbilib.studies.amplified_search import fit_strengths, search_templates
from sbilib.studies.amplified_templates import BinnedSample, Binning
from sbilib.studies.model_error import ShapeModes, shape_modes
from sbilib.studies.search_anchor import anchored_template
from sbilib.studies.search_bias import expected_bias, expected_noise
from sbilib.studies.search_results import SearchResults, ideal_simulation, in_region, with_noise_of
from tests.studies.search_examples import BACKGROUND, SIGNAL, drawn, search_table

N_TRAIN = 40_000
WHOLE = (0.0, 400.0)


@pytest.fixture(scope="module")
def results() -> SearchResults:
    return SearchResults(search_table(N_TRAIN, 60, 8, np.random.default_rng(1)))


def test_a_model_that_repeats_its_training_events_is_worth_them(results: SearchResults):
    """60 sets of 25 bins: the amplification is one with a standard error of 4%; 4 of them are allowed."""
    for observable in ("score", "m_bb"):
        (found,) = results.amplifications("small", [N_TRAIN], observable, WHOLE)
        assert found.factor == pytest.approx(1.0, abs=0.16)
        low, high = found.interval
        assert low < found.factor < high
        assert high - low == pytest.approx(0.08, abs=0.05)


def test_weights_that_do_nothing_remove_nothing(results: SearchResults):
    gain = results.gain("small", N_TRAIN, "score", WHOLE)
    assert gain.removed == pytest.approx(0.0, abs=1e-12)


def test_modes_are_the_fluctuation_of_the_training_events(results: SearchResults):
    """Variance of a bin p (1 - p) / N, from 60 x 8 bootstraps: 7% for each bin, 1.3% for their mean."""
    modes = results.modes("small", N_TRAIN, "score", n_modes=2, numbers=range(60))
    assert modes.shifts.shape == (60, 2, len(results.binnings["score"].edges) - 1)
    fractions = results.simulated("reference", "score").fractions
    variance = np.diagonal(modes.covariance, axis1=-2, axis2=-1).mean(0)
    factor = 7 / 4  # K = 8 models, 2 modes
    expected = factor * fractions * (1 - fractions) / N_TRAIN
    assert (variance / expected).mean() == pytest.approx(1.0, abs=0.10)
    single = results.modes("small", N_TRAIN, "score", n_modes=2, numbers=[3])
    np.testing.assert_allclose(single.residual, modes.residual[3])


def test_bins_are_merged_until_all_backgrounds_fill_them():
    table = search_table(500, 2, 4, np.random.default_rng(2), n_events=500)
    results = SearchResults(table, least=8.0)
    for observable in ("score", "m_bb"):
        samples = [results.trainings("small", 500, observable), results.replicas("small", 500, observable)]
        assert all((each.counts >= 8).all() for each in samples)
        assert results.binnings[observable].n_bins < 25
        whole = results.simulated("reference", observable)
        assert whole.efficiency == pytest.approx(BACKGROUND.sum())
    assert SearchResults(table, merge=False).binnings["score"].n_bins == 25


def test_missing_rows_are_named(results: SearchResults):
    with pytest.raises(DataError, match="make those units"):
        results.trainings("modern", N_TRAIN, "score")
    with pytest.raises(DataError, match=r"training sets \[60\]"):
        results.trainings("small", N_TRAIN, "score", numbers=[1, 60])
    assert results.trainings("small", N_TRAIN, "score", numbers=[1, 5]).totals.shape == (2,)
    with pytest.raises(DataError, match="unit 'score'"):
        SearchResults(results.table[results.table.kind != "signal"])
    with pytest.raises(ParameterError, match="observable"):
        results.simulated("signal", "mass")
    assert results.numbers("small", N_TRAIN) == list(range(60))
    assert results.area == 0.8


def test_the_largest_number_of_events_is_taken(results: SearchResults):
    few = results.table[results.table.kind == "generated"].copy()
    few["n_events"], few["total"] = 1000, 1000.0
    few["counts"] = few["squares"] = [[40.0] * 25 for _ in range(len(few))]
    both = SearchResults(pd.concat([few, results.table], ignore_index=True))
    np.testing.assert_array_equal(both.trainings("small", N_TRAIN, "score").totals, np.full(60, 1e8))
    assert both.generated("small", N_TRAIN, "score", number=7).totals.tolist() == [1000.0, 1e8]


def test_first_order_bias_is_that_of_the_fit(results: SearchResults):
    """Templates off by a percent in every bin: the fit agrees with first order up to a part of its error."""
    generated = results.trainings("small", N_TRAIN, "score")
    reference, signal = (results.simulated(kind, "score") for kind in ("reference", "signal"))
    luminosities = [10.0, 1000.0]
    templates = search_templates(generated, reference, signal, luminosities)
    fitted = fit_strengths(templates, luminosities, beta=0.10)
    bias = expected_bias(templates, 0.10).sum(-1).ravel().numpy()
    free = fitted.strength.to_numpy() > 0
    assert np.corrcoef(bias[free], fitted.strength[free] - 1)[0, 1] > 0.98
    assert np.abs(bias - (fitted.strength - 1))[free].max() < 0.25 * fitted.error.max()
    # The spread of the biases is the noise of the training events.
    fractions = results.simulated("reference", "score").fractions
    scale = templates.reference[0].sum().item() / fractions.sum()
    noise = scale * np.sqrt(fractions * (1 - fractions) / N_TRAIN)
    spread = expected_bias(templates, 0.10).sum(-1)[:, 0].std().item()
    expected = expected_noise(templates, 0.10, noise)[:, 0].mean().item()
    assert spread == pytest.approx(expected, rel=0.35)  # 60 trainings know it to 9%
    modes = results.modes("small", N_TRAIN, "score", n_modes=1)
    with pytest.raises(ParameterError, match="without modes"):
        expected_bias(search_templates(generated, reference, signal, [10.0], modes=modes), 0.1)


def test_regions_keep_totals_and_refuse_nothing_inside():
    sample = BinnedSample(Binning("x", (0, 1, 2, 4)), [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 10.0)
    part = in_region(sample, 1.0, 4.0)
    assert part.counts.tolist() == [2.0, 3.0]
    assert float(part.totals) == 10.0
    assert part.binning.edges == (1.0, 2.0, 4.0)
    with pytest.raises(ParameterError, match="no bin"):
        in_region(sample, 2.5, 3.5)


def test_ideal_simulation_has_no_noise_and_the_error_of_its_size():
    sample = BinnedSample(Binning("x", (0, 1, 2)), [30.0, 10.0], [30.0, 10.0], 100.0)
    made = ideal_simulation(sample, [50, 5000])
    np.testing.assert_allclose(made.fractions, [[0.3, 0.1]] * 2)
    np.testing.assert_allclose(made.errors[0] / made.errors[1], 10.0)


def test_noise_of_the_reference_lets_a_perfect_template_cover():
    """300 references of 50,000 events with a perfect template: the standard error is below 2.8%."""
    random = np.random.default_rng(7)
    signal = histogram(SIGNAL / SIGNAL.sum(), 1e9)
    found = {"alone": [], "with": []}
    for number in range(300):
        reference = histogram(drawn(BACKGROUND, 50_000, random), 50_000.0)
        made = histogram(np.stack([BACKGROUND, (1 + 1e-6) * BACKGROUND]), 1e8)
        for name, each in (("alone", made), ("with", with_noise_of(made, reference))):
            generator = torch.Generator().manual_seed(number)
            table = strength_coverage(each, reference, signal, [100.0], beta=0.0, generator=generator)
            found[name].append(table.coverage.item())
    assert np.mean(found["alone"]) < 0.45
    assert 0.60 < np.mean(found["with"]) < 0.77


def histogram(fractions: np.ndarray, n_events: float) -> BinnedSample:
    counts = fractions * n_events
    totals = np.full(fractions.shape[:-1], n_events)
    return BinnedSample(Binning("x", tuple(range(26))), counts, counts, totals)


NOTHING = ShapeModes(np.zeros((0, 25)), np.zeros(25), 8, np.array(1.0))
PLACE = np.linspace(-1, 1, 25)


def test_an_anchored_template_has_the_moments_of_its_training_events():
    random = np.random.default_rng(4)
    seen = histogram(np.stack([drawn(BACKGROUND, 10_000, random) for _ in range(400)]), 10_000)
    made = histogram(np.tile(BACKGROUND * (1.1 + 0.2 * PLACE), (400, 1)), 1e8)
    found = anchored_template(made, seen, NOTHING)
    for power in range(3):
        moments = [(each.fractions * PLACE**power).sum(-1) for each in (found.sample, seen)]
        np.testing.assert_allclose(*moments, rtol=1e-9)
    # Three numbers of 25 come from the training events, so their noise alone is that of 3 of 25.
    error = ((found.sample.fractions - BACKGROUND) ** 2 / (BACKGROUND / 10_000)).sum(-1).mean()
    assert error == pytest.approx(3 * (1 - BACKGROUND.sum()) + 2 * BACKGROUND.sum(), rel=0.20)
    with pytest.raises(DataError, match="lower the degree"):
        anchored_template(seen, seen, NOTHING, degree=24)


def test_pulls_are_standard_normal_for_a_perfect_model_and_large_for_a_wrong_one():
    """400 training sets: mean squares of standard normal numbers scatter by 7%."""
    random = np.random.default_rng(4)
    seen = histogram(np.stack([drawn(BACKGROUND, 10_000, random) for _ in range(400)]), 10_000)
    right, wrong = (
        anchored_template(histogram(np.tile(each, (400, 1)), 1e8), seen, NOTHING).pulls
        for each in (BACKGROUND, BACKGROUND * (1 + 0.2 * PLACE))
    )
    assert np.square(right).mean(0) == pytest.approx([1.0, 1.0, 1.0], rel=0.25)
    assert np.square(wrong).mean(0)[1] > 8.0


def test_of_the_modes_of_a_model_only_what_is_not_anchored_is_left():
    seen = histogram(BACKGROUND[None], 10_000)
    shifts = BACKGROUND * np.stack([1 + PLACE, PLACE**3])
    modes = ShapeModes(shifts, np.full(25, 1e-5), 8, np.array(0.9))
    found = anchored_template(seen, seen, modes).modes
    assert found.shifts.shape == (1, 5, 25)
    np.testing.assert_allclose(found.shifts[0, 3], 0.0, atol=1e-12)
    left = found.shifts[0, 4]
    assert np.abs(left).max() > 1e-4
    for power in range(3):
        assert (left * PLACE**power).sum() == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(found.residual, 1e-5)


def test_an_anchored_template_covers_a_smooth_error_that_all_models_share():
    """300 trainings: the standard error of a coverage is below 2.9%."""
    random = np.random.default_rng(5)
    fluctuation = 0.02 * random.normal(size=(300, 1))
    shared = 0.05 * (1 + PLACE)
    made = histogram(BACKGROUND * (1 + shared + fluctuation * PLACE), 1e8)
    again = fluctuation[:, None] + 0.02 * random.normal(size=(300, 8, 1))
    modes = shape_modes(BACKGROUND * (1 + shared + again * PLACE), n_modes=1)
    seen = histogram(np.stack([drawn(BACKGROUND, 10_000, random) for _ in range(300)]), 10_000)
    truth, signal = histogram(BACKGROUND, 1e9), histogram(SIGNAL / SIGNAL.sum(), 1e9)
    anchored = anchored_template(made, seen, modes)
    found = [
        strength_coverage(
            template, truth, signal, [100.0], beta=0.0, modes=each,
            generator=torch.Generator().manual_seed(1),
        ).coverage.item()
        for template, each in ((made, modes), (anchored.sample, anchored.modes))
    ]  # fmt: skip
    assert found[0] < 0.4
    assert 0.60 < found[1] < 0.77


def test_pooled_modes_are_those_of_a_single_set_with_more_models(results: SearchResults):
    """Variance of a bin p (1 - p) / N from 60 x 7 degrees of freedom: 7% for a bin, 1.4% for their mean."""
    modes = results.pooled_modes("small", N_TRAIN, "score", n_modes=2)
    fractions = results.simulated("reference", "score").fractions
    variance = np.diagonal(modes.covariance)
    expected = 479 / 476 * fractions * (1 - fractions) / N_TRAIN
    assert (variance / expected).mean() == pytest.approx(1.0, abs=0.07)
    with pytest.raises(DataError, match=r"no rows|no set"):
        results.pooled_modes("small", 123, "score", n_modes=2)
