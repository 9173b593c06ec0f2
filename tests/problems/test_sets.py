import math

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from sbilib.errors import ParameterError
from sbilib.problems import (
    GaussianToy,
    bootstrap_counts,
    make_test_set,
    make_toys,
    make_training_set,
    published_test_sets,
    signal_count,
)

TOY = GaussianToy.large_distance()


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, 0), (0.1, 818), (0.2, 1500), (0.3, 2077), (1.0, 4500)])
def test_published_signal_counts(ratio, expected):
    assert signal_count(9000, ratio) == expected


@given(n=st.integers(1, 10**6), ratio=st.floats(0, 100))
def test_signal_counts_are_within_half_an_event(n, ratio):
    assert abs(signal_count(n, ratio) - n * ratio / (1 + ratio)) <= 0.5 + 1e-9


def test_training_sets_are_balanced_and_cover_the_range():
    data = make_training_set(TOY, 20_000, torch.Generator().manual_seed(1))
    assert data.signal.shape == data.background.shape == (10_000, 2)
    for z in (data.signal_nuisance, data.background_nuisance):
        assert scipy.stats.kstest(z.numpy(), "uniform", args=(0, math.pi / 2)).pvalue > 1e-3
    assert torch.equal(data.component("signal")[0], data.signal)


def test_a_reference_training_set_stays_at_the_reference_value():
    data = make_training_set(TOY, 10, torch.Generator().manual_seed(1), nuisance="reference")
    assert bool((data.signal_nuisance == torch.tensor(math.pi / 4)).all())


def test_a_test_set_has_the_fixed_number_of_signal_events():
    test_set = make_test_set(TOY, signal_ratio=0.2, nuisance=0.7, generator=torch.Generator().manual_seed(2))
    assert (test_set.n_signal, tuple(test_set.events.shape)) == (1500, (9000, 2))
    axis = torch.tensor([math.cos(0.7), math.sin(0.7)], dtype=torch.float64)
    # Mean projection on the axis: +2 for signal, -2 for background, standard error below 0.03.
    assert float((test_set.events[:1500] @ axis).mean()) == pytest.approx(2, abs=0.13)
    assert float((test_set.events[1500:] @ axis).mean()) == pytest.approx(-2, abs=0.06)


def test_nine_points_five_repeats_make_the_published_45():
    sets = published_test_sets(TOY, torch.Generator().manual_seed(2), n_events=100, repeats=5)
    assert len(sets) == 45
    assert len({(s.signal_ratio, s.nuisance) for s in sets}) == 9
    assert len({float(s.events[0, 0]) for s in sets}) == 45


def test_bootstrap_counts_are_multinomial():
    counts = bootstrap_counts(50, 4000, 200, torch.Generator().manual_seed(4)).double()
    assert bool((counts.sum(dim=1) == 200).all())
    # Mean 4 and variance 200/50 (1 - 1/50) = 3.92 per event; 5 standard errors.
    assert float((counts.mean(dim=0) - 4).abs().max()) < 5 * math.sqrt(3.92 / 4000)
    assert float(counts.var(dim=0).mean()) == pytest.approx(3.92, rel=0.02)


def test_toys_have_binomial_or_fixed_counts():
    options = {"signal_ratio": 0.25, "nuisance": math.pi / 4, "n_toys": 400, "n_events": 100}
    far = GaussianToy(20.0)  # so far apart that the sign of x tells the component
    for fixed, variance in ((True, 0.0), (False, 16.0)):
        events = make_toys(far, generator=torch.Generator().manual_seed(6), fixed_counts=fixed, **options)
        n_signal = (events[:, :, 0] > 0).sum(dim=1).double()
        assert events.shape == (400, 100, 2)
        assert float(n_signal.mean()) == pytest.approx(20, abs=1.0)
        assert float(n_signal.var()) == pytest.approx(variance, rel=0.35)


def test_toys_without_signal_are_possible():
    events = make_toys(
        GaussianToy(20.0),
        signal_ratio=0.0,
        nuisance=0.5,
        n_toys=2,
        n_events=5,
        generator=torch.Generator().manual_seed(1),
    )
    assert bool((events[..., 0] < 0).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signal_ratio": -0.1, "nuisance": 0.5}, "signal_ratio.*-0.1"),
        ({"signal_ratio": 0.1, "nuisance": 2.0}, "nuisance.*2.0"),
        ({"signal_ratio": 0.1, "nuisance": math.nan}, "nuisance.*nan"),
        ({"signal_ratio": 0.1, "nuisance": 0.5, "n_events": 0}, "n_events.*0"),
    ],
)
def test_impossible_test_sets_are_refused(options, message):
    with pytest.raises(ParameterError, match=message):
        make_test_set(TOY, generator=torch.Generator(), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signal_ratio": -0.1}, "signal_ratio.*-0.1"),
        ({"nuisance": 2.0}, "nuisance.*2.0"),
        ({"n_toys": 0}, "n_toys.*0"),
        ({"n_events": 0}, "n_events.*0"),
    ],
)
def test_impossible_toys_are_refused(options, message):
    good = {"signal_ratio": 0.1, "nuisance": 0.5, "n_toys": 2, "n_events": 5}
    with pytest.raises(ParameterError, match=message):
        make_toys(TOY, generator=torch.Generator(), **good | options)


def test_an_unknown_nuisance_policy_is_refused():
    with pytest.raises(ParameterError, match="'uniform', 'reference', got 'fixed'"):
        make_training_set(TOY, 10, torch.Generator(), nuisance="fixed")
