"""Figures of coverage: against the size of a test set, and at the edges of parabolic intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from sbilib.plotting.style import NEUTRAL_COLOR, TRUTH_COLOR, figure_size, style_context

__all__ = [
    "NOMINAL_LEVEL",
    "CoveragePanel",
    "plot_bootstrap_coverage",
    "plot_edge_levels",
    "plot_skewness",
    "plot_window_effect",
]

NOMINAL_LEVEL = math.erf(1 / math.sqrt(2))
"""68.27%, the level of intervals within one standard deviation."""
_SERIES: tuple[dict[str, Any], ...] = (
    {"color": TRUTH_COLOR, "marker": "o"},
    {"color": NEUTRAL_COLOR, "marker": "s", "markerfacecolor": "white"},
)
_CURVES: tuple[dict[str, Any], ...] = (
    {"color": TRUTH_COLOR, "linestyle": "--"},
    {"color": NEUTRAL_COLOR, "linestyle": "-"},
)
_BANDS: tuple[dict[str, Any], ...] = (
    {"color": NEUTRAL_COLOR, "alpha": 0.25, "linewidth": 0},
    {"facecolor": "none", "edgecolor": NEUTRAL_COLOR, "hatch": "////", "linewidth": 0},
)
_EDGES = {"lower": (TRUTH_COLOR, "-", "v"), "upper": (NEUTRAL_COLOR, "--", "^")}
_LOWEST_COVERAGE = 60.0  # in percent; lower values are written as numbers
_PARAMETERS = {"mu": r"signal ratio $\mu$", "z": r"nuisance parameter $z$"}


class CoveragePanel(NamedTuple):
    """One panel of a figure of coverage against k."""

    title: str
    """Title of the panel."""
    series: Mapping[str, pd.DataFrame]
    """Measured points by name, at most two: columns ``k``, ``coverage`` and ``error``."""
    curves: Mapping[str, Callable[[float], float]]
    """Expected coverage by name, at most two, as functions of k."""
    bands: Mapping[str, tuple[float, float]]
    """Mean and half-width of horizontal bands by name, at most two."""


def plot_bootstrap_coverage(panels: Sequence[Sequence[CoveragePanel]]) -> Figure:
    """Coverage of bootstrap sets against k, the events of a test set over those of a bootstrap set.

    Args:
        panels: rows of panels; the legend is shared, so a name must mean the same in all of them.
    """
    with style_context():
        rows, columns = len(panels), max(len(row) for row in panels)
        figure = Figure(figsize=figure_size(aspect=0.13 + 0.4 * rows))
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axis_row, panel_row in zip(axes, panels, strict=True):
            for axis, panel in zip(axis_row, panel_row, strict=True):
                _draw_coverage(axis, panel)
            axis_row[0].set_ylabel("coverage")
        for axis in axes[-1]:
            axis.set_xlabel(r"$k$ = test set / bootstrap set")
        _shared_legend(figure, axes.ravel().tolist(), columns=3)
    return figure


def _draw_coverage(axis: Axes, panel: CoveragePanel) -> None:
    ticks = sorted({float(k) for points in panel.series.values() for k in points["k"]})
    fine = np.geomspace(ticks[0] / 1.2, ticks[-1] * 1.2, 100)
    for (name, (middle, half)), style in zip(panel.bands.items(), _BANDS, strict=False):
        axis.fill_between(fine, middle - half, middle + half, label=name, **style)
    axis.axhline(NOMINAL_LEVEL, color=NEUTRAL_COLOR, linewidth=0.8, linestyle=":", label="68.3%")
    for (name, curve), line in zip(panel.curves.items(), _CURVES, strict=False):
        axis.plot(fine, [curve(float(k)) for k in fine], label=name, **line)
    for number, (name, points) in enumerate(panel.series.items()):
        # Points of different series at the same k stand side by side.
        place = points["k"] * 1.04 ** (2 * number - 1)
        axis.errorbar(
            place, points["coverage"], points["error"], label=name, linestyle="", capsize=2, **_SERIES[number]
        )
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{k:g}" for k in ticks])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_title(panel.title)


def plot_edge_levels(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Histograms of the true level at the lower and upper edges of parabolic intervals.

    Args:
        tables: results of `sbilib.studies.edge_levels` for one window, by name of the case.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.13 + 0.32 * len(tables)))
        axes = figure.subplots(len(tables), 2, sharex=True, squeeze=False)
        values = np.concatenate([table[["lower", "upper"]].to_numpy().ravel() for table in tables.values()])
        low, high = np.nanquantile(100 * values, (0.001, 0.999))
        bins = np.linspace(low, high, 45)
        for axis_row, (case, table) in zip(axes, tables.items(), strict=True):
            for axis, (parameter, label) in zip(axis_row, _PARAMETERS.items(), strict=True):
                chosen = table[table["parameter"] == parameter]
                for edge, (color, line, _) in _EDGES.items():
                    heights = np.clip(100 * chosen[edge].dropna(), bins[0], bins[-1])
                    filled: dict[str, Any] = (
                        {"histtype": "stepfilled", "alpha": 0.45} if edge == "upper" else {}
                    )
                    axis.hist(
                        heights,
                        bins,
                        **{"histtype": "step", "linewidth": 1.4, **filled},
                        color=color,
                        linestyle=line,
                        label=f"{edge} edge",
                    )
                axis.axvline(
                    100 * NOMINAL_LEVEL, color=TRUTH_COLOR, linewidth=0.8, linestyle=":", label="68.3%"
                )
                axis.set_title(f"{label}, {case} distance")
            axis_row[0].set_ylabel("bootstrap sets")
        for axis in axes[-1]:
            axis.set_xlabel("true level at the edge [%]")
        _shared_legend(figure, axes.ravel().tolist(), columns=3)
    return figure


def plot_skewness(
    tables: Mapping[str, pd.DataFrame],
    *,
    expected_level: Callable[[float, bool], float],
    expected_skewness: Callable[[float], float],
) -> Figure:
    """How the skewness of the profile of the signal ratio explains the levels at the edges.

    Args:
        tables: results of `sbilib.studies.edge_levels` for one window, by name of the case, at most two.
        expected_level: level at an edge from the skewness, and True for the upper edge.
        expected_skewness: skewness from the best signal ratio if all labels were known.
    """
    markers = dict(zip(tables, (("o", TRUTH_COLOR), ("s", NEUTRAL_COLOR)), strict=False))
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.52))
        left, right = figure.subplots(1, 2)
        for case, table in tables.items():
            chosen = table[table["parameter"] == "mu"]
            marker, color = markers[case]
            dots: dict[str, Any] = {
                "marker": marker,
                "linestyle": "",
                "markersize": 2.0,
                "alpha": 0.35,
                "color": color,
            }
            label = f"{case} distance"
            left.plot(chosen["best"], chosen["skewness"], label=label, **dots)
            right.plot(-6 * chosen["asymmetry"], 100 * chosen["lower"], label=label, **dots)
            right.plot(-6 * chosen["asymmetry"], 100 * chosen["upper"], **dots)
        ratios = np.linspace(chosen["best"].min(), chosen["best"].max(), 200)
        ratios = ratios[ratios > 0.02]
        left.plot(
            ratios, [expected_skewness(float(m)) for m in ratios], color=TRUTH_COLOR, label="labels known"
        )
        line = np.linspace(right.get_xlim()[0], right.get_xlim()[1], 50)
        for edge, (_, style, _) in _EDGES.items():
            levels = [100 * expected_level(float(g), edge == "upper") for g in line]
            right.plot(
                line,
                levels,
                color=TRUTH_COLOR,
                linestyle=style,
                linewidth=1.1,
                label=f"expected, {edge} edge",
            )
        left.set(xlabel=r"best signal ratio $\hat\mu$", ylabel=r"skewness $\gamma$ of the quartic")
        right.set(xlabel=r"skewness $-6A$ from exact crossings", ylabel="true level at the edge [%]")
        for axis in (left, right):
            legend = axis.legend(loc="best", markerscale=2.5)
            for handle in legend.legend_handles:
                if handle is not None:
                    handle.set_alpha(1.0)
    return figure


def plot_window_effect(levels: Mapping[str, pd.DataFrame], coverage: Mapping[str, pd.DataFrame]) -> Figure:
    """Levels at the edges, and coverage, of parabolic intervals against the window of the fit.

    Args:
        levels: results of `sbilib.studies.edge_levels` with several windows, by name of the case.
        coverage: summaries of toys with the same windows and exact crossings, from
            `sbilib.studies.summarize_toy_coverage`, by name of the case.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.92))
        axes = figure.subplots(2, len(levels), sharex=True, sharey="row", squeeze=False)
        for column, case in enumerate(levels):
            _draw_window_levels(axes[0, column], levels[case])
            _draw_window_coverage(axes[1, column], coverage[case])
            axes[0, column].set_title(f"{case} distance")
            axes[1, column].set_xlabel(r"window of the fit, $\mathrm{NLL} - \min$ below")
        axes[0, 0].set_ylabel(r"level at the edges of $\mu$ [%]")
        axes[1, 0].set_ylabel("coverage in toys [%]")
        axes[0, 0].legend(loc="best")
        axes[1, 0].legend(loc="best")
    return figure


