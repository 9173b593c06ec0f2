"""Figures of the events of the Higgs case, and of the agreement of the two routes that make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from sbilib.plotting.style import (
    BACKGROUND_COLOR,
    NEUTRAL_COLOR,
    SERIES_COLORS,
    SIGNAL_COLOR,
    TRUTH_COLOR,
    figure_size,
    style_context,
)
from sbilib.simulation.schema import UNITS

__all__ = [
    "FEATURE_LABELS",
    "plot_joint_densities",
    "plot_p_values",
    "plot_relative_yields",
    "plot_route_features",
    "plot_shifted_features",
]

FEATURE_LABELS = {
    "DER_mass_vis": r"visible mass $m_\mathrm{vis}$ [GeV]",
    "DER_pt_ratio_lep_had": r"pt ratio, lepton over tau",
    "PRI_met": r"missing momentum [GeV]",
    "PRI_had_pt": r"pt of the tau [GeV]",
    "PRI_lep_pt": r"pt of the lepton [GeV]",
    "PRI_n_jets": "number of jets",
    "DER_mass_transverse_met_lep": "transverse mass [GeV]",
    "DER_pt_h": r"pt of lepton, tau and missing [GeV]",
}
"""Axis labels with units; features that are not named here go by their name."""

_COMPONENT_COLORS = {"signal": SIGNAL_COLOR, "background": BACKGROUND_COLOR}
_COMPONENT_NAMES = {"signal": r"signal, $H \to \tau\tau$", "background": r"background, $Z \to \tau\tau$"}
_SCALE_LINES = ("--", "-", ":")
_MARKERS = {"signal": "o", "background": "s"}


def _label(feature: str) -> str:
    unit = UNITS.get(feature, "1")
    return FEATURE_LABELS.get(feature, feature if unit == "1" else f"{feature} [{unit}]")


def plot_shifted_features(
    events: Mapping[str, Mapping[float, Tensor]],
    features: Sequence[str],
    ranges: Sequence[tuple[float, float]],
    *,
    n_bins: int = 50,
) -> Figure:
    """Distributions of features at several tau energy scales.

    Args:
        events: by component, by scale, events ``(n, d)``; up to three scales.
        features: names of the d features.
        ranges: shown range of each.
        n_bins: bins in a range.

    Returns:
        The figure, a row per component and a column per feature.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.36 * len(events) + 0.05))
        axes = figure.subplots(len(events), len(features), squeeze=False, sharex="col")
        for row, (component, of_scale) in zip(axes, events.items(), strict=True):
            for index, (axis, feature) in enumerate(zip(row, features, strict=True)):
                for (scale, values), line in zip(of_scale.items(), _SCALE_LINES, strict=False):
                    edges = np.linspace(*ranges[index], n_bins + 1)
                    counts = np.histogram(values[:, index].numpy(), bins=edges)[0]
                    density = counts / (len(values) * np.diff(edges))
                    color = _COMPONENT_COLORS[component]
                    axis.stairs(
                        density, edges, color=color, linestyle=line, linewidth=1.6, label=f"$z = {scale:g}$"
                    )
                axis.set_ylim(0.0, None)
                axis.set_title(_COMPONENT_NAMES[component] if index == 0 else "")
                axis.set_ylabel("density [1/GeV]" if "[GeV]" in _label(feature) else "density")
            row[-1].legend()
        for axis, feature in zip(axes[-1], features, strict=True):
            axis.set_xlabel(_label(feature))
    return figure


