"""Figures of the Higgs events have colors of components and units, and draw without warnings."""

from __future__ import annotations

import warnings

import matplotlib.colors as mcolors
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from sbilib.plotting import BACKGROUND_COLOR, SIGNAL_COLOR
from sbilib.plotting.higgs_events import (
    plot_joint_densities,
    plot_p_values,
    plot_relative_yields,
    plot_route_features,
    plot_shifted_features,
)
from sbilib.studies.higgs_routes import ROUTE_STAGES, compare_features

FEATURES = ("DER_mass_vis", "DER_pt_ratio_lep_had")
RANGES = ((20.0, 160.0), (0.0, 3.0))
GENERATOR = np.random.default_rng(3)


def pair(n_events: int = 3000, mass: float = 80.0) -> torch.Tensor:
    mass_values = GENERATOR.normal(mass, 15.0, n_events)
    return torch.from_numpy(np.column_stack([mass_values, GENERATOR.gamma(4.0, 0.2, n_events)]))


def comparison() -> pd.DataFrame:
    tables = []
    for stage in ROUTE_STAGES:
        for component in ("signal", "background"):
            plain, fast = ({"PRI_met": GENERATOR.normal(size=500), "PRI_n_jets": jets} for jets in numbers())
            tables.append(compare_features(plain, fast).assign(stage=stage, component=component))
    return pd.concat(tables, ignore_index=True)


def numbers() -> list[np.ndarray]:
    return [GENERATOR.integers(0, 4, 500).astype(float) for _ in range(2)]


def yields() -> pd.DataFrame:
    scales = [0.9, 1.0, 1.1]
    rows = [
        {"component": c, "scale": z, "counted": z**k, "smooth": z**k, "error": 0.01}
        for c, k in (("signal", 1), ("background", 2))
        for z in scales
    ]
    return pd.DataFrame(rows).set_index(["component", "scale"])


def shifted() -> Figure:
    events = {
        c: {z: pair() * torch.tensor([z**0.5, 1 / z]) for z in (0.9, 1.1)} for c in ("signal", "background")
    }
    return plot_shifted_features(events, FEATURES, RANGES, n_bins=20)


def figures() -> list[Figure]:
    return [
        shifted(),
        plot_joint_densities(pair(), pair(mass=65.0), FEATURES, RANGES, n_bins=15),
        plot_relative_yields(yields()),
        plot_route_features(comparison(), ROUTE_STAGES[2], ["PRI_met", "PRI_n_jets"]),
        plot_p_values(comparison()),
    ]


def test_figures_draw_without_warnings_and_stay_away_from_pyplot():
    before = plt.get_fignums()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in figures():
            figure.draw_without_rendering()
    assert plt.get_fignums() == before


def test_components_have_their_colors_and_features_their_units():
    axes = shifted().axes
    for axis, color in zip(axes[::2], (SIGNAL_COLOR, BACKGROUND_COLOR), strict=True):
        assert {mcolors.to_hex(patch.get_edgecolor()).upper() for patch in axis.patches} == {color}
    assert axes[2].get_xlabel().endswith("[GeV]")
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == ["$z = 0.9$", "$z = 1.1$"]


def test_a_density_integrates_to_the_share_in_range():
    values = pair()
    figure = plot_shifted_features({"signal": {1.0: values}}, FEATURES, RANGES, n_bins=20)
    patch = figure.axes[0].patches[0]
    data = patch.get_data()
    inside = ((values[:, 0] >= 20) & (values[:, 0] <= 160)).double().mean()
    assert (data.values * np.diff(data.edges)).sum() == pytest.approx(float(inside))


def test_the_ratio_is_shown_where_both_have_events():
    signal, background = pair(), pair(mass=65.0)
    figure = plot_joint_densities(signal, background, FEATURES, RANGES, n_bins=15)
    meshes = [axis.collections[0] for axis in figure.axes[:3]]
    ratio = np.ma.filled(meshes[2].get_array(), np.nan)
    densities = [np.ma.filled(mesh.get_array(), np.nan) for mesh in meshes[:2]]
    shown = np.isfinite(ratio)
    assert 5 < shown.sum() < ratio.size
    np.testing.assert_allclose(ratio[shown], np.log(densities[0] / densities[1])[shown])


def test_rates_and_their_ratio():
    left, right = plot_relative_yields(yields()).axes
    assert left.lines[0].get_color() == SIGNAL_COLOR
    np.testing.assert_allclose(right.lines[0].get_ydata(), [1 / 0.9, 1.0, 1 / 1.1])


def test_differences_are_in_standard_errors():
    """Of 30 + 4 differences of two components none is beyond 5, and their mean square is about 1."""
    figure = plot_route_features(comparison(), ROUTE_STAGES[0], ["PRI_met", "PRI_n_jets"])
    below = figure.axes[2]
    pulls = np.concatenate([line.get_ydata() for line in below.lines if len(line.get_xdata()) > 2])
    assert 0.4 < np.mean(pulls**2) < 2.0


def test_p_values_are_sorted_against_their_expectation():
    table = comparison()
    axis = plot_p_values(table).axes[0]
    for stage, line in zip(ROUTE_STAGES, axis.lines, strict=False):
        chosen = table[(table.stage == stage) & (table.component == "signal")]
        np.testing.assert_allclose(line.get_ydata(), sorted(chosen.p_value))
        np.testing.assert_allclose(line.get_xdata(), [0.25, 0.75])
