"""The figures of the known map show each model where its numbers are."""

from __future__ import annotations

import matplotlib.colors as mcolors
import pandas as pd
import pytest
import torch

from sbilib.plotting import METHOD_STYLES
from sbilib.plotting.higgs_map import plot_higgs_frame, plot_map_against_data


def summary() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"method": method, "knowledge": knowledge, "n_events": n, "parameter": parameter,
             "coverage": 0.6 + 0.05 * (knowledge == "map"), "coverage_error": 0.01, "width": 0.1,
             "width_error": 0.01, "bias": 1000 / n, "bias_error": 0.05, "floor": 0.15}
            for method in ("flow", "classifier")
            for knowledge in ("learned", "map")
            for n in (5000, 30000)
            for parameter in ("mu", "z")
        ]
    )  # fmt: skip


def test_curves_have_the_values_and_colors_of_their_models() -> None:
    figure = plot_map_against_data(summary())
    coverage, bias = figure.axes[0], figure.axes[2]
    known = next(c for c in coverage.containers if c.get_label() == "classifier, map")[0]
    assert known.get_ydata() == pytest.approx([0.65, 0.65])
    assert mcolors.same_color(known.get_markerfacecolor(), METHOD_STYLES["classifier"].color)
    learned = next(c for c in bias.containers if c.get_label() == "flow, learned")[0]
    assert learned.get_ydata() == pytest.approx([0.2, 1 / 30])
    assert mcolors.same_color(learned.get_markerfacecolor(), "white")


def test_densities_that_were_not_trained_are_left_out() -> None:
    other = summary().head(2).assign(method="template fit", knowledge="other", n_events=0)
    figure = plot_map_against_data(pd.concat([summary(), other]))
    assert len(figure.axes[0].containers) == 4


def test_events_lie_where_they_were_measured() -> None:
    x = torch.tensor([[80.0, 0.5], [90.0, 2.0]])
    figure = plot_higgs_frame({0.8: (x, x), 1.2: (x + 1, x)}, {0.8: (x, x), 1.2: (x, x)})
    first = figure.axes[0].collections
    assert first[0].get_offsets().data.tolist() == x.tolist()
    assert first[2].get_offsets().data.tolist() == (x + 1).tolist()
    assert figure.axes[0].get_xlabel() == "visible mass m [GeV]"
