"""Contours lie at the heights that enclose the stated probabilities, in the colors of the methods."""

from __future__ import annotations

import matplotlib.colors as mcolors
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from scipy.stats import chi2

from sbilib.likelihood import NLLScan, ScanGrid
from sbilib.plotting import METHOD_STYLES
from sbilib.plotting.higgs_contours import (
    HISTOGRAM_STYLE,
    HiggsContours,
    contour_levels,
    plot_higgs_contours,
    plot_test_points,
    plot_toy_metrics,
)

TRUTHS = [(mu, z) for mu in (0.1, 0.2, 0.3) for z in (0.93, 1.0, 1.07)]
SIGMAS = (0.03, 0.005)


def scan(mu: float, z: float) -> NLLScan:
    grid = ScanGrid.uniform(nuisance_range=(0.9, 1.1), n_ratios=251, n_nuisances=201)
    pulls = (grid.signal_ratios - mu) / SIGMAS[0], (grid.nuisances - z) / SIGMAS[1]
    return NLLScan((pulls[0][:, None] ** 2 + pulls[1] ** 2) / 2, torch.tensor(0.0), grid)


def contours(method: str) -> HiggsContours:
    return HiggsContours(f"{method} title", method, [scan(*truth) for truth in TRUTHS], TRUTHS)


def sets(axis: Axes) -> list[ContourSet]:
    return [artist for artist in axis.get_children() if isinstance(artist, ContourSet)]


def test_levels_are_half_the_quantiles_of_two_degrees_of_freedom() -> None:
    expected = chi2(2).ppf([0.683, 0.95]) / 2
    assert contour_levels() == pytest.approx(expected.tolist())


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_contours_reach_as_far_as_the_region(scale: float) -> None:
    figure = plot_higgs_contours([[contours("flow"), contours("classifier")]], scale=scale)
    first = sets(figure.axes[0])[4]
    for path, level in zip(first.get_paths(), contour_levels(), strict=True):
        reach = SIGMAS[0] * np.sqrt(2 * level / scale)
        assert path.vertices[:, 0].max() - 0.2 == pytest.approx(reach, rel=0.03)
    assert [axis.get_title() for axis in figure.axes] == ["flow title", "classifier title"]


def test_each_panel_has_the_contours_of_all_test_sets_in_the_color_of_its_method() -> None:
    figure = plot_higgs_contours([[contours("flow"), contours("histogram")]])
    for axis, color in zip(figure.axes, (METHOD_STYLES["flow"].color, HISTOGRAM_STYLE.color), strict=True):
        assert len(sets(axis)) == 9
        assert all(mcolors.same_color(one.get_edgecolor()[0], color) for one in sets(axis))


def test_test_points_lie_where_their_parameters_say() -> None:
    figure = plot_test_points([contours("flow"), contours("classifier")])
    corner = figure.axes[0]  # top left: the smallest ratio at the largest scale
    cross = next(line for line in corner.lines if line.get_marker() == "+")
    assert (float(cross.get_xdata()[0]), float(cross.get_ydata()[0])) == (0.1, 1.07)
    assert len(sets(corner)) == 2


def test_metrics_stand_on_the_row_of_their_label() -> None:
    rows = [
        {"label": label, "method": method, "parameter": parameter, "coverage": value, "coverage_error": 0.01,
         "width": 0.1, "width_error": 0.001}
        for label, method, value in (("one", "flow", 0.6), ("two", "histogram", 0.7))
        for parameter in ("mu", "z")
    ]  # fmt: skip
    axis = plot_toy_metrics(pd.DataFrame(rows)).axes[0]
    points = [(float(c[0].get_xdata()[0]), float(c[0].get_ydata()[0])) for c in axis.containers]
    assert points == [(0.6, 0.0), (0.7, -1.0)]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["one", "two"]
