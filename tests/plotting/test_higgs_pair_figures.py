"""Figures of many pairs show what the tables hold."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sbilib.plotting.higgs_pairs import (
    PointSeries,
    plot_coverage_at_points,
    plot_pair_histograms,
    plot_swap_losses,
    plot_toys_beside_bootstrap,
)
from sbilib.plotting.higgs_warnings import plot_disagreement_and_coverage, plot_warnings
from sbilib.plotting.style import FLOW_COLOR
from sbilib.studies.higgs_pairs import flow_excess, pair_means, precise_summary
from sbilib.studies.higgs_warnings import PairEstimates, roc_band, second_opinions
from tests.studies.higgs_pair_examples import full_table

TABLE = full_table()
PAIRS = pair_means(TABLE)


def test_histograms_have_a_row_of_four_panels_for_each_table() -> None:
    tables = {name: PAIRS[PAIRS.recipe == name] for name in ("sluijter", "modern")}
    figure = plot_pair_histograms(tables, {"sluijter": 0.657, "modern": 0.683})
    assert len(figure.axes) == 8
    assert figure.axes[0].lines[0].get_xdata()[0] == 0.657
    heights = [patch.get_height() for patch in figure.axes[0].patches if hasattr(patch, "get_height")]
    assert sum(heights) == 4 + 4


def test_points_stand_at_their_coverage() -> None:
    summary = precise_summary(TABLE)
    rows = summary[(summary.method == "flow") & (summary.recipe == "mean_density")]
    figure = plot_coverage_at_points({"flow": PointSeries(rows, FLOW_COLOR, "s")})
    assert len(figure.axes) == 2
    labels = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert labels[0] == "0.1, 0.93"
    assert len(labels) == 9
    line = figure.axes[0].containers[0][0]
    assert np.allclose(line.get_ydata(), 0.68)


def test_bootstrap_figure_draws_each_pair_once() -> None:
    table = pd.DataFrame({"method": ["flow", "classifier"], "toys": [0.6, 0.65], "bootstrap": [0.58, 0.62]})
    curve = (np.array([0.6, 0.68]), np.array([0.58, 0.657]))
    figure = plot_toys_beside_bootstrap({"mu": table, "z": table}, {"mu": curve, "z": curve})
    assert [len(axis.lines) for axis in figure.axes] == [4, 4]


def test_losses_are_sorted_by_swaps() -> None:
    figure = plot_swap_losses(
        flow_excess(PAIRS), {"signal": 0.03, "background": 0.02}, {"context": "context", "modern": "ours"}
    )
    first = figure.axes[0]
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["0", "1", "2", "3", "context", "ours"]
    assert np.isclose(first.lines[0].get_ydata()[0], 0.04)


def test_warning_figures() -> None:
    estimates = PairEstimates.of_table(TABLE, "mu")
    judged, others = (estimates.numbers(name, ("sluijter",)) for name in ("flow", "classifier"))
    band = roc_band(second_opinions(estimates, judged, others), single_toys=True, seed=1, n_draws=5)
    assert band is not None
    figure = plot_warnings({"mu": {"flow by classifier": band}})
    assert len(figure.axes[0].lines) == 2
    table = pd.DataFrame({"method": ["flow"], "disagreement": [1.0], "coverage": [0.5]})
    figure = plot_disagreement_and_coverage({"mu": table, "z": table})
    assert figure.axes[1].lines[0].get_xdata()[0] == 1.0
