import pytest
import scipy.stats
import torch
from torch.autograd import gradcheck

from sbilib.errors import ParameterError
from sbilib.problems import FallingSpectrum, one_bin_yields


def test_samples_follow_the_densities():
    # False-alarm rate 0.1% for each Kolmogorov-Smirnov test, at a fixed seed.
    spectrum = FallingSpectrum(peak=2.0, width=0.3, decay=1.5)
    events = spectrum.sample(20_000, seed=7)
    assert scipy.stats.kstest(events.signal, scipy.stats.norm(2.0, 0.3).cdf).pvalue > 1e-3
    assert scipy.stats.kstest(events.background, scipy.stats.expon(scale=1.5).cdf).pvalue > 1e-3


def test_exact_yields_are_the_survival_functions():
    spectrum = FallingSpectrum()
    cut = torch.tensor([-1.0, 0.0, 0.5, 1.7, 3.0], dtype=torch.float64, requires_grad=True)
    signal, background = spectrum.yields_above(cut)
    x = cut.detach().numpy()
    expected_signal = torch.from_numpy(50 * scipy.stats.norm(2.0, 0.3).sf(x))
    expected_background = torch.from_numpy(1000 * scipy.stats.expon().sf(x))
    torch.testing.assert_close(signal.detach(), expected_signal)
    torch.testing.assert_close(background.detach(), expected_background)
    inside = cut.detach()[2:].clone().requires_grad_()
    assert gradcheck(spectrum.yields_above, [inside])


def test_the_best_cut_lies_below_the_peak():
    cut = torch.linspace(0, 3, 3001)
    signal, background = FallingSpectrum().yields_above(cut)
    significance = ((signal + background) * torch.log1p(signal / background) - signal).mul(2).sqrt()
    assert cut[significance.argmax()].item() == pytest.approx(1.56, abs=0.01)
    assert significance.max() > 1.9 * significance[0]


def test_one_bin_yields_are_those_published():
    yields = one_bin_yields(torch.tensor([0.0, 4.0, 9.0]))
    assert yields.signal.tolist() == [15.0, 19.0, 24.0]
    assert yields.background.tolist() == [45.0, 37.0, 27.0]
    torch.testing.assert_close(yields.background_uncertainty, torch.tensor([0.5, 2.1, 8.6]).double())


def test_bad_input_is_refused():
    with pytest.raises(ParameterError, match="width"):
        FallingSpectrum(width=0.0)
    with pytest.raises(ParameterError, match="n must be"):
        FallingSpectrum().sample(0, seed=1)
    for phi in (-15.1, 23.0, float("nan")):
        with pytest.raises(ParameterError, match="phi must lie"):
            one_bin_yields(torch.tensor(phi))
