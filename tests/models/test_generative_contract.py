"""The contract of every generative model: a normalized density, differentiable, that draws what it says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import Tensor

import sbilib.models.generative
from sbilib.errors import DataError, ParameterError
from sbilib.models import (
    AffineFlowConfig,
    GenerativeModel,
    MixtureAutoregressive,
    MixtureConfig,
    RealNVP,
    SplineFlowConfig,
    density_loss,
    load_model,
    save_model,
)
from sbilib.models.generative import DensityFlow
from sbilib.models.mixture import mixture_sample
from tests.models.generative_examples import (
    FLOWS,
    MODELS,
    Build,
    affine_config,
    events,
    mixture_config,
    perturbed,
    spline_config,
)


def autoregressive_inverse(model: GenerativeModel, noise: Tensor) -> Tensor:
    """The plain inverse of autoregressive layers: one pass of the whole network for each feature."""
    x = noise.T
    for layer, permutation in reversed(list(zip(model.layers, model.permutations, strict=True))):
        y = x[permutation.argsort()]
        x = torch.zeros_like(y)
        for _ in range(len(y)):
            x = layer.elementwise.inverse(y, layer.network(x))
    return x.T


@pytest.fixture(params=MODELS.values(), ids=MODELS.keys())
def build(request: pytest.FixtureRequest) -> Build:
    value: Build = request.param
    return value


@torch.no_grad()
def test_drawing_a_mixture_unit_by_unit_equals_a_pass_for_each_feature() -> None:
    model = perturbed(MODELS["mixture"], 7)
    assert isinstance(model, MixtureAutoregressive)
    drawn = model.sample(50, torch.Generator().manual_seed(4))
    uniform, normal = model._draw(50, torch.Generator().manual_seed(4)).T.chunk(2)
    x = torch.zeros(7, 50, dtype=torch.float64)
    for d in range(7):
        x[d] = mixture_sample(uniform[d], normal[d], model.network(x)[d], model.config.min_width)
    assert (drawn - x.T).abs().max() < 1e-9


@torch.no_grad()
def test_density_integrates_to_one_and_samples_follow_it(build: Build) -> None:
    """Counts in cells against the integral of the density; false alarm for a share 1e-4 of seeds."""
    model = perturbed(build, 2, scale=0.08)
    axis = torch.linspace(-9, 9, 361, dtype=torch.float64)  # 12 cells of 30 midpoints a side
    middle = (axis[1:] + axis[:-1]) / 2
    density = model.log_prob(torch.cartesian_prod(middle, middle)).exp() * (axis[1] - axis[0]) ** 2
    cells = density.view(12, 30, 12, 30).sum(dim=(1, 3))
    assert abs(cells.sum() - 1) < 1e-3

    n = 20_000
    x = model.sample(n, torch.Generator().manual_seed(9))
    counts = torch.histogramdd(x, bins=[12, 12], range=[-9.0, 9.0] * 2).hist
    kept = n * cells > 10
    rest = n * (1 - cells[kept].sum()), n - counts[kept].sum()
    expected = torch.cat([n * cells[kept], rest[0].view(1)])
    found = torch.cat([counts[kept], rest[1].view(1)])
    chi2 = ((found - expected).square() / expected.clamp(min=1.0)).sum()
    assert kept.sum() > 10
    assert stats.chi2.sf(float(chi2), len(found) - 1) > 1e-4


@torch.no_grad()
def test_a_new_model_is_close_to_a_standard_normal_density(build: Build) -> None:
    x = events(5, n=4000, scale=1.0).float()
    normal = -0.5 * (x.square() + math.log(2 * math.pi)).sum(dim=1)
    assert abs((build(5).log_prob(x) - normal).mean()) < 0.1


@pytest.mark.parametrize("features", [2, 5])
def test_gradient_is_finite_and_reaches_every_parameter(build: Build, features: int) -> None:
    model = build(features)
    density_loss(model, events(features).float()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_gradients_are_those_of_finite_differences(build: Build) -> None:
    model = perturbed(build, 3)
    names = list(dict(model.named_parameters()))
    x = events(3, n=3).requires_grad_()

    def log_prob(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,))

    weights = [parameter.detach().requires_grad_() for parameter in model.parameters()]
    assert torch.autograd.gradcheck(log_prob, (x, *weights), fast_mode=True)


@pytest.mark.parametrize("features", [2, 5, 6])
@pytest.mark.parametrize("name", FLOWS)
def test_log_prob_is_the_change_of_variables_of_the_jacobian(name: str, features: int) -> None:
    flow = perturbed(MODELS[name], features)
    assert isinstance(flow, DensityFlow)
    for x in events(features, n=5):
        jacobian = torch.autograd.functional.jacobian(lambda v: flow.to_noise(v[None])[0], x)
        noise = flow.to_noise(x[None])
        normal = -0.5 * (noise.square() + math.log(2 * math.pi)).sum()
        assert abs(flow.log_prob(x[None])[0] - normal - jacobian.det().abs().log()) < 1e-9


@pytest.mark.parametrize("features", [2, 5])
@pytest.mark.parametrize("name", FLOWS)
def test_inverse_undoes_the_flow(name: str, features: int) -> None:
    flow = perturbed(MODELS[name], features)
    assert isinstance(flow, DensityFlow)
    x = events(features)
    x[0, 0], x[1] = 4.0, -30.0  # at the bound of a spline, and far in its tail
    assert (flow.from_noise(flow.to_noise(x)) - x).abs().max() < 1e-6


@pytest.mark.parametrize("features", [2, 5, 6])
def test_a_pair_of_coupling_layers_transforms_every_feature(features: int) -> None:
    config = AffineFlowConfig(features=features, n_transforms=2, hidden=8)
    flow = perturbed(lambda _: RealNVP(config), features)
    assert isinstance(flow, DensityFlow)
    x = events(features)
    order = torch.arange(features)
    for permutation in flow.permutations:
        order = order[permutation]
    assert ((flow.to_noise(x) - x[:, order]).abs() > 1e-6).all()


@pytest.mark.parametrize("name", ["maf", "nsf-ar"])
def test_drawing_unit_by_unit_equals_a_pass_for_each_feature(name: str) -> None:
    flow = perturbed(MODELS[name], 7)
    noise = events(7, scale=1.0)
    with torch.no_grad():
        assert (flow.from_noise(noise) - autoregressive_inverse(flow, noise)).abs().max() < 1e-9
        flow.float()
        single = flow.from_noise(noise.float())
        assert (single - autoregressive_inverse(flow, noise.float())).abs().max() < 1e-5


def test_same_seed_same_numbers_and_the_global_state_is_left_alone(build: Build) -> None:
    before = torch.get_rng_state()
    first, second = build(4), build(4)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    draws = [first.sample(9, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_other_seeds_give_other_weights() -> None:
    a, b = (RealNVP(affine_config(4), seed=seed) for seed in (0, 1))
    assert not torch.equal(a.layers[0].network.initial_weight, b.layers[0].network.initial_weight)


def test_chunks_give_the_same_numbers(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    model = perturbed(build, 4)
    x = events(4, n=20)
    expected, drawn = model.log_prob(x).detach(), model.sample(20, torch.Generator().manual_seed(5))
    for module in ("generative", "autoregressive", "mixture"):
        monkeypatch.setattr(getattr(sbilib.models, module), "CHUNK", 7)
    with torch.no_grad():
        assert torch.allclose(model.log_prob(x), expected, rtol=1e-12)
    assert torch.allclose(model.sample(20, torch.Generator().manual_seed(5)), drawn, rtol=1e-9)


@pytest.mark.parametrize("double", [False, True])
def test_a_saved_model_comes_back(build: Build, double: bool, tmp_path: Path) -> None:
    model = perturbed(build, 3)
    if not double:
        model.float()
    save_model(tmp_path / "model.safetensors", model, {"steps": 3})
    loaded, metadata = load_model(tmp_path / "model.safetensors")
    assert type(loaded) is type(model)
    assert (loaded.config, metadata) == (model.config, {"steps": 3})
    x = events(3).to(next(model.parameters()))
    assert torch.equal(loaded.log_prob(x), model.log_prob(x))
    draws = [m.sample(5, torch.Generator().manual_seed(1)) for m in (model, loaded)]
    assert torch.equal(*draws)


def test_wrong_shapes_and_numbers_are_refused(build: Build) -> None:
    model = build(3)
    with pytest.raises(DataError, match=r"x must have shape \(n, 3\), got \(5, 2\)"):
        model.log_prob(torch.zeros(5, 2))
    with pytest.raises(DataError, match=r"x must have shape \(n, 3\), got \(3,\)"):
        model.log_prob(torch.zeros(3))
    with pytest.raises(ParameterError, match="n must be an integer of at least 1, got 0"):
        model.sample(0, torch.Generator())
    with pytest.raises(ParameterError, match="write them to a file with sample_to_parquet"):
        model.sample(10**13, torch.Generator())
    if isinstance(model, DensityFlow):
        with pytest.raises(DataError, match=r"noise must have shape \(n, 3\), got \(4, 2\)"):
            model.from_noise(torch.zeros(4, 2))


def test_compiles_as_one_graph_to_the_same_numbers() -> None:
    config = MixtureConfig(features=3, hidden=6, n_blocks=1, n_components=2)
    eager, compiled = (perturbed(lambda _: MixtureAutoregressive(config), 3) for _ in range(2))
    compiled.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    x = events(3)
    for model in (eager, compiled):
        density_loss(model, x).backward()
    assert torch.allclose(eager.log_prob(x), compiled.log_prob(x), rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(eager.parameters(), compiled.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (affine_config(3), {"features": 1}, "features must be an integer of at least 2, got 1"),
        (affine_config(3), {"hidden": 1}, "hidden must be at least features - 1 = 2"),
        (affine_config(3), {"n_blocks": -1}, "n_blocks must be an integer of at least 0"),
        (affine_config(3), {"n_transforms": 0}, "n_transforms must be an integer of at least 1"),
        (affine_config(3), {"activation": "tanh"}, "activation must be one of 'relu', 'silu', 'gelu'"),
        (spline_config(3), {"n_bins": 1}, "n_bins must be an integer of at least 2"),
        (spline_config(3), {"n_bins": 501}, "n_bins must be between 2 and 500"),
        (spline_config(3), {"tail_bound": 0.0}, "tail_bound must be a finite number"),
        (mixture_config(3), {"n_components": 0}, "n_components must be an integer of at least 1"),
        (mixture_config(3), {"min_width": 0.0}, "min_width must be a finite number"),
        (affine_config(3), {"depth": 3}, "AffineFlowConfig has no field depth"),
    ],
)
def test_impossible_configurations_are_refused(
    config: MixtureConfig | AffineFlowConfig, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        type(config).from_dict({**config.to_dict(), **changes})


def test_published_sizes() -> None:
    mixture, affine = MixtureConfig.gavranovic(), AffineFlowConfig.gavranovic()
    assert (mixture.n_blocks, mixture.hidden, mixture.n_components) == (30, 512, 32)
    assert (mixture.activation, mixture.min_width) == ("gelu", 1e-4)
    assert (affine.n_transforms, 2 * affine.n_blocks, affine.hidden) == (10, 2, 512)
    spline = SplineFlowConfig.gavranovic()
    assert (spline.n_transforms, spline.n_bins, spline.tail_bound) == (10, 32, 5.0)