def plot_joint_densities(
    signal: Tensor,
    background: Tensor,
    features: tuple[str, str],
    ranges: tuple[tuple[float, float], tuple[float, float]],
    *,
    n_bins: int = 45,
    min_events: int = 5,
) -> Figure:
    """Densities of two features for signal and background, and the logarithm of their ratio.

    Args:
        signal: events ``(n, 2)``.
        background: events ``(n, 2)``.
        features: names of both.
        ranges: shown range of each.
        n_bins: bins in each direction.
        min_events: events of each component that a bin needs to show a ratio.

    Returns:
        The figure with three panels.
    """
    edges = [np.linspace(*limits, n_bins + 1) for limits in ranges]
    counts = [
        np.histogram2d(events[:, 0].numpy(), events[:, 1].numpy(), bins=edges)[0]
        for events in (signal, background)
    ]
    area = np.outer(*(np.diff(edge) for edge in edges))
    densities = [
        count / (len(events) * area) for count, events in zip(counts, (signal, background), strict=True)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(densities[0] / densities[1])
    ratio[(counts[0] < min_events) | (counts[1] < min_events)] = np.nan
    top = max(density.max() for density in densities)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.45))
        axes = figure.subplots(1, 3, sharex=True, sharey=True)
        for axis, density, name in zip(axes, densities, ("signal", "background"), strict=False):
            shown = np.where(density > 0, density, np.nan)
            mesh = axis.pcolormesh(
                *edges, shown.T, norm=LogNorm(top / 1e3, top), cmap="cividis", rasterized=True
            )
            axis.set_title(_COMPONENT_NAMES[name])
        figure.colorbar(
            mesh, ax=list(axes[:2]), location="bottom", label="density [1/GeV]", shrink=0.6, pad=0.02
        )
        bound = max(float(np.nanmax(np.abs(ratio), initial=0.1)), 0.1)
        mesh = axes[2].pcolormesh(*edges, ratio.T, cmap="PuOr_r", vmin=-bound, vmax=bound, rasterized=True)
        axes[2].set_title("logarithm of the ratio")
        figure.colorbar(mesh, ax=axes[2], location="bottom", label=r"$\log\,p_s/p_b$", pad=0.02)
        for axis in axes:
            axis.set_xlabel(_label(features[0]))
        axes[0].set_ylabel(_label(features[1]))
    return figure


