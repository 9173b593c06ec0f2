"""Figures of curves, paths and graphs show what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from sbilib.errors import DataError, ParameterError
from sbilib.plotting.curves import Band, Curve, CurvePanel, plot_curves
from sbilib.plotting.optimization import GraphNode, Path2D, Surface, plot_graph, plot_paths
from sbilib.plotting.style import SIGNAL_COLOR

X = [1.0, 2.0, 4.0]


def panel(*curves: Curve, **options: object) -> CurvePanel:
    return CurvePanel("title", "x", "y", curves, **options)  # type: ignore[arg-type]


def test_a_curve_is_drawn_as_given():
    axis = plot_curves([panel(Curve("square", X, [1.0, 4.0, 16.0], SIGNAL_COLOR), log="xy")]).axes[0]
    (line,) = axis.lines
    assert line.get_xydata() == pytest.approx(np.array([[1, 1], [2, 4], [4, 16]]))
    assert line.get_color() == SIGNAL_COLOR
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["square"]


def test_error_bars_end_one_error_from_the_point():
    axis = plot_curves([panel(Curve("", X, X, error=[0.1, 0.2, 0.3]))]).axes[0]
    (segments,) = (bar.get_segments() for bar in axis.containers[0].lines[2])
    assert np.array(segments)[:, :, 1] == pytest.approx(np.array([[0.9, 1.1], [1.8, 2.2], [3.7, 4.3]]))


def test_steps_take_edges_and_refuse_centers():
    axis = plot_curves([panel(Curve("counts", [0, 1, 2, 3], X, steps=True))]).axes[0]
    assert axis.patches[0].get_data().values == pytest.approx(X)
    with pytest.raises(DataError, match="needs 4 edges for 3 bins"):
        plot_curves([panel(Curve("counts", X, X, steps=True))])


def test_a_band_lies_between_its_edges():
    low, high = [0.0, 1.0, 2.0], [1.0, 3.0, 5.0]
    axis = plot_curves([panel(bands=[Band("one sigma", X, low, high)])]).axes[0]
    points = axis.collections[0].get_paths()[0].vertices
    assert {(x, y) for x, y in points} >= {*zip(X, low, strict=True), *zip(X, high, strict=True)}


def test_panels_fill_rows_and_spare_axes_are_hidden():
    figure = plot_curves([panel(Curve("", X, X))] * 3)
    assert [axis.get_visible() for axis in figure.axes] == [True, True, True, False]


def test_chosen_ticks_replace_those_of_a_short_logarithmic_axis():
    axis = plot_curves([panel(Curve("", X, X), log="x", x_ticks=X)]).axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["1", "2", "4"]
    assert len(axis.xaxis.get_minorticklocs()) == 0


def test_unequal_lengths_name_curve_and_panel():
    with pytest.raises(DataError, match="'short' of panel 'title'"):
        plot_curves([panel(Curve("short", X, [1.0]))])


def test_no_panel_and_unknown_axes_are_refused():
    with pytest.raises(ParameterError, match="needs a panel"):
        plot_curves([])
    with pytest.raises(ParameterError, match="'z'"):
        plot_curves([panel(Curve("", X, X), log="z")])


def bowl(**options: object) -> Surface:
    x, y = np.linspace(-2, 2, 9), np.linspace(-1, 1, 5)
    return Surface("bowl", "a", "b", x, y, x**2 + y[:, None] ** 2, **options)  # type: ignore[arg-type]


def test_a_path_and_the_minimum_are_drawn_where_they_are():
    points = np.array([[1.0, 0.5], [0.5, 0.25], [0.0, 0.0]])
    axis = plot_paths([(bowl(minimum=(0.0, 0.0)), [Path2D("descent", points)])]).axes[0]
    star, path = axis.lines
    assert star.get_xydata() == pytest.approx(np.zeros((1, 2)))
    assert path.get_xydata() == pytest.approx(points)
    assert axis.get_xlim() == pytest.approx((-2, 2))
    assert axis.get_ylim() == pytest.approx((-1, 1))


def test_a_transposed_surface_and_a_flat_path_are_refused():
    with pytest.raises(DataError, match=r"shape \(5, 9\), got \(9, 5\)"):
        plot_paths([(bowl()._replace(values=np.zeros((9, 5))), [])])
    with pytest.raises(DataError, match=r"shape \(n, 2\)"):
        plot_paths([(bowl(), [Path2D("flat", np.zeros(4))])])


def test_a_graph_has_a_box_a_number_and_an_arrow_a_dependence():
    nodes = {
        "s": GraphNode("s", ()),
        "b": GraphNode("b", ()),
        "ratio": GraphNode("÷", ("s", "b"), "0.5"),
        "sum": GraphNode("+", ("ratio", "s")),
    }
    axis = plot_graph(nodes).axes[0]
    boxes = {text.get_text(): text.get_position() for text in axis.texts if text.get_text()}
    assert set(boxes) == {"s", "b", "÷\n0.5", "+"}
    assert len([text for text in axis.texts if not text.get_text()]) == 4
    assert boxes["s"][0] == boxes["b"][0] < boxes["÷\n0.5"][0] < boxes["+"][0]


def test_a_box_stands_where_it_is_placed():
    nodes = {"s": GraphNode("s", (), place=(0.5, 2.0)), "log": GraphNode("log", ("s",))}
    boxes = {text.get_text(): text.get_position() for text in plot_graph(nodes).axes[0].texts}
    assert boxes["s"] == (0.5, 2.0)
    assert boxes["log"] == (1.0, 0.0)


def test_a_child_before_its_parent_is_refused():
    with pytest.raises(DataError, match="'b' comes before its parent 'a'"):
        plot_graph({"b": GraphNode("+", ("a",)), "a": GraphNode("a", ())})
