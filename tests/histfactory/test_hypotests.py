"""Hypothesis tests equal pyhf's and the published formulae; gradients include the Asimov data and q = 0."""

from __future__ import annotations

import math

import pyhf
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor
from torch.autograd import gradcheck

from sbilib.errors import DataError, ParameterError
from sbilib.histfactory import (
    Channel,
    Model,
    NormFactor,
    ParameterSettings,
    Sample,
    asimov_data,
    expected_hypotest,
    fit,
    hypotest,
    q0,
    qmu,
    qmu_tilde,
    tmu,
    tmu_tilde,
    uncorrelated_background,
)
from sbilib.histfactory.asymptotics import (
    expected_tail_probabilities,
    root,
    root_of_expected_limit,
    significance,
    tail_probabilities,
)
from tests.histfactory.fit_examples import correlated, observed, peak, simple

PAIRS = {
    "deficit": simple((45.0, 47.0)),
    "excess": simple((70.0, 75.0)),
    "correlated": correlated((63.0, 58.0, 55.0)),
    "peak": peak(4),
}


@pytest.fixture(autouse=True)
def _precise_pyhf() -> None:
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer(tolerance=1e-12, maxiter=10_000))


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("poi_value", "test_stat"), [(1.0, "qtilde"), (0.3, "qtilde"), (0.0, "q0")])
def test_p_values_equal_pyhf(name: str, poi_value: float, test_stat: str) -> None:
    pair = PAIRS[name]
    ours = hypotest(poi_value, pair.data, pair.model, test_stat=test_stat)
    theirs, tails, bands = pyhf.infer.hypotest(
        poi_value,
        pair.data.tolist(),
        pair.oracle,
        test_stat=test_stat,
        return_tail_probs=True,
        return_expected_set=True,
    )
    assert bool(ours.converged)
    main, expected = (ours.p0, ours.p0_expected) if test_stat == "q0" else (ours.CLs, ours.CLs_expected)
    assert float(main) == pytest.approx(float(theirs), rel=1e-5)
    assert expected.tolist() == pytest.approx([float(each) for each in bands], rel=1e-5)
    assert float(ours.CLb) == pytest.approx(float(tails[-1]), rel=1e-5)
    if test_stat != "q0":
        assert float(ours.CLsb) == pytest.approx(float(tails[0]), rel=1e-5)


def test_statistics_of_a_counting_experiment() -> None:
    """One bin, known background: q has the closed form of Cowan et al., equation 96."""
    samples = [Sample("signal", [10.0], [NormFactor("mu")]), Sample("background", [50.0])]
    settings = [ParameterSettings("mu", bounds=[(-4.0, 10.0)])]
    model = Model([Channel("SR", samples)], settings=settings)

    def exact(count: float, mean: float) -> float:
        return 2 * (mean - count + count * math.log(count / mean))

    assert float(q0([65.0], model)) == pytest.approx(exact(65, 50), rel=1e-10)
    assert float(q0([45.0], model)) == 0
    assert float(qmu(1.0, [45.0], model)) == pytest.approx(exact(45, 60), rel=1e-10)
    assert float(qmu_tilde(1.0, [45.0], model)) == pytest.approx(exact(45, 60) - exact(45, 50), rel=1e-10)
    assert float(qmu(1.0, [70.0], model)) == 0
    assert float(tmu(1.0, [70.0], model)) == pytest.approx(exact(70, 60), rel=1e-10)
    assert float(tmu_tilde(1.0, [45.0], model)) == pytest.approx(exact(45, 60) - exact(45, 50), rel=1e-10)
    test = expected_hypotest(0.0, model, test_stat="q0")
    assert float(test.p0) == pytest.approx(norm.sf(math.sqrt(exact(60, 50))), rel=1e-10)
    assert float(significance(test.p0)) == pytest.approx(math.sqrt(exact(60, 50)), rel=1e-10)


