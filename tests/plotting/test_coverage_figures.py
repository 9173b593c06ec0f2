"""Figures of coverage show every result once, and hide none."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from sbilib.plotting import (
    CoveragePanel,
    plot_bootstrap_coverage,
    plot_edge_levels,
    plot_skewness,
    plot_window_effect,
)

WINDOWS = (4.5, math.inf)


@pytest.fixture
def levels() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    parts = []
    for parameter in ("mu", "z"):
        for window in WINDOWS:
            spread = rng.normal(scale=0.003, size=20)
            columns = {"lower": 0.70 + spread, "upper": 0.66 + spread, "best": 0.2 + spread}
            columns |= {"skewness": -0.2 + spread, "asymmetry": 0.03 + spread}
            parts.append(pd.DataFrame(columns).assign(parameter=parameter, window=window))
    return pd.concat(parts, ignore_index=True)


def points() -> pd.DataFrame:
    return pd.DataFrame({"k": [1, 9], "coverage": [0.52, 0.66], "error": [0.02, 0.01]})


def test_one_legend_names_everything_once():
    panel = CoveragePanel(
        "title",
        {"first": points(), "second": points()},
        {"expected": lambda k: 0.6 + 0.001 * k},
        {"toys": (0.68, 0.01)},
    )
    figure = plot_bootstrap_coverage([[panel, panel], [panel, panel]])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(names) == sorted(["toys", "68.3%", "expected", "first", "second"])
    assert [tick.get_text() for tick in figure.axes[2].get_xticklabels()] == ["1", "9"]
    assert len(figure.axes) == 4


def test_levels_have_a_panel_for_each_parameter_and_case(levels):
    chosen = levels[levels["window"] == 4.5]
    figure = plot_edge_levels({"large": chosen, "small": chosen})
    assert len(figure.axes) == 4
    assert all(axis.get_title() for axis in figure.axes)


def test_no_level_is_lost_outside_the_histogram(levels):
    chosen = levels[levels["window"] == 4.5].copy()
    chosen.loc[chosen.index[0], "lower"] = 0.9
    figure = plot_edge_levels({"large": chosen})
    outline = figure.axes[0].patches[0].get_xy()
    assert outline[1:-1:2, 1].sum() == 20


def test_skewness_is_drawn_with_both_expectations(levels):
    figure = plot_skewness(
        {"large": levels[levels["window"] == 4.5]},
        expected_level=lambda skewness, upper: 0.68 + (0.08 if upper else -0.08) * skewness,
        expected_skewness=lambda ratio: -0.2,
    )
    names = [text.get_text() for axis in figure.axes for text in axis.get_legend().get_texts()]
    assert names.count("labels known") == 1
    assert "expected, lower edge" in names
    assert "expected, upper edge" in names


def test_a_coverage_too_low_for_the_axis_is_written_out(levels):
    rows = [{"parameter": p, "intervals": "crossing", "window": math.nan} for p in ("mu", "z")]
    rows += [{"parameter": p, "intervals": "parabolic", "window": w} for p in ("mu", "z") for w in WINDOWS]
    summary = pd.DataFrame(rows).assign(coverage=0.68, error=0.01)
    summary.loc[(summary["parameter"] == "mu") & (summary["window"] == math.inf), "coverage"] = 0.017
    figure = plot_window_effect({"large": levels}, {"large": summary})
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert texts == ["1.7%"]
    assert [tick.get_text() for tick in figure.axes[1].get_xticklabels()] == ["4.5", "all"]
