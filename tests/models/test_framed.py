"""Densities of the reference frame as component densities."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sbilib.components import FramedEvents
from sbilib.errors import DataError, ParameterError
from sbilib.models import Classifier, ClassifierConfig, ConditionalFlow, FlowConfig, FramedPair, framed
from sbilib.models.framed import (
    FlowDensity,
    MeanDensity,
    MovedDensity,
    NormalDensity,
    RatioDensity,
    Whitening,
)
from sbilib.problems import GaussianToy, Rotation
from tests.problems.scaled import EnergyScale, ScaledProblem

FLOW = FlowConfig(n_transforms=1, hidden=8, n_blocks=1, n_bins=3, ordering="alternating")
CLASSIFIER = ClassifierConfig(hidden=(8,), activation="silu")
CELL = 0.1


def rows(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whitening() -> Whitening:
    factor = torch.tensor([[0.9, 0.0], [0.3, 1.2]], dtype=torch.float64)
    return Whitening(torch.tensor([0.5, -0.2], dtype=torch.float64), factor)


def density(method: str, seed: int) -> nn.Module:
    if method == "flow":
        return FlowDensity(ConditionalFlow(FLOW, seed=seed), whitening()).double()
    ratio = RatioDensity(Classifier(CLASSIFIER, seed=seed), NormalDensity(whitening(), 1.2)).double()
    ratio.normalize(torch.Generator().manual_seed(1))
    return ratio


def plane() -> Tensor:
    axis = torch.arange(-9, 9, CELL, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis)


@pytest.mark.parametrize("method", ["flow", "classifier"])
def test_densities_of_the_frame_integrate_to_one(method):
    log_prob = density(method, 1).log_prob
    assert log_prob(plane()).exp().sum().item() * CELL**2 == pytest.approx(1.0, abs=3e-3)


@pytest.mark.parametrize("method", ["flow", "classifier"])
def test_a_symmetrized_mean_integrates_to_one_and_is_symmetric_exactly(method):
    (mirror,) = GaussianToy(1.0).invariances
    mean = MeanDensity.symmetrized([density(method, 1), density(method, 2)], [mirror])
    u = plane()
    assert mean.log_prob(u).exp().sum().item() * CELL**2 == pytest.approx(1.0, abs=3e-3)
    assert torch.allclose(mean.log_prob(mirror(u)), mean.log_prob(u))
    assert not torch.allclose(density(method, 1).log_prob(mirror(u)), density(method, 1).log_prob(u))


def test_the_ratio_is_the_density_over_the_known_one():
    learned, u = density("classifier", 1), rows(50)
    known = torch.distributions.MultivariateNormal(
        learned.reference.whitening.mean, scale_tril=1.2 * learned.reference.whitening.factor
    )
    v = learned.reference.whitening(u)
    logit = learned.model(v, torch.zeros(50, 1, dtype=torch.float64)) - learned.log_norm
    assert torch.allclose(learned.log_prob(u), logit + known.log_prob(u))


def exact_pair(problem) -> FramedPair:
    """The exact densities of the frame, written down independently of the problem."""

    class OfFrame(nn.Module):
        def __init__(self, component: str) -> None:
            super().__init__()
            self.component = component
            self.register_buffer("dtype", torch.zeros((), dtype=torch.float64))

        def log_prob(self, u: Tensor) -> Tensor:
            if isinstance(problem, GaussianToy):
                mean = u.new_tensor([problem.radius if self.component == "signal" else -problem.radius, 0])
                return -0.5 * (u - mean).square().sum(dim=1) - math.log(2 * math.pi)
            return problem.log_prob(self.component, u, torch.ones(len(u), dtype=u.dtype))

    return FramedPair(OfFrame("signal"), OfFrame("background"), problem.nuisance_map, n_features=2)


@pytest.mark.parametrize("problem", [GaussianToy(2.0), ScaledProblem()])
def test_exact_densities_of_the_frame_are_the_exact_densities(problem, monkeypatch):
    monkeypatch.setattr(framed, "PAIRS", 37)
    x, z = rows(30).abs() + 0.1, torch.linspace(*problem.scan_range, 5, dtype=torch.float64)
    for learned, exact in zip(
        exact_pair(problem).log_components(x, z), problem.log_components(x, z), strict=True
    ):
        assert learned.dtype == torch.float64
        assert torch.allclose(learned, exact, atol=1e-12)


@pytest.mark.parametrize("method", ["flow", "classifier"])
def test_a_framed_model_is_equivariant(method):
    pair = FramedPair(density(method, 1), density(method, 2), Rotation(), n_features=2)
    x, z, angle = rows(40), torch.linspace(0, 1, 4, dtype=torch.float64), 0.37
    turned = Rotation().from_reference(x, torch.full((40,), angle, dtype=torch.float64))
    for one, other in zip(pair.log_components(x, z), pair.log_components(turned, z + angle), strict=True):
        assert torch.allclose(one, other, atol=1e-10)
    assert not torch.allclose(
        pair.log_components(x, z).signal, pair.log_components(turned, z).signal, atol=0.01
    )


@pytest.mark.parametrize("method", ["flow", "classifier"])
def test_a_framed_model_follows_a_map_that_changes_volumes(method):
    pair = FramedPair(density(method, 1), density(method, 2), EnergyScale(), n_features=2)
    x, z = rows(40), torch.tensor([0.8, 1.1], dtype=torch.float64)
    tables = pair.log_components(x, z)
    for j, value in enumerate(z):
        u = torch.stack((x[:, 0] / value.sqrt(), x[:, 1] * value), dim=1)
        assert torch.allclose(tables.signal[:, j], pair.signal.log_prob(u) + 0.5 * value.log())


def test_a_density_of_x_integrates_to_one_at_every_nuisance_value():
    # Without the log Jacobian the integral would be the root of the scale, 0.89 and 1.10.
    pair = FramedPair(density("flow", 1), density("flow", 2), EnergyScale(), n_features=2)
    both = pair.log_components(plane(), torch.tensor([0.8, 1.2])).signal.exp().sum(dim=0) * CELL**2
    assert both.tolist() == pytest.approx([1.0, 1.0], abs=3e-3)


def test_whitened_events_have_mean_zero_and_unit_covariance():
    u = rows(500) @ torch.tensor([[2.0, 0.0], [1.0, 0.5]], dtype=torch.float64) + 3.0
    v = Whitening.of_events(u)(u)
    assert torch.allclose(v.mean(dim=0), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(torch.cov(v.T), torch.eye(2, dtype=torch.float64), atol=1e-10)


def test_a_moved_density_takes_the_value_at_the_moved_event():
    learned, u = density("flow", 1), rows(10)
    assert torch.equal(MovedDensity(learned, torch.neg).log_prob(u), learned.log_prob(-u))


class NotANumber:
    """Leaves the events, except that the last one becomes NaN."""

    def to_reference(self, x: Tensor, nuisance: Tensor) -> FramedEvents:
        return FramedEvents(torch.where(nuisance[:, None] > 0.5, torch.nan, x), torch.zeros_like(nuisance))

    def from_reference(self, u: Tensor, nuisance: Tensor) -> Tensor:
        return u


class WrongShape:
    """Forgets a feature."""

    def to_reference(self, x: Tensor, nuisance: Tensor) -> FramedEvents:
        return FramedEvents(x[:, :1], torch.zeros_like(nuisance))

    def from_reference(self, u: Tensor, nuisance: Tensor) -> Tensor:
        return u


def test_bad_input_is_refused():
    def pair(nuisance_map) -> FramedPair:
        return FramedPair(density("flow", 1), density("flow", 2), nuisance_map, n_features=2)

    x, z = rows(3), torch.tensor([0.2, 0.7])
    with pytest.raises(DataError, match=r"to_reference gave 3 of 6 events that are NaN"):
        pair(NotANumber()).log_components(x, z)
    with pytest.raises(DataError, match=r"events of shape \(6, 2\).*got \(6, 1\)"):
        pair(WrongShape()).log_components(x, z)
    with pytest.raises(DataError, match=r"shape \(n_events, 2\)"):
        pair(Rotation()).log_components(torch.zeros(3, 3), z)
    with pytest.raises(DataError, match=r"nuisance must have shape \(n_nuisance,\), got \(2, 1\)"):
        pair(Rotation()).log_components(x, z[:, None])
    with pytest.raises(DataError, match="nuisance has 1 of 2 events with NaN"):
        pair(Rotation()).log_components(x, torch.tensor([0.0, torch.nan]))
    with pytest.raises(DataError, match="do not fill the 2 dimensions"):
        Whitening.of_events(torch.ones(5, 2).double())
    with pytest.raises(ParameterError, match="at least one density"):
        MeanDensity([])
    with pytest.raises(ParameterError, match="widening"):
        NormalDensity(whitening(), 0.0)
