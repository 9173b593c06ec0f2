"""Ensembles are means of their members, with the properties that means have."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from sbilib.components import LogComponents
from sbilib.errors import DataError, ParameterError
from sbilib.models import ClassifierConfig, ClassifierPair, FlowConfig, FlowPair
from sbilib.models.ensemble import ENSEMBLE_KINDS, Ensemble, EvaluatedMembers, mean_density, mean_log_ratio
from sbilib.models.tabulated import TabulatedMembers
from sbilib.problems import GaussianToy

NUISANCE = torch.linspace(0.4, 1.1, 5, dtype=torch.float64)


@dataclass(frozen=True)
class Shifted:
    """The exact toy, its means moved along the first feature; a normalized density."""

    toy: GaussianToy
    shift: float

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        return self.toy.log_components(x - torch.tensor([self.shift, 0.0]).to(x), nuisance)


@dataclass(frozen=True)
class Constant:
    """Log densities of one value, of a shape of its own."""

    value: float
    shape: tuple[int, int] | None = None

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        values = torch.full(self.shape or (len(x), len(nuisance)), self.value)
        return LogComponents(values, values.clone())


def events(n: int = 50) -> Tensor:
    return 2 * torch.randn(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def flows(n: int) -> list[FlowPair]:
    config = FlowConfig(n_transforms=1, hidden=8, n_bins=3)
    return [FlowPair.from_config(config, seed=seed) for seed in range(n)]


def plane(spacing: float = 0.1, half: float = 8.0) -> tuple[Tensor, float]:
    axis = torch.arange(-half, half + spacing / 2, spacing, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), spacing**2


@pytest.mark.parametrize("kind", ENSEMBLE_KINDS)
def test_mean_of_equal_members_is_the_member(kind):
    toy = GaussianToy(0.5)
    for found, expected in zip(
        Ensemble([toy] * 5, kind=kind).log_components(events(), NUISANCE),
        toy.log_components(events(), NUISANCE),
        strict=True,
    ):
        assert torch.allclose(found, expected, rtol=1e-13)


def test_mean_density_is_the_mean_of_densities_and_the_other_the_mean_of_logarithms():
    members = flows(4)
    single = [member.log_components(events(), NUISANCE) for member in members]
    density = torch.stack([part.background.exp() for part in single]).mean(dim=0).log()
    logarithm = torch.stack([part.background for part in single]).mean(dim=0)
    found = {kind: Ensemble(members, kind=kind).log_components(events(), NUISANCE) for kind in ENSEMBLE_KINDS}
    assert torch.allclose(found["mean_density"].background, density, rtol=1e-12)
    assert torch.allclose(found["mean_log_ratio"].background, logarithm, rtol=1e-12)
    # Jensen: the logarithm of a mean is not below the mean of the logarithms.
    for a, b in zip(found["mean_density"], found["mean_log_ratio"], strict=True):
        assert bool((a >= b).all())
        assert float((a - b).max()) > 1e-3


@pytest.mark.parametrize("kind", ENSEMBLE_KINDS)
def test_order_of_members_does_not_matter(kind):
    ensemble = Ensemble(flows(4), kind=kind)
    turned = ensemble.subset([2, 0, 3, 1])
    for a, b in zip(*(e.log_components(events(), NUISANCE) for e in (ensemble, turned)), strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


def test_mean_density_of_normalized_members_is_normalized_and_the_geometric_mean_is_not():
    """For unit Gaussians whose means are a distance apart, the geometric mean integrates to exp(-d^2 / 8)."""
    distance = 1.2
    members = [Shifted(GaussianToy(0.5), 0.0), Shifted(GaussianToy(0.5), distance)]
    x, cell = plane()
    for kind, expected in (("mean_density", 1.0), ("mean_log_ratio", math.exp(-(distance**2) / 8))):
        for values in Ensemble(members, kind=kind).log_components(x, NUISANCE):
            integral = values.exp().sum(dim=0) * cell
            assert torch.allclose(integral, torch.full_like(integral, expected), atol=1e-9)


def test_missing_normalization_is_half_the_variance_between_members():
    """Second order: for small distances d the variance between two members is d^2 (x - mean)^2 / 4."""
    distance = 0.05
    members = [Shifted(GaussianToy(0.5), sign * distance / 2) for sign in (-1, 1)]
    x, cell = plane()
    each = Ensemble(members).evaluate(x, NUISANCE)
    density = each.mean("mean_density").signal.exp()
    variance = each.signal.var(dim=0, correction=0)
    missing = -(each.mean("mean_log_ratio").signal.exp().sum(dim=0) * cell).log()
    assert torch.allclose(missing, 0.5 * (density * variance).sum(dim=0) * cell, rtol=1e-3)


@pytest.mark.parametrize("kind", ENSEMBLE_KINDS)
def test_a_constant_per_event_that_all_members_share_stays_a_constant(kind):
    """So ratios to one reference may be averaged like densities."""
    values = torch.randn(2, 3, 7, 4, generator=torch.Generator().manual_seed(2)).double()
    constant = torch.randn(7, 1, generator=torch.Generator().manual_seed(3)).double()
    plain = EvaluatedMembers(*values).mean(kind)
    moved = EvaluatedMembers(*(values + constant)).mean(kind)
    for a, b in zip(plain, moved, strict=True):
        assert torch.allclose(a + constant, b, rtol=1e-12)


def test_mean_log_ratio_joins_members_with_different_constants_to_one_constant():
    values = torch.randn(2, 3, 7, 4, generator=torch.Generator().manual_seed(2)).double()
    constants = torch.randn(3, 7, 1, generator=torch.Generator().manual_seed(3)).double()
    plain, moved = (mean_log_ratio(LogComponents(*v)) for v in (values, values + constants))
    signal, background = (b - a for a, b in zip(plain, moved, strict=True))
    assert torch.allclose(signal, background, atol=1e-12)
    assert torch.allclose(signal, signal[:, :1].expand_as(signal), atol=1e-12)
    plain, moved = (mean_density(LogComponents(*v)) for v in (values, values + constants))
    apart = [b - a for a, b in zip(plain, moved, strict=True)]
    assert float((apart[0] - apart[1]).abs().max()) > 1e-2


def test_sub_ensembles_follow_from_one_evaluation():
    ensemble = Ensemble(flows(5))
    each = ensemble.evaluate(events(), NUISANCE)
    assert each.n_members == 5
    for numbers in ([0, 1], [4, 2, 3]):
        for kind in ENSEMBLE_KINDS:
            direct = Ensemble([ensemble.members[k] for k in numbers], kind=kind)
            for a, b in zip(
                each.subset(numbers).mean(kind), direct.log_components(events(), NUISANCE), strict=True
            ):
                assert torch.equal(a, b)
    assert ensemble.first(2).members == ensemble.members[:2]
    assert ensemble.first(2).kind == ensemble.kind


def test_large_differences_do_not_overflow():
    found = Ensemble([Constant(-2000.0), Constant(1000.0)]).log_components(events(3), NUISANCE).signal
    assert torch.allclose(found, torch.full_like(found, 1000.0 - math.log(2)))


def test_bad_ensembles_are_refused():
    with pytest.raises(ParameterError, match="at least one member, got none"):
        Ensemble([])
    with pytest.raises(ParameterError, match="kind must be one of"):
        Ensemble(flows(1), kind="median")
    three = FlowPair.from_config(FlowConfig(features=3, n_transforms=1, hidden=8, n_bins=3))
    with pytest.raises(ParameterError, match=r"same number of features, got members for \[2, 3\]"):
        Ensemble([*flows(1), three])
    mixed = [*flows(1), ClassifierPair.from_config(ClassifierConfig(hidden=(4,)))]
    with pytest.raises(ParameterError, match="average each kind alone"):
        Ensemble(mixed)
    assert Ensemble(mixed, kind="mean_log_ratio").n_members == 2
    for numbers in ([], [2], [-1]):
        with pytest.raises(ParameterError, match="member numbers from 0 to 1"):
            Ensemble(flows(2)).subset(numbers)
    with pytest.raises(ParameterError, match="n_members must be an integer of at least 1"):
        Ensemble(flows(2)).first(0)


def test_a_broken_member_is_named():
    good = GaussianToy(0.5)
    with pytest.raises(DataError, match=r"member 1 returns 250 signal .* NaN .*diverged.*subset"):
        Ensemble([good, Constant(math.nan)]).log_components(events(), NUISANCE)
    with pytest.raises(DataError, match=r"member 1 must return signal .* \(50, 5\), got \(50, 1\)"):
        Ensemble([good, Constant(0.0, (50, 1))]).log_components(events(), NUISANCE)
    with pytest.raises(DataError, match="stack at least one member"):
        EvaluatedMembers(torch.zeros(0, 3, 2), torch.zeros(0, 3, 2))
    with pytest.raises(DataError, match="NaN or infinite features"):
        Ensemble([good]).log_components(torch.full((3, 2), math.nan), NUISANCE)


BOX = torch.tensor([[-4.0, 4.0], [-3.0, 3.0]])


def test_tables_are_exact_for_gaussians_and_direct_outside():
    """Logarithms of Gaussians are quadratic, and a cubic reproduces them to single precision."""
    members = [GaussianToy(0.5), Shifted(GaussianToy(2.0), 0.3)]
    tables = TabulatedMembers(members, NUISANCE, box=BOX, spacing=0.7)
    x = torch.cat((events(500), torch.tensor([[-4.0, -3.0], [4.0, 3.0], [9.0, 0.0], [0.0, -30.0]]).double()))
    found, expected = tables.evaluate(x), EvaluatedMembers.evaluate(members, x, NUISANCE)
    for a, b in zip((found.signal, found.background), (expected.signal, expected.background), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-4)
    outside = (x.abs() > torch.tensor([5.0, 4.0])).any(dim=1)
    assert torch.equal(found.signal[:, outside], expected.signal[:, outside])
    assert int(outside.sum()) >= 2


def test_error_of_tables_falls_with_the_fourth_power_of_the_spacing():
    pair = ClassifierPair.from_config(ClassifierConfig(hidden=(16,), activation="tanh"), seed=1)
    x = events(400)
    x = x[(x.abs() < 2.5).all(dim=1)]
    # Weights of an untrained network are small; larger ones give it structure.
    for parameter in pair.parameters():
        parameter.data.mul_(3.0)
    pair.double()
    exact = pair.log_components(x, NUISANCE).signal
    errors = []
    for spacing in (0.4, 0.2):
        found = TabulatedMembers([pair], NUISANCE, box=BOX, spacing=spacing).evaluate(x).signal[0]
        errors.append(float((found - exact).square().mean().sqrt()))
    assert errors[0] < 0.05
    assert 10 < errors[0] / errors[1] < 26


def test_bad_tables_are_refused():
    toy = GaussianToy(0.5)
    with pytest.raises(ParameterError, match="spacing must be a finite number"):
        TabulatedMembers([toy], NUISANCE, box=BOX, spacing=0.0)
    with pytest.raises(DataError, match="two increasing ranges"):
        TabulatedMembers([toy], NUISANCE, box=BOX.flip(1), spacing=0.1)
    with pytest.raises(DataError, match="larger spacing"):
        TabulatedMembers([toy], NUISANCE, box=BOX, spacing=1e-4)
    with pytest.raises(DataError, match="member 0 returns"):
        TabulatedMembers([Constant(math.inf)], NUISANCE, box=BOX, spacing=0.5)
    with pytest.raises(DataError, match=r"shape \(n_events, 2\)"):
        TabulatedMembers([toy], NUISANCE, box=BOX, spacing=0.5).evaluate(torch.zeros(3, 1))
