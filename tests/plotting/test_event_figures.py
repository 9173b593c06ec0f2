"""Figures of events, learned ratios and lags carry labels with units and the colors of the methods."""

from __future__ import annotations

import math
import warnings

import matplotlib.colors as mcolors
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from sbilib.diagnostics import RatioCalibration
from sbilib.plotting import (
    BACKGROUND_COLOR,
    METHOD_STYLES,
    SIGNAL_COLOR,
    plot_against_nuisance,
    plot_calibration,
    plot_events,
)

ANGLES = torch.linspace(0, math.pi / 2, 5, dtype=torch.float64)
PANELS = {"narrow": [("classifier", ANGLES * 0), ("classifier", ANGLES)], "flow": [("flow", -ANGLES)]}
TRAINED = {"narrow": (0.0, math.pi / 2), "flow": (-math.pi, 2 * math.pi)}


def events_figure(n_cases: int = 2) -> Figure:
    generator = torch.Generator().manual_seed(1)
    signal, background = (torch.randn(n, 2, generator=generator) for n in (30, 40))
    return plot_events({f"case {n}": (signal, background) for n in range(n_cases)})


def calibration() -> RatioCalibration:
    exact = torch.linspace(-2, 2, 6)
    return RatioCalibration(exact, 0.1 * exact, 0.1 * exact - 0.2, 0.1 * exact + 0.3, 0.2)


def calibration_figure(n_panels: int) -> Figure:
    curves = {"flow": calibration(), "classifier": calibration()}
    return plot_calibration({f"panel {n}": curves for n in range(n_panels)})


def against_nuisance() -> Figure:
    return plot_against_nuisance(ANGLES, PANELS, ylabel="lag [rad]", trained=TRAINED, scale=2.0)


@pytest.mark.parametrize("n_cases", [1, 2])
def test_events_show_every_event_in_the_color_of_its_class(n_cases):
    figure = events_figure(n_cases)
    assert [axis.get_title() for axis in figure.axes] == [f"case {n}" for n in range(n_cases)]
    for axis in figure.axes:
        shown = {line.get_label(): line for line in axis.lines}
        assert len(shown["signal"].get_xdata()) == 30
        assert len(shown["background"].get_xdata()) == 40
        assert shown["signal"].get_color() == SIGNAL_COLOR
        assert shown["background"].get_color() == BACKGROUND_COLOR
        assert axis.get_xlabel() == "x [width of a Gaussian]"
        assert axis.get_aspect() == 1.0
    assert figure.axes[0].get_ylabel() == "y [width of a Gaussian]"


def test_events_are_named_once():
    legends = [axis.get_legend() for axis in events_figure().axes]
    assert [text.get_text() for text in legends[0].get_texts()] == ["background", "signal"]
    assert legends[1] is None


@pytest.mark.parametrize("n_panels", [1, 2, 3, 4])
def test_calibration_shows_a_panel_each_and_hides_the_rest(n_panels):
    visible = [axis for axis in calibration_figure(n_panels).axes if axis.get_visible()]
    assert [axis.get_title() for axis in visible] == [f"panel {n}" for n in range(n_panels)]
    assert all("exact" in axis.get_xlabel() for axis in visible)
    assert visible[0].get_ylabel() == "learned minus exact"


def test_calibration_draws_medians_and_bands_in_the_color_of_the_method():
    axis = calibration_figure(2).axes[0]
    for method, band in zip(("flow", "classifier"), axis.collections, strict=True):
        (line,) = (line for line in axis.lines if line.get_label() == METHOD_STYLES[method].label)
        assert line.get_color() == METHOD_STYLES[method].color
        np.testing.assert_allclose(line.get_ydata(), calibration().difference)
        assert mcolors.to_hex(band.get_facecolor()[0]) == METHOD_STYLES[method].color.lower()
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((-0.4, 0.5))


def test_calibration_names_each_method_once():
    legends = [axis.get_legend() for axis in calibration_figure(4).axes]
    assert [text.get_text() for text in legends[0].get_texts()] == ["flow", "classifier"]
    assert legends[1:] == [None, None, None]


def test_curves_against_the_nuisance_are_scaled_and_colored():
    figure = against_nuisance()
    assert [axis.get_title() for axis in figure.axes] == list(PANELS)
    assert [axis.get_xlabel() for axis in figure.axes] == 2 * [r"nuisance parameter $z/\pi$"]
    assert figure.get_supylabel() == "lag [rad]"
    for axis, curves in zip(figure.axes, PANELS.values(), strict=True):
        drawn = [line for line in axis.lines if len(line.get_xdata()) == len(ANGLES)]
        for line, (method, values) in zip(drawn, curves, strict=True):
            assert line.get_color() == METHOD_STYLES[method].color
            np.testing.assert_allclose(line.get_xdata(), ANGLES / math.pi)
            np.testing.assert_allclose(line.get_ydata(), 2 * values)


@pytest.mark.parametrize("n_panels", [1, 2, 3, 4])
def test_the_lowest_panel_of_each_column_names_the_nuisance(n_panels):
    names = [f"panel {n}" for n in range(n_panels)]
    figure = plot_against_nuisance(
        ANGLES,
        {name: [("flow", ANGLES)] for name in names},
        ylabel="lag [rad]",
        trained=dict.fromkeys(names, (0, 1)),
    )
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == names
    labels = [axis.get_xlabel() for axis in shown]
    assert labels[-2:] == len(labels[-2:]) * [r"nuisance parameter $z/\pi$"]
    assert not any(labels[:-2])


def test_only_ends_of_the_trained_range_in_view_are_marked():
    narrow, flow = against_nuisance().axes
    marked = [line.get_xdata()[0] for line in narrow.lines if line.get_linestyle() == ":"]
    assert marked == pytest.approx([0.0, 0.5])
    assert not [line for line in flow.lines if line.get_linestyle() == ":"]


def test_figures_draw_without_warnings_and_stay_away_from_pyplot():
    """A figure that pyplot knows is shown twice in a notebook, and is never freed."""
    before = plt.get_fignums()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (events_figure(), calibration_figure(3), against_nuisance()):
            assert isinstance(figure, Figure)
            figure.draw_without_rendering()
    assert plt.get_fignums() == before
