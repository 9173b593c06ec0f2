"""Figures of the search and of the amplification show what they are given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sbilib.errors import DataError, ParameterError
from sbilib.plotting.amplification import (
    SearchPanel,
    StrengthPanel,
    plot_amplification,
    plot_limit_differences,
    plot_limits,
    plot_search_templates,
    plot_strength_coverage,
    plot_strengths,
)
from sbilib.studies.amplification import Amplification

PANEL = SearchPanel(
    "score", "classifier score", [0.5, 0.75, 1.0], [90.0, 40.0], [9.0, 2.0], [5.0, 10.0], [99.0, 50.0]
)
LIMITS = pd.DataFrame(
    [
        {
            "background": "generated",
            "n_events": count,
            "luminosity": luminosity,
            "beta": beta,
            "observed": 100 * beta + luminosity / 1000 + count,
            "expected": 1.0,
            "difference": beta + count,
        }
        for count in (1e4, 1e5, 1e6)
        for luminosity in (10.0, 1000.0)
        for beta in (0.05, 0.1)
    ]
)


def line(axis, label: str):
    (found,) = (each for each in axis.lines if each.get_label() == label)
    return found.get_xydata()


def legend(figure) -> set[str]:
    return {text.get_text() for text in figure.legends[0].get_texts()}


def test_signal_stands_on_background_and_the_ratio_is_data_over_their_sum():
    figure = plot_search_templates([PANEL, PANEL._replace(title="mass")])
    top, other, ratio, _ = figure.axes
    stairs = {patch.get_label(): patch.get_data() for patch in top.patches}
    assert stairs["generated background"].values == pytest.approx([90, 40])
    assert stairs["signal on top"].values == pytest.approx([95, 50])
    assert stairs["signal on top"].baseline == pytest.approx([90, 40])
    assert stairs["signal alone"].values == pytest.approx([5, 10])
    points = next(each for each in ratio.lines if each.get_marker() == "o")
    assert points.get_ydata() == pytest.approx([99 / 95, 1.0])
    (band,) = ratio.patches
    assert band.get_data().values == pytest.approx([1 + 9 / 95, 1 + 2 / 50])
    assert (top.get_title(), other.get_title(), ratio.get_xlabel()) == ("score", "mass", "classifier score")
    assert "simulated data" in legend(figure)
    with pytest.raises(DataError, match="signal of panel 'score' needs 2 bins"):
        plot_search_templates([PANEL._replace(signal=[1.0])])
    with pytest.raises(ParameterError, match="needs a panel"):
        plot_search_templates([])


def test_strengths_have_bands_of_their_errors_and_the_true_value():
    table = pd.DataFrame({"luminosity": [10.0, 100.0], "strength": [1.2, 1.1], "error": [0.5, 0.2]})
    figure = plot_strengths([StrengthPanel("score", {"generated": table})], truth=1.0)
    (axis,) = figure.axes
    assert line(axis, "generated") == pytest.approx(np.array([[10, 1.2], [100, 1.1]]))
    assert line(axis, "true value")[:, 1] == pytest.approx([1.0, 1.0])
    vertices = axis.collections[0].get_paths()[0].vertices
    assert (vertices[:, 1].min(), vertices[:, 1].max()) == pytest.approx((0.7, 1.7))
    assert legend(figure) == {"generated", "true value"}


def test_limits_are_drawn_against_luminosity_and_events():
    left, right = plot_limits(LIMITS, beta=0.1).axes
    assert [each.get_label() for each in left.lines] == ["$10^{4}$", "$10^{5}$", "$10^{6}$"]
    assert line(left, "$10^{5}$") == pytest.approx(np.array([[10, 100_010.01], [1000, 100_011]]))
    assert line(right, "1000 /fb")[:, 0].tolist() == [1e4, 1e5, 1e6]
    assert line(right, "1000 /fb")[0, 1] == pytest.approx(10_011)
    with pytest.raises(ParameterError, match=r"rows of beta 0\.3"):
        plot_limits(LIMITS, beta=0.3)
    with pytest.raises(ParameterError, match="one background"):
        plot_limits(pd.concat([LIMITS, LIMITS.assign(background="simulated")]), beta=0.1)


def test_differences_are_those_of_the_largest_luminosity_unless_asked():
    figure = plot_limit_differences({"score": LIMITS.assign(difference=LIMITS.luminosity + LIMITS.beta)})
    (axis,) = figure.axes
    assert line(axis, r"$\beta$ = 5%")[:, 1] == pytest.approx([1000.05] * 3)
    assert line(axis, r"$\beta$ = 10%")[:, 0].tolist() == [1e4, 1e5, 1e6]
    asked = plot_limit_differences({"score": LIMITS}, luminosity=10.0)
    assert asked.axes[0].get_title() == "score, 10 /fb"
    with pytest.raises(ParameterError, match="no rows at 3 /fb"):
        plot_limit_differences({"score": LIMITS}, luminosity=3.0)


def test_coverage_has_its_errors_and_the_goal():
    table = pd.DataFrame({"luminosity": [10.0, 100.0], "coverage": [0.68, 0.3], "error": [0.01, 0.02]})
    (axis,) = plot_strength_coverage({"without": table}).axes
    (container,) = axis.containers
    assert container.lines[0].get_xydata() == pytest.approx(np.array([[10, 0.68], [100, 0.3]]))
    segments = np.array(container.lines[2][0].get_segments())
    assert segments[1, :, 1] == pytest.approx([0.28, 0.32])
    goal = axis.patches[0].get_extents().transformed(axis.transData.inverted())
    assert (goal.y0, goal.y1) == pytest.approx((0.66, 0.71))


def test_amplification_has_intervals_and_arrows_for_lower_bounds():
    results = [
        Amplification(2000.0, 1500.0, 3000.0, 1000.0),
        Amplification(float("inf"), 50_000.0, float("inf"), 10_000.0),
    ]
    (axis,) = plot_amplification({"m_bb": {"flow": results}}).axes
    (container,) = axis.containers
    assert container.lines[0].get_xydata() == pytest.approx(np.array([[1000, 2.0], [10_000, 5.0]]))
    segments = np.array(container.lines[2][0].get_segments())
    assert segments[0, :, 1] == pytest.approx([1.5, 3.0])
    assert len(axis.lines) > 2
    with pytest.raises(ParameterError, match="needs a panel"):
        plot_amplification({})
