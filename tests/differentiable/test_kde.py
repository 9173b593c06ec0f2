import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from sbilib.differentiable import binned_kde, hard_histogram
from sbilib.errors import DataError, ParameterError

EDGES = torch.tensor([0.0, 0.3, 0.5, 1.0], dtype=torch.float64)


def draw(n, seed=1, scale=1.0):
    return scale * torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_single_event_spreads_as_a_normal_distribution():
    counts = binned_kde(torch.tensor([0.4], dtype=torch.float64), EDGES, bandwidth=0.2)
    cdf = [0.5 * (1 + math.erf((edge - 0.4) / (0.2 * math.sqrt(2)))) for edge in EDGES.tolist()]
    np.testing.assert_allclose(counts, np.diff(cdf), rtol=1e-12)


@pytest.mark.parametrize("bandwidth", [1e-7, torch.tensor([1e-7, 2e-7, 5e-8])])
def test_no_bandwidth_is_the_ordinary_histogram(bandwidth):
    values, weights = draw(500), draw(500, seed=2)
    soft = binned_kde(values, EDGES, bandwidth=bandwidth, weights=weights)
    torch.testing.assert_close(soft, hard_histogram(values, EDGES, weights=weights), atol=1e-9, rtol=0)


@given(
    st.lists(st.floats(-2, 3), min_size=1, max_size=20),
    st.lists(st.floats(0.01, 3), min_size=3, max_size=3),
    st.lists(st.floats(0.01, 2), min_size=3, max_size=3),
)
@settings(deadline=None, max_examples=60)
def test_no_event_is_lost_or_negative_with_a_bandwidth_for_each_bin(values, widths, bandwidths):
    edges = torch.tensor([0.0, *widths], dtype=torch.float64).cumsum(0)
    counts = binned_kde(
        torch.tensor(values, dtype=torch.float64), edges, bandwidth=torch.tensor(bandwidths), overflow=True
    )
    assert (counts >= 0).all()
    assert counts.sum().item() == pytest.approx(len(values), rel=1e-12)


def test_equal_bandwidths_for_all_bins_are_the_fixed_bandwidth():
    values = draw(200, scale=1.4) - 0.2
    for overflow in (False, True):
        torch.testing.assert_close(
            binned_kde(values, EDGES, bandwidth=torch.full((3,), 0.07), overflow=overflow),
            binned_kde(values, EDGES, bandwidth=0.07, overflow=overflow),
            rtol=1e-6,
            atol=0,
        )


def test_bandwidths_that_scale_with_the_bins_undo_a_change_of_bin_widths():
    # Bin widths 1 and 3 with bandwidths 0.2 and 0.6 are bins of one unit with bandwidth 0.2.
    values = torch.tensor([0.3, 1.0, 2.5, 3.9], dtype=torch.float64)
    mapped = torch.tensor([0.3, 1.0, 1.5, 1 + 2.9 / 3], dtype=torch.float64)
    torch.testing.assert_close(
        binned_kde(values, torch.tensor([0.0, 1.0, 4.0]), bandwidth=torch.tensor([0.2, 0.6]).double()),
        binned_kde(mapped, torch.tensor([0.0, 1.0, 2.0]), bandwidth=0.2),
    )


def test_weights_count_events_several_times():
    values = draw(30)
    weights = torch.arange(30) % 3
    torch.testing.assert_close(
        binned_kde(values, EDGES, bandwidth=0.1, weights=weights.double()),
        binned_kde(values.repeat_interleave(weights), EDGES, bandwidth=0.1),
    )


@pytest.mark.parametrize("overflow", [False, True])
@pytest.mark.parametrize("per_bin", [False, True])
def test_gradients_of_events_edges_bandwidth_and_weights(per_bin, overflow):
    bandwidth = torch.tensor([0.1, 0.2, 0.15] if per_bin else 0.1, dtype=torch.float64)
    inputs = [draw(2 * 5).reshape(2, 5), EDGES.clone(), bandwidth, draw(5, seed=3)]
    for each in inputs:
        each.requires_grad_()
    assert gradcheck(
        lambda x, e, h, w: binned_kde(x, e, bandwidth=h, weights=w, overflow=overflow), inputs, atol=1e-7
    )


