"""Figures of features and rates show what they are given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sbilib.errors import DataError, ParameterError
from sbilib.plotting.higgs_precision import plot_ellipses, plot_feature_path, plot_precision


def precision() -> pd.DataFrame:
    rows = []
    for method in ("classifier", "flow"):
        for n_features in (2, 6):
            for likelihood in ("shape", "extended"):
                for parameter in ("mu", "z"):
                    rows.append(
                        {
                            "threshold": "realistic", "n_features": n_features, "method": method,
                            "likelihood": likelihood, "scale": "profiled", "parameter": parameter,
                            "width": 0.1, "width_error": 0.01, "width_low": 0.09, "width_high": 0.12,
                            "coverage": 0.67, "coverage_error": 0.02, "coverage_low": 0.6,
                            "coverage_high": 0.7,
                        }
                    )  # fmt: skip
    return pd.DataFrame(rows)


def test_precision_shows_widths_above_coverages_for_both_parameters():
    figure = plot_precision(precision(), threshold="realistic")
    assert len(figure.axes) == 4
    assert [text.get_text() for text in figure.axes[2].get_xticklabels()] == ["2", "6"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == len(set(labels)) == 4
    with pytest.raises(DataError, match="published"):
        plot_precision(precision(), threshold="published")


def test_feature_path_starts_with_the_pair_and_ends_with_the_last_feature():
    path = pd.DataFrame({"feature": ["a", "b"], "mu": [0.08, 0.07], "z": [0.03, 0.02]})
    figure = plot_feature_path(path, start={"mu": 0.1, "z": 0.04}, full={"mu": 0.05, "z": 0.01})
    first = figure.axes[0].lines[0]
    assert list(first.get_xdata()) == [0.1, 0.08, 0.07]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["published pair", "+ a", "+ b"]
    with pytest.raises(ParameterError, match="no features"):
        plot_feature_path(path[:0], start={"mu": 0.1, "z": 0.04}, full={"mu": 0.05, "z": 0.01})


def test_shadows_of_the_ellipse_are_the_errors():
    information = np.array([[400.0, 300.0], [300.0, 900.0]])
    rate = np.outer([10.0, 25.0], [10.0, 25.0])
    figure = plot_ellipses({"all": information}, center=(0.2, 1.0), rate=rate)
    line = figure.axes[0].lines[0]
    errors = np.sqrt(np.diag(np.linalg.inv(information)))
    assert np.ptp(line.get_xdata()) / 2 == pytest.approx(errors[0], rel=1e-3)
    assert np.ptp(line.get_ydata()) / 2 == pytest.approx(errors[1], rel=1e-3)
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    distance = (band - [0.2, 1.0]) @ [10.0, 25.0]
    assert np.abs(distance).max() == pytest.approx(1.0)
    with pytest.raises(ParameterError, match="at least one"):
        plot_ellipses({}, center=(0.2, 1.0))
