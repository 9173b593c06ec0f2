"""Figures of a sweep show what the tables hold, in the colors of the methods."""

from __future__ import annotations

import math
import warnings

import matplotlib.colors as mcolors
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from sbilib.plotting import METHOD_STYLES, plot_learning_rates, plot_model_histograms, plot_swaps
from sbilib.plotting.sweeps import METRIC_LABELS

METRICS = list(METRIC_LABELS)
RATES = [1e-6, 1e-5, 1e-4]


def summary(n_cases: int = 2) -> pd.DataFrame:
    cases = ["large", "small"][:n_cases]
    index = [(case, method, rate) for case in cases for method in ("flow", "classifier") for rate in RATES]
    index += [(case, "truth", math.nan) for case in cases]
    rows = pd.MultiIndex.from_tuples(index, names=["case", "method", "learning_rate"])
    rng = np.random.default_rng(1)
    columns = {(name, part): rng.uniform(size=len(rows)) for name in METRICS for part in ("mean", "std")}
    return pd.DataFrame({**columns, ("models", ""): 3}, index=rows)


def models(n: int = 8) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({name: rng.uniform(0.2, 0.9, size=3 * n) for name in METRICS})
    methods = np.repeat(["flow", "classifier", "truth"], n)
    swaps = pd.array([*(k % 4 for k in range(n)), *[pd.NA] * (2 * n)], dtype="Int64")
    return frame.assign(method=methods, **{"min swaps": swaps})


@pytest.mark.parametrize("n_cases", [1, 2])
def test_learning_rates_have_a_row_a_metric_and_a_column_a_case(n_cases):
    figure = plot_learning_rates(summary(n_cases))
    assert len(figure.axes) == len(METRICS) * n_cases
    labels = [axis.get_ylabel() for axis in figure.axes[::n_cases]]
    assert labels == [METRIC_LABELS[name] for name in METRICS]
    assert all(axis.get_xscale() == "log" for axis in figure.axes)
    assert figure.axes[-1].get_xlabel() == "learning rate"
    assert [axis.get_title() for axis in figure.axes[:n_cases]] == ["large distance", "small distance"][
        :n_cases
    ]


def test_learning_rates_show_means_and_bands_of_one_standard_deviation():
    table = summary()
    axis = plot_learning_rates(table.sample(frac=1, random_state=1).sort_index(level="case")).axes[2 * 3]
    for method, band in zip(("classifier", "flow"), axis.collections, strict=True):
        style = METHOD_STYLES[method]
        expected = table.loc["large"].loc[method]["mu coverage"].sort_index()
        (line,) = (line for line in axis.lines if line.get_label() == style.label)
        assert line.get_color() == style.color
        np.testing.assert_allclose(line.get_xdata(), RATES)
        np.testing.assert_allclose(line.get_ydata(), expected["mean"])
        assert mcolors.to_hex(band.get_facecolor()[0]) == style.color.lower()
        heights = band.get_paths()[0].vertices[:, 1]
        assert heights.max() == pytest.approx((expected["mean"] + expected["std"]).max())
        assert heights.min() == pytest.approx((expected["mean"] - expected["std"]).min())


def test_exact_likelihood_is_level_and_has_no_overlap_with_itself():
    table = summary()
    axes = plot_learning_rates(table).axes
    exact = METHOD_STYLES["truth"].label
    assert not [line for line in axes[0].lines if line.get_label() == exact]
    (line,) = (line for line in axes[2 * 3].lines if line.get_label() == exact)
    level = table.xs("truth", level="method").loc["large"]["mu coverage", "mean"].iloc[0]
    np.testing.assert_allclose(line.get_ydata(), level)


def test_methods_are_named_once():
    for figure in (plot_learning_rates(summary()), plot_model_histograms(models())):
        (legend,) = figure.legends
        assert sorted(text.get_text() for text in legend.get_texts()) == ["classifier", "exact", "flow"]


def test_histograms_count_every_model_once():
    figure = plot_model_histograms(models(8))
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_xlabel() for axis in shown] == [METRIC_LABELS[name] for name in METRICS]
    for axis, name in zip(shown, METRICS, strict=True):
        outlines = [patch for patch in axis.patches if not isinstance(patch, plt.Rectangle)]
        assert len(outlines) == (2 if "overlap" in name else 3)
        bars = [patch.get_height() for patch in axis.patches if isinstance(patch, plt.Rectangle)]
        assert sum(bars) == 8 * len(outlines)


def test_swaps_show_a_point_a_pair_and_the_mean_of_each_number():
    flows = models(8)
    figure = plot_swaps({"large": flows, "small": flows})
    assert len(figure.axes) == 6
    axis = figure.axes[0]
    points = axis.lines[0]
    assert points.get_color() == METHOD_STYLES["flow"].color
    np.testing.assert_array_equal(np.round(points.get_xdata()), [k % 4 for k in range(8)])
    np.testing.assert_allclose(points.get_ydata(), flows["mu overlap"][:8])
    means = [line.get_ydata()[0] for line in axis.lines[1:]]
    expected = flows[:8].groupby("min swaps")["mu overlap"].mean()
    np.testing.assert_allclose(means, expected)


def test_figures_of_little_data_draw_without_warnings_and_stay_away_from_pyplot():
    before = plt.get_fignums()
    lonely = summary(1).assign().copy()
    lonely.loc[:, (slice(None), "std")] = math.nan
    flows = models(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (
            plot_learning_rates(lonely),
            plot_model_histograms(flows),
            plot_model_histograms(flows[flows["method"] == "truth"]),
            plot_swaps({"large": flows}),
            plot_swaps({"large": flows.iloc[:0]}),
        ):
            assert isinstance(figure, Figure)
            figure.draw_without_rendering()
    assert plt.get_fignums() == before
