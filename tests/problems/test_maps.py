"""Nuisance maps: the rotation of the toy, a made-up map that changes volumes, and maps that are wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from sbilib.components import FramedEvents, check_framed
from sbilib.errors import DataError
from sbilib.problems import GaussianToy, Rotation, check_nuisance_map
from tests.problems.scaled import EnergyScale, ScaledProblem


def points(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(40, 2, generator=generator, dtype=torch.float64) + 0.5
    return x, 0.8 + 0.4 * torch.rand(40, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("nuisance_map", [Rotation(), EnergyScale()])
def test_log_det_is_that_of_autograd_and_the_inverse_is_one(nuisance_map):
    x, z = points()
    check_nuisance_map(nuisance_map, x, z)
    framed = nuisance_map.to_reference(x, z)
    for event in range(3):
        jacobian = torch.autograd.functional.jacobian(
            lambda one, value=z[event : event + 1]: nuisance_map.to_reference(one[None], value).events[0],
            x[event],
        )
        assert torch.linalg.slogdet(jacobian).logabsdet.item() == pytest.approx(framed.log_det[event].item())
    assert torch.allclose(nuisance_map.from_reference(framed.events, z), x)


@pytest.mark.parametrize("problem", [GaussianToy(0.5), GaussianToy(2.0), ScaledProblem()])
@pytest.mark.parametrize("component", ["signal", "background"])
def test_in_the_frame_the_exact_density_does_not_depend_on_the_nuisance_value(problem, component):
    x, z = points()
    framed = problem.nuisance_map.to_reference(x, z)
    at_reference = {
        value: problem.log_prob(
            component,
            problem.nuisance_map.from_reference(framed.events, torch.full_like(z, value)),
            torch.full_like(z, value),
        )
        + log_jacobian_of_the_inverse(problem, framed.events, value)
        for value in (0.8, 1.1)
    }
    in_frame = problem.log_prob(component, x, z) - framed.log_det
    for values in at_reference.values():
        assert torch.allclose(values, in_frame)


def log_jacobian_of_the_inverse(problem, u: Tensor, value: float) -> Tensor:
    z = torch.full((len(u),), value, dtype=u.dtype)
    x = problem.nuisance_map.from_reference(u, z)
    return -problem.nuisance_map.to_reference(x, z).log_det


def test_the_declared_symmetries_of_the_toy_hold_for_its_exact_densities():
    toy, (u, _) = GaussianToy(1.3), points()
    zero = torch.zeros(len(u), dtype=u.dtype)
    signal, background = (toy.log_prob(name, u, zero) for name in ("signal", "background"))
    (mirror,) = toy.invariances
    assert not torch.equal(mirror(u), u)
    assert torch.allclose(toy.log_prob("signal", mirror(u), zero), signal)
    assert torch.allclose(toy.log_prob("background", mirror(u), zero), background)
    assert torch.allclose(toy.log_prob("signal", toy.exchange(u), zero), background)
    assert torch.allclose(toy.log_prob("background", toy.exchange(u), zero), signal)


@dataclass(frozen=True)
class Wrong:
    """The map of an energy scale with one fault."""

    fault: str

    def to_reference(self, x: Tensor, nuisance: Tensor) -> FramedEvents:
        events, log_det = EnergyScale().to_reference(x, nuisance)
        if self.fault == "log_det":
            log_det = 0.0 * log_det
        if self.fault == "shape":
            log_det = log_det.unsqueeze(1)
        if self.fault == "nan":
            events = torch.where(nuisance.unsqueeze(1) > 1.0, torch.nan, events)
        return FramedEvents(events, log_det)

    def from_reference(self, u: Tensor, nuisance: Tensor) -> Tensor:
        shift = 0.1 if self.fault == "inverse" else 0.0
        return EnergyScale().from_reference(u, nuisance) + shift


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("log_det", "log_det is wrong for 40 of 40 events .first: event 0, expected"),
        ("shape", r"log_det of shape \(40,\), got \(40, 2\) and \(40, 1\)"),
        ("nan", "events that are NaN or infinite"),
        ("inverse", r"from_reference\(to_reference\(x\)\) is wrong"),
    ],
)
def test_a_wrong_map_is_named(fault, message):
    x, z = points()
    z = 0.25 * z + 0.75 if fault != "nan" else z
    with pytest.raises(DataError, match=message):
        check_nuisance_map(Wrong(fault), x, z)


def test_events_outside_the_domain_of_a_map_are_named():
    x = torch.tensor([[1.0, 1.0], [math.inf, 1.0]])
    with pytest.raises(DataError, match=r"1 of 2 events.*first: event 1"):
        check_framed(FramedEvents(x, torch.zeros(2)), x)
