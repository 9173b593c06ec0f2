"""Scalings of features and the pairs behind them, against automatic differentiation and exact densities."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbilib.errors import DataError, ParameterError
from sbilib.models import Ensemble, load_model, save_model
from sbilib.models.classifier import ClassifierConfig, ClassifierPair
from sbilib.models.flow import FlowConfig
from sbilib.models.pair import FlowPair
from sbilib.models.scaling import FeatureScaling, ScaledPair, ScalingConfig

MISSING = -25.0


def _events(n: int = 400) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return torch.stack((40 * noise[:, 0].exp(), noise[:, 1].exp(), noise[:, 2], noise[:, 3]), dim=1)


def _scaling() -> FeatureScaling:
    return FeatureScaling(ScalingConfig(("log", "log1p", "asinh", "identity"))).fit(_events())


def test_training_events_have_mean_zero_and_width_one() -> None:
    y = _scaling()(_events())
    assert torch.allclose(y.mean(dim=0), torch.zeros(4).double(), atol=1e-5)
    assert torch.allclose(y.std(dim=0, correction=0), torch.ones(4).double(), atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.01, 1000.0), min_size=4, max_size=4))
def test_inverse_and_jacobian_agree_with_the_map(values: list[float]) -> None:
    scaling = _scaling()
    x = torch.tensor([values], dtype=torch.float64)
    assert torch.allclose(scaling.inverse(scaling(x)), x, rtol=1e-6)
    jacobian = torch.func.jacrev(lambda row: scaling(row.unsqueeze(0))[0])(x[0])
    assert scaling.log_det(x).item() == pytest.approx(torch.linalg.slogdet(jacobian).logabsdet.item())


def test_absent_quantities_become_the_mean_and_an_indicator() -> None:
    x = _events()
    gone = torch.arange(len(x)) % 3 == 0
    x[gone, 0] = x[gone, 1] = MISSING
    config = ScalingConfig(("log", "log1p", "identity", "identity"), missing=MISSING, indicators=((0, 1),))
    scaling = FeatureScaling(config).fit(x)
    y = scaling(x)
    assert y.shape[1] == config.n_coordinates == 5
    assert torch.equal(y[:, 4] == 1, gone)
    assert bool((y[gone, :2] == 0).all())
    # Means and widths are those of the quantities that are there.
    assert abs(float(y[~gone, 0].mean())) < 1e-5
    assert torch.allclose(scaling.inverse(y), x, rtol=1e-5, atol=1e-5)


def test_relative_azimuths_do_not_see_a_common_rotation() -> None:
    generator = torch.Generator().manual_seed(2)
    phi = (torch.rand(300, 3, generator=generator, dtype=torch.float64) * 2 - 1) * math.pi
    scaling = FeatureScaling(ScalingConfig(("identity",) * 3, azimuths=(0, 1, 2))).fit(phi)
    turned = torch.remainder(phi + 1.3 + math.pi, 2 * math.pi) - math.pi
    assert torch.allclose(scaling(phi)[:, 1:], scaling(turned)[:, 1:], atol=1e-9)
    assert torch.allclose(scaling.inverse(scaling(phi)), phi, atol=1e-5)


def test_a_scaled_flow_is_a_density_of_the_physical_features() -> None:
    scaling = FeatureScaling(ScalingConfig(("log",), nuisance_center=1.0, nuisance_width=0.2))
    scaling.fit(40 * torch.randn(500, 1, generator=torch.Generator().manual_seed(3)).exp())
    pair = ScaledPair(FlowPair.from_config(FlowConfig(features=1), seed=1), scaling)
    x = torch.logspace(-3, 6, 4001, dtype=torch.float64).unsqueeze(1)
    density = pair.log_components(x, torch.tensor([0.9, 1.1])).signal.exp()
    assert torch.trapezoid(density, x[:, 0], dim=0).tolist() == pytest.approx([1.0, 1.0], abs=1e-3)


def test_a_scaled_classifier_keeps_its_log_ratios() -> None:
    scaling = FeatureScaling(ScalingConfig(("log", "log"), nuisance_center=1.0, nuisance_width=0.2))
    inner = ClassifierPair.from_config(ClassifierConfig.sluijter(), seed=1)
    x = _events()[:, :2]
    found = ScaledPair(inner, scaling).log_components(x, torch.tensor([0.8, 1.2]))
    expected = inner.log_components(x.log(), torch.tensor([-1.0, 1.0]))
    assert torch.allclose(found.signal, expected.signal, atol=1e-5)
    assert torch.allclose(found.background, expected.background, atol=1e-5)


@pytest.mark.parametrize("method", ["flow", "classifier"])
def test_a_file_gives_the_same_pair_back(method: str, tmp_path) -> None:
    scaling = FeatureScaling(ScalingConfig(("log", "log1p"), nuisance_center=1.0)).fit(_events()[:, :2])
    inner: FlowPair | ClassifierPair
    if method == "flow":
        inner = FlowPair.from_config(FlowConfig.modern(), seed=1)
    else:
        inner = ClassifierPair.from_config(ClassifierConfig.modern(), seed=1)
    pair = ScaledPair(inner, scaling)
    save_model(tmp_path / "pair.safetensors", pair)
    back = load_model(tmp_path / "pair.safetensors").model
    assert isinstance(back, ScaledPair)
    assert back.config == pair.config
    x, z = _events()[:20, :2], torch.linspace(0.9, 1.1, 3)
    assert torch.equal(back.log_components(x, z).signal, pair.log_components(x, z).signal)


def test_flows_and_classifiers_do_not_mix_in_a_mean_density() -> None:
    scaling = FeatureScaling(ScalingConfig(("log", "log")))
    flow = ScaledPair(FlowPair.from_config(FlowConfig.modern()), scaling)
    classifier = ScaledPair(ClassifierPair.from_config(ClassifierConfig.sluijter()), scaling)
    with pytest.raises(ParameterError, match="same constant per event"):
        Ensemble([flow, classifier])


def test_bad_input_is_named() -> None:
    with pytest.raises(ParameterError, match="transform"):
        ScalingConfig(("square",))
    with pytest.raises(ParameterError, match="positions"):
        ScalingConfig(("log",), azimuths=(1,))
    with pytest.raises(DataError, match="the same in all"):
        FeatureScaling(ScalingConfig(("identity",))).fit(torch.ones(10, 1))
    with pytest.raises(DataError, match="event 1"):
        _scaling().checked(torch.tensor([[1.0, 1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0]]))
    scaling = FeatureScaling(ScalingConfig(("log", "log"), missing=MISSING, indicators=((0,),)))
    with pytest.raises(ParameterError, match="coordinates"):
        ScaledPair(FlowPair.from_config(FlowConfig.modern()), scaling)
    with pytest.raises(ParameterError, match="always there"):
        ScaledPair(FlowPair.from_config(FlowConfig(features=3)), scaling)
