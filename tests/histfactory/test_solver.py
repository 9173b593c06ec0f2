"""The bounded Newton solver: exact minima, active bounds, indefinite Hessians, failures as data."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear
from torch import Tensor

from sbilib.errors import ParameterError
from sbilib.histfactory.solver import SolverSettings, minimize


def _quadratic(matrix: Tensor, vector: Tensor):
    def derivatives(x: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        a, b = (matrix, vector) if rows is None else (matrix[rows], vector[rows])
        slope = (a @ x.unsqueeze(-1)).squeeze(-1) - b
        return 0.5 * (x * (slope - b)).sum(-1), slope, a

    return derivatives


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 6))
def test_bounded_quadratics_equal_scipy(seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(7, size + 2, size, generator=generator).double()
    target = 3 * torch.randn(7, size + 2, generator=generator).double()
    matrix, vector = root.mT @ root, (root.mT @ target.unsqueeze(-1)).squeeze(-1)
    bounds = torch.tensor([[-0.5, 0.7]]).double().repeat(size, 1)
    found = minimize(_quadratic(matrix, vector), torch.zeros(7, size).double(), bounds)
    assert found.converged.all()
    for i in range(7):
        oracle = lsq_linear(root[i].numpy(), target[i].numpy(), bounds=(-0.5, 0.7), tol=1e-14)
        residual = root[i] @ found.position[i] - target[i]
        assert 0.5 * float(residual.square().sum()) == pytest.approx(oracle.cost, rel=1e-7, abs=1e-9)
    outside = ((found.position == -0.5) & (found.gradient > 1e-6)) | (
        (found.position == 0.7) & (found.gradient < -1e-6)
    )
    assert (found.at_bound | ~outside).all()


def _rosenbrock(x: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    a, b = x.unbind(-1)
    value = (1 - a) ** 2 + 100 * (b - a**2) ** 2
    slope = torch.stack([-2 * (1 - a) - 400 * a * (b - a**2), 200 * (b - a**2)], -1)
    mixed = -400 * a
    top = torch.stack([2 - 400 * b + 1200 * a**2, mixed], -1)
    return value, slope, torch.stack([top, torch.stack([mixed, torch.full_like(a, 200.0)], -1)], -2)


def test_rosenbrock_from_indefinite_starts() -> None:
    start = torch.tensor([[-1.2, 1.0], [0.0, 1.0], [2.0, 5.0], [1.0, 1.0]]).double()
    assert (torch.linalg.eigvalsh(_rosenbrock(start, None)[2])[1] < 0).any()
    bounds = torch.tensor([[-5.0, 5.0], [-5.0, 6.0]]).double()
    found = minimize(_rosenbrock, start, bounds)
    assert found.converged.all()
    assert torch.allclose(found.position, torch.ones(4, 2).double(), atol=1e-6)
    assert found.n_iterations[3] == 1


def test_a_bounded_rosenbrock_ends_on_the_bound() -> None:
    bounds = torch.tensor([[-5.0, 0.5], [-5.0, 6.0]]).double()
    found = minimize(_rosenbrock, torch.tensor([[-1.0, 1.0]]).double(), bounds)
    assert found.converged.all()
    assert torch.allclose(found.position, torch.tensor([[0.5, 0.25]]).double(), atol=1e-6)
    assert found.at_bound.tolist() == [[True, False]]


def test_fixed_parameters_stay_even_outside_their_bounds() -> None:
    start = torch.tensor([[7.0, 0.0], [7.0, 0.0]]).double()
    fixed = torch.tensor([[True, False], [False, True]])
    bounds = torch.tensor([[-5.0, 5.0], [-100.0, 100.0]]).double()
    found = minimize(_rosenbrock, start, bounds, fixed=fixed)
    assert torch.allclose(found.position[0], torch.tensor([7.0, 49.0]).double())
    assert found.position[1, 1] == 0
    assert found.position[1, 0].abs() < 1


def test_failures_are_flagged_and_leave_the_others_alone() -> None:
    def derivatives(x: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        value, slope, hessian = _rosenbrock(x, rows)
        members = torch.arange(3) if rows is None else rows
        broken = (members == 1)[:, None]
        return (
            value,
            torch.where(broken, torch.nan, slope),
            torch.where(broken[..., None], torch.nan, hessian),
        )

    start = torch.tensor([[-1.0, 1.0]] * 3).double()
    found = minimize(derivatives, start, torch.tensor([[-5.0, 5.0]] * 2).double())
    assert found.converged.tolist() == [True, False, True]
    assert found.position.isfinite().all()
    few = minimize(
        _rosenbrock,
        start,
        torch.tensor([[-5.0, 5.0]] * 2).double(),
        settings=SolverSettings(max_iterations=2),
    )
    assert not few.converged.any()
    assert (few.value <= _rosenbrock(start, None)[0]).all()


def test_finished_members_are_dropped() -> None:
    asked: list[int] = []

    def derivatives(x: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        asked.append(len(x))
        return _rosenbrock(x, rows)

    start = torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.2, 1.0]]).double()
    minimize(derivatives, start, torch.tensor([[-5.0, 5.0]] * 2).double())
    assert asked[0] == 3
    assert set(asked[1:]) == {1}


@pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"max_iterations": 0}])
def test_bad_settings_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ParameterError):
        SolverSettings(**options)  # type: ignore[arg-type]
