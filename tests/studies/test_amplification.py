"""The amplification factor is the exact one where theory knows it, and its error is honest."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from sbilib.errors import DataError, ParameterError
from sbilib.studies.amplification import (
    Amplification,
    amplification,
    smallest_training,
    template_distance,
)
from sbilib.studies.amplified_templates import BinnedSample, Binning

# Ten bins that hold everything; each has at least 2% of the events.
BINNING = Binning("x", (-9.0, *np.linspace(-2, 2, 9).tolist(), 9.0))
N_TRAIN = 5000
N_BINS = BINNING.n_bins


def parts(mean: object = 0.0, width: object = 1.0) -> np.ndarray:
    mean, width = np.asarray(mean)[..., None], np.asarray(width)[..., None]
    return np.diff(norm.cdf((np.asarray(BINNING.edges) - mean) / width), axis=-1)


def histogram(
    fractions: np.ndarray, n_events: float, random: np.random.Generator | None = None
) -> BinnedSample:
    """Of drawn events, or without a generator what is expected."""
    counts = fractions * n_events
    if random is not None:
        rest = np.clip(1 - fractions.sum(-1, keepdims=True), 0, 1)
        counts = random.multinomial(int(n_events), np.concatenate([fractions, rest], -1))[..., :-1] * 1.0
    return BinnedSample(BINNING, counts, counts, np.full(fractions.shape[:-1], n_events))


def fits(n_trainings: int, random: np.random.Generator, n_train: int = N_TRAIN) -> np.ndarray:
    """Templates of normal distributions fitted to samples, by their sufficient statistics."""
    mean = random.normal(size=n_trainings) / n_train**0.5
    width = np.sqrt(random.chisquare(n_train - 1, n_trainings) / n_train)
    return parts(mean, width)


def exact_factor() -> float:
    """(b - 1) over the trace of binned information times inverse unbinned information."""
    step = 1e-5
    by_mean = (parts(step) - parts(-step)) / (2 * step)
    by_width = (parts(0.0, 1 + step) - parts(0.0, 1 - step)) / (2 * step)
    spent = (by_mean**2 / parts()).sum() / 1.0 + (by_width**2 / parts()).sum() / 2.0
    return float((N_BINS - 1) / spent)


def test_a_fit_of_two_parameters_amplifies_by_bins_over_parameters():
    """2000 trainings: the distance, half a chi2 of two degrees of freedom, has a relative error of 2.2%."""
    random = np.random.default_rng(1)
    found = amplification(histogram(fits(2000, random), 1e9), histogram(parts(), 1e9), N_TRAIN)
    assert exact_factor() == pytest.approx((N_BINS - 1) / 2, rel=0.1)
    assert found.factor == pytest.approx(exact_factor(), rel=0.09)
    low, high = found.interval
    assert low < found.factor < high
    assert (high - low) / 2 / found.factor == pytest.approx(0.022, rel=0.1)


@pytest.mark.parametrize("distance", ["chi2", "squared"])
@pytest.mark.parametrize("shape_only", [False, True])
def test_true_events_are_worth_themselves(distance: str, shape_only: bool):
    """A region with 31% of the events, a reference of only twice the events: within 4 sigma."""
    upper = Binning("x", BINNING.edges[6:])
    random = np.random.default_rng(2)

    def region(sample: BinnedSample) -> BinnedSample:
        return BinnedSample(upper, sample.counts[..., 6:], sample.squares[..., 6:], sample.totals)

    inverse = []
    for _ in range(30):
        simulated = region(histogram(np.tile(parts(), (40, 1)), N_TRAIN, random))
        reference = region(histogram(parts(), 2 * N_TRAIN, random))
        measured = template_distance(simulated, reference, distance=distance, shape_only=shape_only)
        # The inverse of G, which unlike G is unbiased.
        inverse.append(measured.value / measured.one_event * N_TRAIN)
    error = np.std(inverse, ddof=1) / 30**0.5
    assert error < 0.12
    assert np.mean(inverse) == pytest.approx(1.0, abs=4 * error)


def test_the_error_of_the_distance_is_its_spread():
    """Pulls of 400 measurements, each with its own reference: a standard deviation of one within 15%."""
    random = np.random.default_rng(3)
    pulls = []
    exact = template_distance(histogram(fits(200_000, random), 1e9), histogram(parts(), 1e12)).value
    for _ in range(400):
        generated = histogram(fits(30, random), 1e9)
        measured = template_distance(generated, histogram(parts(), 3 * N_TRAIN, random))
        pulls.append((measured.value - exact) / measured.error)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.2)


def test_the_noise_of_generated_events_can_be_taken_off():
    random = np.random.default_rng(4)
    fractions, reference = fits(1000, random), histogram(parts(), 1e9)
    few, many = histogram(fractions, 20_000, random), histogram(fractions, 1e9)
    limit = template_distance(many, reference)
    noisy = template_distance(few, reference)
    cleaned = template_distance(few, reference, subtract_sampling=True)
    assert noisy.value == pytest.approx(limit.value + (N_BINS - 1) / 20_000, rel=0.1)
    assert cleaned.value == pytest.approx(limit.value, rel=0.15)


def test_a_biased_model_is_worth_a_fixed_number_of_events():
    biased = parts(0.05)
    distance = ((biased - parts()) ** 2 / parts()).sum()
    found = amplification(histogram(biased, 1e9), histogram(parts(), 1e12), 1e6)
    assert found.n_equivalent == pytest.approx((N_BINS - 1) / distance, rel=1e-3)
    assert found.factor < 0.01


def test_no_measurable_distance_is_an_infinite_number_with_a_lower_bound():
    random = np.random.default_rng(6)
    found = amplification(histogram(parts(), 1e9), histogram(parts(), 1000, random), 500)
    assert found.high == np.inf
    assert 300 < found.low < 10_000


def test_the_smallest_training_is_interpolated_in_logarithms():
    def result(n_train: float, factor: float) -> Amplification:
        return Amplification(factor * n_train, 0.5 * factor * n_train, 2 * factor * n_train, n_train)

    found = smallest_training([result(1e3, 0.1), result(1e4, 1.0), result(1e5, 10.0)])
    assert found.n_train == pytest.approx(1e4)
    assert (found.low, found.high) == pytest.approx((5e3, 2e4))
    assert not found.at_edge
    assert smallest_training([result(1e3, 2.0), result(1e4, 3.0)]).at_edge
    assert smallest_training([result(1e3, 0.5), result(1e4, 0.9)]).n_train == np.inf
    budget = smallest_training([result(1e3, 1.0), result(1e5, 1.0)], n_simulated=1e4)
    assert budget.n_train == pytest.approx(1e4)
    with pytest.raises(ParameterError, match="increasing size"):
        smallest_training([result(1e4, 1.0), result(1e3, 1.0)])


def test_bad_input_is_named():
    sample = histogram(parts(), 1e4)
    other = BinnedSample(Binning("x", (0.0, 1.0)), *np.ones((2, 1)), 10.0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="same binning"):
        template_distance(sample, other)
    with pytest.raises(ParameterError, match="distance"):
        template_distance(sample, sample, distance="kl")
    counts = np.array([0.0, *np.ones(9)])
    with pytest.raises(DataError, match="no event in bin 0"):
        template_distance(sample, BinnedSample(BINNING, counts, counts, 10.0))  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="n_train"):
        amplification(sample, sample, 0)
