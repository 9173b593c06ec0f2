"""Figures of ensembles show every result once, and hide none."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from sbilib.plotting.ensembles import (
    EnsembleCurves,
    plot_ensemble_sizes,
    plot_error_decomposition,
    plot_mean_errors,
    plot_widened_coverage,
)
from sbilib.plotting.style import CLASSIFIER_COLOR, FLOW_COLOR

SIZES = [1, 2, 4]
KINDS = ("mean_density", "mean_log_ratio")


@pytest.fixture
def curves() -> EnsembleCurves:
    overlaps, coverage = [], []
    for size in SIZES:
        for kind in ["single"] if size == 1 else KINDS:
            for number in range(4 // size):
                value = 0.9 + 0.02 * size + 0.001 * number
                overlaps.append({"kind": kind, "size": size, "number": number, "total_overlap": value})
            for parameter in ("mu", "z"):
                coverage.append(
                    {"parameter": parameter, "kind": kind, "size": size, "coverage": 0.68, "error": 0.01}
                )
    return EnsembleCurves(pd.DataFrame(overlaps), pd.DataFrame(coverage))


def test_sizes_have_a_row_for_each_quantity_and_a_column_for_each_case(curves):
    figure = plot_ensemble_sizes({c: {"flow": curves, "classifier": curves} for c in ("large", "small")})
    assert len(figure.axes) == 6
    assert [axis.get_title() for axis in figure.axes[:2]] == ["large distance", "small distance"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["flow", "classifier", "mean density", "mean log ratio"]
    assert [tick.get_text() for tick in figure.axes[4].get_xticklabels()] == ["1", "2", "4"]


def test_every_sub_ensemble_is_a_dot(curves):
    figure = plot_ensemble_sizes({"large": {"flow": curves}})
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "."]
    # Single members stand at the start of both kinds of mean.
    assert sum(len(line.get_xdata()) for line in dots) == 2 * (4 + 2 + 1)
    assert {line.get_color() for line in dots} == {FLOW_COLOR}


def test_coverage_is_drawn_in_percent_with_its_error(curves):
    axis = plot_ensemble_sizes({"large": {"classifier": curves}}).axes[1]
    (bars, *_) = axis.containers
    assert np.allclose(bars[0].get_ydata(), 68.0)
    assert bars[0].get_color() == CLASSIFIER_COLOR
    segments = bars[2][0].get_segments()
    assert np.allclose([s[1, 1] - s[0, 1] for s in segments], 2.0)


def test_decomposition_has_points_and_the_expected_curve():
    rows = [
        {"parameter": p, "kind": k, "size": s, "rms": math.sqrt(0.01 + 0.09 / s)}
        for p in ("mu", "z")
        for s in SIZES
        for k in (["single"] if s == 1 else KINDS)
    ]
    table = pd.DataFrame(rows)
    table.loc[table.index[-1], "rms"] = 0.0
    fits = {"large": {"flow": {p: (lambda size: math.sqrt(0.01 + 0.09 / size)) for p in ("mu", "z")}}}
    figure = plot_error_decomposition({"large": {"flow": table}}, fits)
    top, bottom = figure.axes
    assert top.get_yscale() == "log"
    curve = top.lines[-1]
    assert np.allclose(curve.get_ydata(), np.sqrt(0.01 + 0.09 / np.asarray(curve.get_xdata())))
    shown = [sum(len(line.get_xdata()) for line in axis.lines[:-1]) for axis in (top, bottom)]
    assert shown == [6, 5]


def test_errors_of_means_show_truth_and_suggestions():
    rows = [
        {
            "case": c,
            "parameter": p,
            "method": m,
            "ensemble": "bootstrap",
            "true": 0.1,
            "naive": 0.05,
            "better": math.nan,
        }
        for c in ("large", "small")
        for p in ("mu", "z")
        for m in ("flow", "classifier")
    ]
    figure = plot_mean_errors(pd.DataFrame(rows))
    assert len(figure.axes) == 4
    for axis in figure.axes:
        assert [patch.get_width() for patch in axis.patches] == [0.1, 0.1]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["true error", "naive", "better"]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [
        "bootstrap, flow",
        "bootstrap, classifier",
    ]


def test_widened_coverage_stands_beside_the_plain_one():
    groups = [("truth", 0), ("flow", 1), ("flow", 8)]
    rows = [
        {"case": "large", "parameter": p, "method": m, "size": s, "plain": 0.6, "widened": 0.7, "error": 0.01}
        for p in ("mu", "z")
        for m, s in groups
    ]
    figure = plot_widened_coverage(pd.DataFrame(rows))
    for axis in figure.axes:
        assert len(axis.containers) == 5, "the exact likelihood is never widened"
        heights = sorted(float(bars[0].get_ydata()[0]) for bars in axis.containers)
        assert heights == pytest.approx([60.0, 60.0, 60.0, 70.0, 70.0])
    labels = [t.get_text() for t in figure.axes[-1].get_xticklabels()]
    assert labels == ["exact", "flow, 1", "flow, 8"]
