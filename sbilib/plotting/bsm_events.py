"""Figures of the events of the heavy Higgs search: features, correlations, agreement with public events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from torch import Tensor

from sbilib.diagnostics import correlation_matrix
from sbilib.errors import DataError, ParameterError, check_count
from sbilib.plotting.legends import legend_above
from sbilib.plotting.style import (
    BACKGROUND_COLOR,
    NEUTRAL_COLOR,
    SERIES_COLORS,
    SIGNAL_COLOR,
    TRUTH_COLOR,
    figure_size,
    style_context,
)
from sbilib.simulation.bsm_schema import BSM_UNITS

__all__ = [
    "bsm_label",
    "plot_agreement",
    "plot_bsm_correlations",
    "plot_bsm_features",
    "plot_distances",
    "plot_steps",
]

_COLORS = {"signal": SIGNAL_COLOR, "background": BACKGROUND_COLOR}
_NAMES = {"signal": r"signal, $H^0 \to WWb\bar b$", "background": r"background, $t\bar t$"}
_MARKERS = {"signal": "o", "background": "s"}
_LINES = ("-", "--", "-.", ":")
_MASSES = {
    "m_jj": "jj", "m_jjj": "jjj", "m_lv": r"\ell\nu", "m_jlv": r"j\ell\nu", "m_bb": "bb", "m_wbb": "Wbb",
    "m_wwbb": "WWbb",
}  # fmt: skip
_PARTS = {
    "pT": "momentum", "pt": "momentum", "eta": "pseudorapidity", "phi": "azimuth", "btag": "tag",
    "magnitude": "momentum",
}  # fmt: skip


def bsm_label(feature: str) -> str:
    """Axis label of a feature, with its unit.

    >>> bsm_label("jet_1_pt"), bsm_label("missing_energy_phi"), bsm_label("lepton_eta")
    ('momentum of jet 1 [GeV]', 'missing azimuth [rad]', 'pseudorapidity of the lepton')
    """
    unit = "" if BSM_UNITS[feature] == "1" else f" [{BSM_UNITS[feature]}]"
    if feature in _MASSES:
        return rf"$m_{{{_MASSES[feature]}}}${unit}"
    part = _PARTS[feature.rpartition("_")[2]]
    if feature.startswith("missing"):
        return f"missing {part}{unit}"
    owner = "the lepton" if feature.startswith("lepton") else f"jet {feature.split('_')[1]}"
    return f"{part} of {owner}{unit}"


def plot_bsm_features(
    signal: Tensor,
    background: Tensor,
    features: Sequence[str],
    *,
    n_bins: int = 40,
    columns: int = 3,
    marks: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """Density of each feature for signal and background.

    The range holds the central 99% of both; what lies outside counts in the density.

    Args:
        signal: events ``(n, d)``.
        background: events ``(m, d)``.
        features: names of the d features.
        n_bins: bins of each.
        columns: panels in a row.
        marks: by feature, by component, a value to mark with a dotted line.

    Returns:
        The figure, a panel for each feature.

    Raises:
        DataError: if events and names do not fit.
        ParameterError: if a number is too small.
    """
    check_count("n_bins", n_bins, low=1)
    check_count("columns", columns, low=1)
    _check_width({"signal": signal, "background": background}, features)
    with style_context():
        rows = math.ceil(len(features) / columns)
        figure = Figure(figsize=figure_size(aspect=min(0.08 + 0.72 / columns * rows, 3.0)))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for index, (axis, feature) in enumerate(zip(axes, features, strict=False)):
            both = {"signal": signal[:, index].numpy(), "background": background[:, index].numpy()}
            edges = _edges(feature, list(both.values()), n_bins)
            for component, values in both.items():
                density = np.histogram(values, edges)[0] / (len(values) * np.diff(edges))
                axis.stairs(density, edges, color=_COLORS[component], linewidth=1.6, label=_NAMES[component])
            for component, value in (marks or {}).get(feature, {}).items():
                axis.axvline(value, color=_COLORS[component], linewidth=1.0, linestyle=":")
            axis.set(ylim=(0.0, None), xlabel=bsm_label(feature))
            axis.set_ylabel("density" if index % columns == 0 else "")
            axis.xaxis.set_major_locator(MaxNLocator(4))
            axis.yaxis.set_major_locator(MaxNLocator(3))
        for axis in axes[len(features) :]:
            axis.set_visible(False)
        legend_above(figure, list(axes[: len(features)]), columns=2)
    return figure


def plot_steps(
    samples: Mapping[str, ArrayLike], feature: str, *, low: float, high: float, n_bins: int = 50, mark: float
) -> Figure:
    """Densities of one feature of the signal after several steps, with a line at the value it should have.

    Args:
        samples: values ``(n,)`` by the name of the step; up to four.
        feature: its name.
        low, high: shown range.
        n_bins: bins in it.
        mark: the value to mark.

    Raises:
        ParameterError: if there are more than four steps.
    """
    if len(samples) > len(_LINES):
        raise ParameterError(f"up to {len(_LINES)} steps can be told apart, got {len(samples)}; choose some")
    edges = np.linspace(low, high, n_bins + 1)
    with style_context():
        figure = Figure(figsize=figure_size(0.75, aspect=0.6))
        axis = figure.subplots()
        colors = (*SERIES_COLORS[: len(samples) - 1], SIGNAL_COLOR)
        lines = (*_LINES[1 : len(samples)], _LINES[0])
        for (name, given), color, line in zip(samples.items(), colors, lines, strict=True):
            values = np.asarray(given, dtype=np.float64)
            density = np.histogram(values, edges)[0] / (len(values) * np.diff(edges))
            axis.stairs(density, edges, color=color, linestyle=line, linewidth=1.6, label=name)
        axis.axvline(mark, color=TRUTH_COLOR, linewidth=1.0, linestyle=":")
        axis.set(ylim=(0.0, None), xlim=(low, high), xlabel=bsm_label(feature), ylabel="density [1/GeV]")
        legend_above(figure, [axis], columns=2)
    return figure


def plot_bsm_correlations(signal: Tensor, background: Tensor, features: Sequence[str]) -> Figure:
    """Correlation coefficients of all pairs of features: of signal, of background, and their difference.

    Args:
        signal: events ``(n, d)``.
        background: events ``(m, d)``.
        features: names of the d features.

    Raises:
        DataError: if events and names do not fit.
    """
    _check_width({"signal": signal, "background": background}, features)
    both = [correlation_matrix(events.double().numpy()) for events in (signal, background)]
    titles = (_NAMES["signal"], _NAMES["background"], "signal minus background")
    with style_context():
        figure = Figure(figsize=figure_size(1.25, aspect=0.55))
        axes = figure.subplots(1, 3, sharey=True)
        for axis, matrix, title in zip(axes, (*both, both[0] - both[1]), titles, strict=True):
            mesh = axis.imshow(matrix, cmap="PuOr_r", vmin=-1.0, vmax=1.0)
            axis.set_title(title)
            axis.set_xticks(range(len(features)), features, rotation=90, fontsize=7)
        axes[0].set_yticks(range(len(features)), features, fontsize=7)
        figure.colorbar(mesh, ax=list(axes), location="bottom", shrink=0.5, label="correlation")
    return figure


def plot_agreement(table: pd.DataFrame, features: Sequence[str], *, jets: str, columns: int = 4) -> Figure:
    """Our events (lines) and the public ones (points), and below their difference in standard errors.

    Args:
        table: of `sbilib.studies.bsm_agreement.compare_with_public`.
        features: names of features.
        jets: one of the treatments of jets in the table.
        columns: features in a row.

    Raises:
        DataError: if the table lacks a feature.
        ParameterError: if a number is too small.
    """
    check_count("columns", columns, low=1)
    rows = math.ceil(len(features) / columns)
    with style_context():
        figure = Figure(figsize=figure_size(1.25, aspect=min(0.06 + 0.33 * rows, 3.0)))
        axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=(2.2, 1) * rows)
        for index, feature in enumerate(features):
            row, column = 2 * (index // columns), index % columns
            above, below = axes[row, column], axes[row + 1, column]
            for component in _COLORS:
                _draw_pair(above, below, _one(table, component, jets, feature), component)
            above.set_ylim(0.0, None)
            below.sharex(above)
            above.tick_params(labelbottom=False)
            below.set(ylim=(-6, 6), xlabel=bsm_label(feature))
            below.axhline(0.0, color=NEUTRAL_COLOR, linewidth=0.8)
            above.yaxis.set_major_locator(MaxNLocator(3))
            if column == 0:
                above.set_ylabel("density")
                below.set_ylabel("difference\n[errors]")
        for index in range(len(features), rows * columns):
            axes[2 * (index // columns), index % columns].set_visible(False)
            axes[2 * (index // columns) + 1, index % columns].set_visible(False)
        legend_above(figure, [axes[0, 0]], columns=4)
    return figure


def plot_distances(table: pd.DataFrame, features: Sequence[str], *, jets: Sequence[str]) -> Figure:
    """Kolmogorov-Smirnov distance of our events from the public ones, for each feature.

    Args:
        table: of `sbilib.studies.bsm_agreement.compare_with_public`.
        features: names of features.
        jets: up to two treatments of jets in the table: filled markers, then open ones.

    Returns:
        The figure with a panel per component; the band holds 95% of distances if nothing differs.

    Raises:
        DataError: if the table lacks a feature.
        ParameterError: if there are more than two treatments.
    """
    if not 0 < len(jets) <= 2:
        raise ParameterError(f"one or two treatments of jets can be drawn, got {len(jets)}; choose some")
    place = np.arange(len(features), dtype=float)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=min(0.2 + 0.04 * len(features), 3.0)))
        axes = figure.subplots(1, len(_COLORS), sharex=True, sharey=True)
        for axis, component in zip(axes, _COLORS, strict=True):
            for number, treatment in enumerate(jets):
                chosen = [_one(table, component, treatment, feature) for feature in features]
                axis.errorbar(
                    [row.distance for row in chosen], place + 0.3 * number - 0.15, fmt=_MARKERS[component],
                    xerr=[row.error for row in chosen], color=_COLORS[component], capsize=2, elinewidth=1.0,
                    markerfacecolor="white" if number else _COLORS[component], label=f"jets {treatment}",
                )  # fmt: skip
            axis.axvspan(0.0, chosen[0].limit, color="#C8C8C8", linewidth=0.0, label="95% if equal")
            axis.set(title=_NAMES[component], xlabel="Kolmogorov-Smirnov distance", xlim=(0.0, None))
            axis.legend(loc="lower right", fontsize=8)
        axes[0].set_yticks(place, features, fontsize=8)
        axes[0].set_ylim(len(features) - 0.5, -0.5)
    return figure


def _check_width(samples: Mapping[str, Tensor], features: Sequence[str]) -> None:
    for name, events in samples.items():
        if events.ndim != 2 or len(events) == 0 or events.shape[1] != len(features):
            raise DataError(
                f"{name} must have shape (n_events, {len(features)}), got {tuple(events.shape)}; give the "
                "columns of the named features, in their order"
            )


def _edges(feature: str, samples: Sequence[np.ndarray], n_bins: int) -> np.ndarray:
    if feature.endswith("_btag"):
        return np.arange(4.0) - 0.5
    bounds = [np.quantile(values, (0.005, 0.995)) for values in samples]
    return np.linspace(min(low for low, _ in bounds), max(high for _, high in bounds), n_bins + 1)


def _one(table: pd.DataFrame, component: str, jets: str, feature: str) -> pd.Series:
    chosen = table[(table.component == component) & (table.jets == jets) & (table.feature == feature)]
    if len(chosen) != 1:
        raise DataError(
            f"the table has {len(chosen)} rows of {component} {feature}, jets {jets}; one is needed"
        )
    return chosen.iloc[0]


def _draw_pair(above: Axes, below: Axes, row: pd.Series, component: str) -> None:
    edges = np.asarray(row.edges, dtype=np.float64)
    counts = {name: np.asarray(row[f"counts_{name}"], dtype=np.float64) for name in ("ours", "public")}
    numbers = {name: float(row[f"n_{name}"]) for name in counts}
    density = {name: counts[name] / (numbers[name] * np.diff(edges)) for name in counts}
    middle, color, marker = (edges[1:] + edges[:-1]) / 2, _COLORS[component], _MARKERS[component]
    above.stairs(density["ours"], edges, color=color, label=f"{component}, ours")
    spread = np.sqrt(counts["public"]) / (numbers["public"] * np.diff(edges))
    above.errorbar(
        middle, density["public"], spread, fmt=marker, markersize=2.5, color=TRUTH_COLOR, linewidth=0.8,
        markerfacecolor=color, markeredgewidth=0.5, label=f"{component}, public",
    )  # fmt: skip
    pooled = (counts["ours"] + counts["public"]) / (numbers["ours"] + numbers["public"])
    variance = pooled * (1.0 - pooled) * (1.0 / numbers["ours"] + 1.0 / numbers["public"])
    enough = counts["public"] + counts["ours"] >= 10
    share = {name: counts[name] / numbers[name] for name in counts}
    pull = (share["ours"] - share["public"])[enough] / np.sqrt(variance[enough])
    below.plot(middle[enough], pull, marker, color=color, markersize=2.5)
