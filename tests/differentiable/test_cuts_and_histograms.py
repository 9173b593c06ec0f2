import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from sbilib.differentiable import (
    OrderedEdges,
    hard_cut,
    hard_histogram,
    largest_output_histogram,
    soft_cut,
    softmax_histogram,
)
from sbilib.errors import DataError, ParameterError


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_soft_cut_is_half_at_the_threshold_and_approaches_the_hard_one():
    x = normal(100)
    assert soft_cut(torch.tensor([0.25]), 0.25, slope=7.0).item() == 0.5
    for keep in ("above", "below"):
        torch.testing.assert_close(soft_cut(x, 0.1, slope=1e6, keep=keep), hard_cut(x, 0.1, keep=keep))
    torch.testing.assert_close(
        soft_cut(x, 0.1, slope=2.0) + soft_cut(x, 0.1, slope=2.0, keep="below"), torch.ones(100).double()
    )


def test_gradients_of_the_soft_cut():
    inputs = [
        each.requires_grad_() for each in (normal(6), torch.tensor(0.2).double(), torch.tensor(3.0).double())
    ]
    assert gradcheck(lambda x, c, k: soft_cut(x, c, slope=k), inputs)


@pytest.mark.parametrize("slope", [0.0, -1.0, math.nan])
def test_the_slope_of_a_cut_must_be_positive(slope):
    with pytest.raises(ParameterError, match="slope must be positive"):
        soft_cut(normal(3), 0.0, slope=slope)


def test_cuts_refuse_other_sides_and_no_events():
    with pytest.raises(ParameterError, match="'above', 'below'"):
        soft_cut(normal(3), 0.0, slope=1.0, keep="left")
    for cut in (lambda x: soft_cut(x, 0.0, slope=1.0), lambda x: hard_cut(x, 0.0)):
        with pytest.raises(DataError, match="at least one event"):
            cut(torch.zeros(0))


@given(st.integers(0, 10_000), st.integers(1, 6), st.booleans())
@settings(deadline=None, max_examples=50)
def test_the_hard_histogram_is_that_of_numpy(seed, n_bins, weighted):
    x = normal(200, seed=seed)
    edges = torch.linspace(-1.0, 1.5, n_bins + 1, dtype=torch.float64)
    weights = torch.rand(200, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected, _ = np.histogram(x, edges.numpy(), weights=weights.numpy() if weighted else None)
    counts = hard_histogram(x, edges, weights=weights if weighted else None)
    np.testing.assert_allclose(counts, expected, rtol=1e-12, atol=1e-12)


def test_bins_include_their_lower_edge_and_the_last_also_its_upper():
    x = torch.tensor([0.0, 0.5, 1.0, -0.1, 1.1])
    edges = torch.tensor([0.0, 0.5, 1.0])
    assert hard_histogram(x, edges).tolist() == [1.0, 2.0]
    assert hard_histogram(x, edges, overflow=True).tolist() == [2.0, 3.0]


def test_softmax_shares_every_event_and_hardens_at_low_temperature():
    outputs = normal(2, 300, 4)
    weights = torch.rand(300, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for given_weights in (None, weights):
        total = 300.0 if given_weights is None else weights.sum().item()
        soft = softmax_histogram(outputs, temperature=0.5, weights=given_weights)
        torch.testing.assert_close(soft.sum(-1), torch.full((2,), total, dtype=torch.float64))
        torch.testing.assert_close(
            softmax_histogram(outputs, temperature=1e-9, weights=given_weights),
            largest_output_histogram(outputs, weights=given_weights),
        )


def test_gradients_of_the_softmax_histogram():
    inputs = [normal(2, 5, 3).requires_grad_(), torch.rand(5).double().requires_grad_()]
    assert gradcheck(lambda y, w: softmax_histogram(y, temperature=0.7, weights=w), inputs)


def test_softmax_histograms_refuse_bad_input():
    with pytest.raises(ParameterError, match="temperature must be positive"):
        softmax_histogram(normal(5, 3), temperature=0.0)
    with pytest.raises(ParameterError, match="at least two bins"):
        softmax_histogram(normal(5, 1))
    with pytest.raises(DataError, match="at least one event"):
        softmax_histogram(normal(0, 3))
    with pytest.raises(DataError, match="1 NaN"):
        largest_output_histogram(torch.tensor([[0.0, math.nan]]))
    with pytest.raises(DataError, match="not negative"):
        softmax_histogram(normal(2, 3), weights=torch.tensor([1.0, -1.0]))


@given(st.lists(st.floats(-1e3, 1e3), min_size=6, max_size=6))
@settings(deadline=None)
def test_learned_edges_are_in_order_whatever_their_parameters(free):
    edges = OrderedEdges(6, low=-1.0, high=3.0, smallest=0.05)
    with torch.no_grad():
        edges.free.copy_(torch.tensor(free))
    values = edges()
    assert values[0].item() == -1.0
    assert values[-1].item() == 3.0
    assert values.diff().min().item() >= 0.05 * 4 / 6 - 1e-9


def test_edges_can_be_set_and_learned():
    edges = OrderedEdges(3, members=(2,))
    wanted = torch.tensor([0.0, 0.2, 0.9, 1.0], dtype=torch.float64)
    edges.set_edges(wanted)
    torch.testing.assert_close(edges(), wanted.expand(2, 4))
    free = edges.free.detach().clone().requires_grad_()
    assert gradcheck(lambda f: torch.func.functional_call(edges, {"free": f}, ()), [free])


@pytest.mark.parametrize(
    "wanted", [[0.0, 0.5, 0.4, 1.0], [0.1, 0.2, 0.9, 1.0], [0.0, 0.5, 1.0], [0.0, 1e-4, 0.5, 1.0]]
)
def test_edges_that_do_not_fit_are_refused(wanted):
    with pytest.raises(ParameterError, match="4 increasing numbers from 0 to 1"):
        OrderedEdges(3).set_edges(torch.tensor(wanted))


def test_edges_need_bins_and_a_range():
    with pytest.raises(ParameterError, match="n_bins"):
        OrderedEdges(0)
    with pytest.raises(ParameterError, match="high"):
        OrderedEdges(3, low=1.0, high=1.0)
