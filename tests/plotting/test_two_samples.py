"""Figures of two samples show densities, ratios and divergences as they are."""

from __future__ import annotations

import warnings

import matplotlib.colors as mcolors
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from sbilib.diagnostics import DIVERGENCES, compare_features
from sbilib.errors import DataError, ParameterError
from sbilib.plotting import FLOW_COLOR
from sbilib.plotting.two_samples import MEASURE_LABELS, plot_divergences, plot_marginals

NAMES, UNITS = ["mass", "angle", "energy"], ["GeV", "1", "GeV"]


def events(n_events: int, seed: int, n_features: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_events, n_features))


def comparison(seed: int = 1):
    return compare_features(
        events(400, seed), events(300, 9), names=NAMES, seed=1, n_bins=8, n_splits=20, n_bootstrap=5
    )


def test_each_feature_has_a_density_and_a_ratio_with_its_unit():
    axes = plot_marginals({"flow": events(300, 1)}, events(300, 2), NAMES, UNITS, columns=2).axes
    shown = [axis for axis in axes if axis.get_visible()]
    assert len(axes) == 8
    assert len(shown) == 6
    assert {axis.get_xlabel() for axis in shown} == {"", "mass [GeV]", "angle", "energy [GeV]"}
    # Rows of densities and of ratios alternate.
    assert [axis.get_ylabel() for axis in axes] == ["density", "", "ratio", "", "density", "", "ratio", ""]


def test_densities_count_all_events_and_ratios_divide_them():
    generated, reference = events(4000, 1), events(3000, 2)
    above, *_, below = plot_marginals({"flow": generated[:, :1]}, reference[:, :1], ["x"], ["1"]).axes
    filled, line = above.patches
    for patch, sample in ((filled, reference), (line, generated)):
        data = patch.get_data()
        inside = ((sample[:, 0] >= data.edges[0]) & (sample[:, 0] <= data.edges[-1])).mean()
        assert (data.values * np.diff(data.edges)).sum() == pytest.approx(inside)
    assert line.get_data().edges[[0, -1]] == pytest.approx(np.quantile(reference[:, 0], [0.001, 0.999]))
    ratio = below.patches[1].get_data().values
    np.testing.assert_allclose(ratio, line.get_data().values / filled.get_data().values)
    assert below.get_ylim() == pytest.approx((0.8, 1.2))
    assert mcolors.to_hex(line.get_edgecolor()).upper() == FLOW_COLOR


def test_the_band_is_the_error_of_the_reference():
    above, below = plot_marginals({"flow": events(50, 1, 1)}, events(1000, 2, 1), ["x"], ["1"]).axes
    density, band = above.patches[0].get_data(), below.patches[0].get_data()
    counts = density.values * np.diff(density.edges) * 1000
    np.testing.assert_allclose(band.values, 1 + 1 / np.sqrt(counts))
    np.testing.assert_allclose(band.baseline, 1 - 1 / np.sqrt(counts))


def test_weights_count():
    generated, reference = events(500, 1, 1), events(500, 2, 1)
    chosen = generated[:, 0] > 0
    weighted, cut = (
        plot_marginals(samples, reference, ["x"], ["1"], weights=weights).axes[0].patches[1].get_data().values
        for samples, weights in (
            ({"a": generated}, {"a": chosen.astype(float)}),
            ({"a": generated[chosen]}, None),
        )
    )
    np.testing.assert_allclose(weighted, cut)


def test_divergences_are_shown_over_their_baseline():
    results = {"first": comparison(1), "second": comparison(2)}
    axis = plot_divergences(results, "wasserstein").axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == NAMES
    for bars, (label, result) in zip(axis.containers[1::2], results.items(), strict=True):
        assert bars.get_label() == label
        points = bars.lines[0]
        assert points.get_xdata() == pytest.approx(result.value[:, 4] / result.baseline[:, 4])
        ends = bars.lines[2][0].get_segments()[1][:, 0]
        assert np.ptp(ends) == pytest.approx(2 * result.error[1, 4] / result.baseline[1, 4])
    band = axis.containers[0][2]
    result = results["first"]
    assert band.get_x() == pytest.approx(result.baseline_low[2, 4] / result.baseline[2, 4])
    assert band.get_x() + band.get_width() == pytest.approx(
        result.baseline_high[2, 4] / result.baseline[2, 4]
    )
    # The first feature is on top, as in a table.
    assert axis.get_ylim()[0] > axis.get_ylim()[1]


def test_the_limit_is_drawn_on_request():
    for limit, expected in ((2.0, {1.0, 2.0}), (None, {1.0})):
        axis = plot_divergences({"flow": comparison()}, limit=limit).axes[0]
        guides = {line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 2}
        assert guides == expected


def test_every_measure_has_a_name():
    assert tuple(MEASURE_LABELS) == DIVERGENCES
    for measure in DIVERGENCES:
        assert MEASURE_LABELS[measure] in plot_divergences({"a": comparison()}, measure).axes[0].get_xlabel()


def test_figures_draw_without_warnings_and_stay_away_from_pyplot():
    before = plt.get_fignums()
    samples = {f"sample {k}": torch.from_numpy(events(200, k, 18)) for k in range(7)}
    names = [f"feature {k}" for k in range(18)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (
            plot_marginals(samples, torch.from_numpy(events(300, 8, 18)), names, ["GeV"] * 18),
            plot_divergences({"flow": comparison()}),
        ):
            figure.draw_without_rendering()
            (legend,) = figure.legends
            labels = [text.get_text() for text in legend.get_texts()]
            assert len(labels) == len(set(labels))
    assert plt.get_fignums() == before


def test_what_does_not_fit_is_refused():
    good = events(100, 1)
    with pytest.raises(DataError, match=r"'flow' must have shape .*got \(100, 2\), 3 names"):
        plot_marginals({"flow": good[:, :2]}, good, NAMES, UNITS)
    with pytest.raises(DataError, match="3 names and 2 units"):
        plot_marginals({"flow": good}, good, NAMES, UNITS[:2])
    with pytest.raises(DataError, match=r"weights of 'flow' must have shape \(100,\)"):
        plot_marginals({"flow": good}, good, NAMES, UNITS, weights={"flow": np.ones(3)})
    with pytest.raises(DataError, match="'mass' of the reference has no spread"):
        plot_marginals({"flow": good}, np.zeros((100, 3)), NAMES, UNITS)
    with pytest.raises(ParameterError, match="one to 7 samples"):
        plot_marginals({}, good, NAMES, UNITS)
    other = compare_features(good, good, seed=1, n_bins=5, n_splits=2, n_bootstrap=2)
    with pytest.raises(DataError, match="'b' has features"):
        plot_divergences({"a": comparison(), "b": other})
    with pytest.raises(ParameterError, match="measure"):
        plot_divergences({"a": comparison()}, "entropy")
