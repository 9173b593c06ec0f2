"""Figures of a sweep: metrics against the learning rate, over models, and against the number of swaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from sbilib.plotting.style import METHOD_STYLES, NEUTRAL_COLOR, figure_size, style_context

__all__ = ["METRIC_LABELS", "plot_learning_rates", "plot_model_histograms", "plot_swaps"]

METRIC_LABELS: Mapping[str, str] = {
    "mu overlap": r"$\mu$ overlap",
    "z overlap": r"$z$ overlap",
    "total overlap": "total overlap",
    "mu coverage": r"$\mu$ coverage",
    "z coverage": r"$z$ coverage",
    "mu mean width": r"$\mu$ mean width",
    "z mean width": r"$z$ mean width [rad]",
}
"""Names of the metrics on axes, with units, in the order of the figures."""
_BINS = 15


def plot_learning_rates(summary: pd.DataFrame) -> Figure:
    """Metrics against the learning rate, a row a metric and a column a case (Fig. 4.2 of Sluijter 2024).

    Args:
        summary: result of `sbilib.studies.summarize_sweep`: lines are means over models, bands one standard
            deviation to each side. The exact likelihood has no learning rate and is drawn over the whole
            width; its overlap with itself is one and is left out.

    Returns:
        The figure, unknown to pyplot.
    """
    metrics = _metrics_of(summary.columns.get_level_values(0))
    cases = list(dict.fromkeys(summary.index.get_level_values("case")))
    with style_context():
        figure = Figure(figsize=figure_size(aspect=min(0.1 + 0.21 * len(metrics), 3.0)))
        axes = figure.subplots(len(metrics), len(cases), sharex=True, squeeze=False)
        for column, case in enumerate(cases):
            of_case = summary.xs(case, level="case")
            methods = list(dict.fromkeys(of_case.index.get_level_values("method")))
            for row, metric in enumerate(metrics):
                for method in methods:
                    if not (method == "truth" and "overlap" in metric):
                        values = pd.DataFrame(of_case[metric]).xs(method, level="method")
                        _draw_against_rate(axes[row, column], pd.DataFrame(values), method)
                _mark_rates(axes[row, column], summary.index.get_level_values("learning_rate"))
            axes[0, column].set_title(f"{case} distance")
            axes[-1, column].set_xlabel("learning rate")
        for row, metric in enumerate(metrics):
            axes[row, 0].set_ylabel(METRIC_LABELS[metric])
        figure.align_ylabels(axes[:, 0])
        _legend_above(figure, axes.ravel().tolist())
    return figure


def _mark_rates(axis: Axes, rates: pd.Index) -> None:
    axis.set_xscale("log")
    ticks = sorted({float(rate) for rate in rates if rate == rate})
    axis.set_xticks(ticks, [f"{rate:.0e}".replace("e-0", "e-") for rate in ticks])
    axis.xaxis.set_minor_locator(NullLocator())


def _draw_against_rate(axis: Axes, values: pd.DataFrame, method: str) -> None:
    style = METHOD_STYLES[method]
    mean, half = values["mean"].to_numpy(float), values["std"].fillna(0.0).to_numpy(float)
    if method == "truth":
        axis.axhspan(mean[0] - half[0], mean[0] + half[0], color=style.color, alpha=0.15, linewidth=0)
        axis.axhline(mean[0], color=style.color, linestyle=style.linestyle, linewidth=1.1, label=style.label)
        return
    order = np.argsort(values.index.to_numpy(float))
    rates, mean, half = values.index.to_numpy(float)[order], mean[order], half[order]
    axis.fill_between(rates, mean - half, mean + half, color=style.color, alpha=0.2, linewidth=0)
    axis.plot(
        rates, mean, color=style.color, linestyle=style.linestyle, marker=style.marker, label=style.label
    )


def plot_model_histograms(models: pd.DataFrame) -> Figure:
    """Histograms of all metrics over models, all methods in each panel (Fig. 4.3 and 4.5 of Sluijter 2024).

    Args:
        models: result of `sbilib.studies.chosen_models`, a row per model with its ``method``. Overlaps of the
            exact likelihood, one by construction, are left out.

    Returns:
        The figure, unknown to pyplot, with three panels a row.
    """
    metrics = _metrics_of(models.columns)
    methods = [name for name in METHOD_STYLES if name in set(models["method"])]
    with style_context():
        rows = -(-len(metrics) // 3)
        figure = Figure(figsize=figure_size(aspect=0.1 + 0.3 * rows))
        axes = figure.subplots(rows, 3, squeeze=False)
        for axis in axes.ravel()[len(metrics) :]:
            axis.set_visible(False)
        for axis, metric in zip(axes.ravel(), metrics, strict=False):
            shown = [name for name in methods if not (name == "truth" and "overlap" in metric)]
            groups = {name: models.loc[models["method"] == name, metric].dropna() for name in shown}
            bins = _common_bins(list(groups.values()))
            for method, values in groups.items():
                style = METHOD_STYLES[method]
                axis.hist(values, bins, color=style.color, alpha=0.18, linewidth=0)
                axis.hist(
                    values,
                    bins,
                    histtype="step",
                    color=style.color,
                    linestyle=style.linestyle,
                    linewidth=1.4,
                    label=style.label,
                )
            axis.set_xlabel(METRIC_LABELS[metric])
            axis.xaxis.set_major_locator(MaxNLocator(3))
            axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        for axis in axes[:, 0]:
            axis.set_ylabel("models")
        _legend_above(figure, axes.ravel().tolist())
    return figure


def _common_bins(groups: Sequence[pd.Series]) -> np.ndarray:
    values = np.concatenate([group.to_numpy(float) for group in groups]) if groups else np.empty(0)
    if values.size == 0:
        return np.linspace(0.0, 1.0, _BINS + 1)
    low, high = float(values.min()), float(values.max())
    margin = 0.02 * (high - low) or 0.01 * max(abs(low), 1.0)
    return np.linspace(low - margin, high + margin, _BINS + 1)


def plot_swaps(
    panels: Mapping[str, pd.DataFrame], metrics: Sequence[str] = ("mu overlap", "z overlap", "total overlap")
) -> Figure:
    """Metrics of published flow pairs against the smaller number of swaps of their two flows.

    Args:
        panels: by name of the case, rows of `sbilib.studies.model_means` at one learning rate, with
            ``min swaps``; rows without it are left out.
        metrics: one column of panels each.

    Returns:
        The figure, unknown to pyplot: a point a pair, a bar the mean of a number of swaps.
    """
    style = METHOD_STYLES["flow"]
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.1 + 0.32 * len(panels)))
        axes = figure.subplots(len(panels), len(metrics), sharex=True, squeeze=False)
        for axis_row, (case, models) in zip(axes, panels.items(), strict=True):
            flows = models[models["min swaps"].notna()]
            swaps = flows["min swaps"].to_numpy(int)
            for axis, metric in zip(axis_row, metrics, strict=True):
                values = flows[metric].to_numpy(float)
                axis.plot(
                    _side_by_side(swaps), values, style.marker, color=style.color, alpha=0.6, linestyle=""
                )
                for number in np.unique(swaps):
                    mean = float(np.mean(values[swaps == number]))
                    axis.plot([number - 0.3, number + 0.3], [mean, mean], color=NEUTRAL_COLOR, linewidth=2.0)
                axis.set_ylabel(METRIC_LABELS[metric])
                axis.set_title(f"{case} distance")
                if "overlap" in metric:
                    axis.set_ylim(0.0, 1.02)
        for axis in axes[-1]:
            axis.set_xlabel("swaps between layers")
            axis.set(xlim=(-0.5, 3.5), xticks=range(4))
    return figure


def _side_by_side(swaps: np.ndarray) -> np.ndarray:
    """Places along the axis: points with the same number of swaps next to each other, always the same way."""
    places = swaps.astype(float)
    for number in np.unique(swaps):
        here = np.flatnonzero(swaps == number)
        places[here] += np.linspace(-0.2, 0.2, len(here)) if len(here) > 1 else 0.0
    return places


def _metrics_of(columns: Sequence[str] | pd.Index) -> list[str]:
    return [name for name in METRIC_LABELS if name in set(columns)]


def _legend_above(figure: Figure, axes: Sequence[Axes]) -> None:
    entries = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=len(entries) or 1)
