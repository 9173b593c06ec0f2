"""Losses side by side: records, limits that hold, and the table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sbilib.differentiable import AnalysisSettings, ExpectedYields, Logits, make_loss
from sbilib.errors import ParameterError
from sbilib.models.summary import SummaryConfig
from sbilib.problems.blobs import GaussianBlobs
from sbilib.studies.loss_comparison import cross_table, observable_in_plane, plane_limit, train_tracked
from sbilib.studies.summaries import SummaryStudy, train_summaries
from sbilib.studies.summary_metrics import SummaryMetrics, evaluate_summary, hard_templates

PROBLEM, YIELDS = GaussianBlobs.neos(), ExpectedYields.neos()
EVENTS, HELD_OUT = PROBLEM.sample(100, seed=1), PROBLEM.sample(100, seed=2)
STUDY = replace(
    SummaryStudy.deep(make_loss("bce_augmented")),
    network=SummaryConfig(hidden=(16,)), batch_size=100, learning_rate=0.01, n_epochs=5,
)  # fmt: skip


def test_records_are_rows_of_the_full_history():
    tracked = train_tracked(STUDY, EVENTS, HELD_OUT, seeds=[3, 4], record_every=2, also_bins=[3])
    whole = train_summaries(STUDY, EVENTS, HELD_OUT, seeds=[3, 4])
    assert tracked.epochs.tolist() == [0, 2, 4, 5]
    torch.testing.assert_close(tracked.run.loss, whole.loss[tracked.epochs])
    assert torch.equal(tracked.best_epoch, tracked.epochs[tracked.run.best_epoch])
    three = train_summaries(replace(STUDY, n_bins=3), EVENTS, HELD_OUT, seeds=[3, 4])
    torch.testing.assert_close(tracked.rebinned[3].cls, three.metrics.cls[tracked.epochs])


def test_the_observable_on_the_grid_is_that_of_the_network():
    run = train_tracked(STUDY, EVENTS, HELD_OUT, seeds=[3]).run
    axis = torch.linspace(-2, 2, 5)
    values = observable_in_plane(run, axis)
    here = torch.sigmoid(run.best.stack(torch.tensor([[axis[4], axis[1]]])))
    torch.testing.assert_close(values[:, 1, 4], here[:, 0])


def test_no_coarser_cells_pass_the_limit():
    coarse, middle, fine = (plane_limit(PROBLEM, YIELDS, n_cells=n) for n in (10, 20, 40))
    for metric in ("cls", "p0", "sigma_mu"):
        assert getattr(coarse, metric) >= getattr(middle, metric) >= getattr(fine, metric) > 0
    # What is known of a signal with no background at all: its own Poisson fluctuation.
    assert fine.sigma_mu > 20**-0.5


def test_blobs_far_apart_reach_the_poisson_limit():
    apart = GaussianBlobs(signal=(-4.0, 4.0), background=(4.0, 4.0), up=(4.0, -4.0), down=(5.0, 0.0))
    assert plane_limit(apart, YIELDS).sigma_mu == pytest.approx(20**-0.5, rel=0.01)


def test_table_holds_means_and_spreads():
    metrics = SummaryMetrics(*[torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)] * 9)
    table = cross_table({"cls": metrics}, ["p0"])
    assert table.loc["cls", ("p0", "mean")] == pytest.approx(3.0)
    assert table.loc["cls", ("p0", "spread")] == pytest.approx(7**0.5)


def test_bad_numbers_are_refused():
    with pytest.raises(ParameterError, match="record_every"):
        train_tracked(STUDY, EVENTS, HELD_OUT, seeds=[1], record_every=0)
    with pytest.raises(ParameterError, match="n_cells"):
        plane_limit(PROBLEM, YIELDS, n_cells=1)


def test_p_values_are_those_of_a_scan_where_signal_bins_are_all_but_empty():
    """Walls of negative rates stand close to the best fit there."""
    events = PROBLEM.sample(2000, seed=5)
    outputs = Logits(*(4.0 * (each[:, 1] - each[:, 0] - 1.0)[None] for each in events))
    edges = torch.linspace(0, 1, 21, dtype=torch.float64)
    settings = AnalysisSettings()
    metrics = evaluate_summary(outputs, edges, yields=YIELDS, settings=settings)
    model = hard_templates(outputs, edges, YIELDS).model(settings)
    alpha = torch.linspace(-1, 1, 801, dtype=torch.float64)
    for tested, true, tail in ((1.0, 0.0, metrics.cls), (0.0, 1.0, 2 * metrics.p0)):
        at = {mu: torch.stack([alpha, torch.full_like(alpha, mu)], dim=-1) for mu in (tested, true)}
        data = model.expected_data(at[true][400])
        scan = torch.stack([model.logpdf(theta, data)[0] for theta in at[tested]]).nan_to_num(-torch.inf)
        q = 2 * (model.logpdf(at[true][400], data)[0] - scan.max())
        assert float(tail) == pytest.approx(float(torch.special.erfc((q / 2).sqrt())), rel=0.01)
