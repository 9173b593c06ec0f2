"""Figures of many pairs of models on the Higgs case: coverage, width, and what a missing swap does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sbilib.plotting.coverage import NOMINAL_LEVEL
from sbilib.plotting.legends import legend_above
from sbilib.plotting.style import METHOD_STYLES, NEUTRAL_COLOR, SERIES_COLORS, figure_size, style_context

__all__ = [
    "PointSeries",
    "plot_coverage_at_points",
    "plot_pair_histograms",
    "plot_swap_losses",
    "plot_toys_beside_bootstrap",
]

_METRICS = {
    "mu coverage": r"$\mu$ coverage",
    "z coverage": r"$z$ coverage",
    "mu mean width": r"$\mu$ mean width",
    "z mean width": r"$z$ mean width",
}
_PARAMETERS = {"mu": r"signal ratio $\mu$", "z": r"energy scale $z$"}
_N_BINS = 14


class PointSeries(NamedTuple):
    """Coverages of one method at the test points."""

    rows: pd.DataFrame
    """Rows of `sbilib.studies.higgs_pairs.precise_summary` of one method and recipe."""
    color: str
    """Color of its points."""
    marker: str
    """Their marker."""


def plot_pair_histograms(rows: Mapping[str, pd.DataFrame], levels: Mapping[str, float]) -> Figure:
    """Histograms over pairs of coverage and mean width, flow and classifier in each panel.

    Args:
        rows: by name, a table with ``method`` and the four metrics, one row of panels each.
        levels: by the same name, the coverage that a right likelihood has, drawn as a line.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.12 + 0.29 * len(rows)))
        axes = figure.subplots(len(rows), len(_METRICS), squeeze=False, sharex="col")
        for column, (metric, label) in enumerate(_METRICS.items()):
            bins = _bins([table[metric] for table in rows.values()])
            for axis, (name, table) in zip(axes[:, column], rows.items(), strict=True):
                _draw_histograms(axis, table, metric, bins)
                if "coverage" in metric:
                    axis.axvline(levels[name], color=NEUTRAL_COLOR, linestyle=":", label="right likelihood")
                axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes[-1, column].set_xlabel(label)
            axes[-1, column].xaxis.set_major_locator(MaxNLocator(3))
        for axis, name in zip(axes[:, 0], rows, strict=True):
            axis.set_ylabel(f"{name}\npairs")
        legend_above(figure, axes.ravel().tolist(), columns=5)
    return figure


def _bins(columns: Sequence[pd.Series]) -> np.ndarray:
    values = np.concatenate([column.dropna().to_numpy(float) for column in columns])
    if values.size == 0:
        return np.linspace(0.0, 1.0, _N_BINS + 1)
    low, high = float(values.min()), float(values.max())
    margin = 0.03 * (high - low) or 0.01 * max(abs(low), 1.0)
    return np.linspace(low - margin, high + margin, _N_BINS + 1)


def _draw_histograms(axis: Axes, table: pd.DataFrame, metric: str, bins: np.ndarray) -> None:
    for method in ("flow", "classifier"):
        values, style = table.loc[table["method"] == method, metric].dropna(), METHOD_STYLES[method]
        edges = bins.tolist()
        axis.hist(values, edges, color=style.color, alpha=0.18, linewidth=0)
        axis.hist(
            values,
            edges,
            histtype="step",
            label=style.label,
            color=style.color,
            linestyle=style.linestyle,
            linewidth=1.4,
        )