def test_value_and_gradient_converge_to_those_of_a_normal_distribution():
    # Kernels of width h make N(mu, 1) into N(mu, 1 + h^2), whose yield in a bin and derivative are exact.
    # 200 000 events: one standard deviation of the mean is below 0.0011 for both, so 0.005 is over four.
    noise = torch.randn(200_000, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    mu, h = torch.tensor(0.7, dtype=torch.float64, requires_grad=True), 0.2
    edges = torch.tensor([-0.5, 0.5])
    soft = binned_kde(mu + noise, edges, bandwidth=h)[0] / len(noise)
    (slope,) = torch.autograd.grad(soft, mu)
    true_mu = mu.detach().clone().requires_grad_()
    root = math.sqrt(1 + h * h)
    true = torch.special.ndtr((0.5 - true_mu) / root) - torch.special.ndtr((-0.5 - true_mu) / root)
    (true_slope,) = torch.autograd.grad(true, true_mu)
    assert soft.item() == pytest.approx(true.item(), abs=0.005)
    assert slope.item() == pytest.approx(true_slope.item(), abs=0.005)


def test_a_stack_of_data_and_of_edges_is_filled_row_by_row():
    values, edges = draw(3 * 40).reshape(3, 40), torch.stack([EDGES, EDGES + 0.1, EDGES * 0.9])
    together = binned_kde(values, edges, bandwidth=0.05)
    rows = [binned_kde(v, e, bandwidth=0.05) for v, e in zip(values, edges, strict=True)]
    torch.testing.assert_close(together, torch.stack(rows))


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan, math.inf, torch.tensor([0.1, 0.0, 0.1])])
def test_bandwidth_must_be_positive(bandwidth):
    with pytest.raises(ParameterError, match="bandwidth must be positive"):
        binned_kde(draw(3), EDGES, bandwidth=bandwidth)


def test_bandwidths_must_fit_the_bins():
    with pytest.raises(ParameterError, match="one for each of 3 bins"):
        binned_kde(draw(3), EDGES, bandwidth=torch.tensor([0.1, 0.1]))


@pytest.mark.parametrize(
    "edges", [[0.0], [], [0.0, 0.0, 1.0], [0.0, 2.0, 1.0], [0.0, math.nan, 1.0], [0.0, math.inf]]
)
def test_edges_must_be_ordered(edges):
    for fill in (lambda e: binned_kde(draw(3), e, bandwidth=0.1), lambda e: hard_histogram(draw(3), e)):
        with pytest.raises(ParameterError, match="edges must"):
            fill(torch.tensor(edges))


def test_events_must_exist_and_be_finite():
    for fill in (lambda x: binned_kde(x, EDGES, bandwidth=0.1), lambda x: hard_histogram(x, EDGES)):
        with pytest.raises(DataError, match="at least one event"):
            fill(torch.zeros(0))
        with pytest.raises(DataError, match="1 NaN or infinite"):
            fill(torch.tensor([0.1, math.nan]))
        with pytest.raises(DataError, match="floating point"):
            fill(torch.tensor([1, 2]))


def test_weights_must_not_be_negative():
    for weights in (torch.tensor([1.0, -0.5, 1.0]), torch.tensor([1.0, math.nan, 1.0])):
        with pytest.raises(DataError, match="finite and not negative"):
            binned_kde(draw(3), EDGES, bandwidth=0.1, weights=weights)
    with pytest.raises(DataError, match="one entry for each of 3 events"):
        binned_kde(draw(3), EDGES, bandwidth=0.1, weights=torch.ones(2))
