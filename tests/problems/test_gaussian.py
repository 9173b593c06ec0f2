import math

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from sbilib.errors import DataError, ParameterError
from sbilib.problems import GaussianToy

CASES = [GaussianToy.large_distance(), GaussianToy.small_distance()]


@pytest.mark.parametrize("toy", CASES, ids=lambda toy: toy.name)
@pytest.mark.parametrize(("component", "sign"), [("signal", 1), ("background", -1)])
def test_log_prob_is_that_of_the_bivariate_normal(toy, component, sign):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(50, 2, generator=generator, dtype=torch.float64) * 4
    z = torch.rand(50, generator=generator, dtype=torch.float64) * math.pi / 2
    expected = [
        scipy.stats.multivariate_normal(
            [sign * toy.radius * math.cos(a), sign * toy.radius * math.sin(a)]
        ).logpdf(event)
        for event, a in zip(x.tolist(), z.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        toy.log_prob(component, x, z), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


@given(radius=st.floats(0.1, 5), z=st.floats(0, math.pi / 2), x=st.floats(-8, 8), y=st.floats(-8, 8))
def test_log_components_agree_with_log_prob(radius, z, x, y):
    toy = GaussianToy(radius)
    event, nuisance = torch.tensor([[x, y]], dtype=torch.float64), torch.tensor([z], dtype=torch.float64)
    both = toy.log_components(event, nuisance)
    for component, value in zip(("signal", "background"), both, strict=True):
        torch.testing.assert_close(
            value[:, 0], toy.log_prob(component, event, nuisance), rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize("component", ["signal", "background"])
def test_samples_follow_the_density(component):
    # False-alarm rate 0.1% per Kolmogorov-Smirnov test, at a fixed seed.
    toy = GaussianToy.large_distance()
    z = torch.full((20_000,), 0.7, dtype=torch.float64)
    x = toy.sample(component, z, torch.Generator().manual_seed(5))
    mean = toy.mean(component, z[:1])[0]
    for feature in range(2):
        assert scipy.stats.kstest(x[:, feature] - mean[feature], "norm").pvalue > 1e-3


def test_the_same_seed_gives_the_same_events():
    toy, z = GaussianToy(1.0), torch.full((10,), 0.3)
    draws = [toy.sample("signal", z, torch.Generator().manual_seed(11)) for _ in range(2)]
    assert torch.equal(*draws)


def test_named_cases():
    assert [GaussianToy.from_name(name).radius for name in ("large", "small")] == [2.0, 0.5]
    with pytest.raises(ParameterError, match="'large', 'small', got 'medium'"):
        GaussianToy.from_name("medium")


@pytest.mark.parametrize("radius", [0.0, -1.0, math.nan, math.inf, True])
def test_a_bad_radius_is_named(radius):
    with pytest.raises(ParameterError, match="radius"):
        GaussianToy(radius)


@pytest.mark.parametrize("z", [-0.1, 1.6, math.nan])
def test_an_angle_outside_the_trained_range_is_refused(z):
    toy = GaussianToy(1.0)
    with pytest.raises(ParameterError, match="trained range"):
        toy.sample("signal", torch.tensor([z]), torch.Generator())
    with pytest.raises(ParameterError, match="trained range"):
        toy.log_components(torch.zeros(1, 2), torch.tensor([z]))


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (torch.zeros(0, 2), "empty"),
        (torch.zeros(3, 3), r"\(n_events, 2\), got \(3, 3\)"),
        (torch.tensor([[0.0, 0.0], [math.nan, 1.0]]), "first: event 1"),
        (torch.zeros(2, 2, dtype=torch.int64), "floating point"),
    ],
)
def test_bad_events_are_refused(events, message):
    with pytest.raises(DataError, match=message):
        GaussianToy(1.0).log_components(events, torch.tensor([0.5]))


def test_an_unknown_component_is_refused():
    with pytest.raises(ParameterError, match="component must be one of 'signal', 'background', got 'sig'"):
        GaussianToy(1.0).sample("sig", torch.tensor([0.5]), torch.Generator())
