from dataclasses import replace

import pandas as pd
import pytest
import torch

from sbilib.differentiable import make_loss
from sbilib.errors import ParameterError
from sbilib.models.summary import SummaryConfig, SummaryStack
from sbilib.problems.blobs import GaussianBlobs
from sbilib.studies.neos_study import NeosPlan, exact_templates, gain_over_baseline, seed_matrix
from sbilib.studies.summaries import SummaryStudy, TrainedSummaries

SMALL = NeosPlan(
    n_seeds=2, n_events=200, n_held_out=300, n_epochs=2, hidden=(16,), n_cells=40, losses=("bce", "cls")
)


def coordinate_summary(n_bins=5):
    """One network whose output is the first feature, so bins are stripes with known contents."""
    config = SummaryConfig(hidden=(2,))
    stack = SummaryStack(config, seeds=(0,))
    with torch.no_grad():
        first, last = stack.layers
        first.weight.copy_(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]))
        first.bias.zero_()
        last.weight.copy_(torch.tensor([[[1.0, -1.0]]]))  # relu(x) - relu(-x) = x
        last.bias.zero_()
    edges = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)[None]
    return TrainedSummaries(stack, edges, replace(SummaryStudy.neos(make_loss("bce")), network=config))


def test_exact_templates_of_stripes_are_normal_integrals():
    problem, trained = GaussianBlobs.neos(), coordinate_summary()
    found = exact_templates(trained, problem, n_cells=2000)
    borders = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64).logit()
    low = torch.tensor([-torch.inf], dtype=torch.float64)
    borders = torch.cat([low, borders, -low])
    for blob, scale in (("signal", 20.0), ("background", 100.0), ("up", 100.0), ("down", 100.0)):
        expected = scale * torch.special.ndtr(borders - problem.mean(blob)[0]).diff()
        # A cell on a border goes to one side: 0.007 wide, at most 0.3% of the events.
        torch.testing.assert_close(getattr(found, blob)[0], expected, atol=0.003 * scale, rtol=0)


def test_exact_templates_agree_with_many_events():
    # 100 000 events: the standard error of a bin is below 0.16% of the events, and 0.35% for the cells.
    problem, trained = GaussianBlobs.neos(), coordinate_summary()
    counted = trained.templates(problem.sample(100_000, seed=5))
    found = exact_templates(trained, problem, n_cells=800)
    for blob in ("signal", "background", "up", "down"):
        a, b = getattr(found, blob), getattr(counted, blob)
        assert ((a - b).abs() < 0.01 * b.sum()).all()


def test_a_unit_depends_on_its_loss_and_seed_alone():
    one, again, other = (SMALL.make_unit(unit) for unit in ("cls-0001", "cls-0001", "cls-0000"))
    pd.testing.assert_frame_equal(one, again)
    assert (one.cls != other.cls).any()
    assert one.exact.tolist() == [False, False, False, True]
    table = pd.concat([one, other])
    assert seed_matrix(table, "cls", "sigma_mu").shape == (3, 2)
    assert seed_matrix(table, "cls", "cls")[2, 0].item() == other.cls[2]
    filled = one[one.exact].filter(regex="^signal ").to_numpy().sum()
    assert filled == pytest.approx(20.0)


def test_plan_names_a_unit_for_each_loss_and_seed():
    assert SMALL.units == ("bce-0000", "cls-0000", "bce-0001", "cls-0001")
    assert "n_seeds" not in SMALL.facts
    assert NeosPlan.from_parameters({"hidden": [8, 8], "title": "x"}).hidden == (8, 8)
    with pytest.raises(ParameterError, match="n_seeds"):
        replace(SMALL, n_seeds=0)


def test_gain_is_judged_by_the_spread_of_both():
    gain = gain_over_baseline([1.0, 3.0], [4.0, 8.0])
    assert gain.gain == 4.0
    assert gain.spread == pytest.approx((2 + 8) ** 0.5)
    assert (gain.wins, gain.pairs) == (4, 4)
    assert gain_over_baseline([5.0], [4.0, 8.0]).wins == 1
    with pytest.raises(ParameterError, match="at least one seed"):
        gain_over_baseline([], [1.0])


def test_templates_need_one_output():
    trained = replace(coordinate_summary(), edges=None)
    with pytest.raises(ParameterError, match="one output"):
        exact_templates(trained, GaussianBlobs.neos())
