"""A density behind a fitted map: in physical units, normalized, inside the bounds, in one file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sbilib.errors import DataError, ParameterError
from sbilib.models import (
    AffineFlowConfig,
    FeatureTransform,
    GenerativeModel,
    LogitStandardize,
    MaskedAutoregressiveFlow,
    MixtureAutoregressive,
    MixtureConfig,
    QuantileToNormal,
    RealNVP,
    SplineAutoregressiveFlow,
    SplineCouplingFlow,
    SplineFlowConfig,
    TransformedDensity,
    load_model,
    save_model,
)

NAMES = ("pt", "eta")
BOUNDS = {"pt": (20.0, None), "eta": (-2.4, 2.4)}
AFFINE = AffineFlowConfig(features=2, n_transforms=2, hidden=8, activation="silu")
SPLINE = SplineFlowConfig(features=2, n_transforms=2, hidden=8, n_bins=4)
MIXTURE = MixtureConfig(features=2, hidden=8, n_blocks=1, n_components=4)


def events(n: int = 2000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return torch.stack([20 - 40 * uniform[:, 0].log(), 4.8 * uniform[:, 1] - 2.4], dim=1)


@pytest.fixture(params=[QuantileToNormal, LogitStandardize])
def transform(request: pytest.FixtureRequest) -> FeatureTransform:
    fitted: FeatureTransform = request.param.fit(events(), names=NAMES, bounds=BOUNDS)
    return fitted


@torch.no_grad()
def test_density_integrates_to_one_in_physical_units(transform: FeatureTransform) -> None:
    model = TransformedDensity(transform, MixtureAutoregressive(MIXTURE))
    high = transform._range()[1][0].clamp(max=900.0)
    pt = torch.linspace(0, 1, 1501, dtype=torch.float64).square() * (high - 20) + 20
    eta = torch.linspace(-2.4, 2.4, 801, dtype=torch.float64)
    middles = [(axis[1:] + axis[:-1]) / 2 for axis in (pt, eta)]
    density = model.log_prob(torch.cartesian_prod(*middles)).exp().view(1500, 800)
    integral = (density * pt.diff()[:, None] * eta.diff()).sum()
    assert abs(integral - 1) < 5e-3


@pytest.mark.parametrize("density_width", [0.0, 3.0])
def test_samples_are_inside_the_bounds_even_of_a_bad_density(
    transform: FeatureTransform, density_width: float
) -> None:
    density = MixtureAutoregressive(MIXTURE)
    with torch.no_grad():
        density.network.final_bias[-12:].add_(10 * density_width)
        density.network.final_bias[:12].add_(10 * density_width)
    x = TransformedDensity(transform, density).sample(5000, torch.Generator().manual_seed(1)).double()
    assert (x[:, 0] >= 20).all()
    assert (x[:, 1].abs() <= 2.4).all()


@pytest.mark.parametrize(
    "density",
    [
        MixtureAutoregressive(MIXTURE, seed=4),
        MaskedAutoregressiveFlow(AFFINE, seed=4),
        RealNVP(AFFINE, seed=4),
        SplineAutoregressiveFlow(SPLINE, seed=4),
        SplineCouplingFlow(SPLINE, seed=4),
    ],
    ids=lambda density: density.kind,
)
def test_one_file_holds_map_and_density(
    transform: FeatureTransform, density: GenerativeModel, tmp_path: Path
) -> None:
    model = TransformedDensity(transform, density)
    save_model(tmp_path / "model.safetensors", model, {"events": 2000})
    loaded, metadata = load_model(tmp_path / "model.safetensors")
    assert isinstance(loaded, TransformedDensity)
    assert metadata == {"events": 2000}
    assert (loaded.config, loaded.names) == (model.config, NAMES)
    x = events(50)
    assert torch.equal(loaded.log_prob(x), model.log_prob(x))
    assert next(loaded.parameters()).dtype == torch.float32
    draws = [m.sample(20, torch.Generator().manual_seed(1)) for m in (model, loaded)]
    assert torch.equal(*draws)


def test_log_prob_is_that_of_the_density_and_the_jacobian(transform: FeatureTransform) -> None:
    density = MixtureAutoregressive(MIXTURE, seed=4).double()
    x = events(20)
    u, log_det = transform(x)
    model = TransformedDensity(transform, density)
    assert torch.allclose(model.log_prob(x), density.log_prob(u) + log_det, rtol=1e-12)
    with torch.no_grad():
        assert torch.allclose(model(x), model.log_prob(x))


def test_bad_events_and_mismatched_parts_are_refused(transform: FeatureTransform) -> None:
    model = TransformedDensity(transform, MixtureAutoregressive(MIXTURE))
    with pytest.raises(DataError, match=r"event 0 has pt = 10, outside the range"):
        model.log_prob(torch.tensor([[10.0, 0.0]]))
    assert model.log_prob(torch.tensor([[10.0, 0.0]]), outside="clamp").isfinite().all()
    with pytest.raises(DataError, match=r"x must have shape \(n, 2\)"):
        model.log_prob(torch.zeros(3, 3))
    with pytest.raises(ParameterError, match="the map is for 2 features, the density for 3"):
        TransformedDensity(transform, RealNVP(AffineFlowConfig.modern(features=3)))


def test_a_density_that_draws_nan_is_named(transform: FeatureTransform) -> None:
    density = MixtureAutoregressive(MIXTURE)
    with torch.no_grad():
        density.network.final_bias.fill_(torch.nan)
    with pytest.raises(DataError, match="its training has failed"):
        TransformedDensity(transform, density).sample(5, torch.Generator())
