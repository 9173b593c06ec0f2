"""Figures of generative models show the numbers they are given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sbilib.errors import DataError, ParameterError
from sbilib.plotting.generative import (
    plot_areas,
    plot_correlation_differences,
    plot_histograms,
    plot_tail_fractions,
    plot_verdicts,
)

NAMES = ["mass", "angle"]


def histograms(scale: float = 1.0) -> pd.DataFrame:
    parts = []
    for name in NAMES:
        edges = np.linspace(0, 4, 5)
        bins = {"low": edges[:-1], "high": edges[1:], "generated": scale * np.array([4.0, 8, 8, 0])}
        part = pd.DataFrame(bins).assign(reference=[5.0, 10.0, 5.0, 0.0], feature=name)
        parts.append(part.assign(n_generated=20.0 * scale, n_reference=25.0))
    return pd.concat(parts, ignore_index=True)


def test_histograms_are_densities_of_all_events_and_their_ratio():
    figure = plot_histograms({"flow": histograms(), "other": histograms(2.0)}, NAMES, ["GeV", "1"], columns=2)
    above, _, below, _ = figure.axes
    filled, line, other = (patch.get_data().values for patch in above.patches)
    np.testing.assert_allclose(filled, [0.2, 0.4, 0.2, 0.0])
    np.testing.assert_allclose(line, [0.2, 0.4, 0.4, 0.0])
    np.testing.assert_allclose(other, line)
    ratio = below.patches[1].get_data().values
    np.testing.assert_allclose(ratio, [1.0, 1.0, 2.0, np.nan])
    band = below.patches[0].get_data()
    np.testing.assert_allclose(band.values[:2], 1 + 1 / np.sqrt([5.0, 10.0]))
    assert [axis.get_xlabel() for axis in figure.axes[2:]] == ["mass [GeV]", "angle"]


def test_histograms_that_do_not_fit_are_named():
    wrong = histograms()
    wrong["reference"] += 1
    with pytest.raises(DataError, match="'b' has another reference"):
        plot_histograms({"a": histograms(), "b": wrong}, NAMES, ["1", "1"])
    with pytest.raises(DataError, match="no histogram of 'energy'"):
        plot_histograms({"a": histograms()}, ["energy"], ["GeV"])
    with pytest.raises(ParameterError, match="a unit for each"):
        plot_histograms({"a": histograms()}, NAMES, ["GeV"])
    with pytest.raises(ParameterError, match="got 0"):
        plot_histograms({}, NAMES, ["1", "1"])


def areas() -> pd.DataFrame:
    row = {"error": 0.01, "low": 0.48, "high": 0.52}
    rows = {}
    for number, name in enumerate(("good", "bad")):
        rows[name] = {
            kind if what is None else f"{kind}_{what}": value
            for kind in ("trees", "network")
            for what, value in {None: 0.5 + 0.1 * number, **row}.items()
        }
    return pd.DataFrame(rows).T


def test_areas_stand_in_their_null_bands():
    (axis,) = plot_areas(areas()).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["good", "bad"]
    points = [
        container[0].get_xdata(orig=False) for container in axis.containers if hasattr(container, "has_xerr")
    ]
    for found in points:
        np.testing.assert_allclose(found, [0.5, 0.6])
    band = axis.patches[0]
    assert (band.get_x(), band.get_width()) == (pytest.approx(0.48), pytest.approx(0.04))
    with pytest.raises(DataError, match="no sample"):
        plot_areas(areas().iloc[:0])


def test_verdicts_color_what_is_seen():
    p_values = pd.DataFrame({"KL": [0.01, 0.5], "trees": [0.05, np.nan]}, index=["a", "b"])
    texts = p_values.map(lambda value: f"{value:.2f}")
    (axis,) = plot_verdicts(p_values, texts).axes
    np.testing.assert_array_equal(axis.collections[0].get_array().ravel(), [1, 0, 0, 0])
    bold = [text.get_text() for text in axis.texts if text.get_fontweight() == "bold"]
    assert bold == ["0.01"]
    with pytest.raises(DataError, match="one shape"):
        plot_verdicts(p_values, texts.iloc[:1])


def test_correlations_fill_both_halves():
    rows = pd.DataFrame({"first": ["mass"], "second": ["angle"], "difference": [0.03]})
    axis = plot_correlation_differences({"flow": rows}, NAMES).axes[0]
    np.testing.assert_allclose(axis.images[0].get_array(), [[0, 0.03], [0.03, 0]])
    with pytest.raises(DataError, match="lacks the correlation"):
        plot_correlation_differences({"flow": rows}, [*NAMES, "energy"])
    with pytest.raises(ParameterError, match="one to three"):
        plot_correlation_differences({}, NAMES)


def test_tails_are_relative_to_what_is_expected():
    rows = pd.DataFrame(
        [
            {"feature": name, "level": level, "fraction": 0.02, "expected": 0.01, "fraction_error": 0.001}
            for name in NAMES
            for level in (0.01, 0.99)
        ]
    )
    axes = plot_tail_fractions({"flow": rows}, NAMES).axes
    assert [axis.get_title() for axis in axes] == ["lowest 1%", "highest 1%"]
    np.testing.assert_allclose(axes[0].containers[0][0].get_xdata(orig=False), [2.0, 2.0])
    with pytest.raises(DataError, match=r"no level 0\.99"):
        plot_tail_fractions({"b": rows, "flow": rows[rows["level"] < 0.5]}, NAMES)
