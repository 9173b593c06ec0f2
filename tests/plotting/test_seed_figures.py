import numpy as np
import pandas as pd
import pytest

from sbilib.errors import ParameterError
from sbilib.plotting.seeds import (
    NEOS_STYLES,
    SeedPoints,
    plot_benchmark,
    plot_blobs,
    plot_seed_points,
    seed_panel,
)


def test_band_holds_all_seeds_and_the_line_is_the_median():
    panel = seed_panel([0, 1], {"cls": [[1.0, 2.0, 9.0], [3.0, 3.0, 3.0]]}, "CLs", NEOS_STYLES, limit=0.5)
    assert list(panel.curves[0].y) == [2.0, 3.0]
    assert (list(panel.bands[0].low), list(panel.bands[0].high)) == ([1.0, 3.0], [9.0, 3.0])
    assert panel.horizontal == [0.5]
    assert panel.log == "y"
    with pytest.raises(ParameterError, match="no style for 'what'"):
        seed_panel([0], {"what": [[1.0]]}, "CLs", NEOS_STYLES)


def test_every_network_is_a_point_and_every_training_a_column():
    panel = SeedPoints("CLs", {"bce": [1.0, 2.0], "cls": [0.5]}, log=True, lines={"limit": 0.1})
    axis = plot_seed_points([panel], NEOS_STYLES).axes[0]
    heights = [list(line.get_ydata()) for line in axis.lines[:2]]
    assert heights == [[1.0, 2.0], [0.5]]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["BCE", "neos (CLs)"]
    with pytest.raises(ParameterError, match="needs a panel"):
        plot_seed_points([], NEOS_STYLES)


def test_blobs_have_a_legend_of_four():
    figure = plot_blobs({name: np.zeros((3, 2)) for name in ("signal", "background", "up", "down")})
    assert len(figure.axes[0].get_legend().get_texts()) == 4


def test_benchmark_shows_percent_above_the_limit_of_own_cases():
    table = pd.DataFrame(
        {
            "case": ["B0", "B0", "B0"],
            "measured": ["B0", "B0", "B1"],
            "initialization": [0, 1, 0],
            "sigma": [11.0, 12.0, 99.0],
        }
    )
    published = pd.DataFrame({"B0": [13.0, 15.0]}, index=["INFERNO", "optimal classifier"])
    axis = plot_benchmark(table, pd.Series({"B0": 10.0}), published).axes[0]
    heights = [np.asarray(line.get_ydata()) for line in axis.lines]
    np.testing.assert_allclose(heights[0], [10, 20])
    np.testing.assert_allclose(np.concatenate(heights[1:]), [30, 50])
