"""Figures of observables, metrics and error maps show what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from sbilib.errors import DataError, ParameterError
from sbilib.plotting.bandwidths import MapPoints, plot_error_map
from sbilib.plotting.summaries import (
    LOSS_STYLES,
    VARIATION_COLORS,
    ObservablePanel,
    TemplatePanel,
    metric_panels,
    plot_observables,
    plot_templates,
)

EDGES = [0.0, 0.25, 1.0]
TEMPLATES = TemplatePanel("seed 1", EDGES, [1.0, 9.0], [60.0, 40.0], [70.0, 30.0], [50.0, 50.0])


def test_templates_are_drawn_in_their_bins_and_colors():
    figure = plot_templates([TEMPLATES] * 4)
    drawn = {patch.get_label(): patch.get_data() for patch in figure.axes[0].patches}
    assert drawn["signal"].values == pytest.approx([1.0, 9.0])
    assert drawn["background, up"].values == pytest.approx([70.0, 30.0])
    assert drawn["signal"].edges == pytest.approx(EDGES)
    spare, beside = figure.axes[4:]
    assert not spare.get_visible()
    assert {text.get_text() for text in beside.get_legend().get_texts()} == set(drawn)


def test_bins_of_an_observable_are_shaded_and_bordered():
    axis = np.linspace(-1, 1, 5)
    values = np.broadcast_to((axis + 1) / 2, (5, 5))
    events = {"signal": np.array([[0.5, -0.5]])}
    drawn = plot_observables([ObservablePanel("p0", axis, values, EDGES, events)]).axes[0]
    shades = drawn.collections[0].get_array().reshape(5, 5)
    assert shades[0].tolist() == [0, 1, 1, 1, 1]
    assert drawn.lines[0].get_xydata() == pytest.approx(np.array([[0.5, -0.5]]))
    assert drawn.lines[0].get_color() == VARIATION_COLORS["signal"]


def test_metric_panels_hold_median_range_and_limit():
    recorded = {"cls": {"p0": np.array([[3.0, 1.0, 2.0], [0.3, 0.1, 0.9]])}}
    (panel,) = metric_panels([0, 5], recorded, {"p0": "p"}, limits={"p0": 0.01})
    assert panel.curves[0].y == pytest.approx([2.0, 0.3])
    assert (panel.bands[0].low.tolist(), panel.bands[0].high.tolist()) == ([1.0, 0.1], [3.0, 0.9])
    assert panel.horizontal == [0.01]
    assert panel.curves[0].color == LOSS_STYLES["cls"].color
    with pytest.raises(ParameterError, match="'tea'"):
        metric_panels([0], {"tea": {}}, {"p0": "p"})


def test_shapes_that_do_not_fit_name_the_panel():
    with pytest.raises(DataError, match="'seed 1' needs 3 edges"):
        plot_templates([TEMPLATES._replace(edges=[0.0, 1.0])])
    with pytest.raises(DataError, match="'flat' needs values"):
        plot_observables([ObservablePanel("flat", [0.0, 1.0], [1.0], EDGES, {})])
    with pytest.raises(DataError, match="rows belong to n_events"):
        plot_error_map([1, 2], [1, 2, 3], np.ones((3, 2)), [], "error")
    with pytest.raises(ParameterError, match="needs a panel"):
        plot_templates([])


def test_the_map_shows_points_at_their_place():
    points = MapPoints("best", [10, 100], [0.5, 0.3])
    axis = plot_error_map([10, 100], [0.1, 0.3, 0.9], np.full((2, 3), 0.2), [points], "error").axes[0]
    assert axis.lines[0].get_xydata() == pytest.approx(np.array([[0.5, 10], [0.3, 100]]))
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