def plot_coverage_at_points(
    series: Mapping[str, PointSeries], *, band: tuple[float, float] = (0.66, 0.70)
) -> Figure:
    """Coverage of several methods at the nine test points, a panel a parameter.

    Args:
        series: by name in the legend.
        band: range that is shaded.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.5))
        axes = figure.subplots(1, 2, sharey=True)
        for axis, (parameter, title) in zip(axes, _PARAMETERS.items(), strict=True):
            axis.axhspan(*band, color=NEUTRAL_COLOR, alpha=0.18, linewidth=0, label="bar")
            axis.axhline(NOMINAL_LEVEL, color=NEUTRAL_COLOR, linestyle=":", linewidth=0.9, label="68.3%")
            for number, (name, item) in enumerate(series.items()):
                rows = item.rows[item.rows["parameter"] == parameter].sort_values(["mu", "z"])
                place = np.arange(len(rows)) + 0.22 * (number - (len(series) - 1) / 2)
                look = {"color": item.color, "marker": item.marker, "markersize": 4.0}
                axis.errorbar(
                    place, rows["coverage"], rows["total_error"], linestyle="", label=name, capsize=2, **look
                )
                axis.set_xticks(
                    range(len(rows)),
                    [f"{mu:g}, {z:g}" for mu, z in zip(rows["mu"], rows["z"], strict=True)],
                    rotation=60,
                )
            axis.set(title=title, xlabel=r"true $\mu$, $z$")
        axes[0].set_ylabel("coverage")
        legend_above(figure, list(axes), columns=5)
    return figure


def plot_toys_beside_bootstrap(
    panels: Mapping[str, pd.DataFrame], expected: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> Figure:
    """Coverage of each pair in bootstrap sets against that in independent toys, a panel a parameter.

    Args:
        panels: by parameter (``mu``, ``z``), rows with ``method``, ``toys`` and ``bootstrap``.
        expected: by parameter, places on the curve of expected coverages, toys and bootstrap.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.5))
        axes = figure.subplots(1, 2, squeeze=False)[0]
        for axis, (parameter, table) in zip(axes, panels.items(), strict=True):
            for method in ("flow", "classifier"):
                part, style = table[table["method"] == method], METHOD_STYLES[method]
                look = {"color": style.color, "marker": style.marker, "label": style.label, "alpha": 0.75}
                axis.plot(part["toys"], part["bootstrap"], linestyle="", markersize=4.5, **look)
            ends = [float(min(table["toys"].min(), table["bootstrap"].min())) - 0.01, NOMINAL_LEVEL + 0.02]
            axis.plot(
                ends,
                ends,
                color=NEUTRAL_COLOR,
                linewidth=0.9,
                linestyle=":",
                label="no bias of the bootstrap",
            )
            axis.plot(*expected[parameter], color=NEUTRAL_COLOR, linewidth=1.6, label="expected, k = 9")
            axis.set(
                title=_PARAMETERS[parameter],
                xlabel="coverage in independent toys",
                xlim=ends,
                ylim=(float(table["bootstrap"].min()) - 0.02, ends[1]),
            )
        axes[0].set_ylabel("coverage in bootstrap sets")
        legend_above(figure, list(axes), columns=5)
    return figure


def plot_swap_losses(
    excess: pd.DataFrame, information: Mapping[str, float], others: Mapping[str, str]
) -> Figure:
    """Excess loss of published flows against the number of swaps, with variants and ours beside them.

    Args:
        excess: result of `sbilib.studies.higgs_pairs.flow_excess`.
        information: least excess of a blind flow, by component; drawn as a line.
        others: label on the axis by recipe, for flows without random permutations.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.5))
        axes = figure.subplots(1, len(information), sharey=True, squeeze=False)[0]
        labels = [*(str(k) for k in range(4)), *others.values()]
        for axis, (component, least) in zip(axes, information.items(), strict=True):
            rows = excess[excess["component"] == component]
            groups = [rows[(rows["recipe"] == "sluijter") & (rows["swaps"] == k)] for k in range(4)]
            groups += [rows[rows["recipe"] == recipe] for recipe in others]
            for place, group in enumerate(groups):
                style = METHOD_STYLES["flow"]
                color = style.color if place < 4 else SERIES_COLORS[0]
                spread = np.linspace(-0.2, 0.2, len(group)) if len(group) > 1 else np.zeros(len(group))
                axis.plot(place + spread, group["excess"], style.marker, color=color, alpha=0.7, linestyle="")
                if len(group):
                    mean = float(group["excess"].mean())
                    axis.plot([place - 0.35, place + 0.35], [mean, mean], color=NEUTRAL_COLOR, linewidth=2.0)
            axis.axhline(least, color=NEUTRAL_COLOR, linestyle="--", linewidth=1.0)
            axis.annotate(
                "least loss of a blind flow", (len(labels) - 0.5, least), ha="right", va="bottom", fontsize=8
            )
            axis.set_xticks(range(len(labels)), labels, rotation=40)
            axis.set(title=component, xlabel="swaps, or kind of flow")
        axes[0].set_ylabel("excess loss [nats/event]")
        axes[0].set_ylim(bottom=0.0)
    return figure