def _draw_window_levels(axis: Axes, table: pd.DataFrame) -> None:
    windows = sorted(table["window"].unique())
    chosen = table[table["parameter"] == "mu"]
    for number, (edge, (color, _, marker)) in enumerate(_EDGES.items()):
        values = [chosen.loc[chosen["window"] == window, edge] for window in windows]
        low, middle, high = 100 * np.array([np.nanquantile(v, (0.16, 0.5, 0.84)) for v in values]).T
        axis.errorbar(
            np.arange(len(windows)) + 0.12 * (2 * number - 1),
            middle,
            (middle - low, high - middle),
            color=color,
            marker=marker,
            linestyle="",
            capsize=2,
            label=f"{edge} edge (median, 68% of sets)",
        )
    axis.axhline(100 * NOMINAL_LEVEL, color=NEUTRAL_COLOR, linewidth=0.8, linestyle=":")


def _draw_window_coverage(axis: Axes, summary: pd.DataFrame) -> None:
    windows = sorted(summary["window"].dropna().unique())
    styles = {"mu": (TRUTH_COLOR, "o"), "z": (NEUTRAL_COLOR, "s")}
    for number, (parameter, (color, marker)) in enumerate(styles.items()):
        rows = summary[summary["parameter"] == parameter]
        fitted = rows[rows["intervals"] == "parabolic"].set_index("window").loc[windows]
        crossing = rows[rows["intervals"] == "crossing"].iloc[0]
        place = np.arange(len(windows)) + 0.12 * (2 * number - 1)
        for at, value in zip(place, 100 * fitted["coverage"], strict=True):
            if value < _LOWEST_COVERAGE:
                axis.annotate(
                    f"{value:.1f}%",
                    (at, _LOWEST_COVERAGE),
                    (at, _LOWEST_COVERAGE + 2.5),
                    ha="center",
                    arrowprops={"arrowstyle": "->", "color": color},
                )
        axis.errorbar(
            place,
            100 * fitted["coverage"],
            100 * fitted["error"],
            color=color,
            marker=marker,
            linestyle="",
            capsize=2,
            label=rf"$\{parameter}$, parabolic" if parameter == "mu" else r"$z$, parabolic",
        )
        line = "-" if parameter == "mu" else "--"
        name = r"$\mu$, exact crossings" if parameter == "mu" else r"$z$, exact crossings"
        axis.axhline(100 * crossing["coverage"], color=color, linewidth=1.0, linestyle=line, label=name)
    axis.set_ylim(_LOWEST_COVERAGE, 76.0)
    names = ["all" if math.isinf(window) else f"{window:g}" for window in windows]
    axis.set_xticks(np.arange(len(windows)), names)


def _shared_legend(figure: Figure, axes: Sequence[Axes], *, columns: int) -> None:
    """One legend above all panels, with every name once."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=columns)