def plot_relative_yields(yields: pd.DataFrame) -> Figure:
    """Expected events against the tau energy scale, and signal over background.

    Args:
        yields: from `sbilib.studies.higgs_events.relative_yields`.

    Returns:
        The figure with two panels.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.45))
        left, right = figure.subplots(1, 2)
        for component, color in _COMPONENT_COLORS.items():
            part = yields.loc[component]
            left.plot(part.index, part.smooth, color=color, label=_COMPONENT_NAMES[component])
            left.errorbar(
                part.index, part.counted, part.error, fmt=_MARKERS[component], color=color, markersize=3
            )
        ratio = yields.loc["signal"] / yields.loc["background"]
        relative = yields.error / yields.smooth
        error = np.hypot(relative.loc["signal"], relative.loc["background"])
        right.plot(ratio.index, ratio.smooth, color=TRUTH_COLOR)
        right.errorbar(
            ratio.index, ratio.counted, ratio.counted * error, fmt="o", color=TRUTH_COLOR, markersize=3
        )
        left.set_ylabel(r"expected events, relative to $z = 1$")
        right.set_ylabel("signal over background, relative")
        left.legend()
        for axis in (left, right):
            axis.axvline(1.0, color=NEUTRAL_COLOR, linewidth=0.8, linestyle=":")
            axis.axhline(1.0, color=NEUTRAL_COLOR, linewidth=0.8, linestyle=":")
            axis.set_xlabel(r"tau energy scale $z$")
    return figure


def plot_route_features(table: pd.DataFrame, stage: str, features: Sequence[str]) -> Figure:
    """Distributions of features by both routes, and their difference in standard errors.

    Args:
        table: from `sbilib.studies.higgs_routes.compare_routes`.
        stage: one of its stages.
        features: up to four features.

    Returns:
        The figure; a column per feature, densities above and differences below.
    """
    with style_context():
        figure = Figure(figsize=figure_size(1.25, aspect=0.5))
        axes = figure.subplots(2, len(features), sharex="col", squeeze=False, height_ratios=(2.2, 1))
        for column, feature in enumerate(features):
            for component in _COMPONENT_COLORS:
                chosen = (table.stage == stage) & (table.feature == feature) & (table.component == component)
                _draw_routes(axes[0, column], axes[1, column], table[chosen].iloc[0], component)
            axes[0, column].set_ylim(0.0, None)
            axes[1, column].set(ylim=(-4, 4), xlabel=_label(feature))
            axes[1, column].axhline(0.0, color=NEUTRAL_COLOR, linewidth=0.8)
        axes[0, 0].set_ylabel("density")
        axes[1, 0].set_ylabel("fast minus plain\n[standard errors]")
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=4)
    return figure


def _draw_routes(above: Axes, below: Axes, row: pd.Series, component: str) -> None:
    edges = np.asarray(row.edges, dtype=np.float64)
    counts = {route: np.asarray(row[f"counts_{route}"], dtype=np.float64) for route in ("plain", "fast")}
    numbers = {route: float(row[f"n_{route}"]) for route in counts}
    density = {route: counts[route] / (numbers[route] * np.diff(edges)) for route in counts}
    middle = (edges[1:] + edges[:-1]) / 2
    color, marker = _COMPONENT_COLORS[component], _MARKERS[component]
    above.stairs(density["fast"], edges, color=color, label=f"{component}, fast route")
    spread = np.sqrt(counts["plain"]) / (numbers["plain"] * np.diff(edges))
    above.errorbar(
        middle, density["plain"], spread, fmt=marker, markersize=2.5, color=TRUTH_COLOR, linewidth=0.8,
        markerfacecolor=color, markeredgewidth=0.5, label=f"{component}, plain route",
    )  # fmt: skip
    share = {route: counts[route] / numbers[route] for route in counts}
    pooled = (counts["plain"] + counts["fast"]) / (numbers["plain"] + numbers["fast"])
    variance = pooled * (1.0 - pooled) * (1.0 / numbers["plain"] + 1.0 / numbers["fast"])
    enough = counts["plain"] + counts["fast"] >= 10
    pull = (share["fast"] - share["plain"])[enough] / np.sqrt(variance[enough])
    below.plot(middle[enough], pull, marker, color=color, markersize=3)


def plot_p_values(table: pd.DataFrame) -> Figure:
    """Sorted p-values of all features against what they would be if the routes agree.

    Args:
        table: from `sbilib.studies.higgs_routes.compare_routes`.

    Returns:
        The figure with a panel per component; the diagonal is agreement, the dashed line the p-value below
        which the smallest of as many features would count as a difference at 1%.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.55))
        axes = figure.subplots(1, len(_COMPONENT_COLORS), sharex=True, sharey=True)
        stages = list(dict.fromkeys(table.stage))
        for axis, component in zip(axes, _COMPONENT_COLORS, strict=True):
            for stage, color, marker in zip(stages, SERIES_COLORS, ("o", "s", "^", "v"), strict=False):
                values = np.sort(table[(table.stage == stage) & (table.component == component)].p_value)
                expected = (np.arange(len(values)) + 0.5) / len(values)
                axis.plot(expected, values, marker, color=color, label=stage, markersize=3.5)
            axis.plot([5e-3, 1], [5e-3, 1], color=NEUTRAL_COLOR, linewidth=1.0)
            largest = table.groupby(["stage", "component"]).size().max()
            axis.axhline(0.01 / largest, color=TRUTH_COLOR, linestyle="--", linewidth=1.0)
            axis.set(xscale="log", yscale="log", title=_COMPONENT_NAMES[component])
            axis.set_xlabel("expected p-value, if the routes agree")
        axes[0].set_ylabel("p-value found")
        axes[0].set_ylim(1e-4, 2.0)
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2)
    return figure
