"""Figures of likelihoods show the contours where the likelihood has them, in the colors of the methods."""

from __future__ import annotations

import math
import warnings

import matplotlib.colors as mcolors
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from sbilib.likelihood import (
    Intervals,
    NLLScan,
    Profile,
    ScanGrid,
    crossing_interval,
    fit_quartic,
    parabolic_interval,
    profile_signal_ratio,
)
from sbilib.plotting import (
    METHOD_STYLES,
    NEUTRAL_COLOR,
    TRUTH_COLOR,
    ContourPanel,
    plot_contours,
    plot_interval_construction,
)

BEST = (0.2, 0.25 * math.pi)
SIGMAS = (0.05, 0.06 * math.pi)


def scan(shift: float = 0.0, *, infinite_beyond: float = math.inf) -> NLLScan:
    """An elliptic likelihood around `BEST`, infinite where it is larger than ``infinite_beyond``."""
    grid = ScanGrid.uniform(nuisance_range=(0.1 * math.pi, 0.4 * math.pi), n_ratios=101, n_nuisances=81)
    ratio_pull = (grid.signal_ratios - BEST[0] - shift) / SIGMAS[0]
    nuisance_pull = (grid.nuisances - BEST[1]) / SIGMAS[1]
    nll = (ratio_pull[:, None] ** 2 + nuisance_pull**2) / 2
    return NLLScan(torch.where(nll > infinite_beyond, math.inf, nll), torch.tensor(0.0), grid)


def contour_panel(method: str = "flow", **options: float) -> ContourPanel:
    exact = [scan(**options), scan(0.01, **options)]
    return ContourPanel(f"{method} title", method, [scan(0.02, **options)] * 2, exact, [BEST, BEST])


def contour_sets(axis: Axes) -> list[ContourSet]:
    return [artist for artist in axis.get_children() if isinstance(artist, ContourSet)]


def all_panels() -> Figure:
    return plot_contours([[contour_panel("flow"), contour_panel("classifier")]] * 2)


def test_contours_have_a_panel_each_and_labels_outside():
    figure = all_panels()
    assert len(figure.axes) == 4
    assert [axis.get_title() for axis in figure.axes] == ["flow title", "classifier title"] * 2
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "", *2 * [r"signal ratio $\mu$"]]
    # The nuisance parameter is given in units of pi.
    label = r"nuisance parameter $z/\pi$"
    assert [axis.get_ylabel() for axis in figure.axes] == [label, "", label, ""]
    assert figure.axes[0].get_ylim() == pytest.approx((0.1, 0.4))


def test_legend_of_contours_names_each_method_once():
    names = [text.get_text() for text in all_panels().legends[0].get_texts()]
    assert names == ["exact", "flow", "classifier", "true parameters"]


def test_contours_wear_the_color_of_their_method():
    for axis, method in zip(all_panels().axes, ["flow", "classifier"] * 2, strict=True):
        drawn = [mcolors.to_hex(contours.get_edgecolor()[0]) for contours in contour_sets(axis)]
        assert drawn == [c.lower() for c in 2 * [TRUTH_COLOR] + 2 * [METHOD_STYLES[method].color]]


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_contours_lie_where_the_scaled_likelihood_has_them(scale):
    """On an ellipse the contour at a level reaches sqrt(2 level / scale) standard deviations."""
    axis = plot_contours([[contour_panel()]], scale=scale).axes[0]
    inner, outer = contour_sets(axis)[0].get_paths()
    reach = math.sqrt(2 * 0.5 / scale)
    extent = np.ptp(inner.vertices, axis=0) / 2
    assert extent == pytest.approx([reach * SIGMAS[0], reach * SIGMAS[1] / math.pi], rel=0.01)
    assert np.ptp(outer.vertices[:, 0]) / 2 == pytest.approx(2 * reach * SIGMAS[0], rel=0.01)


def test_parts_left_out_of_a_scan_cut_no_contour_and_do_not_warn():
    """A restricted scan is infinite away from the minimum, here just beyond the outer contour."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot_contours([[contour_panel(infinite_beyond=2.2)]])
        figure.draw_without_rendering()
    whole = plot_contours([[contour_panel()]])
    step = 0.5 / 100
    for drawn, expected in zip(contour_sets(figure.axes[0]), contour_sets(whole.axes[0]), strict=True):
        for path, other in zip(drawn.get_paths(), expected.get_paths(), strict=True):
            extents = np.ptp(path.vertices, axis=0), np.ptp(other.vertices, axis=0)
            np.testing.assert_allclose(*extents, atol=2 * step)
            assert len(path.to_polygons(closed_only=False)) == 1


def construction(nll: torch.Tensor | None = None) -> tuple[Figure, dict[str, Intervals]]:
    profile = profile_signal_ratio(scan())
    if nll is not None:
        profile = Profile(profile.parameter_values, nll)
    intervals = {"published way": parabolic_interval(profile), "exact crossings": crossing_interval(profile)}
    return plot_interval_construction(profile, fit_quartic(profile), intervals, truth=0.21), intervals


def test_interval_construction_marks_both_edges_and_names_each_thing_once():
    figure, intervals = construction()
    (axis,) = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == (r"signal ratio $\mu$", r"$-2\log\lambda$")
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(names) == sorted(
        ["profile on the grid", "quartic fit", r"$-2\log\lambda=1$", *intervals, "true value"]
    )
    vertical = [line.get_xdata()[0] for line in axis.lines if len(set(line.get_xdata())) == 1]
    edges = [float(edge) for interval in intervals.values() for edge in (interval.lower, interval.upper)]
    assert vertical == pytest.approx([*edges, 0.21])
    # The profile of this likelihood is a parabola, so both ways give one standard deviation.
    assert edges == pytest.approx(2 * [BEST[0] - SIGMAS[0], BEST[0] + SIGMAS[0]], rel=1e-3)
    colors = {line.get_label(): line.get_color() for line in axis.lines}
    assert colors["profile on the grid"] == TRUTH_COLOR
    assert colors["quartic fit"] == NEUTRAL_COLOR


def test_interval_construction_takes_a_profile_with_infinite_ends():
    nll = profile_signal_ratio(scan(infinite_beyond=6.0)).nll
    assert nll.isinf().any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure, _ = construction(nll)
        figure.draw_without_rendering()
    assert all(np.isfinite(line.get_ydata()).all() for line in figure.axes[0].lines)


def test_figures_of_likelihoods_stay_away_from_pyplot():
    """A figure that pyplot knows is shown twice in a notebook, and is never freed."""
    before = plt.get_fignums()
    assert isinstance(all_panels(), Figure)
    assert isinstance(construction()[0], Figure)
    assert plt.get_fignums() == before