@settings(max_examples=40, deadline=None)
@given(q=st.floats(0, 60), asimov=st.floats(1e-3, 60))
def test_both_pieces_of_the_tilde_distribution(q: float, asimov: float) -> None:
    ours = tail_probabilities(torch.tensor(q, dtype=torch.float64), torch.tensor(asimov, dtype=torch.float64))
    if q <= asimov:
        want = norm.sf(math.sqrt(q)), norm.sf(math.sqrt(q) - math.sqrt(asimov))
    else:
        shift = 2 * math.sqrt(asimov)
        want = norm.sf((q + asimov) / shift), norm.sf((q - asimov) / shift)
    assert float(ours.CLsb) == pytest.approx(want[0], rel=1e-8, abs=1e-300)
    assert float(ours.CLb) == pytest.approx(want[1], rel=1e-8, abs=1e-300)
    bands = expected_tail_probabilities(torch.tensor(asimov, dtype=torch.float64)).CLs
    assert (bands.diff() > 0).all()


@given(level=st.floats(1e-4, 0.9))
def test_the_root_of_the_expected_limit_has_that_level(level: float) -> None:
    roots = root_of_expected_limit(level)
    found = torch.stack([expected_tail_probabilities(r**2).CLs[i] for i, r in enumerate(roots)])
    assert torch.allclose(found, torch.full((5,), level, dtype=torch.float64), rtol=1e-9)


def test_far_in_the_tail_the_ratio_stays_right() -> None:
    test = tail_probabilities(torch.tensor(2000.0).double(), torch.tensor(2000.0).double())
    assert float(test.CLs) == pytest.approx(2 * norm.sf(math.sqrt(2000.0)), rel=1e-9)
    beyond = tail_probabilities(torch.tensor(4e4).double(), torch.tensor(100.0).double())
    assert beyond.CLs.isfinite()


def test_asimov_data_give_the_median() -> None:
    model = simple((51.0, 48.0)).model
    data = asimov_data(0.0, model)
    full, quick = hypotest(1.0, data, model), expected_hypotest(1.0, model)
    assert torch.allclose(full.CLs, full.CLs_expected[2], rtol=1e-7)
    assert torch.allclose(quick.CLs_expected, full.CLs_expected, rtol=1e-7)
    assert torch.allclose(quick.CLb, torch.tensor(0.5).double())


def _inputs(counts: list[float]) -> tuple[Tensor, ...]:
    values = ([12.0, 11.0], [50.0, 52.0], [3.0, 7.0], counts)
    return tuple(torch.tensor(each).double().requires_grad_() for each in values)


@pytest.mark.parametrize("counts", [[51.0, 48.0], [55.0, 60.0], [45.0, 70.0]])
@pytest.mark.parametrize("test_stat", ["qtilde", "q0"])
def test_gradients_of_p_values(counts: list[float], test_stat: str) -> None:
    """Finite differences refit everything, so the change of the Asimov data is part of what is compared."""

    def tests(*inputs: Tensor) -> tuple[Tensor, ...]:
        model = uncorrelated_background(*inputs[:3])
        data = torch.cat([inputs[3], model.auxiliary_data])
        test = hypotest(0.0 if test_stat == "q0" else 0.9, data, model, test_stat=test_stat)
        return test.CLs, test.CLsb, test.CLsb_expected, test.statistic, test.asimov_statistic

    assert gradcheck(tests, _inputs(counts), eps=1e-4, atol=1e-7, rtol=1e-5)


