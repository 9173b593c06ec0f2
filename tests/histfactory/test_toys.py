"""Toys follow the likelihood and give the exact p-values of a counting experiment."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import poisson

from sbilib.errors import ParameterError
from sbilib.histfactory import Channel, Model, NormFactor, Sample, hypotest, sample_data
from tests.histfactory.fit_examples import peak, simple

N = 20_000


def test_toys_have_the_moments_of_the_likelihood() -> None:
    """Each mean and variance within 5 standard errors: false alarm below 1e-4 over all."""
    pair = peak(3)
    model = pair.model
    theta = model.initial.clone()
    toys = sample_data(theta, model, N, generator=torch.Generator().manual_seed(1))
    mean = model.expected_data(theta)
    assert toys.shape == (N, model.n_bins + model.n_auxiliary)
    variance = mean.clone()
    gaussian = toys.frac().ne(0).any(0)
    widths = {name: float(s) for name, s in zip(model.parameter_names, model.sigmas, strict=True)}
    assert int(gaussian.sum()) == sum(n.startswith(("stat", "norm")) for n in model.parameter_names)
    expected = sorted(w**2 for n, w in widths.items() if n.startswith(("stat", "norm")))
    variance[gaussian] = toys[:, gaussian].var(0)
    assert sorted(variance[gaussian].tolist()) == pytest.approx(expected, rel=5 * (2 / N) ** 0.5)
    pulls = (toys.mean(0) - mean) / (variance / N).sqrt()
    assert pulls.abs().max() < 5


@pytest.mark.parametrize("count", [40.0, 52.0])
def test_p_values_of_a_counting_experiment_are_exact(count: float) -> None:
    """With one bin q falls with the count below the tested mean: p-values are sums (5 errors each)."""
    model = Model([Channel("SR", [Sample("s", [15.0], [NormFactor("mu")]), Sample("b", [50.0])])])
    test = hypotest(
        1.0, [count], model, calculator="toys", n_toys=N, generator=torch.Generator().manual_seed(2)
    )
    signal, background = poisson.cdf(count, 65.0), poisson.cdf(count, 50.0)
    assert float(test.CLsb) == pytest.approx(signal, abs=5 * (signal / N) ** 0.5)
    assert float(test.CLb) == pytest.approx(background, abs=5 * (background / N) ** 0.5)
    assert torch.allclose(test.CLs, test.CLsb / test.CLb)
    assert (test.CLs_expected.diff() >= 0).all()


def test_toys_agree_with_the_asymptotic_formulae() -> None:
    pair = simple((51.0, 48.0))
    test = hypotest(
        1.0, pair.data, pair.model, calculator="toys", n_toys=5000, generator=torch.Generator().manual_seed(3)
    )
    formula = hypotest(1.0, pair.data, pair.model)
    assert float(test.CLs) == pytest.approx(float(formula.CLs), abs=0.02)
    assert float(test.CLb) == pytest.approx(float(formula.CLb), abs=0.04)
    assert bool(test.converged)
    assert float(test.statistic) == pytest.approx(float(formula.statistic), rel=1e-8)


def test_discovery_and_batches() -> None:
    model = Model([Channel("SR", [Sample("s", [15.0], [NormFactor("mu")]), Sample("b", [50.0])])])
    data = torch.tensor([[50.0], [62.0], [75.0]]).double()
    generator = torch.Generator().manual_seed(4)
    test = hypotest(0.0, data, model, test_stat="q0", calculator="toys", n_toys=N, generator=generator)
    assert test.p0.shape == (3,)
    for i, count in enumerate((62.0, 75.0), start=1):
        want = poisson.sf(count - 1, 50.0)
        assert float(test.p0[i]) == pytest.approx(want, abs=5 * (want / N) ** 0.5 + 1e-4)


def test_the_same_seed_gives_the_same_numbers() -> None:
    pair = simple((51.0, 48.0))

    def run(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return hypotest(
            1.0, pair.data, pair.model, calculator="toys", n_toys=300, generator=generator
        ).CLs_expected

    assert torch.equal(run(5), run(5))
    assert not torch.equal(run(5), run(6))


def test_bad_input_is_refused() -> None:
    pair = simple((51.0, 48.0))
    with pytest.raises(ParameterError, match="generator"):
        hypotest(1.0, pair.data, pair.model, calculator="toys")
    with pytest.raises(ParameterError, match="n must"):
        hypotest(1.0, pair.data, pair.model, calculator="toys", n_toys=0, generator=torch.Generator())
