"""Figures of the heavy Higgs search show densities, correlations and distances as they are."""

from __future__ import annotations

import warnings

import matplotlib.colors as mcolors
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from sbilib.errors import DataError, ParameterError
from sbilib.plotting import BACKGROUND_COLOR, SIGNAL_COLOR
from sbilib.plotting.bsm_events import (
    bsm_label,
    plot_agreement,
    plot_bsm_correlations,
    plot_bsm_features,
    plot_distances,
    plot_steps,
)
from sbilib.simulation.bsm_schema import BSM_FEATURES

NAMES = ("lepton_pT", "jet_1_btag", "m_bb")


def events(seed: int, n_events: int = 2000) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    first = rng.normal(60.0, 10.0, n_events)
    columns = [first, rng.integers(0, 3, n_events), 2.0 * first + rng.normal(0.0, 5.0, n_events)]
    return torch.from_numpy(np.column_stack(columns)).float()


def table() -> pd.DataFrame:
    rows, edges = [], np.linspace(0.0, 1.0, 6)
    rng = np.random.default_rng(3)
    for component in ("signal", "background"):
        for jets, distance in (("as stored", 0.1), ("by momentum", 0.02)):
            for name in NAMES:
                row = {"component": component, "jets": jets, "feature": name, "distance": distance}
                row |= {"error": 0.01, "limit": 0.03, "edges": edges, "n_ours": 5000, "n_public": 1000}
                row["counts_ours"] = rng.multinomial(5000, np.full(5, 0.2))
                rows.append(row | {"counts_public": rng.multinomial(1000, np.full(5, 0.2))})
    return pd.DataFrame(rows)


def steps() -> Figure:
    values = events(1)[:, 2]
    return plot_steps({"raw": values, "corrected": values * 1.04}, "m_bb", low=0, high=250, mark=125.0)


def figures() -> list[Figure]:
    signal, background = events(1), events(2)
    return [
        plot_bsm_features(signal, background, NAMES, columns=2, marks={"m_bb": {"signal": 125.0}}),
        plot_bsm_correlations(signal, background, NAMES),
        plot_agreement(table(), NAMES, jets="by momentum", columns=2),
        plot_distances(table(), NAMES, jets=("as stored", "by momentum")),
        steps(),
    ]


def test_figures_draw_without_warnings_and_stay_away_from_pyplot():
    before = plt.get_fignums()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in figures():
            figure.draw_without_rendering()
    assert plt.get_fignums() == before


def test_every_feature_has_a_label_of_its_own_with_its_unit():
    labels = [bsm_label(name) for name in BSM_FEATURES]
    assert len(set(labels)) == len(labels)
    assert sum("[GeV]" in label for label in labels) == 13
    assert sum("[rad]" in label for label in labels) == 6


def test_densities_have_the_colors_of_components_and_count_all_events():
    figure = plot_bsm_features(events(1), events(2), NAMES, n_bins=30)
    for axis in figure.axes:
        colors = [mcolors.to_hex(patch.get_edgecolor()).upper() for patch in axis.patches]
        assert colors == [SIGNAL_COLOR, BACKGROUND_COLOR]
    data = figure.axes[0].patches[0].get_data()
    values = events(1)[:, 0].double()
    inside = ((values >= data.edges[0]) & (values <= data.edges[-1])).double().mean()
    assert (data.values * np.diff(data.edges)).sum() == pytest.approx(float(inside), abs=1e-3)
    shares = [float((events(1)[:, 1] == tag).double().mean()) for tag in range(3)]
    np.testing.assert_allclose(figure.axes[1].patches[0].get_data().values, shares)


def test_correlations_are_those_of_numpy():
    images = [axis.images[0] for axis in plot_bsm_correlations(events(1), events(2), NAMES).axes[:3]]
    signal, background, difference = (np.asarray(image.get_array()) for image in images)
    np.testing.assert_allclose(signal, np.corrcoef(events(1).double().numpy().T), atol=1e-12)
    np.testing.assert_allclose(difference, signal - background, atol=1e-12)


def test_differences_are_in_standard_errors():
    """Of 2 x 3 x 5 differences of equal densities the mean square is 0.8, its standard error 0.2."""
    axes = plot_agreement(table(), NAMES, jets="by momentum", columns=3).axes
    pulls = [line.get_ydata() for axis in axes[3:] for line in axis.lines if line.get_linestyle() == "None"]
    assert sum(map(len, pulls)) == 30
    assert 0.2 < np.mean(np.concatenate(pulls) ** 2) < 1.6


def test_distances_are_drawn_by_treatment_beside_their_band():
    signal, background = plot_distances(table(), NAMES, jets=("as stored", "by momentum")).axes
    for axis in (signal, background):
        drawn = [container.lines[0].get_xdata().tolist() for container in axis.containers]
        assert drawn == [[0.1] * 3, [0.02] * 3]
        assert axis.patches[0].get_width() == pytest.approx(0.03)
    assert [text.get_text() for text in signal.get_yticklabels()] == list(NAMES)


def test_the_last_step_is_solid_in_the_color_of_the_signal():
    first, last = steps().axes[0].patches
    assert mcolors.to_hex(last.get_edgecolor()).upper() == SIGNAL_COLOR
    assert (first.get_linestyle(), last.get_linestyle()) == ("--", "-")


def test_what_does_not_fit_is_named():
    with pytest.raises(DataError, match="background must have shape"):
        plot_bsm_features(events(1), events(2)[:, :2], NAMES)
    with pytest.raises(DataError, match="rows of signal m_jj"):
        plot_distances(table(), ["m_jj"], jets=["as stored"])
    with pytest.raises(ParameterError, match="up to 4 steps"):
        plot_steps({str(n): [1.0] for n in range(5)}, "m_bb", low=0, high=2, mark=1)
    with pytest.raises(ParameterError, match="one or two treatments"):
        plot_distances(table(), NAMES, jets=[])
