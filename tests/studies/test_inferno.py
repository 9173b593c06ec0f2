from dataclasses import replace

import pytest
import torch

from sbilib.errors import ParameterError
from sbilib.models.summary import SummaryConfig, SummaryStack
from sbilib.problems import INFERNO_CASES, sigma_of_signal
from sbilib.studies.inferno import InfernoRun, InfernoStudy, background_shares, inferno_loss, train_inferno

SMALL = InfernoStudy(network=SummaryConfig(3, (20, 20), 6, "silu"), n_events=4000, n_steps=3, batch_size=1000)


def noise(n, seed=1):
    return SMALL.benchmark.noise(n, torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_derivatives_through_events_are_finite_differences():
    # Moving all events by a small step in r or lambda and looking at the mean shares again.
    study = replace(SMALL, slopes="events", temperature=0.5)
    stack = SummaryStack(study.network, seeds=(1, 2)).double()
    events, step = noise(200), 1e-5
    _, slope_r, slope_rate = background_shares(stack, study, events)

    def shares(**moved):
        outputs = stack(study.benchmark.background(events, **moved))
        return torch.softmax(outputs / study.temperature, dim=-1).mean(1)

    by_r = (shares(r=step) - shares(r=-step)) / (2 * step)
    by_rate = (shares(rate=3 + step) - shares(rate=3 - step)) / (2 * step)
    torch.testing.assert_close(slope_r, by_r, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(slope_rate, by_rate, rtol=1e-5, atol=1e-8)


def test_both_kinds_of_slopes_estimate_the_same():
    # 200 000 events: the two losses differ by the noise of their slopes, below 1% here.
    stack = SummaryStack(SMALL.network, seeds=(1,)).double()
    values = [
        inferno_loss(
            stack, replace(SMALL, slopes=slopes, temperature=0.5), noise(200_000), noise(200_000, 2)
        ).item()
        for slopes in ("events", "score")
    ]
    assert values[0] == pytest.approx(values[1], rel=0.01)


def test_no_summary_beats_the_limit_and_training_approaches_it():
    study = replace(SMALL, n_steps=150, n_events=20_000, batch_size=2000, learning_rate=1e-2)
    run = train_inferno(study, seeds=(1, 2))
    untrained = InfernoRun(SummaryStack(study.network, seeds=(1, 2)), study, run.loss[:0])
    information = study.benchmark.information()
    for case in INFERNO_CASES.values():
        limit = sigma_of_signal(information, case)
        # The finite sample changes sigma by a few per mille.
        assert (run.sigma(seed=9, n_events=200_000, case=case) > 0.99 * limit).all()
    before, after = (each.sigma(seed=9, n_events=200_000) for each in (untrained, run))
    assert (after < 0.8 * before).all()
    assert (after < 1.3 * sigma_of_signal(information, study.case)).all()


def test_a_seed_decides_the_result():
    first, again = (train_inferno(SMALL, seeds=(3,)).loss for _ in range(2))
    assert torch.equal(first, again)


def test_bad_input_is_refused():
    with pytest.raises(ParameterError, match="slopes"):
        replace(SMALL, slopes="guess")
    with pytest.raises(ParameterError, match="must not exceed"):
        replace(SMALL, batch_size=5000)
    with pytest.raises(ParameterError, match="3 features"):
        replace(SMALL, network=SummaryConfig(2, (5,), 6))
    with pytest.raises(ParameterError, match="relu"):
        replace(SMALL, network=SummaryConfig.inferno(), slopes="events")
    with pytest.raises(ParameterError, match="temperature"):
        replace(SMALL, temperature=0.0)
    with pytest.raises(ParameterError, match="at least one seed"):
        train_inferno(SMALL, seeds=())
