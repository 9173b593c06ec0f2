import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbilib.differentiable import AnalysisSettings, Templates
from sbilib.differentiable.shape_fit import fit_shape
from sbilib.histfactory import fixed_poi_fit

NO_FLOOR = AnalysisSettings(floor=0.0)
yields = st.floats(0.01, 100)


def bins(*values):
    return torch.tensor(values, dtype=torch.float64)


@given(st.lists(st.tuples(yields, yields, yields, yields, yields), min_size=2, max_size=4), st.floats(0, 3))
@settings(deadline=None, max_examples=60)
def test_no_value_of_the_parameter_is_more_likely(rows, mu):
    signal, background, up, down, counts = (bins(*column) for column in zip(*rows, strict=True))
    model = Templates(signal, background, up, down).model(NO_FLOOR)
    data = torch.cat([counts, bins(0.0)])
    found = fit_shape(data, signal, background, up, down, torch.tensor(mu, dtype=torch.float64))
    alphas = torch.cat([torch.linspace(-5, 5, 4001, dtype=torch.float64), found.reshape(1)])
    values = -model.logpdf(torch.stack([alphas, torch.full_like(alphas, mu)], dim=-1), data)
    assert values[-1] <= values.min() + 1e-7 * (1 + values.min().abs())


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0])
def test_it_is_the_general_fit(mu):
    templates = Templates(bins(5.0, 11.0), bins(50.0, 50.0), bins(55.0, 47.0), bins(44.0, 52.0))
    model = templates.model(NO_FLOOR)
    data = model.expected_data(bins(0.3, 0.7))
    fit = templates.conditional_fit(NO_FLOOR)
    found = fit(torch.tensor(mu, dtype=torch.float64), data)
    torch.testing.assert_close(found, fixed_poi_fit(mu, data, model).parameters, rtol=0, atol=1e-7)


def test_an_isolated_signal_next_to_a_wall():
    # One bin with hardly any background, which a small variation makes negative.
    signal, background = bins(20.0, 0.0), bins(1e-3, 100.0)
    up, down = bins(1.0, 99.0), bins(0.5, 99.5)
    data = bins(20.001, 100.0, 0.0)
    found = fit_shape(data, signal, background, up, down, bins(0.0, 1.0))
    model = Templates(signal, background, up, down).model(NO_FLOOR)
    for alpha, mu in zip(found, (0.0, 1.0), strict=True):
        grid = torch.linspace(-5, 5, 200_001, dtype=torch.float64)
        theta = torch.stack([grid, torch.full_like(grid, mu)], dim=-1)
        best = model.logpdf(theta, data).max()
        own = model.logpdf(torch.stack([alpha, bins(mu)[0]]), data)
        assert own >= best - 1e-9


def test_the_parameter_stops_at_its_bound():
    found = fit_shape(bins(500.0, 0.0), bins(1.0), bins(50.0), bins(51.0), bins(49.0), bins(0.0))
    assert found.tolist() == [5.0]


def test_other_settings_use_the_general_fit():
    templates = Templates(*(bins(5.0, 11.0),) * 4, uncertainty=bins(1.0, 1.0))
    assert templates.conditional_fit(AnalysisSettings(interpolation="0")) is None
    assert templates.conditional_fit(AnalysisSettings(statistical=True)) is None