def test_gradients_in_the_tested_value_and_of_expected_tests() -> None:
    value = torch.tensor(0.8).double().requires_grad_()

    def tests(value: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        model = uncorrelated_background(*inputs[:3])
        test = hypotest(value, torch.cat([inputs[3], model.auxiliary_data]), model)
        return test.CLs, expected_hypotest(value, model).CLs_expected

    assert gradcheck(tests, (value, *_inputs([51.0, 48.0])), eps=1e-4, atol=1e-7, rtol=1e-5)


def test_the_gradient_through_the_asimov_data_matters() -> None:
    signal, background, width, counts = _inputs([51.0, 48.0])
    model = uncorrelated_background(signal, background, width)
    test = hypotest(1.0, torch.cat([counts, model.auxiliary_data]), model)
    (by_counts,) = torch.autograd.grad(test.asimov_statistic, counts)
    assert by_counts.abs().max() > 1e-4


def test_at_zero_statistics_gradients_are_finite_and_zero() -> None:
    signal, background, width, _ = _inputs([0.0, 0.0])
    model = uncorrelated_background(signal, background, width)
    data = observed(model, [80.0, 85.0])
    test = hypotest(0.5, data.detach(), model)
    assert test.statistic == 0
    found = torch.autograd.grad(test.statistic, (signal, background, width), retain_graph=True)
    assert all((each == 0).all() for each in found)
    found = torch.autograd.grad(test.CLs, (signal, background, width))
    assert all(each.isfinite().all() for each in found)
    again = uncorrelated_background(signal, background, width)
    at_zero = hypotest(0.0, asimov_data(0.0, again), again)
    found = torch.autograd.grad(at_zero.CLs, (signal, background, width))
    assert all((each == 0).all() for each in found)
    square = torch.zeros(1).double().requires_grad_()
    assert torch.autograd.grad(root(square).sum(), square)[0] == 0


def test_batches_broadcast() -> None:
    signal = torch.tensor([[12.0, 11.0], [6.0, 15.0], [9.0, 2.0]]).double().requires_grad_()
    models = uncorrelated_background(signal, [50.0, 52.0], [3.0, 7.0])
    values = torch.tensor([0.5, 1.0]).double().unsqueeze(1)
    data = simple((51.0, 48.0)).data
    test = hypotest(values, data, models)
    assert test.CLs_expected.shape == (2, 3, 5)
    several = hypotest(1.0, torch.stack([data, simple((60.0, 50.0)).data]), simple((1.0, 1.0)).model)
    assert torch.allclose(several.CLs[0], hypotest(1.0, data, simple((1.0, 1.0)).model).CLs, rtol=1e-8)
    test.CLs.sum().backward()
    for i in range(2):
        for j in range(3):
            one = uncorrelated_background(signal[j].detach(), [50.0, 52.0], [3.0, 7.0])
            single = hypotest(float(values[i]), data, one)
            assert torch.allclose(test.CLs[i, j], single.CLs, rtol=1e-8)
            assert torch.allclose(test.CLs_expected[i, j], single.CLs_expected, rtol=1e-8)


def test_a_negative_poi_needs_its_bound() -> None:
    pair = simple((40.0, 41.0))
    with pytest.raises(ParameterError, match="qtilde"):
        qmu(1.0, pair.data, pair.model)
    wide = Model(
        [Channel("SR", [Sample("s", [10.0], [NormFactor("mu")]), Sample("b", [50.0])])],
        settings=[ParameterSettings("mu", bounds=[(-4.0, 10.0)])],
    )
    assert float(fit([40.0], wide).poi) == pytest.approx(-1.0)
    assert float(hypotest(1.0, [40.0], wide).poi) == 0.0
    assert float(hypotest(1.0, [40.0], wide, test_stat="q").poi) == pytest.approx(-1.0)


def test_bad_input_is_refused() -> None:
    pair = simple((51.0, 48.0))
    with pytest.raises(ParameterError, match="test_stat"):
        hypotest(1.0, pair.data, pair.model, test_stat="q1")
    with pytest.raises(ParameterError, match="calculator"):
        hypotest(1.0, pair.data, pair.model, calculator="toy")
    with pytest.raises(ParameterError, match="q0 tests"):
        hypotest(1.0, pair.data, pair.model, test_stat="q0")
    with pytest.raises(ParameterError, match="p0 belongs"):
        _ = hypotest(1.0, pair.data, pair.model).p0
    with pytest.raises(DataError):
        hypotest(1.0, pair.data[:-1], pair.model)
    channel = Channel("SR", [Sample("s", [10.0], [NormFactor("mu")]), Sample("b", [50.0])])
    with pytest.raises(ParameterError, match="no parameter of interest"):
        hypotest(1.0, [50.0], Model([channel], poi=None))
    with pytest.raises(ParameterError, match="fixed"):
        hypotest(1.0, [50.0], Model([channel], settings=[ParameterSettings("mu", fixed=True)]))
    empty = Model([Channel("SR", [Sample("s", [1.0, 1.0], [NormFactor("mu")]), Sample("b", [5.0, 0.0])])])
    with pytest.raises(DataError, match="bin 1"):
        hypotest(1.0, [5.0, 1.0], empty)
