import math

import pytest
import scipy.stats
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.problems import (
    INFERNO_CASES,
    INFERNO_PARAMETERS,
    InfernoBenchmark,
    InfernoCase,
    sigma_of_signal,
)

BENCHMARK = InfernoBenchmark.published()
PUBLISHED = {"B0": 14.71, "B1": 15.52, "B2": 15.65, "B3": 15.62, "B4": 16.89}


@pytest.fixture(scope="module")
def information():
    return BENCHMARK.information()


@pytest.mark.parametrize("name", PUBLISHED)
def test_limits_are_those_of_table_2(name, information):
    # The published numbers are read off likelihood scans of a finite sample, hence 0.02.
    assert sigma_of_signal(information, INFERNO_CASES[name]).item() == pytest.approx(
        PUBLISHED[name], abs=0.021
    )


def test_the_signal_as_written_gives_other_limits():
    sigma = sigma_of_signal(InfernoBenchmark.as_written().information(), INFERNO_CASES["B0"])
    assert sigma.item() == pytest.approx(16.15, abs=0.01)


def test_information_agrees_with_events_and_autograd(information):
    # I = E[score score] over 200 000 events of the mixture; five standard deviations of each entry.
    n, s, b = 200_000, 50.0, 1000.0
    generator = torch.Generator().manual_seed(8)
    is_signal = torch.rand(n, generator=generator) < s / (s + b)
    noise = BENCHMARK.noise(n, generator, dtype=torch.float64)
    x = torch.where(is_signal[:, None], BENCHMARK.signal(noise), BENCHMARK.background(noise))
    point = torch.tensor([s, 0.0, 3.0, b], dtype=torch.float64)

    def log_intensity(theta):
        yields, r, rate, background = theta[:, 0], theta[:, 1], theta[:, 2], theta[:, 3]
        rows = [
            yields.log() + BENCHMARK.log_prob("signal", x),
            background.log() + _log_background(x, r, rate),
        ]
        return torch.logsumexp(torch.stack(rows), dim=0)

    theta = point.expand(n, 4).clone().requires_grad_()
    (score,) = torch.autograd.grad(log_intensity(theta).sum(), theta)
    products = score[:, :, None] * score[:, None, :] * (s + b)
    error = products.std(0) / math.sqrt(n)
    assert ((products.mean(0) - information).abs() < 5 * error).all()


def _log_background(x, r, rate):
    plane = -0.5 * ((x[:, 0] - 2 - r) ** 2 / 5 + x[:, 1] ** 2 / 9) - math.log(2 * math.pi * math.sqrt(45))
    return plane + rate.log() - rate * x[:, 2]


def test_densities_are_those_of_scipy():
    noise = BENCHMARK.noise(50, torch.Generator().manual_seed(1), dtype=torch.float64)
    x = BENCHMARK.background(noise, r=0.3, rate=2.5)
    plane = scipy.stats.multivariate_normal([2.3, 0.0], [[5.0, 0.0], [0.0, 9.0]]).logpdf(x[:, :2].numpy())
    expected = torch.from_numpy(plane + scipy.stats.expon(scale=1 / 2.5).logpdf(x[:, 2].numpy()))
    torch.testing.assert_close(BENCHMARK.log_prob("background", x, r=0.3, rate=2.5), expected)
    other = InfernoBenchmark.as_written()
    plane = scipy.stats.multivariate_normal([1.0, 1.0]).logpdf(x[:, :2].numpy())
    expected = torch.from_numpy(plane + scipy.stats.expon(scale=0.5).logpdf(x[:, 2].numpy()))
    torch.testing.assert_close(other.log_prob("signal", x), expected)
    below = torch.tensor([[0.0, 0.0, -0.1]])
    assert BENCHMARK.log_prob("signal", below).item() == -math.inf


def test_events_follow_the_densities():
    # False-alarm rate 0.1% for each Kolmogorov-Smirnov test, at a fixed seed.
    noise = BENCHMARK.noise(20_000, torch.Generator().manual_seed(2), dtype=torch.float64)
    x = BENCHMARK.background(noise, r=-0.4, rate=4.0)
    laws = (scipy.stats.norm(1.6, math.sqrt(5)), scipy.stats.norm(0, 3), scipy.stats.expon(scale=0.25))
    for feature, law in enumerate(laws):
        assert scipy.stats.kstest(x[:, feature], law.cdf).pvalue > 1e-3


def test_derivatives_flow_through_the_events():
    noise = BENCHMARK.noise(7, torch.Generator().manual_seed(3), dtype=torch.float64)
    point = (torch.tensor(0.0).double(), torch.tensor(3.0).double())
    slopes = torch.autograd.functional.jacobian(
        lambda r, rate: BENCHMARK.background(noise, r=r, rate=rate), point
    )
    torch.testing.assert_close(slopes[0], torch.tensor([1.0, 0.0, 0.0]).double().expand(7, 3))
    torch.testing.assert_close(slopes[1][:, 2], -noise.exponential / 9)
    assert (slopes[1][:, :2] == 0).all()


def test_the_score_is_the_derivative_of_the_log_density():
    x = BENCHMARK.background(BENCHMARK.noise(20, torch.Generator().manual_seed(3), dtype=torch.float64))
    point = (torch.tensor(0.0).double(), torch.tensor(3.0).double())
    slopes = torch.autograd.functional.jacobian(
        lambda r, rate: BENCHMARK.log_prob("background", x, r=r, rate=rate), point
    )
    torch.testing.assert_close(BENCHMARK.background_score(x), torch.stack(slopes))


def test_cases_have_their_constraints():
    free = [INFERNO_CASES[name].free for name in ("B0", "B1", "B2", "B3", "B4")]
    assert free == [("s",), ("s", "r"), ("s", "r", "lambda"), ("s", "r", "lambda"), INFERNO_PARAMETERS]
    precision = INFERNO_CASES["B4"].prior_precision()
    torch.testing.assert_close(precision, torch.tensor([0.0, 1 / 0.16, 1.0, 1e-4]).double())


def test_bad_input_is_refused():
    with pytest.raises(ParameterError, match="must be 's'"):
        InfernoCase("bad", ("r", "s"))
    with pytest.raises(ParameterError, match="free parameter"):
        InfernoCase("bad", ("s", "q"))
    with pytest.raises(ParameterError, match="constrained parameter"):
        InfernoCase("bad", ("s",), (("r", 1.0),))
    with pytest.raises(ParameterError, match="constraint of r"):
        InfernoCase("bad", ("s", "r"), (("r", 0.0),))
    with pytest.raises(ParameterError, match="signal_yield"):
        InfernoBenchmark(signal_yield=0.0)
    noise = BENCHMARK.noise(2, torch.Generator().manual_seed(3))
    with pytest.raises(ParameterError, match="rate must be positive"):
        BENCHMARK.background(noise, rate=-1.0)
    with pytest.raises(ParameterError, match="component"):
        BENCHMARK.log_prob("noise", torch.zeros(1, 3))
    with pytest.raises(DataError, match="3 features"):
        BENCHMARK.log_prob("signal", torch.zeros(1, 2))
